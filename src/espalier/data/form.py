"""What images look like from outside: their shape and scaling."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.data.loader import by_channel


@dataclass(frozen=True)
class ImageFormat:
    """All that is told of a client's images: shape and scaling, never a pixel.

    Args:
        shape: ``(C, H, W)``.
        mean: Mean of the pixels / 255 that the network's input is scaled by; one number, or one for each channel.
        std: Standard deviation of the pixels / 255.
        channels_last: Memory format of the batches.
    """

    shape: tuple[int, int, int]
    mean: float | Sequence[float]
    std: float | Sequence[float]
    channels_last: bool

    def scaled(self, images: Tensor) -> Tensor:
        """Return images of 0 to 1 as the network wants them; values beyond are cut off."""
        mean_C11, std_C11 = (by_channel(value, self.shape[0], name) for name, value in (("mean", self.mean), ("std", self.std)))
        scaled = (images.clamp(0, 1) - mean_C11) / std_C11
        return scaled.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def spread(self, noise: Tensor) -> Tensor:
        """Return noise of mean 0 and deviation 1 as images of 0 to 1 with the format's mean and deviation."""
        mean_C11, std_C11 = (by_channel(value, self.shape[0], name) for name, value in (("mean", self.mean), ("std", self.std)))
        return noise * std_C11 + mean_C11
