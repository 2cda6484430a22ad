"""Iterative magnitude pruning: prune a little, train within it, prune more.  Source: progressive-admm, Baselines; Han et al. 2015."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from espalier.constraints import Assignment, Constraint, Inside
from espalier.methods.groups import at_rate, check_resumed, labels_of
from espalier.methods.method import hold, settled


def eased(constraint: Constraint, share: float) -> Constraint:
    """Return the set at the rate ``rate ** share``; within what an earlier step froze, the set inside.

    Raises:
        ValueError: It has no rate.
    """
    if isinstance(constraint, Inside):
        return Inside(constraint.outer, eased(constraint.inner, share))
    rate = getattr(constraint, "rate", None)
    if rate is None:
        raise ValueError(f"iterative pruning raises a rate round by round; {type(constraint).__name__} has none. Take a set with a rate.")
    return at_rate(constraint, rate**share)


class IterativeMagnitude:
    """Project onto rates that grow by an equal factor a round, and train within each; the projection after them reaches the rate.

    Args:
        assignment: Sets with a rate.
        epochs: Epochs of the step; the rounds share them equally, the first prunes at the start.
        num_rounds: Rounds; round k of n holds ``rate ** (k / (n + 1))``. At most ``epochs`` are possible.
        frozen: What earlier steps froze; holds throughout.

    Raises:
        ValueError: A set has no rate, or there is no round.
    """

    def __init__(self, assignment: Assignment, *, epochs: int, num_rounds: int, frozen: Assignment | None = None) -> None:
        if num_rounds < 1:
            raise ValueError(f"num_rounds={num_rounds}: iterative pruning has at least one round; give 1 or more.")
        self.assignment, self.frozen, self.epochs = assignment, frozen, epochs
        self.num_rounds = min(num_rounds, max(epochs, 1))
        self._at(0)  # refuses sets without a rate
        self.milestones = [round(index * epochs / self.num_rounds) for index in range(1, self.num_rounds)]
        self.figures: dict[str, float] = {}
        self.epoch = 0
        self.held: Assignment | None = None

    def _at(self, index: int) -> Assignment:
        share = (index + 1) / (self.num_rounds + 1)
        return Assignment([(targets, eased(part, share)) for targets, part in self.assignment.parts])

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Prune to the rate of the first round."""
        hold(self.frozen, model)
        self.epoch, self.held = 0, None
        self.held = settled(self._at(0), model)

    def add_penalty_grad(self, model: nn.Module) -> None: ...

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        hold(self.frozen, model)
        hold(self.held, model)

    @torch.no_grad()
    def epoch_end(self, model: nn.Module) -> None:
        """Prune to the next rate where a round ends."""
        self.epoch += 1
        self.figures = {}
        if self.epoch in self.milestones:
            self.held = settled(self._at(self.milestones.index(self.epoch) + 1).within(self.held), model)
            kept = sum(int((weight != 0).sum()) for weight in self.assignment.read(model).values())
            total = sum(weight.numel() for weight in self.assignment.read(model).values())
            self.figures = {"groups/zero_pct": 100 * (1 - kept / total)}

    def settle(self, model: nn.Module) -> Assignment:
        return settled(self.assignment.within(self.held), model)

    def state_dict(self) -> dict[str, Any]:
        held = None if self.held is None else self.held.state_dict()
        return {"labels": labels_of(self.assignment), "epoch": self.epoch, "held": held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: It was made for other layers or another structure.
        """
        check_resumed(self.assignment, state["labels"])
        self.epoch = state["epoch"]
        self.held = None if state["held"] is None else Assignment.frozen_from_state(state["held"])
