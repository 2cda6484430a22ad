"""The lock that keeps measurements apart, and passes taken in turn."""

import logging
import threading
import time

import pytest
import torch
from torch import Tensor, nn

from espalier.frames import machine
from espalier.frames.cpu import interleaved
from espalier.frames.machine import machine_lock


def test_a_measurement_waits_for_another_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(machine, "PATIENCE_S", 0.05)
    done: list[str] = []

    def second() -> None:
        with machine_lock():
            done.append("second")

    with caplog.at_level(logging.WARNING), machine_lock():
        other = threading.Thread(target=second)
        other.start()
        other.join(0.5)
        assert done == []
        done.append("first")
    other.join(5)
    assert done == ["first", "second"]
    assert [record.message for record in caplog.records if "espalier-measure" in record.message]


class Waiting(nn.Module):
    """Sleeps for as long as it is told, and notes its passes."""

    def __init__(self, seconds: float, passes: list[float]) -> None:
        super().__init__()
        self.seconds, self.passes = seconds, passes

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(self.seconds)
        time.sleep(self.seconds)
        return x


def test_passes_are_taken_in_turn_and_their_medians_returned_in_order() -> None:
    passes: list[float] = []
    slow, fast = interleaved([Waiting(0.02, passes), Waiting(0.0, passes)], torch.zeros(1), num_warmup=1, num_runs=3)
    assert passes == [0.02, 0.0] * 4
    assert slow >= 20.0
    assert fast < slow
