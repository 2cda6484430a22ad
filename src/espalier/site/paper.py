"""The page of a paper: its tables published | shipped | yours, curves, claims with the figures behind them, and what it is about."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from espalier.record import Record
from espalier.site.charts import Chart, Point, Series, curves, scatter
from espalier.site.evidence import Evidence
from espalier.site.links import row_page
from espalier.tables.claims import Verdict, judge
from espalier.tables.comparison import Cell, compare
from espalier.tables.export import not_comparable
from espalier.tables.figures import mean_text, published_text
from espalier.tables.labelling import axis_label
from espalier.tables.layout import Printed, printed
from espalier.tables.published import Paper
from espalier.tables.schema import SCALES, UNKNOWN, Column, Table

CURVES = (("train/loss", "training loss (nat)"), ("val/top1_pct", "validation top-1 (%)"), ("admm/residual_max", "largest ||W-Z|| / ||W||"))
EPOCHS = "epochs trained, over all steps"
LOOKS = {"yours": 0, "shipped": 1, "published": 2}  # colours of the style sheet


def paper_context(paper: Paper, evidence: Evidence) -> dict[str, Any]:
    """Return what the template of a paper's page shows; comparisons, which have pages of their own, are left out."""
    tables = [table for name in paper.table_names if not (table := paper.table(name)).contestants]
    entries = [rerun(table, scale, evidence) for table in tables if table.runnable for scale in evidence.scales(table) or [SCALES[0]]]
    own = evidence.records("yours", paper.name)
    return {
        "facts": paper.facts,
        "tables": entries,
        "scales": list(dict.fromkeys(entry["scale"] for entry in entries if entry["num_run"])),
        "quoted": [_quoted(table) for table in tables if not table.runnable],
        "verdicts": judge(paper, own, evidence.records("shipped", paper.name), stale=evidence.stale),
        "findings": _findings,
    }


def rerun(table: Table, scale: str, evidence: Evidence) -> dict[str, Any]:
    """Return what a page shows of a table at one scale: rows of texts with links, notes and charts."""
    cells = evidence.cells(table, scale)
    ours, theirs = evidence.of(table, "yours", scale), evidence.of(table, "shipped", scale)
    run = {record.row for record in [*ours, *theirs] if not record.variant}
    told = {cell.row for cell in cells if cell.published is not None} | run
    form = printed(table, cells)
    variants = [record.name for record in ours if record.variant]
    return {
        "table": table,
        "scale": scale,
        "cells": cells,
        "form": form,
        "rows": _rows(table, form, told),
        "num_run": len(run),
        "notes": _notes(table, cells, [row for row in table.runnable if row not in run], variants),
        "cell_notes": list(dict.fromkeys(f"{cell.row}, {cell.column}: {cell.note}" for cell in cells if cell.note)),
        "charts": [*_against_rate(table, scale, cells), *series_charts(table, scale, ours or theirs)] if run else [],
    }


def _notes(table: Table, cells: Sequence[Cell], not_run: Sequence[str], variants: Sequence[str]) -> list[str]:
    """Return the sentences below a table."""
    quoted = any(cell.published is not None for cell in cells)
    notes = [f"Published: {table.source.where}; {table.source.provenance} unless marked.", f"{UNKNOWN}: unknown."] if quoted else []
    notes.append(table.note)
    for words, names in (
        ("Not to be set against the published figures (other scale or hardware)", not_comparable(cells) if quoted else []),
        ("Not run at this scale", not_run),
        ("Variants, whose settings differ from their row's and which stand in no cell", sorted(variants)),
        ("Ran on", sorted({cell.device for cell in cells if cell.device})),
    ):
        if names:
            notes.append(f"{words}: {'; '.join(names) if words == 'Ran on' else ', '.join(names)}.")
    return [note for note in notes if note]


def _rows(table: Table, form: Printed, told: Collection[str]) -> list[dict[str, Any]]:
    """Return the printed rows that say anything: label, whether their code has changed, and texts by column."""
    rows = []
    for label in form.rows:
        cells = [form.at(label, name) for name in form.columns]
        names = {cell.row for here in cells for cell in here}
        if names & set(told):
            stale = any(cell.stale for here in cells for cell in here)
            rows.append({"label": label, "stale": stale, "columns": [[texts(table, cell) for cell in here] for here in cells]})
    return rows


