from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier
from espalier.compiler.lowering import filters_search
from espalier.compiler.runtime.toolchain import compiler
from espalier.constraints import Assignment
from espalier.frames import CompiledCpu, compiled_cpu
from espalier.frames.compiled_cpu import ENGINES
from espalier.frames.engines import Ours
from espalier.frames.percentiles import latencies, tenths
from espalier.metrics import unknown


def test_our_engines_are_named_in_one_place() -> None:
    source = Path(espalier.__file__).parent
    spelt = [str(path.relative_to(source)) for path in source.rglob("*.py") if '"espalier-sparse"' in path.read_text(encoding="utf-8")]
    assert spelt == ["compiler/runtime/exporting.py"]
    assert {dense: Ours(dense=dense).name for dense in (False, True)} == ENGINES


def test_a_network_is_timed_as_native_code(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4)).eval()
    frame = CompiledCpu(num_threads=1, batch_size=1, num_warmup=1, num_runs=5)
    taken = frame.measure(model, torch.randn(1, 3, 8, 8), checkpoint="digest", weights="random")
    assert (taken.frame, taken.kind, taken.precision) == ("compiled_cpu", "measured", "fp32")
    assert taken.engine.startswith("espalier-sparse ")
    times = [taken.metrics[f"latency_ms_p{part}"] for part in (10, 50, 90)]
    assert times == sorted(times, key=float)
    assert all(time is not None and time > 0 for time in times)
    assert 0 <= (taken.metrics["max_rel_error"] or 0.0) < 1e-5
    assert taken.versions["cc"] == compiler().version
    assert unknown(taken.metrics) == []


def test_wrong_code_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        isa, hybrid, tuned = "generic", "", False

        def __call__(self, x: torch.Tensor, out: object = None) -> torch.Tensor:
            return model(x).detach() * 1.01 if x.any() else model(x).detach()  # right for zeros alone

        def __enter__(self) -> "Wrong":
            return self

        def __exit__(self, *_: object) -> None: ...

    model = nn.Sequential(nn.Conv2d(3, 4, 3)).train()
    monkeypatch.setattr(compiled_cpu, "compile_model", lambda *_, **__: Wrong())
    frame = CompiledCpu(num_threads=1, batch_size=1, num_warmup=1, num_runs=5)
    with pytest.raises(ValueError, match=r"differs from PyTorch by 1.*e-02 .*it is not timed"):
        frame.measure(model, torch.zeros(1, 3, 8, 8), checkpoint="digest", weights="random")
    assert model.training


def test_masks_are_the_frozen_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, frozen: object, **__: object) -> None:
        raise ValueError(f"given {frozen is sets}")

    sets = Assignment([])
    monkeypatch.setattr(compiled_cpu, "compile_model", stop)
    frame = CompiledCpu(num_threads=1, batch_size=1, num_warmup=1, num_runs=5)
    with pytest.raises(ValueError, match="given True"):
        frame.measure(nn.Identity(), torch.zeros(1, 3), checkpoint="digest", weights="random", frozen=sets)


def test_percentiles_lie_within_the_times() -> None:
    assert tenths([1.0, 2.0]) == (1.1, 1.5, 1.9)
    assert latencies([1.0, 2.0]) == {"latency_ms_p10": 1.1, "latency_ms_p50": 1.5, "latency_ms_p90": 1.9}


def test_a_network_that_pytorch_runs_in_part_is_timed_as_a_hybrid(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).sort(dim=1).values

    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    given = {"num_threads": 1, "batch_size": 1, "num_warmup": 0, "num_runs": 2}
    with pytest.raises(ValueError, match=r"aten\.sort"):
        CompiledCpu(**given).measure(Sorted().eval(), torch.randn(1, 3, 8, 8), checkpoint="digest", weights="random")
    taken = CompiledCpu(**given, fallback="torch").measure(Sorted().eval(), torch.randn(1, 3, 8, 8), checkpoint="digest", weights="random")
    assert taken.engine.endswith(" hybrid")


def test_larger_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=2: networks are compiled for one sample; frame=cpu"):
        CompiledCpu(num_threads=1, batch_size=2, num_warmup=1, num_runs=5)


def test_a_tuned_network_says_so(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    monkeypatch.setattr(filters_search, "MOST_FIRST", 2)
    monkeypatch.setattr(filters_search, "SCHEDULE", {"by_filters": (False, True)})
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()).eval()
    frame = CompiledCpu(num_threads=1, batch_size=1, num_warmup=1, num_runs=5, tune=True)
    taken = frame.measure(model, torch.randn(1, 3, 8, 8), checkpoint="digest", weights="random")
    assert taken.engine.endswith(" tuned")
    untuned = replace(frame, tune_budget_s=0.0)
    other = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU()).eval()
    assert not untuned.measure(other, torch.randn(1, 3, 8, 8), checkpoint="digest", weights="random").engine.endswith("tuned")
