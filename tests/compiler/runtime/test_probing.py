"""The ceilings of this machine are in the range of machines; where its CPUs change places meanwhile, they say so."""

import pytest
import toy

from espalier.compiler.runtime import probing
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.probing import probe


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LEAST_S", 0.001)
    monkeypatch.setattr(probing, "MIN_DRAM_BYTES", 32 << 20)
    monkeypatch.setattr(probing, "MAX_DRAM_BYTES", 32 << 20)


def test_ceilings_are_plausible() -> None:
    found = probe(2)
    assert found.num_threads == 2
    assert found.isa == toy.RUNNABLE[0]
    for gflops in (found.fma_gflops_one, found.fma_gflops):
        assert 0.5 < gflops < 1e5
    for gb_s in (found.l2_gb_s, found.l3_gb_s, found.dram_gb_s):
        assert 0.1 < gb_s < 1e5
    assert found.fork_join_ns > 0
    assert "2 threads: " in str(found)


@pytest.mark.parametrize(("threads", "times", "moved"), [(2, (310.0, 470.0), True), (2, (310.0, 290.0), False), (1, (1.0, 9.0), False)])
def test_cpus_that_changed_places_are_noted(monkeypatch: pytest.MonkeyPatch, threads: int, times: tuple[float, float], moved: bool) -> None:
    told = iter(times)
    monkeypatch.setattr(CompiledModel, "fork_join_ns", lambda _self: next(told))
    found = probe(threads)
    assert found.moved == moved
    assert found.fork_join_ns == min(times)


def test_every_isa_is_probed(isa: str) -> None:
    found = probe(1, isa)
    assert found.isa == isa
    assert found.fma_gflops == found.fma_gflops_one


def test_multiply_adds_are_not_optimised_away() -> None:
    """Twice the repeats take about twice the time, and sums come out."""
    import numpy as np

    memory = probing._memory(1024)
    with probing._opened("generic", memory, 1) as model:
        seconds = {}
        for repeats in (1 << 18, 1 << 20):
            runs = [model(np.asarray([probing.MULTIPLY_ADDS, repeats, 0], np.float32), memory) for _ in range(9)]
            seconds[repeats] = min(float(run[0][0]) for run in runs)
            assert all(np.isfinite(run[1][0]) for run in runs)
        assert seconds[1 << 20] > 2.5 * seconds[1 << 18]
        sums = model(np.asarray([probing.READING, 3, 1024], np.float32), memory)[1]
        assert sums[0] == 4 * 1024  # once before the clock runs


def test_our_c_has_no_warnings(isa: str) -> None:
    assert build(probing._sources(isa, 64), isa, flags=toy.STRICT).exists()


def test_caches_that_the_system_does_not_tell_are_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probing._cache_bytes(2) >= 1 << 16
    monkeypatch.setattr(probing.Path, "glob", lambda *_: iter(()))
    assert probing._cache_bytes(2) == 1 << 20
    assert probing._dram_bytes() == 64 << 20
