"""BCRC, the format of grim for weights pruned in rows and columns of blocks: rows with equal columns share one list of them.

``compiler.bcrc`` packs what kernels read, in panels of filters; this is the format as the paper has it, row by row, from which bytes of
indices are counted. Suffixes: M = rows, K = columns of the GEMM matrix.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NUMBER_BYTES = 4  # of a row's number, an offset and a column's number in CSR
SHORT_BYTES = 2  # of a column's number where there are few columns
MANY_COLUMNS = 1 << 16


@dataclass(frozen=True)
class Bcrc:
    """A weight in BCRC (grim, from memory).

    Args:
        shape: Of the dense weight.
        reorder: Original row at each place.
        row_offset: First weight of each place, and the end.
        occurrence: First place of each group of rows that share a list, and the end.
        col_stride: First entry of each group's list, and the end.
        compact_col: Column numbers, list by list.
        weights: Kept weights, place by place.
    """

    shape: tuple[int, ...]
    reorder: np.ndarray
    row_offset: np.ndarray
    occurrence: np.ndarray
    col_stride: np.ndarray
    compact_col: np.ndarray
    weights: np.ndarray

    @property
    def num_groups(self) -> int:
        """Return G."""
        return len(self.occurrence) - 1

    @property
    def rows_per_group(self) -> float:
        """Return the mean rows of a group."""
        return len(self.reorder) / self.num_groups

    @property
    def index_bytes(self) -> int:
        """Return the bytes of everything but the weights."""
        column_bytes = SHORT_BYTES if math.prod(self.shape[1:]) < MANY_COLUMNS else NUMBER_BYTES
        return self.index_bytes_with(column_bytes)

    def index_bytes_with(self, column_bytes: int) -> int:
        """Return the same with column numbers of so many bytes."""
        numbers = len(self.reorder) + len(self.row_offset) + len(self.occurrence) + len(self.col_stride)
        return NUMBER_BYTES * numbers + column_bytes * len(self.compact_col)

    @property
    def csr_index_bytes(self) -> int:
        """Return the bytes of row pointers and column numbers of the same weights as compressed sparse rows."""
        return NUMBER_BYTES * (len(self.reorder) + 1 + len(self.weights))

    def columns(self, group: int) -> np.ndarray:
        """Return the columns of a group."""
        listed: np.ndarray = self.compact_col[self.col_stride[group] : self.col_stride[group + 1]]
        return listed

    def dense(self) -> Tensor:
        """Return the dense weight, exactly."""
        matrix = np.zeros((self.shape[0], math.prod(self.shape[1:])), self.weights.dtype)
        for group in range(self.num_groups):
            for place in range(self.occurrence[group], self.occurrence[group + 1]):
                matrix[self.reorder[place], self.columns(group)] = self.weights[self.row_offset[place] : self.row_offset[place + 1]]
        return torch.from_numpy(matrix.reshape(self.shape))


def encode_bcrc(weight: Tensor, kept: Tensor, *, grouped: bool = True) -> Bcrc:
    """Return a pruned weight in BCRC; groups with longer lists come first, then those whose first row does.

    Args:
        weight: Rows x anything.
        kept: Bool mask of its shape; a kept weight that is zero is stored.
        grouped: False keeps the order of the rows and gives each a list of its own, as compressed sparse rows do.

    Raises:
        ValueError: The mask has another shape.
    """
    if kept.shape != weight.shape:
        raise ValueError(f"the mask has shape {tuple(kept.shape)}, the weight {tuple(weight.shape)}; give the mask of this weight.")
    kept_MK, weight_MK = kept.flatten(1).numpy(), weight.detach().flatten(1).numpy()
    rows_of: dict[bytes | int, list[int]] = {}
    for row, mask in enumerate(kept_MK):
        rows_of.setdefault(mask.tobytes() if grouped else row, []).append(row)
    groups = sorted(rows_of.values(), key=lambda rows: (-int(kept_MK[rows[0]].sum()), rows[0])) if grouped else list(rows_of.values())
    lists = [np.nonzero(kept_MK[rows[0]])[0] for rows in groups]
    lengths = [len(columns) for rows, columns in zip(groups, lists, strict=True) for _ in rows]
    values = [weight_MK[rows][:, columns].ravel() for rows, columns in zip(groups, lists, strict=True)]
    return Bcrc(
        tuple(weight.shape),
        np.array([row for rows in groups for row in rows], np.int32),
        _starts(lengths),
        _starts([len(rows) for rows in groups]),
        _starts([len(columns) for columns in lists]),
        np.concatenate(lists).astype(np.int32),
        np.concatenate(values),
    )


def _starts(lengths: list[int]) -> np.ndarray:
    """Return where each part begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
