"""How template S cuts a layer: blocks of filters, bands of rows, and where a band's planar copy lies in a thread's scratch."""

import math
from dataclasses import dataclass

from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Lines
from espalier.compiler.lowering.filters import Convolution

GROUP_CHANNELS = (4, 2, 1)  # gN
BAND_FLOATS = 128 * 1024  # of a band's copy, which stays in L2 beside weights in passing
SPARE = 2  # registers for a weight and a product
WAYS = LINE  # floats of a cache line


@dataclass(frozen=True)
class Blocks:
    """Knobs of template S.

    Args:
        filters: gM, filters of a block.
        channels: gN, channels of an entry.
        vectors: Vectors of pixels that a call of the entry loop takes, at most.
        rows: Rows of the result that a band has, at most.
    """

    filters: int
    channels: int
    vectors: int
    rows: int


@dataclass(frozen=True)
class Shape:
    """A layer and its blocks as numbers: what the C text is written from. Distances are in floats.

    A row of the copy is as wide as the map with the padding that the kernel sees, and rows follow one another: the pixels of a band are
    one run, in which a few at the end of each row belong to no result.

    Args:
        blocks: Knobs.
        size: D, H and W of the result.
        kernel: The same of the kernel.
        dilation: Along D, H and W.
        channels: Of the input.
        lanes: Of a vector.
    """

    blocks: Blocks
    size: tuple[int, int, int]
    kernel: tuple[int, int, int]
    dilation: tuple[int, int, int]
    channels: int
    lanes: int

    @property
    def reach(self) -> tuple[int, int, int]:
        """Return how many planes, rows and columns of the input lie behind the first that a pixel sees."""
        depth, height, width = ((taps - 1) * step for taps, step in zip(self.kernel, self.dilation, strict=True))
        return depth, height, width

    @property
    def width(self) -> int:
        """Return the distance between rows of the copy."""
        return self.size[2] + self.reach[2]

    @property
    def plane(self) -> int:
        """Return the distance between its planes, of which it has one for each of the kernel's."""
        return (self.blocks.rows + self.reach[1]) * self.width

    @property
    def channel(self) -> int:
        """Return the distance between its channels."""
        return spread(self.kernel[0] * self.plane)

    @property
    def lines(self) -> int:
        """Return the lines of the input's channels."""
        return -(-self.channels // LINE)

    @property
    def band(self) -> int:
        """Return the floats of the copy."""
        return self.lines * LINE * self.channel

    @property
    def sums(self) -> int:
        """Return the distance between the sums of two filters, which are as wide as the copy."""
        return spread(-(-self.blocks.rows * self.width // self.lanes) * self.lanes)

    @property
    def scratch(self) -> int:
        """Return the floats a thread needs: the copy, and the sums of a line of filters."""
        return self.band + LINE * self.sums

    def computed(self, rows: int) -> int:
        """Return the vectors of pixels that a band of so many rows has."""
        return -(-(rows * self.width - self.reach[2]) // self.lanes)


def spread(floats: int) -> int:
    """Return an odd number of cache lines that hold so many floats: a power of two between channels would share few sets of L1."""
    return (-(-floats // WAYS) | 1) * WAYS


def shape_of(layer: Convolution, result: Lines, isa: Isa, blocks: Blocks) -> Shape:
    """Return a layer as numbers."""
    _, channels, depth, height, width = layer.weight.shape
    return Shape(blocks, result.size, (depth, height, width), layer.dilation, channels, isa.lanes)


def takes(layer: Convolution, source: Lines, result: Lines) -> bool:
    """Return whether template S computes a layer: pruned, stride 1, maps of whole lines, no pool behind it."""
    return layer.mask is not None and not layer.pool and layer.stride == (1, 1, 1) and source.line == result.line == LINE


def blocks_of(layer: Convolution, result: Lines, isa: Isa, filters: int, channels: int) -> Blocks:
    """Return knobs for blocks of that size: as many vectors as the registers hold, and bands as high as the scratch holds, all alike.

    Args:
        layer: The layer.
        result: Its output.
        isa: Instruction set.
        filters: gM.
        channels: gN.
    """
    vectors = max(1, (isa.registers - SPARE) // (filters + 1))

    def blocks(rows: int) -> Blocks:
        return Blocks(filters, channels, vectors, rows)

    height = result.size[1]
    most = max((rows for rows in range(1, height + 1) if shape_of(layer, result, isa, blocks(rows)).band <= BAND_FLOATS), default=1)
    return blocks(math.ceil(height / math.ceil(height / most)))
