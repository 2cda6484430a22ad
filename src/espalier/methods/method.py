"""The interface of a training method."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from espalier.constraints import Assignment


class Method(Protocol):
    """A way to train into a constraint, independent of the loop that calls it.

    Call ``start`` once, ``add_penalty_grad`` after the backward pass (and after clipping), ``after_step`` after the optimizer,
    ``epoch_end`` after an epoch. ``figures`` is what the last ``epoch_end`` measured, by the names of ``espalier.metrics``.
    """

    figures: dict[str, float]

    def start(self, model: nn.Module) -> None: ...

    def add_penalty_grad(self, model: nn.Module) -> None: ...

    def after_step(self, model: nn.Module) -> None: ...

    def epoch_end(self, model: nn.Module) -> None: ...

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
