"""The suites of the compiler on tiny layers and networks: what they write, that they go on where they stood, and what breaks even where."""

import json
import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import break_even
import layer_suite
import model_suite
import pytest
import suite_layers
import suite_results
import timm_models
import torch
from suite_layers import Layer
from torch import nn

from espalier.compiler import compiling
from espalier.frames import contending
from espalier.frames.engines import pytorch_eager

ALL_LAYERS = set(suite_layers.LAYERS)  # before a fixture leaves one
TINY = Layer(16, 32, (3, 3), (6, 6))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time nothing real: one small layer, no waiting for the machine, no settling."""
    monkeypatch.setattr(suite_layers, "LAYERS", {str(TINY): TINY})
    for module in (layer_suite, break_even):
        monkeypatch.setattr(module, "LAYERS", {str(TINY): TINY})
    for module in (contending, pytorch_eager, suite_layers):
        monkeypatch.setattr(module, "machine_lock", nullcontext)
    monkeypatch.setattr(contending, "SETTLE_S", 0.0)
    monkeypatch.setattr(compiling, "BUSY_CPUS", math.inf)  # other tests run beside these


def written(module: Any, to: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """Run a suite as the shell does; return its entries."""
    monkeypatch.setattr(sys, "argv", [module.__name__, "--to", str(to), *words])
    module.main()
    entries: dict[str, Any] = json.loads(to.read_text())["entries"]
    assert all(entry["device"] and entry["started"] and entry["versions"]["torch"] for entry in entries.values())
    page = to.with_suffix(".md").read_text()
    assert all(name.rpartition("_")[0] in page for name in entries)
    assert next(iter(entries.values()))["device"] in page
    return entries


def test_layers_are_measured_with_the_best_peer_and_the_share_of_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--engines", "pytorch-eager", "mnn", "--rates", "4", "--runs", "10", "--turns", "2", "--threads", "1")
    (entry,) = written(layer_suite, tmp_path / "layers.json", monkeypatch, *words).values()
    assert entry["best_peer"] in ("pytorch-eager", "mnn")
    assert entry["ours"].keys() == {"dense", "dense (as compiled)", "4x"}
    assert entry["ours"]["4x"]["rate"] == pytest.approx(4, rel=0.15)
    for one in [*entry["peers"].values(), *entry["ours"].values()]:
        if one["status"] == "ok":
            assert 0 < one["latency_ms_p10"] <= one["latency_ms_p50"] <= one["latency_ms_p90"]
            assert (one["precision"], one["num_runs"] + one["num_dropped"]) == ("fp32", 10)
    assert all(entry["ours"][name]["template"].startswith("F ") for name in ("dense", "4x"))
    own = {f"espalier, {name}": one["latency_ms_p50"] for name, one in entry["ours"].items() if name == "dense (as compiled)"}
    dense = own | {name: one["latency_ms_p50"] for name, one in entry["peers"].items() if one["latency_ms_p50"] is not None}
    assert entry["best_dense"] == {"name": min(dense, key=dense.__getitem__), "ms": min(dense.values())}
    assert entry["chain"] == suite_layers.CHAIN
    assert entry["gflop"] == pytest.approx(2e-9 * 16 * 32 * 9 * 36)
    assert len(entry["fork_join_ns"]) == 2
    kernels = {name: one["kernels"] for name, one in entry["ours"].items()}
    assert all(len(ones) == suite_layers.CHAIN and all(one["microseconds"] > 0 for one in ones) for ones in kernels.values())
    assert [one["macs"] for one in kernels["dense"]] == [16 * 32 * 9 * 36] * suite_layers.CHAIN
    assert [one["columns"] for one in kernels["dense"]] == [16 * 9, 32 * 9] * (suite_layers.CHAIN // 2)
    assert all(0 < one["columns"] < 32 * 9 / 2 for one in kernels["4x"])
    assert "## Kernels by themselves" in (tmp_path / "layers.md").read_text()


@pytest.mark.slow
def test_kernels_of_another_template_have_no_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Layer(64, 64, (3, 3), (32, 32))  # at rate 1 Winograd's
    for module in (suite_layers, layer_suite):
        monkeypatch.setattr(module, "LAYERS", {str(large): large})
    words = ("--engines", "pytorch-eager", "--rates", "1", "--runs", "10", "--turns", "1", "--threads", "1")
    (entry,) = written(layer_suite, tmp_path / "layers.json", monkeypatch, *words).values()
    assert entry["ours"]["1x"]["template"].startswith("W ")
    assert [one["columns"] for one in entry["ours"]["1x"]["kernels"]] == [None] * suite_layers.CHAIN
    assert "| - |" in (tmp_path / "layers.md").read_text()


def test_turns_that_others_disturbed_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BUSY_CPUS", -1.0)
    words = ("--engines", "pytorch-eager", "--rates", "4", "--runs", "10", "--turns", "1", "--threads", "1")
    (entry,) = written(layer_suite, tmp_path / "layers.json", monkeypatch, *words).values()
    assert all("kernels" not in one for one in entry["ours"].values())
    assert "Kernels by themselves" not in (tmp_path / "layers.md").read_text()


def test_a_mask_that_leaves_no_path_is_named_and_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--engines", "pytorch-eager", "--rates", "4", "--runs", "10", "--turns", "1", "--threads", "1")
    monkeypatch.setattr(suite_layers, "prune_at_random", lambda model, *_: [parameter.zero_() for parameter in model.parameters()] and None)
    (entry,) = written(layer_suite, tmp_path / "layers.json", monkeypatch, *words).values()
    assert entry["ours"].keys() == {"dense", "dense (as compiled)"}
    assert entry["reasons"] == {"4x": "its masks leave no path through the chain"}


def test_break_even_rates_are_measured_for_every_structure_and_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--engines", "pytorch-eager", "--rates", "2", "--runs", "10", "--only", "*_1t")
    entries = written(break_even, tmp_path / "map.json", monkeypatch, *words)
    assert entries.keys() == {f"{TINY}_1t"}
    (entry,) = entries.values()
    assert entry["structures"].keys() == break_even.TRIED.keys()
    for structure, found in entry["structures"].items():
        (one, _), (rate, _) = found["points"]
        assert one == 1.0
        assert 2 < rate < 4 if structure == "filter" else rate == pytest.approx(2, rel=0.15)  # the channels behind lost filters go as well
        assert found["break_even"] is None or 1.0 <= found["break_even"] <= rate


def test_a_structure_that_never_breaks_even_names_its_own_highest_rate() -> None:
    assert break_even._rate({"points": [(1.0, 2.0), (7.98, 1.5)], "break_even": None}) == "not up to 8"
    assert break_even._rate({"points": [(1.0, 2.0)]}) == "-"


def test_the_layers_that_are_taken_by_default_are_layers_of_the_suite() -> None:
    assert set(break_even.TAKEN) <= ALL_LAYERS


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ([(1.0, 0.9), (2.0, 0.5)], 1.0),
        ([(1.0, 2.0), (4.0, 0.5)], 2.0),  # half the way on logarithmic axes
        ([(1.0, 3.0), (2.0, 2.0), (8.0, 1.2)], None),
        ([(1.0, 2.0), (2.0, 0.9), (4.0, 1.1), (8.0, 1.0)], 8.0),  # from where on it stays faster
        ([(1.0, 1.0)], 1.0),
    ],
)
def test_a_break_even_is_where_times_stay_below_the_dense_engines(points: list[tuple[float, float]], wanted: float | None) -> None:
    assert break_even.break_even(points, 1.0) == (None if wanted is None else pytest.approx(wanted))


def test_whole_networks_are_measured_against_their_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(model_suite.MODELS["vgg16_cifar-8x"], name="resnet8_cifar", rate=2.0)
    monkeypatch.setattr(model_suite, "MODELS", {"resnet8_cifar-2x": small})
    words = ("--engines", "pytorch-eager", "espalier-dense", "espalier-sparse", "--runs", "10", "--threads", "1")
    (entry,) = written(model_suite, tmp_path / "models.json", monkeypatch, *words).values()
    assert entry["best_dense_peer"] == "pytorch-eager"
    assert entry["ratio_to_best_dense_peer"] > 0
    assert {one["status"] for one in entry["engines"]} == {"ok"}
    assert entry["core_gflops"] > 0
    assert "reached" in (tmp_path / "models.md").read_text() or "missed" in (tmp_path / "models.md").read_text()


@pytest.mark.slow
def test_networks_of_timm_keep_their_line_whatever_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "MODELS", ("test_resnet", "no_such_network"))
    entries = written(timm_models, tmp_path / "timm.json", monkeypatch, "--threads", "1")
    good, bad = entries["test_resnet"], entries["no_such_network"]
    assert (good["exports"], good["compiles"], good["matches"]) == (True, True, True)
    assert 0.0 < good["sparse_share"] <= 1.0
    assert good["compile_s"] > 0
    assert not bad["compiles"]
    assert "no_such_network is not in timm" in bad["reason"][0]
    page = (tmp_path / "timm.md").read_text()
    assert "2 networks: 1 compile without fallback, 1 match" in page
    assert "- no_such_network: " in page


class Chaotic(nn.Module):
    """A network that is all rounding: the sine of large angles."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (1e6 * x.exp()).sin()


