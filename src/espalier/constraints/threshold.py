"""One threshold on the norms of groups, over all layers and over one grouping or several at once: layers find their own rates.

Suffix: G = groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.groupings import Groupings
from espalier.constraints.sparse import checked_rate
from espalier.constraints.structures import Structure
from espalier.constraints.support_set import Shapes, SupportSet

INFINITE = int(torch.tensor(torch.inf).view(torch.int32))  # bits of the largest float32


@final
class Threshold(SupportSet):
    """Weights whose groups have a norm above ``tau``, or are zero; every weight keeps the groups of its best entry.

    With several groupings, dropping a column lowers the norms of the rows it crosses; groups are dropped until all that are left lie above.

    Args:
        structures: The groupings; an entry stays where each of its groups does.
        tau: The threshold, at least 0.
        relative: Take norms over the RMS of the layer's weight; False takes plain RMS norms.
        spare: Structure -> number of input channels up to which a layer keeps all groups of that kind.

    Raises:
        ValueError: ``tau`` is negative.
    """

    kind: ClassVar[str] = "threshold"

    def __init__(
        self, structures: Sequence[Structure | str], tau: float, *, relative: bool = True, spare: Mapping[str, int] | None = None
    ) -> None:
        if not tau >= 0:
            raise ValueError(f"tau={tau} is no threshold on norms; it is 0 or more.")
        self.parts, self.tau = Groupings(structures, relative=relative, spare=spare or {}), float(tau)

    @property
    def label(self) -> str:
        return self.parts.label

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        return self.parts.of(shape)

    def threshold(self, weights: Weights) -> float:
        """Return ``tau``."""
        del weights
        return self.tau

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            self.parts.least(shape)

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        return {target: self._mask(weight) for target, weight in weights.items()}

    def knobs(self) -> dict[str, Any]:
        return {"structures": self.label, "tau": self.tau, "relative": self.parts.relative, "spare": self.parts.spare}

    def _mask(self, weight: Tensor) -> Tensor:
        while True:
            mask = self.parts.mask(weight.shape, [norm_G > self.tau for norm_G in self.parts.norms(weight)])
            left = torch.where(mask, weight, 0.0)
            if torch.equal(left, weight):
                return mask
            weight = left


class _Cut(NamedTuple):
    """Which groups a common threshold keeps: target -> one mask a grouping; and the largest norm that it drops, 0 where it drops none."""

    kept: dict[Target, list[Tensor]]
    tau: float


@final
class CommonThreshold(SupportSet):
    """Weights of several targets, cut at the lowest threshold whose non-zero entries cost at most ``1 / rate`` of what all cost.

    The threshold is bisected over the 31 bits of a positive float32, hence exactly; groups tied at it are kept by target, grouping and
    index as far as the cost allows. Not the nearest weights of that cost: groups rank by norm, not by the energy that dropping them costs.

    Args:
        structures: The groupings; an entry stays where each of its groups does.
        rate: Cost of all entries / cost of the kept ones.
        costs: Parameter -> cost of one of its weights: 1, bytes, or the multiply-adds it takes part in.
        relative: Take norms over the RMS of the layer's weight; False takes plain RMS norms.
        spare: Structure -> number of input channels up to which a layer keeps all groups of that kind.

    Raises:
        ValueError: A cost is not positive.
    """

    kind: ClassVar[str] = "common_threshold"
    joint: ClassVar[bool] = True

    def __init__(
        self,
        structures: Sequence[Structure | str],
        rate: float,
        costs: Mapping[str, float],
        *,
        relative: bool = True,
        spare: Mapping[str, int] | None = None,
    ) -> None:
        if free := [f"{name}: {cost}" for name, cost in costs.items() if cost <= 0]:
            raise ValueError(f"a weight costs more than nothing; costs give {', '.join(free)}.")
        self.parts, self.rate = Groupings(structures, relative=relative, spare=spare or {}), checked_rate(rate)
        self.costs = {name: float(cost) for name, cost in costs.items()}

    @property
    def label(self) -> str:
        return self.parts.label

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        return self.parts.of(shape)

    def threshold(self, weights: Weights) -> float:
        """Return the largest norm of a group that the set drops of such weights."""
        return self._cut(weights, self.rate).tau

    def threshold_at(self, weights: Weights, rate: float) -> float:
        """Return the threshold of another rate; where that is out of reach, of the nearest that is not."""
        return self._cut(weights, min(rate, self._steepest({target: weight.shape for target, weight in weights.items()}))).tau

    def check(self, shapes: Shapes) -> None:
        steepest = self._steepest(shapes)
        if self.rate > steepest:
            raise ValueError(
                f"rate={self.rate:g} would empty a layer: each of {len(shapes)} keeps one group of {self.label}; "
                f"the largest is {steepest:.6g}."
            )

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        self.check({target: weight.shape for target, weight in weights.items()})
        kept = self._cut(weights, self.rate).kept
        return {target: self.parts.mask(weight.shape, kept[target]) for target, weight in weights.items()}

    def knobs(self) -> dict[str, Any]:
        return {
            "structures": self.label,
            "rate": self.rate,
            "costs": self.costs,
            "relative": self.parts.relative,
            "spare": self.parts.spare,
        }

    def _steepest(self, shapes: Shapes) -> float:
        least = sum(self._cost(target) * self.parts.least(shape) for target, shape in shapes.items())
        return sum(self._cost(target) * torch.Size(shape).numel() for target, shape in shapes.items()) / least

    def _cut(self, weights: Weights, rate: float) -> _Cut:
        norms = {target: self.parts.norms(weight) for target, weight in weights.items()}
        flat_G = torch.cat([norm_G for parts in norms.values() for norm_G in parts])
        bits_G = flat_G.view(torch.int32)  # floats that are not negative sort like their bits
        budget = sum(self._cost(target) * weight.numel() for target, weight in weights.items()) / rate * (1 + 1e-9)

        def apart(kept_G: Tensor) -> dict[Target, list[Tensor]]:
            pieces = iter(torch.split(kept_G, [len(norm_G) for parts in norms.values() for norm_G in parts]))
            return {target: [next(pieces) for _ in parts] for target, parts in norms.items()}

        def cost(kept_G: Tensor) -> float:
            kept = apart(kept_G)
            return sum(self._cost(target) * int(self.parts.mask(weight.shape, kept[target]).sum()) for target, weight in weights.items())

        low, high = -1, INFINITE  # keeping what lies above `high` can be paid, above `low` it cannot
        if cost(bits_G > low) <= budget:
            return _Cut(apart(bits_G > low), 0.0)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if cost(bits_G > middle) <= budget else (middle, high)
        tied = (bits_G == high).nonzero().squeeze(1)
        above_G, few, many = bits_G > high, 0, len(tied)
        while many - few > 1:  # the first `few` of the tied can be paid, the first `many` cannot
            middle = (few + many) // 2
            can = cost(above_G.index_fill(0, tied[:middle], True)) <= budget
            few, many = (middle, many) if can else (few, middle)
        kept_G = above_G.index_fill(0, tied[:few], True)
        return _Cut(apart(kept_G), float(flat_G[~kept_G].max()))

    def _cost(self, target: Target) -> float:
        if target.parameter not in self.costs:
            raise ValueError(f"costs name no {target.parameter}; they have {', '.join(self.costs)}.")
        return self.costs[target.parameter]
