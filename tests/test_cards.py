"""Cards of networks that no test trains: timm's, rewritten ones, and somebody's own data."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import espalier
from espalier.cards import card
from espalier.data.sources import ORIGINS, origin_of
from espalier.models import timm_model
from espalier.record import DataSource, Record

TIMM = {"_target_": "espalier.models.timm_model", "name": "test_resnet", "num_classes": 4, "in_channels": 3, "pretrained": False}
OWN = {"_target_": "my_data.photographs", "name": "photographs"}


def record(model: dict[str, Any], data: dict[str, Any], **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "paper": "p",
        "table": "t",
        "row": "r",
        "scale": "smoke",
        "seed": 0,
        "identity": "abcdef0",
        "command": "espalier run p/t row=r",
        "commit": None,
        "dirty": True,
        "code_digest": "",
        "data": DataSource(name="x", fingerprint="y"),
        "metrics": {"top1_pct": 50.0},
        "config": {"model": model, "data": data, "steps": []},
        "steps": {},
        "checkpoint": "z",
        "versions": {},
        "device": "cpu A",
        "started": "2026-01-01T00:00:00Z",
        "duration_s": 1.0,
    }
    return Record.model_validate(fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "test_vit", "image_size": 64},
        {"name": "test_vit", "image_size": 64, "args": {"img_size": [32, 64], "drop_rate": 0.1, "global_pool": "avg"}},
    ],
    ids=["resnet", "vit", "vit with arguments"],
)
def test_a_timm_networks_card_builds_it_with_timm_alone(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = TIMM | changes
    pruned = espalier.prune(
        timm_model(**{key: value for key, value in config.items() if key != "_target_"}), constraint="unstructured", rate=2
    ).eval()
    espalier.save(pruned, tmp_path / "model.safetensors", config=config)
    images = torch.randn(1, 3, *config.get("args", {}).get("img_size", (64, 64)))
    save_file({"images": images, "logits": pruned(images).detach()}, tmp_path / "expected.safetensors")
    text = card(record(config, OWN), tmp_path / "model.safetensors", [record(config, OWN)], [])
    code = "import sys; sys.modules['espalier'] = None\n" + text.split("```python\n")[2].partition("```")[0]
    code += "from safetensors.torch import load_file\nexpected = load_file('expected.safetensors')\n"
    code += "assert torch.allclose(model(expected['images']), expected['logits'], atol=1e-5)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["library_name"], front["license"]) == ("timm", "unknown")
    assert "datasets" not in front
    assert "Licence of the data: unknown (as the owner says)" in text
    assert "with changes that were not committed.\nThose changes are not kept: `dirty.patch` of the archive" in text
    assert "Not measured." in text


def test_a_card_says_when_the_weights_are_of_a_rewritten_network(tmp_path: Path) -> None:
    model = espalier.prune(torch.nn.Sequential(torch.nn.Linear(4, 4)), constraint="unstructured", rate=2)
    rewrites = [{"_target_": "espalier.rewrites.fold_batch_norm"}]
    espalier.save(model, tmp_path / "model.safetensors", config={"_target_": "mine.net"}, rewrites=rewrites)
    text = card(record({"_target_": "mine.net"}, OWN), tmp_path / "model.safetensors", [], [])
    assert "# the weights are those of the network after fold_batch_norm; espalier.load does that again" in text
    assert 'espalier.load("model.safetensors", trust=True)' in text


def test_a_card_of_ones_own_function_says_what_it_takes_to_load_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code_of_a_card.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(4, 4)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    config = {
        "_target_": "espalier.from_python.python_model",
        "target": "code_of_a_card:net",
        "args": {},
        "num_classes": 4,
        "in_channels": 1,
    }
    espalier.save(torch.nn.Linear(4, 4), tmp_path / "model.safetensors", config=config)
    text = card(record(config, OWN), tmp_path / "model.safetensors", [], [])
    assert "# for code_of_a_card:net; copy that class" in text
    assert "runs code from outside it (espalier.from_python.python_model, code_of_a_card:net) that must be importable" in text
    found: dict[str, Any] = {}
    exec(text.split("```python\n")[1].partition("```")[0], found)
    assert isinstance(found["model"], torch.nn.Linear)


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"_target_": "espalier.data.cifar", "dataset": "cifar100", "name": "cifar100"}, "cifar100"),
        ({"_target_": "espalier.data.mnist", "name": "mnist_10k"}, "mnist"),
        ({"_target_": "espalier.data.digits_rgb"}, "digits"),
        ({"_target_": "espalier.data.imagenet_sample"}, "imagenet"),
    ],
)
def test_each_data_set_has_its_source_and_licence(data: dict[str, Any], key: str) -> None:
    assert origin_of(data) == ORIGINS[key]
    assert origin_of(data).licence in ("unknown", "other", "cc-by-4.0")


@pytest.mark.tiny
def test_every_data_config_of_ours_has_a_known_source() -> None:
    folder = Path(__file__).parents[1] / "conf" / "data"
    configs = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
    ours = {name: config for name, config in configs.items() if str(config.get("_target_", "")).startswith("espalier.data.")}
    sets = {
        name: origin_of(config)
        for name, config in ours.items()
        if "root" not in config or config.get("name", name).split("_")[0] in ORIGINS
    }
    assert len(sets) > 5
    assert all(origin.key for origin in sets.values())
