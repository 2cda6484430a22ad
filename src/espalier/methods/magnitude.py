"""One-shot magnitude pruning: the projection at the end of the step does it all."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from espalier.constraints import Assignment
from espalier.methods.method import hold, settled


class Magnitude:
    """Train as usual within what earlier steps froze; the step's last projection prunes.

    Args:
        assignment: The sets the step projects onto when it ends.
        epochs: Epochs of the step; 0 is usual.
        frozen: What earlier steps froze.
    """

    def __init__(self, assignment: Assignment, *, epochs: int, frozen: Assignment | None = None) -> None:
        self.assignment, self.epochs, self.frozen = assignment, epochs, frozen
        self.figures: dict[str, float] = {}
        self.milestones: list[int] = []

    def start(self, model: nn.Module) -> None: ...

    def add_penalty_grad(self, model: nn.Module) -> None: ...

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        hold(self.frozen, model)

    def epoch_end(self, model: nn.Module) -> None: ...

    def settle(self, model: nn.Module) -> Assignment:
        return settled(self.assignment, model)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
