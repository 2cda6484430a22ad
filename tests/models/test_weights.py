"""Weights from a user's file: what fits, the head that does not, and what is refused."""

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from espalier.models.weights import file_digest, fill


def net(classes: int, width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, classes))


@pytest.mark.parametrize("form", ["safetensors", "plain", "wrapped", "parallel"])
def test_every_form_fills_all(tmp_path: Path, form: str) -> None:
    source, target = net(5), net(5)
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    weights = source.state_dict()
    if form == "safetensors":
        save_file(weights, path)
    elif form == "parallel":
        torch.save({f"module.{name}": weight for name, weight in weights.items()}, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if form == "wrapped" else weights, path)
    fill(target, path, file_digest(path))
    assert all(torch.equal(weight, target.state_dict()[name]) for name, weight in weights.items())


@pytest.mark.parametrize("without", [False, True], ids=["other classes", "no head in the file"])
def test_a_head_for_other_classes_is_left_out_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, without: bool) -> None:
    source, target = net(5), net(7)
    before = target[3].weight.clone()
    torch.save({name: weight for name, weight in source.state_dict().items() if not (without and name.startswith("3."))}, tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING):
        fill(target, tmp_path / "w.pt", None)
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[3].weight, before)
    assert "the head (3.weight, 3.bias) is for other classes and is left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            net(5, width=6).state_dict(),
            "0.weight is (6, 3, 3, 3) in the file, (4, 3, 3, 3) in the network; only the head (3.*) may differ",
        ),
        ({**net(5).state_dict(), "extra": torch.zeros(1)}, "it also holds extra"),
        (
            {name: weight for name, weight in net(5).state_dict().items() if not name.startswith("1.")},
            "it lacks 1.weight, 1.bias, 1.running",
        ),
        ({}, "holds no state dict"),
        (net(5), "holds no weights that can be read without running code"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=re.escape(message)):
        fill(net(5), tmp_path / "w.pt", None)


def test_a_file_that_is_missing_or_has_changed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(ValueError, match=r"model\.checkpoint=.*w\.pt: there is no such file"):
        file_digest(path)
    assert file_digest(None) is None
    torch.save(net(5).state_dict(), path)
    planned = file_digest(path)
    torch.save(net(5).state_dict(), path)
    with pytest.raises(ValueError, match="has changed since the run was planned"):
        fill(net(5), path, planned)


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = hashlib.file_digest

    def counted(content: BinaryIO, kind: str) -> Any:
        read.append(kind)
        return real(content, kind)

    monkeypatch.setattr("hashlib.file_digest", counted)
    path = tmp_path / "w.pt"
    path.write_text("one")
    assert file_digest(path) == file_digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    path.with_name("new").write_text("two")
    path.with_name("new").replace(path)
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()
    os.utime(path, ns=(0, 0))
    file_digest(path)
    assert len(read) == 3
