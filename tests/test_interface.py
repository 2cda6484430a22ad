"""Any network: prune, save, load, measure."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import espalier
from espalier.models import LeNet5

CONFIG = {"_target_": "espalier.models.LeNet5", "width": 0.5, "num_classes": 10, "in_channels": 1, "batch_norm": True}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


def lenet5() -> nn.Module:
    torch.manual_seed(0)
    return LeNet5(**{key: value for key, value in CONFIG.items() if key != "_target_"})  # type: ignore[arg-type]


def test_prune_returns_a_copy_with_the_asked_rate() -> None:
    model = network()
    before = [parameter.clone() for parameter in model.parameters()]
    pruned = espalier.prune(model, constraint="filter", rate=2, skip=("4",))
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    assert int(pruned[0].weight.flatten(1).any(1).sum()) == 4
    assert int((pruned[4].weight == 0).sum()) == 0
    sets = espalier.frozen(pruned)
    assert sets is not None
    assert sets.outside(sets.read(pruned)) == 0
    assert espalier.frozen(model) is None


def test_one_word_is_no_list_of_layers_to_skip() -> None:
    with pytest.raises(ValueError, match=r"skip='fc' is one word; write skip=\('fc',\)"):
        espalier.prune(nn.Linear(4, 4), constraint="filter", rate=2, skip="fc")


def test_an_own_structure_prunes_too() -> None:
    pairs = espalier.Structure("filter_pair", "(i f) ... -> i (f ...)", {"f": 2}, "test")
    pruned = espalier.prune(network(), constraint=pairs, rate=4, skip=("4",))
    alive = pruned[0].weight.flatten(1).any(1).view(4, 2)
    assert alive.sum() == 2
    assert torch.equal(alive[:, 0], alive[:, 1])


def test_project_leaves_its_argument_alone() -> None:
    weight = torch.tensor([3.0, -1.0, 2.0, 0.5])
    assert espalier.project(weight, constraint="unstructured", rate=2).tolist() == [3.0, 0.0, 2.0, 0.0]
    assert weight.tolist() == [3.0, -1.0, 2.0, 0.5]


def test_a_saved_model_loads_with_its_sets_and_outputs(tmp_path: Path) -> None:
    pruned = espalier.prune(lenet5(), constraint="unstructured", rate=8).eval()
    report = espalier.save(pruned, tmp_path / "small.safetensors", config=CONFIG)
    assert report.file_bytes < sum(parameter.numel() * 4 for parameter in pruned.parameters()) / 4
    loaded = espalier.load(tmp_path / "small.safetensors")
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(images), pruned(images))
    assert espalier.frozen(loaded) is not None


def test_a_checkpoint_fills_a_given_model_or_says_why_not(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    espalier.save(network(), path)
    assert torch.equal(espalier.load(path, network())[0].weight, network()[0].weight)
    with pytest.raises(ValueError, match="pass one"):
        espalier.load(path)
    with pytest.raises(ValueError, match="does not fit"):
        espalier.load(path, lenet5())
    with pytest.raises(ValueError, match="neither a file nor a shipped checkpoint"):
        espalier.load("progressive-admm/nothing")


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "os.system", "command": "true"},
        {**CONFIG, "width": {"_target_": "os.system", "command": "true"}},
        {"_target_": "espalier.runner.subprocess.run", "args": ["true"]},
    ],
    ids=["model", "argument", "by way of a module"],
)
def test_a_checkpoint_names_no_code_outside_trusted_packages(tmp_path: Path, config: dict) -> None:
    espalier.save(network(), tmp_path / "model.safetensors", config=config)
    with pytest.raises(ValueError, match="trust=True"):
        espalier.load(tmp_path / "model.safetensors")


def test_measure_counts_and_times() -> None:
    figures = espalier.measure(network(), torch.zeros(1, 3, 8, 8), num_warmup=1, num_runs=10)
    assert figures.macs == 8 * 27 * 36 + 8 * 36 * 4
    assert figures.latency_ms_p50 > 0
    assert figures.device


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"constraint": "filer", "rate": 2}, "nearest: filter"),
        ({"constraint": "filter", "rate": 0.5}, "starts at 1"),
        ({"constraint": "filter", "rate": {"conv9": 2.0}}, "conv9"),
        ({"constraint": "filter", "rate": 2, "method": "admm"}, "espalier.run"),
    ],
    ids=["structure", "rate", "layer", "method"],
)
def test_bad_words_name_the_way_out(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        espalier.prune(network(), **arguments)


@pytest.mark.parametrize("rate", ["2", True, {"0": "2"}])
def test_a_rate_that_is_no_number_is_named(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"rate=('2'|True) is no number; write rate=2"):
        espalier.prune(network(), constraint="filter", rate=rate)


def test_what_cannot_be_pruned_is_named() -> None:
    with pytest.raises(ValueError, match="ReLU has nothing to prune: no linear"):
        espalier.prune(nn.ReLU(), constraint="filter", rate=2)
    with pytest.raises(ValueError, match=r"an nn\.Module, not Tensor"):
        espalier.prune(torch.zeros(2), constraint="filter", rate=2)  # type: ignore[arg-type]
