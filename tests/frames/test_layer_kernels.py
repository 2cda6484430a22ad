"""Kernels alone, against PyTorch: rows by panels and template F on random masks, ragged shapes, empty rows and blocks."""

import itertools

import pytest
import torch
from torch import Tensor

from espalier.compiler.isas import ISAS, Isa
from espalier.constraints import BlockRowsColumns, Target
from espalier.devices import cpu
from espalier.frames.layer_kernels import Layer, _fastest, by_filters, by_panels, by_vector, choices, drawn, errors_of, rule, timed
from espalier.frames.panels import Panel, loads
from espalier.storage import encode_bcrc

A = Target("a.weight")
RUNNABLE = [isa for isa in ISAS.values() if set(isa.flags) <= set(cpu().flags)]
PANELS = (Panel(1, 1), Panel(1, 4), Panel(3, 2), Panel(4, 2, pixels_outer=True))


def layer(shape: tuple[int, ...]) -> Layer:
    return drawn(shape, torch.Generator().manual_seed(0))


def mask_of(weight: Tensor, blocks: tuple[int, int], rate: float = 4.0) -> Tensor:
    mask = BlockRowsColumns(rate, blocks, columns=2.0).freeze({A: weight}).masks[A]
    mask[1] = False  # an empty row
    mask[:, 1] = False  # empty blocks
    return mask


@pytest.mark.parametrize("isa", RUNNABLE, ids=lambda isa: isa.name)
def test_kernels_equal_pytorch(isa: Isa) -> None:
    cases = []
    for shape, blocks in itertools.product([(20, 8, 3, 7), (5, 3, 1, 4), (33, 12, 5, 6)], [(4, 16), (3, 5), (1, 1)]):
        made = layer(shape)
        pruned = made.pruned(mask_of(made.weight, blocks))
        cases += [by_panels(pruned, isa, panel, grouped=grouped) for panel in PANELS for grouped in (True, False)]
        cases += [by_filters(pruned, isa), by_filters(made, isa), by_panels(made, isa, PANELS[1])]
    assert max(errors_of(cases, isa)) < 1e-5


@pytest.mark.parametrize("isa", RUNNABLE, ids=lambda isa: isa.name)
def test_matrix_vector_products_equal_pytorch(isa: Isa) -> None:
    layers = [layer(shape) for shape in ((40, 48, 1, 1), (7, 5, 1, 1))]
    assert max(errors_of([by_vector(made.pruned(mask_of(made.weight, (4, 16))), isa) for made in layers], isa)) < 1e-5
    with pytest.raises(ValueError, match=r"\(2, 2\) pixels and a kernel of \(1, 1\) is no matrix-vector product"):
        by_vector(layer((8, 8, 1, 2)), isa)


def test_a_kernel_that_is_wrong_gets_no_time() -> None:
    made = layer((16, 8, 3, 6))
    case = by_filters(made, RUNNABLE[0])
    case.wanted[3, 2, 1] += 0.1
    with pytest.raises(ValueError, match=r"kernel dense \(gM=.*is off by .*; it has no time"):
        timed({"dense": [case]}, num_warmup=0, num_runs=1, num_search=1, isa=RUNNABLE[0])


def test_the_search_takes_the_fastest_candidate() -> None:
    made = layer((64, 64, 3, 14))
    isa = RUNNABLE[0]
    pruned = made.pruned(mask_of(made.weight, (32, 16), rate=2.0))
    slow = by_panels(pruned, isa, Panel(1, 1), grouped=False)
    found = timed({"rows": [slow], "any": [slow, by_filters(pruned, isa)]}, num_warmup=1, num_runs=5, num_search=3, isa=isa)
    assert found.chosen == {"rows": 0, "any": 1}
    assert found.ms["any"] < found.ms["rows"]
    assert found.max_rel_error < 1e-5


def test_what_a_search_tries_fits_and_holds_the_rule() -> None:
    made = layer((64, 64, 3, 14))
    for isa in ISAS.values():
        for one in (made, made.pruned(mask_of(made.weight, (32, 16)))):
            tried = choices(one, isa, 4)
            assert len({*tried}) == len(tried) > 3
            assert all(choice.tile.pixels <= isa.pixels(choice.vectors) for choice in tried)
            assert tried[0] == rule(one, isa)


def test_loads_fall_by_the_rows_that_share_them() -> None:
    weight = layer((32, 8, 3, 4)).weight
    mask = BlockRowsColumns(4, (8, 12), balanced=True).freeze({A: weight}).masks[A]
    assert loads(encode_bcrc(weight, mask, grouped=False), 8) == int(mask.sum())
    assert loads(encode_bcrc(weight, mask), 8) == int(mask.sum()) // 8
    assert loads(encode_bcrc(weight, mask), 4) == int(mask.sum()) // 4


@pytest.mark.parametrize("shape", [(8, 8, 2, 6), (8, 8, 3), (0, 8, 3, 6)], ids=str)
def test_a_layer_that_is_none_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is not filters, channels, an odd size of the kernel and the size of the map"):
        layer(shape)


def test_panels_that_do_not_fit_the_registers_are_refused() -> None:
    made = layer((16, 8, 3, 6))
    with pytest.raises(ValueError, match="rows=8 x vectors=4 need more than the 16 registers of avx2"):
        by_panels(made, ISAS["avx2"], Panel(8, 4))


def test_noise_does_not_unseat_the_first_candidate() -> None:
    assert _fastest([3], {}) == 3
    assert _fastest([3, 4, 5], {3: 1.0, 4: 0.99, 5: 1.2}) == 3
    assert _fastest([3, 4, 5], {3: 1.0, 4: 0.97, 5: 0.96}) == 5
