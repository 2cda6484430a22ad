"""Charts of the site, as SVG that needs no script: points are links that the keyboard reaches, colours are the style sheet's.

No chart tells things apart by colour alone: points have shapes and curves have dashes beside colours that stay apart for colour-blind
readers (after Okabe and Ito, 2008).
"""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from espalier.site.axes import Axis, fitted, short_number

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 44  # around the axes
NAME_ROOM = 130  # right of the points, for their names
LINE_HEIGHT = 13  # between two names
MAX_NAME = 24  # characters of a name in a chart
MAX_CURVES = 8  # a chart; more are told apart by nobody
NUM_COLOURS = 7  # classes c0 to c6 of the style sheet
DASHES = ("", "8 3", "2 2", "9 3 2 3")
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",  # circle
    "M-4-4h8v8h-8z",  # square
    "M0-5.5L5.5 0 0 5.5-5.5 0z",  # diamond
    "M0-5.5L5.5 4.5h-11z",  # triangle
    "M0 5.5L5.5-4.5h-11z",  # triangle on its tip
    "M-1.8-5.5h3.6v3.7h3.7v3.6h-3.7v3.7h-3.6v-3.7h-3.7v-3.6h3.7z",  # plus
)


@dataclass(frozen=True)
class Point:
    """One figure against another.

    Args:
        x: Mean.
        y: Mean.
        x_std: Standard deviation over the seeds; None without.
        y_std: See ``x_std``.
        text: What it is and says, read aloud and shown where the keyboard or the mouse stands.
        href: The page behind it; empty for none.
        name: Written beside it; empty for none.
    """

    x: float
    y: float
    x_std: float | None
    y_std: float | None
    text: str
    href: str = ""
    name: str = ""


@dataclass(frozen=True)
class Series:
    """Points or a curve that belong together.

    Args:
        name: As in the legend.
        look: Which colour, from 0 on; no other series of the chart has the same number.
        form: Which shape and dashes, from 0 on; None takes ``look``.
        points: Points of a scatter chart.
        joined: Whether a line joins the points.
        curve: (x, y) of a curve, instead of points.
    """

    name: str
    look: int
    points: tuple[Point, ...] = ()
    joined: bool = False
    curve: tuple[tuple[float, float], ...] = ()
    form: int | None = None

    @property
    def shape(self) -> str:
        """Return the mark of its points, an SVG path."""
        return SHAPES[(self.look if self.form is None else self.form) % len(SHAPES)]

    @property
    def dashes(self) -> str:
        """Return the dashes of its line, as SVG takes them."""
        return DASHES[(self.look if self.form is None else self.form) % len(DASHES)]

    @property
    def swatch(self) -> Markup:
        """Return its sign in the legend."""
        line = f'<path class="line" stroke-dasharray="{self.dashes}" d="M0 7h26"/>' if self.joined or self.curve else ""
        mark = "" if self.curve else f'<path class="mark" transform="translate(13 7)" d="{self.shape}"/>'
        size = 'viewBox="0 0 26 14" width="26" height="14" aria-hidden="true"'
        return Markup(f'<svg class="swatch {_colour(self.look)}" {size}>{line}{mark}</svg>')  # noqa: S704


@dataclass(frozen=True)
class Chart:
    """One drawing with its title and legend."""

    title: str
    svg: Markup
    legend: tuple[Series, ...]
    note: str = ""


