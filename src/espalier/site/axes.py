"""Axes of a chart: where a value stands, and which values are written beside it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDE_RANGE = 4.0  # largest / smallest value from which on an axis is logarithmic
MARGIN = 0.06  # of the axis' length, left free at either end


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        low: Smallest value shown.
        high: Largest value shown; above ``low``.
        start: Where ``low`` stands, in the chart's units.
        end: Where ``high`` stands.
        log: Whether equal ratios, not differences, take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return where a value stands."""
        low, high, value = (math.log(one) for one in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return up to ``most`` round values between the ends."""
        found = _log_ticks(self.low, self.high, most) if self.log else []
        return found if len(found) > 2 else _linear_ticks(self.low, self.high, most)


def fitted(values: Iterable[float], start: float, end: float, *, log: bool | None = None) -> Axis:
    """Return the axis that shows all values, with a margin.

    Args:
        values: One at least.
        start: Where the smallest stands, but for the margin.
        end: Where the largest stands.
        log: Whether it is logarithmic; None takes that for a wide range above zero.
    """
    every = list(values)
    low, high = min(every), max(every)
    logarithmic = low > 0 and (high / low >= WIDE_RANGE if log is None else log)
    if low == high:
        low, high = (low / 2, high * 2) if logarithmic else (low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10)
    if logarithmic:
        margin = (high / low) ** MARGIN
        return Axis(low / margin, high * margin, start, end, log=True)
    room = (high - low) * MARGIN
    return Axis(low - room, high + room, start, end)


def short_number(value: float) -> str:
    """Return a value as an axis shows it: ``0.5``, ``300``, ``12k``, ``1.5M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * magnitude for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * magnitude) <= most)
    first = math.ceil(low / step)
    return [float(f"{index * step:.10g}") for index in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: Sequence[float] = ()
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [tick for decade in decades for factor in factors if low <= (tick := factor * 10.0**decade) <= high]
        if len(found) <= most:
            return list(found)
    return list(found[:: math.ceil(len(found) / most)])
