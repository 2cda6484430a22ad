"""N:M sparsity: at most n of every m consecutive input channels are not zero."""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.support_set import Shapes, SupportSet


@final
class NM(SupportSet):
    """Weights of which at most ``n`` of every ``m`` consecutive input channels are not zero; 2:4 is what sparse tensor cores read.

    Runs lie along axis 1 (inputs of a linear or recurrent layer; input channels of a convolution, at one filter and one kernel position),
    which is the innermost axis of the GEMM matrix in the channels-last layout that GPUs use for convolutions. The last run may be shorter
    than ``m``; it keeps at most ``n`` as well, as if the channels were padded with zeros. The projection is exact.

    Args:
        n: Weights kept in a run.
        m: Length of a run.

    Raises:
        ValueError: Not ``1 <= n < m``.
    """

    kind: ClassVar[str] = "nm"

    def __init__(self, n: int = 2, m: int = 4) -> None:
        if not 1 <= n < m:
            raise ValueError(f"n={n}, m={m} is no N:M sparsity; keep n of m with 1 <= n < m, such as 2 of 4.")
        self.n, self.m = n, m

    @property
    def label(self) -> str:
        return f"{self.n}:{self.m}"

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            _check(shape, self.n, self.m)

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        return {target: self._mask(weight) for target, weight in weights.items()}

    def knobs(self) -> dict[str, Any]:
        return {"n": self.n, "m": self.m}

    def _mask(self, weight: Tensor) -> Tensor:
        _check(weight.shape, self.n, self.m)
        magnitude = weight.abs()
        if magnitude.isnan().any():
            raise ValueError(f"{int(magnitude.isnan().sum())} of {weight.numel()} weights are NaN; check the learning rate.")
        channels = weight.shape[1]
        padded = F.pad(magnitude, [0, 0] * (weight.ndim - 2) + [0, -channels % self.m])
        runs = padded.reshape(len(weight), -1, self.m, *weight.shape[2:])
        members = [member.contiguous() for member in runs.unbind(2)]
        better = [torch.zeros(member.shape, dtype=torch.uint8, device=weight.device) for member in members]  # how many beat this one
        for low, high in itertools.combinations(range(self.m), 2):
            wins = members[low] >= members[high]  # a tie goes to the lower index
            better[high] += wins
            better[low] += ~wins
        return torch.stack([rank < self.n for rank in better], dim=2).flatten(1, 2).narrow(1, 0, channels)


def _check(shape: Sequence[int], n: int, m: int) -> None:
    if len(shape) < 2 or shape[1] <= n:
        raise ValueError(
            f"{n}:{m} runs along input channels, of which a weight of shape {tuple(shape)} has {shape[1] if len(shape) > 1 else 'none'}; "
            f"it takes more than {n}. Name the layer in constraint.skip."
        )
