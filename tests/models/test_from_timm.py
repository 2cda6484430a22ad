"""timm's networks by name: sizes, weights and what their input must be; nothing here reaches for a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from espalier.models import timm_model
from espalier.models.from_timm import input_of, resized

SMALL = {"num_classes": 3, "in_channels": 3, "pretrained": False}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet18.a9_in1k"}, r"timm .* has no weights of that tag; there are resnet18\.a1_in1k, "),
        ({"name": "resnet_18"}, r"is not in timm .*; nearest: "),
        ({"name": "resnet18", "pretrained": True, "checkpoint": "x.pt"}, "both give weights; keep one"),
        ({"name": "resnet18", "args": {"in_chans": 1}}, "model.args holds in_chans, which model=timm gives itself"),
        ({"name": "resnet18", "args": {"depth": 3}}, "cannot be built with model.args={'depth': 3}"),
        ({"name": "test_resnet.nothing"}, "has no weights of that tag"),
    ],
)
def test_what_timm_does_not_have_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm_model(**{**SMALL, **settings})


def test_a_network_without_weights_names_those_that_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.models.from_timm._facts", lambda name: {})
    with pytest.raises(ValueError, match=r"has no weights for model\.name=resnet10t; there are resnet10t\.c3_in1k"):
        timm_model(**{**SMALL, "name": "resnet10t", "pretrained": True})


@pytest.mark.parametrize(("settings", "side"), [({"image_size": 32}, 32), ({"args": {"img_size": 48}}, 48)])
def test_a_vision_transformer_is_built_for_the_images(settings: dict, side: int) -> None:
    model = timm_model(name="test_vit", **SMALL, **settings).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 3)


def test_input_is_what_the_weights_were_trained_for() -> None:
    found = input_of("vit_tiny_patch16_224")
    assert (found["size"], found["interpolation"], found["mean"]) == (224, "bicubic", (0.5, 0.5, 0.5))
    assert input_of("vit_tiny_patch16_224", image_size=64)["size"] == 64
    assert resized(224, input_of("resnet18.a1_in1k")["crop"]) == 235
    assert resized(input_of(None)["size"], input_of(None)["crop"]) == 256


@pytest.mark.slow
def test_weights_that_cannot_be_had_name_where_they_are_and_the_other_way(tmp_path: Path) -> None:
    code = "from espalier.models import timm_model\ntimm_model(name='resnet18.a1_in1k', num_classes=3, in_channels=3, pretrained=True)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ValueError: model.pretrained=true: the weights of resnet18.a1_in1k are not in timm's cache")
    assert "https://huggingface.co/timm/resnet18.a1_in1k" in message
    assert "model.checkpoint=FILE" in message
