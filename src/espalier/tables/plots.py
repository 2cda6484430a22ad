"""The chart of a table for a paper: accuracy against rate with the published points. matplotlib draws it as vectors.

It tells nothing apart by colour alone: sources have marks of their own and points their row's name.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
COLORS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#56b4e9", "#e69f00")
MARKS = {
    "published": ("o", "none", "#20262d"),
    "shipped": ("s", COLORS[1], COLORS[1]),
    "yours": ("D", COLORS[0], COLORS[0]),
}
MAX_NAME = 26  # characters of a row's name in a chart
SPACING = 0.062  # of the axes' height, between two names
NAME_WIDTH = 0.35  # of the rates' range (logarithmic): rows nearer than this share one column of names


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


def _short(row: str) -> str:
    return row if len(row) <= MAX_NAME else f"{row[: MAX_NAME // 2 - 1]}…{row[-MAX_NAME // 2 :]}"


def _against_rate(lines: Sequence[dict[str, Any]], width_in: float = COLUMN_WIDTH_IN) -> Any:
    figure, axes = _axes(width_in, extra_in=0.2)
    for source, (mark, face, edge) in MARKS.items():
        own = [line for line in lines if line["source"] == source]
        if own:
            axes.errorbar(
                [line["rate"] for line in own],
                [line["top1_pct"] for line in own],
                yerr=[line["top1_pct_std"] or 0.0 for line in own],
                fmt=mark,
                markersize=4.5,
                markerfacecolor=face,
                color=edge,
                capsize=2,
                linewidth=0.8,
                label=source,
            )
    axes.set_xscale("log")
    rates = [line["rate"] for line in lines]
    span = max(max(rates) / min(rates), 2.0)
    axes.set_xlim(min(rates) / span**0.05, max(rates) * span**0.4)  # room for names
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.set_xlabel("rate: all weights / kept weights")
    axes.set_ylabel("top-1 accuracy (%)")
    for row, at, height in _names(lines, *axes.get_ylim()):
        link = {"arrowstyle": "-", "color": "#b5bcc4", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4}
        where = (at[0] * span**0.045, height)
        axes.annotate(_short(row), at, where, fontsize=6.5, va="center", color="#3d454e", arrowprops=link, bbox=ground, zorder=4)
    figure.legend(loc="outside lower center", ncols=len(MARKS), frameon=False)
    return figure


def _names(lines: Sequence[dict[str, Any]], low: float, high: float) -> Iterator[tuple[str, tuple[float, float], float]]:
    """Yield each row's name, its point (yours, else shipped, else published) and a height at which no other name stands."""
    point = {line["row"]: (line["rate"], line["top1_pct"]) for line in lines}  # the last source of a row wins
    rates = [rate for rate, _ in point.values()]
    near = max(max(rates) / min(rates), 2.0) ** NAME_WIDTH
    columns: list[list[str]] = []
    for row in sorted(point, key=lambda row: point[row]):
        if columns and point[row][0] <= near * point[columns[-1][-1]][0]:
            columns[-1].append(row)
        else:
            columns.append([row])
    step = SPACING * (high - low)
    for rows in columns:
        rows.sort(key=lambda row: point[row][1])
        heights = [point[row][1] for row in rows]
        for index in range(1, len(heights)):
            heights[index] = max(heights[index], heights[index - 1] + step)
        above = max(0.0, heights[-1] - high)
        for row, height in zip(rows, heights, strict=True):
            yield row, point[row], height - above


def _axes(width_in: float, extra_in: float = 0.0) -> tuple[Any, Any]:
    import matplotlib as mpl  # noqa: PLC0415  an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams.update(STYLE)
    figure = Figure(figsize=(width_in, width_in * 0.62 + extra_in), layout="constrained")
    return figure, figure.subplots()
