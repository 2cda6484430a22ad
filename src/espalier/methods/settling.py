"""When a mask settles: how soon its large weights are those of the final network.  Source: mest, claim 9 (SpFDE, figure 1a)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SETTLED = 0.95  # share of the final positions from which on a mask counts as settled; ours


class Settling:
    """Remember which weights of a layer were the larger half, epoch by epoch."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.halves: list[Tensor] = []

    def note(self, epoch: int, weight: Tensor, live: Tensor) -> None:
        """Note the larger half, by magnitude, of the weights that live after ``epoch`` epochs.

        Args:
            epoch: Epochs trained.
            weight: The layer's weights.
            live: Their mask.
        """
        magnitude = torch.where(live, weight.abs(), -1.0).flatten()
        half = magnitude.topk(max(1, int(live.sum()) // 2)).indices
        self.epochs.append(epoch)
        self.halves.append(half.sort().values.to("cpu", torch.int32))

    def overlaps(self) -> list[float]:
        """Return, for each note, the share of the last note's positions that it holds."""
        return [float(torch.isin(self.halves[-1], half).float().mean()) for half in self.halves]

    def settled(self) -> float:
        """Return the share of the epochs after which the overlap stays at ``SETTLED`` or more; 1 where only the last note does."""
        if not self.epochs:
            return 1.0
        below = [epoch for epoch, overlap in zip(self.epochs, self.overlaps(), strict=True) if overlap < SETTLED]
        later = [epoch for epoch in self.epochs if not below or epoch > below[-1]]
        return later[0] / self.epochs[-1]

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": list(self.epochs), "halves": list(self.halves)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epochs, self.halves = list(state["epochs"]), list(state["halves"])
