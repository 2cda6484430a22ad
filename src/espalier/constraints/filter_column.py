"""Filters and columns together: few rows and few columns of the GEMM matrix.  Suffixes: F = rows (filters), Q = columns."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from espalier.constraints.choosing import largest
from espalier.constraints.constraint import Target, Weights
from espalier.constraints.sparse import checked_rate, kept_of
from espalier.constraints.structures import COLUMN, FILTER, Structure
from espalier.constraints.support_set import Shapes, SupportSet


@final
class FilterColumn(SupportSet):
    """Weights whose GEMM matrix has few non-zero rows and few non-zero columns (progressive-admm, M5: ``filter+column``; prm, N2).

    The projection is not exact: to choose the best rows and columns at once is a clique problem. Projecting onto columns and then onto rows
    is feasible already, so that alternating the two projections as they stand changes nothing after the first round. Instead, ``rounds``
    chooses columns anew for the rows, by the energy those rows have, then rows for the columns, until nothing changes; what is kept never
    shrinks. ``rounds: 0`` is the nested way, columns first and rows within. In two steps, each with its training in between, it is
    ``column`` and then ``filter`` inside what the first one froze.

    Args:
        rate: All / kept weights, about: rate of the rows times rate of the columns.
        filters: Share of the rate, as an exponent, that rows take: ``rate ** filters``, and columns ``rate ** (1 - filters)``.
        rounds: Rounds of choosing anew, at the most.

    Raises:
        ValueError: ``rate`` is below 1, ``filters`` outside 0..1, or ``rounds`` negative.
    """

    kind: ClassVar[str] = "filter_column"

    def __init__(self, rate: float, filters: float = 0.5, rounds: int = 5) -> None:
        if not 0 <= filters <= 1 or rounds < 0:
            raise ValueError(f"filters={filters}, rounds={rounds}: filters is a share from 0 to 1, rounds 0 or more.")
        self.rate = checked_rate(rate)
        self.filters, self.rounds = filters, rounds

    @property
    def label(self) -> str:
        return "filter column"

    def groupings(self, shape: Sequence[int]) -> tuple[Structure, ...]:
        del shape
        return (FILTER, COLUMN)

    def count(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return ``(kept rows, kept columns)`` of a weight of that shape."""
        return kept_of(shape[0], self.rate**self.filters), kept_of(math.prod(shape[1:]), self.rate ** (1 - self.filters))

    def weights_kept(self, shape: Sequence[int]) -> float:
        """Return how many weights are kept of such a tensor."""
        return float(math.prod(self.count(shape)))

    def max_rate(self, shape: Sequence[int]) -> float:
        """Return the largest rate at which neither rows nor columns round to nothing."""
        sides = ((self.filters, shape[0]), (1 - self.filters, math.prod(shape[1:])))
        return min(math.pow(2 * size, 1 / share) for share, size in sides if share > 0)

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            if len(shape) < 2:
                raise ValueError(f"a weight of shape {tuple(shape)} has no rows and columns; name its layer in constraint.skip.")

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        return {target: self._mask(weight) for target, weight in weights.items()}

    def knobs(self) -> dict[str, Any]:
        return {"rate": self.rate, "filters": self.filters, "rounds": self.rounds}

    def _mask(self, weight: Tensor) -> Tensor:
        num_rows, num_columns = self.count(weight.shape)
        energy_FQ = weight.to(torch.promote_types(weight.dtype, torch.float32)).square().flatten(1)
        columns_Q = largest(energy_FQ.sum(0), num_columns)
        rows_F = largest((energy_FQ * columns_Q).sum(1), num_rows)
        for _ in range(self.rounds):
            before = columns_Q, rows_F
            columns_Q = largest((energy_FQ * rows_F.unsqueeze(1)).sum(0), num_columns)
            rows_F = largest((energy_FQ * columns_Q).sum(1), num_rows)
            if torch.equal(before[0], columns_Q) and torch.equal(before[1], rows_F):
                break
        return (rows_F.unsqueeze(1) & columns_Q).view(weight.shape)
