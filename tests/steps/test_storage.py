"""Checks of storage, kernels and totals: what their records hold, against the encoder and against arithmetic by hand."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from surroundings import TRAINING, context, network, pruned, sparse

from espalier.composing import published_cells
from espalier.constraints import FILTER, UniformLevels, assign
from espalier.frames.products import Timing, time_products
from espalier.methods import Magnitude
from espalier.metrics import unknown
from espalier.running import run
from espalier.steps import State, constrain, harmonic_totals, pruning_to_performance, random_masks, storage_gap, stored
from espalier.steps.kernels import breakeven_rate, ratios
from espalier.storage import relative_size

BITS = [1, 4, 32]


def masks(state: State) -> dict[str, torch.Tensor]:
    assert state.frozen is not None
    return {str(target): part.free(target) for targets, part in state.frozen.parts for target in targets}  # type: ignore[union-attr]


def test_irregular_masks_are_counted_by_encoder_and_formula(tmp_path: Path) -> None:
    state = pruned(context(tmp_path), rate=6)
    after = stored(state, context(tmp_path), bits=BITS)
    found = after.metrics
    assert unknown(found) == []
    for width in BITS:
        assert found[f"storage/bits/{width}"] == sum(relative_size(mask, width).bits for mask in masks(state).values())
    total, kept = (sum(int(part) for part in parts) for parts in zip(*((m.numel(), m.sum()) for m in masks(state).values()), strict=True))
    assert found["storage/rate"] == pytest.approx(total / kept)
    assert found["storage/overhead"] == pytest.approx(found["storage/bits/4"] / (4 * kept))
    assert found["storage/index_share"] == pytest.approx(1 - 1 / found["storage/overhead"])
    assert found["storage/overhead_bitmap"] == pytest.approx(1 + total / (4 * kept))
    assert found["storage/overhead_rows"] > found["storage/overhead"]
    assert abs(found["storage/formula_error_min"]) <= found["storage/formula_error_max"] < 0.2
    assert found["bits_per_weight"] == 32
    assert all(torch.equal(after.weights[name], weight) for name, weight in state.weights.items())


def test_whole_filters_are_stored_as_a_block(tmp_path: Path) -> None:
    constraint = partial(sparse, rate=2.0, structure=FILTER)
    state = constrain(State(), context(tmp_path), epochs=0, **TRAINING, method=Magnitude, constraint=constraint, freeze=True)
    found = stored(state, context(tmp_path), bits=BITS).metrics
    places = (6 + 9) + (4 + 216)  # a bit for each row and column of both layers
    assert found["storage/bits/4"] == 4 * (27 + 432) + places
    assert found["storage/rate"] == 2
    assert "storage/formula_error_max" not in found


def test_quantized_layers_say_the_bits_of_their_codes(tmp_path: Path) -> None:
    state = pruned(context(tmp_path), rate=1.25)  # leaves weights small enough for the inner levels

    def levels(model: torch.nn.Module):  # type: ignore[no-untyped-def]
        return assign(model, partial(UniformLevels, 2, False))

    state = constrain(state, context(tmp_path), epochs=0, **TRAINING, method=Magnitude, constraint=levels, freeze=True)
    found = stored(state, context(tmp_path), bits=BITS).metrics
    assert found["bits_per_weight"] == 2
    assert found["storage/rate"] == pytest.approx(1.25, rel=0.01)


def test_a_kept_weight_at_level_zero_counts_as_kept(tmp_path: Path) -> None:
    state = pruned(context(tmp_path), rate=1.25)  # leaves weights small enough for level zero

    def levels(model: torch.nn.Module):  # type: ignore[no-untyped-def]
        return assign(model, partial(UniformLevels, 2, True))

    quantized = constrain(state, context(tmp_path), epochs=0, **TRAINING, method=Magnitude, constraint=levels, freeze=True)
    kept = sum(int(mask.sum()) for mask in masks(state).values())
    assert sum(int((quantized.weights[name] != 0).sum()) for name in masks(state)) < kept
    found = stored(quantized, context(tmp_path), bits=BITS).metrics
    assert found["storage/rate"] == stored(state, context(tmp_path), bits=BITS).metrics["storage/rate"]
    assert found["bits_per_weight"] == 2


def test_random_masks_have_the_rate_and_leave_the_network_alone(tmp_path: Path) -> None:
    state = random_masks(State(), context(tmp_path), rate=9, bits=BITS)
    assert state.metrics["storage/rate"] == pytest.approx(9, rel=0.01)
    assert state.metrics == random_masks(State(), context(tmp_path), rate=9, bits=BITS).metrics
    assert all(torch.equal(state.weights[name], value) for name, value in network().state_dict().items())


def test_counting_needs_a_frozen_layer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step 'step' counts frozen layers, but no earlier step froze any; put a constrain step"):
        stored(State(), context(tmp_path), bits=BITS)


def test_the_gap_rises_along_both_axes_and_a_wrong_order_shows(tmp_path: Path) -> None:
    found = storage_gap(State(), context(tmp_path), rates=[3, 10, 40], bits=[32, 8, 1]).metrics
    assert found["storage/gap_steps_min"] > 0
    assert (round(found["storage/gap_min"], 2), round(found["storage/gap_max"], 2)) == (1.13, 8.33)
    assert storage_gap(State(), context(tmp_path), rates=[3, 10], bits=[1, 8]).metrics["storage/gap_steps_min"] < 0


def test_totals_are_those_of_the_quoted_tables(tmp_path: Path) -> None:
    tables = {name: published_cells(f"admm-nn-s/{name}") for name in ("macs", "ppr_nonstruct", "joint_layers")}
    settings = {
        "macs": tables["macs"],
        "dense": "dense",
        "layers": [f"conv{layer}" for layer in range(1, 6)],
        "joint": tables["joint_layers"],
    }
    joint_layers = [f"lenet5-{layer}" for layer in ("conv1", "conv2", "fc1", "fc2")]
    models = ["admm-nn-1", "admm-nn-2", "iterative", "fine-grained", "l1"]
    run = partial(harmonic_totals, State(), context(tmp_path), **settings, models=models, joint_layers=joint_layers)
    found = run(speedups=tables["ppr_nonstruct"]).metrics
    assert found["totals/weight_bits"] == 7140
    assert 0 < found["totals/error_max"] < 0.03
    wrong = {**tables["ppr_nonstruct"], "l1-total": {"speedup": 1.77}}
    assert run(speedups=wrong).metrics["totals/error_max"] == pytest.approx(1.0, abs=0.01)


def test_ratios_by_hand() -> None:
    timings = [
        Timing(1.0, {2: (2.0, 0.5), 4: (4.0, 0.5)}, {2: (2.0, 2.0), 4: (4.0, 0.5)}),
        Timing(3.0, {2: (2.0, 1.5), 4: (4.0, 0.5)}, {2: (2.0, 2.0), 4: (4.0, 0.5)}),
    ]
    found = ratios(timings, [100, 300], [2, 4])
    assert (found["ppr/structured/2x"], found["ppr/structured/4x"]) == pytest.approx((1.0, 1.0))
    assert (found["ppr/nonstructured/2x"], found["ppr/nonstructured/4x"]) == pytest.approx((2.0, 1.0))
    assert found["ppr/breakeven_rate"] == 2.0
    assert breakeven_rate([(2.0, 0.5), (8.0, 2.0)]) == pytest.approx(4.0)
    assert breakeven_rate([(2.0, 0.5), (8.0, 0.9)]) is None
    assert breakeven_rate([(1.5, 1.2), (8.0, 3.0)]) == 1.5


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the sparse product is MKL's")
def test_products_are_timed_at_the_rates_asked(tmp_path: Path) -> None:
    timing = time_products((16, 36, 8), [1.5, 4], num_warmup=1, num_runs=3, generator=torch.Generator().manual_seed(0))
    assert timing.structured[4][0] == 4.0
    assert timing.sparse[1.5][0] == pytest.approx(1.5, rel=0.01)
    assert all(0 < time_ms < math.inf for time_ms in (timing.dense_ms, timing.structured[1.5][1], timing.sparse[4][1]))
    run = partial(pruning_to_performance, State(), context(tmp_path), shapes=[[16, 36, 8], [8, 36, 8]], num_warmup=1, num_runs=3)
    found = run(rates=[1.5, 4], low_rate=1.5, high_rate=4).metrics
    assert unknown(found) == []
    assert {"ppr/structured/4x", "ppr/nonstructured/1.5x", "ppr/restored_speedup"} <= found.keys()
    with pytest.raises(ValueError, match=r"low_rate=2 and high_rate=4 are to be among rates=\[1.5, 4\]"):
        run(rates=[1.5, 4], low_rate=2, high_rate=4)


def test_no_measurement_without_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"built without MKL.*x86"):
        time_products((4, 4, 4), [2], num_warmup=0, num_runs=2, generator=torch.Generator())


@pytest.mark.slow
def test_rows_meet_their_shares_and_bits(store_folder: Path) -> None:
    budget = dict.fromkeys(("train", "admm", "retrain", "admm_double", "retrain_double", "quantize", "map", "periods"), 1)
    overrides = [f"budgets.smoke.{key}={epochs}" for key, epochs in budget.items()]
    rows = ["irregular-4", "irregular-16", "structured-16", "column-16", "filter-4", "filter-16", "quant-3bit-admm", "clustered-3bit"]
    records = {record.row: record.metrics for record in run("admm-nn-s/lenet5_gap", rows=[*rows, "full-64x"], overrides=overrides)}
    assert records["quant-3bit-admm"]["bits_per_weight"] == records["clustered-3bit"]["bits_per_weight"] == 3
    assert all(records[row]["storage/rate"] == pytest.approx(16, rel=0.01) for row in ("irregular-16", "column-16", "filter-16"))
    assert records["filter-16"]["storage/rate"] == pytest.approx(records["irregular-16"]["storage/rate"], rel=0.01)  # claim 10
    assert records["filter-4"]["storage/rate"] == pytest.approx(records["irregular-4"]["storage/rate"], rel=0.01)
    assert "storage/formula_error_max" not in records["structured-16"]
    assert records["full-64x"]["train/epochs"] == 5
