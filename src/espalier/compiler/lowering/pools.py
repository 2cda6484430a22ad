"""Pools over maps: ``max_pool``, ``avg_pool``, ``adaptive_avg_pool``, channels in the lanes.

Windows are clamped to the map, so that no border is read as a value. Those that lie wholly inside have their taps written out.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Map
from espalier.compiler.lowering.functions import literal
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import added, block, defined, either, function, signature, times
from espalier.compiler.lowering.rows import Vectors, Window, cleared, maps, over_rows, result_row, vectors, window

MOST_TAPS = 27  # written out
INDICES = ("z", "row", "column")

TAPS = f"""/* The taps [*first, *last) of a window from pixel `start` on that lie on a map's `size` pixels. */
ES_INLINE void {NAME}_taps(long start, long size, long kernel, long dilation, long *first, long *last)
{{
  const long behind = size > start ? (size - start + dilation - 1) / dilation : 0;
  *first = start < 0 ? (dilation - 1 - start) / dilation : 0;
  *last = behind < kernel ? behind : kernel;
}}
"""
BIN = f"""/* The pixels [*first, *last) of `size` whose average is number `number` of `count`. */
ES_INLINE void {NAME}_bin(long number, long count, long size, long *first, long *last)
{{
  *first = number * size / count;
  *last = ((number + 1) * size + count - 1) / count;
}}
"""


@dataclass(frozen=True)
class Pool:
    """What all pools share: the maximum or the sum of part of a window.

    Args:
        source: The input.
        result: The output.
        line: Their lines in vectors.
        steps: Floats between neighbouring taps along D, H and W.
        axes: Which of these there is anything to pool along.
        is_max: Whether the maximum is asked for.
    """

    source: Map
    result: Map
    line: Vectors
    steps: tuple[int, ...]
    axes: tuple[int, ...]
    is_max: bool

    @property
    def indices(self) -> list[str]:
        """Return the names of these axes."""
        return [INDICES[axis] for axis in self.axes]

    @property
    def limits(self) -> list[str]:
        """Return the names of the first tap along each axis, and of the one behind the last."""
        return [f"{index}_{side}" for index in self.indices for side in ("first", "last")]

    @property
    def count(self) -> str:
        """Return the C expression of the number of taps between the limits."""
        return f"(float)({' * '.join(f'({index}_last - {index}_first)' for index in self.indices)})"

    def called(self, at: str) -> str:
        """Return the C expression of the maximum or sum between the limits, of the window that begins ``at`` floats behind ``from``."""
        return f"{NAME}_window({', '.join(['from', at, *self.limits])})"

    def window(self) -> str:
        """Return the C function of the maximum or sum between some limits."""
        place = added("at", *(times(index, self.steps[axis]) for axis, index in zip(self.axes, self.indices, strict=True)))
        lines = [f"value = {self.joined(f'x + ({place})')};"]
        for index in reversed(self.indices):
            lines = block(f"for (long {index} = {index}_first; {index} < {index}_last; ++{index})", lines)
        lines = [f"es_v value = es_splat({literal(-math.inf if self.is_max else 0.0)});", *lines, "return value;"]
        return defined(
            f"ES_INLINE es_v {NAME}_window(const float *x, long at, {', '.join(f'long {limit}' for limit in self.limits)})", lines
        )

    def joined(self, place: str) -> str:
        """Return the C expression of ``value`` with one more tap."""
        tap = self.line.load(place)
        return f"es_larger(value, {tap})" if self.is_max else f"value + {tap}"

    def pixel(self, value: str) -> str:
        """Return the statement that writes a pixel of the result."""
        return self.line.store(f"to + column * {self.result.line} + lane", value)

    def row(self, before: Sequence[str], column: Sequence[str]) -> list[str]:
        """Return the statements of a row of the result.

        Args:
            before: What is the same for all its pixels.
            column: The statements of one pixel.
        """
        return [
            f"long {', '.join(self.limits)};",
            *before,
            f"const float *from = {added('x0', self.source.origin, f'line * {self.source.line_stride}')};",
            result_row(self.result),
            *block(f"for (long column = 0; column < {self.result.size[2]}; ++column)", column),
        ]


def lower_max_pool(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a maximum over windows."""
    del graph
    return _pool(node, inputs, output, isa, edge="", whole="")


