"""Why template W is not faster, with figures counted by hand: 36 products a tile of 4x4 pixels, 16 a tile of 2x2."""

from dataclasses import replace

import pytest
from layers_told import CEILINGS, MACHINE, conv, layer, told, with_knobs
from torch import nn

from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.reasons import BEST_SHARE, expected_share
from espalier.compiler.reasons.winograd import larger_weights, overhang, transforms, unfilled_lines

STREAMING = replace(MACHINE, network_bytes=60 << 20, ceilings=CEILINGS)


@pytest.fixture(autouse=True)
def _costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Template W takes what it can, however it compares."""
    monkeypatch.setattr("espalier.compiler.lowering.winograd_rule.filters_cost", lambda *_: float("inf"))


def winograd(channels: int, filters: int, side: int, **knobs: int) -> tuple[Site, Kernel]:
    """Return a layer of square maps; knobs that are not given are the rule's."""
    found = layer(conv(channels, filters), channels, side, side)
    assert found[1].template == "W"
    return with_knobs(found, **knobs) if knobs else found


def test_multiply_adds_are_those_of_products() -> None:
    _, kernel = winograd(64, 64, 56, size=4, tiles=14, groups=2)
    assert kernel.macs == 196 * 36 * 64 * 64  # tiles, products, channels, filters
    assert 4 * kernel.macs == 9 * 56 * 56 * 64 * 64


def test_transforms_take_time() -> None:
    found = winograd(64, 64, 56, size=4, tiles=14, groups=2)
    own, lines = 196 * 36 * 64 * 64, 196 * 36 * (4 + 4)  # of 16 channels in, and of 16 filters out
    reason = transforms(*found, MACHINE)
    assert reason is not None
    assert reason.share == pytest.approx(own / (own + 150 * lines))
    assert "tiles of 4x4 need 4x fewer products; their transforms take 23% of the time" in told(found)
    assert "tiles of 2x2 need 2.25x fewer products" in told(winograd(64, 64, 56, size=2, tiles=14))


def test_threads_that_share_out_filters_each_transform_all_tiles() -> None:
    found = winograd(64, 128, 8, size=4, tiles=4, groups=1)  # 4 blocks of filters, 1 group
    shares = [transforms(*found, replace(MACHINE, num_threads=number)) for number in (1, 2)]
    costs = [1 / share.share - 1 for share in shares if share is not None]
    assert costs[1] / costs[0] == pytest.approx((2 * 4 + 8) / (4 + 8))  # lines in, once a thread, and out


def test_planes_are_transformed_with_those_beside_them() -> None:
    site, kernel = layer(nn.Conv3d(64, 64, 3, padding=1), 64, 4, 16, 16)
    assert kernel.template == "W"
    costs = []
    for planes in (1, 4):
        reason = transforms(*with_knobs((site, kernel), size=4, planes=planes, tiles=4, groups=1), MACHINE)
        assert reason is not None
        costs.append(1 / reason.share - 1)
    assert costs[0] / costs[1] == pytest.approx((4 * 3 + 4) / (4 * 6 / 4 + 4))  # 3 planes in for 1, 6 for 4


def test_weights_are_larger_and_stream() -> None:
    found = winograd(64, 64, 56, size=4, tiles=14, groups=2)
    reason = larger_weights(*found, STREAMING)
    assert reason is not None
    assert reason.text == "0.59 MB of weights from L3, 4x as many as untransformed, serve a map of 56x56"
    flop = 2 * 196 * 36 * 64 * 64
    assert reason.share == pytest.approx(flop / (flop + BEST_SHARE * 2 * 4 * 36 * 64 * 64 * 400 / 58))  # both threads read all, once
    assert "of weights" not in told(found)  # where a network's weights stay in L2
    small_l2 = larger_weights(*found, replace(STREAMING, l2_bytes=256 << 10))
    assert small_l2 is not None
    assert small_l2.share < reason.share  # where a layer's do not, they come anew for every second group


@pytest.mark.parametrize(
    ("channels", "filters", "side", "knobs", "text"),
    [
        (64, 64, 14, {"size": 4, "tiles": 8}, "groups of 8 tiles of 4x4 multiply for 1.31x the pixels of a map of 14x14"),  # 256 of 196
        (32, 64, 16, {"size": 4}, "sums of 32 products: beginning and storing them takes 6% of the time"),
        (64, 64, 8, {"size": 4, "tiles": 2}, "4 sums at a time, where two units with a latency of 4 cycles want 8"),
        (64, 64, 12, {"size": 4, "tiles": 3, "groups": 1}, "3 groups of tiles on 2 threads"),
        (64, 96, 8, {"size": 4, "tiles": 4, "groups": 1}, "3 blocks of filters on 2 threads"),
        (64, 64, 16, {"vectors": 1}, "blocks of 16x4 run at 0.85 of the speed of blocks of 32x4"),
        (64, 40, 16, {"size": 4}, "M=40 is computed as 48"),
    ],
)
def test_a_layer_tells_what_holds_it_back(channels: int, filters: int, side: int, knobs: dict[str, int], text: str) -> None:
    assert text in told(winograd(channels, filters, side, **knobs))


def test_a_layer_that_fits_tells_of_its_transforms_only() -> None:
    found = winograd(256, 256, 32, size=4, tiles=8, groups=4)
    reason = transforms(*found, MACHINE)
    assert reason is not None
    assert told(found) == reason.text
    assert expected_share(*found, MACHINE) == pytest.approx(BEST_SHARE * reason.share, rel=0.02)


def test_what_is_multiplied_for_nothing_counts_as_carried_out() -> None:
    for finder, found in ((overhang, winograd(64, 64, 14, size=4)), (unfilled_lines, winograd(64, 40, 16))):
        reason = finder(*found, MACHINE)
        assert reason is not None
        assert reason.wastes
        assert reason.share < 1
