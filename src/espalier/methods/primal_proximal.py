"""Primal-proximal training (ss-auto, S4): W trains, one copy a grouping takes the soft threshold of its group norms.

Suffix: G = groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Constraint, Steered, Structure, Target, Weights
from espalier.methods.admm import RhoSchedule
from espalier.methods.groups import check_grouped, check_resumed, groups_of, inner, labels_of, units_of
from espalier.methods.method import hold, settled

TINY = 1e-12


def prox(weight: Tensor, structure: Structure, tau_G: Tensor) -> Tensor:
    """Return the weight with every group's norm lowered by ``tau_G``, at least to zero, its direction kept (ss-auto, S4)."""
    norm_G = structure.scores(weight).sqrt()
    return weight * structure.spread(weight.shape, (1 - tau_G / norm_G.clamp_min(TINY)).clamp_min(0).to(weight.dtype))


def debiased(copy: Tensor, weight: Tensor, structure: Structure) -> Tensor:
    """Return the copy scaled so that its groups that are not zero have the mean norm they have in ``weight``."""
    shrunk_G = structure.scores(copy).sqrt()
    left_G = shrunk_G > 0
    scale = structure.scores(weight).sqrt()[left_G].sum() / shrunk_G[left_G].sum().clamp_min(TINY)
    return copy * scale.to(copy.dtype) if left_G.any() else copy


def _steered(part: Constraint, targets: Sequence[Target], weights: Weights, share: float) -> list[tuple[Target, float]]:
    """Return the threshold of each target at the set's rate to the power of ``share``: one for all of a joint set."""
    assert isinstance(part, Steered)  # the constructor has looked
    rate = part.rate**share
    if getattr(part, "joint", False):
        return list(dict.fromkeys(targets, part.threshold_at({target: weights[target] for target in targets}, rate)).items())
    return [(target, part.threshold_at({target: weights[target]}, rate)) for target in targets]


