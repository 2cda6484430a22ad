"""The steps that train: freely, into a constraint, and within what a constraint froze."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from espalier.constraints import Assignment, Sparse, Support
from espalier.methods import MaskedRetraining, Method
from espalier.steps.context import Context, DesignerContext
from espalier.steps.fit import Fitted, Optimizer, Schedule, fit
from espalier.steps.state import State
from espalier.tasks import accuracy, batch_norms, recalibrated
from espalier.tasks.journal import Series

Assign = Callable[[nn.Module], Assignment]


def train(state: State, context: Context, *, epochs: int, optimizer: Optimizer, schedule: Schedule) -> State:
    """Train the dense network; the epoch that validation chose is kept.

    Args:
        state: The network.
        context: The step's surroundings.
        epochs: Epochs, at least 1.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate, epoch by epoch.
    """
    model = restored(state, context)
    fitted = fit(model, context, epochs=epochs, first_epoch=state.epochs, optimizer=optimizer, schedule=schedule, method=None)
    return trained(state, model, fitted, context, epochs=epochs)


def constrain(
    state: State,
    context: Context,
    *,
    epochs: int,
    optimizer: Optimizer,
    schedule: Schedule,
    method: Callable[..., Method],
    constraint: Assign,
    freeze: bool,
) -> State:
    """Train into a constraint, then project the last weights and freeze the choice (progressive-admm, M2: last, not best).

    The accuracy of the projected weights before any retraining is recorded as ``hard/top1_pct``, that of the same weights before the
    projection as ``hard/top1_pct_before``, and that after recalibrating batch norm, on networks that have it, as
    ``hard/top1_pct_bn_recalibrated``.

    Stops where an earlier step left less than is asked, before training and again with the final weights.

    Args:
        state: The network and what earlier steps froze.
        context: The step's surroundings.
        epochs: Epochs; 0 projects at once.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate.
        method: Builds the method from the assignment.
        constraint: Gives each layer its set.
        freeze: False leaves the weights near the set, for a partial map to bring in.

    Raises:
        ValueError: A layer misses its rate by over 1 % and more than one group.
    """
    model = restored(state, context)
    asked = constraint(model)
    assignment = asked.within(held_by(asked, state.frozen))
    meets_rate(assignment.freeze(assignment.read(model)), asked, context)
    runner = method(assignment, epochs=epochs, frozen=state.frozen)
    series: Series = {}
    if epochs:
        examine = hard_pruned(assignment, context)
        fitted = fit(
            model,
            context,
            epochs=epochs,
            first_epoch=state.epochs,
            optimizer=optimizer,
            schedule=schedule,
            method=runner,
            examine=examine,
        )
        series = fitted.series
    admm = {name: points[-1][1] for name, points in series.items() if name.startswith("admm/")}
    after = replace(
        state,
        weights=weights_of(model),
        metrics={**state.metrics, **admm},
        series=state.extended(series),
        epochs=state.epochs + epochs,
    )
    if not freeze:
        after.metrics |= hard_pruned(assignment, context)(model)
        return after
    before = accuracy(model, context.data.val_loader())
    frozen = runner.settle(model)
    outside = frozen.outside(frozen.read(model))
    meets_rate(frozen, asked, context)
    after.frozen = frozen if state.frozen is None else state.frozen.merged(frozen)
    after.weights = weights_of(model)
    hard = hard_figures(model, context)
    after.metrics |= {**hard, "val/top1_pct": hard["hard/top1_pct"], "hard/top1_pct_before": before, "weights_outside_set": float(outside)}
    return after


def retrain(state: State, context: Context, *, epochs: int, optimizer: Optimizer, schedule: Schedule) -> State:
    """Train within the frozen sets; the epoch that validation chose is kept.

    Args:
        state: The network and what earlier steps froze.
        context: The step's surroundings.
        epochs: Epochs, at least 1.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate, epoch by epoch.

    Raises:
        ValueError: No earlier step froze anything.
    """
    if state.frozen is None:
        raise ValueError(
            f"step '{context.name}' retrains within frozen sets, but no earlier step froze any; put a constrain step before it."
        )
    model = restored(state, context)
    method = MaskedRetraining(state.frozen)
    fitted = fit(model, context, epochs=epochs, first_epoch=state.epochs, optimizer=optimizer, schedule=schedule, method=method)
    after = trained(state, model, fitted, context, epochs=epochs)
    after.metrics["weights_outside_set"] = float(state.frozen.outside(state.frozen.read(model)))
    after.metrics["retrain/train_loss_mean"] = sum(value for _, value in fitted.series["train/loss"]) / epochs
    return after


def restored(state: State, context: Context) -> nn.Module:
    """Return the state's network: rewritten as the state says and filled; untrained where there are no weights yet."""
    return state.rebuilt(context.model)


