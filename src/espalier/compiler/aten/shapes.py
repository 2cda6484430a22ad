"""What moves values without computing: ATen -> ``reshape``, ``permute``, ``slice``, ``concat``, ``expand``, ``pad``."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from espalier.compiler.aten.building import Building, Result, UnreadableError, Value, axis_of, spread
from espalier.compiler.graph import Node


def same(build: Building, x: Value, *settings: Any) -> Value:
    """Read what changes nothing: copies, memory formats."""
    del build, settings
    return x


def dropout(build: Building, x: Value, rate: float, train: bool) -> Value:
    """Read a dropout of evaluation mode, which changes nothing."""
    del build
    if train and rate:
        raise UnreadableError("it draws at random (training=True)")
    return x


def reshape(build: Building, x: Value, *settings: Any) -> Node:
    """Read any view that keeps the order of the elements; the result's shape says all."""
    del settings
    return reshaped(build, x, build.shape)


def reshaped(build: Building, x: Value, shape: Sequence[int]) -> Node:
    """Write a tensor in another shape."""
    node = build.node(x)
    return node if node.shape == tuple(shape) else build.add("reshape", node, shape=tuple(shape))


def permute(build: Building, x: Node, axes: Sequence[int]) -> Node:
    """Read another order of the axes."""
    order = tuple(axis_of(axis, len(x.shape)) for axis in axes)
    if order == tuple(range(len(order))):
        return x
    return build.add("permute", x, shape=tuple(x.shape[axis] for axis in order), axes=order)


def transpose(build: Building, x: Node, first: int, second: int) -> Node:
    """Read two axes exchanged."""
    rank = len(x.shape)
    first, second = axis_of(first, rank), axis_of(second, rank)
    return permute(build, x, [{first: second, second: first}.get(axis, axis) for axis in range(rank)])


def transposed(build: Building, x: Node) -> Node:
    """Read a matrix with its two axes exchanged."""
    return permute(build, x, [*reversed(range(len(x.shape)))])


def cut(build: Building, x: Value, axis: int = 0, start: int | None = None, stop: int | None = None, step: int = 1) -> Node:
    """Read a slice; bounds are as Python's."""
    node = build.node(x)
    axis = axis_of(axis, len(node.shape))
    first, last, step = slice(start, None if stop == sys.maxsize else stop, step).indices(node.shape[axis])
    size = len(range(first, last, step))
    if size == node.shape[axis]:
        return node
    shape = tuple(size if other == axis else length for other, length in enumerate(node.shape))
    return build.add("slice", node, shape=shape, axis=axis, start=first, stop=max(first, last), step=step)


def select(build: Building, x: Node, axis: int, index: int) -> Node:
    """Read one entry of an axis, which goes."""
    axis = axis_of(axis, len(x.shape))
    index %= x.shape[axis]
    return reshaped(build, cut(build, x, axis, index, index + 1), (*x.shape[:axis], *x.shape[axis + 1 :]))


def pieces(build: Building, x: Node, sizes: Any, axis: int = 0) -> Result:
    """Read a split, whatever says the sizes; the results' shapes do."""
    del sizes
    axis, start, found = axis_of(axis, len(x.shape)), 0, []
    for shape in build.shapes:
        found.append(cut(build, x, axis, start, start + shape[axis]))
        start += shape[axis]
    return tuple(found)


def unbind(build: Building, x: Node, axis: int = 0) -> Result:
    """Read all entries of an axis, which goes."""
    return tuple(select(build, x, axis, index) for index in range(x.shape[axis]))


def concat(build: Building, values: Sequence[Value], axis: int = 0) -> Node:
    """Read tensors one behind the other."""
    nodes = [build.node(value) for value in values if 0 not in value.shape]
    axis = axis_of(axis, len(nodes[0].shape))
    size = sum(node.shape[axis] for node in nodes)
    shape = tuple(size if other == axis else length for other, length in enumerate(nodes[0].shape))
    return nodes[0] if len(nodes) == 1 else build.add("concat", *nodes, shape=shape, axis=axis)


