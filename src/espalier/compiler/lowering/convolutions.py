"""Convolutions and linear layers of the graph, brought to the one form that template F computes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Plain, lines
from espalier.compiler.lowering.filters import Convolution, lowered
from espalier.compiler.lowering.filters_planes import without_idle_planes
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.spatial import lowered_spatial
from espalier.compiler.lowering.spatial_rule import spatial_blocks
from espalier.compiler.lowering.vectors import lowered_vector
from espalier.compiler.lowering.winograd import lowered_winograd
from espalier.compiler.lowering.winograd_rule import winograd_blocks

Triple = tuple[int, int, int]


def lower_conv(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph, choice: Choice | None = None) -> Kernel:
    """Return the kernel of a convolution, groups included: with a choice of knobs F's, else what the rules choose."""
    layer, source, result = conv_layer(node, graph), lines(inputs[0]), lines(output)
    residual = lines(inputs[1]) if node.attributes.get("residual") else None
    if choice is None and (blocks := winograd_blocks(layer, source, result, isa)):
        return lowered_winograd(node, layer, source, result, residual, isa, blocks)
    if choice is None and (cut := spatial_blocks(layer, source, result, isa)):
        return lowered_spatial(node, layer, source, result, residual, isa, cut)
    return lowered(layer, source, result, residual, isa, choice)


def lower_linear(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph, choice: Choice | None = None) -> Kernel:
    """Return the kernel of a linear layer: F over its rows, V where there is one."""
    assert isinstance(output, Plain)
    layer = linear_layer(node, graph)
    residual = lines(inputs[1]) if node.attributes.get("residual") else None
    source, result = lines(inputs[0]), lines(output)
    if result.size[2] == 1:
        return lowered_vector(layer, source, result, residual, isa)
    return lowered(layer, source, result, residual, isa, choice)


def conv_layer(node: Node, graph: Graph) -> Convolution:
    """Return a convolution in the form of template F, without planes of its kernel that reach no input."""
    weight, mask = _whole(node, graph)
    layer = Convolution(
        weight,
        mask,
        _bias(node, graph),
        _three(node["stride"], 1),
        _three([before for before, _ in node["padding"]], 0),
        _three(node["dilation"], 1),
        node.attributes.get("activation"),
        node.settings,
        bool(node.attributes.get("pool")),
    )
    depths = (graph[node.inputs[0]].shape[2], node.shape[2]) if len(node.shape) == 5 else (1, 1)
    return without_idle_planes(layer, *depths)


def linear_layer(node: Node, graph: Graph) -> Convolution:
    """Return a linear layer in the form of template F: a 1x1 convolution over its rows."""
    weight, mask = graph.constants[node.constants["weight"]], graph.mask(node)
    shape = (*weight.shape, 1, 1, 1)
    return Convolution(
        weight.reshape(shape),
        None if mask is None else mask.reshape(shape),
        _bias(node, graph),
        (1, 1, 1),
        (0, 0, 0),
        (1, 1, 1),
        node.attributes.get("activation"),
        node.settings,
    )


def _whole(node: Node, graph: Graph) -> tuple[Tensor, Tensor | None]:
    """Return weight and mask over all input channels, five axes; what lies outside its group is masked."""
    weight, mask = graph.constants[node.constants["weight"]], graph.mask(node)
    shape = (weight.shape[0], weight.shape[1], *(1,) * (5 - weight.ndim), *weight.shape[2:])
    weight = weight.reshape(shape)
    mask = None if mask is None else mask.reshape(shape)
    groups = node["groups"]
    if groups == 1:
        return weight, mask
    filters, channels = weight.shape[0] // groups, weight.shape[1]
    whole = torch.zeros(weight.shape[0], channels * groups, *weight.shape[2:])
    kept = torch.zeros(whole.shape, dtype=torch.bool)
    for group in range(groups):
        rows, columns = slice(group * filters, (group + 1) * filters), slice(group * channels, (group + 1) * channels)
        whole[rows, columns] = weight[rows]
        kept[rows, columns] = True if mask is None else mask[rows]
    return whole, kept


def _bias(node: Node, graph: Graph) -> Tensor:
    bias = graph.constant(node, "bias")
    return torch.zeros(node.shape[1 if node.op == "conv" else -1]) if bias is None else bias


def _three(values: Sequence[int], filler: int) -> Triple:
    depth, height, width = [filler] * (3 - len(values)) + list(values)
    return depth, height, width
