"""Which blocks template F computes a layer in: the knobs, and the rule that chooses them without a search."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espalier.compiler.bcrc import Packed, needed_entries
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Lines
from espalier.compiler.lowering.filters_planes import planes_of
from espalier.compiler.lowering.tiles import Tile, best_tile

if TYPE_CHECKING:
    from espalier.compiler.lowering.filters import Convolution

RESIDENT_BYTES = 384 * 1024  # of weights that stay in L2 beside the tile's input
FEW_BYTES = 16 * 1024  # of a block's weights, up to which ``Isa.near_overhead`` holds
OUTWEIGHING = 8  # bytes of weights for a byte of the map from which threads share out filters
CHANNELS = (4, 3, 2, 1)  # gN
WEIGHT_LOADS = 1.5  # cost of a tile of one vector beside its pixels, in pixels: blocks are compared by it


@dataclass(frozen=True)
class Choice:
    """The blocks of a layer: knobs of template F.

    Args:
        vectors: Vectors of filters a block has.
        channels: gN.
        tile: Pixels a call computes.
        by_filters: Whether threads share out filters, not pixels; None asks ``split_by_filters``.
        resident_bytes: Weights of a portion of blocks, which passes over all tiles before the next one does.
    """

    vectors: int
    channels: int
    tile: Tile
    by_filters: bool | None = None
    resident_bytes: int = RESIDENT_BYTES


def choose(layer: "Convolution", isa: Isa, size: tuple[int, int, int], source: Lines) -> Choice:
    """Return the blocks that should be fastest: fewest multiplications, stored zeros included, over the speed of such blocks.

    Weights that do not stay in L2 come from L3 with the first tile, which takes no less time than they do.

    Args:
        layer: The layer.
        isa: Instruction set.
        size: D, H, W that are computed, before any pool.
        source: The input.
    """

    def share(planes: int) -> float:
        return planes_of(layer, source.size[0], size[0], planes).share

    shape = tuple(layer.weight.shape)
    best: tuple[float, Choice] | None = None
    for vectors, channels in block_shapes(layer, isa, source.line):
        needed = needed_entries(shape, layer.mask, block_filters=vectors * isa.lanes, group_channels=channels)
        entries, least = int(needed.sum()), isa.least_pixels(vectors)
        near = entries / len(needed) * channels * vectors * isa.lanes * 4 <= FEW_BYTES
        overhead = vectors * (isa.near_overhead if near else isa.tile_overhead)
        tile = best_tile(size, isa.pixels(vectors), overhead=overhead, least=least, step=layer.side, share=share)
        a_tile = (max(tile.pixels, least) + WEIGHT_LOADS / vectors) / isa.efficiency[vectors, channels]
        loads = entries * channels * vectors * share(tile.planes)
        first = max(a_tile, isa.streamed) if loads * isa.lanes * 4 > RESIDENT_BYTES else a_tile
        cost = loads * (a_tile * (tile.slots(size) // tile.pixels - 1) + first)
        if best is None or cost < best[0]:
            best = cost, Choice(vectors, channels, tile)
    assert best is not None
    return best[1]


def block_shapes(layer: "Convolution", isa: Isa, line: int) -> list[tuple[int, int]]:
    """Return the vectors of filters and the gN that blocks of a layer may have, which reads lines of ``line`` channels."""
    filters, channels = layer.weight.shape[:2]
    vectors = [number for number in isa.vectors if (number - 1) * isa.lanes < filters]
    groups = [n for n in CHANNELS if channels % n == 0 and ((n == 3) == (channels == 3)) and (n == 3 or line % n == 0)]
    return [(number, group) for number in vectors for group in groups]


def split_by_filters(packed: Packed, source: Lines, size: tuple[int, int, int], tile: Tile) -> bool:
    """Return whether threads share out filters, not pixels: where tiles are few, and where weights that leave L2 outweigh the map by far.

    A thread that computes the same rows in every layer reads what it wrote; split filters make it fetch the other threads' half, from their
    L2, more slowly than weights from L3, which come in order.
    """
    map_bytes = 4 * source.channels * math.prod(size)
    outweigh = packed.weights.nbytes > max(RESIDENT_BYTES, OUTWEIGHING * map_bytes)
    return packed.num_blocks > 1 and (outweigh or tile.slots(size) // tile.pixels < 4)
