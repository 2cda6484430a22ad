"""Which tensors share their channels: what is cut from one, or reordered in one, must be so in all.

A convolution or linear layer begins a new space of channels; element-wise operators, pooling, depthwise convolutions and flattening keep
that of their input. A space is fixed where something needs its channels all and in order: an output, a concatenation, a grouped
convolution, a reshape that splits channels, a product of activations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.editing import Editing

POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool", "upsample")


@dataclass(frozen=True)
class Place:
    """Where a tensor holds the channels of a space.

    Args:
        space: Number of the space; ``Spaces.root`` tells which it was joined with.
        axis: Axis of the tensor.
        repeat: How many neighbours on that axis belong to one channel; above 1 behind a flattened map.
    """

    space: int
    axis: int
    repeat: int = 1


class Spaces:
    """The spaces of channels of a graph, and where each tensor holds them.

    Args:
        graph: Any graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.of: dict[str, Place] = {}
        self.sizes: list[int] = []
        self._parents: list[int] = []
        self._fixed: set[int] = set()
        for node in graph:
            self.of[node.name] = self._place(node)
        for name in graph.outputs:
            self._fix(name)

    def root(self, name: str) -> int:
        """Return the space of a tensor."""
        return self._root(self.of[name].space)

    def free(self) -> dict[int, int]:
        """Return the spaces that may be cut and reordered, with their sizes."""
        fixed = {self._root(space) for space in self._fixed}
        return {self._root(space): self.sizes[space] for space in range(len(self.sizes)) if self._root(space) not in fixed}

    def makers(self, space: int) -> list[Node]:
        """Return the layers whose rows are the channels of a space."""
        return [node for node in self.graph if mixes(node) and self.root(node.name) == space]

    def takers(self, space: int) -> list[Node]:
        """Return the layers whose columns are the channels of a space."""
        return [node for node in self.graph if mixes(node) and self.root(node.inputs[0]) == space]

    def _root(self, space: int) -> int:
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def _new(self, size: int) -> int:
        self.sizes.append(size)
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def _join(self, first: Place, second: Place) -> None:
        self._parents[self._root(second.space)] = self._root(first.space)

    def _fix(self, *names: str) -> None:
        self._fixed.update(self.of[name].space for name in names)

    def _begin(self, node: Node, axis: int) -> Place:
        return Place(self._new(node.shape[axis] if node.shape else 1), axis)

    def _barrier(self, node: Node) -> Place:
        """Return a new space for what takes its inputs' channels as they are, and gives its own so."""
        self._fix(*node.inputs)
        place = self._begin(node, min(1, max(0, len(node.shape) - 1)))
        self._fixed.add(place.space)
        return place

    def _place(self, node: Node) -> Place:
        if node.op in ("conv", "linear"):
            return self._layer(node)
        if not node.inputs or node.op in ("matmul", "group_norm"):
            return self._barrier(node)
        place = self._moved(node, self.of[node.inputs[0]])
        if place is None:
            return self._barrier(node)
        for name in node.inputs[1:]:
            self._join(place, self.of[name])
        return place

    def _layer(self, node: Node) -> Place:
        given = self.of[node.inputs[0]]
        axis = 1 if node.op == "conv" else len(node.shape) - 1
        if mixes(node) and given.axis == axis:
            place = self._begin(node, axis)
        elif depthwise(node, self.graph) and given.axis == axis:
            place = given
        elif mixes(node):
            self._fix(node.inputs[0])
            place = self._begin(node, axis)
        else:
            return self._barrier(node)
        if node["residual"]:
            other = self.of[node.inputs[-1]]
            if (other.axis, other.repeat) != (place.axis, place.repeat):
                self._fix(node.inputs[-1])
                self._fixed.add(place.space)
            else:
                self._join(place, other)
        return place

    def _moved(self, node: Node, given: Place) -> Place | None:
        """Return where an operator's result holds the channels of its first input; None where it does not keep them."""
        shape = self.graph[node.inputs[0]].shape if node.inputs else ()
        axis = given.axis
        match node.op:
            case "unary" | "affine":
                return given
            case "binary":
                return self._met(node, given)
            case "softmax" | "slice":
                return given if node["axis"] != axis else None
            case "concat":
                alike = all((self.of[name].axis, self.of[name].repeat) == (axis, given.repeat) for name in node.inputs)
                return given if alike and node["axis"] != axis else None
            case "pad":
                return given if not any(node["padding"][axis]) else None
            case "layer_norm":
                return given if axis < len(shape) - node["num_axes"] else None
            case "mean":
                gone = 0 if node["keepdim"] else sum(reduced < axis for reduced in node["axes"])
                return replace(given, axis=axis - gone) if axis not in node["axes"] else None
            case "permute":
                return replace(given, axis=node["axes"].index(axis))
            case "reshape":
                return _reshaped(shape, node.shape, given, self.sizes[given.space])
            case _ if node.op in POOLS:
                return given if axis == 1 else None
        return None

    def _met(self, node: Node, given: Place) -> Place | None:
        """Return the place of what two operands give; they must hold their channels alike, counted from the last axis."""
        behind = len(self.graph[node.inputs[0]].shape) - given.axis
        axis = len(node.shape) - behind
        if not behind or node.shape[axis] != self.sizes[given.space] * given.repeat:
            return None
        for name in node.inputs[1:]:
            other, shape = self.of[name], self.graph[name].shape
            if (len(shape) - other.axis, other.repeat) != (behind, given.repeat) or shape[other.axis] != node.shape[axis]:
                return None
        return replace(given, axis=axis)


