"""What a network says of its kernels: lines of figures, a table for people, plain values for programs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from espalier.compiler import CompiledNetwork, compile_model, compiling
from espalier.compiler.explaining import Explanation, Line
from espalier.compiler.runtime.probing import Ceilings

CEILINGS = Ceilings("any", 1, 100.0, 100.0, 200.0, 50.0, 20.0, 300.0)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompiledNetwork]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 42, 3, padding=1), nn.ReLU(), nn.Conv2d(42, 42, 3, groups=42), nn.Flatten(), nn.Linear(378, 10)
    ).eval()
    with compile_model(model, torch.randn(1, 16, 5, 5), cache=tmp_path_factory.mktemp("compiled")) as network:
        yield network


def test_nothing_is_measured_unless_runs_are_asked_for(compiled: CompiledNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "ceilings", None)
    lines = {line.source: line for line in compiled.explain() if line.op in ("conv", "linear")}
    assert {line.template for line in lines.values()} == {"F", "DW", "V"}
    for line in lines.values():
        assert line.expected_share is not None
        assert 0 < line.expected_share < 1
        assert (line.expected_gflops, line.microseconds, line.gflops) == (None, None, None)
    assert any("M=42 fills" in reason for reason in lines["0"].reasons)
    assert any("depthwise" in reason for reason in lines["2"].reasons)
    assert lines["0"].macs_dense == 16 * 42 * 9 * 25


def test_measured_beside_expected(compiled: CompiledNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "ceilings", lambda *_, **__: CEILINGS)
    found = compiled.explain(num_runs=3)
    for line in found:
        assert line.microseconds is not None
        if line.expected_share is not None:
            assert line.expected_gflops == pytest.approx(100.0 * line.expected_share)
            assert line.gflops == pytest.approx(2e-3 * line.macs / line.microseconds)
    told = str(found)
    assert len(told.splitlines()) > len(found)
    assert all(word in told for word in ("why not more", "expected", "gM=", "depthwise"))
    values = json.loads(json.dumps(found.as_json()))
    assert [value["source"] for value in values] == [line.source for line in found]
    assert values[1]["gflops"] == found[1].gflops


@pytest.mark.parametrize("emptied", [0, 2, 5], ids=["3x3", "depthwise", "linear"])
def test_a_layer_that_lost_every_weight_is_told_of_as_well(emptied: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiling, "ceilings", lambda *_, **__: CEILINGS)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=32), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
    ).eval()
    model[emptied].weight.data.zero_()
    with compile_model(model, torch.randn(1, 16, 5, 5), cache=tmp_path) as network:
        found = network.explain(num_runs=3)
    (line,) = (line for line in found if line.source == str(emptied))
    assert (line.macs, line.expected_share, line.reasons) == (0, None, ())


def test_figures_that_are_missing_stay_empty() -> None:
    line = Line("a[b]", "conv", (1, 2, 3, 3), "dense", "F", "gM=16", 10, 10, expected_share=0.5, gain=1.0)
    told = str(Explanation((line,)))
    assert "50 % of peak" in told
    assert "a[b]" in told  # no mark-up
    assert "tuned, rule stays" in told.replace("\n", " ")
    assert Explanation((line,))[0:1] == (line,)


def test_ceilings_are_those_of_the_folder(compiled: CompiledNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(compiling, "known_ceilings", lambda threads, isa, *, cache: asked.append((threads, isa, cache)))
    compiled.explain()
    assert asked == [(1, compiled.program.isa.name, compiled.cache)]


@pytest.mark.parametrize(("used", "noted"), [(0.0, ""), (1.25, "Other processes used 1.2 CPUs meanwhile")])
def test_times_of_a_busy_machine_say_so(compiled: CompiledNetwork, monkeypatch: pytest.MonkeyPatch, used: float, noted: str) -> None:
    monkeypatch.setattr(compiling, "ceilings", lambda *_, **__: CEILINGS)
    monkeypatch.setattr(compiling.OthersCpus, "used", lambda _: used)
    found = compiled.explain(num_runs=1)
    assert found.note.startswith(noted)
    assert bool(found.note) == bool(noted)
    assert noted in str(found)
    assert compiled.explain().note == ""


def test_a_network_says_what_it_is(compiled: CompiledNetwork) -> None:
    assert repr(compiled).startswith(f"CompiledNetwork({len(compiled.program.steps)} kernels; CompiledModel(")


def test_a_run_that_was_interrupted_does_not_tell() -> None:
    sums = [[0.0, 5.0], [1.0, 7.0], [5.0, 9.0], [6.0, 11.5]]
    assert compiling.medians(sums) == [1.0, 2.0]
