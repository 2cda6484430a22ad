"""Which planes of a 3-D kernel are needed: one that would read nothing but the border is left out (compiler spec, 4.6).

A map of few planes has much border: a kernel of three planes finds it a third of the time on two of them, a sixth on four. Planes that
reach no map at all leave the layer; of the others each tile of template F takes those that it needs. Rows and columns are not left out,
because a tile spans several.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from espalier.compiler.bcrc import Packed

if TYPE_CHECKING:
    from espalier.compiler.lowering.filters import Convolution


@dataclass(frozen=True)
class Planes:
    """The kernel planes that tiles need.

    Args:
        taps: Planes of the kernel.
        reached: The first one that reaches the map, and the one behind the last, for each tile along D.
        depth: Planes that are computed.
        tile: Those of a tile.
    """

    taps: int
    reached: tuple[tuple[int, int], ...]
    depth: int
    tile: int

    @property
    def skipped(self) -> bool:
        """Return whether some tile leaves a plane out."""
        return any(planes != (0, self.taps) for planes in self.reached)

    @property
    def share(self) -> float:
        """Return the share of a layer's products that tiles take, computed planes that overlap counted as often as they are."""
        return sum(high - low for low, high in self.reached) / (len(self.reached) * self.taps)

    @cached_property
    def met(self) -> np.ndarray:
        """Return whether each computed plane takes each plane of the kernel, ``(depth, taps)`` bool; overlaps count once."""
        low, high = np.array(self.reached)[np.arange(self.depth) // self.tile].T
        taps = np.arange(self.taps)
        found: np.ndarray = (low[:, None] <= taps) & (taps < high[:, None])
        return found


def planes_of(layer: "Convolution", source_depth: int, depth: int, tile: int) -> Planes:
    """Return the kernel planes that tiles of a layer need.

    Args:
        layer: The layer.
        source_depth: Planes of its input.
        depth: Planes that are computed.
        tile: Those of a tile.
    """
    taps, stride, padding, dilation = layer.weight.shape[2], layer.stride[0], layer.padding[0], layer.dilation[0]
    reached = []
    for number in range(-(-depth // tile)):
        first = min(number * tile, depth - tile)
        last = first + tile - 1
        low = min(taps, max(0, -((last * stride - padding) // dilation)))
        high = max(low, min(taps, -((first * stride - padding - source_depth) // dilation)))
        reached.append((low, high))
    return Planes(taps, tuple(reached), depth, tile)


def without_idle_planes(layer: "Convolution", source_depth: int, depth: int) -> "Convolution":
    """Return a layer without the outer kernel planes that read the border wherever they are; arguments as of ``planes_of``."""
    reached = [(low, high) for low, high in planes_of(layer, source_depth, depth, 1).reached if low < high]
    if not reached:
        return layer
    low = min(*(low for low, _ in reached), layer.padding[0] // layer.dilation[0])  # the padding stays at 0 or above
    kept = slice(low, max(high for _, high in reached))
    return replace(
        layer,
        weight=layer.weight[:, :, kept],
        mask=None if layer.mask is None else layer.mask[:, :, kept],
        padding=(layer.padding[0] - low * layer.dilation[0], *layer.padding[1:]),
    )


def cuts(packed: Packed) -> np.ndarray:
    """Return where each kernel plane's entries begin in each block, and where they end, ``(P, planes + 1)`` int32.

    Args:
        packed: Entries in the order of their planes.
    """
    planes, positions = packed.shape[2], math.prod(packed.shape[3:])
    blocks = np.repeat(np.arange(packed.num_blocks), np.diff(packed.start))
    keys = blocks * planes + packed.positions // positions  # ascending, as the entries are
    bounds = np.arange(packed.num_blocks)[:, None] * planes + np.arange(planes + 1)
    return np.searchsorted(keys, bounds).astype(np.int32)


def macs_taken(packed: Packed, planes: Planes, pixels: int) -> int:
    """Return the multiply-adds over a map, those of planes left out not counted.

    Args:
        packed: Weights.
        planes: What tiles need of them.
        pixels: Of a plane that is computed.
    """
    entries = np.bincount(packed.positions // math.prod(packed.shape[3:]), minlength=planes.taps)
    return int((planes.met * entries).sum()) * packed.group_channels * packed.block_filters * pixels
