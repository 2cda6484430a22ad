"""Tests of the compiler divide work among more threads than the machine may have cores."""

import pytest

from espalier import devices


@pytest.fixture(autouse=True)
def _more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let three threads share what cores there are: slow, but their work is divided otherwise than that of two."""
    monkeypatch.setattr(devices, "num_cores", lambda: 4)
