"""Rows and columns of blocks, chosen block by block (BCR).  Suffixes: I, J = blocks down and across, R, C = rows and columns of a block."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from espalier.constraints.choosing import densest, largest, largest_in_rows
from espalier.constraints.constraint import Target, Weights
from espalier.constraints.sparse import checked_rate, kept_of
from espalier.constraints.support_set import Shapes, SupportSet


@final
class BlockRowsColumns(SupportSet):
    """Weights whose GEMM matrix is cut into blocks, in each of which whole columns and whole rows are zero (grim, 1 and 2).

    Two passes, as the paper's: columns of blocks go first, up to the rate ``columns``; rows of what is left take the rest. That is not the
    nearest tensor. Blocks of 1x1 are unstructured pruning, one block is pruning of columns and filters.

    Args:
        rate: All / kept weights.
        blocks: Rows and columns of a block; the last ones may be smaller. None takes the whole matrix for one block.
        columns: Rate up to which columns alone go; rows take ``rate / columns``.
        balanced: Whether every block keeps as many columns and rows; False ranks those of all blocks of a layer together.

    Raises:
        ValueError: A rate is below 1, or a size of a block is.
    """

    kind: ClassVar[str] = "block_rows_columns"

    def __init__(self, rate: float, blocks: Sequence[int] | None = (16, 32), columns: float = 4.0, balanced: bool = False) -> None:
        if blocks is not None and (len(blocks) != 2 or min(blocks) < 1):
            raise ValueError(f"blocks={list(blocks)}: give rows and columns of a block, both 1 or more, or null for the whole matrix.")
        self.rate, self.columns = checked_rate(rate), checked_rate(columns)
        self.blocks = None if blocks is None else (int(blocks[0]), int(blocks[1]))
        self.balanced = balanced

    @property
    def label(self) -> str:
        return "row column" if self.blocks is None else f"block_row_column {self.blocks[0]}x{self.blocks[1]}"

    @property
    def rates(self) -> tuple[float, float]:
        """Return the rates of the columns and of the rows."""
        of_columns = min(self.rate, self.columns)
        return of_columns, self.rate / of_columns

    def weights_kept(self, shape: Sequence[int]) -> float:
        """Return how many weights are kept of such a tensor, rounding within blocks aside."""
        return math.prod(shape) / self.rate

    def max_rate(self, shape: Sequence[int]) -> float:
        """Return the largest rate at which no block, or where they are ranked together no layer, rounds to nothing."""
        rows, columns = (shape[0], math.prod(shape[1:])) if self.blocks is None or not self.balanced else self.blocks
        return min(2.0 * columns, self.columns) * 2.0 * rows

    def check(self, shapes: Shapes) -> None:
        for shape in shapes.values():
            if len(shape) < 2:
                raise ValueError(f"a weight of shape {tuple(shape)} has no rows and columns; name its layer in constraint.skip.")

    def masks(self, weights: Weights) -> dict[Target, Tensor]:
        return {target: self._mask(weight) for target, weight in weights.items()}

    def knobs(self) -> dict[str, Any]:
        blocks = None if self.blocks is None else list(self.blocks)
        return {"rate": self.rate, "blocks": blocks, "columns": self.columns, "balanced": self.balanced}

    def _mask(self, weight: Tensor) -> Tensor:
        energy = weight.to(torch.promote_types(weight.dtype, torch.float32)).flatten(1).square()
        height, width = energy.shape
        rows, columns = self.blocks or (height, width)
        padded = F.pad(energy, (0, -width % columns, 0, -height % rows))
        energy_IRJC = padded.view(len(padded) // rows, rows, padded.shape[1] // columns, columns)
        of_columns, of_rows = self.rates
        columns_IJC = self._columns(energy_IRJC.sum(1), width, of_columns)
        if of_rows > 1:
            held_IJC = columns_IJC & (energy_IRJC.sum(1) > 0)
            columns_IJC = torch.where(held_IJC.any(2, keepdim=True), held_IJC, columns_IJC)  # an empty column costs rows nothing
        kept_IRJC = columns_IJC.unsqueeze(1).expand(energy_IRJC.shape)
        if of_rows > 1:
            rows_IJR = self._rows(energy_IRJC.mul(kept_IRJC).sum(3).transpose(1, 2), columns_IJC.sum(2, keepdim=True), weight.shape)
            kept_IRJC = kept_IRJC & rows_IJR.transpose(1, 2).unsqueeze(3)
        return kept_IRJC.reshape(padded.shape)[:height, :width].reshape(weight.shape)

    def _columns(self, score_IJC: Tensor, width: int, rate: float) -> Tensor:
        """Return which columns of blocks stay, of those that the matrix really has."""
        if self.balanced:
            return _of_each(score_IJC, width, rate)
        real = score_IJC[0].flatten()[:width]  # the last block alone is padded, at its end
        count = kept_of(len(score_IJC) * len(real), rate)
        kept = largest(score_IJC.flatten(1)[:, :width].flatten(), count).view(-1, width)
        return F.pad(kept, (0, score_IJC[0].numel() - width)).view(score_IJC.shape)

    def _rows(self, score_IJR: Tensor, cost_IJ1: Tensor, shape: Sequence[int]) -> Tensor:
        """Return which rows of blocks stay: of each block so many, or the strongest that the kept weights of the layer can pay."""
        real_I1R = torch.arange(len(score_IJR) * score_IJR.shape[2], device=score_IJR.device).view(-1, 1, score_IJR.shape[2]) < shape[0]
        if self.balanced:
            return _of_each(score_IJR.transpose(0, 1), shape[0], self.rates[1]).transpose(0, 1)
        cost_IJR = cost_IJ1.expand(score_IJR.shape)
        live_IJR = (cost_IJR > 0) & real_I1R
        kept = densest(score_IJR[live_IJR], cost_IJR[live_IJR].double(), self.weights_kept(shape))
        return torch.zeros_like(live_IJR).masked_scatter(live_IJR, kept)


def _of_each(score_ABN: Tensor, total: int, rate: float) -> Tensor:
    """Return which of N every block keeps, at one rate; the last block along B has what is left of ``total``."""
    size = score_ABN.shape[2]
    last = total - (score_ABN.shape[1] - 1) * size
    whole = largest_in_rows(score_ABN.reshape(-1, size), kept_of(size, rate)).view(score_ABN.shape).clone()
    ragged = largest_in_rows(score_ABN[:, -1, :last], kept_of(last, rate))
    whole[:, -1] = F.pad(ragged, (0, size - last))
    return whole
