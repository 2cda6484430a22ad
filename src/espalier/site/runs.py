"""The list of all runs, and a page for each row: facts, settings, figures and timings of its runs, and the command that repeats each."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from espalier import metrics
from espalier.record import Record
from espalier.site.evidence import Run
from espalier.site.links import row_page, run_id, run_page
from espalier.tables.comparison import setting
from espalier.tables.schema import SCALES
from espalier.tables.settings import changed, flattened

NO_VALUE = "-"


def runs_context(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return one line a run for the list of all."""
    return [_line(run) | {"href": run_page(run.record, run.source)} for run in runs]


def rows_of(runs: Iterable[Run]) -> dict[tuple[str, str, str], list[Run]]:
    """Return (paper, table, row) -> its runs: the highest scale first, own ones before shipped ones, by seed."""

    def key(run: Run) -> tuple[str, str, str]:
        return run.record.paper, run.record.table, run.record.row

    def place(run: Run) -> tuple[int, bool, int, str]:
        return -_place(run.record.scale), run.source == "shipped", run.record.seed, run.record.identity

    ordered = sorted(runs, key=lambda run: (key(run), place(run)))
    return {name: list(group) for name, group in groupby(ordered, key)}


def row_context(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the page of one row shows: its scales, each with its runs, the settings they share, and those in which they differ."""
    first = runs[0].record
    return {
        "paper": first.paper,
        "table": first.table,
        "row": first.row,
        "page": row_page(first.paper, first.table, first.row),
        "scales": [_scale(scale, list(group)) for scale, group in groupby(runs, lambda run: run.record.scale)],
    }


def _place(scale: str) -> int:
    known: Sequence[str] = SCALES
    return known.index(scale) if scale in known else -1


def _scale(scale: str, runs: Sequence[Run]) -> dict[str, Any]:
    records = [run.record for run in runs]
    configs = [{key: str(value) for key, value in flattened(record.config)} for record in records]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    shared = {key: configs[0][key] for key in keys if all(config.get(key) == configs[0].get(key) for config in configs)}
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    return {
        "scale": scale,
        "lines": [_line(run) for run in runs],
        "shared": shared,
        "differing": {key: [config.get(key, NO_VALUE) for config in configs] for key in keys if key not in shared},
        "facts": _facts(records),
        "figures": {name: (_unit(name), [_figure(record.metrics.get(name)) for record in records]) for name in names},
        "times": [
            {"run": line["short"], "setting": setting(one), "kind": one.kind, "figures": {n: _figure(v) for n, v in one.metrics.items()}}
            for run, line in zip(runs, map(_line, runs), strict=True)
            for one in run.measurements
        ],
    }


def _line(run: Run) -> dict[str, Any]:
    record = run.record
    top1, rate = (record.metrics.get(name) for name in ("top1_pct", "rate"))
    words = (("variant", record.variant), ("stale: code changed since", run.stale), ("from a changed tree", record.dirty))
    return {
        "name": record.name,
        "short": f"{run.source}, seed {record.seed}, {record.identity[:6]}",
        "id": run_id(record, run.source),
        "record": record,
        "source": run.source,
        "remarks": [word for word, true in words if true],
        "changed": " ".join(changed(record)),
        "command": record.command,
        "started": record.started[:16].replace("T", " "),
        "said": [f"top-1 {_figure(top1)} %" if top1 is not None else "", f"rate {_figure(rate)} x" if rate is not None else ""],
        "top1": _figure(top1),
        "rate": _figure(rate),
    }


def _facts(records: Sequence[Record]) -> dict[str, list[str]]:
    """Return fact -> its text in each run."""
    return {
        "identity": [record.identity for record in records],
        "checkpoint": [record.checkpoint or NO_VALUE for record in records],
        "commit": [record.commit or NO_VALUE for record in records],
        "code": [record.code_digest for record in records],
        "data": [f"{record.data.name} {record.data.fingerprint}" if record.data else "none" for record in records],
        "device": [record.device for record in records],
        "started": [record.started for record in records],
        "duration_s": [_figure(record.duration_s) for record in records],
        "versions": [", ".join(f"{name} {number}" for name, number in record.versions.items()) for record in records],
    }


def _figure(value: float | None) -> str:
    if value is None:
        return NO_VALUE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}"


def _unit(name: str) -> str:
    return "" if metrics.unknown([name]) else metrics.metric(name).unit
