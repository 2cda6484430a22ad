"""Analytic steps: what a training would cost, without training."""

from collections.abc import Callable
from dataclasses import replace

import torch

from espalier.methods import SparseTraining
from espalier.steps.context import Context
from espalier.steps.sparse_train import costs, described, prepared
from espalier.steps.state import State
from espalier.steps.training import Assign, restored, weights_of
from espalier.training_cost import EpochCost, train_bytes, train_macs

MOMENTA = 1  # of SGD with momentum, the training that is counted here


def dense_cost(state: State, context: Context, *, num_epochs: int, samples: int) -> State:
    """Record ``train_macs`` and ``train_bytes`` of a dense training.

    Args:
        state: The network; nothing is trained.
        context: The step's surroundings.
        num_epochs: Epochs of the training that is counted.
        samples: Examples of each epoch.
    """
    model = restored(state, context)
    layers, activations = described(model, context)
    metrics = {
        "train_macs": train_macs(layers, [EpochCost(num_epochs * samples, {})]),
        "train_bytes": train_bytes(layers, {}, momenta=MOMENTA, activations=context.data.batch_size * activations),
    }
    return replace(state, weights=weights_of(model), metrics={**state.metrics, **metrics})


def sparse_cost(
    state: State,
    context: Context,
    *,
    num_epochs: int,
    samples: int,
    method: Callable[..., SparseTraining],
    constraint: Assign,
) -> State:
    """Record the same of a sparse training: the method goes through its epochs on weights that nothing trains, with gradients of zero.

    The network that comes out has its first weights in the last masks.

    Args:
        state: The network.
        context: The step's surroundings.
        num_epochs: Epochs of the training that is counted.
        samples: Examples of each epoch.
        method: Builds the method from the assignment.
        constraint: Gives each layer its set at the asked sparsity.
    """
    model = restored(state, context)
    runner = prepared(state, model, epochs=num_epochs, method=method, constraint=constraint)
    untrained = runner.assignment.read(model)
    runner.start(model)
    for _ in range(num_epochs):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        runner.add_penalty_grad(model)
        runner.epoch_end(model)
    frozen = runner.settle(model)
    frozen.write(model, frozen.project(untrained))  # weights that grew are still at zero
    spent = costs(model, runner, context, samples=[samples] * num_epochs, momenta=MOMENTA)
    return replace(state, weights=weights_of(model), frozen=frozen, metrics={**state.metrics, **runner.figures, **spent})
