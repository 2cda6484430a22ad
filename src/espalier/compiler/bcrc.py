"""BCRC-P: the packed form of a pruned weight, block by block of filters (grim, 6; compiler spec, 3.5).

A block of ``block_filters`` filters shares one list of kept columns. A column is an input channel at a kernel position; ``group_channels``
neighbouring channels at one position make an entry, which costs one offset. Weights lie filter fastest, as the kernel loads them:

    start[P + 1]    first entry of each block
    entry[E]        position and first channel of each entry
    weight[E][gN][gM]

What a mask drops for some filters of a block and keeps for others is stored as zeros and multiplied (R2 of the grim spec); ``executed``
counts it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A weight in BCRC-P.

    Args:
        shape: Of the dense weight, filters x channels x kernel axes.
        block_filters: gM, filters of a block; the last block is filled with zero filters.
        group_channels: gN, channels of an entry; the last group of channels is filled with zeros.
        start: First entry of each block, ``(P + 1,)`` int32.
        positions: Kernel position of each entry, row-major over the kernel axes, ``(E,)`` int32.
        channels: First channel of each entry, ``(E,)`` int32.
        weights: ``(E, gN, gM)`` float32.
    """

    shape: tuple[int, ...]
    block_filters: int
    group_channels: int
    start: np.ndarray
    positions: np.ndarray
    channels: np.ndarray
    weights: np.ndarray

    @property
    def num_blocks(self) -> int:
        """Return P."""
        return len(self.start) - 1

    @property
    def executed(self) -> int:
        """Return the multiplications for one output position, stored zeros included."""
        return int(self.weights.size)

    @property
    def index_bytes(self) -> int:
        """Return the bytes of ``start`` and of one offset of 32 bits an entry."""
        return 4 * len(self.start) + 4 * len(self.positions)

    def dense(self) -> Tensor:
        """Return the dense weight, exactly."""
        filters, channels, positions = matrix(self.shape)
        padded = np.zeros((self.num_blocks, self.block_filters, channels + self.group_channels, positions), np.float32)
        for block in range(self.num_blocks):
            for entry in range(self.start[block], self.start[block + 1]):
                first = self.channels[entry]
                padded[block, :, first : first + self.group_channels, self.positions[entry]] = self.weights[entry].T
        flat = padded.reshape(-1, channels + self.group_channels, positions)[:filters, :channels]
        return torch.from_numpy(flat.reshape(self.shape).copy())


def matrix(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return filters, channels and kernel positions of a weight."""
    return shape[0], shape[1], int(np.prod(shape[2:], dtype=np.int64))


def pack(weight: Tensor, mask: Tensor | None, *, block_filters: int, group_channels: int, by_plane: bool = False) -> Packed:
    """Return ``weight`` in BCRC-P.

    Entries of a block are ordered by line of 16 channels, then position, then channel: the columns of a pixel's line are read while it is
    in L1 (compiler spec, 3.1).

    Args:
        weight: Filters x channels x kernel axes.
        mask: What pruning kept; None keeps everything.
        block_filters: gM.
        group_channels: gN; of a map's lines of 16 channels an entry reads one, so that gN divides 16, or is 3 where there are 3 channels.
        by_plane: Order a block's entries by plane of the kernel, its first axis, before all else.
    """
    filters, channels, positions = matrix(tuple(weight.shape))
    dense = np.zeros((-(-filters // block_filters) * block_filters, -(-channels // group_channels) * group_channels, positions), np.float32)
    dense[:filters, :channels] = weight.detach().reshape(filters, channels, positions).numpy()
    needed = needed_entries(tuple(weight.shape), mask, block_filters=block_filters, group_channels=group_channels)
    grouped = dense.reshape(needed.shape[0], block_filters, needed.shape[1], group_channels, positions)
    a_plane = positions // weight.shape[2] if by_plane else positions
    start, found_positions, found_channels, packed = [0], [], [], []
    for block, kept in enumerate(needed):
        group, position = np.nonzero(kept)
        order = np.lexsort((group, position, group * group_channels // 16, position // a_plane))
        group, position = group[order], position[order]
        start.append(start[-1] + len(group))
        found_positions.append(position)
        found_channels.append(group * group_channels)
        packed.append(grouped[block][:, group, :, position].transpose(0, 2, 1))  # advanced axes come first: (entries, gM, gN)
    return Packed(
        tuple(weight.shape),
        block_filters,
        group_channels,
        np.array(start, np.int32),
        np.concatenate(found_positions).astype(np.int32),
        np.concatenate(found_channels).astype(np.int32),
        np.ascontiguousarray(np.concatenate(packed), dtype=np.float32),
    )


def needed_entries(shape: tuple[int, ...], mask: Tensor | None, *, block_filters: int, group_channels: int) -> np.ndarray:
    """Return which entries each block of filters needs, ``(blocks, groups of channels, positions)`` bool: those of any kept weight."""
    filters, channels, positions = matrix(shape)
    blocks, groups = -(-filters // block_filters), -(-channels // group_channels)
    if mask is None:
        return np.ones((blocks, groups, positions), bool)
    kept = np.zeros((blocks * block_filters, groups * group_channels, positions), bool)
    kept[:filters, :channels] = mask.reshape(filters, channels, positions).numpy()
    needed: np.ndarray = np.any(kept.reshape(blocks, block_filters, groups * group_channels, positions), axis=1)  # whole rows first: fast
    grouped: np.ndarray = np.any(needed.reshape(blocks, groups, group_channels, positions), axis=2)
    return grouped
