"""ResNets for 32x32 images.

He and others 2015, section 4.2: depths 6n + 2, three stages of 16, 32 and 64 channels. Depth 18 is the ImageNet network with a 3x3 stem of
stride 1 and no max-pool, as prm, blk-rew and ss-auto use it on CIFAR. Module names are timm's.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["pad", "conv"]


def stages(depth: int) -> list[tuple[int, int]]:
    """Return ``(blocks, channels)`` of each stage at width 1.

    Raises:
        ValueError: No network has that depth.
    """
    if depth == 18:
        return [(2, 64), (2, 128), (2, 256), (2, 512)]
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"model.depth={depth}; a ResNet for 32x32 images has depth 18 or 6n + 2: 8, 14, 20, 32, 44, 56, 110.")
    return [((depth - 2) // 6, channels) for channels in (16, 32, 64)]


class SubsampleAndPad(nn.Module):
    """The shortcut without weights (option A): every second pixel, zero channels on both sides.

    Args:
        extra: Channels to add.
        stride: 2 halves the map.
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.before, self.after, self.stride = extra // 2, extra - extra // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, C + extra, H / stride, W / stride)``."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the sum with the shortcut.

    Args:
        channels_in: Channels that come in.
        channels: Channels of both convolutions.
        stride: Of the first convolution.
        shortcut: What joins maps of different shape: ``pad`` (option A) or a 1x1 ``conv`` (option B).
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            if shortcut == "conv":
                self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
            else:
                self.downsample = SubsampleAndPad(channels - channels_in, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, channels, H / stride, W / stride)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class CifarResNet(nn.Module):
    """A ResNet for 32x32 images.

    Args:
        depth: 8, 20, 32, 44, 56, 110 (6n + 2) or 18.
        width: Factor on the channels; 2 on depth 32 is ResNet-32x2 (mest, Setup).
        shortcut: ``pad`` (option A, no weights) or ``conv`` (option B: 1x1, batch norm).
        num_classes: Classes, the outputs of the network.
        in_channels: Channels of the images.

    Raises:
        ValueError: No network has that depth, or the shortcut is unknown.
    """

    def __init__(self, *, depth: int, width: float, shortcut: Shortcut, num_classes: int, in_channels: int) -> None:
        super().__init__()
        if shortcut not in ("pad", "conv"):
            raise ValueError(f"model.shortcut={shortcut}; it is pad (option A) or conv (option B).")
        plan = [(blocks, max(1, round(width * channels))) for blocks, channels in stages(depth)]
        channels_in = plan[0][1]
        self.conv1 = nn.Conv2d(in_channels, channels_in, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        for number, (blocks, channels) in enumerate(plan, start=1):
            strides = [1 if number == 1 else 2] + [1] * (blocks - 1)
            stage = []
            for stride in strides:
                stage.append(BasicBlock(channels_in, channels, stride=stride, shortcut=shortcut))
                channels_in = channels
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.num_stages = len(plan)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # mest, Setup

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of images ``(N, C, H, W)``."""
        x = F.relu(self.bn1(self.conv1(images)))
        for number in range(1, self.num_stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(self.global_pool(x).flatten(1))
        return logits
