"""The checks of grim: what they count, and what they refuse."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import context, pruned
from torch import nn

from espalier.constraints import BlockRowsColumns, assign
from espalier.steps import State, ablation, block_sizes, index_bytes, kernel_errors, search_gain, trained_masks

QUICK: dict[str, Any] = {"num_warmup": 0, "num_runs": 2, "num_search": 1}


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.Flatten(), nn.Linear(32 * 64, 4))


def blocks_of(model: nn.Module) -> Any:
    return assign(model, partial(BlockRowsColumns, blocks=(16, 16)), rate=4.0, include=["2"])


def test_indices_are_counted_by_rows_and_rate(tmp_path: Path) -> None:
    after = index_bytes(State(), context(tmp_path), shape=[16, 64], rates=[4], rows=[1, 4], columns=16)
    # blocks of 4x16 keep 4 columns: a list of 16 for each of 4 groups, 256 weights; numbers: 16 rows, 17 offsets, 2 x 5 of groups
    assert after.metrics["bcrc/index_bytes/4-4x"] == 4 * (16 + 17 + 10) + 2 * 64
    assert after.metrics["bcrc/share_of_csr/4-4x"] == (4 * 43 + 128) / (4 * (17 + 256))
    assert after.metrics["bcrc/share_equal_width/4-4x"] == (4 * 43 + 4 * 64) / (4 * (17 + 256))
    assert after.metrics["bcrc/share_of_csr_max"] == after.metrics["bcrc/share_of_csr/4-4x"], "single rows don't count here"
    assert after.metrics["bcrc/excess_per_row_max"] == (12 * 16 + 8) / 16, "every row alone: three numbers a row, and two"


def test_every_kernel_is_checked(tmp_path: Path) -> None:
    layers, blocks = [[18, 4, 3, 5], [8, 20, 1, 1]], [[4, 8], [1, 1]]
    after = kernel_errors(State(), context(tmp_path), layers=layers, blocks=blocks, rates=[4])
    assert after.metrics["check/kernels"] == 2 * 2 * 5 + 2, "the matrix-vector product has a kernel more"
    assert 0 < after.metrics["max_rel_error"] < 1e-5


def test_ablation_records_times_gains_and_loads(tmp_path: Path) -> None:
    after = ablation(State(), context(tmp_path), layer=[32, 8, 3, 6], rates=[4], blocks=[4, 8], num_choices=1, **QUICK)
    found = after.metrics
    for before, step, gain in (("none", "reorder", "reorder"), ("reorder", "lre", "lre"), ("lre", "tuned", "tuning")):
        assert found[f"ablation/{gain}_gain/4x"] == found[f"ablation/{before}_ms/4x"] / found[f"ablation/{step}_ms/4x"]
    assert found["ablation/load_cut/4x"] == 4, "rows of a block of 4"
    assert found["ablation/share/4x"] == pytest.approx(found["ablation/dense_ms"] / found["ablation/lre_ms/4x"] / 4)


def test_block_sizes_and_search_record_what_claims_read(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    after = block_sizes(State(), surroundings, layer=[16, 8, 3, 6], rates=[4], large=[16, 8], small=[4, 8], **QUICK)
    assert {f"blocks/{name}_ms/4x" for name in ("whole", "large", "small", "csr")} <= after.metrics.keys()
    assert after.metrics["blocks/csr_over_small/4x"] == after.metrics["blocks/csr_ms/4x"] / after.metrics["blocks/small_ms/4x"]
    after = search_gain(State(), surroundings, layers=[[16, 8, 3, 6], [16, 8, 1, 4]], rate=4, blocks=[16, 8], num_choices=1, **QUICK)
    assert after.metrics["search/gain_min"] <= after.metrics["search/gain_median"] <= after.metrics["search/gain_max"]


def test_trained_masks_are_timed_beside_random_ones(tmp_path: Path) -> None:
    surroundings = context(tmp_path, model=convolutions)
    model = convolutions()
    asked = blocks_of(model)
    state = State(model.state_dict(), asked.freeze(asked.read(model)))
    after = trained_masks(state, surroundings, constraint=blocks_of, num_warmup=0, num_runs=2)
    assert after.metrics["masks/time_gap_max_pct"] == abs(after.metrics["masks/time_gap_pct/2"])
    assert after.metrics["max_rel_error"] < 1e-5
    assert after.frozen is state.frozen


def test_masks_are_not_timed_where_none_is_frozen(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    with pytest.raises(ValueError, match="step 'step' times pruned convolutions, but no earlier step froze one of stride 1"):
        trained_masks(State(), context(tmp_path, model=convolutions), constraint=blocks_of, num_warmup=0, num_runs=1)
    state = pruned(surroundings)  # its convolution has no padding
    with pytest.raises(ValueError, match="froze one of stride 1"):
        trained_masks(state, surroundings, constraint=lambda model: state.frozen, num_warmup=0, num_runs=1)


def test_the_share_of_claim_5_rests_on_the_width_of_numbers(tmp_path: Path) -> None:
    found = index_bytes(State(), context(tmp_path), shape=[256, 2304], rates=[8], rows=[4], columns=16).metrics
    assert found["bcrc/share_of_csr/4-8x"] < 0.2 < found["bcrc/share_equal_width/4-8x"] == pytest.approx(0.26, abs=0.01)
