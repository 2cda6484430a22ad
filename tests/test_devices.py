"""What this machine is, and what it is not asked to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier
from espalier import devices
from espalier.compiler.runtime.loading import CompiledModel
from espalier.devices import check_cpus, check_threads


@pytest.fixture
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "num_cores", lambda: 2)


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize("num_threads", [-1, 0, 3, 99])
def test_threads_that_would_share_a_core_are_refused(num_threads: int) -> None:
    with pytest.raises(ValueError, match=rf"^threads={num_threads}: this process may use 2 cores; give 1 to 2\.$"):
        check_threads(num_threads, "threads")
    check_threads(1)
    check_threads(2)


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize(
    "opened",
    [
        lambda: espalier.compile(nn.Linear(4, 4).eval(), torch.zeros(1, 4), num_threads=3),
        lambda: CompiledModel(Path("network.so"), Path("weights.bin"), num_threads=3),
    ],
    ids=["compile", "CompiledModel"],
)
def test_no_network_is_opened_with_more_threads_than_cores(opened: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"num_threads=3: this process may use 2 cores; give 1 to 2\."):
        opened()


@pytest.mark.parametrize(
    ("cpus", "said"),
    [
        ([3, 3], r"cpus=\[3, 3\] names \[3\] more than once: threads wait by spinning; give each a CPU of its own\."),
        ([1, 3], r"cpus=\[1, 3\] names \[1\], which this process may not use; it may use \[3, 5\]\."),
        ([-1, 9, 3], r"cpus=\[-1, 9, 3\] names \[-1, 9\], which this process may not use; it may use \[3, 5\]\."),
    ],
)
def test_cpus_that_threads_would_share_or_may_not_use_are_refused(cpus: list[int], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3}, raising=False)
    with pytest.raises(ValueError, match=f"^{said}$"):
        check_cpus(cpus)
    with pytest.raises(ValueError, match=f"^{said}$" if len(cpus) < 3 else "num_threads=3: this process may use 2 cores"):
        CompiledModel(Path("network.so"), Path("weights.bin"), num_threads=len(cpus), cpus=cpus)
    check_cpus([5, 3])
    check_cpus([3])


def test_what_others_use_is_told_from_what_this_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, busy_s = iter([10.0, 12.0]), iter([5.0, 8.0])
    monkeypatch.setattr(devices.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(devices, "others_cpu_s", lambda: next(busy_s))
    assert devices.OthersCpus().used() == 1.5
    monkeypatch.undo()
    monkeypatch.setattr(devices, "others_cpu_s", lambda: None)
    assert devices.OthersCpus().used() == 0.0


@pytest.mark.parametrize("threads", [1.5, "2", True, 0, 10_000])
def test_threads_are_whole_numbers_of_cores(threads: object) -> None:
    with pytest.raises(ValueError, match=rf"num_threads={threads!r}: this process may use \d+ cores?; give 1 to \d+"):
        devices.check_threads(threads)  # type: ignore[arg-type]
