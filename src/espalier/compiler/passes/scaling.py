"""Batch norms, biases and factors by channel folded into the convolution or linear layer beside them.

With scale ``s`` and shift ``t`` by output, the layer ``W, b`` before them becomes ``s W, s b + t``. Before a layer they scale its columns
and shift its bias, ``W s, b + sum(W t)``, where no border of zeros comes between. Zero weights stay zero, so masks hold.
"""

from dataclasses import replace

import torch
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.editing import Editing, only_reader

Scaling = tuple[Tensor, Tensor]  # scale and shift by channel, float64


def fold_scales(graph: Graph) -> Graph:
    """Return the graph with scales and shifts by channel inside the layers before them, or else behind them."""
    return _into_layers_behind(_into_layers_before(graph))


def scaling_of(graph: Graph, node: Node, axis: int) -> Scaling | None:
    """Return what a node multiplies its input with and adds to it, where that differs along one axis at most.

    Args:
        graph: Where its constants are.
        node: Any node.
        axis: Axis of the input.
    """
    if node.op == "affine" and node["axis"] == axis:
        return graph.constants[node.constants["scale"]].double(), graph.constants[node.constants["shift"]].double()
    if node.op != "binary" or "other" not in node.constants or node["function"] not in ("add", "mul"):
        return None
    vector = _by_channel(graph.constants[node.constants["other"]], node.shape, axis)
    if vector is None:
        return None
    return (torch.ones_like(vector), vector) if node["function"] == "add" else (vector, torch.zeros_like(vector))


def _by_channel(other: Tensor, shape: tuple[int, ...], axis: int) -> Tensor | None:
    """Return a constant operand as a vector along one axis, float64; None where it differs along another."""
    if other.ndim > len(shape):
        return None
    aligned = [1] * (len(shape) - other.ndim) + [*other.shape]
    if any(size != 1 for place, size in enumerate(aligned) if place != axis):
        return None
    return other.double().flatten().expand(shape[axis]).clone()


def _channel_axis(node: Node) -> int:
    """Return the axis of a layer's result that counts its outputs."""
    return 1 if node.op == "conv" else len(node.shape) - 1


def _into_layers_before(graph: Graph) -> Graph:
    edit, readers = Editing(graph), graph.readers()
    for node in graph:
        layer = edit.node(node.inputs[0]) if node.inputs else None
        if (
            layer is not None
            and layer.op in ("conv", "linear")
            and only_reader(graph, readers, node.inputs[0]) is not None
            and layer.shape == node.shape
            and not layer["activation"]
            and not layer["residual"]
            and (scaling := scaling_of(graph, node, _channel_axis(layer))) is not None
        ):
            edit.put(_scaled_rows(edit, layer, node, scaling))
            edit.drop(node, layer.name)
        else:
            edit.put(node)
    return edit.graph()


def _scaled_rows(edit: Editing, layer: Node, node: Node, scaling: Scaling) -> Node:
    scale, shift = scaling
    weight = edit.constants[layer.constants["weight"]]
    bias = edit.constants[layer.constants["bias"]].double() * scale if "bias" in layer.constants else 0.0
    scaled = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    folded = edit.with_constants(layer, {"weight": scaled.to(weight.dtype), "bias": (bias + shift).to(weight.dtype)})
    return folded.having(activation=node["activation"], **node.settings)


def _into_layers_behind(graph: Graph) -> Graph:
    edit, readers = Editing(graph), graph.readers()
    folded = {node.name for node in graph if node.name not in graph.outputs and _all_take(graph, node, readers[node.name])}
    for node in graph:
        taken = graph[node.inputs[0]] if node.inputs and node.inputs[0] in folded else None
        if node.name in folded:
            edit.drop(node, node.inputs[0])
        elif taken is not None:
            scaling = scaling_of(graph, taken, _input_axis(node, taken))
            assert scaling is not None
            edit.put(_scaled_columns(edit, node, scaling))
        else:
            edit.put(node)
    return edit.graph()


def _all_take(graph: Graph, node: Node, readers: list[Node]) -> bool:
    """Return whether all that read a scale and shift can hold it, and nothing else lies between."""
    if not readers or not node.inputs or node.shape != graph[node.inputs[0]].shape or node.attributes.get("activation"):
        return False
    for reader in readers:
        if reader.op not in ("conv", "linear") or reader.inputs.count(node.name) != 1 or reader.inputs[0] != node.name:
            return False
        scaling = scaling_of(graph, node, _input_axis(reader, node))
        if scaling is None or (reader.op == "conv" and any(map(any, reader["padding"])) and bool(scaling[1].any())):
            return False
    return True


def _input_axis(layer: Node, node: Node) -> int:
    """Return the axis of a layer's input that its columns stand for."""
    return 1 if layer.op == "conv" else len(node.shape) - 1


def _scaled_columns(edit: Editing, layer: Node, scaling: Scaling) -> Node:
    scale, shift = scaling
    weight = edit.constants[layer.constants["weight"]]
    groups = layer["groups"] if layer.op == "conv" else 1
    parts = weight.double().view(groups, weight.shape[0] // groups, weight.shape[1], -1)  # group, filter, channel, position
    factor, added = (vector.view(groups, 1, weight.shape[1], 1) for vector in (scale, shift))
    bias = edit.constants[layer.constants["bias"]].double() if "bias" in layer.constants else torch.zeros(weight.shape[0]).double()
    bias = bias + (parts * added).sum((2, 3)).flatten()
    scaled = (parts * factor).view(weight.shape)
    return edit.with_constants(replace(layer), {"weight": scaled.to(weight.dtype), "bias": bias.to(weight.dtype)})
