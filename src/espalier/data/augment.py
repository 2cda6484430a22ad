"""Augmentation of whole batches: no loop over images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """What chance decided for each sample of a split in one epoch.

    Args:
        rows: First row of the crop in the padded image, ``(N,)``.
        columns: First column, ``(N,)``.
        mirrored: Whether left and right are swapped, ``(N,)``.
    """

    rows: Tensor
    columns: Tensor
    mirrored: Tensor


@dataclass(frozen=True)
class Augment:
    """Pad with zeros, crop to the old size at random, mirror at random: the usual augmentation of CIFAR.

    Args:
        pad: Pixels of zeros on each side before the crop; 0 crops nothing.
        mirror: Swap left and right of every second image.
    """

    pad: int
    mirror: bool

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"data.crop_pad={self.pad}; it is a number of pixels, 0 for no crop.")

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Return the draws of ``count`` samples; a sample's own do not depend on which others are used."""
        rows, columns = torch.randint(0, 2 * self.pad + 1, (2, count), generator=generator)
        mirrored = torch.rand(count, generator=generator) < (0.5 if self.mirror else 0.0)
        return Draws(rows, columns, mirrored)

    def apply(self, images: Tensor, index: Tensor, draws: Draws) -> Tensor:
        """Return the augmented images of samples ``index``.

        Args:
            images: ``(B, C, H, W)``.
            index: Their numbers in the split, ``(B,)``.
            draws: Of the whole split.
        """
        if self.pad:
            height, width = images.shape[2:]
            windows = F.pad(images, (self.pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
            images = windows[torch.arange(len(index)), :, draws.rows[index], draws.columns[index]]
        return torch.where(draws.mirrored[index, None, None, None], images.flip(3), images) if self.mirror else images
