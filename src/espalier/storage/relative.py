"""Relative indices: each stored weight says how many zeros were skipped since the one before.  Suffixes: E = entries, F = rows, N = kept.

Source: admm-nn-s, A2 and A5. An index of b bits expresses 0 to 2^b - 1 zeros. Where more lie between two kept weights, a filler, a stored
zero with the largest index, covers 2^b positions at a time. Zeros after the last kept weight need no entry, for the length is known.

A filler stores the value zero. Levels without zero (``UniformLevels(zero=False)``) use up all codes of their width; the count follows the
paper, in which a filler takes as many bits as any entry.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

POINTER_BITS = 32  # of a row's start (A2: row pointer 32 bit)


@dataclass(frozen=True)
class Encoded:
    """A layer as a stream of entries.

    Args:
        skips: Zeros before each entry, ``(E,)``, int64, below ``2 ** index_bits``.
        values: Stored weights, ``(E,)``; zero in fillers.
        index_bits: Width b of an index.
        shape: Shape of the layer's weight.
        starts: First entry of each row and the number of all entries, ``(F + 1,)``, where every row restarts; None for one stream.
    """

    skips: Tensor
    values: Tensor
    index_bits: int
    shape: tuple[int, ...]
    starts: Tensor | None = None

    def bits(self, value_bits: int) -> int:
        """Return the size in bits with weights of ``value_bits`` bits, row pointers included."""
        pointers = 0 if self.starts is None else POINTER_BITS * (len(self.starts) - 1)
        return len(self.skips) * (value_bits + self.index_bits) + pointers


def gaps(kept: Tensor, *, by_row: bool = False) -> Tensor:
    """Return the zeros before each kept weight, ``(N,)``, int64, in row-major order.

    Args:
        kept: Bool mask of a weight; its GEMM matrix is ``f ... -> f (...)``.
        by_row: Count from the start of each row instead of from the kept weight before.
    """
    index_N = kept.flatten().nonzero().squeeze(1)
    before_N = torch.cat([index_N.new_tensor([-1]), index_N])[:-1] if index_N.numel() else index_N
    if by_row:
        size = _row_size(kept)
        before_N = before_N.maximum(index_N // size * size - 1)
    return index_N - before_N - 1


def num_entries(gap_N: Tensor, index_bits: int) -> int:
    """Return the entries, fillers included, that gaps take with indices of that width."""
    return gap_N.numel() + int((gap_N >> index_bits).sum())


def encode(weight: Tensor, kept: Tensor, *, index_bits: int, by_row: bool = False) -> Encoded:
    """Encode the kept weights of a layer.

    Args:
        weight: The weight, any shape; zero wherever ``kept`` is False.
        kept: Bool mask of its shape; a kept weight may be zero.
        index_bits: Width b of an index, at least 1.
        by_row: Restart at every row of the GEMM matrix, so that rows can be read by themselves; costs a pointer a row.

    Raises:
        ValueError: The shapes differ, the width is below 1, or a weight outside the mask is not zero.
    """
    _check(weight, kept, index_bits)
    gap_N = gaps(kept, by_row=by_row)
    fillers_N = gap_N >> index_bits
    last_N = (fillers_N + 1).cumsum(0) - 1  # entry of each kept weight, after its fillers
    total = num_entries(gap_N, index_bits)
    skips_E = torch.full((total,), 2**index_bits - 1, dtype=torch.int64, device=kept.device)
    skips_E[last_N] = gap_N & (2**index_bits - 1)
    values_E = weight.new_zeros(total)
    values_E[last_N] = weight[kept]
    starts = None
    if by_row:
        row_N = kept.flatten().nonzero().squeeze(1) // _row_size(kept)
        entries_F = torch.zeros(kept.shape[0], dtype=torch.int64, device=kept.device).index_add_(0, row_N, fillers_N + 1)
        starts = torch.cat([entries_F.new_zeros(1), entries_F.cumsum(0)])
    return Encoded(skips_E, values_E, index_bits, tuple(weight.shape), starts)


def decode(encoded: Encoded) -> Tensor:
    """Return the weight that ``encode`` was given, bit for bit."""
    place_E = (encoded.skips + 1).cumsum(0) - 1
    if encoded.starts is not None:
        counts_F = encoded.starts.diff()
        row_E = torch.arange(len(counts_F), device=counts_F.device).repeat_interleave(counts_F)
        ends_E = torch.cat([place_E.new_zeros(1), place_E + 1])
        place_E = place_E - ends_E[encoded.starts[:-1]][row_E] + row_E * math.prod(encoded.shape[1:])
    flat = encoded.values.new_zeros(math.prod(encoded.shape))
    flat[place_E] = encoded.values
    return flat.view(encoded.shape)


def _row_size(kept: Tensor) -> int:
    if kept.ndim < 2:
        raise ValueError(f"a weight of shape {tuple(kept.shape)} has no rows to restart at; encode it as one stream (by_row=False).")
    return math.prod(kept.shape[1:])


def _check(weight: Tensor, kept: Tensor, index_bits: int) -> None:
    if weight.shape != kept.shape or kept.dtype != torch.bool:
        raise ValueError(
            f"the mask has shape {tuple(kept.shape)} and type {kept.dtype}, the weight shape {tuple(weight.shape)}; "
            "give a bool mask of its shape."
        )
    if index_bits < 1:
        raise ValueError(f"index_bits={index_bits}: an index has at least 1 bit; store a weight without zeros densely.")
    if outside := int((weight[~kept] != 0).sum()):
        raise ValueError(f"{outside} weights outside the mask are not zero and would be lost; project onto the mask first.")