class PrimalProximal:
    """Pull the weights towards copies of which small groups are zero; refresh the copies between periods.

    ``rho/2 ||W - Z||^2`` for the copy Z of each grouping (Z for rows and Y for columns, in the paper). A group whose norm is
    under ``tau sqrt(size)`` is pulled to zero, a larger one no further than to ``tau sqrt(size)`` below its norm at the refresh.

    Args:
        assignment: Sets that have groups.
        epochs: Epochs of the step.
        num_periods: Periods of equal length, as ``ADMM`` has them.
        rho: The schedule of the pull; tau does not change with it.
        tau: The threshold on the norm of a group as its set measures it, else on its RMS; ``lambda / rho``. None steers to the rate ``r``
            of each set, one threshold for all layers or one for each: at each refresh to the rate ``r ** min(1, progress / ramp)``.
        ramp: Share of the step after which a tau that steers stays as it is.
        debias: Scale each copy so that the groups it keeps have the mean norm they have now. Where tau is near the norms themselves, the
            soft threshold shrinks all that is left at each refresh, and before batch normalisation nothing resists: at an eighth of its
            norm a weight sees 64 times the learning rate.
        dual: Add scaled duals U, which makes it ADMM with a soft threshold; the paper's name suggests none.
        frozen: What earlier steps froze; holds throughout.

    Raises:
        ValueError: A set has no groups, or no rate to steer to where ``tau`` is None, or a setting is out of range.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        epochs: int,
        num_periods: int,
        rho: RhoSchedule,
        tau: float | None,
        ramp: float = 0.7,
        debias: bool = False,
        dual: bool = False,
        frozen: Assignment | None = None,
    ) -> None:
        if num_periods < 1 or not 0 < ramp <= 1 or (tau is not None and tau < 0):
            raise ValueError(f"num_periods={num_periods}, ramp={ramp}, tau={tau}: periods start at 1, ramp is a share, tau 0 or more.")
        check_grouped(assignment, "primal-proximal training")
        if tau is None and (
            fixed := sorted({type(inner(part)).__name__ for _, part in assignment.parts if not isinstance(inner(part), Steered)})
        ):
            raise ValueError(
                f"tau=null steers to the rate of a set, which {', '.join(fixed)} has not. Give method.tau, or take row_column."
            )
        self.assignment, self.frozen, self.schedule = assignment, frozen, rho
        self.debias, self.dual = debias, dual
        self.epochs, self.ramp, self.steers = epochs, ramp, tau is None
        self.taus = {target: tau or 0.0 for targets, _ in assignment.parts for target in targets}
        self.num_periods = min(num_periods, max(epochs, 1))
        self.milestones = [round(period * epochs / self.num_periods) for period in range(1, self.num_periods)]
        self.figures: dict[str, float] = {}
        self.epoch = self.period = 0
        self.z: list[Tensor] = []
        self.u: list[Tensor] = []

    @property
    def rho(self) -> float:
        """Return the pull of the present period."""
        return self.schedule.rho(self.period, self.num_periods)

    @property
    def tau(self) -> float:
        """Return the present threshold, the largest where layers have their own."""
        return max(self.taus.values())

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Set the copies to the soft threshold of the weights and the duals to zero."""
        hold(self.frozen, model)
        self.epoch = self.period = 0
        weights = self.assignment.read(model)
        self.groups = groups_of(self.assignment, weights)
        self.u = [torch.zeros_like(weights[target]) for target, _, _ in self.groups] if self.dual else []
        self._refresh(weights)

    @torch.no_grad()
    def add_penalty_grad(self, model: nn.Module) -> None:
        """Add ``rho (W - Z + U)`` to the gradients, for the copy of each grouping."""
        rho = self.rho
        for index, (target, _, _) in enumerate(self.groups):
            gradient = target.gradient(model)
            if gradient is not None:
                gradient.add_(target.view(model), alpha=rho).sub_(self.z[index], alpha=rho)
                if self.dual:
                    gradient.add_(self.u[index], alpha=rho)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        hold(self.frozen, model)

    @torch.no_grad()
    def epoch_end(self, model: nn.Module) -> None:
        """Refresh the copies where a period ends; report tau and the share of groups whose copy is zero, there and after the last epoch."""
        self.epoch += 1
        self.figures = {}
        if self.epoch in self.milestones:
            self.period += 1
            weights = self.assignment.read(model)
            self._refresh(weights)
        if self.epoch in self.milestones or self.epoch == self.epochs:
            zero = [structure.scores(z) == 0 for (_, structure, _), z in zip(self.groups, self.z, strict=True)]
            self.figures = {"groups/tau": self.tau, "groups/zero_pct": 100 * float(torch.cat(zero).float().mean())}

    def _refresh(self, weights: Mapping[Any, Tensor]) -> None:
        if self.steers and self.period <= self.ramp * self.num_periods:
            share = min(1.0, (self.period + 1) / (self.ramp * self.num_periods))
            self.taus = {
                target: tau for targets, part in self.assignment.parts for target, tau in _steered(inner(part), targets, weights, share)
            }
        shifted = [weights[target] + self.u[index] if self.dual else weights[target] for index, (target, _, _) in enumerate(self.groups)]
        if self.dual and self.period:
            self.u = [self.u[index] + weights[target] - self.z[index] for index, (target, _, _) in enumerate(self.groups)]
            shifted = [weights[target] + self.u[index] for index, (target, _, _) in enumerate(self.groups)]
        units = units_of(self.assignment, weights)
        self.z = [
            prox(weight, structure, self.taus[target] * units[target] * size_G.sqrt())
            for weight, (target, structure, size_G) in zip(shifted, self.groups, strict=True)
        ]
        if self.debias:
            self.z = [debiased(z, weight, group.structure) for z, weight, group in zip(self.z, shifted, self.groups, strict=True)]

    def settle(self, model: nn.Module) -> Assignment:
        return settled(self.assignment, model)

    def state_dict(self) -> dict[str, Any]:
        return {
            "labels": labels_of(self.assignment),
            "epoch": self.epoch,
            "period": self.period,
            "taus": {str(target): tau for target, tau in self.taus.items()},
            "z": list(self.z),
            "u": list(self.u),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: It was made for other layers or another structure.
        """
        check_resumed(self.assignment, state["labels"])
        self.epoch, self.period = state["epoch"], state["period"]
        self.taus = {Target.parse(name): tau for name, tau in state["taus"].items()}
        self.z, self.u = list(state["z"]), list(state["u"])
