"""BCRC as the paper has it: the example worked by hand, the round trip, and its bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from espalier.constraints import BlockRowsColumns, Target
from espalier.storage import encode_bcrc

A = Target("a.weight")


def example() -> tuple[Tensor, Tensor]:
    """Return the spec's matrix of 4x6 in blocks of 2x3, its weights numbered by place."""
    kept = torch.zeros(4, 6, dtype=torch.bool)
    for rows, columns in (((0, 1), (0, 2)), ((0, 1), (4,)), ((2, 3), (1,)), ((3,), (3, 5))):
        for row in rows:
            kept[row, list(columns)] = True
    return torch.arange(24.0).view(4, 6) + 1, kept


@pytest.mark.tiny
def test_the_worked_example() -> None:
    weight, kept = example()
    found = encode_bcrc(weight, kept)
    assert found.reorder.tolist() == [0, 1, 3, 2]
    assert found.row_offset.tolist() == [0, 3, 6, 9, 10]
    assert found.occurrence.tolist() == [0, 2, 3, 4]
    assert found.col_stride.tolist() == [0, 3, 6, 7]
    assert found.compact_col.tolist() == [0, 2, 4, 1, 3, 5, 1]
    assert found.weights.tolist() == [1, 3, 5, 7, 9, 11, 20, 22, 24, 14]
    assert found.index_bytes == 4 * 4 + 4 * 5 + 8 * 4 + 2 * 7
    assert found.csr_index_bytes == 4 * 5 + 4 * 10


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_round_trip_and_invariants(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    bits = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    kept = torch.tensor(bits).view(rows, columns)
    kept[data.draw(st.integers(0, rows - 1))] = False  # empty rows occur
    kept[rows // 2 :] = kept[: rows - rows // 2].clone() if data.draw(st.booleans()) else kept[rows // 2 :]
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    for grouped in (True, False):
        found = encode_bcrc(weight, kept, grouped=grouped)
        assert torch.equal(found.dense(), weight * kept)
        assert sorted(found.reorder.tolist()) == [*range(rows)]
        assert found.occurrence[-1] == rows
        assert found.row_offset[-1] == int(kept.sum())
        lengths = [(len(found.columns(g)), found.occurrence[g + 1] - found.occurrence[g]) for g in range(found.num_groups)]
        assert sum(length * height for length, height in lengths) == int(kept.sum())
        signatures = {tuple(found.columns(g)) for g in range(found.num_groups)}
        assert len(signatures) == found.num_groups or not grouped, "two groups with one list"
        assert found.index_bytes_with(4) <= found.csr_index_bytes + 16 * rows + 8


@pytest.mark.tiny
def test_four_rows_a_list_take_a_fifth_of_the_index_bytes() -> None:
    weight = torch.randn(256, 2304, generator=torch.Generator().manual_seed(0))
    mask = BlockRowsColumns(8, (4, 16), columns=8.0, balanced=True).freeze({A: weight}).masks[A]
    found = encode_bcrc(weight, mask)
    assert found.csr_index_bytes == pytest.approx(296e3, rel=0.01)  # the spec's figures
    assert found.index_bytes == pytest.approx(39e3, rel=0.02)


def test_a_mask_of_another_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\), the weight \(3, 2\)"):
        encode_bcrc(torch.zeros(3, 2), torch.ones(2, 3, dtype=torch.bool))
