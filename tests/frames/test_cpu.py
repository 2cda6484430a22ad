"""The lock that keeps measurements apart."""

import logging
import threading

import pytest

from espalier.frames import cpu
from espalier.frames.cpu import machine_lock


def test_a_measurement_waits_for_another_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cpu, "PATIENCE_S", 0.05)
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
    assert [record.message for record in caplog.records if "espalier-measure.lock" in record.message]
