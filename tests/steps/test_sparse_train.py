"""The steps of sparse training: what they record, how they resume, whom they drop, what they cost."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import TRAINING, admm, context, network, pruned, sparse

from espalier.constraints import FILTER, UNSTRUCTURED, Sparse, assign
from espalier.data import Removal
from espalier.methods import GradientGrowth, MomentumGrowth, MutationSchedule, RandomGrowth, SparseTraining
from espalier.methods.regrowth import Regrowth
from espalier.metrics import unknown
from espalier.steps import Context, State, constrain, dense_cost, masked_gradient, sparse_cost, sparse_train
from espalier.steps.sparse_train import momenta_of

EPOCHS = 4
EM = MutationSchedule(0.25, [0.5, 0.75], [0.1, 0.05, 0.0], [0.0, 0.0, 0.0])
EMS = MutationSchedule(0.25, [0.5, 0.75], [0.0, 0.0, 0.0], [0.1, 0.05, 0.0])


def method(schedule: MutationSchedule = EM, regrowth: Callable[[], Regrowth] = RandomGrowth) -> Callable[..., SparseTraining]:
    return partial(SparseTraining, schedule=schedule, regrowth=regrowth(), gradient_weight=0.01, seed=0)


def run(surroundings: Context, *, state: State | None = None, removal: Removal | None = None, **changes: Any) -> State:
    settings: dict[str, Any] = {"epochs": EPOCHS, **TRAINING, "method": method(), "constraint": sparse, **changes}
    return sparse_train(state or State(), surroundings, removal=removal, **settings)


CASES: dict[str, tuple[MutationSchedule, Callable[[], Regrowth], Removal | None]] = {
    "EM": (EM, RandomGrowth, None),
    "EM&S, easy examples dropped": (EMS, RandomGrowth, Removal(0.5, 0.25, "least_forgotten", 0)),
    "by gradient, random ones dropped": (EM, GradientGrowth, Removal(0.5, 0.25, "random", 0)),
    "by momentum": (EM, partial(MomentumGrowth, 0.9), None),
}


@pytest.mark.parametrize("killed_after", range(1, EPOCHS + 1))
@pytest.mark.parametrize("case", CASES)
def test_a_killed_step_ends_as_an_undisturbed_one(tmp_path: Path, case: str, killed_after: int) -> None:
    schedule, regrowth, removal = CASES[case]

    def kill(progress: int, _: dict[str, float]) -> None:
        if progress == killed_after:
            raise KeyError("killed")

    start = State(network(batch_norm=True).state_dict())
    step = partial(run, state=start, removal=removal)
    undisturbed = step(context(tmp_path / "undisturbed", batch_norm=True), method=method(schedule, regrowth))
    with pytest.raises(KeyError, match="killed"):
        step(context(tmp_path / "killed", batch_norm=True, on_epoch=kill), method=method(schedule, regrowth))
    resumed = step(context(tmp_path / "killed", batch_norm=True), method=method(schedule, regrowth))
    assert resumed.series == undisturbed.series
    assert resumed.metrics == undisturbed.metrics
    resumed.save(tmp_path / "a")
    undisturbed.save(tmp_path / "b")
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == (tmp_path / "b" / "state.safetensors").read_bytes()


def test_masks_reach_the_state_and_hold_every_weight(tmp_path: Path) -> None:
    after = run(context(tmp_path, test_every_epoch=True))
    assert after.frozen is not None
    weights = {target: after.weights[target.parameter] for target in after.frozen.targets}
    assert after.frozen.outside(weights) == 0
    assert after.metrics["weights_outside_set"] == after.metrics["mutation/excess_last"] == 0
    assert after.metrics["top1_pct_best_test"] == max(value for epoch, value in after.series["test/top1_pct"] if epoch > 3)
    assert unknown([*after.metrics, *after.series]) == []
    assert [epoch for epoch, _ in after.series["forget/never_pct"]] == [1, 2, 3, 4]
    assert after.epochs == EPOCHS


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        (partial(torch.optim.SGD, lr=0.1), 0),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), 1),
        (partial(torch.optim.RMSprop, lr=0.1), 1),
        (partial(torch.optim.AdamW, lr=0.1), 2),
    ],
    ids=["plain", "momentum", "rmsprop", "adamw"],
)
def test_values_that_an_optimizer_keeps_are_counted(optimizer: Any, kept: int) -> None:
    assert momenta_of(optimizer) == kept


@pytest.mark.parametrize("order", ["least_forgotten", "random"])
def test_dropped_examples_cost_nothing_from_then_on(tmp_path: Path, order: Any) -> None:
    removal = Removal(0.5, 0.25, order, 0)
    whole, fewer = run(context(tmp_path / "whole")), run(context(tmp_path / "fewer"), removal=removal)
    same = [(one, other) for one, other in zip(whole.series["train/loss"], fewer.series["train/loss"], strict=True) if one == other]
    assert [point[0] for point, _ in same] == [1, 2]
    assert fewer.metrics["train_macs"] < whole.metrics["train_macs"]
    static = method(MutationSchedule(1.0, [], [0.0], [0.0]))
    whole, fewer = (run(context(tmp_path / f"static {one}"), removal=one, method=static) for one in (None, removal))
    assert fewer.metrics["train_macs"] / whole.metrics["train_macs"] == pytest.approx((2 + 2 * 0.75) / 4)


def test_growth_by_dense_gradients_is_charged(tmp_path: Path) -> None:
    metrics = {
        name: run(context(tmp_path / name), method=method(EM, regrowth)).metrics
        for name, regrowth in {"random": RandomGrowth, "gradient": GradientGrowth, "momentum": partial(MomentumGrowth, 0.9)}.items()
    }
    macs = {"0.weight": 54 * 36, "4.weight": 864}
    dead = sum(macs.values()) * (1 - 1 / 3)
    extra = {name: metrics[name]["train_macs"] - metrics["random"]["train_macs"] for name in metrics}
    assert extra["gradient"] == pytest.approx(EPOCHS * 32 * dead, rel=1e-3)  # a batch of 32 in each epoch, at whose start masks mutate
    assert extra["momentum"] == pytest.approx(EPOCHS * 96 * dead, rel=1e-3)
    held, total = (54 + 864) / 3, 54 + 864
    assert metrics["gradient"]["train_bytes"] - metrics["random"]["train_bytes"] == pytest.approx(4 * (total - held))


def test_poisoned_gradients_of_dead_weights_change_nothing_under_lightning(tmp_path: Path) -> None:
    for name, schedule in {"EM": EM, "EM&S": EMS}.items():
        after = masked_gradient(
            State(), context(tmp_path / name, batch_norm=True), epochs=EPOCHS, **TRAINING, method=method(schedule), constraint=sparse
        )
        assert after.metrics["check/weights_difference_max"] == 0
        assert after.epochs == EPOCHS


def test_both_trainings_of_the_check_report_every_epoch_and_one_of_them_its_figures(tmp_path: Path) -> None:
    told: list[tuple[int, bool]] = []
    place = context(tmp_path, on_epoch=lambda progress, figures: told.append((progress, "train/loss" in figures)))
    masked_gradient(State(epochs=3), place, epochs=2, **TRAINING, method=method(MutationSchedule(1.0, [], [0.0], [0.0])), constraint=sparse)
    assert told == [(4, True), (5, True), (4, False), (5, False)]


def test_the_check_sees_a_gradient_that_is_read(tmp_path: Path) -> None:
    """It poisons the momentum of a dead weight, which shows once that weight grows."""

    class Leaky(SparseTraining):
        def add_penalty_grad(self, model: torch.nn.Module) -> None: ...

    leaky = partial(Leaky, schedule=EM, regrowth=RandomGrowth(), gradient_weight=0.0, seed=0)
    with pytest.raises(ValueError, match=r"NaN|not finite"):
        masked_gradient(State(), context(tmp_path), epochs=EPOCHS, **TRAINING, method=leaky, constraint=sparse)


def test_the_check_refuses_a_method_that_reads_dense_gradients_by_its_nature(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="GradientGrowth grows by dense gradients"):
        masked_gradient(State(), context(tmp_path), epochs=2, **TRAINING, method=method(EM, GradientGrowth), constraint=sparse)


def test_counted_costs_are_those_of_a_training(tmp_path: Path) -> None:
    for regrowth in (RandomGrowth, GradientGrowth, partial(MomentumGrowth, 0.9)):
        place = context(tmp_path / str(regrowth))
        trained = run(place, method=method(EMS, regrowth)).metrics
        state = sparse_cost(State(), place, num_epochs=EPOCHS, samples=96, method=method(EMS, regrowth), constraint=sparse)
        counted = state.metrics
        assert int(state.weights["4.weight"].count_nonzero()) == 864 // 3
        assert {key: counted[key] for key in ("train_macs", "train_bytes")} == {key: trained[key] for key in ("train_macs", "train_bytes")}
    dense = dense_cost(State(), context(tmp_path), num_epochs=EPOCHS, samples=96)
    assert dense.metrics["train_macs"] == 3 * EPOCHS * 96 * (54 * 36 + 864)
    assert dense.weights.keys() == network().state_dict().keys()


def test_layers_frozen_earlier_are_held_and_not_taken_twice(tmp_path: Path) -> None:
    first = constrain(
        State(),
        context(tmp_path / "first"),
        epochs=0,
        **TRAINING,
        method=admm,
        constraint=lambda model: assign(model, partial(Sparse, FILTER), rate=2.0, include=["0"]),
        freeze=True,
    )
    after = run(
        context(tmp_path / "second"),
        state=first,
        constraint=lambda model: assign(model, partial(Sparse, UNSTRUCTURED), rate=3.0, include=["4"]),
    )
    assert after.frozen is not None
    assert {str(target) for target in after.frozen.targets} == {"0.weight", "4.weight"}
    held = {target: after.weights[target.parameter] for target in after.frozen.targets}
    assert after.frozen.outside(held) == 0
    with pytest.raises(ValueError, match=r"an earlier step froze 0\.weight, 4\.weight; sparse training chooses masks of its own"):
        run(context(tmp_path / "third"), state=pruned(context(tmp_path / "pruned")))


def test_no_epochs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs=0; sparse training takes at least one"):
        run(context(tmp_path), epochs=0)
