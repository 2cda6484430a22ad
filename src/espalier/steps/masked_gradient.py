"""The check that a sparse method reads no gradient of a dead weight."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytorch_lightning as pl
import torch

from espalier.methods import SparseTraining
from espalier.steps.context import Context
from espalier.steps.fit import Optimizer, Schedule, fit
from espalier.steps.sparse_train import prepared, settled_state
from espalier.steps.state import State
from espalier.steps.training import Assign, restored


class Poison(pl.Callback):
    """Put NaN into the gradient of every dead weight, right after the backward pass."""

    def __init__(self, method: SparseTraining) -> None:
        self.method = method

    @torch.no_grad()
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer
        for target, live in self.method.live.items():
            gradient = target.gradient(pl_module.get_submodule("model"))
            assert gradient is not None
            gradient.masked_fill_(~live.to(gradient.device), torch.nan)


def masked_gradient(
    state: State,
    context: Context,
    *,
    epochs: int,
    optimizer: Optimizer,
    schedule: Schedule,
    method: Callable[..., SparseTraining],
    constraint: Assign,
) -> State:
    """Train twice from the same weights, once with NaN for every gradient of a dead weight; record the largest difference of a weight.

    Source: mest, claim 4. A method that reads one of them ends with NaN, which counts as an infinite difference.

    Args:
        state: Usually untrained.
        context: The step's surroundings.
        epochs: Epochs of each training.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate.
        method: Builds the method from the assignment.
        constraint: Gives each layer its set at the asked sparsity.

    Raises:
        ValueError: The method reads dense gradients by its nature.
    """
    start = state if state.weights else replace(state, weights=restored(state, context).state_dict())
    states = []
    for poisoned in (False, True):
        model = restored(start, context)
        runner = prepared(start, model, epochs=epochs, method=method, constraint=constraint)
        if runner.regrowth.dense_at_mutations:
            raise ValueError(
                f"{type(runner.regrowth).__name__} grows by dense gradients, so that step '{context.name}' has nothing to check."
            )
        surroundings = replace(context, folder=context.folder / "poisoned", on_epoch=partial(_again, context)) if poisoned else context
        fitted = fit(
            model,
            surroundings,
            epochs=epochs,
            first_epoch=start.epochs,
            optimizer=optimizer,
            schedule=schedule,
            method=runner,
            callbacks=[Poison(runner)] if poisoned else [],
        )
        states.append(settled_state(start, model, runner, surroundings, fitted=fitted))
    plain, poisoned_weights = (each.weights for each in states)
    differences = [float((plain[name].double() - poisoned_weights[name].double()).abs().max()) for name in plain]
    worst = max(math.inf if math.isnan(difference) else difference for difference in differences)
    return replace(states[0], metrics={**states[0].metrics, "check/weights_difference_max": worst})


def _again(context: Context, progress: int, _: dict[str, float]) -> None:
    """Report an epoch of the second training, for whoever counts epochs or waits for one to end: its number anew, and no figures."""
    context.on_epoch(progress, {})
