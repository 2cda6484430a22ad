"""Why a product of two activations is not faster, with figures counted by hand."""

from dataclasses import replace

import pytest
from layers_told import CEILINGS, MACHINE, layer, told
from torch import Tensor, nn

from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.reasons import BEST_SHARE, expected_share


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.transpose(-2, -1)


def square(*shape: int) -> tuple[Site, Kernel]:
    return layer(Square(), *shape, ops=("matmul",))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((3, 197, 64), "vectors of 16 compute 1.06x the 197 columns"),  # 13 vectors
        ((96, 8), "sums of 8 products: beginning and storing them takes 20% of the time"),
        ((16, 64), "a tile of 8 rows by 1 vectors loads 9 times for 8 multiply-adds"),
        ((1, 64), "1 sums at a time, where two units with a latency of 4 cycles want 8"),
        ((1, 64), "1 rows of tiles on 2 threads"),
    ],
)
def test_a_product_tells_what_holds_it_back(shape: tuple[int, ...], text: str) -> None:
    assert text in told(square(*shape))


def test_a_product_that_suits_its_tiles_reaches_the_best_share() -> None:
    found = square(192, 256)
    assert told(found) == ""
    assert expected_share(*found, MACHINE) == pytest.approx(BEST_SHARE, rel=0.02)


def test_a_small_product_waits_for_its_threads() -> None:
    assert "meeting behind it" in told(square(16, 16), replace(MACHINE, ceilings=CEILINGS))
