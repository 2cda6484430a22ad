"""``Sparse(structure, rate)``: at most 1/rate of the groups of each target are not zero."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from espalier.constraints.choosing import largest
from espalier.constraints.constraint import Target, Weights
from espalier.constraints.structures import Structure
from espalier.constraints.support_set import Shapes, SupportSet


@final
class Sparse(SupportSet):
    """Tensors with at most ``G / rate`` non-zero groups (round half up, at least one), ``G`` the number of groups of the target.

    Args:
        structure: The grouping.
        rate: All groups / kept groups, at least 1.
        score: What ranks the groups: ``energy``, their sum of squares, which gives the exact projection; or ``rms``, the mean over the
            weights a group really has (blk-rew). They differ only where blocks are padded; there ``rms`` keeps small but dense edge groups.

    Raises:
        ValueError: ``rate`` is below 1 or not finite, or the score is unknown.
    """

    kind: ClassVar[str] = "sparse"

    def __init__(self, structure: Structure, rate: float, score: str = "energy") -> None:
        if score not in ("energy", "rms"):
            raise ValueError(f"score='{score}' ranks no groups; take energy (the exact projection) or rms (mean over a group's weights).")
        self.structure = structure
        self.rate = checked_rate(rate)
        self.score = score

    @property
    def label(self) -> str:
        return self.structure.label

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        del shape
        return (self.structure,)

    def count(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return ``(kept groups, groups)`` of a weight of that shape."""
        num_groups = self.structure.num_groups(shape)
        return kept_of(num_groups, self.rate), num_groups

    def kept(self, mask: Tensor) -> int:
        """Return how many groups of a weight have a member where ``mask`` is True."""
        return int(self.structure.scores(mask.float()).count_nonzero())

    def weights_kept(self, shape: Sequence[int]) -> float:
        """Return how many weights are kept of such a tensor; where edge groups are smaller, the mean."""
        kept, num_groups = self.count(shape)
        return math.prod(shape) * kept / num_groups

    def max_rate(self, shape: Sequence[int]) -> float:
        """Return the largest rate that does not round to nothing."""
        return 2.0 * self.structure.num_groups(shape)

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            if self.structure.num_groups(shape) == 1 and self.rate > 1:
                raise ValueError(
                    f"shape {tuple(shape)} is a single group of structure '{self.label}', which rate {self.rate:g} cannot thin out; "
                    "name the layer in constraint.skip or take another structure."
                )

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        return {target: self._mask(weight) for target, weight in weights.items()}

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return a random tensor, float64, in which every set of groups has the same chance to be the largest."""
        chance_G = torch.rand(self.structure.num_groups(shape), generator=generator, dtype=torch.float64)
        if self.score == "energy":
            chance_G = chance_G / self.structure.sizes(shape).sqrt()  # edge groups are smaller, their energy is not
        return self.structure.spread(shape, chance_G)

    def threshold_at(self, weights: Weights, rate: float) -> float:
        """Return the largest RMS of a group that the set, at another rate, drops of such weights; 0 where it drops none."""
        dropped = [0.0]
        for weight in weights.values():
            score_G, size_G = self._scores(weight), self.structure.sizes(weight.shape).to(weight)
            kept_G = largest(score_G, kept_of(len(score_G), rate))
            rms_G = (self.structure.scores(weight) / size_G).sqrt()
            dropped += rms_G[~kept_G].max(0, keepdim=True).values.tolist() if not kept_G.all() else []
        return max(dropped)

    def knobs(self) -> dict[str, Any]:
        return {"structure": self.label, "rate": self.rate} | ({} if self.score == "energy" else {"score": self.score})

    def _mask(self, weight: Tensor) -> Tensor:
        return self.structure.mask(weight.shape, largest(self._scores(weight), self.count(weight.shape)[0]))

    def _scores(self, weight: Tensor) -> Tensor:
        score_G = self.structure.scores(weight)
        return score_G / self.structure.sizes(weight.shape).to(score_G) if self.score == "rms" else score_G


def checked_rate(rate: float) -> float:
    """Return the rate as a float.

    Raises:
        ValueError: It is below 1 or not finite.
    """
    if not (math.isfinite(rate) and rate >= 1):
        raise ValueError(f"rate={rate} is not a pruning rate; it is all / kept and starts at 1 (rate=4 keeps a quarter, sparsity 0.75).")
    return float(rate)


def kept_of(num_groups: int, rate: float) -> int:
    """Return how many of that many groups a rate keeps: round half up, at least one."""
    return max(1, math.floor(num_groups / rate + 0.5))
