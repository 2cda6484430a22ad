"""Where the elements of a tensor lie in memory, whatever its layout: a sum of one term an axis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from espalier.compiler.layouts import Layout, Map


@dataclass(frozen=True)
class Fill:
    """Channels that fill the last line of a map.

    Args:
        axis: The axis of channels.
        start: Floats from the first channel to the first of them.
        size: How many there are.
    """

    axis: int
    start: int
    size: int


@dataclass(frozen=True)
class Access:
    """Where the elements of a tensor lie in its buffer.

    Args:
        start: Floats before the first element.
        terms: For each axis what each index adds, in floats.
        fill: What follows the last channel; None where nothing does.
    """

    start: int
    terms: tuple[np.ndarray, ...]
    fill: Fill | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the sizes of the axes."""
        return tuple(len(term) for term in self.terms)

    def places(self) -> np.ndarray:
        """Return the floats before each element, an array of the tensor's shape."""
        total = np.full(self.shape, self.start, np.int64)
        for axis, term in enumerate(self.terms):
            total += term.reshape([-1 if other == axis else 1 for other in range(len(self.terms))])
        return total

    def cut(self, axis: int, chosen: slice) -> "Access":
        """Return part of the tensor; what fills the last line goes with the last channel."""
        terms = [term[chosen] if other == axis else term for other, term in enumerate(self.terms)]
        whole = self.fill is None or axis != self.fill.axis or np.array_equal(terms[axis][-1:], self.terms[axis][-1:])
        return Access(self.start, tuple(terms), self.fill if whole else None)

    def permuted(self, axes: Sequence[int]) -> "Access":
        """Return the tensor with its axes in another order."""
        fill = self.fill and replace(self.fill, axis=tuple(axes).index(self.fill.axis))
        return Access(self.start, tuple(self.terms[axis] for axis in axes), fill)

    def spread(self, shape: Sequence[int]) -> "Access":
        """Return the tensor repeated to a shape, by PyTorch's rules of broadcasting."""
        terms = (np.zeros(1, np.int64),) * (len(shape) - len(self.terms)) + self.terms
        assert all(len(term) in (1, size) for term, size in zip(terms, shape, strict=True))
        return Access(self.start, tuple(np.resize(term, size) for term, size in zip(terms, shape, strict=True)))

    def first_along(self, axis: int) -> "Access":
        """Return the elements with index 0 along an axis; what fills the last line goes with the axis of channels."""
        fill = self.fill if self.fill and self.fill.axis != axis else None
        return Access(self.start, self.cut(axis, slice(0, 1)).terms, fill)

    def without_fill(self) -> "Access":
        """Return the elements alone, as who reads them needs them."""
        return Access(self.start, self.terms)

    def along(self, *axes: int) -> "Access":
        """Return places of an element's neighbours along some axes, relative to its own."""
        fill = self.fill and replace(self.fill, axis=axes.index(self.fill.axis)) if self.fill and self.fill.axis in axes else None
        return Access(0, tuple(self.terms[axis] for axis in axes), fill)

    def with_axes(self, axes: Sequence[int]) -> "Access":
        """Return the tensor with axes of size 1 put in at those places of the result."""
        terms, fill = [*self.terms], self.fill
        for axis in sorted(axes):
            terms.insert(axis, np.zeros(1, np.int64))
            fill = replace(fill, axis=fill.axis + 1) if fill and fill.axis >= axis else fill
        return Access(self.start, tuple(terms), fill)

    def filling(self) -> "Access":
        """Return the channels that fill the last line, beside every pixel."""
        assert self.fill is not None
        channels = self.fill.start + np.arange(self.fill.size)
        return Access(self.start, tuple(channels if axis == self.fill.axis else term for axis, term in enumerate(self.terms)))


def access(layout: Layout, shape: Sequence[int], *, whole: bool = False) -> Access:
    """Return where the elements of a tensor lie.

    Args:
        layout: Its layout.
        shape: Its logical shape.
        whole: Whether the channels that fill a map's last line count as channels.
    """
    if not isinstance(layout, Map):
        assert tuple(shape) == layout.shape
        return Access(0, tuple(np.arange(size) * stride for size, stride in zip(shape, layout.strides, strict=True)))
    channels = layout.lines * layout.line if whole else layout.channels
    channel = np.array([layout.channel(number) for number in range(channels)])
    spatial = layout.strides[5 - len(shape) :]
    terms = (np.zeros(1, np.int64), channel, *(np.arange(size) * stride for size, stride in zip(shape[2:], spatial, strict=True)))
    rest = -channels % layout.line
    return Access(layout.origin, terms, Fill(1, int(channel[-1]) + 1, rest) if rest else None)


def narrowed(offsets: np.ndarray) -> np.ndarray:
    """Return offsets as kernels read them, in 32 bits.

    Raises:
        ValueError: One does not fit; the message gives it and the way out.
    """
    farthest = int(np.abs(offsets).max(initial=0))
    if farthest >= 2**31:
        raise ValueError(f"an offset of {farthest} does not fit 32 bits, so large is its feature map; compile it for a smaller example.")
    narrow: np.ndarray = offsets.astype(np.int32)
    return narrow


def stored(value: Tensor, layout: Layout) -> np.ndarray:
    """Return a buffer of that layout that holds the tensor; zeros elsewhere."""
    buffer = np.zeros(layout.floats, np.float32)
    buffer[access(layout, value.shape).places()] = value.detach().numpy()
    return buffer
