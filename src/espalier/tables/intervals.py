"""The 90 % interval of a mean over few seeds (Student's t)."""

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.90


def two_sided_t(df: int, confidence: float = CONFIDENCE) -> float:
    """Return t with P(-t < T < t) = ``confidence`` for ``df`` degrees of freedom, to 1e-12.

    Raises:
        ValueError: Fewer than one degree of freedom, or a confidence outside (0, 1).
    """
    if df < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"t needs at least one degree of freedom and a confidence in (0, 1), not {df} and {confidence}.")
    low, high = 0.0, math.pi / 2  # of theta = atan(t / sqrt(df)), in which the mass is a finite sum
    while high - low > 1e-13:
        middle = (low + high) / 2
        low, high = (middle, high) if _mass(middle, df) < confidence else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _mass(theta: float, df: int) -> float:
    """Return P(-t < T < t) at ``t = sqrt(df) tan(theta)`` (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    sine, cosine = math.sin(theta), math.cos(theta)
    term = cosine if df % 2 else 1.0
    total = 0.0 if df == 1 else term
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (theta + sine * total) if df % 2 else sine * total


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return (mean, low, high) of the mean of ``values``.

    Raises:
        ValueError: There are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, not {len(values)}.")
    mean = statistics.fmean(values)
    half = two_sided_t(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
