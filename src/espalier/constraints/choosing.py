"""Selections that never sort all scores: the largest, the largest of each row, the densest within a budget.  Ties keep the lower index.

Suffixes: G = groups, R = rows, B = buckets of scores.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_BUCKETS = 2**15  # leading bits of a float32 without its sign: a bucket spans less than 1 % of its scores


def largest(score_G: Tensor, num_keep: int) -> Tensor:
    """Return the mask of the ``num_keep`` largest scores; ties keep the lower index. Selects: a sort of 25 M scores takes 4x as long.

    Raises:
        ValueError: ``num_keep`` is out of range or a score is NaN.
    """
    if not 0 <= num_keep <= score_G.numel() or score_G.isnan().any():
        num_nan = int(score_G.isnan().sum())
        raise ValueError(f"cannot keep {num_keep} of {score_G.numel()} groups, {num_nan} of them NaN; check rate and weights.")
    if num_keep == 0:
        return torch.zeros_like(score_G, dtype=torch.bool)
    threshold = score_G.kthvalue(score_G.numel() - num_keep + 1).values
    above_G = score_G > threshold
    tied = (score_G == threshold).nonzero().squeeze(1)[: num_keep - int(above_G.sum())]  # positions, ascending
    return above_G.index_fill_(0, tied, True)


def largest_in_rows(score_RG: Tensor, num_keep: int) -> Tensor:
    """Return the mask of the ``num_keep`` largest scores of each row; ties keep the lower index.

    Raises:
        ValueError: ``num_keep`` is out of range or a score is NaN.
    """
    num_groups = score_RG.shape[1]
    if not 1 <= num_keep <= num_groups or score_RG.isnan().any():
        num_nan = int(score_RG.isnan().sum())
        raise ValueError(f"cannot keep {num_keep} of {num_groups} groups a row, {num_nan} scores are NaN; check rate and weights.")
    threshold_R1 = score_RG.kthvalue(num_groups - num_keep + 1, dim=1, keepdim=True).values
    above_RG, tied_RG = score_RG > threshold_R1, score_RG == threshold_R1
    return above_RG | (tied_RG & (tied_RG.cumsum(1) <= num_keep - above_RG.sum(1, keepdim=True)))


def densest(density_G: Tensor, cost_G: Tensor, budget: float) -> Tensor:
    """Return the mask of the groups that come first by density, up to the first that ``budget`` cannot pay.

    A histogram over the leading bits of the densities finds the bucket in which the budget runs out; only that bucket is sorted.

    Args:
        density_G: What a group is worth per unit of cost, at least 0.
        cost_G: What it costs, above 0, float64.
        budget: What the kept groups may cost together.

    Raises:
        ValueError: A density is NaN.
    """
    if density_G.isnan().any():
        raise ValueError(f"{int(density_G.isnan().sum())} of {density_G.numel()} scores are NaN; check the learning rate.")
    bucket_G = density_G.float().view(torch.int32) >> 16  # floats that are not negative sort like their bits
    spent_B = torch.bincount(bucket_G, weights=cost_G, minlength=NUM_BUCKETS)
    spent_B = torch.cat([spent_B.flip(0).cumsum(0).flip(0), spent_B.new_zeros(1)])  # by this bucket and those above it
    cut = int((spent_B > budget).sum()) - 1
    kept_G = bucket_G > cut
    if cut < 0:
        return kept_G
    edge = (bucket_G == cut).nonzero().squeeze(1)
    edge = edge[density_G[edge].argsort(descending=True, stable=True)]
    return kept_G.index_fill_(0, edge[cost_G[edge].cumsum(0) <= budget - spent_B[cut + 1]], True)


def favoured(scores: Sequence[Tensor]) -> list[Tensor]:
    """Return the scores with the largest of each layer raised to infinity, so that every layer keeps a group.

    Raises:
        ValueError: A score is NaN.
    """
    if num_nan := sum(int(score_G.isnan().sum()) for score_G in scores):
        raise ValueError(f"{num_nan} scores of groups are NaN; check the learning rate.")
    return [score_G.index_fill(0, score_G.argmax(), torch.inf) for score_G in scores]
