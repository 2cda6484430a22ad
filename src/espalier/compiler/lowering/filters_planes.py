"""Which planes of a 3-D kernel a tile needs: a plane that would read nothing but the border of its tile is left out (compiler spec, 4.6).

A map of few planes has much border: a kernel of three planes finds it a third of the time on two of them, a sixth on four. Rows and
columns are not left out, because a tile spans several.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from espalier.compiler.bcrc import Packed

if TYPE_CHECKING:
    from espalier.compiler.lowering.filters import Convolution


def reached_planes(layer: "Convolution", source_depth: int, depth: int, planes: int) -> list[tuple[int, int]]:
    """Return the first kernel plane, and the one behind the last, that reach the map, for each tile along D.

    Args:
        layer: The layer.
        source_depth: Planes of its input.
        depth: Planes that are computed.
        planes: Those of a tile.
    """
    taps, stride, padding, dilation = layer.weight.shape[2], layer.stride[0], layer.padding[0], layer.dilation[0]
    found = []
    for tile in range(-(-depth // planes)):
        first = min(tile * planes, depth - planes)
        last = first + planes - 1
        low = min(taps, max(0, -((last * stride - padding) // dilation)))
        high = max(low, min(taps, -((first * stride - padding - source_depth) // dilation)))
        found.append((low, high))
    return found


def share_reached(layer: "Convolution", source_depth: int, depth: int, planes: int) -> float:
    """Return the share of kernel planes that tiles need; arguments as of ``reached_planes``."""
    reached = reached_planes(layer, source_depth, depth, planes)
    return sum(high - low for low, high in reached) / (len(reached) * layer.weight.shape[2])


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


def macs_reached(packed: Packed, reached: list[tuple[int, int]], size: tuple[int, int, int], planes: int) -> int:
    """Return the multiply-adds over a map, those of planes left out not counted.

    Args:
        packed: Weights.
        reached: What ``reached_planes`` gave.
        size: D, H and W that are computed.
        planes: Those of a tile.
    """
    at = np.concatenate([[0], np.cumsum(np.bincount(packed.positions // math.prod(packed.shape[3:]), minlength=packed.shape[2]))])
    entries = sum(int(at[high] - at[low]) for low, high in (reached[plane // planes] for plane in range(size[0])))
    return entries * packed.group_channels * packed.block_filters * size[1] * size[2]
