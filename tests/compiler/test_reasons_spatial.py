"""Why template S is not faster, with figures counted by hand: bands of rows as wide as the map and its padding."""

from dataclasses import asdict, replace

import pytest
from layers_told import AVX512, CEILINGS, MACHINE, conv, layer, masked, told

from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.spatial_search import lower_bands
from espalier.compiler.lowering.spatial_shape import Blocks, Shape
from espalier.compiler.reasons import BEST_SHARE, expected_share
from espalier.compiler.reasons.spatial import bands, copies, loads, row_ends, weights_again

EIGHT, FOUR = Blocks(8, 4, 3, 28), Blocks(4, 4, 6, 28)


def spatial(side: int, blocks: Blocks = EIGHT, *, share: float = 0.25, channels: int = 64) -> tuple[Site, Kernel]:
    """Return a pruned layer of square maps; blocks keep that share of their groups of channels."""
    site, _ = layer(masked(conv(channels, 64), (blocks.filters, blocks.channels), share), channels, side, side)
    return site, lower_bands(site, asdict(replace(blocks, rows=min(side, blocks.rows))))


def test_few_filters_share_a_load() -> None:
    assert "a vector of pixels is loaded for 8 filters: 0.95 of the speed of template F's best blocks" in told(spatial(28))
    assert "a vector of pixels is loaded for 4 filters: 0.70 of the speed" in told(spatial(28, FOUR))
    pairs = loads(*spatial(28, replace(EIGHT, channels=2)), MACHINE)
    assert pairs is not None
    assert pairs.share == pytest.approx(0.95 * AVX512.efficiency[2, 2])


@pytest.mark.parametrize(
    ("side", "times"),
    [(56, 2 * 102 * 16 / 56**2), (8, 2 * 3 * 16 / 64)],  # a thread's 28 rows of 58 pixels less 2 are 102 vectors; 4 rows of 10 are 3
)
def test_pixels_between_rows_are_computed(side: int, times: float) -> None:
    found = spatial(side)
    reason = row_ends(*found, MACHINE)
    assert reason is not None
    assert reason.share == pytest.approx(1 / times)
    assert f"vectors of 16 over rows of {side + 2} compute {times:.2f}x the pixels of a map of {side}x{side}" in told(found)


def test_copies_take_time() -> None:
    site, kernel = spatial(56)
    reason = copies(site, kernel, MACHINE)
    assert reason is not None
    own = kernel.macs * 2 * 102 * 16 / 56**2 / 0.95
    turned = 2 * 64 * 30 * 58 + 64 * 56 * 56  # two bands of 28 rows and 2 that their pixels see, and the result
    assert reason.share == pytest.approx(own / (own + 40 * turned))
    assert f"turning the map to planes of pixels and its result back takes {1 - reason.share:.0%} of the time" in told((site, kernel))


def test_short_lists_and_uneven_rows() -> None:
    assert "a block keeps 4 columns: beginning and storing its sums takes 33% of the time" in told(spatial(28, share=0.0))
    assert "9 rows on 2 threads" in told(spatial(9))
    assert "rows on" not in told(spatial(28))


def test_every_band_reads_all_weights() -> None:
    site, kernel = spatial(28, replace(EIGHT, rows=7))
    machine = replace(MACHINE, network_bytes=60 << 20, ceilings=replace(CEILINGS, l3_gb_s=1.0))
    reason = weights_again(site, kernel, machine)
    assert reason is not None
    assert reason.share == pytest.approx(2 * kernel.macs / BEST_SHARE / (4 * kernel.arrays["w"].nbytes * 400))
    assert "4 bands of 7 rows each read 0.0" in reason.text
    assert "bands" not in told((site, kernel))


def test_bands_end_with_planes_and_with_a_thread_s_share() -> None:
    shape = Shape(Blocks(8, 4, 3, 3), (2, 5, 9), (1, 3, 3), (1, 1, 1), 64, 16)
    assert bands(shape, 1) == [3, 2, 3, 2]
    assert bands(shape, 3) == [3, 1, 1, 2, 3]


def test_small_maps_multiply_their_border() -> None:
    assert "a map of 8x8: " in told(spatial(8, share=0.9))


def test_the_expected_share_is_the_product() -> None:
    found = spatial(56)
    share = 1.0
    for finder in (loads, row_ends, copies):
        reason = finder(*found, MACHINE)
        assert reason is not None
        share *= reason.share
    assert expected_share(*found, MACHINE) == pytest.approx(BEST_SHARE * share, rel=0.03)
