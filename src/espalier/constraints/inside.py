"""A set within what an earlier step froze."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from espalier.constraints.constraint import Constraint, Target, Weights
from espalier.constraints.frozen import Frozen, Pinned, Support

LEAST = 1e-18  # its square is still a normal float32


class Inside:
    """The weights of ``inner`` that also lie in the frozen set ``outer``.

    A level set sees only the entries that ``outer`` leaves free, as one vector, so that pruned zeros neither need a zero level nor pull
    its scale; as exact as ``inner`` is. A sparsity structure is projected once the zeros of ``outer`` are in place: both sets are unions of
    coordinate subspaces, and dropping the groups with the least energy among the free entries is the exact projection onto their
    intersection. Where ``outer`` pins non-zero levels they stay, even if ``inner`` would drop their group. Source: progressive-admm, M6.

    Args:
        outer: What an earlier step froze.
        inner: The set to choose within it, or another frozen set to intersect with.
    """

    def __init__(self, outer: Frozen, inner: Constraint) -> None:
        self.outer, self.inner = outer, inner

    @property
    def entrywise(self) -> bool:
        """Whether the inner set may be projected onto entry by entry."""
        return bool(getattr(self.inner, "entrywise", False))

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest weights in both sets."""
        held = self.outer.project(weights)
        if not self.entrywise:
            return self.outer.project(self.inner.project(held))
        return {target: _scatter(held[target], self._free(target, held[target]), self._levels(target, held[target])) for target in weights}

    def freeze(self, weights: Weights) -> Frozen:
        """Return what is left of both sets once ``weights`` has made the choice."""
        held = self.outer.project(weights)
        if self.entrywise:
            levels = self.project(weights)
            return Pinned(levels, {target: torch.ones_like(level, dtype=torch.bool) for target, level in levels.items()})
        inner = self.inner.freeze({target: self._ranked(target, weight) for target, weight in held.items()})
        if isinstance(inner, Pinned):
            pinned = {target: inner.pinned[target] | ~self._free(target, held[target]) for target in weights}
            return Pinned(self.outer.project({target: inner.values[target] for target in weights}), pinned)
        if isinstance(inner, Support) and isinstance(self.outer, Support):
            return Support({target: inner.masks[target] & self._free(target, held[target]) for target in weights}, inner.structure)
        raise ValueError("a sparsity structure cannot be chosen among weights that are pinned to levels; prune first, quantize afterwards.")

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both sets."""
        return {"kind": "inside", "outer": self.outer.state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore both sets."""
        self.outer.load_state_dict(state["outer"])
        self.inner.load_state_dict(state["inner"])

    def _free(self, target: Target, like: Tensor) -> Tensor:
        return self.outer.free(target).to(like.device)

    def _ranked(self, target: Target, held: Tensor) -> Tensor:
        """Return the weights, the smallest of the free ones lifted above what ``outer`` holds at zero: no mask is read off values."""
        return torch.where(self._free(target, held) & (held.abs() < LEAST), LEAST, held)

    def _levels(self, target: Target, held: Tensor) -> Tensor:
        vector = held[self._free(target, held)]
        return self.inner.project({target: vector})[target] if vector.numel() else vector


def _scatter(held: Tensor, free: Tensor, values: Tensor) -> Tensor:
    result = held.clone()
    result[free] = values
    return result
