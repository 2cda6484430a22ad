"""``Sparse(structure, rate)``: at most 1/rate of the groups of each target are not zero."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.frozen import Support
from espalier.constraints.structures import Structure, largest


class Sparse:
    """Tensors with at most ``G / rate`` non-zero groups (round half up, at least one), ``G`` the number of groups of the target.

    Args:
        structure: The grouping.
        rate: All groups / kept groups, at least 1.

    Raises:
        ValueError: ``rate`` is below 1 or not finite.
    """

    entrywise: ClassVar[bool] = False

    def __init__(self, structure: Structure, rate: float) -> None:
        if not (math.isfinite(rate) and rate >= 1):
            raise ValueError(
                f"rate={rate} is not a pruning rate; it is all / kept and starts at 1 (rate=4 keeps a quarter, sparsity 0.75)."
            )
        self.structure = structure
        self.rate = float(rate)

    def count(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return ``(kept groups, groups)`` of a weight of that shape."""
        num_groups = self.structure.num_groups(shape)
        return max(1, math.floor(num_groups / self.rate + 0.5)), num_groups

    def kept(self, mask: Tensor) -> int:
        """Return how many groups of a weight have a member where ``mask`` is True."""
        return int(self.structure.scores(mask.float()).count_nonzero())

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest tensors with few enough non-zero groups, target by target; exact, ties keep the lower index."""
        return {target: self.structure.project(weight, self.count(weight.shape)[0]) for target, weight in weights.items()}

    def freeze(self, weights: Weights) -> Support:
        """Return the support that the projection of ``weights`` keeps; a kept weight that is zero stays in it."""
        masks = {}
        for target, weight in weights.items():
            kept_G = largest(self.structure.scores(weight), self.count(weight.shape)[0])
            masks[target] = self.structure.mask(weight.shape, kept_G)
        return Support(masks, self.structure.name)

    def state_dict(self) -> dict[str, Any]:
        """Return the rate and the structure's name."""
        return {"kind": "sparse", "structure": self.structure.name, "rate": self.rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that the state is of the same structure and take its rate.

        Raises:
            ValueError: The state was made with another structure.
        """
        if state["structure"] != self.structure.name:
            raise ValueError(
                f"the checkpoint holds structure '{state['structure']}', this run asks for '{self.structure.name}'; start anew."
            )
        self.rate = float(state["rate"])
