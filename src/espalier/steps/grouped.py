"""The steps of group penalties: train under one, decide which groups go, and match the counts that another run decided on."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from espalier.constraints import CommonThreshold, Sparse, Support, Target, Threshold
from espalier.constraints.assignment import Assignment, prunable
from espalier.methods import Method
from espalier.methods.groups import check_grouped, groups_of, inner, units_of
from espalier.methods.method import settled
from espalier.steps.context import Context
from espalier.steps.fit import Optimizer, Schedule, fit
from espalier.steps.state import State
from espalier.steps.training import Assign, constrain, hard_figures, held_by, meets_rate, restored, weights_of
from espalier.tasks import accuracy


def penalise(
    state: State,
    context: Context,
    *,
    epochs: int,
    optimizer: Optimizer,
    schedule: Schedule,
    method: Callable[..., Method],
    constraint: Assign,
) -> State:
    """Train under a method's penalty and choose nothing yet; the last weights are kept.

    Args:
        state: The network and what earlier steps froze.
        context: The step's surroundings.
        epochs: Epochs, at least 1.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate.
        method: Builds the method from the assignment.
        constraint: Says which groups there are; its rate, if any, binds nobody but a method that steers towards it.
    """
    model = restored(state, context)
    asked = constraint(model)
    runner = method(asked.within(held_by(asked, state.frozen)), epochs=epochs, frozen=state.frozen)
    fitted = fit(model, context, epochs=epochs, first_epoch=state.epochs, optimizer=optimizer, schedule=schedule, method=runner)
    last = {name: points[-1][1] for name, points in fitted.series.items() if name.startswith("groups/")}
    val = {"val/top1_pct": fitted.series["val/top1_pct"][-1][1]}
    return replace(
        state,
        weights=weights_of(model),
        metrics={**state.metrics, **last, **val},
        series=state.extended(fitted.series),
        epochs=state.epochs + epochs,
    )


def decide(state: State, context: Context, *, constraint: Assign, dense: State) -> State:
    """Drop the groups that a set does not keep and freeze the choice, without training.

    Args:
        state: The network and what earlier steps froze.
        context: The step's surroundings.
        constraint: Gives each layer its set, or all layers the one they share.
        dense: The State before the penalty, against which the kept groups' norms are measured; a recipe names its step.

    Raises:
        ValueError: A set has no groups, or a layer misses its rate by over 1 % and more than one group.
    """
    model = restored(state, context)
    asked = constraint(model)
    check_grouped(asked, f"step '{context.name}'")
    assignment = asked.within(held_by(asked, state.frozen))
    before = accuracy(model, context.data.val_loader())
    weights, reference = assignment.read(model), assignment.read(restored(dense, context))
    frozen = settled(assignment, model)
    meets_rate(frozen, asked, context)
    hard = hard_figures(model, context)
    metrics = {
        **state.metrics,
        **hard,
        **group_figures(assignment, frozen, weights, reference),
        **depth_figures(assignment, model),
        "hard/top1_pct_before": before,
        "val/top1_pct": hard["hard/top1_pct"],
        "weights_outside_set": float(frozen.outside(frozen.read(model))),
    }
    merged = frozen if state.frozen is None else state.frozen.merged(frozen)
    return replace(state, weights=weights_of(model), frozen=merged, metrics=metrics)


def matched(
    state: State,
    context: Context,
    *,
    epochs: int,
    optimizer: Optimizer,
    schedule: Schedule,
    method: Callable[..., Method],
    constraint: Assign,
    start: State,
    like: State,
) -> State:
    """Go back to an earlier State and constrain it to as many groups a layer as another State kept; the epochs between are not counted.

    Args:
        state: Not read: what the step before it left.
        context: The step's surroundings.
        epochs: Epochs.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate.
        method: Builds the method from the assignment.
        constraint: ``Sparse`` sets of the structure whose groups are counted; their rate is replaced.
        start: The State to go on from.
        like: The State whose supports are counted.

    Raises:
        ValueError: The constraint is not ``Sparse``, or ``like`` froze no support of a layer.
    """
    del state
    masks = {target: part.masks[target] for targets, part in _parts(like) if isinstance(part, Support) for target in targets}

    def counted(model: nn.Module) -> Assignment:
        parts = []
        for targets, given in constraint(model).parts:
            for target in targets:
                if not isinstance(given, Sparse) or target not in masks:
                    raise ValueError(
                        f"step '{context.name}': {target} has no kept groups to match; take Sparse sets of layers that 'like' pruned."
                    )
                kept, (_, total) = given.kept(masks[target]), given.count(masks[target].shape)
                parts.append(((target,), Sparse(given.structure, total / kept, given.score)))
        return Assignment(parts)

    return constrain(start, context, epochs=epochs, optimizer=optimizer, schedule=schedule, method=method, constraint=counted, freeze=True)


def _parts(state: State) -> list[tuple[tuple[Target, ...], object]]:
    return [] if state.frozen is None else [(targets, part) for targets, part in state.frozen.parts]


def group_figures(
    assignment: Assignment, frozen: Assignment, weights: Mapping[Target, Tensor], dense: Mapping[Target, Tensor]
) -> dict[str, float]:
    """Return how far the norms of groups had parted before they were pruned, over all groupings of all layers.

    Args:
        assignment: The sets.
        frozen: The supports that were chosen.
        weights: Target -> weights before the prune.
        dense: Target -> weights before the penalty.
    """
    masks = frozen.project({target: torch.ones_like(weight) for target, weight in weights.items()})
    between = num_groups = collapsed = dropped = 0
    now = then = 0.0
    taus: dict[Target, float] = {}
    for targets, given in assignment.parts:
        if isinstance(part := inner(given), Threshold | CommonThreshold):
            taus |= dict.fromkeys(targets, part.threshold({target: weights[target] for target in targets}))
    units = units_of(assignment, weights)
    for target, structure, size_G in groups_of(assignment, weights):
        norm_G, kept_G = structure.scores(weights[target]).sqrt(), structure.scores(masks[target]) > 0
        middle = float(norm_G[kept_G].median())
        between += int(((norm_G > 0.05 * middle) & (norm_G < 0.3 * middle)).sum())
        num_groups += len(norm_G)
        now += float(norm_G[kept_G].sum())
        then += float(structure.scores(dense[target]).sqrt()[kept_G].sum())
        if target in taus:
            collapsed += int((norm_G / size_G.sqrt() < 0.2 * taus[target] * units[target])[~kept_G].sum())
            dropped += int((~kept_G).sum())
    figures = {"groups/between_pct": 100 * between / num_groups, "groups/survivor_norm_ratio": now / max(then, 1e-12)}
    tau = {"groups/tau": max(taus.values())} if taus else {}
    return figures | tau | ({"groups/collapsed_pct": 100 * collapsed / dropped} if dropped else {})


def depth_figures(assignment: Assignment, model: nn.Module) -> dict[str, float]:
    """Return the rates of parts of the network, by depth, and the smallest share of zero rows and columns over layers with such groups."""
    names = prunable(model)
    first = [name for name in names if model.get_parameter(name).ndim > 2][:1]
    parts = {"first": first, "last": names[-1:], "middle": [name for name in names[:-1] if name not in first]}
    constrained = [name for name in names if name in {target.parameter for target in assignment.targets}]
    half = (len(constrained) + 1) // 2
    parts |= {"first_half": constrained[:half], "second_half": constrained[half:]}
    figures = {f"layer/rate_{part}": _rate(model, those) for part, those in parts.items() if those}
    weights = assignment.read(model)
    for name, rows in (("filter", "rows"), ("column", "columns")):
        scores = [structure.scores(weights[target]) for target, structure, _ in groups_of(assignment, weights) if structure.name == name]
        if scores:
            figures[f"layer/{rows}_zero_pct_min"] = min(100 * float((score_G == 0).float().mean()) for score_G in scores)
    return figures


def _rate(model: nn.Module, names: list[str]) -> float:
    weights = [model.get_parameter(name) for name in names]
    return sum(weight.numel() for weight in weights) / max(sum(int(weight.count_nonzero()) for weight in weights), 1)
