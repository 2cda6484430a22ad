"""Formats by hand, and the formula against the encoder on random masks and the published layer table."""

import math

import pytest
import torch

from espalier.constraints import PatternKernels, Target, read_rate_file
from espalier.storage import (
    best_gap,
    bitmap_size,
    csr_size,
    dense_block,
    expected_bits,
    expected_entries,
    gap,
    kernel_size,
    relative_size,
    stored_size,
    structured_size,
)
from espalier.tables.published import rate_file, table

pytestmark = pytest.mark.tiny

A = Target("a")
BLOCK = torch.zeros(4, 2, 3, dtype=torch.bool)
BLOCK[1, 0, 2] = BLOCK[1, 1, 1] = BLOCK[3, 0, 2] = BLOCK[3, 1, 1] = True  # rows 1 and 3, columns 2 and 4


def test_formats_by_hand() -> None:
    assert structured_size(BLOCK, 8).bits == 4 * 8 + 4 + 6
    assert bitmap_size(BLOCK, 8).bits == 4 * 8 + 24
    assert csr_size(BLOCK, 8).bits == 4 * 8 + 32 * 5 + 4 * 3
    assert csr_size(BLOCK, 8, column_bits=16, pointer_bits=0).bits == 4 * 8 + 4 * 16
    block = dense_block(BLOCK)
    assert block is not None
    assert tuple(part.tolist() for part in block) == ([False, True, False, True], [False, False, True, False, True, False])
    assert stored_size(BLOCK, 8) == structured_size(BLOCK, 8)


def test_a_mask_that_is_no_block_is_stored_with_indices() -> None:
    mask = BLOCK.clone()
    mask[3, 1, 1] = False
    assert dense_block(mask) is None
    assert stored_size(mask, 2) == relative_size(mask, 2)
    with pytest.raises(ValueError, match=r"keeps 3 weights that are no block.*relative indices"):
        structured_size(mask, 2)


def test_an_empty_and_a_full_layer() -> None:
    nothing, everything = torch.zeros(3, 5, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    assert relative_size(nothing, 4).bits == 0
    assert relative_size(everything, 4).bits == 15 * (4 + 1)
    assert stored_size(everything, 4).bits == 15 * 4 + 8
    assert expected_bits(0, 15, 4)[0] == 0
    assert expected_bits(15, 15, 4) == (15 * 5, 1)


@pytest.mark.parametrize("value_bits", [1, 4, 32])
@pytest.mark.parametrize("rate", [5, 10, 25])
def test_the_formula_meets_the_encoder_on_random_masks(rate: int, value_bits: int) -> None:
    total = 400_000
    kept = torch.zeros(500, 800, dtype=torch.bool)
    kept.view(-1)[torch.randperm(total, generator=torch.Generator().manual_seed(0))[: total // rate]] = True
    expected, width = expected_bits(total // rate, total, value_bits)
    assert relative_size(kept, value_bits).bits == pytest.approx(expected, rel=0.005)
    assert relative_size(kept, value_bits, index_bits=width).bits == pytest.approx(expected, rel=0.005)


def test_the_gap_is_that_of_the_published_table() -> None:
    for name, width in (("storage_breakeven", None), ("storage_breakeven_b4", 4)):
        for row, given in table(f"admm-nn-s/{name}").rows.items():
            for column, cell in given.cells.items():
                if column.startswith("gap_w"):
                    rate, bits = float(row.rstrip("x")), int(column.removeprefix("gap_w"))
                    found = best_gap(rate, bits)[0] if width is None else gap(rate, bits, width)
                    assert found == pytest.approx(cell.value, rel=4e-3), (row, column)


def test_layers_of_the_167x_split_have_the_published_bits_and_overheads() -> None:
    kept = read_rate_file(rate_file("progressive-admm/lenet5-167x")).kept
    totals, bits = {"conv1": 500, "conv2": 25_000, "fc1": 400_000, "fc2": 5_000}, {"conv1": 5, "conv2": 3, "fc1": 2, "fc2": 3}
    assert sum(kept[layer] * bits[layer] for layer in kept) == 7140
    rows = table("admm-nn-s/joint_layers").rows
    for layer in kept:
        size, width = expected_bits(kept[layer], totals[layer], bits[layer])
        cells = rows[f"lenet5-{layer}"].cells
        assert width == cells["best_index_bits"].value
        assert size / (kept[layer] * bits[layer]) == pytest.approx(cells["overhead"].value, abs=0.006), layer


@pytest.mark.parametrize(("kept", "total", "width"), [(5, 4, 1), (-1, 4, 1), (1, 4, 0)], ids=["too-many", "negative", "no-width"])
def test_the_formula_refuses_what_cannot_be(kept: float, total: float, width: int) -> None:
    with pytest.raises(ValueError, match=r"keep 0 to all, with an index of at least 1 bit"):
        expected_entries(kept, total, width)


def encoded(stream: list[int], width: int) -> int:
    """Return the entries of relative CSR, fillers included; the stream ends with a kept weight."""
    entries = run = 0
    for value in stream:
        if value or run == 2**width - 1:
            entries, run = entries + 1, 0
        else:
            run += 1
    return entries


@pytest.mark.parametrize(("stream", "entries"), [([1, 0, 0, 1], 2), ([1, 0, 0, 0, 0, 1], 3)])
def test_the_encoder_fills_as_the_format_says(stream: list[int], entries: int) -> None:
    assert encoded(stream, 2) == entries


def test_relative_csr_takes_the_width_that_makes_the_whole_smallest() -> None:
    constraint = PatternKernels(4.0, "std8")
    weight = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = constraint.masks({A: weight})[A]
    stream = mask.flatten().int().tolist()
    while not stream[-1]:
        stream.pop()  # zeros after the last weight need no entry
    totals = [encoded(stream, width) * (width + 8) for width in range(1, 17)]
    found = relative_size(mask, 8)
    assert found.bits == min(totals)
    assert found.values == 8 * int(mask.sum())


def test_the_kernel_format_stores_a_map_a_kernel_and_run_lengths() -> None:
    mask = PatternKernels(4.0, "std8").masks({A: torch.randn(8, 16, 3, 3)})[A]
    found = kernel_size(mask, 8, num_patterns=8)
    assert found.places == 32 * 4 + 8 * 8 * math.ceil(math.log2(17))
    assert found.values == 128 * 8
