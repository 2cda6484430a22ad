"""Penalise, decide, match: which steps rows share, what is frozen, and the figures."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import TRAINING, admm, context, sparse
from torch import nn

from espalier import metrics
from espalier.composing import composed, identity_of, register_rows, resolved, step_keys
from espalier.constraints import COLUMN, FILTER, NM, Assignment, CommonThreshold, Support, Target, Threshold, assign
from espalier.methods import PrimalProximal, Reweighted, RhoSchedule
from espalier.steps import State, decide, matched, penalise, product_latency, retrain
from espalier.steps.grouped import depth_figures, group_figures
from espalier.steps.product_latency import products_of

W = Target("0.weight")


def common(model: nn.Module, *, rate: float = 3.0) -> Assignment:
    return assign(model, partial(CommonThreshold, [FILTER, COLUMN], spare={"column": 1}), rate=rate, rate_of="weights")


def reweighted(assignment: Assignment, *, epochs: int, frozen: Assignment | None) -> Reweighted:
    return Reweighted(assignment, epochs=epochs, form="sq", strength=1e-2, lr=0.05, refresh_at=[0.5], eps=1e-6, frozen=frozen)


def proximal(assignment: Assignment, *, epochs: int, frozen: Assignment | None) -> PrimalProximal:
    return PrimalProximal(assignment, epochs=epochs, num_periods=2, rho=RhoSchedule(0.1, 1.0), tau=None, frozen=frozen)


@pytest.mark.parametrize("method", [reweighted, proximal])
def test_two_rates_are_decided_on_one_training(tmp_path: Path, method: Any) -> None:
    surroundings = context(tmp_path / "penalise", batch_norm=True)
    dense = State(weights={name: value.clone() for name, value in surroundings.model().state_dict().items()}, epochs=5)
    trained = penalise(dense, surroundings, epochs=2, **TRAINING, method=method, constraint=common)
    assert trained.frozen is None
    assert trained.epochs == 7
    assert any(not torch.equal(value, dense.weights[name]) for name, value in trained.weights.items())
    for rate in (2.0, 4.0):
        surroundings = context(tmp_path / str(rate), batch_norm=True)
        decided = decide(trained, surroundings, constraint=partial(common, rate=rate), dense=dense)
        after = retrain(decided, surroundings, epochs=1, **TRAINING)
        assert decided.frozen is not None
        assert decided.epochs == 7
        weights = [value for name, value in after.weights.items() if value.ndim > 1]
        kept = sum(int(weight.count_nonzero()) for weight in weights)
        assert kept <= sum(weight.numel() for weight in weights) / rate < kept + 216
        assert after.metrics["weights_outside_set"] == 0
        assert decided.metrics["hard/top1_pct_before"] == trained.metrics["val/top1_pct"]
        assert metrics.unknown(after.metrics) == metrics.unknown(after.series) == []


def test_an_epochless_penalty_needs_groups_to_decide(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step 'step' acts on the norms of groups; .* takes NM, which has none"):
        decide(State(), context(tmp_path), constraint=partial(assign, make=partial(NM, 2, 4), skip=["0"]), dense=State())


def test_counts_are_matched_from_an_earlier_state_whose_epochs_do_not_count(tmp_path: Path) -> None:
    surroundings = context(tmp_path / "decide")
    dense = State(weights={name: value.clone() for name, value in surroundings.model().state_dict().items()}, epochs=5)
    like = decide(dense, surroundings, constraint=partial(common, rate=4.0), dense=dense)
    like.epochs = 9
    columns = matched(
        like, context(tmp_path / "columns"), epochs=1, **TRAINING, method=admm, constraint=partial(sparse, rate=1.0, structure=COLUMN),
        start=dense, like=like,
    )  # fmt: skip
    both = matched(
        columns, context(tmp_path / "filters"), epochs=1, **TRAINING, method=admm, constraint=partial(sparse, rate=1.0, structure=FILTER),
        start=columns, like=like,
    )  # fmt: skip
    assert (columns.epochs, both.epochs) == (6, 7)
    for name, weight in both.weights.items():
        if weight.ndim > 1:
            assert int(weight.count_nonzero()) == int(like.weights[name].count_nonzero())
    with pytest.raises(ValueError, match=r"step 'step': 0\.weight has no kept groups to match"):
        matched(
            like, context(tmp_path), epochs=1, **TRAINING, method=admm, constraint=sparse, start=dense, like=dense,
        )  # fmt: skip


def test_figures_of_groups_by_hand() -> None:
    before = torch.diag(torch.tensor([1.0, 1.0, 0.2, 0.01]))
    dense = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0]))
    made = Threshold([FILTER], 0.15, relative=False)  # RMS of a row is half its entry
    assignment = Assignment([((W,), made)])
    figures = group_figures(assignment, assignment.freeze({W: before}), {W: before}, {W: dense})
    assert figures == pytest.approx(
        {
            "groups/between_pct": 25.0,  # 0.2 of the median 1
            "groups/survivor_norm_ratio": 2 / 3,
            "groups/collapsed_pct": 50.0,  # 0.005 lies under 0.03, 0.1 does not
            "groups/tau": 0.15,
        }
    )


def test_rates_by_depth() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Conv2d(2, 2, 2), nn.Flatten(), nn.Linear(2, 4))
    with torch.no_grad():
        model[1].weight[0] = 0.0
        model[1].weight[:, 0] = 0.0  # half of the other filter
        model[3].weight[:, 1] = 0.0
    assignment = assign(model, partial(Threshold, [FILTER, COLUMN], 0.0), include=["0", "1"])
    assert depth_figures(assignment, model) == pytest.approx(
        {
            "layer/rate_first": 1.0,
            "layer/rate_last": 2.0,
            "layer/rate_middle": 4.0,
            "layer/rate_first_half": 1.0,
            "layer/rate_second_half": 4.0,
            "layer/rows_zero_pct_min": 0.0,
            "layer/columns_zero_pct_min": 0.0,
        }
    )


def keys(name: str, row: str) -> dict[str, str]:
    register_rows(name, "desk")
    config = resolved(composed(name, [f"row={row}", "scale=desk", "seed=0"]))
    return step_keys(identity_of(config, "data"))


def test_rows_share_what_they_can() -> None:
    eight, sixteen, lasso = (keys("blk-rew/cifar10", row) for row in ("rew-8x", "rew-16x", "lasso-8x"))
    assert eight["penalise"] == sixteen["penalise"] != lasso["penalise"]
    assert eight["decide"] != sixteen["decide"]
    single, admm_row = keys("ss-auto/cifar10", "ss-4x"), keys("ss-auto/cifar10", "admm-as-ss-4x")
    assert single["decide"] == admm_row["decide"]
    assert single["train"] == eight["train"], "one dense network for both papers"


def test_products_are_those_of_the_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1, stride=2))
    assert products_of(model, torch.zeros(1, 3, 8, 8)) == [(8, 27, 36), (4, 8, 4)]
    with pytest.raises(ValueError, match="no convolution whose product"):
        products_of(nn.Linear(3, 3), torch.zeros(1, 3))


def test_product_latency_is_measured(tmp_path: Path) -> None:
    after = product_latency(State(), context(tmp_path), rates=[2, 4], num_warmup=1, num_runs=3)
    assert 0 <= after.metrics["check/latency_macs_r2"] <= 1
    assert after.metrics["check/structured_over_csr"] > 0
    with pytest.raises(ValueError, match=r"rates=\[1, 2\]: the line takes the whole product and two cuts"):
        product_latency(State(), context(tmp_path), rates=[1, 2], num_warmup=1, num_runs=3)


def test_a_frozen_support_survives_the_state(tmp_path: Path) -> None:
    decided = decide(State(), context(tmp_path), constraint=common, dense=State())
    decided.save(tmp_path)
    loaded = State.load(tmp_path).frozen
    assert loaded is not None
    assert all(isinstance(part, Support) and part.structure == "filter + column" for _, part in loaded.parts)