def test_rounding_tells_a_network_that_cannot_be_compared_from_one_that_can() -> None:
    x = torch.rand(1, 64, generator=torch.Generator().manual_seed(0))
    assert timm_models.rounding(Chaotic(), x) > 1e-2
    assert timm_models.rounding(nn.Linear(64, 8), x) < 1e-6


def test_a_network_that_does_not_match_says_how_far_pytorch_is_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "TOLERANCE", -1.0)
    entry = timm_models.found("test_resnet", rate=4.0, num_threads=1)
    assert (entry["compiles"], entry["matches"]) == (True, False)
    assert entry["rounding"] < 1e-5
    assert "its float64" in entry["reason"][0]


@pytest.mark.slow
def test_attention_scaled_by_batch_norm_does_not_blow_up_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    # With 16x4 masks the same seed gives an image on which PyTorch's float32 is 0.03 from its float64, hence one network for all CPUs.
    monkeypatch.setattr(timm_models, "preferred_group", lambda _: (32, 4))
    generator = torch.Generator().manual_seed(0)
    model, example = timm_models.network("levit_128", 4.0, generator)
    assert timm_models.rounding(model, torch.randn(example.shape, generator=generator)) < timm_models.TOLERANCE / 10


def test_an_entry_is_kept_unless_it_is_asked_again(tmp_path: Path) -> None:
    asked = suite_results.arguments("", "suite").parse_args(["--to", str(tmp_path / "suite.json")])
    counted: list[str] = []

    def measure(name: str) -> dict[str, Any]:
        counted.append(name)
        if name == "c" and len(counted) == 3:
            raise KeyboardInterrupt
        return {"name": name}

    with pytest.raises(KeyboardInterrupt):
        suite_results.measure_all(["a", "b", "c"], measure, lambda entries: [*entries], asked)
    assert [*suite_results.read(asked.to)] == ["a", "b"]
    suite_results.measure_all(["a", "b", "c"], measure, lambda entries: [*entries], asked)
    assert counted == ["a", "b", "c", "c"]
    asked.again, asked.only = True, ["b"]
    suite_results.measure_all(["a", "b", "c"], measure, lambda entries: [*entries], asked)
    assert counted[4:] == ["b"]
    assert asked.to.with_suffix(".md").read_text() == "a\nb\nc\n"


def test_an_entry_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match=r"--only x\* matches none of a, b"):
        suite_results.chosen(["a", "b"], ["x*"])
