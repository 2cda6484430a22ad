"""Curves through the rows of a grid: where does a figure stand when the accuracy has fallen by so much?"""

import math
from collections.abc import Sequence


class NoCrossingError(ValueError):
    """A curve does not pass the accuracy asked for."""


def at_accuracy(aim: float, accuracies: Sequence[float], values: Sequence[float]) -> float:
    """Return the figure at the last point that meets an accuracy, interpolated towards the next one in the figure's logarithm.

    Source: admm-nn-s, A6: the largest rate that keeps the accuracy, on a curve of accuracy over log(rate).

    Args:
        aim: The accuracy.
        accuracies: One a point, from the least to the most compressed.
        values: The figure of each point, above 0.

    Raises:
        NoCrossingError: Even the first point misses the aim, or even the last meets it.
        ValueError: There are fewer than two points, or a figure is not above 0.
    """
    if len(values) < 2 or len(values) != len(accuracies) or min(values) <= 0:
        raise ValueError(f"a curve has two points or more, and figures above 0; this one has {list(values)}.")
    meeting = [index for index, accuracy in enumerate(accuracies) if accuracy >= aim]
    if not meeting:
        raise NoCrossingError(f"even the first row of the curve lies below {aim:.2f}")
    if (last := meeting[-1]) == len(values) - 1:
        raise NoCrossingError(f"even the last row of the curve reaches {aim:.2f}")
    share = (accuracies[last] - aim) / (accuracies[last] - accuracies[last + 1])
    return math.exp((1 - share) * math.log(values[last]) + share * math.log(values[last + 1]))
