"""Dead filters and channels: what gives zero, or what nobody reads, is cut from all the weights in which it has a row or a column."""

import torch
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.blocks import structure_blocks
from espalier.compiler.passes.channels import Spaces, mixes, selected
from espalier.compiler.passes.editing import Editing
from espalier.compiler.reference import BINARY, activated

Values = dict[str, Tensor]  # tensor -> what each channel holds everywhere, NaN where that depends on the input


def remove_dead_channels(graph: Graph) -> Graph:
    """Return the graph without channels that change no output, until there are none.

    A channel goes where each layer that reads it has no weight for it, or finds zero there; a layer without border also takes another
    constant, into its bias. Where a structure cuts weights into blocks, only whole blocks of channels go, so that the others stay aligned.
    """
    while True:
        spaces = Spaces(graph)
        values = constant_channels(graph, spaces)
        kept = {}
        for space, size in spaces.free().items():
            dead = _dead(graph, spaces, values, space, size)
            if dead.all():
                dead[0] = False  # a tensor has at least one channel
            if dead.any():
                kept[space] = torch.arange(size)[~dead]
        if not kept:
            return graph
        graph = selected(_with_constants_in_biases(graph, spaces, values, kept), spaces, kept)


def constant_channels(graph: Graph, spaces: Spaces) -> Values:
    """Return what each channel of each tensor holds at every position, NaN where that depends on the input or the position."""
    values = Values()
    for node in graph:
        place = spaces.of[node.name]
        unknown = torch.full((spaces.sizes[place.space],), torch.nan)
        if mixes(node):
            found = _mixed(graph, spaces, values, node)
        elif node.inputs and spaces.of[node.inputs[0]].space == place.space:
            found = _kept(graph, spaces, values, node)
        else:
            found = unknown
        function = node["function"] if node.op == "unary" else node.attributes.get("activation")
        values[node.name] = torch.where(found.isnan(), found, activated(node, found, function)) if function else found
    return values


def _columns(graph: Graph, spaces: Spaces, layer: Node) -> Tensor:
    """Return a layer's weight as rows, channels of its input's space, and all else."""
    weight = graph.constants[layer.constants["weight"]]
    return weight.reshape(weight.shape[0], spaces.sizes[spaces.of[layer.inputs[0]].space], -1)


def _bordered(node: Node) -> bool:
    return "padding" in node.attributes and any(map(any, node["padding"]))


def _by_channel(spaces: Spaces, layer: Node) -> bool:
    """Return whether the columns of a layer are the channels of its input's space."""
    return spaces.of[layer.inputs[0]].axis == (1 if layer.op == "conv" else len(layer.shape) - 1)


def _mixed(graph: Graph, spaces: Spaces, values: Values, node: Node) -> Tensor:
    """Return the constant rows of a layer: those that read only constants."""
    bias = graph.constant(node, "bias")
    weight_MCK, rows = graph.constants[node.constants["weight"]], node.shape[spaces.of[node.name].axis]
    start = torch.zeros(rows) if bias is None else bias
    if _by_channel(spaces, node):
        weight_MCK = _columns(graph, spaces, node)
        x_C = values[node.inputs[0]]
        usable_C = (x_C == 0) | (~x_C.isnan() & (not _bordered(node)))
        if usable_C.any():
            start = start + weight_MCK[:, usable_C].sum(2) @ x_C[usable_C]
            weight_MCK = weight_MCK[:, ~usable_C]
        varies_M = (weight_MCK != 0).flatten(1).any(1)
    else:
        varies_M = (weight_MCK != 0).flatten(1).any(1)
    found = start.masked_fill(varies_M, torch.nan)
    if not node["residual"]:
        return found
    joined = spaces.root(node.inputs[-1]) == spaces.root(node.name)
    return found + values[node.inputs[-1]] if joined else torch.full_like(found, torch.nan)


def _kept(graph: Graph, spaces: Spaces, values: Values, node: Node) -> Tensor:
    """Return the constant channels of a node that keeps the channels of its first input apart."""
    x_C, place = values[node.inputs[0]], spaces.of[node.name]
    unknown = torch.full_like(x_C, torch.nan)
    match node.op:
        case "conv" if place.repeat == 1:
            weight_CK = graph.constants[node.constants["weight"]].flatten(1)
            usable_C = (x_C == 0) | (~x_C.isnan() & (not _bordered(node))) | (weight_CK == 0).all(1)
            bias = graph.constant(node, "bias")
            found = torch.where(usable_C, weight_CK.sum(1) * x_C.nan_to_num() + (0.0 if bias is None else bias), torch.nan)
            return found + values[node.inputs[-1]] if node["residual"] else found
        case "affine" if place.repeat == 1 and node["axis"] == place.axis:
            scale, shift = (graph.constants[node.constants[role]] for role in ("scale", "shift"))
            return torch.where(scale == 0, shift, x_C * scale + shift)
        case "binary":
            return _binary(graph, values, node, x_C, place.axis, place.repeat)
        case "avg_pool":
            return torch.where(x_C == 0, x_C, unknown) if node["count_padding"] and _bordered(node) else x_C
        case "pad":
            return torch.where(x_C == node["value"], x_C, unknown)
        case "unary" | "max_pool" | "adaptive_avg_pool" | "upsample" | "mean" | "reshape" | "permute" | "slice":
            return x_C
    return unknown


def _binary(graph: Graph, values: Values, node: Node, x_C: Tensor, axis: int, repeat: int) -> Tensor:
    other = graph.constant(node, "other")
    if other is None:
        y_C = values[node.inputs[1]]
    else:
        shape = [1] * (len(node.shape) - other.ndim) + [*other.shape]
        single = repeat == 1 and all(size == 1 for place, size in enumerate(shape) if place != axis)
        y_C = other.flatten().expand(len(x_C)) if single else torch.full_like(x_C, torch.nan)
    found = BINARY[node["function"]](x_C, y_C)
    return torch.where((x_C == 0) | (y_C == 0), 0.0, found) if node["function"] == "mul" else found


def _dead(graph: Graph, spaces: Spaces, values: Values, space: int, size: int) -> Tensor:
    """Return the mask of the channels of a space that change no output, whole blocks of them."""
    dead_C, block = torch.ones(size, dtype=torch.bool), 1
    for layer in spaces.takers(space):
        x_C = values[layer.inputs[0]]
        unread_C = (_columns(graph, spaces, layer) == 0).all(0).all(1)
        dead_C &= unread_C | (x_C == 0) | (x_C.isfinite() & (not _bordered(layer)))
        block = max(block, structure_blocks(graph, layer)[1])
    block = max(block, *(structure_blocks(graph, layer)[0] for layer in spaces.makers(space)), 1)
    whole = torch.cat([dead_C, dead_C.new_ones(-size % block)]).view(-1, block).all(1)
    return whole.repeat_interleave(block)[:size]


def _with_constants_in_biases(graph: Graph, spaces: Spaces, values: Values, kept: dict[int, Tensor]) -> Graph:
    """Return the graph with what the layers read of constant channels that go in their biases."""
    edit = Editing(graph)
    for node in graph:
        index = kept.get(spaces.root(node.inputs[0])) if mixes(node) else None
        if index is not None:
            x_C = values[node.inputs[0]].nan_to_num().index_fill(0, index, 0.0)
            added_M = _columns(graph, spaces, node).sum(2) @ x_C
            if added_M.any():
                bias = graph.constant(node, "bias")
                node = edit.with_constants(node, {"bias": added_M if bias is None else bias + added_M})
        edit.put(node)
    return edit.graph()
