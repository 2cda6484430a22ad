"""LeNet-5 as the ADMM papers use it: Caffe's variant with 430,500 weights (progressive-admm, Setup)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet5(nn.Module):
    """conv 20@5x5, conv 50@5x5, fc 500, fc; valid padding, 2x2 max-pool after each convolution.

    Args:
        width: Factor on the hidden widths; 1 is the published network.
        num_classes: Classes, the outputs of the network.
        in_channels: Channels of the 28x28 input.
        batch_norm: Batch normalisation after each convolution, as the official repository offers.
    """

    def __init__(self, *, width: float, num_classes: int, in_channels: int, batch_norm: bool) -> None:
        super().__init__()
        c1, c2, hidden = (max(1, round(width * size)) for size in (20, 50, 500))
        self.conv1 = nn.Conv2d(in_channels, c1, 5)
        self.bn1 = nn.BatchNorm2d(c1) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(c1, c2, 5)
        self.bn2 = nn.BatchNorm2d(c2) if batch_norm else nn.Identity()
        self.fc1 = nn.Linear(c2 * 4 * 4, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of images ``(N, C, 28, 28)``."""
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(images)), 2))
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))
        logits: Tensor = self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))
        return logits
