"""Which dead weights sparse training brings back: drawn at random, or those with the largest dense gradient or momentum."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from espalier.constraints import Regrown, Target


class Regrowth(Protocol):
    """A score for weights that are dead; the set's projection picks whole groups by it.

    Attributes:
        dense_at_mutations: Whether it reads the gradients of dead weights in the step of a mutation, which is then that step's cost.
        dense_at_every_step: Whether it reads them in every step.
    """

    dense_at_mutations: ClassVar[bool]
    dense_at_every_step: ClassVar[bool]

    def observe(self, gradients: Mapping[Target, Tensor]) -> None:
        """Take the dense gradients of a step."""
        ...

    def score(self, target: Target, constraint: Regrown, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Return what each weight is worth, 0 to 1, same shape; the caller shields those that live."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class RandomGrowth:
    """Draw groups uniformly, without replacement. Source: SET; mest, section 2."""

    dense_at_mutations: ClassVar[bool] = False
    dense_at_every_step: ClassVar[bool] = False

    def observe(self, gradients: Mapping[Target, Tensor]) -> None: ...

    def score(self, target: Target, constraint: Regrown, weight: Tensor, generator: torch.Generator) -> Tensor:
        del target
        return constraint.draw(weight.shape, generator).to(weight.device)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class GradientGrowth:
    """Take the groups whose gradient, in the step of the mutation, is largest. Source: RigL, arXiv 1911.11134, section 3."""

    dense_at_mutations: ClassVar[bool] = True
    dense_at_every_step: ClassVar[bool] = False

    def __init__(self) -> None:
        self.seen: dict[Target, Tensor] = {}

    def observe(self, gradients: Mapping[Target, Tensor]) -> None:
        self.seen = {target: gradient.abs() for target, gradient in gradients.items()}

    def score(self, target: Target, constraint: Regrown, weight: Tensor, generator: torch.Generator) -> Tensor:
        del constraint, weight, generator
        return _scaled(self.seen[target])

    def state_dict(self) -> dict[str, Any]:
        return {}  # a mutation reads the gradients of its own step

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class MomentumGrowth:
    """Take the groups whose averaged dense gradient is largest. Source: SNFS, arXiv 1907.04840; layers keep their own sparsity here.

    Args:
        decay: Weight of the past in the average, 0 to below 1.

    Raises:
        ValueError: ``decay`` is out of range.
    """

    dense_at_mutations: ClassVar[bool] = True
    dense_at_every_step: ClassVar[bool] = True

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"regrowth.decay={decay:g} is no weight of the past; give 0 to below 1, such as 0.9.")
        self.decay = decay
        self.momentum: dict[Target, Tensor] = {}

    def observe(self, gradients: Mapping[Target, Tensor]) -> None:
        for target, gradient in gradients.items():
            past = self.momentum.get(target)
            self.momentum[target] = (
                gradient * (1 - self.decay) if past is None else past.to(gradient.device).lerp_(gradient, 1 - self.decay)
            )

    def score(self, target: Target, constraint: Regrown, weight: Tensor, generator: torch.Generator) -> Tensor:
        del constraint, weight, generator
        return _scaled(self.momentum[target].abs())

    def state_dict(self) -> dict[str, Any]:
        return {"momentum": {str(target): momentum for target, momentum in self.momentum.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.momentum = {Target.parse(name): momentum for name, momentum in state["momentum"].items()}


def _scaled(score: Tensor) -> Tensor:
    return score / score.max().clamp_min(torch.finfo(score.dtype).tiny)
