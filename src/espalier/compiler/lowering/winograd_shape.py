"""How template W cuts a layer: blocks of filters, groups of tiles, and where each lies in a thread's scratch."""

import math
from dataclasses import dataclass

from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Lines
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.filters_loop import used_vectors
from espalier.compiler.lowering.winograd_transforms import KERNEL, TRANSFORMS, Transform

SCRATCH_FLOATS = 384 * 1024  # of transformed tiles that stay in L2 beside products and weights in passing
RESIDENT_BYTES = 1024 * 1024  # of weights that stay in L2 as well
FEW, MANY = 28, 56  # tiles that a thread takes at once: with resident weights, and with weights that each time come from further away
PAD = LINE  # floats between positions, whose distance would often be a power of two: they would share few sets of the L1 cache


@dataclass(frozen=True)
class Blocks:
    """Knobs of template W.

    Args:
        size: Pixels of a tile along H and W.
        vectors: Vectors of filters a block has.
        tiles: Tiles of a group, which one call of the entry loop takes.
        planes: Planes of the result that a group has.
        groups: Groups that a thread takes through all phases together.
    """

    size: int
    vectors: int
    tiles: int
    planes: int
    groups: int


@dataclass(frozen=True)
class Shape:
    """A layer and its blocks as numbers: what the C text is written from. Distances are in floats.

    Args:
        blocks: Knobs.
        size: D, H and W of the result.
        depth: Planes of the kernel.
        channels: Of the input.
        filters: Of the result.
        lanes: Of a vector.
    """

    blocks: Blocks
    size: tuple[int, int, int]
    depth: int
    channels: int
    filters: int
    lanes: int

    @property
    def transform(self) -> Transform:
        """Return F(m x m, 3x3)."""
        return TRANSFORMS[self.blocks.size]

    @property
    def grid(self) -> tuple[int, int]:
        """Return how many tiles cover H and W."""
        return -(-self.size[1] // self.blocks.size), -(-self.size[2] // self.blocks.size)

    @property
    def num_groups(self) -> int:
        """Return the groups of the layer."""
        return self.size[0] // self.blocks.planes * -(-math.prod(self.grid) // self.blocks.tiles)

    @property
    def lines(self) -> int:
        """Return the lines of the input's channels."""
        return -(-self.channels // LINE)

    @property
    def block_filters(self) -> int:
        """Return the filters of a block."""
        return self.blocks.vectors * self.lanes

    @property
    def used(self) -> list[int]:
        """Return how many vectors each block computes; all lines of the result are filled."""
        return list(used_vectors(-(-self.filters // LINE) * LINE, self.lanes, self.blocks.vectors))

    @property
    def tile_position(self) -> int:
        """Return the distance between positions of transformed tiles."""
        return self.lines * self.blocks.tiles * LINE + PAD

    @property
    def tile_plane(self) -> int:
        """Return the distance between their planes."""
        return self.transform.positions * self.tile_position

    @property
    def tile_group(self) -> int:
        """Return the distance between their groups."""
        return (self.blocks.planes + self.depth - 1) * self.tile_plane

    @property
    def product_position(self) -> int:
        """Return the distance between positions of products."""
        return self.blocks.groups * self.blocks.planes * self.blocks.tiles * self.block_filters + PAD

    @property
    def scratch(self) -> int:
        """Return the floats a thread needs."""
        return self.blocks.groups * self.tile_group + self.transform.positions * self.product_position

    @property
    def macs(self) -> int:
        """Return the multiply-adds of the products, tiles that fill a group included."""
        each = self.transform.positions * self.depth * self.channels * sum(self.used) * self.lanes
        return self.num_groups * self.blocks.planes * self.blocks.tiles * each

    @property
    def by_filters(self) -> bool:
        """Return whether threads share out filters: where all tiles fit one scratch, each would read all weights for a few tiles."""
        blocks = len(self.used)
        return 1 < blocks >= min(4, self.num_groups) and self.num_groups <= self.blocks.groups


def takes(layer: Convolution, source: Lines, result: Lines) -> bool:
    """Return whether template W computes a layer: dense, kernel 3x3 or Dx3x3, stride and dilation 1, a result of whole tiles."""
    _, _, depth, *kernel = layer.weight.shape
    return (
        layer.mask is None
        and not layer.pool
        and kernel == [KERNEL, KERNEL]
        and depth in (1, KERNEL)
        and layer.stride == layer.dilation == (1, 1, 1)
        and source.line == result.line == LINE
        and min(result.size[1:]) >= min(TRANSFORMS)
    )


def blocks_of(layer: Convolution, result: Lines, isa: Isa, size: int) -> Blocks:
    """Return knobs for tiles of that size: groups that waste least, and as many at once as the scratch holds.

    Args:
        layer: The layer.
        result: Its output.
        isa: Instruction set.
        size: Pixels of a tile along H and W.
    """
    depth_out, height, width = result.size
    filters, channels, depth = layer.weight.shape[:3]
    tiles = -(-height // size) * -(-width // size)
    vectors = 2 if filters > isa.lanes else 1
    most = isa.pixels(vectors)
    group = min(range(1, min(tiles, most) + 1), key=lambda count: (-(-tiles // count) * (count + 1.5), -count))
    plane = (size + KERNEL - 1) ** 2 * (-(-channels // LINE) * group * LINE + PAD)
    wanted = FEW if weight_bytes(layer, size) <= RESIDENT_BYTES else MANY

    def fits(planes: int, groups: int) -> bool:
        return groups * (planes + depth - 1) * plane <= SCRATCH_FLOATS and planes * groups * group <= wanted

    divisors = [planes for planes in range(1, depth_out + 1) if depth_out % planes == 0]
    planes = max((planes for planes in divisors if depth > 1 and fits(planes, 1)), default=1)
    num_groups = -(-tiles // group) * (depth_out // planes)
    return Blocks(size, vectors, group, planes, max((groups for groups in range(1, num_groups + 1) if fits(planes, groups)), default=1))


def weight_bytes(layer: Convolution, size: int) -> int:
    """Return the bytes of a layer's weights in the transform domain."""
    return 4 * TRANSFORMS[size].positions * math.prod(layer.weight.shape[:3])