def scatter(
    series: Sequence[Series], *, title: str, of: str, x_label: str, y_label: str, front: Sequence[tuple[float, float]] = (), note: str = ""
) -> Chart:
    """Return a chart of points with error bars; the horizontal axis is logarithmic where its values are far apart.

    Args:
        series: The points; one at least.
        title: What is drawn.
        of: What it belongs to; joins the title in what is read aloud.
        x_label: Name and unit of the horizontal axis.
        y_label: Name and unit of the vertical axis.
        front: (x, y) of the points that no other beats, joined by a line of steps.
        note: One line below the drawing.
    """
    every = [point for one in series for point in one.points]
    room = NAME_ROOM if any(point.name for point in every) else 0
    lengths = [point.x + sign * (point.x_std or 0.0) for point in every for sign in (-1, 1)]
    across = fitted([x for x in lengths if x > 0] or lengths, LEFT, WIDTH - RIGHT - room)
    spreads = [point.y + sign * (point.y_std or 0.0) for point in every for sign in (-1, 1)]
    up = fitted(spreads, HEIGHT - BOTTOM, TOP, log=False)
    parts = [*_frame(across, up, x_label, y_label)]
    if len(front) > 1:
        parts.append(f'<path class="front" d="{_steps(front, across, up)}"/>')
    for one in series:
        if one.joined:
            path = "L".join(_pair(across.at(point.x), up.at(point.y)) for point in sorted(one.points, key=lambda point: point.x))
            parts.append(f'<path class="line {_colour(one.look)}" stroke-dasharray="{one.dashes}" d="M{path}"/>')
        parts += [_bars(point, across, up, one.look) for point in one.points]
    parts += _names([point for point in every if point.name], across, up)
    for one in series:
        parts += [_mark(point, across, up, one) for point in one.points]
    return Chart(title, _svg("group", f"{title}, {of}", parts), tuple(series), note)


