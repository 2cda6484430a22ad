"""Images and labels in memory, and how they are divided."""

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SPLIT_SEED = 0  # one division for every run: seeds vary the training, never the data


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

    def pooled(self, size: int) -> "Split":
        """Return the images with squares of ``size`` pixels averaged to one and rounded, halves to even.

        Raises:
            ValueError: ``size`` does not divide height and width.
        """
        height, width = self.images.shape[2:]
        if size < 1 or height % size or width % size:
            raise ValueError(f"data.pool={size} does not divide images of {height}x{width}; give a divisor of both.")
        if size == 1:
            return self
        return Split(F.avg_pool2d(self.images.float(), size).round_().to(torch.uint8), self.labels)

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


def held_out(labels: Tensor, *, num_train: int | None, num_val: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the training and the validation samples, each class in proportion.

    Args:
        labels: Of all training samples.
        num_train: How many to train on; None takes all that validation leaves.
        num_val: How many to hold out.

    Raises:
        ValueError: There are not that many samples.
    """
    held = stratified(labels, num_val, SPLIT_SEED)
    rest = torch.ones(len(labels), dtype=torch.bool).index_fill(0, held, False).nonzero().squeeze(1)
    return rest if num_train is None else rest[stratified(labels[rest], num_train, SPLIT_SEED)], held
