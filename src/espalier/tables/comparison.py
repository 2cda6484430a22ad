"""A published table beside our records: published | shipped | ours, one ``Cell`` per row and column."""

import math
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from espalier.record import Measurement, Record
from espalier.tables import expressions
from espalier.tables.names import did_you_mean
from espalier.tables.schema import SCALES, UNKNOWN, Column, Provenance, Table
from espalier.tables.selection import Records, Selection

DENSE_ENGINES = ("pytorch-eager",)  # they multiply zeros too: a mask makes no pass of theirs faster
SHAPES = ("macs", "parameters")  # of the network as it is timed, zeros included: what a dense engine's time depends on
JSON_KEYS = ("row", "column", "published", "provenance", "shipped_mean", "shipped_std", "ours_mean", "ours_std", "seeds", "scale", "device")


@dataclass(frozen=True)
class Cell:
    """One figure of a table, as published and as rerun.

    Args:
        row: Row's name.
        column: Column's name.
        published: The paper's figure or text; ``?`` is unknown, None is not stated.
        provenance: How the published figure reached us.
        note: What a reader must know.
        shipped_mean: Mean over the seeds of the reference records, in the column's unit.
        shipped_std: Standard deviation over those seeds (n - 1); None below two.
        shipped_n: Their number.
        ours_mean: The same over one's own records.
        ours_std: See ``shipped_std``.
        seeds: Seeds of one's own records.
        scale: Scale of all records behind the cell.
        device: What one's own records ran on, or the whole setting of a measured figure (the shipped ones', where there are no own).
        comparable: Whether the published figure and the rerun ones may be set against each other; absolute accuracy below ``paper``
            scale, differences of accuracies on other data than there, and times from other hardware may not.
        stale: Seeds of one's own records that were made by code which has changed since.
        runs: Names of one's own records, seed by seed.
        shipped_runs: The same of the reference records.
        work: What the networks of one's own records compute, where an engine timed them that multiplies zeros too: cells of equal ``work``
            are timings of one and the same computation. Empty where that is not known, or not so.
        shipped_work: The same of the reference records.
    """

    row: str
    column: str
    published: float | str | None
    provenance: Provenance | None
    note: str
    shipped_mean: float | None
    shipped_std: float | None
    shipped_n: int
    ours_mean: float | None
    ours_std: float | None
    seeds: tuple[int, ...]
    scale: str
    device: str
    comparable: bool
    stale: tuple[int, ...] = ()
    runs: tuple[str, ...] = ()
    shipped_runs: tuple[str, ...] = ()
    work: str = ""
    shipped_work: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the keys that programs read, ``JSON_KEYS``."""
        every = asdict(self) | {"seeds": list(self.seeds)}
        return {key: every[key] for key in JSON_KEYS}


@dataclass(frozen=True)
class _Figures:
    """One source's values of one cell, by seed."""

    by_seed: Mapping[int, float]
    devices: tuple[str, ...]
    runs: tuple[str, ...] = ()
    work: str = ""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


_NOTHING = _Figures({}, ())


def compare(
    table: Table,
    own: Iterable[Record],
    shipped: Iterable[Record],
    scale: str,
    *,
    measurements: Iterable[Measurement] = (),
    shipped_measurements: Iterable[Measurement] = (),
    stale: Container[str] = (),
) -> list[Cell]:
    """Return every cell of a table at one scale, row by row.

    A cell pools the seeds of one row at one scale on the same data, never variants. A measured column takes the measurements of exactly the
    weights that a record ended with, or, without any, what a check step of the row measured. It has one cell per setting (device, threads,
    engine, frame, precision, batch; of a check the device): times of different settings are never averaged.

    Args:
        table: Published table.
        own: One's own records, of any table.
        shipped: Reference records, of any table.
        scale: ``smoke``, ``desk`` or ``paper``.
        measurements: Measurements of one's own runs.
        shipped_measurements: Measurements that came with the paper.
        stale: Names of one's own runs whose code has changed since.

    Raises:
        ValueError: There is no such scale.
    """
    if scale not in SCALES:
        raise ValueError(f"no scale '{scale}' of {table.name}; {did_you_mean(scale, SCALES)}.")
    sources = [
        (Records(shipped, table.paper), list(shipped_measurements)),
        (Records(own, table.paper), list(measurements)),
    ]
    cells = []
    for name in table.rows:
        for title, column in table.columns.items():
            cells += _cells(table, name, title, column, sources, scale, stale)
    return cells


def _cells(
    table: Table,
    row: str,
    title: str,
    column: Column,
    sources: Sequence[tuple[Records, list[Measurement]]],
    scale: str,
    stale: Container[str],
) -> list[Cell]:
    selections = [records.of(f"{table.table}/{row}", scale) for records, _ in sources]
    if column.kind == "measured":
        shipped, ours = (_measured(title, chosen, times) for chosen, (_, times) in zip(selections, sources, strict=True))
        settings = list(dict.fromkeys([*ours, *shipped])) or [""]
        pairs = [(setting, shipped.get(setting, _NOTHING), ours.get(setting, _NOTHING)) for setting in settings]
    else:
        shipped_one, ours_one = (
            _figures(table, title, column, chosen, records, scale) for chosen, (records, _) in zip(selections, sources, strict=True)
        )
        pairs = [(", ".join(ours_one.devices or shipped_one.devices), shipped_one, ours_one)]
    published, provenance, published_note = _published(table, row, title, column)
    notes = [published_note] + [note for chosen in selections if chosen.by_seed for note in chosen.notes]
    old = {seed for seed, record in selections[1].by_seed.items() if record.name in stale}
    accuracy = column.kind == "accuracy"
    absolute = not (column.computed and "dense." in column.computed)
    return [
        Cell(
            row=row,
            column=title,
            published=published,
            provenance=provenance,
            note="; ".join(note for note in notes if note),
            shipped_mean=theirs.mean,
            shipped_std=theirs.std,
            shipped_n=len(theirs.by_seed),
            ours_mean=mine.mean,
            ours_std=mine.std,
            seeds=tuple(mine.by_seed),
            scale=scale,
            device=device,
            comparable=column.kind != "measured" and not (accuracy and scale != "paper" and (absolute or table.is_other_data(row, scale))),
            stale=tuple(sorted(old & mine.by_seed.keys())),
            runs=mine.runs,
            shipped_runs=theirs.runs,
            work=mine.work,
            shipped_work=theirs.work,
        )
        for device, theirs, mine in pairs
    ]


