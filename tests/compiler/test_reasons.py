"""Why a kernel is not faster: each reason is told for a layer that has it, with figures counted by hand, and for no other."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from espalier.compiler.compiling import lowered_model
from espalier.compiler.isas import ISAS
from espalier.compiler.lowering.filters_search import asdict, lower_choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.program import site_of
from espalier.compiler.reasons import BEST_SHARE, Machine, expected_share, reasons
from espalier.compiler.runtime.probing import Ceilings

AVX512 = ISAS["avx512"]  # the rules are data: no AVX-512 is needed to read them
CEILINGS = Ceilings("avx512", 2, 200.0, 400.0, 350.0, 58.0, 32.0, 300.0)
MACHINE = Machine(num_threads=2, l2_bytes=2 << 20, network_bytes=1 << 20)


@pytest.fixture(autouse=True)
def _filters_template_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense 3x3 layers are here for template F's sake."""
    monkeypatch.setattr("espalier.compiler.lowering.convolutions.winograd_blocks", lambda *_: None)


def layer(model: nn.Module, *shape: int) -> tuple[Site, Kernel]:
    """Return the first layer with weights, where it stands and its kernel by the rule."""
    made = lowered_model(model.eval(), torch.randn(1, *shape), isa=AVX512)
    number = next(number for number, step in enumerate(made.steps) if step.node.op in ("conv", "linear"))
    return site_of(made, number), made.steps[number].kernel


def with_knobs(found: tuple[Site, Kernel], **knobs: object) -> tuple[Site, Kernel]:
    site, kernel = found
    return site, lower_choice(site, {**asdict(kernel.choice), **knobs})  # type: ignore[call-overload]


def told(found: tuple[Site, Kernel], machine: Machine = MACHINE) -> str:
    return "; ".join(reason.text for reason in reasons(*found, machine))


def conv(channels: int, filters: int, kernel: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, kernel, padding=kernel // 2, **more)


def masked(layer: nn.Conv2d, block: tuple[int, int], share: float) -> nn.Conv2d:
    """Return the layer with that share of its blocks of filters x channels kept at each position, at least the first of each block row."""
    filters, channels = block
    rows, columns = layer.weight.shape[0] // filters, layer.weight.shape[1] // channels
    kept = torch.rand(rows, columns, *layer.weight.shape[2:], generator=torch.Generator().manual_seed(0)) < share
    kept[:, 0, 0, 0] = True
    layer.weight.data *= kept.repeat_interleave(filters, 0).repeat_interleave(channels, 1)
    return layer


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


@pytest.mark.parametrize(
    ("knobs", "text"),
    [
        ({"by_filters": False, "tile": {"rows": 7, "columns": 1}}, "7 tiles on 2 threads"),
        ({"by_filters": True}, "3 blocks of filters on 2 threads"),
    ],
)
def test_threads_have_unequal_shares(knobs: dict[str, object], text: str) -> None:
    assert text in told(with_knobs(layer(conv(64, 96), 64, 7, 7), **knobs))


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
