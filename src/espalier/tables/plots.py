"""Charts: accuracy against rate with the paper's points, and a record's series. matplotlib draws them as vectors."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from espalier.record import Record
from espalier.tables.comparison import Cell
from espalier.tables.schema import Table

COLUMN_WIDTH_IN = 3.5
FORMATS = (".pdf", ".svg", ".png", ".csv")
STYLE: Any = {
    "pdf.fonttype": 42,  # embedded as TrueType, so that text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "espalier",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d9dde2",
    "grid.linewidth": 0.5,
    "axes.edgecolor": "#7a828c",
}
COLORS = ("#0b5fa5", "#b35900", "#2f7d32", "#8a2be2", "#a61e4d", "#00717a", "#5f4b32")


def points(table: Table, cells: Sequence[Cell], x: str = "rate", y: str = "top1_pct") -> list[dict[str, Any]]:
    """Return one line a row and source (published, shipped, yours) that has both figures."""
    by_key = {(cell.row, cell.column): cell for cell in cells}
    lines = []
    for row in table.rows:
        across, up = by_key.get((row, x)), by_key.get((row, y))
        if across is None or up is None:
            continue
        for source, first, second, spread in (
            ("published", across.published, up.published, None),
            ("shipped", across.shipped_mean, up.shipped_mean, up.shipped_std),
            ("yours", across.ours_mean, up.ours_mean, up.ours_std),
        ):
            if isinstance(first, int | float) and isinstance(second, int | float):
                lines.append({"row": row, "source": source, x: first, y: second, f"{y}_std": spread})
    return lines


def plot(table: Table, cells: Sequence[Cell], to: Path) -> Path:
    """Write accuracy against rate as pdf, svg, png or csv, one column of a paper wide.

    Raises:
        ValueError: The ending is none of these, or no row has both figures.
    """
    if to.suffix not in FORMATS:
        raise ValueError(f"cannot write '{to.name}': the ending says the format, one of {', '.join(FORMATS)}.")
    lines = points(table, cells)
    if not lines:
        raise ValueError(f"{table.paper}/{table.table} has no row with both a rate and an accuracy; run some rows first.")
    if to.suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        to.write_text(buffer.getvalue(), encoding="utf-8")
        return to
    figure = _against_rate(lines)
    figure.savefig(to, metadata={"Date": None} if to.suffix == ".svg" else None, dpi=300, bbox_inches="tight")
    return to


def against_rate_svg(table: Table, cells: Sequence[Cell]) -> str:
    """Return the chart as inline SVG; empty where no row has both figures."""
    lines = points(table, cells)
    return _svg(_against_rate(lines, width_in=6.0)) if lines else ""


def series_svg(records: Iterable[Record], name: str, label: str) -> str:
    """Return one curve a record of the series ``name`` over the epochs, as inline SVG; empty where no record has it."""
    curves = [(record, record.series[name]) for record in records if record.series.get(name)]
    if not curves:
        return ""
    figure, axes = _axes(6.0)
    for index, (record, values) in enumerate(curves):
        axes.plot(*zip(*values, strict=True), color=COLORS[index % len(COLORS)], linewidth=1.2, label=f"{record.row}, seed {record.seed}")
    axes.set_xlabel("epochs trained, over all steps")
    axes.set_ylabel(label)
    axes.legend(frameon=False, fontsize=7)
    return _svg(figure)


def _against_rate(lines: Sequence[dict[str, Any]], width_in: float = COLUMN_WIDTH_IN) -> Any:
    figure, axes = _axes(width_in)
    marks = {"published": ("o", "none", "#20262d"), "shipped": ("s", COLORS[1], COLORS[1]), "yours": ("D", COLORS[0], COLORS[0])}
    for source, (mark, face, edge) in marks.items():
        own = [line for line in lines if line["source"] == source]
        if own:
            axes.errorbar(
                [line["rate"] for line in own],
                [line["top1_pct"] for line in own],
                yerr=[line["top1_pct_std"] or 0.0 for line in own],
                fmt=mark,
                markersize=5,
                markerfacecolor=face,
                color=edge,
                capsize=2,
                linewidth=0.8,
                label=source,
            )
    axes.set_xscale("log")
    axes.set_xlabel("rate: all weights / kept weights")
    axes.set_ylabel("top-1 accuracy (%)")
    axes.legend(frameon=False)
    return figure


def _axes(width_in: float) -> tuple[Any, Any]:
    import matplotlib as mpl  # noqa: PLC0415  an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams.update(STYLE)
    figure = Figure(figsize=(width_in, width_in * 0.62), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
