"""Group penalties: reweighted group regularisation (blk-rew, section 2; RT3D, loss) and its ablation, the fixed group lasso.

The penalty of a layer is ``lambda / D * c * sum_g a_g ||w_g||^k``, over its D groupings; ``k`` is 2 for ``sq`` and 1 otherwise.

====== ======================= ================================================================
form   a_g at a refresh        a step of majorise-minimise for
====== ======================= ================================================================
sq     1 / (||w_g||^2 + eps)   sum log(||w_g||^2 + eps): the papers of the group
mix    1 / (||w_g||^2 + eps)   sum arctan(||w_g|| / sqrt(eps)) / sqrt(eps): RT3D
lin    1 / (||w_g|| + eps)     sum log(||w_g|| + eps): the group's public scripts
fixed  1                       group lasso
====== ======================= ================================================================

Suffix: G = groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Structure, Target
from espalier.methods.groups import check_grouped, check_resumed, epochs_of, groups_of, labels_of, layer_costs
from espalier.methods.method import hold, settled

Form = Literal["sq", "mix", "lin", "fixed"]
SHARE = 0.5  # of a weight that one step of the penalty may take (blk-rew, section 2: lr * lambda * a < 0.5, hence f <= 0.25 / lr in sq)
LARGEST = 1e4  # of a normalised a_g (RT3D, remark for implementers): the weight of a dead group would grow to 1 / eps
TINY = 1e-12  # under the root


class Reweighted:
    """Add the gradient of a group penalty whose weights are refreshed now and then; the step's last projection prunes.

    A weight lies in one group of each grouping, and the penalties add; each takes ``lambda / D`` (the follow-up of RT3D halves it for rows
    and columns together). The norms are differentiated, only ``a`` is a constant between refreshes.

    Args:
        assignment: Sets that have groups.
        epochs: Epochs of the step.
        form: What ``a`` is: ``sq`` 1 / (||w||^2 + eps) on the squared norm, ``mix`` the same on the norm, ``lin`` 1 / (||w|| + eps) on the
            norm, ``fixed`` 1 on the norm.
        strength: Factor lambda on the penalty, 0 or more.
        refresh_at: Shares of the step after which ``a`` is taken anew; it is first taken at the start.
        lr: Largest learning rate of the step. No group's pull takes more than half of a weight at that rate: a group that died to a small
            norm keeps its large ``a`` until the next refresh and would diverge (sq) or jump about zero (the others) should it grow.
        eps: Joins the norm under the fraction of ``a``, above 0; norms are as ``normalise`` says.
        normalise: Take ``a`` from the RMS of a group, divide it by its mean over the layer's groups, and multiply it by the root of the
            group's size, so that one lambda serves all layers; False takes the norms as they are.
        by_cost: Multiply a layer's penalty by its cost over the mean cost, where the set counts one (RT3D: multiply-adds).
        proximal: None adds the gradient. A step size applies the proximal map of the penalty after each optimizer step instead, which gives
            exact zeros; the optimizer's learning rate over ``1 - momentum`` is its natural size.
        inert: Compute the penalty and add nothing, as the released code of RT3D's follow-up does with norms of detached weights: an
            ablation.
        frozen: What earlier steps froze; holds throughout.

    Raises:
        ValueError: A set has no groups, the form is unknown, or a setting is out of range.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        epochs: int,
        form: Form,
        strength: float,
        lr: float,
        refresh_at: Sequence[float],
        eps: float,
        normalise: bool = True,
        by_cost: bool = False,
        proximal: float | None = None,
        inert: bool = False,
        frozen: Assignment | None = None,
    ) -> None:
        if form not in get_args(Form):
            raise ValueError(f"method.form={form} is no penalty; take one of {', '.join(get_args(Form))}.")
        if strength < 0 or min(lr, eps) <= 0 or (proximal is not None and proximal <= 0):
            raise ValueError(f"strength={strength}, lr={lr}, eps={eps}, proximal={proximal}: strength is 0 or more, the others above 0.")
        check_grouped(assignment, "a group penalty")
        self.assignment, self.frozen, self.epochs = assignment, frozen, epochs
        self.form, self.strength, self.lr, self.eps = form, strength, lr, eps
        self.normalise, self.by_cost, self.proximal, self.inert = normalise, by_cost, proximal, inert
        self.milestones = epochs_of(refresh_at, epochs, "method.refresh_at")
        self.figures: dict[str, float] = {}
        self.epoch = 0
        self.factors: list[Tensor] = []  # lambda / D * c * a_g, one tensor a grouping

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Take the weights of the groups from the present network."""
        hold(self.frozen, model)
        weights = self.assignment.read(model)
        self.groups = groups_of(self.assignment, weights)
        self.costs = layer_costs(self.assignment, weights, "a group penalty") if self.by_cost else dict.fromkeys(weights, 1.0)
        self.epoch = 0
        self._refresh(weights)

    @torch.no_grad()
    def add_penalty_grad(self, model: nn.Module) -> None:
        """Add ``2 f_g w`` (sq) or ``f_g w / ||w_g||``, ``f_g`` the factor of the weight's group, summed over the groupings.

        The multiple of ``w`` is cut to ``0.5 / lr`` in each grouping.
        """
        if self.inert or self.proximal is not None:
            return
        for (target, structure, _), factor_G in zip(self.groups, self.factors, strict=True):
            gradient, weight = target.gradient(model), target.view(model)
            if gradient is not None:
                pull_G = self._pull(weight, structure, factor_G).clamp_max(SHARE / self.lr)
                gradient.addcmul_(weight, structure.spread(weight.shape, pull_G))

    def _pull(self, weight: Tensor, structure: Structure, factor_G: Tensor) -> Tensor:
        """Return what the weights of each group are multiplied with to give the penalty's gradient."""
        return 2 * factor_G if self.form == "sq" else factor_G / (structure.scores(weight) + TINY).sqrt()

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        if self.proximal is not None and not self.inert:
            for (target, structure, _), factor_G in zip(self.groups, self.factors, strict=True):
                weight = target.view(model)
                pull_G = self.proximal * self._pull(weight, structure, factor_G)
                shrink_G = 1 / (1 + pull_G) if self.form == "sq" else (1 - pull_G).clamp_min(0)
                weight.mul_(structure.spread(weight.shape, shrink_G))
        hold(self.frozen, model)

    @torch.no_grad()
    def epoch_end(self, model: nn.Module) -> None:
        """Refresh ``a`` where it is due; report the share of live groups there and after the last epoch."""
        self.epoch += 1
        self.figures = {}
        if self.epoch in self.milestones:
            self._refresh(self.assignment.read(model))
        if self.epoch in self.milestones or self.epoch == self.epochs:
            self.figures = {"groups/live_pct": self._live(self.assignment.read(model))}

    def _squares(self, weights: Mapping[Target, Tensor]) -> list[Tensor]:
        squares = [structure.scores(weights[target]) for target, structure, _ in self.groups]
        return [square_G / group.sizes for square_G, group in zip(squares, self.groups, strict=True)] if self.normalise else squares

    def _refresh(self, weights: Mapping[Target, Tensor]) -> None:
        depth = {target: sum(other == target for other, _, _ in self.groups) for target in weights}
        self.factors = []
        for square_G, (target, _, size_G) in zip(self._squares(weights), self.groups, strict=True):
            weight_G = {"lin": 1 / (square_G.sqrt() + self.eps), "fixed": torch.ones_like(square_G)}.get(
                self.form, 1 / (square_G + self.eps)
            )
            if self.normalise:
                weight_G = (weight_G / weight_G.mean()).clamp_max(LARGEST) * size_G.sqrt()
            self.factors.append(weight_G * (self.strength * self.costs[target] / depth[target]))

    def _live(self, weights: Mapping[Target, Tensor]) -> float:
        """Return the mean of ``||w_g||^2 / (||w_g||^2 + eps)``, about 1 for a live group and 0 for a dead one (blk-rew, 4b)."""
        square_G = torch.cat(self._squares(weights))
        return 100 * float((square_G / (square_G + self.eps)).mean())

    def settle(self, model: nn.Module) -> Assignment:
        return settled(self.assignment, model)

    def state_dict(self) -> dict[str, Any]:
        return {"labels": labels_of(self.assignment), "epoch": self.epoch, "factors": list(self.factors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: It was made for other layers or another structure.
        """
        check_resumed(self.assignment, state["labels"])
        self.epoch, self.factors = state["epoch"], list(state["factors"])
