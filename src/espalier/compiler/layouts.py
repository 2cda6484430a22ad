"""How a tensor lies in memory: ``Map``, lines of channels a pixel inside a zero border, or ``Plain``, row-major.

A map puts a line of 16 channels of one pixel side by side, so that a kernel loads filters into lanes and broadcasts pixels, and pixels that
follow one another are 64 bytes apart: with plain channels-last their distance is a power of two for most networks, and 28 of them share
two sets of the L1 cache (compiler spec, 3.1). Whoever reads a map with padding finds zeros in its border.

Rows are the outer axis, and the lines of channels lie inside a row: ``[D][H][C / 16][W][16]``. Threads own bands of rows, and a band is one
stretch of memory. With lines outside of rows, as in the spec, bands alternate every few pages, and what a core's prefetcher fetches beyond
its band it takes from the other core, which writes there next: small maps pay most. Where a row is a multiple of 4 KiB long, the rows of
a tile share sets of the L1 cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LINE = 16  # channels of a line: 64 bytes of fp32
Border = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # zeros before and after, along D, H, W
NO_BORDER: Border = ((0, 0), (0, 0), (0, 0))


@dataclass(frozen=True)
class Map:
    """A feature map of one sample, ``(channels, D, H, W)``.

    Args:
        channels: Logical channels; those that fill the last line are zero.
        size: D, H and W; 1 where the tensor lacks the axis.
        border: Zeros around it.
        line: Channels side by side; 4 for a network's input of few channels.
    """

    channels: int
    size: tuple[int, int, int]
    border: Border = NO_BORDER
    line: int = LINE

    @property
    def lines(self) -> int:
        """Return the lines that the channels fill."""
        return -(-self.channels // self.line)

    @property
    def padded(self) -> tuple[int, int, int]:
        """Return D, H and W with the border."""
        depth, height, width = (size + before + after for size, (before, after) in zip(self.size, self.border, strict=True))
        return depth, height, width

    @property
    def strides(self) -> tuple[int, int, int]:
        """Return the floats between neighbours along D, H and W."""
        _, height, width = self.padded
        row = self.lines * width * self.line
        return height * row, row, self.line

    @property
    def line_stride(self) -> int:
        """Return the floats between a line and the next one of the same pixel."""
        return self.padded[2] * self.line

    @property
    def origin(self) -> int:
        """Return the floats before the first pixel that is no border."""
        return sum(before * stride for (before, _), stride in zip(self.border, self.strides, strict=True))

    @property
    def floats(self) -> int:
        """Return the size of the buffer."""
        return self.padded[0] * self.strides[0]

    def channel(self, number: int) -> int:
        """Return the floats from a pixel's first channel to that one."""
        return number // self.line * self.line_stride + number % self.line

    @property
    def geometry(self) -> tuple[object, ...]:
        """Return what two maps must share for one to take the other's place without touching its border."""
        return self.padded, self.border, self.line, self.lines


@dataclass(frozen=True)
class Plain:
    """Row-major, as PyTorch has it.

    Args:
        shape: Logical shape, the batch included.
    """

    shape: tuple[int, ...]

    @property
    def floats(self) -> int:
        """Return the size of the buffer."""
        return math.prod(self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the floats between neighbours along each axis."""
        return tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))


Layout = Map | Plain


@dataclass(frozen=True)
class Lines:
    """What a kernel that vectorises over channels sees of either layout: pixels of lines.

    Args:
        size: D, H and W of the pixels.
        strides: Floats between neighbouring pixels.
        line: Channels side by side.
        line_stride: Floats from a line to the next of the same pixel.
        origin: Floats before the first pixel.
        channels: Logical channels.
    """

    size: tuple[int, int, int]
    strides: tuple[int, int, int]
    line: int
    line_stride: int
    origin: int
    channels: int

    def channel(self, number: int) -> int:
        """Return the floats from a pixel's first channel to that one."""
        return number // self.line * self.line_stride + number % self.line


def lines(layout: Layout) -> Lines:
    """Return a layout as pixels of lines; of a plain tensor the last axis holds the channels and all before it the pixels."""
    if isinstance(layout, Map):
        return Lines(layout.size, layout.strides, layout.line, layout.line_stride, layout.origin, layout.channels)
    channels = layout.shape[-1]
    pixels = layout.floats // channels
    return Lines((1, 1, pixels), (layout.floats, layout.floats, channels), LINE, LINE, 0, channels)


def map_of(shape: Sequence[int], border: Border = NO_BORDER, line: int = LINE) -> Map:
    """Return the map of a tensor ``(1, C, ...)`` with up to three spatial axes.

    Raises:
        ValueError: It holds more than one sample, or has another rank.
    """
    if shape[0] != 1 or not 2 <= len(shape) <= 5:
        raise ValueError(
            f"a tensor of shape {tuple(shape)} is no feature map of one sample, (1, channels, ...) with up to three axes behind; "
            "compile the network with an example of one sample."
        )
    depth, height, width = (1,) * (5 - len(shape)) + tuple(shape[2:])
    return Map(shape[1], (depth, height, width), border, line)
