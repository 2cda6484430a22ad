"""Why a kernel is not faster: each reason is told for a layer that has it, with figures counted by hand, and for no other."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from layers_told import CEILINGS, MACHINE, conv, layer, masked, told, with_knobs
from torch import Tensor, nn

from espalier.compiler import lowering
from espalier.compiler.reasons import BEST_SHARE, REASONS, expected_share, reasons


@pytest.fixture(autouse=True)
def _filters_template_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense 3x3 layers are here for template F's sake."""
    monkeypatch.setattr("espalier.compiler.lowering.convolutions.winograd_blocks", lambda *_: None)


GOOD = (conv(64, 64), 64, 14, 14)


def test_a_layer_that_suits_the_kernel_has_no_reason_and_the_best_share() -> None:
    found = layer(*GOOD)
    assert told(found) == ""
    assert expected_share(*found, MACHINE) == pytest.approx(BEST_SHARE, rel=0.02)


def test_other_blocks_would_be_faster() -> None:
    found = layer(masked(conv(64, 64), (16, 1), 0.4), 64, 14, 14)
    assert "blocks of 16x1 run at 0.69 of the speed of blocks of 32x4" in told(found)
    assert expected_share(*found, replace(MACHINE, num_threads=1)) == pytest.approx(0.69 * BEST_SHARE, rel=0.02)


def test_tiles_that_overlap_compute_pixels_twice() -> None:
    found = with_knobs(layer(conv(64, 64), 64, 9, 9), tile={"rows": 2, "columns": 7})
    assert "tiles of 2x7 compute 1.73x the pixels of a map of 9x9" in told(found)  # 5 x 2 tiles of 14 on 81


def test_few_sums_do_not_hide_the_latency() -> None:
    found = with_knobs(layer(*GOOD), vectors=1, tile={"rows": 2, "columns": 2})
    assert "4 sums at a time, where two units with a latency of 4 cycles want 8" in told(found)


def test_short_lists_leave_stores_to_weigh() -> None:
    found = layer(masked(conv(64, 64), (32, 4), 0.0), 64, 14, 14)
    assert "a block keeps 4 columns: beginning and storing its sums takes 33% of the time" in told(found)


def test_threads_have_unequal_shares() -> None:
    found = with_knobs(layer(conv(64, 96), 64, 7, 7), tile={"rows": 7, "columns": 1})
    assert "21 pieces, 3 blocks of filters on 7 tiles, on 2 threads" in told(found)


def test_weights_of_small_maps_stream() -> None:
    found = layer(conv(512, 512), 512, 2, 2)
    streaming = replace(MACHINE, network_bytes=60 << 20)
    assert "map 2x2: 9.4 MB of weights from L3 serve 4 pixels" in told(found, streaming)
    measured, guessed = (expected_share(*found, one) for one in (replace(streaming, ceilings=CEILINGS), streaming))
    assert measured is not None
    assert guessed is not None
    assert measured < guessed < BEST_SHARE  # this machine's L3 is slower than what is taken where nothing was measured


def test_thin_layers_are_bound_by_activations() -> None:
    found = layer(masked(conv(64, 64, 1), (32, 4), 0.1), 64, 112, 112)
    text = told(found)
    assert "bound by activations: " in text
    assert "FLOP for each byte through L3" in text


def test_a_small_layer_waits_for_its_threads() -> None:
    found = layer(conv(16, 32, 1), 16, 4, 4)
    assert "that the threads' meeting behind it (0.3 us) weighs" in told(found, replace(MACHINE, ceilings=CEILINGS))
    assert "meeting" not in told(found, replace(MACHINE, ceilings=CEILINGS, num_threads=1))


def test_an_activation_that_is_no_clamp_passes_again() -> None:
    text = told(layer(nn.Sequential(conv(64, 64), nn.SiLU()), 64, 14, 14))
    assert text in ("", "silu passes over each block again")  # where the template applies it in registers, there is nothing to tell


def test_filters_that_fill_no_vector_are_counted() -> None:
    assert "M=24 fills 1.5 of 2 vectors of 16" in told(layer(conv(64, 24), 64, 14, 14))


def test_zeros_that_blocks_store_are_counted() -> None:
    site, kernel = layer(masked(conv(64, 64), (1, 1), 0.5), 64, 14, 14)
    kept = int(site.graph.mask(site.node).count_nonzero())  # type: ignore[union-attr]
    assert f"hold {kernel.arrays['w'].size / kept:.2f}x the weights that the mask kept" in told((site, kernel))
    assert "the weights that its 8 groups kept" in told(layer(conv(64, 64, groups=8), 64, 14, 14))
    assert "kept" not in told(layer(masked(conv(64, 64), (32, 4), 0.5), 64, 14, 14))


