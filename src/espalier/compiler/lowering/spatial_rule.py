"""Which layers template S computes, and with which blocks: those for which its cost is well below that of template F.

Costs are in multiply-adds of template F's best blocks. F wastes them where vectors of filters keep the union of what smaller blocks keep; S
on copies of the map, and on columns between rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from espalier.compiler.bcrc import needed_entries
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Lines
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.filters_planes import planes_of
from espalier.compiler.lowering.filters_rule import choose
from espalier.compiler.lowering.spatial_shape import GROUP_CHANNELS, Blocks, blocks_of, shape_of, takes

ENTRY_SPEED = {4: 1.0, 3: 1.0, 2: 0.89, 1: 0.81}  # channels of an entry -> speed relative to the best (compiler spec, 2 and 8.2)
LEAST_ROWS = 8  # of all planes together, below which threads have too few to share out


@dataclass(frozen=True)
class Costs:
    """What an instruction set takes for template S.

    Args:
        speed: gM -> how fast blocks of so many filters are, relative to F's best.
        copied: Multiply-adds in the time that a number of the map takes to be turned, in or out.
        margin: How much cheaper than F a layer must be.
    """

    speed: Mapping[int, float]
    copied: float
    margin: float


# Fitted to 3x3 layers of 64 to 128 and 256 to 256 filters on maps from 14x14 to 56x56, pruned 4 and 8 times in groups of gM x 4, with 2
# threads of a Xeon that has 2 MB of L2 a core. S took 0.63 to 0.98 of F's time where gM is 8, and 0.48 to 0.88 where it is 4; the costs are
# within two fifths of that ratio. Unstructured masks, pruned 4 to 16 times, take gM=4 and gN=1: 0.50 to 0.99 on two layers, which no
# constant was fitted to. Where a vector is no longer than a block, F has such blocks itself.
COSTS: Mapping[str, Costs] = {
    "avx512": Costs(speed={8: 0.95, 4: 0.55}, copied=40, margin=1.1),
    "avx2": Costs(speed={4: 0.8}, copied=25, margin=1.1),
}


def candidates(layer: Convolution, source: Lines, result: Lines, isa: Isa) -> dict[Blocks, float]:
    """Return the blocks that template S has for a layer and what they cost; none where S does not compute it."""
    if isa.name not in COSTS or not takes(layer, source, result):
        return {}
    found = [blocks_of(layer, result, isa, filters, channels) for filters in COSTS[isa.name].speed for channels in GROUP_CHANNELS]
    return {blocks: spatial_cost(layer, result, isa, blocks) for blocks in found}


def spatial_blocks(layer: Convolution, source: Lines, result: Lines, isa: Isa) -> Blocks | None:
    """Return knobs of template S where it is faster than F; None where F is, or S does not compute such a layer.

    Args:
        layer: The layer.
        source: Its input.
        result: Its output.
        isa: Instruction set.
    """
    costs = candidates(layer, source, result, isa)
    if not costs or math.prod(result.size[:2]) < LEAST_ROWS:
        return None
    best = min(costs, key=lambda blocks: costs[blocks])
    return best if COSTS[isa.name].margin * costs[best] < filters_cost(layer, source, result, isa) else None


def spatial_cost(layer: Convolution, result: Lines, isa: Isa, blocks: Blocks) -> float:
    """Return the cost of template S; arguments as of ``spatial_blocks``."""
    costs, shape = COSTS[isa.name], shape_of(layer, result, isa, blocks)
    speed = costs.speed[blocks.filters] * ENTRY_SPEED[blocks.channels]
    all_rows = math.prod(result.size[:2])
    pixels = shape.computed(blocks.rows) * isa.lanes / blocks.rows * all_rows
    macs = pixels * _kept(layer, blocks.filters, blocks.channels) * blocks.filters * blocks.channels
    read = shape.lines * LINE * shape.kernel[0] * shape.width * (1 + shape.reach[1] / blocks.rows)
    written = -(-result.channels // LINE) * LINE * result.size[2]
    return macs / speed + costs.copied * all_rows * (read + written)


def filters_cost(layer: Convolution, source: Lines, result: Lines, isa: Isa) -> float:
    """Return the cost of template F; arguments as of ``spatial_blocks``."""
    choice = choose(layer, isa, result.size, source)
    filters = choice.vectors * isa.lanes
    share = planes_of(layer, source.size[0], result.size[0], choice.tile.planes).share
    macs = share * choice.tile.slots(result.size) * _kept(layer, filters, choice.channels) * filters * choice.channels
    return macs * max(isa.efficiency.values()) / isa.efficiency[choice.vectors, choice.channels]


def _kept(layer: Convolution, filters: int, channels: int) -> int:
    """Return the entries of all blocks of that size."""
    return int(needed_entries(tuple(layer.weight.shape), layer.mask, block_filters=filters, group_channels=channels).sum())
