"""What all sparsity sets share: a choice of entries to keep, from which projection, frozen set and state follow."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.frozen import Support
from espalier.constraints.structures import Structure

Shapes = Mapping[Target, Sequence[int]]


class SupportSet(ABC):
    """Tensors that are zero outside one of finitely many supports; the projection keeps the best support it finds, entries unchanged."""

    entrywise: ClassVar[bool] = False
    joint: ClassVar[bool] = False  # whether one set spans all targets of an assignment
    kind: ClassVar[str]

    @property
    @abstractmethod
    def label(self) -> str:
        """Return what the compiler and packing call such a support."""

    @abstractmethod
    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the bool mask of the entries to keep; a kept entry may be zero."""

    @abstractmethod
    def check(self, shapes: Shapes) -> None:
        """Raise a ``ValueError`` that names the shape and the way out where the set cannot hold such weights."""

    @abstractmethod
    def knobs(self) -> dict[str, Any]:
        """Return the settings, plain values by the names of attributes; all but ``rate`` must agree on resume."""

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest weights of the set, target by target; ties keep the lower index."""
        masks = self.masks(weights)
        return {target: torch.where(masks[target], weight, 0.0) for target, weight in weights.items()}

    def freeze(self, weights: Weights) -> Support:
        """Return the support that the projection of ``weights`` keeps; a kept weight that is zero stays in it."""
        return Support(self.masks(weights), self.label)

    def state_dict(self) -> dict[str, Any]:
        """Return the kind and the knobs."""
        return {"kind": self.kind, **self.knobs()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that the state is of the same kind and knobs, and take its rate.

        Raises:
            ValueError: The state was made with other knobs.
        """
        own = self.state_dict()
        for key in dict.fromkeys([*own, *state]):  # in their order: a set has another in every process
            if key != "rate" and state.get(key) != own.get(key):
                raise ValueError(f"the checkpoint holds {key} '{state.get(key)}', this run asks for '{own.get(key)}'; start anew.")
        if "rate" in own:
            self.rate = float(state["rate"])


@runtime_checkable
class Rated(Protocol):
    """A set for one target that a rate thins out."""

    rate: float

    def weights_kept(self, shape: Sequence[int]) -> float:
        """Return how many weights the set keeps of such a tensor; where edge groups are smaller, the mean."""
        ...

    def max_rate(self, shape: Sequence[int]) -> float:
        """Return the largest rate that does not round to nothing."""
        ...


@runtime_checkable
class Regrown(Rated, Protocol):
    """A set whose support can change in part: groups leave it and others, drawn at random or by a score, join."""

    @property
    def label(self) -> str:
        """Return what the compiler and packing call such a support."""
        ...

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the bool mask of the entries to keep."""
        ...

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return a tensor whose largest groups are a uniform draw of groups."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """A set that keeps or drops whole groups of a weight: of one grouping, or of several at once, whose masks intersect."""

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        """Return the groupings of a weight of that shape."""
        ...


@runtime_checkable
class Steered(Protocol):
    """A set that can say which threshold on the norms of its groups gives which rate."""

    rate: float

    def threshold_at(self, weights: Weights, rate: float) -> float:
        """Return the largest norm of a group, as the set measures it, that it drops of such weights at a rate."""
        ...
