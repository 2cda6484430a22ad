"""Every row of every table runs at smoke scale, on embedded data, and its record holds what its table shows."""

import math
from pathlib import Path

import pytest

from espalier.running import run
from espalier.tables.published import papers, table

TABLES = [f"{paper.name}/{name}" for paper in papers().values() for name in paper.rows]


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one store for all tables, so that those with the same dense step share it."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # some tables have dozens of rows
@pytest.mark.parametrize("name", TABLES)
def test_every_row_runs_at_smoke(shared_store: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("ESPALIER_STORE", str(shared_store))
    published = table(name)
    records = run(name, overrides=["logger=none"])
    assert {record.row for record in records} == set(published.runnable)
    shown = {title for title, column in published.columns.items() if column.computed is None and column.kind != "text"}
    for record in records:
        assert not record.variant
        assert record.metrics.get("weights_outside_set", 0) == 0
        known = [value for value in record.metrics.values() if value is not None]
        assert known
        assert all(math.isfinite(value) for value in known), record.name
        assert shown & record.metrics.keys(), f"{record.row} fills no column of {name}"
