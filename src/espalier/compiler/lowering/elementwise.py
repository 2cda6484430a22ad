"""Operators that work element by element: ``unary``, ``binary``, ``affine``.

A map is taken in whole lines where that leaves zeros in the channels that fill the last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Map, Plain, map_of
from espalier.compiler.lowering.functions import BINARY, activated, keeps_zero, literal
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.loops import function, signature, walked, zeroed
from espalier.compiler.lowering.nests import Run, nests
from espalier.compiler.lowering.places import access, stored
from espalier.compiler.lowering.runs import helpers, load, store, vectorised


@dataclass(frozen=True)
class Formula:
    """What is computed for each element.

    Args:
        text: C expression with ``{k}`` for operand k: the inputs, then the constants.
        constants: Operands known beforehand, of the result's rank.
        keeps_zero: Whether it is zero where every operand with the result's channels is, whatever the others are.
    """

    text: str
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    keeps_zero: bool = False


def lower_unary(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a function of one tensor."""
    formula = Formula(activated("{0}", node, node["function"]), keeps_zero=keeps_zero(node, node["function"]))
    return _kernel(formula, node, inputs, output, isa, graph)


def lower_affine(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of ``scale * x + shift`` and an activation."""
    shape = [-1 if axis == node["axis"] else 1 for axis in range(len(node.shape))]
    constants = {role: graph.constants[node.constants[role]].reshape(shape) for role in ("scale", "shift")}
    activation = node["activation"]
    formula = Formula(activated("es_fma({0}, {1}, {2})", node, activation), constants, node["axis"] == 1 and keeps_zero(node, activation))
    return _kernel(formula, node, inputs, output, isa, graph)


def lower_binary(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a function of two tensors, or of a tensor and a constant."""
    name, other = node["function"], graph.constant(node, "other")
    text, constants = BINARY[name], {}
    shapes = [graph[source].shape for source in node.inputs]
    if other is not None and other.numel() == 1:
        text = text.replace("{1}", f"es_splat({literal(other.item())})")
    elif other is not None:
        constants["other"] = other.reshape((1,) * (len(node.shape) - other.ndim) + tuple(other.shape))
        shapes.append(tuple(constants["other"].shape))
    first, second = [*(_has_channels(shape, node.shape) for shape in shapes), False][:2]
    zero = {"mul": first or second, "div": first and not second}.get(name, first and second)
    formula = Formula(activated(text, node, node["activation"]), constants, zero and keeps_zero(node, node["activation"]))
    return _kernel(formula, node, inputs, output, isa, graph)


def _has_channels(shape: Sequence[int], result: Sequence[int]) -> bool:
    """Return whether broadcasting leaves the operand's channels as they are."""
    missing = len(result) - len(shape)
    return len(result) > 1 and missing <= 1 and shape[1 - missing] == result[1]


def _kernel(formula: Formula, node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    operands = [(graph[name].shape, layout) for name, layout in zip(node.inputs, inputs, strict=True)]
    arrays = {}
    for role, value in formula.constants.items():
        shape = tuple(value.shape)
        layout = map_of(shape, line=output.line) if isinstance(output, Map) else Plain(shape)
        operands.append((shape, layout))
        arrays[role] = stored(value, layout)
    whole = (
        formula.keeps_zero and isinstance(output, Map) and all(_in_step(shape, layout, node.shape, output) for shape, layout in operands)
    )
    result = access(output, node.shape, whole=whole)
    tensors = []
    for shape, layout in operands:
        full = whole and isinstance(layout, Map) and isinstance(output, Map) and layout.channels == output.channels
        tensors.append(access(layout, shape, whole=full).spread(result.shape))
    names = [*(f"x{number}" for number in range(len(inputs))), *arrays, "y"]
    body = walked(nests(*tensors, result), names, lambda run, at: _computed(formula, run, at, isa.lanes))
    return Kernel("elementwise", function(signature(len(inputs), arrays), body, helpers(body)), arrays)


def _in_step(shape: Sequence[int], layout: Layout, result: Sequence[int], output: Map) -> bool:
    """Return whether an operand can be read in whole lines of the result: a map of as many channels, or what has one value for all."""
    if isinstance(layout, Plain):
        return layout.floats == 1 and output.channels > 1
    return len(shape) == len(result) and (layout.line == output.line or layout.channels == 1 < output.channels)


def _computed(formula: Formula, run: Run, at: Sequence[str], lanes: int) -> list[str]:
    """Return the statements that compute one run."""
    if run.fills:
        return zeroed(run, at)
    *operands, result = at
    assert run.size == 1 or run.steps[-1] == 1

    def one(index: str, count: int) -> list[str]:
        values = (load(place, step, index, count, lanes) for place, step in zip(operands, run.steps, strict=False))
        return [store(result, formula.text.format(*values), index, count, lanes)]

    return vectorised(run.size, lanes, one)
