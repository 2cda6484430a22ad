"""One threshold on the norms of groups, over all layers and over one grouping or several at once.

The norm of a group is its RMS, ``||w|| / sqrt(size)``, so that one threshold serves groups of any size; by default over the RMS of its
whole weight: before batch normalisation a weight has no scale of its own, and where half of a layer's columns are gone every filter's RMS
has fallen to 0.7, so that a threshold on plain norms empties whole layers. An entry of a weight stays where every group that holds it does:
filters and columns cross (ss-auto, S5), as do the rows and columns of a block (blk-rew, section 1). Layers find their own rates.

Suffix: G = groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.sparse import checked_rate
from espalier.constraints.structures import STRUCTURES, Structure, structure
from espalier.constraints.support_set import Shapes, SupportSet

INFINITE = int(torch.tensor(torch.inf).view(torch.int32))  # bits of the largest float32
TINY = 1e-12


def rms(grouping: Structure, weight: Tensor) -> Tensor:
    """Return the RMS of each group of a weight, ``(G,)``, float32; padding does not count."""
    score_G = grouping.scores(weight)
    return (score_G / grouping.sizes(weight.shape).to(score_G)).sqrt().float()


class Groupings:
    """Several groupings at once, some of them left out of weights with few input channels.

    Args:
        structures: The groupings, by name or label (``block_row 8x32``).
        relative: Divide norms by the RMS of the whole weight.
        spare: Name of a structure -> number of input channels up to which a weight keeps all its groups of that kind; ``column: 3`` spares
            the columns of a network's first convolution. Structures that are not among the groupings change nothing.

    Raises:
        ValueError: There is no such structure, or ``spare`` names one that is not there.
    """

    def __init__(self, structures: Sequence[Structure | str], *, relative: bool, spare: Mapping[str, int]) -> None:
        self.relative = relative
        self.structures = tuple(structure(entry) if isinstance(entry, str) else entry for entry in structures)
        self.spare = dict(spare)
        names = [entry.name for entry in self.structures]
        if not names:
            raise ValueError("structures=[] groups nothing; give at least one, such as [filter, column].")
        if unknown := sorted(self.spare.keys() - {*names, *STRUCTURES}):
            raise ValueError(f"spare names {', '.join(unknown)}; the structures are {', '.join(names)}.")

    @property
    def label(self) -> str:
        return " + ".join(entry.label for entry in self.structures)

    def of(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        """Return the groupings that a weight of that shape takes.

        Raises:
            ValueError: All are spared.
        """
        taken = tuple(entry for entry in self.structures if entry.name not in self.spare or shape[1] > self.spare[entry.name])
        if not taken:
            raise ValueError(f"spare={self.spare} leaves a weight of shape {tuple(shape)} no groups; name its layer in constraint.skip.")
        return taken

    def unit(self, weight: Tensor) -> float:
        """Return what the norms of a weight's groups are divided by."""
        return max(float(weight.float().square().mean().sqrt()), TINY) if self.relative else 1.0

    def norms(self, weight: Tensor) -> list[Tensor]:
        """Return the norms of the groups, one tensor a grouping; infinite for those of the best entry, so that a layer is never emptied.

        Raises:
            ValueError: A norm is NaN.
        """
        taken = self.of(weight.shape)
        norms = [rms(grouping, weight) / self.unit(weight) for grouping in taken]
        if num_nan := sum(int(norm_G.isnan().sum()) for norm_G in norms):
            raise ValueError(f"{num_nan} norms of groups are NaN; check the learning rate.")
        reach = torch.stack([grouping.spread(weight.shape, norm_G) for grouping, norm_G in zip(taken, norms, strict=True)]).amin(0)
        best = int(reach.flatten().argmax())
        for grouping, norm_G in zip(taken, norms, strict=True):
            norm_G[members(grouping, weight.shape).flatten()[best]] = torch.inf
        return norms

    def mask(self, shape: Sequence[int], kept: Sequence[Tensor]) -> Tensor:
        """Return the entries all of whose groups are kept, bool, of ``shape``; ``kept`` holds one mask of groups a grouping."""
        masks = [grouping.mask(shape, kept_G) for grouping, kept_G in zip(self.of(shape), kept, strict=True)]
        return torch.stack(masks).all(0) if len(masks) > 1 else masks[0]

    def least(self, shape: Sequence[int]) -> int:
        """Return how many entries stay of a weight that keeps one group of each grouping."""
        return int(torch.stack([(group := members(grouping, shape).flatten()) == group[0] for grouping in self.of(shape)]).all(0).sum())


def members(grouping: Structure, shape: Sequence[int]) -> Tensor:
    """Return the number of the group that each entry of a weight belongs to, int64, of ``shape``."""
    return grouping.spread(shape, torch.arange(grouping.num_groups(shape)))


@final
class Threshold(SupportSet):
    """Weights whose groups have a norm above ``tau``, or are zero; every weight keeps the groups of its best entry.

    With several groupings, dropping a column lowers the norms of the rows it crosses; groups are dropped until all that are left lie above.

    Args:
        structures: The groupings; an entry stays where each of its groups does.
        tau: The threshold, at least 0.
        relative: See ``Groupings``.
        spare: See ``Groupings``.

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
        relative: See ``Groupings``.
        spare: See ``Groupings``.

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