def lower_avg_pool(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of an average over windows."""
    del graph
    whole = f" * {literal(1 / math.prod(node['kernel']))}"
    return _pool(node, inputs, output, isa, edge=whole if node["count_padding"] else None, whole=whole)


def lower_adaptive_avg_pool(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of an average over bins of nearly equal size."""
    del graph
    source, result = maps(node, *inputs, output)
    axes = tuple(axis for axis in range(3) if axis == 2 or source.size[axis] > 1 or result.size[axis] > 1)
    pool = Pool(source, result, vectors(result, isa), source.strides, axes, is_max=False)
    bins = []
    for axis, index in zip(pool.axes, pool.indices, strict=True):
        number = index if axis == 2 or result.size[axis] > 1 else "0"
        bins.append(f"{NAME}_bin({number}, {result.size[axis]}, {source.size[axis]}, &{index}_first, &{index}_last);")
    average = pool.line.over([pool.pixel(f"{pool.called('lane')} / {pool.count}")])
    row = pool.row(bins[:-1], [bins[-1], *average])
    return Kernel("pool", function(signature(1, {}), over_rows(result, row), [BIN, pool.window()]))


def _pool(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, *, edge: str | None, whole: str) -> Kernel:
    """Return the kernel of a pool over windows.

    Args:
        node: The pool.
        inputs: Layout of its input.
        output: Layout of its result.
        isa: Instruction set.
        edge: What C does to the maximum or sum of a clamped window; None divides it by the number of its taps.
        whole: The same of a window that lies inside.
    """
    source, result = maps(node, *inputs, output)
    view = window(node, node["kernel"])
    trivial = zip(source.size, result.size, view.kernel, view.before, strict=True)
    axes = tuple(axis for axis, sizes in enumerate(trivial) if axis == 2 or sizes != (1, 1, 1, 0))
    steps = tuple(dilation * stride for dilation, stride in zip(view.dilation, source.strides, strict=True))
    pool = Pool(source, result, vectors(result, isa), steps, axes, is_max=node.op == "max_pool")
    lines = _rows(pool, view, f" / {pool.count}" if edge is None else edge, whole)
    text = function(signature(1, {}), over_rows(result, lines), [TAPS, pool.window(), _inside(pool, view)])
    return Kernel("pool", text, detail="x".join(map(str, node["kernel"])))


def _rows(pool: Pool, view: Window, edge: str, whole: str) -> list[str]:
    """Return the statements of a row of the result, windows inside the map apart from the others."""
    source, result = pool.source, pool.result
    starts, taps, places = [], [], []
    for axis, index in zip(pool.axes, pool.indices, strict=True):
        moves = [times(index, view.stride[axis])] if axis == 2 or result.size[axis] > 1 else []
        starts.append(f"const long {index}_start = {added(*moves, -view.before[axis])};")
        sizes = f"{source.size[axis]}, {view.kernel[axis]}, {view.dilation[axis]}"
        taps.append(f"{NAME}_taps({index}_start, {sizes}, &{index}_first, &{index}_last);")
        places.append(times(f"{index}_start", source.strides[axis]))
    complete = [f"{index}_last - {index}_first == {view.kernel[axis]}" for axis, index in zip(pool.axes, pool.indices, strict=True)]
    first, last = _inner_columns(source, view)
    inside = pool.line.over([pool.pixel(f"{NAME}_inside(from + at + lane){whole}")])
    clamped = [taps[-1], *pool.line.over([pool.pixel(f"{pool.called('at + lane')}{edge}")])]
    column = [
        starts[-1],
        f"const long at = {added(*places)};",
        *either(" && ".join([*complete[:-1], f"column >= {first}", f"column <= {last}"]), inside, clamped),
    ]
    return [*pool.row([*starts[:-1], *taps[:-1]], column), *cleared(result, keeps_zero=not _may_be_empty(view, source, result))]


def _inner_columns(source: Map, view: Window) -> tuple[int, int]:
    """Return the first and the last column of the result whose window does not leave the map along W."""
    before, stride = view.before[2], view.stride[2]
    reach = (view.kernel[2] - 1) * view.dilation[2]
    return -(-before // stride), (source.size[2] - 1 - reach + before) // stride


def _may_be_empty(view: Window, source: Map, result: Map) -> bool:
    """Return whether a window may see no pixel at all, so that its maximum is no number."""
    for axis, size in enumerate(source.size):
        taps = [tap * view.dilation[axis] - view.before[axis] for tap in range(view.kernel[axis])]
        for output in range(result.size[axis]):
            if not any(0 <= output * view.stride[axis] + tap < size for tap in taps):
                return True
    return False


def _inside(pool: Pool, view: Window) -> str:
    """Return the C function of the maximum or sum of all taps, written out where they are few."""
    if math.prod(view.kernel) > MOST_TAPS:
        limits = ", ".join(f"0, {view.kernel[axis]}" for axis in pool.axes)
        lines = [f"return {NAME}_window(x, 0, {limits});"]
    else:
        taps = itertools.product(*(range(size) for size in view.kernel))
        first, *others = (sum(number * step for number, step in zip(tap, pool.steps, strict=True)) for tap in taps)
        joined = [f"value = {pool.joined(added('x', place))};" for place in others]
        lines = [f"es_v value = {pool.line.load(added('x', first))};", *joined, "return value;"]
    return defined(f"ES_INLINE es_v {NAME}_inside(const float *x)", lines)
