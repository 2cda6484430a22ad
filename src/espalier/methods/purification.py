"""Network purification: which channels, columns and filters of a trained layer contribute next to nothing.  Source: prm, N3.

Suffixes: F = filters, C = channels, D = columns of a channel (kernel positions; pixels of a map that a linear layer sees flattened).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Score = Literal["l2sum", "l2sq_mean"]
By = Literal["both", "emptiness", "score"]


@dataclass(frozen=True)
class Purification:
    """The rule that tells redundant channels.

    A channel goes if at least a share ``emptiness`` of its columns is empty and its score is below the layer's limit, or if it is wholly
    empty. A layer never loses its last channel or filter.

    Args:
        emptiness: eta, share of empty columns from which on a channel may go, 0 to 1.
        score: sigma of a channel: ``l2sum``, the sum of its columns' L2 norms (later code of the group), or ``l2sq_mean``, the mean of
            their squares (sequel, eq. 9).
        quantile: The limit on sigma as a quantile of the layer's channels that are not empty; or
        threshold: the limit itself. The group's values belong to ``l2sum``.
        column: A column of a smaller L2 norm counts as empty, and is emptied.
        filter: A filter of a smaller L2 norm is emptied.
        by: ``both`` conditions; ``emptiness`` or ``score`` alone take the first channels in that order until as many weights are gone as
            ``both`` would remove, layer by layer (claim 5).

    Raises:
        ValueError: A share lies outside 0..1, a norm is negative, a name is unknown, or not exactly one limit is given.
    """

    emptiness: float
    score: Score
    quantile: float | None
    threshold: float | None
    column: float
    filter: float
    by: By

    def __post_init__(self) -> None:
        if not 0 <= self.emptiness <= 1 or not 0 <= (self.quantile or 0) <= 1:
            raise ValueError(f"emptiness={self.emptiness}, quantile={self.quantile}: both are shares, from 0 to 1.")
        if (self.quantile is None) == (self.threshold is None):
            raise ValueError(f"quantile={self.quantile}, threshold={self.threshold}: give one of them, it limits the score of a channel.")
        if min(self.threshold or 0, self.column, self.filter) < 0:
            raise ValueError(f"threshold={self.threshold}, column={self.column}, filter={self.filter}: a norm is not negative.")
        if self.score not in get_args(Score) or self.by not in get_args(By):
            raise ValueError(
                f"score={self.score}, by={self.by}: the score is {' or '.join(get_args(Score))}, by one of {', '.join(get_args(By))}."
            )

    def scores(self, weight_FCD: Tensor) -> Tensor:
        """Return sigma of each channel, ``(C,)``."""
        squares_CD = weight_FCD.square().sum(0)
        return squares_CD.sqrt().sum(1) if self.score == "l2sum" else squares_CD.mean(1)

    def shares_empty(self, weight_FCD: Tensor) -> Tensor:
        """Return eta of each channel, ``(C,)``."""
        return (weight_FCD.square().sum(0).sqrt() <= self._smallest(weight_FCD)).float().mean(1)

    def limit(self, weight_FCD: Tensor) -> float:
        """Return the limit on sigma for a layer: once, before anything is removed, for a quantile of what is left would never settle."""
        if self.threshold is not None:
            return self.threshold
        scores_C = self.scores(weight_FCD)
        alive_C = scores_C[scores_C > 0]
        assert self.quantile is not None
        return float(alive_C.quantile(self.quantile)) if alive_C.numel() else 0.0

    def kept(self, weight_FCD: Tensor, *, limit: float, owed: int = 0) -> tuple[Tensor, int]:
        """Return the mask of the weights that stay, ``(F, C, D)``, and how many weights the next layer owes to match ``both``.

        Args:
            weight_FCD: A layer's weight.
            limit: What ``limit`` gave for it.
            owed: Weights that earlier layers removed too few of.
        """
        columns_CD = weight_FCD.square().sum(0).sqrt() > self._smallest(weight_FCD)
        filters_F = weight_FCD.square().sum((1, 2)).sqrt() > self.filter
        left = weight_FCD * columns_CD * self._one_at_least(filters_F, weight_FCD).view(-1, 1, 1)
        gone_C, owed = self._channels(left, limit, owed)
        return (left != 0) & ~gone_C.view(1, -1, 1), owed

    def _channels(self, left_FCD: Tensor, limit: float, owed: int) -> tuple[Tensor, int]:
        count_C = left_FCD.count_nonzero((0, 2))
        eta_C, sigma_C = self.shares_empty(left_FCD), self.scores(left_FCD)
        alive_C = count_C > 0
        gone_C = alive_C & (eta_C >= self.emptiness) & (sigma_C < limit)
        if bool((gone_C == alive_C).all()):  # the strongest stays
            gone_C[sigma_C.argmax()] = False
        if self.by == "both":
            return gone_C, 0
        rank_C = -eta_C if self.by == "emptiness" else sigma_C
        order = torch.where(alive_C, rank_C, torch.inf).argsort(stable=True)[: max(int(alive_C.sum()) - 1, 0)]
        removed = torch.cat([count_C.new_zeros(1), count_C[order].cumsum(0)])
        wanted = int(count_C[gone_C].sum()) + owed
        number = int((removed - wanted).abs().argmin())
        gone_C = torch.zeros_like(alive_C)
        gone_C[order[:number]] = True
        return gone_C, wanted - int(removed[number])

    def _smallest(self, weight_FCD: Tensor) -> float:
        """Return the norm up to which a column counts as empty; never that of the strongest."""
        norms_CD = weight_FCD.square().sum(0).sqrt()
        return min(self.column, float(norms_CD.max()) * (1 - 1e-6)) if self.column else 0.0

    def _one_at_least(self, kept_F: Tensor, weight_FCD: Tensor) -> Tensor:
        if not bool(kept_F.any()):
            kept_F = kept_F.clone()
            kept_F[weight_FCD.square().sum((1, 2)).argmax()] = True
        return kept_F
