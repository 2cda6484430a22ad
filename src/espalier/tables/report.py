"""The report: one HTML page that opens from disk, with every figure read from records."""

import re
from collections.abc import Collection, Iterable, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from espalier.files import write_over
from espalier.record import Measurement, Record
from espalier.tables.claims import Verdict, judge
from espalier.tables.comparison import Cell, compare
from espalier.tables.export import not_comparable
from espalier.tables.figures import mean_text, published_text
from espalier.tables.layout import Printed, printed
from espalier.tables.plots import against_rate_svg
from espalier.tables.published import Paper
from espalier.tables.schema import SCALES, UNKNOWN, Table
from espalier.tables.series import series_svgs

MARKS = {"holds": "✓", "fails": "✗", "inconclusive": "≈", "not run": "○"}
CURVES = (("train/loss", "training loss (nat)"), ("val/top1_pct", "validation top-1 (%)"), ("admm/residual_max", "largest ||W-Z|| / ||W||"))


def write_report(
    papers: Iterable[Paper], own: Sequence[Record], measurements: Sequence[Measurement], out: Path, *, stale: Collection[str] = ()
) -> Path:
    """Write ``out/index.html`` and return its path.

    Args:
        papers: The papers to show.
        own: Records of the store.
        measurements: Measurements of the store.
        out: Folder of the report.
        stale: Names of own runs whose code has changed since; their rows are marked.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape  # noqa: PLC0415  an extra

    environment = Environment(loader=PackageLoader("espalier.tables"), autoescape=select_autoescape(["html", "j2"]), trim_blocks=True)
    shown = sorted((_paper(paper, own, measurements, stale) for paper in papers), key=lambda entry: not entry["scales"])  # with runs first
    page = environment.get_template("report.html.j2").render(papers=shown, marks=MARKS, version=version("espalier"))
    write_over(out / "index.html", page)
    return out / "index.html"


def _paper(paper: Paper, own: Sequence[Record], measurements: Sequence[Measurement], stale: Collection[str]) -> dict[str, Any]:
    shipped = paper.shipped_records()
    verdicts = judge(paper, own, shipped, stale=stale)
    tables = [paper.table(name) for name in paper.table_names]
    entries = [
        _rerun(table, scale, paper, own, shipped, measurements, stale)
        for table in tables
        if table.runnable
        for scale in _scales(table, own, shipped)
    ]
    return {
        "facts": paper.facts,
        "tables": entries,
        "scales": list(dict.fromkeys(entry["scale"] for entry in entries if entry["num_run"])),
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
    table: Table,
    scale: str,
    paper: Paper,
    own: Sequence[Record],
    shipped: Sequence[Record],
    measurements: Sequence[Measurement],
    stale: Collection[str],
) -> dict[str, Any]:
    cells = compare(table, own, shipped, scale, measurements=measurements, shipped_measurements=paper.shipped_measurements(), stale=stale)
    ours = [record for record in own if _belongs(record, table, scale)]
    theirs = [record for record in shipped if _belongs(record, table, scale)]
    run = {record.row for record in [*ours, *theirs] if not record.variant}
    told = {cell.row for cell in cells if cell.published is not None} | run
    form = printed(table, cells)
    return {
        "table": table,
        "scale": scale,
        "form": form,
        "rows": _rows(table, form, told),
        "num_run": len(run),
        "notes": _notes(
            table, cells, [row for row in table.runnable if row not in run], [record.name for record in ours if record.variant]
        ),
        "cell_notes": list(dict.fromkeys(f"{cell.row}, {cell.column}: {cell.note}" for cell in cells if cell.note)),
        "charts": _charts(table, scale, cells, ours or theirs) if run else [],
    }


def _notes(table: Table, cells: Sequence[Cell], not_run: Sequence[str], variants: Sequence[str]) -> list[str]:
    """Return the sentences below a table."""
    notes = [f"Published: {table.source.where}; {table.source.provenance} unless marked.", f"{UNKNOWN}: unknown.", table.note]
    for words, names in (
        ("Not to be set against the published figures (other scale or hardware)", not_comparable(cells)),
        ("Not run at this scale", not_run),
        ("Variants, whose settings differ from their row's and which stand in no cell", sorted(variants)),
        ("Ran on", sorted({cell.device for cell in cells if cell.device})),
    ):
        if names:
            notes.append(f"{words}: {'; '.join(names) if words == 'Ran on' else ', '.join(names)}.")
    return [note for note in notes if note]


def _belongs(record: Record, table: Table, scale: str) -> bool:
    return (record.paper, record.table, record.scale) == (table.paper, table.table, scale)


def _rows(table: Table, form: Printed, told: Collection[str]) -> list[dict[str, Any]]:
    """Return the printed rows that say anything: label, whether their code has changed, and texts by column."""
    rows = []
    for label in form.rows:
        cells = [form.at(label, name) for name in form.columns]
        names = {cell.row for here in cells for cell in here}
        if names & set(told):
            stale = any(cell.stale for here in cells for cell in here)
            rows.append({"label": label, "stale": stale, "columns": [[_texts(table, cell) for cell in here] for here in cells]})
    return rows


def _texts(table: Table, cell: Cell) -> dict[str, Any]:
    """Return what one cell says, in words: published with its provenance where that is not the table's, shipped, yours."""
    column = table.columns[cell.column]

    def rerun(mean: float | None, std: float | None) -> str:
        return "" if mean is None else mean_text(mean, std if std or column.kind != "counted" else None, column)

    marked = cell.provenance not in (None, table.source.provenance) or cell.published == UNKNOWN
    return {
        "published": "" if cell.published is None else published_text(cell.published),
        "provenance": (cell.provenance or "unknown") if marked else "",
        "note": cell.note,
        "yours": rerun(cell.ours_mean, cell.ours_std),
        "num_yours": len(cell.seeds),
        "shipped": rerun(cell.shipped_mean, cell.shipped_std),
        "num_shipped": cell.shipped_n,
        "setting": cell.device if column.kind == "measured" else "",
        "only_published": (cell.ours_mean, cell.shipped_mean) == (None, None),
    }


def _charts(table: Table, scale: str, cells: Sequence[Cell], shown: Sequence[Record]) -> list[tuple[str, str]]:
    """Return (title, SVG) of each chart; curves are those of the lowest seed of each row."""
    plain = [record for record in shown if not record.variant]
    first_seed = min((record.seed for record in plain), default=0)
    curves = [record for record in plain if record.seed == first_seed]
    charts = [("Accuracy against rate", against_rate_svg(table, cells))]
    for name, label in CURVES:
        drawn = series_svgs(curves, name, label)
        for part, svg in enumerate(drawn, start=1):
            which = f", {part} of {len(drawn)}" if len(drawn) > 1 else ""
            charts.append((f"{label[:1].upper()}{label[1:]}, seed {first_seed}{which}", svg))
    return [
        (title, _described(svg, f"{title}, {table.title}, scale {scale}", f"{table.table}-{scale}-{index}-"))
        for index, (title, svg) in enumerate(charts)
        if svg
    ]


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


def _described(svg: str, label: str, prefix: str) -> str:
    """Return the SVG with a name for screen readers and ids that no other chart of the page has."""
    own_ids = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return own_ids.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
