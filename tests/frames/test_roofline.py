"""Where layers lie under a roof, by hand."""

import pytest
import torch
from torch import nn

from espalier.frames.roofline import Roof, place, placed

ROOF = Roof(peak_gflops=200.0, bandwidth_gb_s=20.0)  # 10 FLOP a byte at the ridge


def test_arithmetic_binds_above_the_ridge() -> None:
    found = place(10**9, 10**8, ROOF)
    assert (found.flop_a_byte, found.gflops, found.bound) == (20.0, 200.0, "compute")
    assert found.least_ms == pytest.approx(10.0)  # 2 GFLOP at 200 GFLOP/s


def test_memory_binds_below_it() -> None:
    found = place(10**9, 10**9, ROOF)
    assert (found.flop_a_byte, found.gflops, found.bound) == (2.0, 40.0, "memory")
    assert found.least_ms == pytest.approx(50.0)  # 1 GB at 20 GB/s


def test_on_the_ridge_both_bind_and_arithmetic_is_named() -> None:
    assert place(10**9, 2 * 10**8, ROOF).bound == "compute"


def test_layers_of_a_network_move_weights_that_are_left_inputs_and_outputs() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 3))
    with torch.no_grad():
        model[0].weight[2:] = 0.0
    found = placed(model.eval(), torch.ones(1, 2, 5, 5), ROOF)
    assert found.keys() == {"0", "3"}
    assert (found["0"].macs, found["0"].num_bytes) == (2 * 2 * 9 * 25, 4 * (2 * 2 * 9 + 2 * 25 + 4 * 25))
    assert (found["3"].macs, found["3"].num_bytes) == (300, 4 * (300 + 3 + 100 + 3))
    assert not model[0]._forward_hooks


def test_a_layer_without_work_and_a_roof_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"macs=0, num_bytes=8: .*leave it out"):
        place(0, 8, ROOF)
    with pytest.raises(ValueError, match=r"bandwidth_gb_s=0.0.*above 0"):
        Roof(200.0, 0.0)
