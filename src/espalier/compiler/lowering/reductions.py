"""Operators that join the elements of axes: ``mean`` and ``softmax``.

Where the axis whose neighbours lie side by side is kept, its elements are the lanes and the others are passed one by one; where it is
joined, vectors run along it and their lanes are joined at the end.
"""

import math
from collections.abc import Callable, Sequence

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Map
from espalier.compiler.lowering.functions import literal
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import added, block, defined, element, function, signature, visited, walked, zeroed
from espalier.compiler.lowering.nests import Nest, Run, innermost, nests
from espalier.compiler.lowering.places import Access, access
from espalier.compiler.lowering.runs import filled, helpers, load, moved, store, vectorised

PARTIAL_SUMS = ("s0", "s1", "s2", "s3")  # additions that need not wait for one another


def lower_mean(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a mean over axes."""
    shape, axes = graph[node.inputs[0]].shape, sorted(node["axes"])
    whole = _keeps_lines(inputs[0], output, axes)
    source, result = access(inputs[0], shape, whole=whole), access(output, node.shape, whole=whole)
    kept, joined = source, nests(source.without_fill().along(*axes))
    for axis in axes:
        kept = kept.first_along(axis)
    if not node["keepdim"]:
        result = result.with_axes(axes)
    scale = literal(1 / math.prod(shape[axis] for axis in axes))
    if innermost(source) in axes:
        text = _sum_along(joined, isa.lanes)
        body = walked(nests(kept, result, one_by_one=True), ("x0", "y"), lambda run, at: _means_along(run, at, scale))
    else:
        text = _sums_beside(joined)
        body = walked(nests(kept, result), ("x0", "y"), lambda run, at: _means_beside(run, at, scale, isa.lanes))
    return Kernel("mean", function(signature(1, {}), body, [*helpers([text]), text]))


def _keeps_lines(source: Layout, output: Layout, axes: Sequence[int]) -> bool:
    """Return whether both are maps whose lines of channels lie side by side."""
    return isinstance(source, Map) and isinstance(output, Map) and source.line == output.line and min(axes) > 1


def _sum_along(joined: Sequence[Nest], lanes: int) -> str:
    """Return the C function of the sum of all that is joined from ``x`` on."""

    def summed(run: Run, at: Sequence[str]) -> list[str]:
        return vectorised(run.size, lanes, lambda index, count: [f"sum += {load(at[0], run.steps[0], index, count, lanes)};"])

    lines = ["es_v sum = es_zero();", *visited(joined, ["x"], ["part"], summed), "return es_sum(sum);"]
    return defined(f"ES_INLINE float {NAME}_sum(const float *x)", lines)


def _means_along(run: Run, at: Sequence[str], scale: str) -> list[str]:
    """Return the statements of a run of means, one after the other."""
    if run.fills:
        return zeroed(run, at)
    source, result = (element(place, step, "0" if run.size == 1 else "i") for place, step in zip(at, run.steps, strict=True))
    mean = f"{result} = {NAME}_sum(&{source}) * {scale};"
    return [mean if run.size == 1 else f"for (int i = 0; i < {run.size}; ++i) {mean}"]


def _sums_beside(joined: Sequence[Nest]) -> str:
    """Return the C function of the sums of all that is joined, for n elements that lie a distance apart from ``x`` on."""

    def summed(run: Run, at: Sequence[str]) -> list[str]:
        def term(number: int | str) -> str:
            return f"{NAME}_take(&{element(at[0], run.steps[0], str(number))}, apart, n)"

        num_whole = run.size // len(PARTIAL_SUMS) * len(PARTIAL_SUMS)
        lines = [f"sum += {term(number)};" for number in range(num_whole, run.size)]
        if not num_whole:
            return lines
        terms = [f"{name} += {term(added('k', number))};" for number, name in enumerate(PARTIAL_SUMS)]
        inside = [
            f"es_v {', '.join(f'{name} = es_zero()' for name in PARTIAL_SUMS)};",
            *block(f"for (long k = 0; k < {num_whole}; k += {len(PARTIAL_SUMS)})", terms),
            f"sum += {' + '.join(PARTIAL_SUMS)};",
        ]
        return [*lines, *block("", inside)]

    lines = ["es_v sum = es_zero();", *visited(joined, ["x"], ["part"], summed), "return sum;"]
    return defined(f"ES_INLINE es_v {NAME}_sums(const float *x, long apart, int n)", lines)


def _means_beside(run: Run, at: Sequence[str], scale: str, lanes: int) -> list[str]:
    """Return the statements of a run of means, a lane each."""
    if run.fills:
        return zeroed(run, at)
    source, result = at
    step = run.steps[0]

    def one(index: str, count: int) -> list[str]:
        first = element(source, step, index or "0")
        return [store(result, f"{NAME}_sums(&{first}, {step}, {count}) * {scale}", index, count, lanes)]

    return vectorised(run.size, lanes, one)


def lower_softmax(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a softmax; the largest element is subtracted first."""
    del graph
    source, result, axis = access(inputs[0], node.shape).without_fill(), access(output, node.shape), node["axis"]
    kept = source.first_along(axis), result.first_along(axis)
    if innermost(result) == axis:
        text = _softmax_along(source.along(axis), result.along(axis), isa)
        body = walked(nests(*kept, one_by_one=True), ("x0", "y"), _rows)
    else:
        text = _softmax_beside(source.along(axis), result.along(axis))
        body = walked(nests(*kept), ("x0", "y"), lambda run, at: _columns(run, at, nests(result.along(axis)), isa.lanes))
    return Kernel("softmax", function(signature(1, {}), body, [*helpers([text]), text]))


def _softmax_along(source: Access, result: Access, isa: Isa) -> str:
    """Return the C function of the softmax of the elements from ``x`` on; a short row stays in registers."""
    lanes, head = isa.lanes, f"ES_INLINE void {NAME}_row(const float *x, float *y)"

    def read(run: Run, at: Sequence[str], index: str, count: int) -> str:
        return filled(load(at[0], run.steps[0], index, count, lanes), count, lanes, "-INFINITY")

    def maximum(run: Run, at: Sequence[str]) -> list[str]:
        return vectorised(run.size, lanes, lambda index, count: [f"top = es_max(top, {read(run, at, index, count)});"])

    def exponential(run: Run, at: Sequence[str]) -> list[str]:
        def one(index: str, count: int) -> list[str]:
            value = f"const es_v value = {exp(load(at[0], run.steps[0], index, count, lanes), count)};"
            return [value, "sum += value;", store(at[1], "value", index, count, lanes)]

        return vectorised(run.size, lanes, one)

    def share(run: Run, at: Sequence[str]) -> list[str]:
        def one(index: str, count: int) -> list[str]:
            return [store(at[0], f"{load(at[0], 1, index, count, lanes)} * scale", index, count, lanes)]

        return zeroed(run, at) if run.fills else vectorised(run.size, lanes, one)

    def exp(value: str, count: int) -> str:
        """Return the C expression of exp, with zeros behind it: of -infinity it would be a denormal, which takes as long as ten vectors."""
        return filled(f"es_exp({value} - high)", count, lanes, "0.0f")

    def held(run: Run, at: Sequence[str]) -> list[str]:
        firsts = range(0, run.size, lanes)
        places = [("" if first == 0 else str(first), min(lanes, run.size - first)) for first in firsts]
        values = [f"v{number}" for number in range(len(places))]
        compared = [filled(value, place[1], lanes, "-INFINITY") for value, place in zip(values, places, strict=True)]
        return [
            *(f"es_v {value} = {load(at[0], run.steps[0], *place, lanes)};" for value, place in zip(values, places, strict=True)),
            f"const float high = es_max_lane({_joined('es_max', compared)});",
            *(f"{value} = {exp(value, place[1])};" for value, place in zip(values, places, strict=True)),
            f"const float scale = 1.0f / es_sum({' + '.join(values)});",
            *(store(at[1], f"{value} * scale", *place, lanes) for value, place in zip(values, places, strict=True)),
        ]

    both = nests(source, result)
    if len(both) == 1 and not both[0].axes and [run.size <= isa.registers // 2 * lanes for run in both[0].runs] == [True]:
        return defined(head, visited(both, ["x", "y"], ["from", "to"], held))
    lines = [
        "es_v top = es_splat(-INFINITY), sum = es_zero();",
        *visited(nests(source), ["x"], ["from"], maximum),
        "const float high = es_max_lane(top);",
        *visited(nests(source, result.without_fill()), ["x", "y"], ["from", "to"], exponential),
        "const float scale = 1.0f / es_sum(sum);",
        *visited(nests(result), ["y"], ["to"], share),
    ]
    return defined(head, lines)


def _joined(function: str, values: Sequence[str]) -> str:
    """Return the C expression of a function of two, over all values in pairs."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return f"{function}({_joined(function, values[:half])}, {_joined(function, values[half:])})"


def _rows(run: Run, at: Sequence[str]) -> list[str]:
    """Return the statements of a run of softmaxes, one after the other."""
    places = ", ".join(f"&{element(place, step)}" for place, step in zip(at, run.steps, strict=True))
    return [f"{NAME}_row({', '.join(at)});" if run.size == 1 else f"for (int i = 0; i < {run.size}; ++i) {NAME}_row({places});"]


def _softmax_beside(source: Access, result: Access) -> str:
    """Return the C function of the softmaxes that n neighbours of ``y`` are part of; those of ``x`` lie a distance apart."""

    def each(statements: Callable[..., list[str]]) -> Callable[[Run, Sequence[str]], list[str]]:
        """Return the loop over a run; the statements are given the address of its element k in each tensor."""
        return lambda run, at: block(
            f"for (long k = 0; k < {run.size}; ++k)",
            statements(*(f"&{element(place, step, 'k')}" for place, step in zip(at, run.steps, strict=True))),
        )

    def maximum(x: str) -> list[str]:
        return [f"top = es_max(top, {NAME}_take({x}, apart, n));"]

    def exponential(x: str, y: str) -> list[str]:
        return [f"const es_v value = es_exp({NAME}_take({x}, apart, n) - top);", "sum += value;", f"{NAME}_put({y}, value, n);"]

    def share(y: str) -> list[str]:
        return [f"{NAME}_put({y}, {NAME}_take({y}, 1, n) * scale, n);"]

    lines = [
        "es_v top = es_splat(-INFINITY), sum = es_zero();",
        *visited(nests(source), ["x"], ["from"], each(maximum)),
        *visited(nests(source, result.without_fill()), ["x", "y"], ["from", "to"], each(exponential)),
        "const es_v scale = 1.0f / sum;",
        *visited(nests(result.without_fill()), ["y"], ["to"], each(share)),
    ]
    return defined(f"ES_INLINE void {NAME}_column(const float *x, float *y, long apart, int n)", lines)


def _columns(run: Run, at: Sequence[str], along: Sequence[Nest], lanes: int) -> list[str]:
    """Return the statements of a run of softmaxes, a lane each.

    Args:
        run: The run.
        at: Where it begins.
        along: Loops over the axis of the softmax, in the result.
        lanes: Of a vector.
    """
    source, result = at
    step = run.steps[0]

    def cleared(part: Run, places: Sequence[str]) -> list[str]:
        lines = zeroed(run, [f"&{element(places[0], part.steps[0], 'k')}"])
        return [f"for (long k = 0; k < {part.size}; ++k) {line}" for line in lines]

    def one(index: str, count: int) -> list[str]:
        return [f"{NAME}_column(&{element(source, step, index or '0')}, {moved(result, index)}, {step}, {count});"]

    assert run.size == 1 or run.steps[1] == 1
    return visited(along, [result], ["to"], cleared) if run.fills else vectorised(run.size, lanes, one)
