"""``Budget(structure, rate, costs)``: the groups of all targets that are worth their multiply-adds, bytes or weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from espalier.constraints.choosing import densest, favoured
from espalier.constraints.constraint import Target, Weights
from espalier.constraints.sparse import checked_rate
from espalier.constraints.structures import Structure
from espalier.constraints.support_set import Shapes, SupportSet


@final
class Budget(SupportSet):
    """Weights of several targets whose non-zero groups cost at most ``1 / rate`` of what all groups cost.

    Which groups to keep is a knapsack problem, and the projection is its greedy answer: groups by energy per cost, up to the first that
    the budget cannot pay. That is exact for the cost it really spends, hence exact where all groups cost the same, and it never keeps less
    than the optimum's energy minus the energy of that first group. Ties keep the earlier target, then the lower index.

    Args:
        structure: The grouping.
        rate: Cost of all groups / cost of the kept ones.
        costs: Parameter -> cost of one of its weights: the multiply-adds it takes part in (one per output position), bytes, or 1.
        floor: Leave each target its best group by energy per cost; with it the statements above hold for the groups beyond these.

    Raises:
        ValueError: A cost is not positive.
    """

    kind: ClassVar[str] = "budget"
    joint: ClassVar[bool] = True

    def __init__(self, structure: Structure, rate: float, costs: Mapping[str, float], floor: bool = True) -> None:
        if free := [f"{name}: {cost}" for name, cost in costs.items() if cost <= 0]:
            raise ValueError(f"a weight costs more than nothing; costs give {', '.join(free)}.")
        self.structure, self.rate, self.floor = structure, checked_rate(rate), floor
        self.costs = {name: float(cost) for name, cost in costs.items()}

    @property
    def label(self) -> str:
        return self.structure.label

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        del shape
        return (self.structure,)

    def total(self, shapes: Shapes) -> float:
        """Return what all groups of such weights cost."""
        return sum(self._cost(target) * math.prod(shape) for target, shape in shapes.items())

    def check(self, shapes: Shapes) -> None:
        total = self.total(shapes)
        cheapest = [float(self._group_costs(target, shapes).min()) for target in shapes]
        least = float(sum(cheapest)) if self.floor else min(cheapest)
        if total / self.rate < least:
            raise ValueError(
                f"rate={self.rate:g} leaves {total / self.rate:.6g} of {total:.6g}, but {'each of' if self.floor else 'one of'} "
                f"{len(shapes)} layers keeps a group '{self.label}', {least:.6g} in all; the largest rate is {total / least:.6g}."
            )

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        shapes = {target: weight.shape for target, weight in weights.items()}
        self.check(shapes)
        scores = [self.structure.scores(weight) for weight in weights.values()]
        costs = [self._group_costs(target, shapes).to(score_G.device) for target, score_G in zip(shapes, scores, strict=True)]
        worth = [score_G / cost_G for score_G, cost_G in zip(scores, costs, strict=True)]
        worth_G, cost_G = torch.cat(favoured(worth) if self.floor else worth), torch.cat(costs)
        kept_G = densest(worth_G, cost_G, self.total(shapes) / self.rate)
        kept = zip(shapes.items(), torch.split(kept_G, [len(score_G) for score_G in scores]), strict=True)
        return {target: self.structure.mask(shape, part_G) for (target, shape), part_G in kept}

    def knobs(self) -> dict[str, Any]:
        return {"structure": self.structure.label, "rate": self.rate, "costs": self.costs, "floor": self.floor}

    def _group_costs(self, target: Target, shapes: Shapes) -> Tensor:
        return self.structure.sizes(shapes[target]) * self._cost(target)

    def _cost(self, target: Target) -> float:
        if target.parameter not in self.costs:
            raise ValueError(f"costs name no {target.parameter}; they have {', '.join(self.costs)}.")
        return self.costs[target.parameter]
