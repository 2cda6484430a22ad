"""Networks that are one row of 3x3 convolutions: VGG with one linear layer for 32x32 images, and the small nets of the papers.

VGG: Simonyan and Zisserman 2014, with batch normalisation and a single classifier layer, as the pruning papers train it on CIFAR.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn


class PlainConvNet(nn.Module):
    """3x3 convolutions with ReLU, 2x2 max-pools between them, one linear layer.

    Args:
        plan: Channels of each convolution, with ``pool`` where the map is halved.
        batch_norm: Batch normalisation between convolution and ReLU; the convolutions then have no bias.
        pooled: Height and width that the last map is averaged to before the linear layer.
        width: Factor on the channels; 1 is the published network.
        num_classes: Classes, the outputs of the network.
        in_channels: Channels of the images.

    Raises:
        ValueError: The plan holds something else than channels and ``pool``.
    """

    def __init__(
        self, *, plan: Sequence[int | Literal["pool"]], batch_norm: bool, pooled: int, width: float, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels_in = in_channels
        for entry in plan:
            if entry == "pool":
                layers.append(nn.MaxPool2d(2))
                continue
            if not isinstance(entry, int) or entry < 1:
                raise ValueError(f"model.plan holds {entry!r}; its entries are numbers of channels and 'pool'.")
            channels = max(1, round(width * entry))
            layers.append(nn.Conv2d(channels_in, channels, 3, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(channels)] if batch_norm else []
            layers.append(nn.ReLU())
            channels_in = channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(pooled)
        self.fc = nn.Linear(channels_in * pooled * pooled, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of images ``(N, C, H, W)``."""
        logits: Tensor = self.fc(self.pool(self.features(images)).flatten(1))
        return logits
