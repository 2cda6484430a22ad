"""The step that trains towards the outputs of an earlier network."""

from collections.abc import Callable

from espalier.methods import Distillation, MaskedRetraining
from espalier.steps.context import Context
from espalier.steps.fit import Optimizer, Schedule, fit
from espalier.steps.state import State
from espalier.steps.training import restored, trained


def distill(
    state: State,
    context: Context,
    *,
    epochs: int,
    optimizer: Optimizer,
    schedule: Schedule,
    teacher: State,
    distillation: Callable[..., Distillation],
) -> State:
    """Train on the labels and on a teacher's soft targets, within what earlier steps froze; the epoch that validation chose is kept.

    Args:
        state: The network to train, and what earlier steps froze.
        context: The step's surroundings.
        epochs: Epochs.
        optimizer: Parameters -> optimizer.
        schedule: Factor on the learning rate.
        teacher: The earlier State that teaches; a recipe names its step (``teacher: train``).
        distillation: Builds the loss term from the teacher's network.
    """
    model = restored(state, context)
    fitted = fit(
        model,
        context,
        epochs=epochs,
        first_epoch=state.epochs,
        optimizer=optimizer,
        schedule=schedule,
        method=None if state.frozen is None else MaskedRetraining(state.frozen),
        terms=[distillation(restored(teacher, context))],
    )
    after = trained(state, model, fitted, context, epochs=epochs)
    if state.frozen is not None:
        after.metrics["weights_outside_set"] = float(state.frozen.outside(state.frozen.read(model)))
    return after
