"""Group penalties, primal-proximal training and iterative magnitude pruning: formulas, both loops, and what they refuse."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loops import OPTIMIZERS, bare_loop, context, network
from torch import nn

from espalier.constraints import (
    BLOCK_COLUMN,
    BLOCK_ROW,
    COLUMN,
    FILTER,
    NM,
    Assignment,
    CommonThreshold,
    FilterColumn,
    Sparse,
    Support,
    Target,
    Threshold,
    UniformLevels,
    assign,
)
from espalier.methods import IterativeMagnitude, PrimalProximal, Reweighted, RhoSchedule
from espalier.methods.method import Method
from espalier.methods.primal_proximal import prox
from espalier.steps import Context
from espalier.steps.fit import fit
from espalier.tasks import constant

W = Target("weight")
FORMS = ["sq", "mix", "lin", "fixed"]


def common(model: nn.Module, rate: float = 3.0, skip: Sequence[str] = ()) -> Assignment:
    make = partial(CommonThreshold, [BLOCK_ROW.sized([4, 6]), BLOCK_COLUMN.sized([4])])
    return assign(model, make, rate=rate, skip=skip, rate_of="weights")


def linear(values: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(values[0]), len(values), bias=False)
    layer.weight.data = torch.tensor(values)
    layer.weight.grad = torch.zeros_like(layer.weight)
    return layer


def penalty(assignment: Assignment, *, epochs: int = 4, **changes: Any) -> Reweighted:
    settings: dict[str, Any] = {"form": "sq", "strength": 1.0, "lr": 1e-4, "refresh_at": [0.5], "eps": 0.01, "normalise": False}
    return Reweighted(assignment, epochs=epochs, **settings | changes)


def value(method: Reweighted, weights: Mapping[Target, torch.Tensor]) -> torch.Tensor:
    """Return the penalty whose gradient the method adds, its weights held."""
    terms = []
    for (target, structure, _), factor_G in zip(method.groups, method.factors, strict=True):
        square_G = structure.scores(weights[target])
        terms.append((factor_G * (square_G if method.form == "sq" else (square_G + 1e-12).sqrt())).sum())
    return torch.stack(terms).sum()


def reweighted(assignment: Assignment, *, epochs: int, frozen: Assignment | None = None) -> Reweighted:
    return Reweighted(assignment, epochs=epochs, form="lin", strength=1e-2, lr=0.05, refresh_at=[0.25, 0.5, 0.75], eps=1e-3, frozen=frozen)


def proximal(assignment: Assignment, *, epochs: int, frozen: Assignment | None = None) -> PrimalProximal:
    return PrimalProximal(assignment, epochs=epochs, num_periods=4, rho=RhoSchedule(0.1, 1.5), tau=None, dual=True, frozen=frozen)


def iterative(assignment: Assignment, *, epochs: int, frozen: Assignment | None = None) -> IterativeMagnitude:
    return IterativeMagnitude(assignment, epochs=epochs, num_rounds=3, frozen=frozen)


METHODS: dict[str, Callable[..., Method]] = {"reweighted": reweighted, "primal_proximal": proximal, "iterative": iterative}
BY_METHOD = pytest.mark.parametrize("kind", METHODS)


@pytest.mark.parametrize(
    ("form", "expected"), [("sq", 25 / 25.01), ("mix", 5 / 25.01 + 1e-4), ("lin", 5 / 5.01 + 1e-4), ("fixed", 5.0 + 1e-6)]
)
def test_the_penalty_of_a_hand_case(form: str, expected: float) -> None:  # the dead group adds its weight times the root of 1e-12
    model = linear([[3.0, 4.0], [0.0, 0.0]])
    method = penalty(Assignment([((W,), Sparse(BLOCK_ROW.sized([2, 2]), 1))]), form=form)
    method.start(model)
    assert float(value(method, {W: model.weight.detach()})) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_that_of_the_penalty_with_its_weights_held(form: str, normalise: bool) -> None:
    torch.manual_seed(0)
    model = network()
    assignment = common(model)
    method = penalty(assignment, form=form, normalise=normalise, strength=0.1)
    method.start(model)
    for parameter in model.parameters():
        parameter.data += 0.01
        parameter.grad = torch.zeros_like(parameter)
    weights = {target: target.read(model).requires_grad_() for target in assignment.targets}
    value(method, weights).backward()
    method.add_penalty_grad(model)
    for target, weight in weights.items():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, "a penalty without gradient prunes by magnitude alone"
        torch.testing.assert_close(model.get_parameter(target.parameter).grad, weight.grad)


def test_the_inert_penalty_has_no_gradient() -> None:
    model = linear([[3.0, 4.0], [1.0, 0.0]])
    method = penalty(Assignment([((W,), Sparse(FILTER, 1))]), inert=True, proximal=0.1)
    method.start(model)
    method.add_penalty_grad(model)
    method.after_step(model)
    assert model.weight.grad is not None
    assert not model.weight.grad.any()
    assert model.weight.flatten().tolist() == [3.0, 4.0, 1.0, 0.0]


@pytest.mark.parametrize("form", FORMS)
def test_no_step_takes_more_than_half_of_a_weight(form: str) -> None:
    model = linear([[3.0, 4.0], [0.003, 0.004]])
    method = penalty(Assignment([((W,), Sparse(FILTER, 1))]), form=form, eps=1e-6, strength=10.0, lr=0.1, epochs=8)
    method.start(model)
    model.weight.data[1] *= 10  # the dead group comes back between refreshes, its weight still that of a dead one
    before = model.weight.detach().clone()
    stepper = torch.optim.SGD(model.parameters(), lr=0.1)
    method.add_penalty_grad(model)
    stepper.step()
    assert torch.equal(model.weight[1], before[1] * 0.5)
    assert (model.weight > 0).all()


def test_small_groups_are_pulled_harder_than_large_ones_and_fixed_lasso_pulls_all_alike() -> None:
    model = linear([[3.0, 4.0], [0.3, 0.4]])
    pulls = {}
    for form in ("sq", "lin", "fixed"):
        method = penalty(Assignment([((W,), Sparse(FILTER, 1))]), form=form)
        method.start(model)
        model.weight.grad = torch.zeros_like(model.weight)
        method.add_penalty_grad(model)
        pulls[form] = model.weight.grad.norm(dim=1)
    assert pulls["sq"][1] > 5 * pulls["sq"][0]
    assert pulls["lin"][1] > 5 * pulls["lin"][0]
    assert pulls["fixed"].tolist() == pytest.approx([1.0, 1.0])


def test_weights_of_groups_are_taken_at_refreshes_alone() -> None:
    model = linear([[3.0, 4.0], [0.3, 0.4]])
    method = penalty(Assignment([((W,), Sparse(FILTER, 1))]), epochs=4)
    assert method.milestones == [2]
    method.start(model)
    factors = method.factors[0].clone()
    model.weight.data *= 0.1
    method.epoch_end(model)
    assert torch.equal(method.factors[0], factors)
    assert method.figures == {}
    method.epoch_end(model)
    assert method.factors[0].tolist() == pytest.approx([1 / 0.26, 1 / 0.0125])
    assert 0 < method.figures["groups/live_pct"] < 100


def test_two_groupings_share_lambda_and_costs_weigh_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    make = partial(CommonThreshold, [FILTER, COLUMN])
    assignment = assign(model, make, rate=1.0, rate_of="macs", costs={"0": 3.0, "1": 1.0})
    method = penalty(assignment, form="fixed", by_cost=True, strength=1.0)
    method.start(model)
    mean = (3 * 16 + 8) / 2
    assert [float(factor_G[0]) for factor_G in method.factors] == pytest.approx([24 / mean, 24 / mean, 4 / mean, 4 / mean])
    with pytest.raises(ValueError, match=r"Sparse has no costs; take .*rate_of=macs, or set by_cost to false"):
        penalty(assign(model, partial(Sparse, FILTER), rate=2.0), by_cost=True).start(model)


@pytest.mark.parametrize("form", ["lin", "fixed"])
def test_the_proximal_map_gives_exact_zeros(form: str) -> None:
    model = linear([[3.0, 4.0], [0.03, 0.04]])
    method = penalty(Assignment([((W,), Sparse(FILTER, 1))]), form=form, proximal=0.1)
    method.start(model)
    method.add_penalty_grad(model)
    assert model.weight.grad is not None
    assert not model.weight.grad.any()
    method.after_step(model)
    assert not model.weight[1].any()
    assert model.weight[0].norm().item() == pytest.approx(5 - 0.1 * (1.0 if form == "fixed" else 1 / 5.01), rel=1e-5)


def test_the_squared_penalty_never_overshoots_through_its_proximal_map() -> None:
    model = linear([[3.0, 4.0], [0.03, 0.04]])
    method = penalty(Assignment([((W,), Sparse(FILTER, 1))]), proximal=1e3)
    method.start(model)
    method.after_step(model)
    assert (model.weight > 0).all()
    assert model.weight.norm() < 5


@pytest.mark.parametrize(
    ("method", "constraint"),
    [
        (partial(penalty, epochs=4), NM(2, 4)),
        (partial(proximal, epochs=4), UniformLevels(3, zero=False)),
    ],
    ids=["penalty", "primal-proximal"],
)
def test_sets_without_groups_are_refused_with_the_reason(method: Callable[..., object], constraint: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"norms of groups; weight takes {type(constraint).__name__}, which has none\. Take a set of groups"
    ):
        method(Assignment([((W,), constraint)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda one: penalty(one, form="sqrt"), r"form=sqrt is no penalty; take one of sq, mix, lin, fixed"),
        (lambda one: penalty(one, eps=0.0), "eps=0.0"),
        (lambda one: penalty(one, lr=0.0), "lr=0.0"),
        (lambda one: penalty(one, refresh_at=[0.5, 0.2]), r"refresh_at=\[0\.5, 0\.2\] should rise between 0 and 1"),
        (
            lambda _: proximal(Assignment([((W,), Threshold([FILTER], 0.1))]), epochs=2),
            r"steers to the rate of a set, which Threshold has not\. Give method\.tau",
        ),
        (lambda one: PrimalProximal(one, epochs=2, num_periods=0, rho=RhoSchedule(1, 1), tau=0.1), "num_periods=0"),
        (lambda one: IterativeMagnitude(one, epochs=2, num_rounds=0), "num_rounds=0"),
        (
            lambda _: IterativeMagnitude(Assignment([((W,), Threshold([FILTER], 0.1))]), epochs=2, num_rounds=2),
            "raises a rate round by round; Threshold has none",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(make: Callable[[Assignment], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(Assignment([((W,), Sparse(FILTER, 2))]))


def test_the_soft_threshold_lowers_norms_and_keeps_directions() -> None:
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    tau_G = torch.tensor([0.0, 0.5, 1.0, 10.0, 0.1])
    shrunk = prox(weight, FILTER, tau_G)
    assert shrunk.norm(dim=1).tolist() == pytest.approx((weight.norm(dim=1) - tau_G).clamp_min(0).tolist(), abs=1e-6)
    assert torch.equal(shrunk[0], weight[0])
    assert torch.cosine_similarity(shrunk[1:3], weight[1:3]).tolist() == pytest.approx([1.0, 1.0])
    assert not prox(torch.zeros(2, 3), COLUMN, torch.ones(3)).any()


@pytest.mark.parametrize("dual", [False, True])
def test_primal_proximal_refreshes_as_the_paper_writes_it(dual: bool) -> None:
    model = linear([[3.0, 4.0], [0.3, 0.4]])
    assignment = Assignment([((W,), FilterColumn(2))])
    method = PrimalProximal(assignment, epochs=2, num_periods=2, rho=RhoSchedule(0.2, 2.0), tau=0.5, dual=dual)
    method.start(model)
    w0 = model.weight.detach().clone()
    tau_G = torch.full((2,), 0.5 * 2**0.5)
    z, y = prox(w0, FILTER, tau_G), prox(w0, COLUMN, tau_G)
    model.weight.data += 0.1
    w1 = model.weight.detach().clone()
    method.add_penalty_grad(model)
    torch.testing.assert_close(model.weight.grad, 0.2 * (w1 - z) + 0.2 * (w1 - y))
    method.epoch_end(model)
    u, v = (w1 - z, w1 - y) if dual else (torch.zeros(2, 2), torch.zeros(2, 2))
    torch.testing.assert_close(method.z[0], prox(w1 + u, FILTER, tau_G))
    torch.testing.assert_close(method.z[1], prox(w1 + v, COLUMN, tau_G))
    assert method.rho == pytest.approx(0.4)
    assert method.figures["groups/tau"] == 0.5
    model.weight.grad = torch.zeros(2, 2)
    method.add_penalty_grad(model)
    torch.testing.assert_close(model.weight.grad, 0.4 * (2 * w1 - method.z[0] - method.z[1] + u + v))


def test_a_steered_threshold_reaches_the_rate_and_then_stays() -> None:
    model = network()
    method = proximal(common(model, rate=4.0), epochs=4)
    method.start(model)
    taus = [method.tau]
    for _ in range(4):
        method.epoch_end(model)
        taus.append(method.tau)
    (part,) = (constraint for _, constraint in method.assignment.parts)
    assert isinstance(part, CommonThreshold)
    assert 0 < taus[0] < taus[1] < taus[2] == part.threshold(method.assignment.read(model))
    assert taus[3] == taus[4] == taus[2], "weights did not move; the last 30 % hold the threshold"


@pytest.mark.parametrize("score", ["energy", "rms"])
def test_each_layer_steers_to_its_own_rate(score: str) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"wide": nn.Linear(6, 40, bias=False), "narrow": nn.Linear(5, 10, bias=False)})
    wide, narrow = Target("wide.weight"), Target("narrow.weight")
    uneven = BLOCK_ROW.sized([4, 4])  # its last blocks are smaller
    sets = Assignment([((wide,), Sparse(FILTER, 8)), ((narrow,), Sparse(uneven, 3, score))])
    method = PrimalProximal(sets, epochs=4, num_periods=4, rho=RhoSchedule(0.1, 1.5), tau=None)
    method.start(model)
    for _ in range(4):
        method.epoch_end(model)
    assert method.taus[wide] != method.taus[narrow]
    assert method.tau == max(method.taus.values())
    kept = {target: int((grouping.scores(z) > 0).sum()) for (target, grouping, _), z in zip(method.groups, method.z, strict=True)}
    assert kept[wide] == 5
    assert 0 < kept[narrow] <= sets.parts[1][1].count((10, 5))[0]


def test_primal_proximal_finds_the_rows_and_columns_of_a_least_squares_problem() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(64, 48)
    truth[:16, :12] = torch.randn(16, 12, generator=generator) + torch.tensor(1.5)
    inputs = torch.randn(400, 48, generator=generator)
    outputs = inputs @ truth.T + 0.01 * torch.randn(400, 64, generator=generator)
    for tau in (0.02, 0.1):
        model = nn.Linear(48, 64, bias=False)
        nn.init.normal_(model.weight, std=0.1, generator=generator)
        method = PrimalProximal(
            Assignment([((W,), Threshold([FILTER, COLUMN], tau, relative=False))]),
            epochs=6,
            num_periods=6,
            rho=RhoSchedule(0.1, 1.0),
            tau=tau,
        )
        method.start(model)
        stepper = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(6):
            for _ in range(25):
                stepper.zero_grad()
                (0.5 * (model(inputs) - outputs).square().mean(0).sum()).backward()
                method.add_penalty_grad(model)
                stepper.step()
                method.after_step(model)
            method.epoch_end(model)
        found = method.settle(model).parts[0][1]
        assert isinstance(found, Support)
        assert torch.equal(found.masks[W], truth != 0)


def test_iterative_pruning_raises_the_rate_by_an_equal_factor_a_round() -> None:
    model = network()
    method = iterative(assign(model, partial(Sparse, BLOCK_COLUMN.sized([2])), rate=16.0), epochs=6)
    method.start(model)
    assert method.milestones == [2, 4]
    kept = []
    for _ in range(6):
        kept.append(sum(int((weight != 0).sum()) for weight in method.assignment.read(model).values()))
        method.epoch_end(model)
    total = sum(weight.numel() for weight in method.assignment.read(model).values())
    assert [total / kept[index] for index in (0, 2, 4)] == pytest.approx([2, 4, 8], rel=0.02)
    frozen = method.settle(model)
    assert total / sum(int(part.masks[target].sum()) for targets, part in frozen.parts for target in targets) == pytest.approx(16, rel=0.05)  # type: ignore[attr-defined]


@BY_METHOD
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bare_loop_and_lightning_agree_bit_for_bit(tmp_path: Path, kind: str, name: str) -> None:
    models = {"bare": network(), "lightning": network()}
    for loop, model in models.items():
        assignment = assign(model, partial(Sparse, FILTER), rate=2.0, skip=["3"])
        frozen = assignment.freeze(assignment.read(model))
        method = METHODS[kind](common(model).within(assignment_of(frozen, model)), epochs=3, frozen=frozen)
        if loop == "bare":
            bare_loop(model, method, OPTIMIZERS[name], epochs=3, clip=0.1, watch=frozen)
        else:
            fit(model, context(tmp_path, 0.1), epochs=3, first_epoch=0, optimizer=OPTIMIZERS[name], schedule=constant, method=method)
        held = method.settle(model)
        assert held.outside(held.read(model)) == 0 == frozen.outside(frozen.read(model))
    for bare, lightning in zip(models["bare"].parameters(), models["lightning"].parameters(), strict=True):
        assert torch.equal(bare, lightning)


def assignment_of(frozen: Assignment, model: nn.Module) -> Assignment:
    """Return the frozen part with the other layer free, so that a set over both fits inside."""
    free = {Target("3.weight"): torch.ones_like(model.get_parameter("3.weight"), dtype=torch.bool)}
    return Assignment([*frozen.parts, (tuple(free), Support(free, "filter"))])


@BY_METHOD
def test_a_restored_method_goes_on_as_if_nothing_had_happened(tmp_path: Path, kind: str) -> None:
    ends = {}
    for interrupted in (False, True):
        stopped: list[bool] = []

        def stop(progress: int, _: dict[str, float], *, at: bool = interrupted, stopped: list[bool] = stopped) -> None:
            if at and progress == 2 and not stopped:
                stopped.append(True)
                raise KeyError("stopped")

        surroundings = Context(**{**vars(context(tmp_path / str(interrupted), None)), "on_epoch": stop})
        arguments: dict[str, Any] = {"epochs": 4, "first_epoch": 0, "optimizer": OPTIMIZERS["sgd"], "schedule": constant}
        model = network()
        if interrupted:
            with pytest.raises(KeyError, match="stopped"):
                fit(model, surroundings, method=METHODS[kind](common(model), epochs=4), **arguments)
            model = network()
        ends[interrupted] = fit(model, surroundings, method=METHODS[kind](common(model), epochs=4), **arguments)
    assert ends[True].series == ends[False].series
    for name, weight in ends[False].last.items():
        assert torch.equal(weight, ends[True].last[name])


@BY_METHOD
def test_a_checkpoint_of_another_structure_or_of_other_layers_is_refused(kind: str) -> None:
    model = network()
    written = METHODS[kind](common(model), epochs=4)
    written.start(model)
    state = written.state_dict()

    def resume(assignment: Assignment) -> None:
        method = METHODS[kind](assignment, epochs=4)
        method.start(model)
        method.load_state_dict(state)

    resume(common(model))
    with pytest.raises(
        ValueError, match=r"made with structure 'block_row 4x6 \+ block_column 4' for 0\.weight, this run asks for 'filter'; start"
    ):
        resume(assign(model, partial(CommonThreshold, [FILTER]), rate=2.0, rate_of="weights"))
    with pytest.raises(ValueError, match=r"for 3\.weight, this run asks for 'none'; start anew"):
        resume(common(model, rate=1.05, skip=["3"]))


def test_a_debiased_copy_keeps_the_mean_norm_of_what_it_keeps() -> None:
    model = linear([[3.0, 4.0], [6.0, 8.0], [0.3, 0.4]])
    assignment = Assignment([((W,), Sparse(FILTER, 1))])
    method = PrimalProximal(assignment, epochs=2, num_periods=2, rho=RhoSchedule(1.0, 1.0), tau=2 * 0.5**0.5, debias=True)
    method.start(model)
    assert method.z[0].norm(dim=1).tolist() == pytest.approx([3 * 15 / 11, 8 * 15 / 11, 0.0])  # 5 and 10 less 2, scaled to their sum of 15
