"""What this machine reaches is measured once, kept, and measured again when it is old, unreadable or another machine's."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest

from espalier import devices
from espalier.compiler import ceilings as module
from espalier.compiler import measured_roof
from espalier.compiler.ceilings import ceilings, known_ceilings
from espalier.compiler.runtime.probing import Ceilings
from espalier.devices import moved


@pytest.fixture(autouse=True)
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a probe of the test's own in the place of the real one; return the threads it was called with."""
    called: list[int] = []

    def probe(num_threads: int, isa: str | None = None) -> Ceilings:
        called.append(num_threads)
        return Ceilings(isa or "generic", num_threads, 50.0, 50.0 * num_threads, 300.0, 60.0, 20.0, 300.0)

    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "probe", probe)
    monkeypatch.setattr(devices, "others_cpu_s", lambda: 0.0)
    return called


@contextmanager
def two_seconds(others_s: float, ratio: float) -> Iterator[None]:
    """Let a probe take two seconds, in which others use that many CPU seconds, and fork-join times grow by that ratio."""
    now, used, quiet = chain([100.0], repeat(102.0)), iter([7.0, 7.0 + others_s]), module.probe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "time", SimpleNamespace(monotonic=lambda: next(now)))
        patch.setattr(devices, "others_cpu_s", lambda: next(used))
        patch.setattr(module, "probe", lambda *given: replace(quiet(*given), moved=moved(300.0, 300.0 * ratio)))
        yield


@pytest.mark.parametrize(
    ("others_s", "ratio", "said"),
    [
        (0.3, 1.0, "other processes used 0.1 CPUs while"),
        (1.8, 1.0, "other processes used 0.9 CPUs while"),
        (0.0, 1.6, "CPUs changed places while"),
    ],
)
def test_what_a_busy_or_moved_machine_gave_is_used_once_and_not_kept(
    others_s: float, ratio: float, said: str, probed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with two_seconds(others_s, ratio), caplog.at_level(logging.WARNING):
        assert ceilings(2).fma_gflops == 100.0
    assert [record.getMessage().startswith(said) for record in caplog.records] == [True]
    assert known_ceilings(2) is None
    assert ceilings(2) == known_ceilings(2)
    assert probed == [2, 2]


def test_a_machine_that_is_nearly_idle_is_remembered(probed: list[int]) -> None:
    with two_seconds(others_s=0.19, ratio=1.4):
        assert ceilings(2).fma_gflops == 100.0
    assert ceilings(2) == known_ceilings(2)
    assert probed == [2]


@pytest.mark.parametrize("old", [{}, {"moved": False}], ids=["as it is kept", "as it was kept"])
def test_what_is_kept_does_not_say_that_nothing_moved(old: dict[str, bool], probed: list[int], tmp_path: Path) -> None:
    found = ceilings(2)
    path = tmp_path / module.FILE
    content = json.loads(path.read_text())
    (entry,) = content["entries"].values()
    assert "moved" not in entry["ceilings"]
    entry["ceilings"] |= old
    path.write_text(json.dumps(content))
    assert known_ceilings(2) == ceilings(2) == found
    assert probed == [2]


def test_a_roof_is_measured_once_a_number_of_threads(probed: list[int]) -> None:
    assert known_ceilings(2) is None
    assert measured_roof(2) == (100.0, 20.0)
    assert measured_roof(2) == (100.0, 20.0)
    assert known_ceilings(2) == ceilings(2)
    assert measured_roof(1) == (50.0, 20.0)
    assert known_ceilings(2, "another") is None
    assert probed == [2, 1]


def test_what_is_old_or_unreadable_is_measured_again(probed: list[int], tmp_path: Path) -> None:
    ceilings(2)
    path = tmp_path / module.FILE
    content = json.loads(path.read_text())
    (entry,) = content["entries"].values()
    for change in (
        {"when": (datetime.now(UTC) - module.FRESH - timedelta(hours=1)).isoformat()},
        {"when": "yesterday"},
        {"ceilings": {"isa": "generic"}},
    ):
        path.write_text(json.dumps({"version": 1, "entries": {key: {**entry, **change} for key in content["entries"]}}))
        assert known_ceilings(2) is None
        assert ceilings(2) == known_ceilings(2)
    assert probed == [2] * 4
