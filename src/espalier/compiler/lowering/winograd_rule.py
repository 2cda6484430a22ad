"""Which layers template W computes, and with which tiles: those for which its cost is well below that of template F.

Costs are in multiply-adds of the entry loop that both templates share. What else takes time is counted in them: the transforms, and weights
too large for L2, of which W has (m + 2)^2 / 9 times as many.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Lines
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.filters_planes import planes_of
from espalier.compiler.lowering.filters_rule import Choice, choose
from espalier.compiler.lowering.winograd_shape import Blocks, Shape, blocks_of, takes, weight_bytes
from espalier.compiler.lowering.winograd_transforms import TRANSFORMS

LEAST = 32  # channels and filters, below which nothing was measured: the entry loop becomes short, the transforms weigh more


@dataclass(frozen=True)
class Costs:
    """What time an instruction set needs, in multiply-adds of the entry loop.

    Args:
        transform: For a line of channels at one position of the transform domain, in or out.
        near: For a byte of weights from L3.
        far: For one from memory.
        margin: How much cheaper than F a layer must be.
        l2_bytes: Of weights that the machine they are fitted to, two cores, holds in its second caches.
        l3_bytes: Of weights that it, shared with others, keeps in its third.
    """

    transform: float
    near: float
    far: float
    margin: float
    l2_bytes: int = 3 << 20
    l3_bytes: int = 64 << 20


# avx512 is fitted to 2-D layers of 64 to 512 channels on maps from 4x4 to 56x56 and to C3D's, with 2 threads of a Xeon that has 2 MB of L2
# a core. The other sets multiply 2 and 8 times more slowly there, while bytes take as long; some 2-D layers of each were timed. Caches are
# that machine's, whatever compiles and with however many threads, so that a network gives the same C everywhere; tuning asks the machine.
COSTS: Mapping[str, Costs] = {
    "avx512": Costs(transform=150, near=2.2, far=5.6, margin=1.15),
    "avx2": Costs(transform=150, near=1.1, far=2.8, margin=1.15),
    "generic": Costs(transform=150, near=0.3, far=0.7, margin=1.15),
}


def winograd_blocks(layer: Convolution, source: Lines, result: Lines, isa: Isa) -> Blocks | None:
    """Return knobs of template W where it is faster than F; None where F is, or W does not compute such a layer."""
    if not isa.winograd or not takes(layer, source, result) or min(layer.weight.shape[:2]) < LEAST:
        return None
    sizes = [size for size in TRANSFORMS if size <= min(result.size[1:])]
    found = [blocks_of(layer, result, isa, size) for size in sizes]
    best = min(found, key=lambda blocks: winograd_cost(layer, result, isa, blocks))
    filters = filters_cost(layer, source, result, isa, choose(layer, isa, result.size, source))
    return best if COSTS[isa.name].margin * winograd_cost(layer, result, isa, best) < filters else None


def winograd_cost(layer: Convolution, result: Lines, isa: Isa, blocks: Blocks) -> float:
    """Return the cost of template W; arguments as of ``winograd_blocks``."""
    costs = COSTS[isa.name]
    filters, channels, depth = layer.weight.shape[:3]
    shape = Shape(blocks, result.size, depth, channels, filters, isa.lanes)
    copies = (blocks.planes + depth - 1) / blocks.planes
    lines = shape.lines * copies + -(-filters // LINE)
    transforms = math.prod(shape.grid) * result.size[0] * lines * shape.transform.positions * costs.transform
    passes = max(1.0, shape.num_groups / blocks.groups)
    return shape.macs + transforms + _streamed(weight_bytes(layer, blocks.size), passes, costs)


def filters_cost(layer: Convolution, source: Lines, result: Lines, isa: Isa, choice: Choice) -> float:
    """Return the cost of template F; arguments as of ``winograd_blocks``."""
    filters = -(-layer.weight.shape[0] // isa.lanes) * isa.lanes
    share = planes_of(layer, source.size[0], result.size[0], choice.tile.planes).share
    macs = share * choice.tile.slots(result.size) * filters * math.prod(layer.weight.shape[1:])
    alone = math.prod(choice.tile.counts(result.size)) == 1  # such blocks are chosen for their one pass over weights, not for their speed
    slower = 1.0 if alone else max(isa.efficiency.values()) / isa.efficiency[choice.vectors, choice.channels]
    return macs * slower + _streamed(4 * layer.weight.numel(), 1, COSTS[isa.name])


def _streamed(weights: int, passes: float, costs: Costs) -> float:
    return passes * weights * (0.0 if weights <= costs.l2_bytes else costs.near if weights <= costs.l3_bytes else costs.far)
