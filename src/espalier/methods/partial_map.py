"""Partial maps (progressive-admm, M4): snap the weights nearest to their level, retrain the others, and so on by rounds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Codebook, Frozen, Inside, Pinned, Target
from espalier.constraints.frozen import as_frozen
from espalier.methods.method import hold, settled


def snap(weight: Tensor, level: Tensor, free: Tensor, fraction: float) -> Tensor:
    """Return the bool mask of the free entries to pin: per level, the closest ``fraction`` (rounded up) of that level's free entries.

    Args:
        weight: Weights, any shape.
        level: The level nearest to each weight, same shape.
        free: Entries that are not pinned yet, same shape.
        fraction: Share of each level's free entries, 0 to 1.
    """
    chosen = torch.zeros(free.numel(), dtype=torch.bool, device=free.device)
    distance = (weight - level).abs()
    for value in torch.unique(level[free]):
        bin_index = ((level == value) & free).flatten().nonzero().squeeze(1)
        count = math.ceil(round(fraction * bin_index.numel(), 9))
        order = distance.flatten()[bin_index].argsort(stable=True)[:count]
        chosen[bin_index[order]] = True
    return chosen.view(free.shape)


def _codebook(levels: Mapping[Target, Tensor], frozen: Mapping[Target, Frozen]) -> Assignment:
    parts = []
    for target, level_L in levels.items():
        codebook = Codebook({target: level_L})
        parts.append(((target,), Inside(frozen[target], codebook) if target in frozen else codebook))
    return Assignment(parts)


class PartialMap:
    """Pin growing shares of the weights to their levels while the rest goes on training.

    The levels are those that the first projection finds; from then on ``assignment`` is that codebook, onto which the step projects last.

    Args:
        assignment: The level sets, already inside the support that pruning froze.
        epochs: Epochs of the step; the rounds share them equally.
        frozen: What earlier steps froze; holds throughout.
        fractions: Cumulative shares after each round, rising; the official code snaps 30 % first. Where the step has fewer epochs than
            rounds, its first rounds are left out. What is left at the end is snapped by the step's last projection.

    Raises:
        ValueError: ``fractions`` does not rise within 0 to 1, or a set has no levels.
    """

    def __init__(self, assignment: Assignment, *, epochs: int, fractions: Sequence[float], frozen: Assignment | None = None) -> None:
        if not fractions or list(fractions) != sorted(set(fractions)) or not 0 < fractions[0] <= fractions[-1] <= 1:
            raise ValueError(f"method.fractions={list(fractions)} should rise within 0 to 1, such as [0.3, 0.6, 0.9].")
        for targets, constraint in assignment.parts:
            if not getattr(constraint, "entrywise", False):
                raise ValueError(f"a partial map needs level sets; {', '.join(map(str, targets))} takes {type(constraint).__name__}.")
        rounds = min(len(fractions), max(epochs, 1))
        self.assignment, self.frozen, self.fractions = assignment, frozen, tuple(fractions[-rounds:])
        self.starts = [round(index * epochs / rounds) for index in range(rounds)]
        self.figures: dict[str, float] = {}
        self.milestones: list[int] = []
        self.epoch = 0
        self.held = Pinned({}, {})

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Fix nothing yet but what is frozen, then snap the first share."""
        hold(self.frozen, model)
        weights = self.assignment.read(model)
        frozen = {target: as_frozen(part) for targets, part in self.frozen.parts for target in targets} if self.frozen else {}
        free = {target: frozen[target].free(target) if target in frozen else weight == weight for target, weight in weights.items()}
        levels = self.assignment.project(weights)
        self.assignment = _codebook({target: torch.unique(levels[target][free[target]]) for target in weights}, frozen)
        self.held = Pinned(weights, {target: ~mask for target, mask in free.items()})
        self.total = {target: int((~mask).sum()) for target, mask in self.held.pinned.items()}
        self.epoch = 0
        self._snap(model, 0)

    def add_penalty_grad(self, model: nn.Module) -> None: ...

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        hold(self.frozen, model)
        for target, weight in self.held.project(self.assignment.read(model)).items():
            target.write(model, weight)

    @torch.no_grad()
    def epoch_end(self, model: nn.Module) -> None:
        """Begin the next round where one is due."""
        self.epoch += 1
        if self.epoch in self.starts:
            self._snap(model, self.starts.index(self.epoch))
        free = sum(int((~mask).sum()) for mask in self.held.pinned.values())
        self.figures = {"map/snapped_pct": 100.0 * (1 - free / max(sum(self.total.values()), 1))}

    def _snap(self, model: nn.Module, index: int) -> None:
        weights = self.assignment.read(model)
        levels = self.assignment.project(weights)
        done = self.fractions[index - 1] if index else 0.0
        share = (self.fractions[index] - done) / (1 - done)  # of what is free now
        for target, weight in weights.items():
            chosen = snap(weight, levels[target], ~self.held.pinned[target], share)
            self.held.values[target] = torch.where(chosen, levels[target], self.held.values[target])
            self.held.pinned[target] = self.held.pinned[target] | chosen
        self.after_step(model)

    def _levels(self) -> dict[str, Tensor]:
        inner = [part.inner if isinstance(part, Inside) else part for _, part in self.assignment.parts]
        return {str(target): level for part in inner if isinstance(part, Codebook) for target, level in part.levels.items()}

    def settle(self, model: nn.Module) -> Assignment:
        return settled(self.assignment, model)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "levels": self._levels(),
            "held": self.held.state_dict(),
            "total": {str(target): count for target, count in self.total.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.held.load_state_dict(state["held"])
        frozen = {target: as_frozen(part) for targets, part in self.frozen.parts for target in targets} if self.frozen else {}
        self.assignment = _codebook({Target.parse(name): level_L for name, level_L in state["levels"].items()}, frozen)
        self.total = {Target.parse(name): count for name, count in state["total"].items()}