def _published(table: Table, row: str, title: str, column: Column) -> tuple[float | str | None, Provenance | None, str]:
    """Return the printed figure, else the one computed from the row's printed ones; where the two differ, the note has the second."""
    printed = table.rows[row].cells.get(title)
    computed = None
    if column.computed is not None:
        own = {name: cell.value for name, cell in table.rows[row].cells.items() if isinstance(cell.value, float)}
        dense = {name: cell.value for name, cell in table.dense_cells.items() if isinstance(cell.value, float)}
        computed = _computed(column.computed, own, dense)
    if printed is None:
        return (computed, "derived", "computed from the published cells") if computed is not None else (None, None, "")
    note = printed.note
    if computed is not None and isinstance(printed.value, float) and not math.isclose(computed, printed.value, rel_tol=5e-4):
        note = "; ".join(part for part in (note, f"{computed:.4g} computed from the published cells") if part)
    assumed = None if printed.value == UNKNOWN else table.source.provenance
    return printed.value, printed.provenance or assumed, note


def _computed(expression: str, values: Mapping[str, float], dense: Mapping[str, float]) -> float | None:
    available = {*values, *(f"dense.{name}" for name in dense)}
    if not expressions.names(expression) <= available:
        return None
    identifiers = {name: value for name, value in values.items() if name.isidentifier()}
    return expressions.evaluate(expression, identifiers, {name: value for name, value in dense.items() if name.isidentifier()})


def _figures(table: Table, title: str, column: Column, chosen: Selection, records: Records, scale: str) -> _Figures:
    values: dict[int, float] = {}
    reference = Selection()
    if column.computed is not None and table.dense_row is not None:
        reference = records.of("/".join(table.dense_row), scale)
        if not chosen.same_data(reference):
            return _NOTHING
    for seed, record in chosen.by_seed.items():
        if column.computed is None:
            value = record.metrics.get(title)
        else:
            paired = reference.by_seed.get(seed)
            value = _computed(column.computed, _known(record), _known(paired) if paired else {})
        if value is not None:
            values[seed] = value
    devices = tuple(dict.fromkeys(chosen.by_seed[seed].device for seed in values))
    return _Figures(values, devices, tuple(chosen.by_seed[seed].name for seed in values))


def _known(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.metrics.items() if value is not None}


def _measured(title: str, chosen: Selection, measurements: Iterable[Measurement]) -> dict[str, _Figures]:
    """Return setting -> values; of two measurements of the same weights in the same setting the newer counts."""
    seeds: dict[str, list[int]] = {}
    found: dict[str, dict[int, float]] = {}
    dense = set()
    for seed, record in chosen.by_seed.items():
        if record.checkpoint is not None:
            seeds.setdefault(record.checkpoint, []).append(seed)
    for one in sorted(measurements, key=lambda measurement: measurement.started):
        value = one.metrics.get(title)
        if one.weights != "random" and value is not None:
            for seed in seeds.get(one.checkpoint, []):
                found.setdefault(setting(one), {})[seed] = value
                if one.engine in DENSE_ENGINES and one.kind == "measured":
                    dense.add(setting(one))
    if not found:  # a check step of the row measured it
        for seed, record in chosen.by_seed.items():
            if (value := record.metrics.get(title)) is not None:
                found.setdefault(record.device, {})[seed] = value
    return {
        name: _Figures(
            dict(sorted(by_seed.items())),
            (name,),
            tuple(chosen.by_seed[seed].name for seed in sorted(by_seed)),
            _work([chosen.by_seed[seed] for seed in by_seed]) if name in dense else "",
        )
        for name, by_seed in found.items()
    }


def _work(records: Iterable[Record]) -> str:
    """Return what the networks of some records compute when zeros are multiplied too; empty where a record does not say."""
    known = [[record.metrics.get(name) for name in SHAPES] for record in records]
    if any(figure is None for figures in known for figure in figures):
        return ""
    return ", ".join(sorted({"/".join(f"{figure:.0f}" for figure in figures) for figures in known}))


def setting(measurement: Measurement) -> str:
    """Return everything that makes two times incomparable, as one line."""
    threads = f"{measurement.num_threads} thread{'s' if measurement.num_threads != 1 else ''}"
    parts = (measurement.device, threads, f"batch {measurement.batch_size}", measurement.precision, measurement.engine, measurement.frame)
    return ", ".join(parts) + (", modelled" if measurement.kind == "modelled" else "")


def is_known(published: float | str | None) -> bool:
    """Return whether a published cell says something: it is neither absent nor ``?``."""
    return published is not None and published != UNKNOWN
