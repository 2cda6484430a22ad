"""Constant folding, and nodes that change nothing: what is known is computed, what only moves values moves them once."""

from dataclasses import replace

import torch
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.editing import Editing
from espalier.compiler.reference import BINARY, value_of

NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "exp", "sqrt", "abs")
NEUTRAL = {"add": 0.0, "mul": 1.0}


def fold_constants(graph: Graph) -> Graph:
    """Return the graph with everything computed that does not depend on an input.

    A binary operator with one constant operand holds it as a constant; what is subtracted or divided by it is added or multiplied.
    """
    edit = Editing(graph)
    for node in graph:
        values = [_value(edit, name) for name in node.inputs]
        known = [value for value in values if value is not None]
        if values and len(known) == len(values):
            key = edit.constant(value_of(graph, node, known))
            edit.put(replace(node, op="constant", inputs=(), attributes={}, constants={"value": key}))
        elif node.op == "binary" and known:
            edit.put(_with_constant_operand(edit, node, values))
        else:
            edit.put(node)
    return edit.graph()


def drop_identities(graph: Graph) -> Graph:
    """Return the graph without nodes that give what they read; chains of one kind of move, or of constants added or multiplied, are one."""
    edit = Editing(graph)
    for node in graph:
        if node.inputs and _gives_its_input(edit, node):
            edit.drop(node, node.inputs[0])
        else:
            edit.put(_merged(edit, node))
    return edit.graph()


def _value(edit: Editing, name: str) -> Tensor | None:
    node = edit.node(name)
    return edit.constants[node.constants["value"]] if node.op == "constant" else None


def _with_constant_operand(edit: Editing, node: Node, values: list[Tensor | None]) -> Node:
    first, second = values
    function = node["function"]
    if second is not None:
        if function in ("sub", "div"):
            function, second = ("add", -second) if function == "sub" else ("mul", second.double().reciprocal().to(second.dtype))
        other, name = second, node.inputs[0]
    else:
        if function in ("sub", "div"):
            return node  # a constant on the left of these stays an input
        assert first is not None
        other, name = first, node.inputs[1]
    return replace(node.having(function=function), inputs=(name,), constants={"other": edit.constant(other)})


def _gives_its_input(edit: Editing, node: Node) -> bool:
    before = edit.node(node.inputs[0])
    if node.shape != before.shape or node.attributes.get("activation"):
        return False
    match node.op:
        case "reshape" | "expand" | "slice" | "pad" | "upsample" | "adaptive_avg_pool":
            return True  # each of them changes the shape, or nothing
        case "mean":
            return all(before.shape[axis] == 1 for axis in node["axes"])
        case "concat":
            return len(node.inputs) == 1
        case "permute":
            return _order(before.shape, node["axes"]) == sorted(_order(before.shape, node["axes"]))
        case "unary":
            return node["function"] == "relu" and _function(before) in NOT_NEGATIVE
        case "binary" if "other" in node.constants:
            neutral = NEUTRAL.get(node["function"])
            return neutral is not None and bool((edit.constants[node.constants["other"]] == neutral).all())
        case "affine":
            scale, shift = (edit.constants[node.constants[role]] for role in ("scale", "shift"))
            return bool(torch.all(scale == 1) and torch.all(shift == 0))
    return False


def _merged(edit: Editing, node: Node) -> Node:
    """Return the node with the one before it taken in, where both move values or add, or multiply with, constants.

    What moves only axes of size 1 is a reshape.
    """
    if not node.inputs or node.op not in ("reshape", "permute", "mean", "binary"):
        return node
    before = edit.node(node.inputs[0])
    if node.op == "binary":
        return _merged_constants(edit, node, before)
    if node.op == "mean":
        moves = all(before.shape[axis] == 1 for axis in node["axes"])
        return _reshape(node) if moves else node
    if node.op == "permute" and before.op == "permute":
        axes = tuple(before["axes"][axis] for axis in node["axes"])
        node = replace(node.having(axes=axes), inputs=before.inputs)
        before = edit.node(before.inputs[0])
    if node.op == "permute" and _order(before.shape, node["axes"]) == sorted(_order(before.shape, node["axes"])):
        node = _reshape(node)
    if node.op == "reshape" and before.op == "reshape":
        node = replace(node, inputs=before.inputs)
    return node


def _merged_constants(edit: Editing, node: Node, before: Node) -> Node:
    function = node["function"]
    alike = before.op == "binary" and before["function"] == function and not before["activation"]
    if function not in ("add", "mul") or not alike or "other" not in node.constants or "other" not in before.constants:
        return node
    first, second = (edit.constants[each.constants["other"]] for each in (before, node))
    other = BINARY[function](first.double(), second.double()).to(second.dtype)
    return replace(node, inputs=before.inputs, constants={"other": edit.constant(other)})


def _reshape(node: Node) -> Node:
    return replace(node, op="reshape", attributes={})


def _order(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[int]:
    """Return the order of the axes that hold more than one entry."""
    return [axis for axis in axes if shape[axis] > 1]


def _function(node: Node) -> str | None:
    """Return the function that a node ends with."""
    function: str | None = node["function"] if node.op == "unary" else node.attributes.get("activation")
    return function
