"""Pruning for a client on synthetic images: the designer's step, and the client's first look at what came back.

Source: privacy-pruning, P1-P4.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment
from espalier.data import SyntheticImages
from espalier.methods import Method
from espalier.steps.context import Context, DesignerContext
from espalier.steps.fit import Optimizer, Schedule
from espalier.steps.layer_units import Unit, units
from espalier.steps.matching import Part, match
from espalier.steps.state import State
from espalier.steps.training import Assign, hard_figures, held_by, meets_rate, restored, weights_of
from espalier.tasks.journal import Series

Objective = Literal["layer_wise", "whole_model"]
LayerInput = Literal["student", "teacher"]
Start = Literal["pruned", "original"]


def prune_synthetic(
    state: State,
    context: DesignerContext,
    *,
    epochs: int,
    batches: int,
    batch_size: int,
    optimizer: Optimizer,
    schedule: Schedule,
    method: Callable[..., Method],
    constraint: Assign,
    objective: Objective,
    layer_input: LayerInput,
    images: SyntheticImages,
) -> State:
    """Prune a trained network so that it computes on random images what it computed before, then freeze the choice of weights.

    No sample is read: the step is given none. Batch norm keeps the trained network's statistics; scale, shift and biases train with the
    weights of their layer.

    Args:
        state: The client's trained network and what earlier steps froze.
        context: The step's surroundings, without data.
        epochs: Epochs, of each layer where the objective is layer-wise.
        batches: Batches an epoch.
        batch_size: Images a batch; every batch is new.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate.
        method: Builds the method from the assignment.
        constraint: Gives each layer its set.
        objective: ``layer_wise`` matches each constrained layer's output, batch norm and ReLU included, in the order of the network;
            ``whole_model`` the logits alone, all layers at once.
        layer_input: What a layer sees: the output of the layers pruned before it (``student``), or of the trained ones (``teacher``).
        images: Where batches come from.

    Raises:
        ValueError: The step is given data, an option is unknown, a set spans layers that are pruned one by one, or a layer misses its rate.
    """
    _check(context, images, epochs=epochs, batches=batches, batch_size=batch_size, objective=objective, layer_input=layer_input)
    device = _device(context.trainer)
    model, teacher = (state.rebuilt(context.model).to(device).eval() for _ in range(2))
    asked = constraint(model)
    assignment = asked.within(held_by(asked, state.frozen))
    meets_rate(assignment.freeze(assignment.read(model)), asked, context)
    parts = _layers(model, teacher, assignment, layer_input) if objective == "layer_wise" else [_whole(model, teacher, assignment)]
    progress = match(
        model,
        parts,
        context,
        epochs=epochs,
        batches=batches,
        draw=lambda: images.draw(batch_size, context.form, teacher).to(device),
        optimizer=optimizer,
        schedule=schedule,
        method=partial(method, epochs=epochs, frozen=state.frozen),
        first_epoch=state.epochs,
    )
    frozen = Assignment([part for settled in progress.frozen for part in Assignment.frozen_from_state(settled).parts])
    model.cpu()
    meets_rate(frozen, asked, context)
    outside = frozen.outside(frozen.read(model))
    return replace(
        state,
        weights=weights_of(model),
        frozen=frozen if state.frozen is None else state.frozen.merged(frozen),
        metrics={
            **state.metrics,
            **_last(progress.series),
            "synthetic/epochs": float(progress.epochs),
            "weights_outside_set": float(outside),
        },
        series=state.extended(progress.series),
        epochs=state.epochs + progress.epochs,
    )


def receive(state: State, context: Context, *, start: Start, original: State) -> State:
    """Validate what a designer sent back, as it is, on the client's own images, and choose the weights to retrain from.

    Args:
        state: The pruned network.
        context: The step's surroundings.
        start: ``pruned`` retrains the designer's weights; ``original`` uses the mask alone, on the weights of ``original``.
        original: The State of the network before pruning; a recipe names its step.

    Raises:
        ValueError: No earlier step froze anything, ``start`` is unknown, or the original is not the network that was pruned.
    """
    if state.frozen is None or start not in get_args(Start):
        raise ValueError(
            f"step '{context.name}' takes a network that an earlier step pruned, and start=pruned or original, not {start}; "
            "put prune_synthetic before it."
        )
    if start == "original" and state.rewrites != original.rewrites:
        raise ValueError(f"step '{context.name}': start=original, but the network was rewritten since; take start=pruned.")
    model = restored(state, context)
    if start == "original":
        model.load_state_dict(original.weights)
        with torch.no_grad():
            state.frozen.write(model, state.frozen.project(state.frozen.read(model)))
    figures = hard_figures(model, context)
    metrics = {**state.metrics, **figures, "val/top1_pct": figures["hard/top1_pct"]}
    return replace(state, weights=weights_of(model), metrics=metrics)


def _check(
    context: DesignerContext, images: SyntheticImages, *, epochs: int, batches: int, batch_size: int, objective: str, layer_input: str
) -> None:
    if not isinstance(context, DesignerContext):
        raise ValueError(f"a designer's step takes a DesignerContext, which leads to no sample, not a {type(context).__name__}.")
    where = f"step '{context.name}'"
    if not hasattr(images, "draw"):
        raise ValueError(f"{where} draws its own images and takes no {type(images).__name__}; give it a source such as UniformImages.")
    for key, value in (("epochs", epochs), ("batches", batches), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{where}: {key}={value}; give at least 1.")
    for key, choice, known in (("objective", objective, get_args(Objective)), ("layer_input", layer_input, get_args(LayerInput))):
        if choice not in known:
            raise ValueError(f"{where}: {key}={choice} is not one of {', '.join(known)}.")


def _whole(model: nn.Module, teacher: nn.Module, assignment: Assignment) -> Part:
    def outputs(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = teacher(images)
        return model(images), wanted

    return Part("output", assignment, list(model.parameters()), outputs)


def _layers(model: nn.Module, teacher: nn.Module, assignment: Assignment, layer_input: LayerInput) -> list[Part]:
    owners: dict[str, list[int]] = {}
    for index, (targets, constraint) in enumerate(assignment.parts):
        names = {target.parameter.rpartition(".")[0] for target in targets}
        if len(names) > 1:
            raise ValueError(
                f"{type(constraint).__name__} spans {', '.join(sorted(names))}, which a layer-wise objective prunes one by one; "
                "take a set for each layer, or objective: whole_model."
            )
        owners.setdefault(names.pop(), []).append(index)
    pairs = zip(units(model, [*owners]), units(teacher, [*owners]), strict=True)
    return [_layer(own, trained, Assignment([assignment.parts[at] for at in owners[own.name]]), layer_input) for own, trained in pairs]


def _layer(own: Unit, trained: Unit, assignment: Assignment, layer_input: LayerInput) -> Part:
    def outputs(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            if layer_input == "student":
                inputs, wanted = own.before(images), trained.through(images)
            else:
                inputs = trained.before(images)
                wanted = trained(inputs)
        return own(inputs), wanted

    return Part(own.name, assignment, [parameter for module in own.modules for parameter in module.parameters()], outputs)


def _last(series: Series) -> dict[str, float]:
    """Return the last figure of each series that says how the pruning ended, and the largest residual over all layers."""
    ends = {name: points[-1][1] for name, points in series.items() if name.startswith(("admm/", "synthetic/"))}
    residuals = [value for name, value in ends.items() if name.startswith("admm/residual/")]
    return ends | ({"admm/residual_max": max(residuals)} if residuals else {})


def _device(trainer: Mapping[str, object]) -> torch.device:
    asked = trainer["accelerator"]
    return torch.device("cuda" if asked in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")