def stack(build: Building, values: Sequence[Value], axis: int = 0) -> Node:
    """Read tensors along an axis of their own."""
    axis = axis_of(axis, len(build.shape))
    shape = tuple(1 if other == axis else size for other, size in enumerate(build.shape))
    return concat(build, [reshaped(build, value, shape) for value in values], axis)


def expand(build: Building, x: Value, *settings: Any) -> Node:
    """Read a tensor repeated along axes of size 1."""
    del settings
    aligned = reshaped(build, x, (*[1] * (len(build.shape) - len(x.shape)), *x.shape))
    return aligned if aligned.shape == build.shape else build.add("expand", aligned)


def repeat(build: Building, x: Value, times: Sequence[int]) -> Node:
    """Read a tensor repeated as a whole along its axes."""
    node = reshaped(build, x, (*[1] * (len(times) - len(x.shape)), *x.shape))
    for axis, count in enumerate(times):
        node = concat(build, [node] * count, axis)
    return node


def repeat_each(build: Building, x: Node, times: int, axis: int | None = None, *settings: Any) -> Node:
    """Read each entry of an axis repeated where it stands."""
    del settings
    if axis is None:
        raise UnreadableError("it flattens")
    axis = axis_of(axis, len(x.shape))
    before, behind = x.shape[: axis + 1], x.shape[axis + 1 :]
    apart = reshaped(build, x, (*before, 1, *behind))
    return reshaped(build, build.add("expand", apart, shape=(*before, times, *behind)), build.shape)


def pad(build: Building, x: Node, borders: Sequence[int], mode: str = "constant", value: float | None = None) -> Node:
    """Read a border of one value; ``borders`` counts from the last axis, and what is negative cuts."""
    if mode != "constant":
        raise UnreadableError(f"its mode is {mode}; there is constant")
    rank = len(x.shape)
    pairs = [(borders[at], borders[at + 1]) for at in range(0, len(borders), 2)]
    padding = [*[(0, 0)] * (rank - len(pairs)), *reversed(pairs)]
    for axis, (before, after) in enumerate(padding):
        x = cut(build, x, axis, max(0, -before), x.shape[axis] - max(0, -after))
    padding = [(max(0, before), max(0, after)) for before, after in padding]
    if not any(map(any, padding)):
        return x
    shape = tuple(size + before + after for size, (before, after) in zip(x.shape, padding, strict=True))
    return build.add("pad", x, shape=shape, padding=tuple(padding), value=float(value or 0))


def constant_pad(build: Building, x: Node, borders: Sequence[int], value: float = 0) -> Node:
    """Read the form of ``pad`` that has no mode."""
    return pad(build, x, borders, "constant", value)


def roll(build: Building, x: Node, shifts: Sequence[int], axes: Sequence[int] = ()) -> Node:
    """Read a rotation along axes: what leaves at the end comes in at the front."""
    if not axes:
        raise UnreadableError("it rolls a flattened tensor")
    for axis, shift in zip(axes, spread(shifts, len(axes)), strict=True):
        size = x.shape[axis]
        if behind := -shift % size:
            x = concat(build, [cut(build, x, axis, behind, size), cut(build, x, axis, 0, behind)], axis)
    return x


def put(build: Building, x: Value, part: Value, axis: int = 0, start: int | None = None, stop: int | None = None, step: int = 1) -> Node:
    """Read ``slice_scatter``: x with a slice of it replaced, which in-place writes to a slice become."""
    if step != 1:
        raise UnreadableError(f"its step is {step}, not 1")
    axis = axis_of(axis, len(x.shape))
    size = x.shape[axis]
    first, last, _ = slice(start, None if stop == sys.maxsize else stop).indices(size)
    last = max(first, last)
    around = [cut(build, x, axis, 0, first)] if first else []
    behind = [cut(build, x, axis, last, size)] if last < size else []
    return concat(build, [*around, part, *behind], axis)


