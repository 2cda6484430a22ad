"""Tiles of output pixels that a kernel keeps in registers: which shape, and where they lie.

Ragged edges are covered by moving the last tile back over the one before it: some pixels are computed twice, none needs a mask.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A tile of ``planes`` x ``rows`` x ``columns`` output pixels.

    Args:
        rows: Along H.
        columns: Along W.
        planes: Along D.
    """

    rows: int
    columns: int
    planes: int = 1

    def __str__(self) -> str:
        return "x".join(map(str, ((self.planes,) if self.planes > 1 else ()) + (self.rows, self.columns)))

    @property
    def pixels(self) -> int:
        """Return how many pixels it holds."""
        return self.planes * self.rows * self.columns

    def counts(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return how many tiles cover D, H and W."""
        depth, height, width = size
        return -(-depth // self.planes), -(-height // self.rows), -(-width // self.columns)

    def slots(self, size: tuple[int, int, int]) -> int:
        """Return how many pixels are computed, overlaps counted twice."""
        return math.prod(self.counts(size)) * self.pixels


def tiles_of(size: tuple[int, int, int], most_pixels: int, step: int = 1) -> Iterator[Tile]:
    """Yield every tile that the registers hold and the map covers; arguments as of ``best_tile``."""
    depth, height, width = size
    for rows in range(step, min(height, most_pixels // step) + 1, step):
        for columns in range(step, min(width, most_pixels // rows) + 1, step):
            for planes in range(1, min(depth, most_pixels // (rows * columns)) + 1):
                yield Tile(rows, columns, planes)


def tile_cost(tile: Tile, size: tuple[int, int, int], *, overhead: float, least: int = 1) -> float:
    """Return what covering a map costs, in pixels: those computed and what tiles cost beside them; arguments as of ``best_tile``."""
    return math.prod(tile.counts(size)) * (max(tile.pixels, least) + overhead)


def best_tile(
    size: tuple[int, int, int],
    most_pixels: int,
    *,
    overhead: float,
    least: int = 1,
    step: int = 1,
    share: Callable[[int], float] = lambda _: 1.0,
) -> Tile:
    """Return the tile that covers a map at least cost: computed pixels, and what a tile costs beside them.

    Ties go to fewer planes, then to the squarer.

    Args:
        size: D, H and W of the map.
        most_pixels: What the registers hold.
        overhead: Cost of a tile beside its pixels (loads of weights, the loop), in pixels.
        least: Pixels; a tile of fewer takes as long as one of that many.
        step: What rows and columns must be multiples of.
        share: Planes of a tile -> share of a layer's products that such tiles need.
    """

    def cost(tile: Tile) -> float:
        return share(tile.planes) * tile_cost(tile, size, overhead=overhead, least=least)

    return min(tiles_of(size, most_pixels, step), key=lambda tile: (cost(tile), tile.planes, abs(tile.rows - tile.columns)))