def texts(table: Table, cell: Cell) -> dict[str, Any]:
    """Return what one cell says, in words: published with its provenance where that is not the table's, shipped, yours."""
    column = table.columns[cell.column]
    marked = cell.provenance not in (None, table.source.provenance) or cell.published == UNKNOWN
    return {
        "published": "" if cell.published is None else published_text(cell.published),
        "provenance": (cell.provenance or "unknown") if marked else "",
        "yours": rerun_text(cell.ours_mean, cell.ours_std, column),
        "num_yours": len(cell.seeds),
        "shipped": rerun_text(cell.shipped_mean, cell.shipped_std, column),
        "num_shipped": cell.shipped_n,
        "setting": cell.device if column.kind == "measured" else "",
        "href": row_page(table.paper, table.table, cell.row, cell.scale),
    }


def rerun_text(mean: float | None, std: float | None, column: Column) -> str:
    """Return mean ± standard deviation, without the latter where a count is the same in every seed; empty without a mean."""
    return "" if mean is None else mean_text(mean, std if std or column.kind != "counted" else None, column)


def _against_rate(table: Table, scale: str, cells: Sequence[Cell], x: str = "rate", y: str = "top1_pct") -> list[Chart]:
    """Return the chart of accuracy against rate, with the paper's points; none where no row has both figures."""
    by_key = {(cell.row, cell.column): cell for cell in cells}
    pairs = [(by_key[row, x], by_key[row, y]) for row in table.rows if (row, x) in by_key and (row, y) in by_key]
    found: dict[str, list[Point]] = {"published": [], "shipped": [], "yours": []}
    for across, up in pairs:
        for source, first, second, x_std, y_std in (
            ("published", across.published, up.published, None, None),
            ("shipped", across.shipped_mean, up.shipped_mean, across.shipped_std, up.shipped_std),
            ("yours", across.ours_mean, up.ours_mean, across.ours_std, up.ours_std),
        ):
            if isinstance(first, int | float) and isinstance(second, int | float):
                said = (rerun_text(first, x_std, table.columns[x]), rerun_text(second, y_std, table.columns[y]))
                text = f"{up.row}, {source}: rate {said[0]} x, top-1 {said[1]} %"
                href = "" if source == "published" else "../" + row_page(table.paper, table.table, up.row, scale)
                found[source].append(Point(first, second, x_std, y_std, text, href, name=up.row))
    series = [Series(source, LOOKS[source], tuple(points)) for source, points in found.items() if points]
    if not series:
        return []
    x_label, y_label = (axis_label(name, table.columns[name]) for name in (x, y))
    return [scatter(series, title="Accuracy against rate", of=f"{table.title}, scale {scale}", x_label=x_label, y_label=y_label)]


def series_charts(table: Table, scale: str, records: Iterable[Record]) -> list[Chart]:
    """Return the charts over the epochs, of the lowest seed of each row."""
    plain = [record for record in records if not record.variant]
    first_seed = min((record.seed for record in plain), default=0)
    shown = [record for record in plain if record.seed == first_seed]
    charts = []
    for name, label in CURVES:
        drawn = [Series(one.row, look, curve=tuple(sorted(one.series[name]))) for look, one in enumerate(shown) if one.series.get(name)]
        title = f"{label[:1].upper()}{label[1:]}, seed {first_seed}"
        of = f"{table.title}, scale {scale}"
        charts += curves(drawn, title=title, of=of, x_label=EPOCHS, y_label=label, log=name == "train/loss")
    return charts


def _quoted(table: Table) -> dict[str, Any]:
    cells = compare(table, [], [], SCALES[-1])
    form = printed(table, cells)
    return {"table": table, "form": form, "rows": _rows(table, form, table.rows), "notes": _notes(table, cells, (), ())}


def _findings(verdict: Verdict) -> list[str]:
    lines = []
    for finding in verdict.figures:
        mean = "no figure" if finding.mean is None else f"{finding.mean:.4g}"
        interval = "" if finding.low is None or finding.high is None else f" (90 % interval {finding.low:.4g} to {finding.high:.4g})"
        where = "" if finding.scale == verdict.scale else f" at {finding.scale} scale, {finding.source} records"
        lines.append(f"{finding.name}{where}: {mean}{interval}, asked {finding.bound}: {finding.verdict}")
    return lines
