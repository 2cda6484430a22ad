"""Charts of records' series over the epochs, as inline SVG."""

import itertools
import statistics
from collections.abc import Iterable, Sequence

from espalier.record import Record
from espalier.tables.drawing import COLORS, DASHES, PAGE_WIDTH_IN, axes_of, inline_svg, short

MAX_CURVES = 8  # a chart; more are told apart by nobody


def series_svgs(records: Iterable[Record], name: str, label: str) -> list[str]:
    """Return charts of the series ``name`` over the epochs as inline SVG, at most ``MAX_CURVES`` records each, on the same axis.

    A row looks the same in every chart of the same records. Curves break where a step records nothing, the first are drawn widest, so that
    curves of steps that rows share show below one another, and a training loss has a logarithmic axis.
    """
    curves = [(index, record.row, sorted(record.series[name])) for index, record in enumerate(records) if record.series.get(name)]
    values = [y for _, _, curve in curves for _, y in curve]
    num_charts = -(-len(curves) // MAX_CURVES)
    charts = []
    for part in range(num_charts):
        shown = curves[part::num_charts]
        figure, axes = axes_of(PAGE_WIDTH_IN, extra_in=0.17 * -(-len(shown) // 2))
        if name == "train/loss" and min(values) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}" if max(values) < 10 * min(values) else "")
        for order, (index, row, curve) in enumerate(shown):
            look = {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index % len(DASHES)], "linewidth": 2.8 - 0.22 * order}
            axes.plot(*_broken(curve), marker="." if len(curve) < 30 else None, markersize=3, label=short(row), **look)
        axes.plot(
            [min(x for _, _, curve in curves for x, _ in curve)] * 2, [min(values), max(values)], alpha=0
        )  # the same axis in all charts
        axes.set_xlabel("epochs trained, over all steps")
        axes.set_ylabel(label)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=7.5, handlelength=2.6)
        charts.append(inline_svg(figure))
    return charts


def _broken(curve: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the curve's x and y with a gap wherever two points lie more than twice as far apart as usual."""
    steps = [after - before for (before, _), (after, _) in itertools.pairwise(curve)]
    usual = statistics.median(steps) if steps else 0.0
    xs, ys = [curve[0][0]], [curve[0][1]]
    for step, (x, y) in zip(steps, curve[1:], strict=True):
        if step > 2 * usual:
            xs.append(x - step / 2)
            ys.append(float("nan"))
        xs.append(x)
        ys.append(y)
    return xs, ys
