"""The step that trains a sparse network from scratch, and what that costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from espalier.data import Removal
from espalier.methods import SparseTraining
from espalier.steps.context import Context
from espalier.steps.fit import Fitted, Optimizer, Schedule, fit
from espalier.steps.state import State
from espalier.steps.training import Assign, restored, weights_of
from espalier.tasks import ForgettingCallback, accuracy
from espalier.training_cost import EpochCost, Held, Layer, train_bytes, train_macs
from espalier.workload import workload


def sparse_train(
    state: State,
    context: Context,
    *,
    epochs: int,
    optimizer: Optimizer,
    schedule: Schedule,
    method: Callable[..., SparseTraining],
    constraint: Assign,
    removal: Removal | None,
) -> State:
    """Train within masks that mutate; the weights of the last epoch are kept, those of earlier ones lie in other masks.

    Counts forgetting events on the way, and where a removal is given goes on without the examples it names (mest, section 6).

    Args:
        state: Usually untrained.
        context: The step's surroundings.
        epochs: Epochs, at least 1.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate.
        method: Builds the method from the assignment.
        constraint: Gives each layer its set at the asked sparsity.
        removal: Which examples leave and when; None keeps all.

    Raises:
        ValueError: There is no epoch, or a set or schedule does not fit.
    """
    if epochs < 1:
        raise ValueError(f"step '{context.name}' has epochs={epochs}; sparse training takes at least one.")
    model = restored(state, context)
    runner = prepared(state, model, epochs=epochs, method=method, constraint=constraint)
    forgetting = ForgettingCallback(len(context.data.train), removal, epochs=epochs)
    fitted = fit(
        model,
        context,
        epochs=epochs,
        first_epoch=state.epochs,
        optimizer=optimizer,
        schedule=schedule,
        method=runner,
        forgetting=forgetting,
    )
    after = settled_state(state, model, runner, context, fitted=fitted)
    after.metrics |= costs(model, runner, context, samples=forgetting.samples(), momenta=momenta_of(optimizer))
    return after


def prepared(state: State, model: nn.Module, *, epochs: int, method: Callable[..., SparseTraining], constraint: Assign) -> SparseTraining:
    """Return the method for a network whose other layers earlier steps may have frozen.

    Raises:
        ValueError: An earlier step froze one of its layers.
    """
    asked = constraint(model)
    shared = {target for target in asked.targets if state.frozen is not None and target in state.frozen.targets}
    if shared:
        names = ", ".join(map(str, sorted(shared)))
        raise ValueError(f"an earlier step froze {names}; sparse training chooses masks of its own, put it first.")
    return method(asked, epochs=epochs, frozen=state.frozen)


def settled_state(state: State, model: nn.Module, runner: SparseTraining, context: Context, *, fitted: Fitted) -> State:
    """Return the state after training: the last weights in their masks, their accuracy, and what the method measured."""
    frozen = runner.settle(model)
    metrics = {**state.metrics, **runner.figures, "val/top1_pct": accuracy(model, context.data.val_loader())}
    metrics["weights_outside_set"] = float(frozen.outside(frozen.read(model)))
    metrics |= {name: points[-1][1] for name, points in fitted.series.items() if name.startswith("forget/")}
    if context.test_every_epoch:
        first = state.epochs + runner.schedule.starts(runner.epochs)[-1]  # earlier epochs may be denser than asked
        metrics["top1_pct_best_test"] = max(value for progress, value in fitted.series["test/top1_pct"] if progress > first)
    return replace(
        state,
        weights=weights_of(model),
        frozen=frozen if state.frozen is None else state.frozen.merged(frozen),
        metrics=metrics,
        series=state.extended(fitted.series),
        epochs=state.epochs + runner.epochs,
    )


def momenta_of(optimizer: Optimizer) -> int:
    """Return how many values an optimizer keeps for each weight: found by a step on two weights."""
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    made = optimizer([weight])
    made.step()
    return sum(isinstance(value, Tensor) and value.shape == weight.shape for value in made.state[weight].values())


def costs(model: nn.Module, runner: SparseTraining, context: Context, *, samples: Sequence[int], momenta: int) -> dict[str, float]:
    """Return ``train_macs`` and ``train_bytes`` of what the method held and read, epoch by epoch.

    Args:
        model: The network.
        runner: The method, its epochs done.
        context: The step's surroundings.
        samples: Presentations of examples in each epoch.
        momenta: Values that the optimizer keeps for each weight.
    """
    layers, activations = described(model, context)
    batch, dense = context.data.batch_size, runner.regrowth.dense_at_every_step
    epochs = [
        EpochCost(count, epoch["held"], count if dense else min(count, epoch["dense_steps"] * batch))
        for count, epoch in zip(samples, runner.history, strict=True)
    ]
    reads_dense = runner.regrowth.dense_at_mutations
    peak = max(
        train_bytes(
            layers,
            {
                str(target): Held(constraint, tuple(target.view(model).shape), epoch["held"][str(target)], dense=reads_dense)
                for target, constraint in runner.sets.items()
            },
            momenta=momenta,
            activations=batch * activations,
        )
        for epoch in runner.history
    )
    return {"train_macs": train_macs(layers, epochs), "train_bytes": peak}


def described(model: nn.Module, context: Context) -> tuple[dict[str, Layer], int]:
    """Return the network's layers with weights, and how many values they put out for one sample."""
    device = next(model.parameters()).device
    counts = workload(model, torch.zeros(1, *context.data.input_shape, device=device))
    layers: dict[str, Layer] = {}
    for operator in counts.operators:
        if operator.weight_name is not None:
            macs = operator.macs + (layers[operator.weight_name].macs if operator.weight_name in layers else 0)
            layers[operator.weight_name] = Layer(model.get_parameter(operator.weight_name).numel(), macs)
    return layers, sum(math.prod(operator.output_shape) for operator in counts.operators if operator.weight_name is not None)