def curves(series: Sequence[Series], *, title: str, of: str, x_label: str, y_label: str, log: bool = False) -> list[Chart]:
    """Return charts of at most ``MAX_CURVES`` curves each, on the same axes.

    Curves break where nothing is recorded, and the first are drawn widest, so that steps which rows share show below one another.

    Args:
        series: The curves.
        title: What is drawn.
        of: What it belongs to; joins the title in what is read aloud.
        x_label: Name and unit of the horizontal axis.
        y_label: Name and unit of the vertical axis.
        log: Whether the vertical axis is logarithmic, where all values are above zero.
    """
    num_charts = -(-len(series) // MAX_CURVES)
    every = [point for one in series for point in one.curve]
    charts = []
    for part in range(num_charts):
        shown = series[part::num_charts]
        across = fitted([x for x, _ in every], LEFT, WIDTH - RIGHT, log=False)
        up = fitted([y for _, y in every], HEIGHT - BOTTOM, TOP, log=log)
        parts = [*_frame(across, up, x_label, y_label)]
        parts += [_curve(one, across, up, width=3.2 - 0.25 * order) for order, one in enumerate(shown)]
        which = f", {part + 1} of {num_charts}" if num_charts > 1 else ""
        charts.append(Chart(title + which, _svg("img", f"{title}{which}, {of}", parts), tuple(shown)))
    return charts


def _svg(role: str, label: str, parts: Iterable[str]) -> Markup:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="{role}" aria-label="{escape(label)}">'
    return Markup(head + "\n".join(parts) + "</svg>")  # noqa: S704  texts are escaped where they are put in


def _frame(across: Axis, up: Axis, x_label: str, y_label: str) -> Iterator[str]:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in up.ticks(6):
        yield f'<path class="grid" d="M{LEFT} {up.at(tick):.1f}H{right}"/>'
        yield f'<text x="{LEFT - 6}" y="{up.at(tick) + 4:.1f}" text-anchor="end">{short_number(tick)}</text>'
    for tick in across.ticks(7):
        yield f'<path class="grid" d="M{across.at(tick):.1f} {TOP}V{floor}"/>'
        yield f'<text x="{across.at(tick):.1f}" y="{floor + 15}" text-anchor="middle">{short_number(tick)}</text>'
    yield f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{right}"/>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    yield f'<text transform="translate(12 {(TOP + floor) / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'


def _mark(point: Point, across: Axis, up: Axis, of: Series) -> str:
    place = f'transform="translate({_pair(across.at(point.x), up.at(point.y))})"'
    mark = f'<path class="hit" d="{SHAPES[1]}" transform="scale(2.5)"/><path class="mark" d="{of.shape}"/>'
    link = f' href="{escape(point.href)}"' if point.href else ' tabindex="0" role="img"'
    tag = "a" if point.href else "g"
    text = escape(point.text)
    return f'<{tag} class="point {_colour(of.look)}" {place}{link} aria-label="{text}"><title>{text}</title>{mark}</{tag}>'


def _bars(point: Point, across: Axis, up: Axis, look: int) -> str:
    x, y, path = across.at(point.x), up.at(point.y), ""
    if point.y_std:
        ends = (up.at(point.y - point.y_std), up.at(point.y + point.y_std))
        path += f"M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}" + "".join(f"M{x - 3:.1f} {end:.1f}h6" for end in ends)
    if point.x_std and point.x > point.x_std:
        ends = (max(across.at(point.x - point.x_std), across.start), across.at(point.x + point.x_std))
        path += f"M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}" + "".join(f"M{end:.1f} {y - 3:.1f}v6" for end in ends)
    return f'<path class="bar {_colour(look)}" d="{path}"/>' if path else ""


def _steps(front: Sequence[tuple[float, float]], across: Axis, up: Axis) -> str:
    """Return a line that rises only where a better point begins; ``front`` goes from one end to the other."""
    first, *rest = [(across.at(x), up.at(y)) for x, y in front]
    return f"M{_pair(*first)}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)


def _names(points: Sequence[Point], across: Axis, up: Axis) -> list[str]:
    """Return the names of points, to the right of them, moved up or down so that none covers another, each joined to its point."""
    at = {point.name: (across.at(point.x), up.at(point.y)) for point in points}  # the last of a name wins
    columns: list[list[str]] = []
    for name in sorted(at, key=lambda name: at[name]):
        if columns and at[name][0] <= at[columns[-1][0]][0] + NAME_ROOM:
            columns[-1].append(name)
        else:
            columns.append([name])
    parts = []
    for names in columns:
        names.sort(key=lambda name: at[name][1])
        heights = [at[name][1] for name in names]
        for index in range(1, len(names)):
            heights[index] = max(heights[index], heights[index - 1] + LINE_HEIGHT)
        below = max(0.0, heights[-1] - (HEIGHT - BOTTOM - 4))
        right = min(max(at[name][0] for name in names) + 14, WIDTH - NAME_ROOM)
        for name, height in zip(names, heights, strict=True):
            x, y = at[name]
            parts.append(f'<path class="link" d="M{x:.1f} {y:.1f}L{right - 3:.1f} {height - below:.1f}"/>')
            parts.append(f'<text class="name" x="{right:.1f}" y="{height - below + 4:.1f}">{escape(_short(name))}</text>')
    return parts


def _curve(one: Series, across: Axis, up: Axis, *, width: float) -> str:
    pieces = ["L".join(_pair(across.at(x), up.at(y)) for x, y in piece) for piece in broken(one.curve)]
    lines = "".join(f"M{piece}" if "L" in piece else f"M{piece}h0.1" for piece in pieces)
    look = f'stroke-width="{width:.2f}" stroke-dasharray="{one.dashes}" stroke-linecap="{"butt" if one.dashes else "round"}"'
    return f'<path class="line {_colour(one.look)}" {look} d="{lines}"><title>{escape(one.name)}</title></path>'


def broken(curve: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return the pieces of a curve, apart wherever two points lie more than twice as far from one another as usual."""
    steps = [after[0] - before[0] for before, after in itertools.pairwise(curve)]
    usual = statistics.median(steps) if steps else 0.0
    pieces = [[curve[0]]]
    for step, point in zip(steps, curve[1:], strict=True):
        if step > 2 * usual:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2 - 1]}…{name[-MAX_NAME // 2 :]}"


def _pair(x: float, y: float) -> str:
    return f"{x:.1f} {y:.1f}"


def _colour(look: int) -> str:
    return f"c{look % NUM_COLOURS} l{look}"
