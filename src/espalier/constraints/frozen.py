"""What is left of a set once its discrete choice is made: a mask (``Support``), or entries held at levels (``Pinned``).

A mask comes from the choice itself and is never inferred from zeros: a kept weight that happens to be zero stays free.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from espalier.constraints.constraint import Constraint, Target, Weights


class Support:
    """Weights that are zero outside a mask and free inside it.

    Args:
        masks: Target -> bool mask of the target's shape; True is free.
        structure: Name of the grouping the masks came from, for the compiler and for packing.
    """

    def __init__(self, masks: Mapping[Target, Tensor], structure: str) -> None:
        self.masks = dict(masks)
        self.structure = structure

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the weights with everything outside the masks set to zero."""
        return {target: torch.where(_fitting(self.masks, target, weight), weight, 0.0) for target, weight in weights.items()}

    def freeze(self, weights: Weights) -> "Support":
        """Return the set itself: its choice is made. ``weights`` is not read."""
        del weights
        return self

    def free(self, target: Target) -> Tensor:
        """Return the bool mask of the entries that may still change."""
        return self.masks[target]

    def kept(self, target: Target) -> Tensor:
        """Return the bool mask of the entries that pruning left, which may be zero: here those that are free."""
        return self.masks[target]

    def outside(self, weights: Weights) -> int:
        """Return how many weights lie outside the set."""
        return sum(int(((weight != 0) & ~_fitting(self.masks, target, weight)).sum()) for target, weight in weights.items())

    def state_dict(self) -> dict[str, Any]:
        """Return masks and structure."""
        return {"kind": "support", "structure": self.structure, "masks": {str(t): m for t, m in self.masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore masks and structure."""
        self.structure = state["structure"]
        self.masks = {Target.parse(name): mask for name, mask in state["masks"].items()}


class Pinned:
    """Weights of which some entries are held at given values (levels, zeros); the others are free.

    Args:
        values: Target -> tensor of the target's shape; read where ``pinned`` is True.
        pinned: Target -> bool mask of the entries that are held.
        support: Target -> bool mask of the entries that pruning left; the others are held at zero. None, or a target left out: all.
    """

    def __init__(
        self, values: Mapping[Target, Tensor], pinned: Mapping[Target, Tensor], support: Mapping[Target, Tensor] | None = None
    ) -> None:
        if values.keys() != pinned.keys():
            raise ValueError(f"values name {', '.join(map(str, values))}, masks {', '.join(map(str, pinned))}; give both for each target.")
        self.values = dict(values)
        self.pinned = dict(pinned)
        self.support = dict(support or {})

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the weights with every pinned entry at its value."""
        return {target: torch.where(mask, value, weights[target]) for target, (mask, value) in self._held(weights).items()}

    def freeze(self, weights: Weights) -> "Pinned":
        """Return the set itself: its choice is made. ``weights`` is not read."""
        del weights
        return self

    def free(self, target: Target) -> Tensor:
        """Return the bool mask of the entries that may still change."""
        return ~self.pinned[target]

    def kept(self, target: Target) -> Tensor:
        """Return the bool mask of the entries that pruning left: free, or held at a level, which may be zero."""
        return self.support[target] if target in self.support else torch.ones_like(self.pinned[target])

    def outside(self, weights: Weights) -> int:
        """Return how many weights lie outside the set."""
        return sum(int(((weights[target] != value) & mask).sum()) for target, (mask, value) in self._held(weights).items())

    def state_dict(self) -> dict[str, Any]:
        """Return values and masks."""
        return {
            "kind": "pinned",
            "values": {str(t): v for t, v in self.values.items()},
            "pinned": {str(t): m for t, m in self.pinned.items()},
            "support": {str(t): m for t, m in self.support.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore values and masks. A state of before supports were kept says what was pruned by its zeros alone."""
        self.values = {Target.parse(name): value for name, value in state["values"].items()}
        self.pinned = {Target.parse(name): mask for name, mask in state["pinned"].items()}
        if "support" in state:
            self.support = {Target.parse(name): mask for name, mask in state["support"].items()}
        else:
            self.support = {target: ~mask | (self.values[target] != 0) for target, mask in self.pinned.items()}

    def _held(self, weights: Weights) -> dict[Target, tuple[Tensor, Tensor]]:
        return {
            target: (_fitting(self.pinned, target, weight), _fitting(self.values, target, weight).to(weight.dtype))
            for target, weight in weights.items()
        }


Frozen = Support | Pinned


def frozen_from_state(state: Mapping[str, Any]) -> Frozen:
    """Rebuild the frozen set that ``state_dict`` described.

    Raises:
        ValueError: The state names a kind that does not exist or is not frozen.
    """
    kinds: dict[str, Frozen] = {"support": Support({}, ""), "pinned": Pinned({}, {})}
    if state.get("kind") not in kinds:
        raise ValueError(f"'{state.get('kind')}' is no frozen set; there are {', '.join(kinds)}. Was the file written by a newer espalier?")
    frozen = kinds[state["kind"]]
    frozen.load_state_dict(state)
    return frozen


def as_frozen(constraint: Constraint) -> Frozen:
    """Return ``constraint`` as the frozen set it must be.

    Raises:
        ValueError: Its discrete choice has not been made.
    """
    if not isinstance(constraint, Support | Pinned):
        raise ValueError(f"{type(constraint).__name__} is not frozen; call freeze(weights) first.")
    return constraint


def joined(parts: Mapping[Target, Frozen]) -> Frozen:
    """Return one frozen set over all the targets, from the set that holds each; their own set where it is the same one."""
    sets = [*parts.values()]
    if all(held is sets[0] for held in sets):
        return sets[0]
    if all(isinstance(held, Support) for held in sets):
        names = sorted({held.structure for held in sets if isinstance(held, Support)})
        return Support({target: held.free(target) for target, held in parts.items()}, " + ".join(names))
    pinned = {target: ~held.free(target) for target, held in parts.items()}
    values = {
        target: held.values[target] if isinstance(held, Pinned) else torch.zeros(pinned[target].shape) for target, held in parts.items()
    }
    return Pinned(values, pinned, {target: held.kept(target) for target, held in parts.items()})


def _fitting(tensors: dict[Target, Tensor], target: Target, weight: Tensor) -> Tensor:
    if target not in tensors:
        raise ValueError(f"the frozen set holds nothing for {target}; it has {', '.join(map(str, tensors))}.")
    if tensors[target].shape != weight.shape:
        shape = tuple(tensors[target].shape)
        raise ValueError(f"the frozen set has shape {shape} for {target}, the weight {tuple(weight.shape)}; use the model it came from.")
    if tensors[target].device != weight.device:
        tensors[target] = tensors[target].to(weight.device)  # once: projection runs after every step
    return tensors[target]
