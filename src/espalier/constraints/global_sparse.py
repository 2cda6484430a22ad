"""``GlobalSparse(structure, rate)``: the best groups of all targets together, so that layers find their own rates."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from espalier.constraints.choosing import favoured, largest
from espalier.constraints.constraint import Target, Weights
from espalier.constraints.sparse import checked_rate, kept_of
from espalier.constraints.structures import Structure
from espalier.constraints.support_set import Shapes, SupportSet


@final
class GlobalSparse(SupportSet):
    """Weights of several targets with at most ``G / rate`` non-zero groups in all (round half up), ``G`` counted over the targets.

    Keeping the groups of most energy is the exact projection; with a floor, the best group of each target first and then the best of the
    rest, which is exact as well. Ties keep the earlier target, then the lower index. Source: progressive-admm, M5: ``global_irregular``.

    Args:
        structure: The grouping.
        rate: All / kept groups, over all targets.
        floor: Leave each target at least one group.
    """

    kind: ClassVar[str] = "global_sparse"
    joint: ClassVar[bool] = True

    def __init__(self, structure: Structure, rate: float, floor: bool = True) -> None:
        self.structure, self.rate, self.floor = structure, checked_rate(rate), floor

    @property
    def label(self) -> str:
        return self.structure.label

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        del shape
        return (self.structure,)

    def check(self, shapes: Shapes) -> None:
        num_groups = sum(self.structure.num_groups(shape) for shape in shapes.values())
        if num_groups / self.rate < 0.5 or (self.floor and kept_of(num_groups, self.rate) < len(shapes)):
            largest_rate = num_groups / len(shapes) if self.floor else 2.0 * num_groups
            raise ValueError(
                f"rate={self.rate:g} keeps {num_groups / self.rate:.3g} of {num_groups} groups '{self.label}' in {len(shapes)} layers and "
                f"would empty some; the largest is {largest_rate:g}."
            )

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        shapes = {target: weight.shape for target, weight in weights.items()}
        self.check(shapes)
        scores = [self.structure.scores(weight) for weight in weights.values()]
        sizes = [len(score_G) for score_G in scores]
        kept_G = largest(torch.cat(favoured(scores) if self.floor else scores), kept_of(sum(sizes), self.rate))
        kept = zip(shapes.items(), torch.split(kept_G, sizes), strict=True)
        return {target: self.structure.mask(shape, part_G) for (target, shape), part_G in kept}

    def knobs(self) -> dict[str, Any]:
        return {"structure": self.structure.label, "rate": self.rate, "floor": self.floor}