def test_depthwise_kernels_are_bound_by_what_they_read() -> None:
    found = layer(conv(96, 96, groups=96), 96, 56, 56)
    assert "depthwise: bound by " in told(found)
    share = expected_share(*found, MACHINE)
    assert share is not None
    assert share <= BEST_SHARE / 2


class Rows(nn.Module):
    def __init__(self, filters: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, filters)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_one_row_reads_each_weight_once() -> None:
    assert "one row: each weight from L2 serves one multiply-add" in told(layer(Rows(64), 64))
    assert "one row" not in told(layer(Rows(64), 7, 64))


def test_reasons_come_worst_first_and_other_templates_have_none() -> None:
    found = reasons(*layer(masked(conv(64, 24), (1, 1), 0.3), 64, 9, 9), MACHINE)
    assert len(found) > 1
    assert [reason.share for reason in found] == sorted(reason.share for reason in found)
    site, kernel = layer(*GOOD)
    assert reasons(site, replace(kernel, template="unknown"), MACHINE) == []
    assert expected_share(site, replace(kernel, template="unknown"), MACHINE) is None


def test_every_template_that_multiplies_has_reasons() -> None:
    """A kernel's multiply-adds are the fourth field, so whatever lowering gives it has something that bounds it."""
    multiply = set()
    for path in Path(lowering.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Kernel":
                assert isinstance(call.args[0], ast.Constant), f"{path.name}:{call.lineno} names no template"
                if len(call.args) > 3 or "macs" in [keyword.arg for keyword in call.keywords]:
                    multiply.add(call.args[0].value)
    assert {"F", "DW", "V"} < multiply
    assert multiply == set(REASONS)


@pytest.mark.parametrize(
    ("found", "zeros"),
    [((conv(64, 64), 64, 2, 2), "2x2: 56%"), ((conv(64, 64, stride=2), 64, 2, 2), "1x1: 56%"), ((conv(64, 64), 64, 8, 8), "8x8: 16%")],
)
def test_zeros_of_the_border_are_multiplied_on_small_maps(found: tuple[nn.Module, int, int, int], zeros: str) -> None:
    assert f"a map of {zeros} of the products are with the border's zeros" in told(layer(*found))


def test_planes_of_the_border_that_no_tile_needs_are_not_told_of() -> None:
    found = layer(nn.Conv3d(64, 64, 3, padding=1), 64, 2, 4, 4)
    apart, together = (with_knobs(found, tile={"planes": planes, "rows": 1, "columns": 4}) for planes in (1, 2))
    assert "a map of 2x4x4: 31% of the products" in told(apart)
    assert "a map of 2x4x4: 54% of the products" in told(together)
    assert apart[1].macs * 3 == together[1].macs * 2


def test_a_map_of_one_plane_takes_what_the_layer_of_that_plane_does() -> None:
    deep = layer(nn.Conv3d(512, 512, 3, padding=1), 512, 1, 4, 4)
    flat = layer(conv(512, 512), 512, 4, 4)
    machine = replace(MACHINE, network_bytes=60 << 20, ceilings=CEILINGS)
    assert deep[1].macs == flat[1].macs
    assert deep[1].arrays["w"].nbytes == flat[1].arrays["w"].nbytes
    assert expected_share(*deep, machine) == pytest.approx(expected_share(*flat, machine))
    assert told(deep, machine) == told(flat, machine)


def test_the_border_costs_large_maps_and_centred_kernels_nothing() -> None:
    centred = conv(64, 64)
    centred.weight.data *= torch.nn.functional.pad(torch.ones(1, 1), (1, 1, 1, 1))
    for found in (layer(conv(64, 64), 64, 14, 14), layer(centred, 64, 2, 2), layer(conv(64, 64, 1), 64, 2, 2)):
        assert "border" not in told(found)


def test_each_thread_reads_only_the_filters_it_computes() -> None:
    site, kernel = layer(conv(512, 512), 512, 2, 2)
    machine = replace(MACHINE, network_bytes=60 << 20, ceilings=CEILINGS)
    own, all_of_them = (expected_share(*with_knobs((site, kernel), by_filters=split), machine) for split in (True, False))
    assert own is not None
    assert all_of_them is not None
    assert own > 1.5 * all_of_them


def test_data_comes_from_where_it_fits() -> None:
    assert [MACHINE.level(megabytes << 20) for megabytes in (4, 5, 80, 81)] == ["L2", "L3", "L3", "DRAM"]
    measured = replace(MACHINE, ceilings=CEILINGS)
    assert measured.flop(1e6, "DRAM") == pytest.approx(1e6 * 400 / 32)
    assert MACHINE.flop(1e6, "L2") < MACHINE.flop(1e6, "L3") < MACHINE.flop(1e6, "DRAM")
