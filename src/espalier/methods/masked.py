"""Masked retraining, and its generalisation to signs and codebooks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from espalier.constraints import Assignment
from espalier.methods.method import hold


class MaskedRetraining:
    """Hold weights in the set that earlier steps froze (a mask, signs, a codebook). Source: progressive-admm, M4.

    Projects after the step, because momentum and weight decay move a weight whose gradient is zero.

    Args:
        frozen: The sets to hold.
    """

    def __init__(self, frozen: Assignment) -> None:
        self.frozen = frozen
        self.figures: dict[str, float] = {}
        self.milestones: list[int] = []

    def start(self, model: nn.Module) -> None:
        """Move the weights into the frozen sets.

        Raises:
            ValueError: The sets name parameters that the model lacks.
        """
        names = dict(model.named_parameters()).keys()
        if unknown := sorted({target.parameter for target in self.frozen.targets} - names):
            raise ValueError(f"the frozen set names {unknown}, which the model lacks; it has {sorted(names)}.")
        hold(self.frozen, model)

    def add_penalty_grad(self, model: nn.Module) -> None: ...

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        hold(self.frozen, model)

    def epoch_end(self, model: nn.Module) -> None: ...

    def settle(self, model: nn.Module) -> Assignment:
        with torch.no_grad():
            hold(self.frozen, model)
        return self.frozen

    def state_dict(self) -> dict[str, Any]:
        return {"frozen": self.frozen.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.frozen.load_state_dict(state["frozen"])
