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
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import block, element, function, signature, walked, zeroed
from espalier.compiler.lowering.nests import Run, access, nests, stored

STRIDED = f"""/* The first n lanes from floats that lie apart. */
ES_INLINE es_v {NAME}_strided(const float *p, long apart, int n)
{{
  es_v x = es_zero();
  for (int lane = 0; lane < n; ++lane) x[lane] = p[lane * apart];
  return x;
}}
"""


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
    """Return the kernel of ``scale * x + shift``."""
    shape = [-1 if axis == node["axis"] else 1 for axis in range(len(node.shape))]
    constants = {role: graph.constants[node.constants[role]].reshape(shape) for role in ("scale", "shift")}
    return _kernel(Formula("es_fma({0}, {1}, {2})", constants, node["axis"] == 1), node, inputs, output, isa, graph)


def lower_binary(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a function of two tensors, or of a tensor and a constant."""
    name, other = node["function"], graph.constant(node, "other")
    text, constants = BINARY[name], {}
    shapes = [graph[source].shape for source in node.inputs]
    if other is not None:
        shapes.append(tuple(other.shape))
        if other.numel() == 1:
            text = text.replace("{1}", f"es_splat({literal(other.item())})")
        else:
            constants["other"] = other.reshape((1,) * (len(node.shape) - other.ndim) + tuple(other.shape))
    first, second = (_has_channels(shape, node.shape) for shape in shapes)
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
    whole = formula.keeps_zero and isinstance(output, Map) and all(_in_step(layout, output) for _, layout in operands)
    result = access(output, node.shape, whole=whole)
    tensors = []
    for shape, layout in operands:
        full = whole and isinstance(layout, Map) and isinstance(output, Map) and layout.channels == output.channels
        tensors.append(access(layout, shape, whole=full).spread(result.shape))
    names = [*(f"x{number}" for number in range(len(inputs))), *arrays, "y"]
    body = walked(nests(*tensors, result), names, lambda run, at: _computed(formula, run, at, isa.lanes))
    helpers = [STRIDED] if any(f"{NAME}_strided" in line for line in body) else []
    return Kernel("elementwise", function(signature(len(inputs), arrays), body, helpers), arrays)


def _in_step(layout: Layout, output: Map) -> bool:
    """Return whether an operand can be read in whole lines of the result: a map of as many channels, or of one channel for all."""
    if isinstance(layout, Plain):
        return layout.floats == 1 and output.channels > 1
    return layout.line == output.line or layout.channels == 1 < output.channels


def _computed(formula: Formula, run: Run, at: Sequence[str], lanes: int) -> list[str]:
    """Return the statements that compute one run: whole vectors, then the lanes that are left."""
    if run.fills:
        return zeroed(run, at)
    *operands, result = at
    assert run.size == 1 or run.steps[-1] == 1
    whole, rest = run.size // lanes * lanes, run.size % lanes
    lines = []
    if whole:
        index = "" if whole == lanes else "i"
        store = f"es_storeu({_plus(result, index)}, {_value(formula, operands, run, index, lanes, lanes)});"
        lines += [store] if whole == lanes else block(f"for (int i = 0; i < {whole}; i += ES_LANES)", [store])
    if rest:
        index = str(whole) if whole else ""
        lines.append(f"es_store_first({_plus(result, index)}, {_value(formula, operands, run, index, rest, lanes)}, {rest});")
    return lines


def _value(formula: Formula, operands: Sequence[str], run: Run, index: str, count: int, lanes: int) -> str:
    return formula.text.format(*(_load(place, step, index, count, lanes) for place, step in zip(operands, run.steps, strict=False)))


def _load(place: str, step: int, index: str, count: int, lanes: int) -> str:
    """Return the C expression of ``count`` elements of an operand from ``index`` on."""
    match step:
        case 0:
            return f"es_splat({element(place, 0)})"
        case 1:
            return f"es_loadu({_plus(place, index)})" if count == lanes else f"es_load_first({_plus(place, index)}, {count})"
    return f"{NAME}_strided(&{element(place, step, index or '0')}, {step}, {count})"


def _plus(place: str, index: str) -> str:
    return f"{place} + {index}" if index else place
