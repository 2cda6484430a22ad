"""Sparse training from scratch: masks that mutate while the weights train (mest, sections 1 to 4)."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Regrown, Support, Target
from espalier.constraints.inside import LEAST
from espalier.methods.groups import at_rate
from espalier.methods.method import hold
from espalier.methods.mutation import MutationSchedule
from espalier.methods.regrowth import Regrowth
from espalier.methods.settling import Settling

SHIELD = 1e6  # score of a living weight beside those of dead ones, which are 1 at most


class Epoch(TypedDict):
    """What an epoch of sparse training used: weights held by parameter, and steps in which dense gradients were read."""

    held: dict[str, int]
    dense_steps: int


class SparseTraining:
    """Train a sparse network whose masks prune their least important groups and grow others.

    Dead weights are zero and get no gradient: ``add_penalty_grad`` drops it, ``after_step`` undoes what momentum and weight decay moved.
    The first masks keep the largest groups of the weights as they come, at random where these were just drawn. Masks mutate before an
    epoch; with a regrowth that reads dense gradients, in the first step of that epoch, which goes on under the new masks. Grown weights
    start at zero, also those pruned a moment before; the optimizer's momentum stays. Draws follow from the seed, the epoch and the layer.

    A clip value reads the norm of all gradients, dead ones included; leave it null where no dense gradient may be read.

    Args:
        assignment: The sets at the asked sparsity, one for each layer; each has a rate and draws its groups.
        epochs: Epochs of the step.
        schedule: When masks mutate, and by how much.
        regrowth: What grows.
        gradient_weight: lambda of the importance ``|w| + lambda |dL/dw|``, with the gradient of the last step; 0 in the released runs.
        seed: Seed of the draws, 0 or more.
        frozen: What earlier steps froze in other layers.

    Raises:
        ValueError: ``gradient_weight`` is negative, or a set does not prune and grow.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        epochs: int,
        schedule: MutationSchedule,
        regrowth: Regrowth,
        gradient_weight: float,
        seed: int,
        frozen: Assignment | None = None,
    ) -> None:
        if not gradient_weight >= 0:
            raise ValueError(f"method.gradient_weight={gradient_weight:g} is no weight of the gradient in an importance; give 0 or more.")
        self.assignment, self.epochs, self.schedule, self.regrowth, self.frozen = assignment, epochs, schedule, regrowth, frozen
        self.gradient_weight, self.seed = gradient_weight, seed
        self.sets = _sets(assignment)
        self.milestones = schedule.starts(epochs)[1:]
        self.figures: dict[str, float] = {}
        self.epoch = 0
        self.due = False
        self.live: dict[Target, Tensor] = {}
        self.dense_steps = 0
        self.history: list[Epoch] = []
        self.excess_max = -math.inf
        self.settling = {target: Settling() for target in (self.assignment.targets[0], self.assignment.targets[-1])}

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Choose the first masks, and mutate them.

        Raises:
            ValueError: The schedule would empty a layer or grow it beyond all its weights.
        """
        hold(self.frozen, model)
        weights = self.assignment.read(model)
        for phase in range(len(self.schedule.prune_above)):
            for target, weight in weights.items():
                self._bounds(target, weight.shape, phase)
        self.live = {target: self.sets[target].masks({target: weight})[target] for target, weight in weights.items()}
        self.epoch, self.dense_steps, self.history, self.excess_max = 0, 0, [], -math.inf
        self.settling = {target: Settling() for target in self.settling}
        self._begin(model)

    @torch.no_grad()
    def add_penalty_grad(self, model: nn.Module) -> None:
        """Drop the gradients of dead weights; where a mutation waits for dense gradients, read them first."""
        gradients = {target: gradient for target in self.live if (gradient := target.gradient(model)) is not None}
        if self.due or self.regrowth.dense_at_every_step:
            self.regrowth.observe(gradients)
            self.dense_steps += 1
        if self.due:
            self.due = False
            self._mutate(model)
        for target, gradient in gradients.items():
            gradient.masked_fill_(~self._live(target, gradient), 0.0)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        hold(self.frozen, model)
        for target in self.live:
            weight = target.view(model)
            weight.masked_fill_(~self._live(target, weight), 0.0)

    @torch.no_grad()
    def epoch_end(self, model: nn.Module) -> None:
        """Note what the epoch used, then mutate where the next epoch asks for it."""
        held = {str(target): int(target.view(model).count_nonzero()) for target in self.live}
        self._compare(held)
        self.history.append({"held": {str(target): int(live.sum()) for target, live in self.live.items()}, "dense_steps": self.dense_steps})
        self.epoch, self.dense_steps = self.epoch + 1, 0
        for target, settling in self.settling.items():
            weight = target.view(model)
            settling.note(self.epoch, weight, self._live(target, weight))
        if self.epoch < self.epochs and self.schedule.due(self.epoch, self.epochs):
            self._begin(model)
        self.figures = {"mutation/nonzero": float(sum(int(live.sum()) for live in self.live.values()))}

    @torch.no_grad()
    def settle(self, model: nn.Module) -> Assignment:
        """Return the masks as frozen sets, pruned to the asked sparsity should the last mutation have left more."""
        for target, constraint in self.sets.items():
            weight = target.view(model)
            self.live[target] = self._kept(model, target, constraint)
            weight.masked_fill_(~self.live[target], 0.0)
        last = max(abs(self._excess(str(target), int(live.sum()), len(self.schedule.decay))) for target, live in self.live.items())
        noted = [*self.settling.values()]
        self.figures = {
            "mutation/excess_max": self.excess_max,
            "mutation/excess_last": last,
            "overlap/settled_first": noted[0].settled(),
            "overlap/settled_last": noted[-1].settled(),
        }
        return Assignment([((target,), Support({target: self.live[target]}, self.sets[target].label)) for target in self.sets])

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "due": self.due,
            "labels": {str(target): constraint.label for target, constraint in self.sets.items()},
            "live": {str(target): live for target, live in self.live.items()},
            "history": self.history,
            "excess_max": self.excess_max,
            "settling": [settling.state_dict() for settling in self.settling.values()],
            "regrowth": self.regrowth.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: Its masks were made for other layers or another structure.
        """
        labels = {str(target): constraint.label for target, constraint in self.sets.items()}
        if state["labels"] != labels:
            name = next(name for name in [*labels, *state["labels"]] if labels.get(name) != state["labels"].get(name))
            raise ValueError(
                f"the checkpoint has masks of structure '{state['labels'].get(name, 'none')}' for {name}, this run asks for "
                f"'{labels.get(name, 'none')}'; start anew or use the settings it was made with."
            )
        self.epoch, self.due, self.excess_max = state["epoch"], state["due"], state["excess_max"]
        self.live = {Target.parse(name): live for name, live in state["live"].items()}
        self.history = list(state["history"])
        for settling, kept in zip(self.settling.values(), state["settling"], strict=True):
            settling.load_state_dict(kept)
        self.regrowth.load_state_dict(state["regrowth"])

    def _begin(self, model: nn.Module) -> None:
        self.due = self.regrowth.dense_at_mutations
        if not self.due:
            self._mutate(model)

    def _mutate(self, model: nn.Module) -> None:
        """Prune and grow every layer for the present epoch."""
        phase = self.schedule.phase(self.epoch, self.epochs)
        for target, constraint in self.sets.items():
            weight = target.view(model)
            pruned, grown = (at_rate(constraint, rate) for rate in self._bounds(target, weight.shape, phase))
            kept = self._kept(model, target, pruned)
            score = self.regrowth.score(target, constraint, weight, self._generator(target))
            score = torch.where(kept, torch.full_like(score, SHIELD), score)
            self.live[target] = kept | grown.masks({target: score})[target]
            weight.masked_fill_(~kept, 0.0)
        self._compare({str(target): int(live.sum()) for target, live in self.live.items()})

    def _kept(self, model: nn.Module, target: Target, constraint: Regrown) -> Tensor:
        """Return the living entries that a set keeps by their importance."""
        weight = target.view(model)
        live, importance = self._live(target, weight), weight.abs()
        if self.gradient_weight and (gradient := target.gradient(model)) is not None:
            importance = importance + self.gradient_weight * gradient.abs()
        positive = importance + LEAST  # a living weight that is exactly zero ranks above every dead one
        return constraint.masks({target: torch.where(live, positive, 0.0)})[target] & live

    def _bounds(self, target: Target, shape: Sequence[int], phase: int) -> tuple[float, float]:
        """Return the rates to prune to and to grow to."""
        constraint = self.sets[target]
        share_of_weights = at_rate(constraint, 1.0).weights_kept(shape) / math.prod(shape)  # 4/9 where kernels have patterns
        kept = 1 / constraint.rate
        above, below = (shares[phase] / share_of_weights for shares in (self.schedule.prune_above, self.schedule.grow_below))
        if kept - above <= 0 or kept + below > 1:
            raise ValueError(
                f"{target}: the asked sparsity keeps {kept * share_of_weights:.4g} of the weights, which prune_above="
                f"{self.schedule.prune_above[phase]:g} would empty or grow_below={self.schedule.grow_below[phase]:g} grow beyond "
                f"{share_of_weights:.4g}; give smaller shares or another rate."
            )
        return (1 / (kept - above) if above else constraint.rate, 1 / (kept + below) if below else constraint.rate)

    def _compare(self, held: Mapping[str, int]) -> None:
        phase = self.schedule.phase(min(self.epoch, self.epochs - 1), self.epochs)
        self.excess_max = max([self.excess_max, *(self._excess(name, count, phase) for name, count in held.items())])

    def _excess(self, name: str, count: int, phase: int) -> float:
        target = Target.parse(name)
        shape = self.live[target].shape
        return count - at_rate(self.sets[target], self._bounds(target, shape, phase)[1]).weights_kept(shape)

    def _live(self, target: Target, like: Tensor) -> Tensor:
        if self.live[target].device != like.device:
            self.live[target] = self.live[target].to(like.device)  # once: it is read in every step
        return self.live[target]

    def _generator(self, target: Target) -> torch.Generator:
        words = f"{self.seed}/{self.epoch}/{target}"
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "little"))


def _sets(assignment: Assignment) -> dict[Target, Regrown]:
    sets: dict[Target, Regrown] = {}
    for targets, constraint in assignment.parts:
        if not isinstance(constraint, Regrown) or len(targets) > 1:
            raise ValueError(
                f"sparse training prunes each layer beyond its rate and draws groups to grow; {', '.join(map(str, targets))} takes "
                f"{type(constraint).__name__}, which does not. Take unstructured, filter, block_column, pattern_kernel or another set of "
                "one layer with a rate."
            )
        sets[targets[0]] = constraint
    return sets
