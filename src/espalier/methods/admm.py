"""ADMM as a dynamic regularizer (progressive-admm, M1-M3): W trains, Z is its projection, U the scaled dual."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Target
from espalier.methods.method import hold, settled


@dataclass(frozen=True)
class RhoSchedule:
    """The penalty over an ADMM run.

    Args:
        start: rho of the first period, above 0.
        growth: Factor at each refresh; with several stages, at each stage.
        stages: Full ADMM runs one after another; each resets U to zero and projects Z anew, W carries over.

    Raises:
        ValueError: ``start`` or ``growth`` is not positive, or there is no stage.
    """

    start: float
    growth: float
    stages: int = 1

    def __post_init__(self) -> None:
        if self.start <= 0 or self.growth <= 0 or self.stages < 1:
            raise ValueError(f"{self} is no schedule; start and growth are above 0, stages at least 1.")

    def stage(self, period: int, num_periods: int) -> int:
        """Return the stage that a period belongs to."""
        return period * self.stages // num_periods

    def rho(self, period: int, num_periods: int) -> float:
        """Return the penalty of a period, counted from 0."""
        power = period if self.stages == 1 else self.stage(period, num_periods)
        return self.start * self.growth**power


class ADMM:
    """Pull the weights towards the set with ``rho/2 ||W - Z + U||^2``; refresh Z and U between periods.

    Args:
        assignment: The sets S_i.
        epochs: Epochs of the step.
        frozen: What earlier steps froze; holds throughout.
        num_periods: Periods of equal length; Z and U are refreshed between them. At most ``epochs`` are possible, and more are cut to that.
        rho: The schedule of the penalty.
        dual: False keeps U at zero: projected gradient, the ablation of claim 11.

    Raises:
        ValueError: ``num_periods`` is below 1.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        epochs: int,
        num_periods: int,
        rho: RhoSchedule,
        frozen: Assignment | None = None,
        dual: bool = True,
    ) -> None:
        if num_periods < 1:
            raise ValueError(f"num_periods={num_periods}: ADMM has at least one period; give 1 or more.")
        self.assignment, self.frozen, self.dual, self.schedule = assignment, frozen, dual, rho
        self.epochs = epochs
        self.num_periods = min(num_periods, max(epochs, 1))
        self.milestones = [round(period * epochs / self.num_periods) for period in range(1, self.num_periods)]
        self.figures: dict[str, float] = {}
        self.epoch = self.period = 0
        self.z: dict[Target, Tensor] = {}
        self.u: dict[Target, Tensor] = {}

    @property
    def rho(self) -> float:
        """Return the penalty of the present period."""
        return self.schedule.rho(self.period, self.num_periods)

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Set Z to the projection of the weights and U to zero."""
        hold(self.frozen, model)
        weights = self.assignment.read(model)
        self.z = self.assignment.project(weights)
        self.u = {target: torch.zeros_like(weight) for target, weight in weights.items()}
        self.epoch = self.period = 0

    @torch.no_grad()
    def add_penalty_grad(self, model: nn.Module) -> None:
        """Add ``rho (W - Z + U)`` to the gradients."""
        rho = self.rho
        for target in self.assignment.targets:
            gradient = model.get_parameter(target.parameter).grad
            if gradient is None:
                continue
            if target.axis is not None and target.start is not None and target.stop is not None:
                gradient = gradient.narrow(target.axis, target.start, target.stop - target.start)
            gradient.add_(target.view(model), alpha=rho).sub_(self.z[target], alpha=rho).add_(self.u[target], alpha=rho)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        hold(self.frozen, model)

    @torch.no_grad()
    def epoch_end(self, model: nn.Module) -> None:
        """Refresh Z and U where a period ends, rho first; report the residuals there and after the last epoch."""
        self.epoch += 1
        self.figures = {}
        if self.epoch in self.milestones or self.epoch == self.epochs:
            weights = self.assignment.read(model)
            self.figures |= self._residuals(weights)
        if self.epoch in self.milestones:
            old_stage = self.schedule.stage(self.period, self.num_periods)
            self.period += 1
            self._refresh(weights, restart=self.schedule.stage(self.period, self.num_periods) != old_stage and self.schedule.stages > 1)

    def _refresh(self, weights: dict[Target, Tensor], *, restart: bool) -> None:
        before = self.z
        if restart:
            self.u = {target: torch.zeros_like(weight) for target, weight in weights.items()}
        self.z = self.assignment.project({target: weight + self.u[target] for target, weight in weights.items()})
        if self.dual and not restart:
            self.u = {target: self.u[target] + weight - self.z[target] for target, weight in weights.items()}
        self.figures |= {f"admm/change/{target}": float((self.z[target] - before[target]).norm()) for target in weights}

    def _residuals(self, weights: dict[Target, Tensor]) -> dict[str, float]:
        projected = self.assignment.project({target: weight + self.u[target] for target, weight in weights.items()})
        residuals = {
            f"admm/residual/{target}": float((weight - projected[target]).norm() / weight.norm().clamp_min(1e-12))
            for target, weight in weights.items()
        }
        return {"admm/rho": self.rho, "admm/residual_max": max(residuals.values()), **residuals}

    def settle(self, model: nn.Module) -> Assignment:
        return settled(self.assignment, model)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "period": self.period,
            "z": {str(target): tensor for target, tensor in self.z.items()},
            "u": {str(target): tensor for target, tensor in self.u.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.period = state["epoch"], state["period"]
        self.z = {Target.parse(name): tensor for name, tensor in state["z"].items()}
        self.u = {Target.parse(name): tensor for name, tensor in state["u"].items()}
