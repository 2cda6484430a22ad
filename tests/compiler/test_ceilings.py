"""What this machine reaches is measured once, kept, and measured again when it is old, unreadable or another machine's."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from espalier.compiler import ceilings as module
from espalier.compiler import measured_roof
from espalier.compiler.ceilings import ceilings, known_ceilings
from espalier.compiler.runtime.probing import Ceilings


@pytest.fixture(autouse=True)
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a probe of the test's own in the place of the real one; return the threads it was called with."""
    called: list[int] = []

    def probe(num_threads: int, isa: str | None = None) -> Ceilings:
        called.append(num_threads)
        return Ceilings(isa or "generic", num_threads, 50.0, 50.0 * num_threads, 300.0, 60.0, 20.0, 300.0)

    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "probe", probe)
    return called


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
