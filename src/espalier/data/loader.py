"""Batches out of tensors that live in memory: no workers, no decoding, the same order on every machine."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Args:
        images: uint8, ``(N, C, H, W)``.
        labels: int64, ``(N,)``.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> "Split":
        """Return the samples at ``index``."""
        return Split(self.images[index], self.labels[index])

    def digest(self) -> str:
        """Return the SHA-256 of the content, order included."""
        content = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        content.update(self.labels.numpy().tobytes())
        return content.hexdigest()


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return ``count`` indices in random order with each class in proportion (largest remainders first).

    Raises:
        ValueError: There are fewer than ``count`` samples.
    """
    if not 0 < count <= len(labels):
        raise ValueError(f"cannot take {count} of {len(labels)} samples; give 1 to {len(labels)}.")
    generator = torch.Generator().manual_seed(seed)
    classes, sizes = torch.unique(labels, return_counts=True)
    exact = sizes.double() * count / len(labels)
    quota = exact.floor().long()
    quota[(exact - quota).argsort(descending=True, stable=True)[: count - int(quota.sum())]] += 1
    picked = []
    for label, number in zip(classes, quota, strict=True):
        members = (labels == label).nonzero().squeeze(1)
        picked.append(members[torch.randperm(len(members), generator=generator)[:number]])
    index = torch.cat(picked)
    return index[torch.randperm(len(index), generator=generator)]


class TensorLoader:
    """Iterate over a split in batches of normalised float images.

    Args:
        split: The samples.
        batch_size: Samples a batch, over all devices; the last batch may be smaller.
        mean: Mean of the pixels / 255.
        std: Standard deviation of the same.
        seed: None keeps the order of the split; a number shuffles by ``(seed, epoch)``, see ``set_epoch``.
        channels_last: Memory format of the batches.
    """

    def __init__(self, split: Split, batch_size: int, *, mean: float, std: float, seed: int | None, channels_last: bool) -> None:
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size}; a batch holds at least one sample.")
        self.split, self.batch_size, self.mean, self.std, self.seed = split, batch_size, mean, std, seed
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.seed is None:
            order = torch.arange(len(self.split))
        else:
            order = torch.randperm(len(self.split), generator=torch.Generator().manual_seed(self.seed * 100_003 + self.epoch))
        for index in torch.split(order, self.batch_size):
            images = self.split.images[index].to(torch.float32).div_(255).sub_(self.mean).div_(self.std)
            yield images.contiguous(memory_format=self.memory_format), self.split.labels[index]