def put_entry(build: Building, x: Value, part: Value, axis: int, index: int) -> Node:
    """Read ``select_scatter``: x with one entry of an axis replaced."""
    axis = axis_of(axis, len(x.shape))
    index %= x.shape[axis]
    entry = reshaped(build, part, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return put(build, x, entry, axis, index, index + 1)


def filled(build: Building, x: Value, value: float, *settings: Any) -> Tensor:
    """Read a tensor of one value that takes only its shape from the input."""
    del x, settings
    return torch.full(build.shape, float(value))


def filled_to(build: Building, x: Value, size: Sequence[int], value: float, *settings: Any) -> Tensor:
    """Read ``new_full``."""
    del size
    return filled(build, x, value, *settings)


def copied(build: Building, x: Value, source: Value, *settings: Any) -> Node:
    """Read a tensor that takes its shape and type from ``x``, and its values from ``source``: what writes to all of a slice become."""
    del x, settings
    return expand(build, source.to(torch.float32) if isinstance(source, Tensor) else source)


def zeros(build: Building, x: Value, *settings: Any) -> Tensor:
    """Read a tensor of zeros."""
    return filled(build, x, 0.0, *settings)


def ones(build: Building, x: Value, *settings: Any) -> Tensor:
    """Read a tensor of ones."""
    return filled(build, x, 1.0, *settings)


def pixel_shuffle(build: Building, x: Node, factor: int) -> Node:
    """Read channels spread over positions."""
    *batch, channels, height, width = x.shape
    count = len(batch)
    apart = reshaped(build, x, (*batch, channels // factor**2, factor, factor, height, width))
    moved = permute(build, apart, [*range(count + 1), count + 3, count + 1, count + 4, count + 2])
    return reshaped(build, moved, build.shape)


SAME = [
    *("contiguous.default", "clone.default", "alias.default", "detach.default", "lift_fresh_copy.default", "type_as.default"),
    *("_to_copy.default", "to.dtype", "to.device", "to.dtype_layout", "to.other"),
]
VIEWS = [
    *("view.default", "reshape.default", "_unsafe_view.default", "view_as.default", "reshape_as.default", "flatten.using_ints"),
    *("unflatten.int", "unsqueeze.default", "squeeze.default", "squeeze.dim", "squeeze.dims"),
]
SHAPES: dict[str, Callable[..., Result]] = {
    **{f"aten.{name}": same for name in SAME},
    **{f"aten.{name}.default": dropout for name in ("dropout", "feature_dropout", "alpha_dropout")},
    **{f"aten.{name}": reshape for name in VIEWS},
    "aten.permute.default": permute,
    "aten.transpose.int": transpose,
    "aten.t.default": transposed,
    "aten.slice.Tensor": cut,
    "aten.narrow.default": lambda build, x, axis, start, size: cut(build, x, axis, start, start + size),
    "aten.select.int": select,
    "aten.split.Tensor": pieces,
    "aten.split_with_sizes.default": pieces,
    "aten.chunk.default": pieces,
    "aten.unbind.int": unbind,
    "aten.cat.default": concat,
    "aten.stack.default": stack,
    "aten.expand.default": expand,
    "aten.expand_as.default": expand,
    "aten.repeat.default": repeat,
    "aten.repeat_interleave.self_int": repeat_each,
    "aten.pad.default": pad,
    "aten.constant_pad_nd.default": constant_pad,
    "aten.roll.default": roll,
    "aten.slice_scatter.default": put,
    "aten.select_scatter.default": put_entry,
    "aten.copy.default": copied,
    "aten.fill.Scalar": filled,
    "aten.fill.Tensor": copied,
    "aten.full_like.default": filled,
    "aten.new_full.default": filled_to,
    "aten.zero.default": zeros,
    "aten.zeros_like.default": zeros,
    "aten.new_zeros.default": zeros,
    "aten.ones_like.default": ones,
    "aten.new_ones.default": ones,
    "aten.pixel_shuffle.default": pixel_shuffle,
}
