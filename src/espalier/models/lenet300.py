"""LeNet-300-100, the fully connected network of the pruning papers: 266,200 weights (Han and others 2015; progressive-admm, Setup)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet300(nn.Module):
    """fc 300, fc 100, fc.

    Args:
        width: Factor on the hidden widths; 1 is the published network.
        num_classes: Classes, the outputs of the network.
        in_channels: Channels of the input.
        side: Height and width of the input.
    """

    def __init__(self, *, width: float, num_classes: int, in_channels: int, side: int) -> None:
        super().__init__()
        first, second = (max(1, round(width * size)) for size in (300, 100))
        self.fc1 = nn.Linear(in_channels * side * side, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of images ``(N, C, side, side)``."""
        logits: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(torch.flatten(images, 1))))))
        return logits
