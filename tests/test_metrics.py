"""The list of figures: one entry a name."""

from collections import Counter

from espalier.metrics import METRICS


def test_no_name_is_defined_twice() -> None:
    assert [name for name, times in Counter(metric.name for metric in METRICS).items() if times > 1] == []
