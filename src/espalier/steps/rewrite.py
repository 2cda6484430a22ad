"""The step that changes what the network computes."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from espalier.constraints import Assignment
from espalier.rewrites import Rewrite, rewritten
from espalier.steps.context import Context
from espalier.steps.state import State
from espalier.steps.training import restored, weights_of
from espalier.tasks import accuracy


@torch.no_grad()
def rewrite(state: State, context: Context, *, rewrites: Sequence[Rewrite]) -> State:
    """Apply rewrites to the network; validation accuracy is measured anew. Later steps, and whoever loads the checkpoint, replay them.

    Args:
        state: A trained network.
        context: The step's surroundings.
        rewrites: Each ``{"_target_": importable name, **plain arguments}``, in order.

    Raises:
        ValueError: A rewrite does not exist or refuses the network, or moves weights out of what an earlier step froze.
    """
    model = rewritten(restored(state, context), rewrites)
    if state.frozen is not None:
        for targets, frozen in state.frozen.parts:
            part = Assignment([(targets, frozen)])
            if outside := part.outside(part.read(model)):
                names = ", ".join(str(rewrite["_target_"]) for rewrite in rewrites)
                raise ValueError(
                    f"step '{context.name}': {names} moves {outside} weights of {', '.join(map(str, targets))} out of the set that an "
                    "earlier step froze; rewrite before the step that freezes it, or name the layer in the rewrite's skip."
                )
    metrics = {**state.metrics, "val/top1_pct": accuracy(model, context.data.val_loader())}
    return replace(state, weights=weights_of(model), metrics=metrics, rewrites=[*state.rewrites, *rewrites])
