"""The report: one HTML page that opens from disk, with every figure read from records."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from espalier.files import write_over
from espalier.record import Measurement, Record
from espalier.tables.claims import Verdict, judge
from espalier.tables.comparison import Cell, compare
from espalier.tables.plots import against_rate_svg, series_svg
from espalier.tables.published import Paper
from espalier.tables.schema import SCALES, Table

MARKS = {"holds": "✓", "fails": "✗", "inconclusive": "≈", "not run": "○"}
CURVES = (("train/loss", "training loss (nat)"), ("val/top1_pct", "validation top-1 (%)"), ("admm/residual_max", "largest ||W-Z|| / ||W||"))


def write_report(papers: Iterable[Paper], own: Sequence[Record], measurements: Sequence[Measurement], out: Path) -> Path:
    """Write ``out/index.html`` and return its path.

    Args:
        papers: The papers to show.
        own: Records of the store.
        measurements: Measurements of the store.
        out: Folder of the report.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape  # noqa: PLC0415  an extra

    environment = Environment(loader=PackageLoader("espalier.tables"), autoescape=select_autoescape(["html", "j2"]), trim_blocks=True)
    environment.filters["figure"] = figure
    page = environment.get_template("report.html.j2").render(
        papers=[_paper(paper, own, measurements) for paper in papers], marks=MARKS, version=version("espalier")
    )
    write_over(out / "index.html", page)
    return out / "index.html"


def figure(value: float | str | None) -> str:
    """Return a figure as a reader wants it: four digits, thousands apart."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _paper(paper: Paper, own: Sequence[Record], measurements: Sequence[Measurement]) -> dict[str, Any]:
    shipped = paper.shipped_records()
    verdicts = judge(paper, own, shipped)
    tables = [paper.table(name) for name in paper.table_names]
    return {
        "facts": paper.facts,
        "tables": [
            _rerun(table, scale, paper, own, shipped, measurements)
            for table in tables
            if table.runnable
            for scale in _scales(table, own, shipped)
        ],
        "quoted": [_quoted(table) for table in tables if not table.runnable],
        "verdicts": verdicts,
        "tally": {word: sum(verdict.verdict == word for verdict in verdicts) for word in MARKS},
        "findings": _findings,
    }


def _scales(table: Table, own: Sequence[Record], shipped: Sequence[Record]) -> list[str]:
    """Return the scales at which the table has records, the highest first; smoke where there are none."""
    present = {record.scale for record in [*own, *shipped] if (record.paper, record.table) == (table.paper, table.table)}
    return [scale for scale in reversed(SCALES) if scale in present] or [SCALES[0]]


def _rerun(
    table: Table, scale: str, paper: Paper, own: Sequence[Record], shipped: Sequence[Record], measurements: Sequence[Measurement]
) -> dict[str, Any]:
    cells = compare(table, own, shipped, scale, measurements=measurements, shipped_measurements=paper.shipped_measurements())
    shown = [record for record in own if _belongs(record, table, scale)] or [record for record in shipped if _belongs(record, table, scale)]
    first_seed = min((record.seed for record in shown), default=0)
    curves = [record for record in shown if record.seed == first_seed and not record.variant]
    charts = [("Accuracy against rate", against_rate_svg(table, cells))]
    charts += [(label, series_svg(curves, name, label)) for name, label in CURVES]
    return {
        "table": table,
        "scale": scale,
        "columns": _columns(table),
        "rows": _rows(table, cells),
        "charts": [(title, _described(svg, f"{title}, {table.title}, scale {scale}")) for title, svg in charts if svg],
        "devices": sorted({cell.device for cell in cells if cell.device}),
    }


def _belongs(record: Record, table: Table, scale: str) -> bool:
    return (record.paper, record.table, record.scale) == (table.paper, table.table, scale)


def _columns(table: Table) -> list[tuple[str, str]]:
    return [(name, column.unit) for name, column in table.columns.items()]


def _rows(table: Table, cells: Sequence[Cell]) -> list[tuple[str, list[list[Cell]]]]:
    return [(row, [[cell for cell in cells if (cell.row, cell.column) == (row, name)] for name in table.columns]) for row in table.rows]


def _quoted(table: Table) -> dict[str, Any]:
    return {
        "table": table,
        "columns": _columns(table),
        "rows": [(row, [entry.cells.get(name) for name in table.columns]) for row, entry in table.rows.items()],
    }


def _findings(verdict: Verdict) -> list[str]:
    lines = []
    for finding in verdict.figures:
        mean = "no figure" if finding.mean is None else f"{finding.mean:.4g}"
        interval = "" if finding.low is None or finding.high is None else f" (90 % interval {finding.low:.4g} to {finding.high:.4g})"
        lines.append(f"{finding.name}: {mean}{interval}, asked {finding.bound}: {finding.verdict}")
    return lines


def _described(svg: str, label: str) -> str:
    """Return the SVG with a name for screen readers, scaled to its box."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
