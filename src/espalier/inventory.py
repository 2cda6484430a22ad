"""Questions about runs: which there are, how two differ, what a table's cells hold."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from espalier.files import write_once
from espalier.record import Measurement, Record, Store
from espalier.tables.comparison import Cell, compare
from espalier.tables.published import experiment_roots, paper, table
from espalier.tables.schema import SCALES


def own_records(store: Store | None = None) -> list[Record]:
    """Return the records of the store, ordered by name."""
    return list((store or Store()).records())


def own_measurements(store: Store | None = None) -> list[Measurement]:
    """Return the measurements of all runs of the store."""
    place = store or Store()
    return [measurement for record in place.records() for measurement in place.measurements(record.name)]


def highest_scale(name: str) -> str:
    """Return the highest scale at which a table has records, own or shipped; smoke where it has none."""
    published = table(name)
    known = [*own_records(), *paper(published.paper).shipped_records()]
    present = {record.scale for record in known if (record.paper, record.table) == (published.paper, published.table)}
    return next((scale for scale in reversed(SCALES) if scale in present), SCALES[0])


def cells(name: str, scale: str) -> list[Cell]:
    """Return a table's cells: published, shipped and own."""
    published = table(name)
    home = paper(published.paper)
    return compare(
        published,
        own_records(),
        home.shipped_records(),
        scale,
        measurements=own_measurements(),
        shipped_measurements=home.shipped_measurements(),
    )


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return one line a record: a column per fact, per config key (dotted) and per metric."""
    lines = []
    for record in records:
        facts = record.model_dump(
            include={"paper", "table", "row", "scale", "seed", "variant", "identity", "device", "started", "duration_s"}
        )
        lines.append({**facts, **dict(_flat(record.config, "config.")), **record.metrics})
    return pd.DataFrame(lines)


def find_run(name: str, store: Store | None = None) -> Record:
    """Return the run of that name, or the only one whose name begins so.

    Raises:
        ValueError: None or several do.
    """
    known = own_records(store)
    found = [record for record in known if record.name.startswith(name.strip("/"))]
    if len(found) != 1:
        listing = ", ".join(record.name for record in found or known) or "none; run a table first"
        raise ValueError(f"{len(found)} runs are called '{name}'; there are: {listing}.")
    return found[0]


def differences(first: Record, second: Record) -> list[tuple[str, Any, Any]]:
    """Return the settings and metrics in which two runs differ."""
    left, right = (dict(_flat({"config": record.config, "metrics": record.metrics}, "")) for record in (first, second))
    return [(key, left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield prefix.rstrip("."), value
        return
    for key, item in items:
        yield from _flat(item, f"{prefix}{key}.")


def keep_record(record: Record, store: Store | None = None) -> Path:
    """Copy a record and its measurements to ``experiments/<paper>/results``; return the folder.

    Raises:
        FileExistsError: The reference is there already.
    """
    place = store or Store()
    folder = experiment_roots()[0] / record.paper / "results" / Path(record.name).relative_to(record.paper)
    write_once(folder / "record.json", record.model_dump_json(indent=1) + "\n")
    for measurement in place.measurements(record.name):
        write_once(
            folder / "measurements" / f"{measurement.frame}-{measurement.identity[:6]}.json", measurement.model_dump_json(indent=1) + "\n"
        )
    return folder


def deletable(*, steps_only: bool, store: Store | None = None) -> tuple[list[Path], int]:
    """Return the folders that ``clean`` would delete and their bytes."""
    root = (store or Store()).root
    folders = sorted((root / ".steps").glob("*")) if steps_only else sorted(path for path in root.glob("*") if path.is_dir())
    return folders, sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def delete(folders: Sequence[Path]) -> None:
    """Delete folders whole."""
    for folder in folders:
        shutil.rmtree(folder)
