"""The rule that chooses template F's blocks on a CPU without AVX-512, and what each of its figures decides."""

from dataclasses import replace

import pytest
import torch

from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import lines, map_of
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.filters_rule import choose
from espalier.compiler.lowering.tiles import Tile

AVX2 = ISAS["avx2"]


def chosen(isa: Isa, layer: tuple[int, int, int, int], rate: float) -> tuple[int, int, Tile]:
    """Return vectors, gN and tile for a layer of (filters, channels, size of the map, size of the kernel) pruned in groups of 16x4."""
    filters, channels, size, side = layer
    kept = torch.rand(-(-filters // 16), -(-channels // 4), 1, side, side, generator=torch.Generator().manual_seed(0)) < 1 / rate
    mask = kept.repeat_interleave(16, 0).repeat_interleave(4, 1)[:filters, :channels]
    convolution = Convolution(mask.float(), mask, torch.zeros(filters), (1, 1, 1), (0, side // 2, side // 2), (1, 1, 1), None)
    found = choose(convolution, isa, (1, size, size), lines(map_of((1, channels, size, size))))
    return found.vectors, found.channels, found.tile


@pytest.mark.parametrize(
    ("layer", "rate", "wanted"),
    [
        ((64, 64, 56, 3), 1, (2, 4, Tile(2, 3))),
        ((64, 64, 56, 3), 4, (2, 4, Tile(2, 2))),
        ((64, 256, 56, 1), 6, (2, 4, Tile(2, 2))),
        ((256, 256, 14, 3), 6, (2, 4, Tile(2, 3))),
        ((256, 256, 14, 3), 16, (2, 4, Tile(2, 2))),
        ((512, 512, 7, 3), 6, (2, 4, Tile(1, 4))),
        ((512, 512, 2, 3), 8, (2, 4, Tile(2, 2))),
        ((8, 8, 7, 3), 1, (1, 4, Tile(2, 7))),
    ],
    ids=str,
)
def test_the_blocks_of_a_layer(layer: tuple[int, int, int, int], rate: float, wanted: tuple[int, int, Tile]) -> None:
    assert chosen(AVX2, layer, rate) == wanted


def test_what_a_tile_costs_beside_its_pixels_decides_its_size_where_blocks_are_small() -> None:
    layer, rate = (64, 64, 56, 3), 4
    assert chosen(replace(AVX2, near_overhead=AVX2.tile_overhead), layer, rate)[2] == Tile(2, 3)


def test_sums_that_keep_the_multipliers_busy_decide_the_tile_of_one_vector() -> None:
    assert chosen(replace(AVX2, chains=1), (8, 8, 7, 3), 1)[2] == Tile(1, 7)
