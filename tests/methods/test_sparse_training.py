"""Sparse training: what mutates, what is held, and that no dead weight or its gradient plays a part."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_loops import OPTIMIZERS, context, data
from torch import Tensor, nn

from espalier.constraints import (
    BLOCK_COLUMN,
    FILTER,
    NM,
    UNSTRUCTURED,
    Assignment,
    Constraint,
    GlobalSparse,
    PatternKernels,
    Sparse,
    Support,
    Target,
    assign,
)
from espalier.methods import GradientGrowth, MomentumGrowth, MutationSchedule, RandomGrowth, SparseTraining
from espalier.methods.regrowth import Regrowth
from espalier.steps.fit import fit
from espalier.tasks import constant

CONV = Target("2.weight")
EM = MutationSchedule(0.125, [0.5, 0.75], [0.05, 0.02, 0.0], [0.0, 0.0, 0.0])
EMS = MutationSchedule(0.125, [0.5, 0.75], [0.0, 0.0, 0.0], [0.1, 0.05, 0.0])
STATIC = MutationSchedule(1.0, [], [0.0], [0.0])
SETS: dict[str, Callable[..., Constraint]] = {
    "unstructured": partial(Sparse, UNSTRUCTURED),
    "filter": partial(Sparse, FILTER),
    "block": partial(Sparse, BLOCK_COLUMN.sized([4])),
    "pattern": partial(PatternKernels, library="mest8", balanced=True),
}
GROWTHS: dict[str, Callable[[], Regrowth]] = {"random": RandomGrowth, "gradient": GradientGrowth, "momentum": partial(MomentumGrowth, 0.9)}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 4))


def assigned(model: nn.Module, name: str = "unstructured", rate: float = 4.0) -> Assignment:
    return assign(model, SETS[name], rate=rate, include=["2"] if name == "pattern" else ["2", "5"] if name == "unstructured" else ["2"])


def made(assignment: Assignment, *, epochs: int = 8, schedule: MutationSchedule = EM, **changes: Any) -> SparseTraining:
    settings = {"regrowth": RandomGrowth(), "gradient_weight": 0.0, "seed": 0}
    return SparseTraining(assignment, epochs=epochs, schedule=schedule, **settings | changes)


class Watched(SparseTraining):
    """Fails where a weight has left its mask after a step."""

    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        assert all(not target.read(model)[~live].any() for target, live in self.live.items())


def trained(
    model: nn.Module,
    method: SparseTraining,
    optimizer: str = "sgd",
    *,
    after_backward: Callable[[nn.Module, SparseTraining], None] = lambda *_: None,
) -> Assignment:
    stepper, loader = OPTIMIZERS[optimizer](model.parameters()), data().train_loader(0)
    method.start(model)
    for epoch in range(method.epochs):
        loader.set_epoch(epoch)
        for images, labels in loader:
            stepper.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            after_backward(model, method)
            method.add_penalty_grad(model)
            stepper.step()
            method.after_step(model)
        method.epoch_end(model)
    return method.settle(model)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("name", SETS)
def test_bare_loop_and_lightning_agree_and_no_weight_leaves_its_mask(tmp_path: Path, name: str, growth: str, optimizer: str) -> None:
    models = [network(), network()]
    methods = [
        Watched(assigned(model, name), epochs=4, schedule=EM, regrowth=GROWTHS[growth](), gradient_weight=0.01, seed=3) for model in models
    ]
    trained(models[0], methods[0], optimizer)
    arguments = {"epochs": 4, "first_epoch": 0, "optimizer": OPTIMIZERS[optimizer], "schedule": constant}
    fit(models[1], context(tmp_path, None), method=methods[1], **arguments)  # type: ignore[arg-type]
    methods[1].settle(models[1])
    assert same(*models)
    assert all(live.equal(methods[1].live[target]) for target, live in methods[0].live.items())
    assert methods[0].history == methods[1].history
    assert methods[0].figures == methods[1].figures


def poison(model: nn.Module, method: SparseTraining) -> None:
    with torch.no_grad():
        for target, live in method.live.items():
            gradient = target.gradient(model)
            assert gradient is not None
            gradient[~live] = torch.nan


@pytest.mark.parametrize("gradient_weight", [0.0, 0.5])
@pytest.mark.parametrize("schedule", [EM, EMS], ids=["EM", "EM&S"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_of_dead_weights_are_never_read(optimizer: str, schedule: MutationSchedule, gradient_weight: float) -> None:
    models = [network(), network()]
    for model, after_backward in zip(models, (lambda *_: None, poison), strict=True):
        trained(model, made(assigned(model), schedule=schedule, gradient_weight=gradient_weight), optimizer, after_backward=after_backward)
    assert same(*models)
    assert all(parameter.isfinite().all() for parameter in models[0].parameters())


@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_growth_by_dense_gradients_reads_them(growth: str) -> None:
    with pytest.raises(ValueError, match="NaN"):
        trained(model := network(), made(assigned(model), regrowth=GROWTHS[growth]()), after_backward=poison)


def walked(assignment: Assignment, model: nn.Module, *, epochs: int, schedule: MutationSchedule) -> SparseTraining:
    method = made(assignment, epochs=epochs, schedule=schedule)
    method.start(model)
    for _ in range(epochs):
        method.epoch_end(model)
    method.settle(model)
    return method


@pytest.mark.parametrize("epochs", [1, 2, 5, 30])
@pytest.mark.parametrize("schedule", [EM, EMS], ids=["EM", "EM&S"])
@pytest.mark.parametrize("name", SETS)
def test_steps_of_any_length_hold_the_bound_of_each_phase_and_end_at_the_asked_sparsity(
    name: str, schedule: MutationSchedule, epochs: int
) -> None:
    method = walked(assigned(model := network(), name), model, epochs=epochs, schedule=schedule)
    total = model.get_parameter("2.weight").numel()
    patterned = 4 / 9 if name == "pattern" else 1.0
    for epoch, used in enumerate(method.history):
        share = patterned / 4 + schedule.grow_below[schedule.phase(epoch, epochs)]
        rounding = {"filter": 0.5 / 16, "pattern": 0.5 / 8 * patterned}.get(name, 0.01)
        assert used["held"]["2.weight"] / total == pytest.approx(share, abs=rounding + 1e-9)
    asked = assigned(model, name)
    final = sum(int(mask.sum()) for _, part in asked.freeze(asked.read(network())).parts for mask in part.masks.values())  # type: ignore[attr-defined]
    assert sum(int(live.sum()) for live in method.live.values()) == final
    assert method.figures["mutation/excess_last"] == 0
    assert method.figures["mutation/excess_max"] <= 0


def test_a_mutation_drops_the_least_important_and_draws_from_all_dead_ones() -> None:
    model = network()
    method = made(assigned(model), gradient_weight=2.0)
    method.start(model)
    live = method.live[CONV].clone()
    with torch.no_grad():
        for target in method.live:
            weight = model.get_parameter(target.parameter)
            weight.copy_(torch.where(method.live[target], torch.randn(weight.shape), 0.0))
            weight.grad = torch.where(method.live[target], torch.randn(weight.shape), 0.0)
    weight = CONV.read(model)
    gradient = model.get_parameter("2.weight").grad
    assert gradient is not None
    importance = (weight.abs() + 2.0 * gradient.abs())[live].sort(descending=True).values
    num_kept = round(weight.numel() * (0.25 - 0.05))
    survivors = live & (weight.abs() + 2.0 * gradient.abs() >= importance[num_kept - 1])
    method.epoch_end(model)  # epoch 1 of 8, where a mutation is due
    after = CONV.read(model)
    assert int(method.live[CONV].sum()) == weight.numel() // 4
    assert bool((method.live[CONV] | ~survivors).all()), "a survivor was dropped"
    assert after[survivors].equal(weight[survivors])
    assert not after[~survivors].any(), "grown weights start at zero"
    grown = method.live[CONV] & ~survivors
    assert 0 < int((grown & live).sum()) < int(grown.sum()), "some come back at once, some are new"


def test_a_grown_weight_that_is_still_zero_outlives_the_dead() -> None:
    model = network()
    method = made(assigned(model), schedule=EM)
    method.start(model)
    with torch.no_grad():
        CONV.view(model).zero_()
    live = method.live[CONV].clone()
    kept = method._kept(model, CONV, method.sets[CONV])
    assert kept.equal(live)


def test_growth_by_gradient_takes_the_largest_dead_ones_and_is_charged_for_one_step_a_mutation() -> None:
    model = network()
    method = made(assigned(model), regrowth=GradientGrowth())
    method.start(model)
    method.due = False
    method.epoch_end(model)
    assert method.due
    live, weight = method.live[CONV].clone(), CONV.read(model)
    for target in method.live:
        parameter = model.get_parameter(target.parameter)
        parameter.grad = torch.randn(parameter.shape)
    gradient = model.get_parameter("2.weight").grad
    assert gradient is not None
    dense = gradient.abs().clone()
    method.add_penalty_grad(model)
    num_kept, num_held = round(weight.numel() * 0.2), weight.numel() // 4
    survivors = live & (weight.abs() >= weight[live].abs().sort(descending=True).values[num_kept - 1])
    grown = method.live[CONV] & ~survivors
    assert int(grown.sum()) == num_held - num_kept
    left_out = ~method.live[CONV]
    assert dense[grown].min() >= dense[left_out].max()
    assert not gradient[left_out].any()
    assert method.dense_steps == 1
    trained(model, charged := made(assigned(model), schedule=EM, regrowth=GradientGrowth()))
    assert [used["dense_steps"] for used in charged.history] == [1] * 8
    trained(model, always := made(assigned(model), schedule=STATIC, regrowth=MomentumGrowth(0.5)))
    assert [used["dense_steps"] for used in always.history] == [3] * 8
    trained(model, never := made(assigned(model)))
    assert [used["dense_steps"] for used in never.history] == [0] * 8


def test_momentum_growth_averages_dense_gradients() -> None:
    growth = MomentumGrowth(0.75)
    for value in (4.0, 8.0):
        growth.observe({CONV: torch.tensor([value, -1.0])})
    assert growth.momentum[CONV].tolist() == pytest.approx([0.75 * 1.0 + 0.25 * 8.0, -0.75 * 0.25 - 0.25])
    score = growth.score(CONV, Sparse(UNSTRUCTURED, 2.0), torch.zeros(2), torch.Generator())
    assert score.max() == 1
    with pytest.raises(ValueError, match=r"regrowth\.decay=1 "):
        MomentumGrowth(1.0)


def test_one_mask_stays_the_same() -> None:
    model = network()
    method = made(assigned(model), schedule=STATIC)
    method.start(model)
    first = {target: live.clone() for target, live in method.live.items()}
    frozen = trained(model, method)
    assert all(live.equal(first[target]) for target, live in method.live.items())
    assert all(isinstance(part, Support) and part.structure == "unstructured" for _, part in frozen.parts)


def test_draws_follow_from_seed_epoch_and_layer() -> None:
    def drawn(seed: int, epochs_before: int) -> Mapping[Target, Tensor]:
        model = network()
        method = made(assigned(model), seed=seed)
        method.start(model)
        for _ in range(epochs_before):
            torch.rand(7)  # what else is drawn in between plays no part
            method.epoch_end(model)
        return method.live

    assert all(live.equal(drawn(0, 2)[target]) for target, live in drawn(0, 2).items())
    assert not drawn(0, 2)[CONV].equal(drawn(1, 2)[CONV])
    assert not drawn(0, 2)[CONV].equal(drawn(0, 1)[CONV])


def test_a_checkpoint_of_another_structure_is_refused() -> None:
    model = network()
    first, second = made(assigned(model, "filter")), made(assigned(model, "block"))
    first.start(model)
    second.start(model)
    with pytest.raises(ValueError, match=r"masks of structure 'filter' for 2\.weight, this run asks for 'block_column 4'; start anew"):
        second.load_state_dict(first.state_dict())


@pytest.mark.parametrize("make", [partial(NM, 1, 4), partial(GlobalSparse, UNSTRUCTURED, 4.0)], ids=["N:M", "all layers in one"])
def test_a_set_that_does_not_regrow_is_refused(make: Callable[..., Constraint]) -> None:
    with pytest.raises(ValueError, match=r"sparse training prunes .* takes (NM|GlobalSparse), which does not\. Take unstructured"):
        made(Assignment([((CONV,), make())]))


@pytest.mark.parametrize(
    ("rate", "schedule", "message"),
    [
        (25.0, EM, r"2\.weight: the asked sparsity keeps 0\.04 of the weights, which prune_above=0\.05 would empty"),
        (1.05, EMS, r"2\.weight: .* grow_below=0\.1 grow beyond 1;"),
    ],
)
def test_a_schedule_that_a_layer_cannot_follow_is_refused(rate: float, schedule: MutationSchedule, message: str) -> None:
    model = network()
    method = made(assigned(model, rate=rate), schedule=schedule)
    with pytest.raises(ValueError, match=message):
        method.start(model)


def test_a_negative_weight_of_the_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.gradient_weight=-1 "):
        made(assigned(network()), gradient_weight=-1.0)
