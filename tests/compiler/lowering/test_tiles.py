"""Tiles of pixels: which shape covers a map at least cost."""

import itertools
import math

import pytest

from espalier.compiler.lowering.tiles import Tile, best_tile


@pytest.mark.parametrize(
    ("size", "most", "step", "wanted"),
    [
        ((1, 56, 56), 14, 1, Tile(2, 7)),
        ((1, 8, 8), 14, 1, Tile(2, 4)),
        ((1, 4, 4), 28, 1, Tile(4, 4)),
        ((4, 14, 14), 14, 1, Tile(2, 7)),  # one plane where that wastes nothing
        ((2, 7, 7), 14, 1, Tile(1, 7, planes=2)),  # 7 rows would be 8 in tiles of 2x7
        ((1, 112, 112), 14, 2, Tile(2, 6)),
        ((1, 1, 1), 28, 1, Tile(1, 1)),
    ],
    ids=str,
)
def test_the_cheapest_tile(size: tuple[int, int, int], most: int, step: int, wanted: Tile) -> None:
    assert best_tile(size, most, overhead=1.2, step=step) == wanted


def test_a_tile_of_few_pixels_takes_as_long_as_the_least() -> None:
    size = (1, 7, 7)
    assert best_tile(size, 6, overhead=0.2) == Tile(1, 1)  # no pixel twice
    assert best_tile(size, 6, overhead=0.2, least=4) == Tile(1, 4)  # 49 of 56


@pytest.mark.parametrize("size", [(1, 5, 9), (3, 7, 7), (2, 1, 17)], ids=str)
def test_no_other_tile_costs_less(size: tuple[int, int, int]) -> None:
    def cost(tile: Tile) -> float:
        return math.prod(tile.counts(size)) * (tile.pixels + 1.2)

    every = [Tile(r, c, p) for p, r, c in itertools.product(*(range(1, length + 1) for length in size)) if p * r * c <= 14]
    assert cost(best_tile(size, 14, overhead=1.2)) == min(map(cost, every))
    assert all(count * length >= whole for count, length, whole in zip(Tile(2, 7, 2).counts((3, 7, 7)), (2, 2, 7), (3, 7, 7), strict=True))