def held_by(asked: Assignment, frozen: Assignment | None) -> Assignment | None:
    """Return those frozen parts that ``asked`` constrains further."""
    if frozen is None:
        return None
    parts = [(targets, part) for targets, part in frozen.parts if set(targets) & set(asked.targets)]
    return Assignment(parts) if parts else None


def meets_rate(frozen: Assignment, asked: Assignment, context: Context | DesignerContext) -> None:
    """Check that each frozen support keeps the groups its rate asks for; more are impossible.

    Raises:
        ValueError: A layer misses its count by over 1 % and by more than one group; the message says by how much and why.
    """
    constraints = {target: constraint for targets, constraint in asked.parts for target in targets}
    for targets, support in frozen.parts:
        for target in targets:
            constraint = constraints[target]
            if not (isinstance(constraint, Sparse) and isinstance(support, Support)):
                continue
            kept, (wanted, total) = constraint.kept(support.masks[target]), constraint.count(support.masks[target].shape)
            if wanted - kept > max(1, wanted / 100):
                raise ValueError(
                    f"step '{context.name}': {target} would keep {kept:,} of {total:,} groups ({constraint.structure.name}) where rate "
                    f"{constraint.rate:g} asks for {wanted:,}, because an earlier step left no more; ask for a rate of at least "
                    f"{total / max(kept, 1):.4g} here, or for a lower one before."
                )


def hard_pruned(assignment: Assignment, context: Context) -> Callable[[nn.Module], dict[str, float]]:
    """Return a function that gives ``hard_figures`` of a model after projecting its weights; the model is left as it was."""

    @torch.no_grad()
    def examine(model: nn.Module) -> dict[str, float]:
        weights = assignment.read(model)
        assignment.write(model, assignment.project(weights))
        figures = hard_figures(model, context)
        assignment.write(model, weights)
        return figures

    return examine


def hard_figures(model: nn.Module, context: Context) -> dict[str, float]:
    """Return the validation accuracy of a model whose weights are projected, with and without batch norm recalibrated."""
    figures = {"hard/top1_pct": accuracy(model, context.data.val_loader())}
    if context.bn_images and batch_norms(model):
        kept = weights_of(model)
        model.load_state_dict(recalibrated(model, context.data.calibration_loader(), num_images=context.bn_images), strict=False)
        figures["hard/top1_pct_bn_recalibrated"] = accuracy(model, context.data.val_loader())
        model.load_state_dict(kept)
    return figures


def weights_of(model: nn.Module) -> dict[str, Any]:
    """Return a copy of the model's state dict on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def trained(state: State, model: nn.Module, fitted: Fitted, context: Context, *, epochs: int) -> State:
    """Return the state after training: the weights that validation chose, their accuracy, and the series."""
    model.load_state_dict(fitted.best)
    metrics = {**state.metrics, "val/top1_pct": max(value for _, value in fitted.series["val/top1_pct"])}
    if context.test_every_epoch:
        metrics["top1_pct_best_test"] = max(value for _, value in fitted.series["test/top1_pct"])
    return replace(state, weights=weights_of(model), metrics=metrics, series=state.extended(fitted.series), epochs=state.epochs + epochs)
