"""Operators that only move values: copies between layouts, ``permute``, ``slice``, ``concat``, ``pad``, ``expand``, ``reshape``.

All are one copy of nested loops with constant distances. Runs that are contiguous on both sides are one ``memcpy`` each; where the sides
disagree on which neighbours lie side by side, squares are turned in registers.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Plain
from espalier.compiler.lowering.functions import literal
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import element, function, signature, walked, zeroed
from espalier.compiler.lowering.nests import Run, nests
from espalier.compiler.lowering.places import Access, access, narrowed
from espalier.compiler.lowering.runs import helpers
from espalier.compiler.lowering.transposes import is_turned, turn_function, turned


def converted(shape: Sequence[int], source: Layout, result: Layout, isa: Isa) -> Kernel:
    """Return the kernel that copies a tensor from one layout to another, such as a network's output to rows.

    Args:
        shape: Logical shape.
        source: Where it lies.
        result: Where it shall lie.
        isa: Instruction set.
    """
    return _copied([(access(source, shape), access(result, shape))], isa)


def lower_input(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel that takes in a network's input, which is row-major at ``x0``."""
    del inputs, graph
    return converted(node.shape, Plain(node.shape), output, isa)


def lower_constant(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel that writes a constant."""
    del inputs
    value = graph.constant(node, "value")
    assert value is not None
    arrays = {"value": value.detach().numpy().astype(np.float32).reshape(-1)}
    lines = _copy((access(Plain(node.shape), node.shape), access(output, node.shape)), "value", isa)
    return _kernel(lines, 0, isa, arrays)


def lower_permute(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a permutation of axes."""
    source = access(inputs[0], graph[node.inputs[0]].shape)
    return _copied([(source.permuted(node["axes"]), access(output, node.shape))], isa)


def lower_slice(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a slice."""
    source = access(inputs[0], graph[node.inputs[0]].shape)
    return _copied([(source.cut(node["axis"], slice(node["start"], node["stop"], node["step"])), access(output, node.shape))], isa)


def lower_concat(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel that puts tensors behind one another."""
    result, axis, first, parts = access(output, node.shape), node["axis"], 0, []
    for name, layout in zip(node.inputs, inputs, strict=True):
        source = access(layout, graph[name].shape)
        parts.append((source, result.cut(axis, slice(first, first + source.shape[axis]))))
        first += source.shape[axis]
    return _copied(parts, isa)


def lower_expand(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel that repeats a tensor along axes of size 1."""
    source = access(inputs[0], graph[node.inputs[0]].shape)
    return _copied([(source.spread(node.shape), access(output, node.shape))], isa)


def lower_pad(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel that puts one value around a tensor; this is no border, it belongs to the result."""
    left = access(output, node.shape)
    source = access(inputs[0], graph[node.inputs[0]].shape)
    around: list[Access] = []
    for axis, (before, after) in enumerate(node["padding"]):
        size = left.shape[axis]
        around += [left.cut(axis, slice(0, before)), left.cut(axis, slice(size - after, size))]
        left = left.cut(axis, slice(before, size - after))
    return _copied([(source, left)], isa, around, node["value"])


def lower_reshape(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel that gives a tensor another shape: the elements keep their row-major order."""
    shape, source = graph[node.inputs[0]].shape, inputs[0]
    if isinstance(output, Plain):
        return converted(shape, source, Plain(shape), isa)
    if isinstance(source, Plain):
        return converted(node.shape, Plain(node.shape), output, isa)
    before, after = access(source, shape), access(output, node.shape)
    if shape[:2] == node.shape[:2]:  # channels stay channels
        split = common_axes(shape[2:], node.shape[2:])
        if split is not None:
            return _copied([(_regrouped(before, split), _regrouped(after, split))], isa)
    return _gathered(before, after)


def common_axes(first: Sequence[int], second: Sequence[int]) -> list[int] | None:
    """Return the fewest axes from which both shapes come by joining neighbours; None where there are none."""
    ends = {1}
    for shape in (first, second):
        ends |= {int(end) for end in np.cumprod(shape[::-1], dtype=np.int64)}
    ordered = sorted(ends)
    sizes = [big // small for small, big in itertools.pairwise(ordered) if big % small == 0]
    return sizes[::-1] if len(sizes) == len(ordered) - 1 else None


def _regrouped(tensor: Access, sizes: Sequence[int]) -> Access:
    """Return a map with its spatial axes split into axes of those sizes."""
    left, terms = [*sizes], list(tensor.terms[:2])
    for term in tensor.terms[2:]:
        size, stride = len(term), int(term[-1]) // max(1, len(term) - 1)
        while size > 1:
            first = left.pop(0)
            size //= first
            terms.append(np.arange(first) * stride * size)
    assert not left
    return Access(tensor.start, tuple(terms), tensor.fill)


def _copied(parts: Sequence[tuple[Access, Access]], isa: Isa, around: Sequence[Access] = (), value: float = 0.0) -> Kernel:
    """Return the kernel that copies input k to its part of the result.

    Args:
        parts: For each input where its elements lie, and where they shall lie.
        isa: Instruction set.
        around: Further parts of the result.
        value: What is written to them.
    """
    lines = [line for number, part in enumerate(parts) for line in _copy(part, f"x{number}", isa)]
    lines += [line for part in around for line in walked(nests(part), ("y",), lambda run, at: _set(run, at[-1], value))]
    return _kernel(lines, len(parts), isa, {})


def _kernel(lines: Sequence[str], num_inputs: int, isa: Isa, arrays: Mapping[str, np.ndarray]) -> Kernel:
    turn = [turn_function(isa.lanes)] if any(f"{NAME}_turn(" in line for line in lines) else []
    return Kernel("copy", function(signature(num_inputs, arrays), lines, [*helpers(turn), *turn]), arrays)


def _copy(part: tuple[Access, Access], source: str, isa: Isa) -> list[str]:
    """Return the statements that copy a tensor from the pointer of that name."""
    lines: list[str] = []
    for nest in nests(*part, moves=True):
        tensors = (source, "y")
        lines += turned(nest, tensors, isa.lanes) if is_turned(nest, isa.lanes) else walked([nest], tensors, _moved)
    return lines


def _moved(run: Run, at: Sequence[str]) -> list[str]:
    """Return the statements that copy one run."""
    if run.fills:
        return zeroed(run, at)
    source, result = at
    if run.size == 1:
        return [f"{element(result, 0)} = {element(source, 0)};"]
    if run.steps == (1, 1):
        return [f"memcpy({result}, {source}, {run.size} * sizeof(float));"]
    return [f"for (int i = 0; i < {run.size}; ++i) {element(result, run.steps[-1])} = {element(source, run.steps[0])};"]


def _set(run: Run, at: str, value: float) -> list[str]:
    """Return the statements that write one value to a run."""
    if run.fills or value == 0:
        return zeroed(run, [at])
    return [f"for (int i = 0; i < {run.size}; ++i) {element(at, run.steps[-1])} = {literal(value)};"]


def _gathered(before: Access, after: Access) -> Kernel:
    """Return the kernel that moves element by element as two tables say: of shapes whose axes have nothing in common."""
    order = np.argsort(after.places(), axis=None)
    arrays = {"from": narrowed(before.places().reshape(-1)[order]), "to": narrowed(after.places().reshape(-1)[order])}
    lines = [
        f"es_split({len(order)}, tid, c->threads, &begin, &end);",
        "for (long i = begin; i < end; ++i) y[to[i]] = x0[from[i]];",
    ]
    if after.fill is not None:
        lines += walked(nests(after.filling()), ("y",), zeroed)
    return Kernel("gather", function(signature(1, arrays), lines), arrays)
