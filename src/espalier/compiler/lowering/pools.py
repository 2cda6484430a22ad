"""Pools over maps: ``max_pool``, ``avg_pool``, ``adaptive_avg_pool``, channels in the lanes.

Windows are clamped to the map, so that no border is read as a value. Those that lie wholly inside have their taps written out.
A NaN among other numbers may get lost in a maximum.
"""

import math
from collections.abc import Sequence

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Map
from espalier.compiler.lowering.functions import literal
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import block, defined, function, signature
from espalier.compiler.lowering.rows import Triple, Vectors, Window, cleared, maps, over_rows, result_row, vectors, window

MOST_TAPS = 27  # written out
AXES = ("z", "row", "column")
LIMITS = "long z_first, z_last, row_first, row_last, column_first, column_last"
GIVEN = "z_first, z_last, row_first, row_last, column_first, column_last"
COUNT = "(float)((z_last - z_first) * (row_last - row_first) * (column_last - column_first))"

TAPS = f"""/* The taps [*first, *last) of a window from pixel `start` on that lie on a map's `size` pixels. */
ES_INLINE void {NAME}_taps(long start, long size, long kernel, long dilation, long *first, long *last)
{{
  const long behind = size > start ? (size - start + dilation - 1) / dilation : 0;
  *first = start < 0 ? (dilation - 1 - start) / dilation : 0;
  *last = behind < kernel ? behind : kernel;
}}
"""
BINS = f"""/* The pixels [*first, *last) of `size` whose average is number `number` of `count`. */
ES_INLINE void {NAME}_bin(long number, long count, long size, long *first, long *last)
{{
  *first = number * size / count;
  *last = ((number + 1) * size + count - 1) / count;
}}
"""


