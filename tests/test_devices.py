"""What this machine is, and what it is not asked to do."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier
from espalier import devices
from espalier.compiler.runtime.loading import CompiledModel
from espalier.devices import check_threads


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
