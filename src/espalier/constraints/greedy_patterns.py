"""Pattern libraries out of a network's own kernels.

Source: privacy-pruning, P5: data-driven design (as in PatDNN) with greedy coverage.
Suffixes: G = kernels, P = patterns, S = positions of a kernel, row by row.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from espalier.constraints.patterns import NUM_AT_ONCE, Library, Patterns, best_pattern


@dataclass(frozen=True)
class GreedyPatterns:
    """Builds ``Patterns`` from a library of its own, found in the network that it is assigned to: one library for all layers.

    Args:
        size: Patterns in the library.
        kept: Positions that a pattern keeps; the centre is always one of them.

    Raises:
        ValueError: A 3x3 kernel has no such library.
    """

    size: int
    kept: int = 4

    def __post_init__(self) -> None:
        possible = math.comb(8, self.kept - 1) if 1 <= self.kept <= 9 else 0
        if not 1 <= self.size <= possible:
            raise ValueError(
                f"{self} is no library of 3x3 kernels: with the centre there are {possible} patterns of {self.kept} positions; "
                "kept is 1 to 9, size at most their number."
            )

    def fitted(self, weights: Mapping[str, Tensor]) -> Callable[..., Patterns]:
        """Return what builds the set.

        Raises:
            ValueError: A weight has kernels of another size, or NaN.
        """
        for name, weight in weights.items():
            if tuple(weight.shape[2:]) != (3, 3):
                raise ValueError(
                    f"{name}: greedy patterns are for 3x3 kernels, not for a weight of shape {tuple(weight.shape)}; "
                    "constraint.include=[conv3x3] takes only those that fit."
                )
        kernels_GS = torch.cat([weight.reshape(-1, 9) for weight in weights.values()])
        return partial(Patterns, library=greedy_library(kernels_GS, self.size, kept=self.kept))


def greedy_library(kernels_GS: Tensor, size: int, *, kept: int = 4) -> Library:
    """Return the library that greedy coverage finds.

    It starts with the most frequent natural pattern (the centre and the largest of the others) and adds the one that raises the energy kept
    over all kernels most, until there are enough; ties go to the earlier pattern in lexical order. On the meta device, where kernels have
    no values, it takes the first in that order.

    Args:
        kernels_GS: 3x3 kernels, row by row.
        size: Patterns to choose.
        kept: Positions that a pattern keeps, the centre among them.
    """
    candidates = [
        tuple(sorted((4, *others))) for others in itertools.combinations([position for position in range(9) if position != 4], kept - 1)
    ]
    masks_PS = Library(source="candidates", patterns=tuple(candidates)).masks().to(kernels_GS.device)
    if kernels_GS.is_meta:
        return _named(candidates[:size])
    natural_G, _ = best_pattern(kernels_GS, masks_PS)
    chosen = [int(torch.bincount(natural_G, minlength=len(candidates)).argmax())]
    while len(chosen) < size:
        gain_P = torch.zeros(len(candidates), dtype=torch.float64, device=kernels_GS.device)
        for part in torch.split(kernels_GS, NUM_AT_ONCE):
            energy_GP = part.double().square() @ masks_PS.T.double()
            gain_P += (energy_GP - energy_GP[:, chosen].max(dim=1, keepdim=True).values).clamp_min(0).sum(0)
        gain_P[chosen] = -1.0
        chosen.append(int(gain_P.argmax()))
    return _named([candidates[index] for index in chosen])


def _named(patterns: Sequence[tuple[int, ...]]) -> Library:
    """Return the library under a name that spells its patterns out, position by position: frozen supports keep the name alone."""
    spelled = " ".join("".join(map(str, pattern)) for pattern in patterns)
    return Library(source=f"greedy{len(patterns)} ({spelled})", patterns=tuple(patterns))