def lower_max_pool(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a maximum over windows."""
    del graph
    source, result = maps(node, *inputs, output)
    return _pool(node, source, result, vectors(result, isa), is_max=True)


def lower_avg_pool(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of an average over windows."""
    del graph
    source, result = maps(node, *inputs, output)
    return _pool(node, source, result, vectors(result, isa), is_max=False)


def lower_adaptive_avg_pool(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of an average over bins of nearly equal size."""
    del graph
    source, result = maps(node, *inputs, output)
    line = vectors(result, isa)
    bins = [
        f"{NAME}_bin({axis}, {count}, {size}, &{axis}_first, &{axis}_last);"
        for axis, count, size in zip(AXES, result.size, source.size, strict=True)
    ]
    average = line.store(f"to + column * {result.line} + lane", f"{NAME}_window(from, lane, {GIVEN}) / {COUNT}")
    rows = [
        f"{LIMITS};",
        *bins[:2],
        f"const float *from = x0 + {source.origin} + line * {source.line_stride};",
        result_row(result),
        *block(f"for (long column = 0; column < {result.size[2]}; ++column)", [bins[2], *line.over([average])]),
    ]
    helpers = [BINS, _window(source, (1, 1, 1), line, is_max=False)]
    return Kernel("pool", function(signature(1, {}), over_rows(result, rows), helpers))


def _pool(node: Node, source: Map, result: Map, line: Vectors, *, is_max: bool) -> Kernel:
    view = window(node, node["kernel"])
    num_taps = math.prod(view.kernel)
    if is_max:
        edge = whole = ""
    else:
        whole = f" * {literal(1 / num_taps)}"
        edge = whole if node["count_padding"] else f" / {COUNT}"
    helpers = [TAPS, _window(source, view.dilation, line, is_max=is_max), _inside(source, view, line, is_max=is_max)]
    lines = over_rows(result, _rows(view, source, result, line, edge, whole))
    return Kernel("pool", function(signature(1, {}), lines, helpers), detail="x".join(map(str, node["kernel"])))


def _rows(view: Window, source: Map, result: Map, line: Vectors, edge: str, whole: str) -> list[str]:
    """Return statements that compute a row of the result.

    Args:
        view: The windows.
        source: The input.
        result: The output.
        line: Its lines in vectors.
        edge: What C does to the sum or maximum of a clamped window, such as `` / 4.0f``.
        whole: The same of a window wholly inside.
    """
    (depth, height, width), (_, _, first) = view.kernel, [-(-before // step) for before, step in zip(view.before, view.stride, strict=True)]
    last = (source.size[2] - 1 - (width - 1) * view.dilation[2] + view.before[2]) // view.stride[2]
    starts = [f"{axis} * {step} - {before}" for axis, step, before in zip(AXES, view.stride, view.before, strict=True)]
    taps = [
        f"{NAME}_taps({axis}_start, {size}, {kernel}, {dilation}, &{axis}_first, &{axis}_last);"
        for axis, size, kernel, dilation in zip(AXES, source.size, view.kernel, view.dilation, strict=True)
    ]
    place = " + ".join(f"{axis}_start * {stride}" for axis, stride in zip(AXES, source.strides, strict=True))
    to = f"to + column * {result.line} + lane"
    inside = line.over([line.store(to, f"{NAME}_inside(from + at + lane){whole}")])
    clamped = [taps[2], *line.over([line.store(to, f"{NAME}_window(from, at + lane, {GIVEN}){edge}")])]
    return [
        f"{LIMITS};",
        f"const long z_start = {starts[0]}, row_start = {starts[1]};",
        *taps[:2],
        f"const int all_rows = z_last - z_first == {depth} && row_last - row_first == {height};",
        f"const float *from = x0 + {source.origin} + line * {source.line_stride};",
        result_row(result),
        *block(
            f"for (long column = 0; column < {result.size[2]}; ++column)",
            [
                f"const long column_start = {starts[2]};",
                f"const long at = {place};",
                *block(f"if (all_rows && column >= {first} && column <= {last})", inside),
                *block("else", clamped),
            ],
        ),
        *cleared(result, keeps_zero=not _may_be_empty(view, source, result)),
    ]


def _may_be_empty(view: Window, source: Map, result: Map) -> bool:
    """Return whether a window may see no pixel at all, so that its maximum is no number."""
    for axis, size in enumerate(source.size):
        taps = [tap * view.dilation[axis] - view.before[axis] for tap in range(view.kernel[axis])]
        for output in range(result.size[axis]):
            if not any(0 <= output * view.stride[axis] + tap < size for tap in taps):
                return True
    return False


def _joined(first: str, second: str, *, is_max: bool) -> str:
    return f"es_max({first}, {second})" if is_max else f"{first} + {second}"


def _window(source: Map, dilation: Triple, line: Vectors, *, is_max: bool) -> str:
    """Return the C function of the maximum or sum of some taps of the window that begins at ``x + at``."""
    steps = [apart * stride for apart, stride in zip(dilation, source.strides, strict=True)]
    tap = line.load(f"x + (at + z * {steps[0]} + row * {steps[1]} + column * {steps[2]})")
    lines = [f"value = {_joined('value', tap, is_max=is_max)};"]
    for axis in reversed(AXES):
        lines = block(f"for (long {axis} = {axis}_first; {axis} < {axis}_last; ++{axis})", lines)
    body = [f"es_v value = es_splat({literal(-math.inf if is_max else 0.0)});", *lines, "return value;"]
    return defined(f"ES_INLINE es_v {NAME}_window(const float *x, long at, {LIMITS.replace(', ', ', long ')})", body)


def _inside(source: Map, view: Window, line: Vectors, *, is_max: bool) -> str:
    """Return the C function of the maximum or sum of all taps, written out where they are few."""
    depth, height, width = view.kernel
    if math.prod(view.kernel) > MOST_TAPS:
        body = [f"return {NAME}_window(x, 0, 0, {depth}, 0, {height}, 0, {width});"]
    else:
        steps = [apart * stride for apart, stride in zip(view.dilation, source.strides, strict=True)]
        places = [
            z * steps[0] + row * steps[1] + column * steps[2] for z in range(depth) for row in range(height) for column in range(width)
        ]
        first, *others = (line.load(f"x + {place}") for place in places)
        body = [f"es_v value = {first};", *(f"value = {_joined('value', tap, is_max=is_max)};" for tap in others), "return value;"]
    return defined(f"ES_INLINE es_v {NAME}_inside(const float *x)", body)
