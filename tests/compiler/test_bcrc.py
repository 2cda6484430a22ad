import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.compiler.bcrc import pack


@settings(max_examples=60, deadline=None)
@given(
    filters=st.integers(1, 40),
    channels=st.integers(1, 24),
    kernel=st.sampled_from([(1, 1, 1), (1, 3, 3), (3, 1, 1)]),
    block_filters=st.sampled_from([4, 8, 16, 32]),
    group_channels=st.sampled_from([1, 2, 3, 4]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 9),
)
def test_the_dense_weight_comes_back_exactly(
    filters: int, channels: int, kernel: tuple[int, int, int], block_filters: int, group_channels: int, density: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(filters, channels, *kernel, generator=generator) < density
    weight = torch.randn(filters, channels, *kernel, generator=generator) * mask
    packed = pack(weight, mask, block_filters=block_filters, group_channels=group_channels)
    assert torch.equal(packed.dense(), weight)
    assert packed.executed >= int(mask.sum())


def test_the_spec_example_has_its_lists() -> None:
    mask = torch.tensor([[1, 0, 1, 0, 1, 0]] * 2 + [[0, 1, 0, 1, 0, 1]] * 2, dtype=torch.bool)
    weight = torch.arange(1.0, 25.0).reshape(4, 6) * mask
    packed = pack(weight, mask, block_filters=2, group_channels=1)
    assert packed.start.tolist() == [0, 3, 6]
    assert packed.channels.tolist() == [0, 2, 4, 1, 3, 5]
    assert packed.weights[:, 0].tolist() == [[weight[b * 2, c].item(), weight[b * 2 + 1, c].item()] for b in (0, 1) for c in range(b, 6, 2)]


def test_a_mask_of_whole_blocks_stores_no_zeros_and_an_index_an_entry() -> None:
    kept = torch.rand(4, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.25
    mask = kept.repeat_interleave(16, 0).repeat_interleave(4, 1)
    packed = pack(torch.randn(mask.shape) * mask, mask, block_filters=16, group_channels=4)
    assert packed.executed == int(mask.sum())
    assert packed.index_bytes == 4 * 5 + 4 * int(kept.sum())


def test_a_kept_weight_that_happens_to_be_zero_keeps_its_place() -> None:
    mask = torch.ones(16, 4, dtype=torch.bool)
    packed = pack(torch.zeros(16, 4), mask, block_filters=16, group_channels=4)
    assert packed.executed == 64


@pytest.mark.parametrize("channels", [20, 40])
def test_entries_run_line_by_line_then_by_position(channels: int) -> None:
    packed = pack(torch.randn(16, channels, 3, 3), None, block_filters=16, group_channels=4)
    keys = list(zip((packed.channels // 16).tolist(), packed.positions.tolist(), packed.channels.tolist(), strict=True))
    assert keys == sorted(keys)
    assert np.unique(packed.positions).tolist() == list(range(9))
