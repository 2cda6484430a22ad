"""The interface of a training method."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment


class Method(Protocol):
    """A way to train into a constraint, independent of the loop that calls it.

    Call ``start`` once, ``add_penalty_grad`` after the backward pass (and after clipping), ``after_step`` after the optimizer,
    ``epoch_end`` after an epoch, and ``settle`` once training is over: it moves the weights into their sets and returns those sets frozen.

    Attributes:
        figures: What the last ``epoch_end`` measured, by the names of ``espalier.metrics``.
        milestones: First epochs of all periods but the first, for a learning rate that restarts with them; empty where there are none.
    """

    figures: dict[str, float]
    milestones: list[int]

    def start(self, model: nn.Module) -> None: ...

    def add_penalty_grad(self, model: nn.Module) -> None: ...

    def after_step(self, model: nn.Module) -> None: ...

    def epoch_end(self, model: nn.Module) -> None: ...

    def settle(self, model: nn.Module) -> Assignment: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class LossTerm(Protocol):
    """A named term that a task adds to its loss; recorded as ``train/<name>``, mean over the epoch."""

    @property
    def name(self) -> str:
        """Return the name, an entry of ``espalier.metrics`` after ``train/``."""
        ...

    def __call__(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the term for a batch, a scalar."""
        ...


def hold(frozen: Assignment | None, model: nn.Module) -> None:
    """Project the model's weights onto what earlier steps froze, in place."""
    if frozen is not None:
        frozen.write(model, frozen.project(frozen.read(model)))


def settled(assignment: Assignment, model: nn.Module) -> Assignment:
    """Project the model's weights onto their sets, in place, and return what is left of the sets once that choice is made."""
    with torch.no_grad():
        weights = assignment.read(model)
        frozen = assignment.freeze(weights)
        assignment.write(model, frozen.project(assignment.project(weights)))
    return frozen
