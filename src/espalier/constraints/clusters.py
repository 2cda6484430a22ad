"""Clustered weights: at most 2^n values a target, wherever they fall.  Suffixes: L = values (ascending)."""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from espalier.constraints.constraint import Target, Weights
from espalier.constraints.frozen import Pinned
from espalier.constraints.levels import UniformLevels, nearest_level

MAX_ROUNDS = 100  # of moving each value to the mean of its weights


@final
class Clusters:
    """Weights with at most ``2^bits`` distinct values a target (admm-nn-s, claim 11; the clustering of its predecessor [J]).

    Values start at the equally spaced levels of the same width and move, round by round, to the mean of the weights nearest to them
    (k-means in one dimension), which never raises the error: it ends at or below that of ``UniformLevels``. The nearest tensor of the set
    may lie nearer still. Weights with no more values than that are returned as they are.

    Args:
        bits: Bits n of a code, from 1 without zero and from 2 with it, to 8.
        zero: Whether the levels to start from have a zero; pruned weights own the zero already.

    Raises:
        ValueError: ``bits`` is out of range.
    """

    entrywise: ClassVar[bool] = True

    def __init__(self, bits: int, zero: bool) -> None:
        self.start = UniformLevels(bits, zero)

    def codebook(self, weights: Weights) -> dict[Target, Tensor]:
        """Return the values that each target's weights take, ``(L,)``, ascending."""
        return {target: self._values(target, weight) for target, weight in weights.items()}

    def level_index(self, weights: Weights) -> dict[Target, Tensor]:
        """Return for each weight the index of its value in ``codebook(weights)``, int64, same shapes."""
        books = self.codebook(weights)
        return {target: nearest_level(weight.detach(), books[target]) for target, weight in weights.items()}

    def project(self, weights: Weights) -> dict[Target, Tensor]:
        """Return each weight's nearest value, for the values that the rounds end at.

        Raises:
            ValueError: A weight is not finite, or there is none.
        """
        books = self.codebook(weights)
        return {target: books[target][nearest_level(weight.detach(), books[target])] for target, weight in weights.items()}

    def freeze(self, weights: Weights) -> Pinned:
        """Return the set that holds every weight at its value."""
        values = self.project(weights)
        return Pinned(values, {target: torch.ones_like(value, dtype=torch.bool) for target, value in values.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return the kind and the knobs."""
        return {**self.start.state_dict(), "kind": "clusters"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the knobs."""
        self.start.load_state_dict(state)

    def _values(self, target: Target, weight: Tensor) -> Tensor:
        flat = weight.detach().flatten()
        distinct = torch.unique(flat) if flat.isfinite().all() else flat[:0]  # the fit below refuses what is not finite
        most = 2**self.start.bits - self.start.zero
        if 0 < len(distinct) <= most:
            return distinct
        exact = flat.double()
        book_L = self.start.codebook({target: flat})[target].double()
        for _ in range(MAX_ROUNDS):
            index = nearest_level(exact, book_L)
            counts_L = torch.bincount(index, minlength=len(book_L))
            means_L = torch.bincount(index, weights=exact, minlength=len(book_L)) / counts_L
            moved_L = torch.where(counts_L > 0, means_L, book_L)
            if torch.equal(moved_L, book_L):
                break
            book_L = moved_L
        index = nearest_level(exact, book_L)
        return book_L[torch.bincount(index, minlength=len(book_L)) > 0].to(weight.dtype)
