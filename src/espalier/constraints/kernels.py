"""Connectivity: whole kernels removed, the same number in every filter.  Suffixes: F = filters, C = input channels.

The kernels of a layer as one pool are ``Sparse(KERNEL, rate)``, those of all layers ``GlobalSparse(KERNEL, rate)``.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from espalier.constraints.choosing import largest_in_rows
from espalier.constraints.constraint import Target, Weights
from espalier.constraints.sparse import checked_rate, kept_of
from espalier.constraints.structures import KERNEL, Structure
from espalier.constraints.support_set import Shapes, SupportSet


@final
class BalancedKernels(SupportSet):
    """Weights in which every filter keeps the same number of kernels, ``C / rate`` (round half up, at least one); the projection is exact.

    In a linear layer a kernel is one weight. Source: progressive-admm, M5: ``kernel_balanced``; mest, section 5: filter balance.

    Args:
        rate: All / kept kernels of each filter.
    """

    kind: ClassVar[str] = "balanced_kernels"

    def __init__(self, rate: float) -> None:
        self.rate = checked_rate(rate)

    @property
    def label(self) -> str:
        return "kernel balanced"

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        del shape
        return (KERNEL,)

    def weights_kept(self, shape: Sequence[int]) -> float:
        """Return how many weights are kept of such a tensor."""
        return math.prod(shape) * kept_of(shape[1], self.rate) / shape[1]

    def max_rate(self, shape: Sequence[int]) -> float:
        """Return the largest rate that does not round to nothing."""
        return 2.0 * shape[1]

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            KERNEL.num_groups(shape)
            if shape[1] == 1 and self.rate > 1:
                raise ValueError(
                    f"a filter of shape {tuple(shape)} has a single kernel, which rate {self.rate:g} cannot thin out; "
                    "name the layer in constraint.skip or take another structure."
                )

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        kept = {}
        for target, weight in weights.items():
            energy_FC = KERNEL.scores(weight).view(weight.shape[0], -1)
            kept_FC = largest_in_rows(energy_FC, kept_of(energy_FC.shape[1], self.rate))
            kept[target] = KERNEL.mask(weight.shape, kept_FC.flatten())
        return kept

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return a random tensor, float64, in which every set of kernels has the same chance to be the largest."""
        return KERNEL.spread(shape, torch.rand(KERNEL.num_groups(shape), generator=generator, dtype=torch.float64))

    def knobs(self) -> dict[str, Any]:
        return {"rate": self.rate}
