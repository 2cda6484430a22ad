"""What a weight may be: targets, and sets of admissible weights with their Euclidean projection."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

SLICE = re.compile(r"(?P<parameter>.+)\[(?P<axis>-?\d+):(?P<start>\d+|None):(?P<stop>\d+|None)\]")


@dataclass(frozen=True, order=True)
class Target:
    """A parameter, or the slice ``start:stop`` of one of its axes (a gate of a GRU, one of q, k, v).

    Args:
        parameter: Name as in ``model.named_parameters()``.
        axis: Axis that is sliced; None takes the whole parameter.
        start: First index of the slice.
        stop: One past its last index.
    """

    parameter: str
    axis: int | None = None
    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        return self.parameter if self.axis is None else f"{self.parameter}[{self.axis}:{self.start}:{self.stop}]"

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Return the target that ``str(target)`` wrote: ``conv1.weight``, or ``gru.weight_ih_l0[0:0:64]`` for a slice.

        Raises:
            ValueError: Brackets that hold no ``axis:start:stop``.
        """
        if text and "[" not in text:
            return cls(text)
        if (match := SLICE.fullmatch(text)) is None:
            raise ValueError(f"'{text}' is no target; write a parameter's name, or name[axis:start:stop] for a slice.")
        start, stop = (None if match[key] == "None" else int(match[key]) for key in ("start", "stop"))
        return cls(match["parameter"], int(match["axis"]), start, stop)

    def overlaps(self, other: "Target") -> bool:
        """Return whether the two have a weight in common; slices along different axes cross."""
        if self.parameter != other.parameter:
            return False
        if self.axis is None or self.axis != other.axis or None in (self.start, self.stop, other.start, other.stop):
            return True
        return max(self.start or 0, other.start or 0) < min(self.stop or 0, other.stop or 0)

    def view(self, model: nn.Module) -> Tensor:
        """Return the targeted part of the live parameter, sharing its memory."""
        return self._part(model.get_parameter(self.parameter).detach())

    def gradient(self, model: nn.Module) -> Tensor | None:
        """Return the targeted part of the parameter's gradient, sharing its memory; None where there is none."""
        gradient = model.get_parameter(self.parameter).grad
        return None if gradient is None else self._part(gradient)

    def read(self, model: nn.Module) -> Tensor:
        """Return a copy of the targeted weights."""
        return self.view(model).clone()

    def write(self, model: nn.Module, tensor: Tensor) -> None:
        """Overwrite the targeted weights in place."""
        self.view(model).copy_(tensor)

    def _part(self, parameter: Tensor) -> Tensor:
        if self.axis is None:
            return parameter
        if self.start is None or self.stop is None:
            raise ValueError(f"target {self} slices axis {self.axis} without start and stop; give both.")
        return parameter.narrow(self.axis, self.start, self.stop - self.start)


Weights = Mapping[Target, Tensor]


@runtime_checkable
class Constraint(Protocol):
    """A set of admissible weights, over one target or several.

    A frozen set is a constraint as well: what is left of the set once its discrete choice (mask, signs, codebook) is made.
    """

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the nearest admissible weights (Euclidean), one tensor a target, same shapes; deterministic, ties by index."""
        ...

    def freeze(self, weights: Weights) -> "Constraint":
        """Return the set that is left when the discrete choice that ``weights`` makes is kept."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that ``load_state_dict`` takes back."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        ...
