"""The words in a chart: what an axis is called, and where the names of points stand so that none covers another."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from espalier import metrics
from espalier.tables.drawing import short
from espalier.tables.schema import Column

LABELS = {"loss_pct": "top-1 lost (points)", "macs_rate": "rate of multiply-adds: dense / left"}  # of computed columns, whole
HEIGHT = 0.062  # of a name, in heights of the axes
GAP = 0.035  # between a point and its name, in widths of the axes
CHARACTER_PT = 4.0  # mean width of a character of 6.5 points
HALF_MARK = 0.012  # half of a mark, in widths of the axes


def axis_label(name: str, column: Column) -> str:
    """Return what an axis of a column is called, such as ``latency, median (ms)``."""
    if name in LABELS:
        return LABELS[name]
    called = ("" if metrics.unknown([name]) else metrics.metric(name).label) or name.replace("_", " ")
    return f"{called} ({column.unit})" if column.unit and ":" not in called else called


@dataclass(frozen=True)
class Name:
    """A name and its place: the left end, and the middle of its height, in widths and heights of the axes."""

    text: str
    point: tuple[float, float]
    left: float
    middle: float
    width: float

    def covers(self, other: "Name") -> bool:
        """Return whether two names overlap."""
        apart = self.left >= other.left + other.width or other.left >= self.left + self.width
        return not apart and abs(self.middle - other.middle) < HEIGHT - 1e-9

    def hides(self, point: tuple[float, float]) -> bool:
        """Return whether the name lies on a point."""
        across, up = point
        return self.left - HALF_MARK < across < self.left + self.width + HALF_MARK and abs(self.middle - up) < HEIGHT / 2 + HALF_MARK


def placed(named: Sequence[tuple[str, tuple[float, float]]], points: Iterable[tuple[float, float]], width_pt: float) -> Iterator[Name]:
    """Yield each name where it covers no other, stays within the axes and, where there is room, hides no point.

    A name stands right of its point, else higher or lower, else further left or right; one that finds no place is left out.

    Args:
        named: (name, its point) in widths and heights of the axes.
        points: Every point that is drawn.
        width_pt: Width of the axes in points.
    """
    every, taken = list(points), list[Name]()
    for text, point in sorted(named, key=lambda one: (-one[1][1], one[1][0])):
        free = [one for one in _tries(short(text), point, width_pt) if not any(one.covers(other) for other in taken)]
        best = next((one for one in free if not any(one.hides(other) for other in every)), free[0] if free else None)
        if best is not None:
            taken.append(best)
            yield best


def _tries(text: str, point: tuple[float, float], width_pt: float) -> Iterator[Name]:
    """Yield the places of a name, the nearest to its point first."""
    width = len(text) * CHARACTER_PT / width_pt
    right = min(point[0] + GAP, 1 - width)
    lefts = [right, max(0.0, point[0] - GAP - width), max(0.0, 1 - width)]
    steps = [sign * index * HEIGHT / 2 for index in range(round(2 / HEIGHT)) for sign in ((1, -1) if index else (1,))]
    places = [(left, point[1] + step) for left in dict.fromkeys(lefts) for step in steps]
    places.sort(key=lambda place: abs(place[1] - point[1]) + abs(place[0] - right))
    yield from (Name(text, point, *place, width) for place in places if HEIGHT / 2 <= place[1] <= 1 - HEIGHT / 2)
