"""Axes with round numbers, curves that break, points that say what they are, and names that never overlap."""

import itertools
import math
import re

import pytest

from espalier.site.axes import fitted, short_number
from espalier.site.charts import LEFT, LINE_HEIGHT, MAX_CURVES, RIGHT, WIDTH, Point, Series, broken, curves, scatter

pytestmark = pytest.mark.tiny
LABELS = {"title": "Accuracy", "of": "a table", "x_label": "rate (x)", "y_label": "top-1 (%)"}


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1, 70, 246], True),
        ([90.1, 90.3], False),
        ([2, 2], False),
        ([5e5, 4e7], True),
        ([0, 1e6], False),
        ([-1, 3], False),
        ([3.1, 12.6], True),
    ],
)
def test_every_axis_has_ticks_between_its_ends(values: list[float], log: bool) -> None:
    axis = fitted(values, 0, 100)
    assert axis.log is log
    ticks = axis.ticks(6)
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    assert axis.at(axis.low) == pytest.approx(0)
    assert axis.at(axis.high) == pytest.approx(100)


def test_a_logarithmic_axis_gives_equal_ratios_equal_room() -> None:
    axis = fitted([1, 100], 0, 300)
    assert axis.at(10) - axis.at(1) == pytest.approx(axis.at(100) - axis.at(10))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0009, "0.0009"), (300, "300"), (9_999, "9999"), (12_000, "12k"), (1.5e6, "1.5M"), (2e9, "2G"), (0, "0"), (-5e4, "-50k")],
)
def test_long_numbers_are_shortened(value: float, text: str) -> None:
    assert short_number(value) == text


def test_a_curve_breaks_where_a_step_records_nothing() -> None:
    assert broken([(1.0, 5.0), (2.0, 4.0), (3.0, 3.0), (9.0, 1.0)]) == [[(1.0, 5.0), (2.0, 4.0), (3.0, 3.0)], [(9.0, 1.0)]]
    assert broken([(1.0, 5.0)]) == [[(1.0, 5.0)]]


def test_many_curves_are_spread_over_charts_on_the_same_axes_and_every_name_is_told() -> None:
    series = [Series(f"row-{i}", i, curve=((1.0, 90.0 + i), (2.0, 91.0 + i))) for i in range(18)]
    charts = curves(series, **LABELS)
    assert len(charts) == math.ceil(18 / MAX_CURVES)
    assert sorted(one.name for chart in charts for one in chart.legend) == sorted(one.name for one in series)
    assert len({tuple(re.findall(r"<text[^>]*>[^<]*", chart.svg)) for chart in charts}) == 1
    assert curves([], **LABELS) == []


def test_a_point_says_what_it_is_and_shows_its_spread() -> None:
    points = (Point(2.0, 91.0, None, 0.5, 'a <b> & "c"', "runs/a.html"), Point(4.0, 90.0, 0.1, None, "plain"))
    svg = scatter([Series("ADMM", 0, points, joined=True)], front=[(4.0, 90.0), (2.0, 91.0)], **LABELS).svg
    assert '<a class="point c0 l0"' in svg
    assert 'href="runs/a.html" aria-label="a &lt;b&gt; &amp; &#34;c&#34;"' in svg
    assert svg.count('class="bar') == 2
    assert svg.count('class="front"') == 1
    assert 'tabindex="0" role="img" aria-label="plain"' in svg


def test_error_bars_end_within_the_axes() -> None:
    svg = scatter([Series("timed", 0, (Point(0.27, 90.0, 0.05, 3.0, "one"), Point(0.28, 95.0, 0.3, 2.0, "below zero")))], **LABELS).svg
    (first, _) = re.findall(r'class="bar[^"]*" d="([^"]+)"', svg)
    ends = [float(x) for x in re.findall(r"[MH]([\d.]+)", first)]
    assert LEFT <= min(ends) < max(ends) <= WIDTH - RIGHT


def test_names_of_points_never_overlap_and_stay_in_the_axes() -> None:
    points = tuple(Point(70.0 + i, 99.0 - i / 1000, None, None, f"r{i}", name=f"r{i}") for i in range(9))
    svg = scatter([Series("yours", 0, points), Series("published", 2, (Point(1.0, 99.2, None, None, "dense"),))], **LABELS).svg
    heights = sorted(float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(heights) == 9
    assert all(after - before >= LINE_HEIGHT - 0.11 for before, after in itertools.pairwise(heights))
    assert heights[0] > 0
