"""A table's chart: accuracy against rate, bytes or latency, with the spread over seeds and the Pareto front. matplotlib draws vectors.

A paper's table has one mark a source and names its rows; a comparison has one curve a contestant, with a colour and a mark of its own.
A PDF embeds its font; an SVG file has its letters as outlines, so that it looks the same where no such font is.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espalier.files import replacing, write_over
from espalier.tables.comparison import Cell
from espalier.tables.drawing import COLORS, DASHES, axes_of
from espalier.tables.labelling import axis_label, placed
from espalier.tables.layout import BETWEEN
from espalier.tables.points import Point, check_axis, common_setting, points, points_csv
from espalier.tables.ranking import looks, shared_times
from espalier.tables.schema import Table

COLUMN_WIDTH_IN = 3.33  # of a two-column paper
WIDTHS_IN = (1.5, 20.0)
FORMATS = (".pdf", ".svg", ".png", ".csv")
MARKS = {
    "published": ("o", "none", "#20262d"),
    "shipped": ("s", COLORS[1], COLORS[1]),
    "yours": ("D", COLORS[0], COLORS[0]),
}
SHAPES = ("o", "s", "D", "^", "v", "P", "X", "<")  # of contestants
MIN_SPAN = 3.0  # largest over smallest x from which on the axis is logarithmic
MANY_TICKS = 50.0  # largest over smallest x from which on only powers of ten are written
MAX_NAMES = 12  # rows; of more only those of the front are named
LINE_IN = 0.11  # height of a line of the caption
LEGEND_IN = 0.15  # of a line of the legend
HANDLE_PT, CHARACTER_PT = 36.0, 4.3  # of an entry of the legend: its sign, and a character of 7 points
AXIS_CHARACTERS_IN = 13  # of an axis' label, to an inch of the figure
CHARACTERS_IN = 22  # of the caption, to an inch


def plot(table: Table, cells: Sequence[Cell], to: Path, *, x: str = "rate", y: str = "top1_pct", width_in: float = COLUMN_WIDTH_IN) -> Path:
    """Write a table's chart as pdf, svg or png, or its points as csv; return the file.

    Args:
        table: Published table, or a comparison's.
        cells: What ``compare`` returned for it.
        to: File to write; its ending says the format.
        x: Column along the horizontal axis.
        y: Column along the vertical one, with its standard deviation.
        width_in: Width in inches.

    Raises:
        ValueError: The ending is none of these, there is no such column or width, or no row has both figures.
        OSError: The file cannot be written.
    """
    if to.suffix not in FORMATS:
        raise ValueError(f"cannot write '{to.name}': the ending says the format, one of {', '.join(FORMATS)}.")
    if not WIDTHS_IN[0] <= width_in <= WIDTHS_IN[1]:
        raise ValueError(f"--width {width_in:g} is in inches, {WIDTHS_IN[0]:g} to {WIDTHS_IN[1]:g}; a column of a paper is 3.33, a page 7.")
    check_axis(table, x, "--x")
    check_axis(table, y, "--y")
    lines = points(table, cells, x, y)
    if not lines:
        raise ValueError(f"{table.name} has no row with both {x} and {y} at scale={cells[0].scale}; run some rows first.")
    if to.suffix == ".csv":
        write_over(to, points_csv(lines))
        return to
    import matplotlib as mpl  # noqa: PLC0415  an extra

    told = caption(table, cells, lines, x, y)
    figure = drawn(table, lines, x, y, width_in=width_in, told=told)
    undated = {".svg": {"Date": None, "Title": table.title, "Description": told}, ".pdf": {"CreationDate": None, "Title": table.title}}
    with mpl.rc_context({"svg.fonttype": "path"}), replacing(to) as temporary:
        figure.savefig(temporary, format=to.suffix[1:], metadata=undated.get(to.suffix), dpi=300)
    return to


def caption(table: Table, cells: Sequence[Cell], lines: Sequence[Point], x: str, y: str) -> str:
    """Return what a reader must know of a chart: scale, seeds, front, setting, and what is stale or not to be compared."""
    seeds = sorted({line["n"] for line in lines if line["source"] != "published"})
    said = [f"{table.name}, scale {cells[0].scale}"]
    if seeds:
        num = f"{seeds[0]}{f' to {seeds[-1]}' if len(seeds) > 1 else ''}"
        said.append(f"mean ± standard deviation over n = {num} seeds" if seeds[-1] > 1 else "n = 1 seed, no spread")
    if setting := common_setting(table, cells, (x, y)):
        others = {(cell.row, cell.device) for cell in cells if cell.column in (x, y) and table.columns[cell.column].kind == "measured"}
        left_out = sum(1 for _, device in others if device not in ("", setting))
        said.append(f"measured on {setting}{f' (left out, in other settings: {left_out})' if left_out else ''}")
    if any(line["source"] == "published" and not line["comparable"] for line in lines):
        said.append("published points are of another scale or data, not to be set against the others")
    if any(line["stale"] for line in lines):
        said.append("* made by code that has changed since")
    if members := _members(lines, x):
        said.append(f"dashed: Pareto front of {members[0]['source']} ({', '.join(line['row'] for line in members)})")
    if shared := {row for row, column, *_ in shared_times(table, cells) if column in (x, y)}:
        said.append(f"{len(shared)} rows are timings of one computation, differ by noise and share their mean on the front")
    return "; ".join(said) + "."


def _members(lines: Sequence[Point], x: str) -> list[Point]:
    return sorted((line for line in lines if line["front"]), key=lambda line: float(line[x]))


def drawn(table: Table, lines: Sequence[Point], x: str, y: str, *, width_in: float, told: str = "") -> Any:
    """Return the figure, exactly ``width_in`` wide.

    Args:
        table: The table.
        lines: Its points.
        x: Figure along the horizontal axis.
        y: Figure along the vertical one.
        width_in: Width in inches.
        told: Caption below the axes; none where it is empty.
    """
    curves = _curves(table, lines, x)
    entries = _entries(table, curves)
    longest = max(len(label) for label, _ in entries)
    columns = max(1, min(len(entries), int(72 * width_in / (HANDLE_PT + CHARACTER_PT * longest))))
    wrapped = textwrap.wrap(told, max(20, round(width_in * CHARACTERS_IN))) if told else []
    below = [LINE_IN * len(wrapped) + (0.06 if wrapped else 0.0), LEGEND_IN * -(-len(entries) // columns) + 0.06]
    figure, axes = axes_of(width_in, extra_in=sum(below))
    height = figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, sum(below) / height, 1, 1 - sum(below) / height))
    for label, own, look in curves:
        spread = [line[f"{y}_std"] or 0.0 for line in own]
        bars = spread if any(spread) else None
        axes.errorbar([line[x] for line in own], [line[y] for line in own], yerr=bars, label=label, capsize=2, linewidth=0.8, **look)
    for line in lines:
        if line["stale"]:
            axes.annotate("*", (line[x], line[y]), (3, 1), textcoords="offset points", fontsize=8)
    _frame(table, axes, lines, x, y)
    _front(table, axes, lines, x, y)
    crowded = bool(table.contestants) or len({line["row"] for line in lines}) > MAX_NAMES
    named = [line for line in lines if line["front"]] if crowded else lines
    _write_names(figure, axes, named, lines, x, y)
    labels, handles = zip(*entries, strict=True)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, below[0] / height), "ncols": columns}
    figure.legend(handles, labels, frameon=False, fontsize=7, borderaxespad=0.2, **place)
    if wrapped:
        figure.text(0.02, (below[0] - 0.03) / height, "\n".join(wrapped), fontsize=6, va="top", color="#3d454e", linespacing=1.25)
    return figure


def _curves(table: Table, lines: Sequence[Point], x: str) -> list[tuple[str, list[Point], dict[str, Any]]]:
    """Return (label, points, look) of each entry of the legend: one a source, or, in a comparison, one a contestant and source."""
    if not table.contestants:
        found = [(part, [line for line in lines if line["source"] == part]) for part in MARKS]
        styles = {
            part: {"fmt": mark, "markerfacecolor": face, "color": edge, "markersize": 4.5} for part, (mark, face, edge) in MARKS.items()
        }
        return [(part, own, styles[part]) for part, own in found if own]
    curves = []
    names = dict.fromkeys(line["contestant"] for line in lines)
    sources = dict.fromkeys(line["source"] for line in lines)
    numbers = looks(table)
    for name in sorted(names, key=lambda name: name != ""):  # the dense row first
        for source in sources:
            own = [line for line in lines if (line["contestant"], line["source"]) == (name, source)]
            colour, form = numbers.get(name, (0, 0))
            color = COLORS[colour % len(COLORS)] if name else "#20262d"
            look = {"marker": SHAPES[form % len(SHAPES)] if name else "p", "color": color, "markersize": 4}
            look |= {
                "linestyle": DASHES[form % len(DASHES)] if name else "none",
                "markerfacecolor": color if source == "yours" else "none",
            }
            label = (name or "dense") + (f", {source}" if len(sources) > 1 else "")
            if own:
                curves.append((label, sorted(own, key=lambda line: float(line[x])), look))
    return curves


def _entries(table: Table, curves: Sequence[tuple[str, list[Point], dict[str, Any]]]) -> list[tuple[str, Any]]:
    """Return (label, sign) of each line of the legend: the curves, or, where that is shorter, methods by colour and the rest by mark."""
    from matplotlib.lines import Line2D  # noqa: PLC0415  an extra

    def sign(look: dict[str, Any]) -> Any:
        plain: Any = {"linewidth": 0.8, **{key: value for key, value in look.items() if key != "fmt"}}
        return Line2D([], [], **plain, **({"linestyle": "none", "marker": look["fmt"]} if "fmt" in look else {}))

    every = [(label, sign(look)) for label, _, look in curves]
    split: dict[str, Any] = {}
    for (label, own, look), (_, drawn_sign) in zip(curves, every, strict=True):
        if not (name := own[0]["contestant"]):
            split[label] = drawn_sign
            continue
        first, _, others = name.partition(BETWEEN)
        split[first] = Line2D([], [], color=look["color"], linewidth=2.5)
        if others:
            split[others] = sign({**look, "color": "#3d454e", "markerfacecolor": "none"})
    sources = dict.fromkeys(own[0]["source"] for _, own, _ in curves)
    if len(sources) > 1:
        split = {label: one for label, one in split.items() if not label.startswith("dense, ")} | {
            "filled: yours; open: shipped": Line2D([], [], linestyle="none")
        }
    signs = sorted(split.items(), key=lambda entry: (entry[1].get_linewidth() < 1, not entry[0].startswith("dense")))
    return signs if table.contestants and len(signs) < len(every) else every


def _frame(table: Table, axes: Any, lines: Sequence[Point], x: str, y: str) -> None:
    """Scale and label the axes, with room for names on the right."""
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415  an extra

    values = [line[x] for line in lines]
    low, high = min(values), max(values)
    if low > 0 and high >= MIN_SPAN * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < MANY_TICKS * low else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low / (high / low) ** 0.05, high * (high / low) ** 0.4)
    else:
        span = high - low or abs(high) or 1.0
        axes.set_xlim(low - 0.05 * span, high + 0.45 * span)
    axes.xaxis.set_major_formatter("{x:g}x" if table.columns[x].unit == "x" else lambda value, _: _tick(value))
    width_in, height_in = axes.figure.get_size_inches()
    for name, write, length_in in ((x, axes.set_xlabel, width_in), (y, axes.set_ylabel, min(height_in, width_in * 0.62))):
        write(textwrap.fill(axis_label(name, table.columns[name]), round(length_in * AXIS_CHARACTERS_IN)))


def _tick(value: float) -> str:
    """Return a number as a tick says it, thousands as k and millions as M."""
    unit, sign = next(((size, sign) for size, sign in ((1e6, "M"), (1e3, "k")) if abs(value) >= size), (1.0, ""))
    return f"{value / unit:.4g}{sign}"


def _front(table: Table, axes: Any, lines: Sequence[Point], x: str, y: str) -> None:
    """Draw what can be had at each x: the best y of the points that are at least as good there."""
    if members := _members(lines, x):
        towards = "steps-pre" if table.columns[x].better == "higher" else "steps-post"
        look = {"color": "#7a828c", "linewidth": 1.0, "linestyle": (0, (2, 1.5)), "drawstyle": towards, "zorder": 1}
        axes.plot([line[x] for line in members], [line[y] for line in members], **look)


def _write_names(figure: Any, axes: Any, named: Sequence[Point], lines: Sequence[Point], x: str, y: str) -> None:
    """Write the name of each row beside its point: yours, else the shipped, else the published one."""
    figure.draw_without_rendering()  # lays out the axes, whose width the names need
    whole, to_axes = axes.get_window_extent().width * 72 / figure.dpi, axes.transAxes.inverted()
    pixels = {id(line): to_axes.transform(axes.transData.transform((line[x], line[y]))) for line in lines}
    at = {key: (float(across), float(up)) for key, (across, up) in pixels.items()}
    points = {line["row"]: at[id(line)] for line in named}  # the last source of a row wins
    link = {"arrowstyle": "-", "color": "#b5bcc4", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4}
    for name in placed(list(points.items()), at.values(), whole):
        where = {"xycoords": "axes fraction", "textcoords": "axes fraction", "va": "center", "annotation_clip": False}
        look = {"fontsize": 6.5, "color": "#3d454e", "arrowprops": link, "bbox": ground, "zorder": 4}
        axes.annotate(name.text, name.point, (name.left, name.middle), **where, **look)
