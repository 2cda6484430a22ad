"""Quoted tables: cells that follow from others agree with them, and rate files keep what they say."""

from collections.abc import Iterator
from functools import partial

import pytest

from espalier.constraints import COLUMN, FILTER, Sparse, Structure, assign, read_rate_file
from espalier.models import LeNet5
from espalier.tables.published import paper, rate_file, table

pytestmark = pytest.mark.tiny

BITS = (1, 2, 3, 4, 5, 8, 16, 32)


def numbers(name: str) -> dict[str, dict[str, float]]:
    """Return row -> column -> figure of the cells that are numbers."""
    rows = table(name).rows.items()
    return {row: {title: cell.value for title, cell in given.cells.items() if isinstance(cell.value, float)} for row, given in rows}


@pytest.mark.parametrize(("name", "num_claims"), [("mest", 9), ("prm", 8), ("admm-nn-s", 11), ("grim", 8)])
def test_every_claim_of_the_paper_is_listed(name: str, num_claims: int) -> None:
    assert [claim.id for claim in paper(name).claims.claims] == list(range(1, num_claims + 1))


def breakeven(rate: float, bits: int, index_bits: int) -> float:
    fillers = (1 - 1 / rate) ** (2**index_bits)  # runs of zeros that the index cannot express, per place where one may end
    return (bits + index_bits) / (bits * (1 - fillers))


@pytest.mark.parametrize("bits", BITS)
def test_the_storage_gaps_are_those_of_the_formula(bits: int) -> None:
    for row, cells in numbers("admm-nn-s/storage_breakeven").items():
        gap, index_bits = min((breakeven(float(row.rstrip("x")), bits, width), width) for width in range(1, 14))
        assert (round(gap, 2), index_bits) == (cells[f"gap_w{bits}"], cells[f"index_bits_w{bits}"]), row
    for row, cells in numbers("admm-nn-s/storage_breakeven_b4").items():
        assert cells[f"gap_w{bits}"] == pytest.approx(breakeven(float(row.rstrip("x")), bits, 4), rel=4e-3), row


def performance_ratios() -> Iterator[tuple[str, float, float, float]]:
    for row, cells in numbers("admm-nn-s/ppr_nonstruct").items():
        if "ppr" in cells:
            yield row, cells["rate"], cells["speedup"], cells["ppr"]
    for row, cells in numbers("admm-nn-s/ppr_struct").items():
        for device in ("cpu", "gtx1080ti", "tx2"):
            if f"{device}_ppr" in cells:
                yield f"{row} {device}", cells["rate"], cells[f"{device}_speedup"], cells[f"{device}_ppr"]


def test_pruning_to_performance_ratios_are_rate_over_speedup() -> None:
    ratios = list(performance_ratios())
    assert len(ratios) == 23 + 16
    for row, rate, speedup, ratio in ratios:
        assert ratio == pytest.approx(rate / speedup, rel=0.01), row


def test_layer_speedups_and_macs_give_the_printed_totals() -> None:
    dense = numbers("admm-nn-s/macs")["dense"]
    macs = [dense[f"conv{layer}"] for layer in range(1, 6)]
    speedups = numbers("admm-nn-s/ppr_nonstruct")
    for model in ("admm-nn-1", "admm-nn-2", "iterative", "fine-grained", "l1"):
        time = sum(count / speedups[f"{model}-conv{layer}"]["speedup"] for layer, count in enumerate(macs, start=1))
        assert sum(macs) / time == pytest.approx(speedups[f"{model}-total"]["speedup"], abs=0.03), model


def test_sizes_weights_and_bits_of_joint_pruning_agree() -> None:
    for row, cells in numbers("admm-nn-s/joint_storage").items():
        if cells.get("index_bits", 0) > 0:
            per_weight = 8 / cells["kept_m"]
            assert cells["data_mb"] * per_weight == pytest.approx(cells["mean_bits"], rel=0.02), row
            assert (cells["total_mb"] - cells["data_mb"]) * per_weight == pytest.approx(cells["index_bits"], abs=0.1), row
            assert cells["total_mb"] / cells["data_mb"] == pytest.approx(cells["overhead"], rel=0.01), row


def test_rates_of_prm_are_those_of_the_weights_left() -> None:
    for row, cells in numbers("prm/removed").items():
        if row.startswith("lenet5"):
            assert 25500 / cells["left"] == pytest.approx(cells["rate"], abs=0.006), row
    printed = {cells["rate_with"] for cells in numbers("prm/main").values() if "rate_with" in cells}
    assert {cells["rate_with"] for cells in numbers("prm/hardware").values()} <= printed


def test_shares_of_forgotten_examples_and_training_costs_agree_with_their_counts() -> None:
    for row, cells in numbers("mest/forget").items():
        assert cells["share_pct"] == pytest.approx(cells["examples"] / 500, abs=0.05), row
    costs = numbers("mest/training_cost")
    for row, cells in costs.items():
        assert cells["vs_dense"] == pytest.approx(cells["operations"] / costs["dense"]["operations"], abs=1e-3), row
    for row, cells in numbers("mest/schedules").items():
        for phase in range(3):
            if f"mutated_{phase}_pct" in cells:
                mutated = 100 * (cells[f"prune_to_{phase}"] - cells[f"grow_to_{phase}"])
                assert cells[f"mutated_{phase}_pct"] == pytest.approx(mutated), row


def test_times_of_pruned_networks_follow_from_frames_per_joule() -> None:
    for row, cells in numbers("grim/mof1").items():
        watts = 1000 / (cells["mnn_ms"] * cells["mnn_fpj"])
        assert 1.36 < watts < 1.42, row
        assert cells["pruned_ms"] == pytest.approx(1000 / (cells["pruned_fpj"] * watts), rel=0.01), row


def lenet5() -> LeNet5:
    return LeNet5(width=1, num_classes=10, in_channels=1, batch_norm=False)


@pytest.mark.parametrize(
    ("name", "structure", "kept"),
    [
        ("lenet5-columns", COLUMN, {"conv2": (150, 500), "fc1": (200, 800)}),
        ("lenet5-filters", FILTER, {"conv1": (8, 20), "conv2": (15, 50), "fc1": (75, 500)}),
        ("lenet5-columns-5x", COLUMN, {"conv2": (224, 500), "fc1": (350, 800)}),
        ("lenet5-columns-5x-filters", FILTER, {"conv1": (8, 20), "conv2": (22, 50), "fc1": (217, 500)}),
        ("lenet5-filters-5x", FILTER, {"conv1": (8, 20), "conv2": (10, 50), "fc1": (95, 500)}),
    ],
)
def test_rate_files_of_prm_keep_the_stated_groups(name: str, structure: Structure, kept: dict[str, tuple[int, int]]) -> None:
    model = lenet5()
    assignment = assign(model, partial(Sparse, structure), rates=read_rate_file(rate_file(f"prm/{name}")).rates)
    counts = {}
    for (target,), constraint in assignment.parts:
        assert isinstance(constraint, Sparse)
        counts[target.parameter.removesuffix(".weight")] = constraint.count(model.get_parameter(target.parameter).shape)
    assert counts == kept


def test_the_40x_split_keeps_the_shares_of_the_example() -> None:
    kept = read_rate_file(rate_file("admm-nn-s/lenet5-40x")).kept
    shares = {"conv1": 0.20, "conv2": 0.09, "fc1": 0.02, "fc2": 0.07}
    assert kept == {layer: round(share * lenet5().get_parameter(f"{layer}.weight").numel()) for layer, share in shares.items()}
