"""Bits of a pruned layer in each format, from its mask.  Suffixes: F = rows, Q = columns of the GEMM matrix.

Source: admm-nn-s, A2 and A5; the kernel format: privacy-pruning, P6. Biases, normalisation and the scale of quantized weights are the
same in every format and left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.storage.relative import POINTER_BITS, gaps, num_entries


@dataclass(frozen=True)
class Size:
    """Bits of one layer.

    Args:
        values: Bits of the kept weights.
        places: Bits that say where they stand: indices, bitmaps, pointers, and whole fillers.
        index_bits: Width of a relative index; None in other formats.
    """

    values: int
    places: int
    index_bits: int | None = None

    @property
    def bits(self) -> int:
        """Return all bits."""
        return self.values + self.places


def relative_size(kept: Tensor, value_bits: int, *, index_bits: int | None = None, by_row: bool = False) -> Size:
    """Return the exact size with relative indices, as ``encode`` stores them.

    Args:
        kept: Bool mask of the weight.
        value_bits: Bits w of a weight.
        index_bits: Width b of an index; None takes the width that makes the layer smallest, the lower one of equals.
        by_row: Restart at every row, with a pointer each.
    """
    gap_N = gaps(kept, by_row=by_row)
    longest = int(gap_N.max()) if gap_N.numel() else 0
    widths = range(1, max(1, longest.bit_length()) + 1) if index_bits is None else [index_bits]
    sizes = {width: num_entries(gap_N, width) * (value_bits + width) for width in widths}
    best = min(sizes, key=sizes.__getitem__)
    values = gap_N.numel() * value_bits
    pointers = POINTER_BITS * kept.shape[0] if by_row else 0
    return Size(values, sizes[best] - values + pointers, best)


def bitmap_size(kept: Tensor, value_bits: int) -> Size:
    """Return the size with one bit a weight, kept or not, that says whether it is kept."""
    return Size(int(kept.sum()) * value_bits, kept.numel())


def csr_size(kept: Tensor, value_bits: int, *, column_bits: int | None = None, pointer_bits: int = POINTER_BITS) -> Size:
    """Return the size as compressed sparse rows: row pointers, and a column number for each kept weight.

    Args:
        kept: Bool mask of the weight.
        value_bits: Bits w of a weight.
        column_bits: Bits of a column number; None takes as few as tell the columns apart.
        pointer_bits: Bits of a row pointer; 0 leaves them out.
    """
    num_kept, columns = int(kept.sum()), math.prod(kept.shape[1:])
    width = (columns - 1).bit_length() if column_bits is None else column_bits
    return Size(num_kept * value_bits, pointer_bits * (kept.shape[0] + 1) + num_kept * width)


def kernel_size(kept: Tensor, value_bits: int, *, num_patterns: int) -> Size:
    """Return the size with kernels in the order of their patterns: an input map a kernel, and per filter the run length of each pattern.

    Args:
        kept: Bool mask of a convolution's weight, ``(F, C, H, W)``, whose kernels are empty or have one of the patterns.
        value_bits: Bits w of a weight.
        num_patterns: Patterns in the library.
    """
    filters, channels = kept.shape[:2]
    kernels = int(kept.flatten(2).any(2).sum())
    run_bits = channels.bit_length()  # of 0 to C kernels
    return Size(int(kept.sum()) * value_bits, kernels * (channels - 1).bit_length() + filters * num_patterns * run_bits)


def dense_block(kept: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the kept rows ``(F,)`` and columns ``(Q,)`` whose crossings are the mask; None where it is no such block."""
    mask_FQ = kept.flatten(1)
    rows_F, columns_Q = mask_FQ.any(1), mask_FQ.any(0)
    return (rows_F, columns_Q) if torch.equal(mask_FQ, rows_F.unsqueeze(1) & columns_Q) else None


def structured_size(kept: Tensor, value_bits: int) -> Size:
    """Return the size as a dense block of kept rows and columns, with a bit a row and a bit a column.

    Raises:
        ValueError: The mask is no block of whole rows and columns.
    """
    block = dense_block(kept)
    if block is None:
        raise ValueError(
            f"a mask of shape {tuple(kept.shape)} keeps {int(kept.sum())} weights that are no block of rows and columns; "
            "store it with relative indices."
        )
    return Size(int(kept.sum()) * value_bits, sum(map(len, block)))


def stored_size(kept: Tensor, value_bits: int) -> Size:
    """Return the size of a layer in the format its mask allows: a dense block, else relative indices of the best width in one stream."""
    return relative_size(kept, value_bits) if dense_block(kept) is None else structured_size(kept, value_bits)
