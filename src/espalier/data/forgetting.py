"""Forgetting counts, and the examples that training can do without (mest, section 6).  Suffix: N = samples of a split."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Order = Literal["least_forgotten", "random"]


class Forgetting:
    """Count for every training example how often it went from right to wrong between two of its presentations.

    Works in any loop whose loader yields each sample's number: call ``observe`` after each forward pass.

    Args:
        num_samples: Samples of the split.
    """

    def __init__(self, num_samples: int) -> None:
        self.events_N = torch.zeros(num_samples, dtype=torch.int64)
        self.right_N = torch.zeros(num_samples, dtype=torch.bool)
        self.learnt_N = torch.zeros(num_samples, dtype=torch.bool)

    def observe(self, index: Tensor, right: Tensor) -> None:
        """Note a batch of different samples.

        Args:
            index: Their numbers in the split, ``(B,)``.
            right: Whether each was classified correctly, ``(B,)``.
        """
        if self.events_N.device != index.device:
            self.events_N, self.right_N, self.learnt_N = (part.to(index.device) for part in (self.events_N, self.right_N, self.learnt_N))
        self.events_N[index] += self.right_N[index] & ~right
        self.learnt_N[index] |= right
        self.right_N[index] = right

    def counts(self, *, never_learnt: int) -> Tensor:
        """Return the events of each sample, ``(N,)``, int64; ``never_learnt`` for those that were never right."""
        return torch.where(self.learnt_N, self.events_N, never_learnt).cpu()

    def unforgettable(self) -> Tensor:
        """Return the bool mask of the samples learnt at least once and never forgotten, ``(N,)``."""
        return (self.learnt_N & (self.events_N == 0)).cpu()

    def reset(self) -> None:
        """Begin to count anew."""
        for part in (self.events_N, self.right_N, self.learnt_N):
            part.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"events": self.events_N, "right": self.right_N, "learnt": self.learnt_N}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.events_N, self.right_N, self.learnt_N = state["events"].clone(), state["right"].clone(), state["learnt"].clone()


@dataclass(frozen=True)
class Removal:
    """Which examples leave the training set, and when; once a run.

    Args:
        at: Share of the step after which they leave, above 0 and below 1.
        share: Share of the examples (round half up), above 0 and below 1.
        order: ``least_forgotten``: those with the fewest forgetting events, the lower number first among equals; or ``random``.
        seed: Seed of a random choice, 0 or more.

    Raises:
        ValueError: A share is out of range or the order is not known.
    """

    at: float
    share: float
    order: Order
    seed: int

    def __post_init__(self) -> None:
        for key, value in (("at", self.at), ("share", self.share)):
            if not 0 < value < 1:
                raise ValueError(f"removal.{key}={value:g} is not a share between 0 and 1; leave removal null to keep all examples.")
        if self.order not in get_args(Order):
            raise ValueError(f"removal.order={self.order} is not known; examples leave by {' or '.join(get_args(Order))}.")

    def epoch(self, epochs: int) -> int:
        """Return the first epoch without them, of a step of that many; at least one epoch lies before it."""
        return max(1, math.floor(self.at * epochs + 1e-9))

    def num_removed(self, num_samples: int) -> int:
        """Return how many of that many examples leave."""
        return math.floor(self.share * num_samples + 0.5)

    def kept(self, forgetting: Forgetting, *, never_learnt: int) -> Tensor:
        """Return the numbers of the examples that stay, ascending."""
        counts_N = forgetting.counts(never_learnt=never_learnt)
        if self.order == "random":
            order_N = torch.randperm(len(counts_N), generator=torch.Generator().manual_seed(self.seed))
        else:
            order_N = counts_N.argsort(stable=True)
        return order_N[self.num_removed(len(counts_N)) :].sort().values
