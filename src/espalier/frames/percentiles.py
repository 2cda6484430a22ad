"""What is told of the times of many passes."""

import statistics
from collections.abc import Sequence


def tenths(times_ms: Sequence[float]) -> tuple[float, float, float]:
    """Return p10, p50 and p90 of two times or more; the least and the greatest count as p0 and p100, so that none lies outside them."""
    cuts = statistics.quantiles(times_ms, n=10, method="inclusive")
    return cuts[0], statistics.median(times_ms), cuts[8]


def latencies(times_ms: Sequence[float]) -> dict[str, float | None]:
    """Return ``tenths`` by the names of ``espalier.metrics``."""
    return dict(zip(("latency_ms_p10", "latency_ms_p50", "latency_ms_p90"), tenths(times_ms), strict=True))