def mixes(node: Node) -> bool:
    """Return whether a node is a layer each of whose outputs may read every channel."""
    return node.op == "linear" or (node.op == "conv" and node["groups"] == 1)


def depthwise(node: Node, graph: Graph) -> bool:
    """Return whether a node is a convolution of one channel to one channel each."""
    return node.op == "conv" and node["groups"] == node.shape[1] == graph[node.inputs[0]].shape[1] > 1


def selected(graph: Graph, spaces: Spaces, kept: Mapping[int, Tensor]) -> Graph:
    """Return the graph with only these channels, in this order.

    Args:
        graph: The graph that ``spaces`` is of.
        spaces: Its spaces.
        kept: Free space -> the channels that stay.
    """
    edit = Editing(graph)
    for node in graph:
        place = spaces.of[node.name]
        index = kept.get(spaces.root(node.name))
        if mixes(node):
            columns = kept.get(spaces.root(node.inputs[0]))
            node = _selected_layer(edit, node, index, None if columns is None else members(columns, spaces.of[node.inputs[0]].repeat))
        elif index is not None:
            node = _selected_constants(edit, node, place.axis, members(index, place.repeat))
        if index is not None:
            size = len(index) * place.repeat
            node = replace(node, shape=(*node.shape[: place.axis], size, *node.shape[place.axis + 1 :]))
        edit.put(node)
    return edit.graph()


def members(index: Tensor, repeat: int) -> Tensor:
    """Return the positions on an axis on which each channel has ``repeat`` neighbours."""
    return (index[:, None] * repeat + torch.arange(repeat)).flatten()


def _selected_layer(edit: Editing, node: Node, rows: Tensor | None, columns: Tensor | None) -> Node:
    keys = dict(node.constants)
    for axis, index in enumerate((rows, columns)):
        if index is not None:
            keys["weight"] = _part(edit, keys["weight"], index, axis)
    if rows is not None and "bias" in keys:
        keys["bias"] = _part(edit, keys["bias"], rows, 0)
    return replace(node, constants=keys)


def _selected_constants(edit: Editing, node: Node, axis: int, index: Tensor) -> Node:
    """Return a node that keeps its channels apart with the constants of the chosen ones."""
    keys = dict(node.constants)
    for role, key in node.constants.items():
        value = edit.constants[key]
        if node.op == "binary":  # aligned at the last axis
            along = axis - len(node.shape) + value.ndim
            if along >= 0 and value.shape[along] > 1:
                keys[role] = _part(edit, key, index, along)
        elif node.op == "conv" or (node.op == "affine" and node["axis"] == axis):
            keys[role] = _part(edit, key, index, 0)
    node = replace(node, constants=keys)
    return node.having(groups=len(index)) if node.op == "conv" else node


def _part(edit: Editing, key: str, index: Tensor, axis: int) -> str:
    mask = edit.masks.get(key)
    part = None if mask is None else mask.index_select(axis, index)
    return edit.constant(edit.constants[key].index_select(axis, index), like=key, mask=part)


def _reshaped(before: tuple[int, ...], after: tuple[int, ...], given: Place, channels: int) -> Place | None:
    """Return the axis on which a reshape leaves whole channels side by side; None where it splits them or joins others to them."""
    if channels == 1:
        return None
    ahead = math.prod(before[: given.axis])
    for axis, size in enumerate(after):
        if math.prod(after[:axis]) == ahead and size > 1:
            return replace(given, axis=axis, repeat=size // channels) if size % channels == 0 else None
    return None
