"""Several groupings of one weight at once, and the norms of their groups.

The norm of a group is its RMS, ``||w|| / sqrt(size)``, so that one threshold serves groups of any size; by default over the RMS of its
whole weight: before batch normalisation a weight has no scale of its own, and where half of a layer's columns are gone every filter's RMS
has fallen to 0.7, so that a threshold on plain norms empties whole layers. An entry of a weight stays where every group that holds it does:
filters and columns cross (ss-auto, S5), as do the rows and columns of a block (blk-rew, section 1).

Suffix: G = groups.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from espalier.constraints.structures import STRUCTURES, Structure, structure

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
        ValueError: A structure does not exist, or one that ``spare`` names.
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
