"""When the masks of sparse training change, and by how much."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MutationSchedule:
    """Prune to ``s + prune_above``, then grow to ``s - grow_below``, ``s`` being the sparsity that a layer is asked to have.

    All times are shares of the step, so that a step of any length ends at ``s``. Source: mest, section 3: with ``prune_above`` alone the
    network never holds more than is asked (EM), with ``grow_below`` alone it trains denser and shrinks by phases (EM&S, the soft bound).

    Args:
        interval: Between mutations; at most one an epoch, the first before the first epoch.
        decay: Where the next phase begins, rising within 0 to 1; a mutation takes place there.
        prune_above: By phase, the share of a layer's weights that is pruned beyond ``s`` before others grow.
        grow_below: By phase, the share that grows beyond ``1 - s``; the last is 0.

    Raises:
        ValueError: The shares are out of order, or the last phase would not end at ``s``.
    """

    interval: float
    decay: Sequence[float]
    prune_above: Sequence[float]
    grow_below: Sequence[float]

    def __post_init__(self) -> None:
        if not 0 < self.interval <= 1:
            raise ValueError(f"schedule.interval={self.interval:g}: mutations are a share of the step apart, above 0 and up to 1.")
        if any(not 0 < start < 1 for start in self.decay) or any(a >= b for a, b in itertools.pairwise(self.decay)):
            raise ValueError(f"schedule.decay={list(self.decay)} should rise within 0 to 1, such as [0.5625, 0.75].")
        for key, shares in (("prune_above", self.prune_above), ("grow_below", self.grow_below)):
            if len(shares) != len(self.decay) + 1 or min(shares, default=-1) < 0:
                raise ValueError(
                    f"schedule.{key}={list(shares)} should hold one share of 0 or more for each of {len(self.decay) + 1} phases "
                    f"(decay={list(self.decay)} parts the step into as many)."
                )
        if self.grow_below[-1]:
            raise ValueError(f"schedule.grow_below={list(self.grow_below)} would end denser than asked; let the last share be 0.")

    def starts(self, epochs: int) -> list[int]:
        """Return the first epoch of each phase of a step of ``epochs``; a short step may skip a phase, never the last one."""
        return [0, *(_epoch(start, epochs) for start in self.decay)]

    def phase(self, epoch: int, epochs: int) -> int:
        """Return the phase that an epoch, counted from 0, belongs to."""
        return max(index for index, start in enumerate(self.starts(epochs)) if start <= epoch)

    def due(self, epoch: int, epochs: int) -> bool:
        """Return whether masks mutate before this epoch."""
        by_interval = (_epoch(number * self.interval, epochs) for number in range(math.ceil(1 / self.interval)))
        return epoch in {*self.starts(epochs), *by_interval}


def _epoch(share: float, epochs: int) -> int:
    return math.floor(share * epochs + 1e-9)  # rounded down: a share below 1 leaves an epoch after it
