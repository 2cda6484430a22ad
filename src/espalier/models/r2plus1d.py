"""R(2+1)D-18: a ResNet whose 3x3x3 convolutions are a spatial 1x3x3 and a temporal 3x1x1, as rt3d uses it.

Tran and others 2018, section 3.5; 40.5 GMAC for 16 frames of 112x112 (rt3d, Hardware). Architecture and module names are torchvision's
``r2plus1d_18``, so that its weights fit; there both factored convolutions of a block have the middle width of the first.
"""

from torch import Tensor, nn

STAGES = (64, 128, 256, 512)  # channels; two blocks each
STEM_MIDDLE = 45  # filters of the spatial stem


class R2Plus1D(nn.Module):
    """Stem, four stages of two blocks, average over the clip, one linear layer.

    Args:
        width: Factor on the channels, above 0; 1 is the published network.
        num_classes: Classes, the outputs of the network.
        in_channels: Channels of the clips.

    Raises:
        ValueError: The width is not above 0.
    """

    def __init__(self, *, width: float, num_classes: int, in_channels: int) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"model.width={width}; it is a factor on the channels, above 0, and 1 is the published network.")
        plan = [max(1, round(width * channels)) for channels in STAGES]
        middle, channels_in = max(1, round(width * STEM_MIDDLE)), plan[0]
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, middle, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(),
            nn.Conv3d(middle, channels_in, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(channels_in),
            nn.ReLU(),
        )
        for number, channels in enumerate(plan, start=1):
            first = Block(channels_in, channels, stride=1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, Block(channels, channels, stride=1)))
            channels_in = channels
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(channels_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of clips ``(N, C, T, H, W)``."""
        x = self.stem(clips)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class Block(nn.Module):
    """Two factored convolutions and the sum with the shortcut.

    Args:
        channels_in: Channels that come in.
        channels: Channels that go out.
        stride: 2 halves frames, height and width.
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        middle = max(1, middle_channels(channels_in, channels))
        self.conv1 = nn.Sequential(factored(channels_in, middle, channels, stride=stride), nn.BatchNorm3d(channels), nn.ReLU())
        self.conv2 = nn.Sequential(factored(channels, middle, channels, stride=1), nn.BatchNorm3d(channels))
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(nn.Conv3d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, channels, T / stride, H / stride, W / stride)``."""
        y: Tensor = self.relu(self.conv2(self.conv1(x)) + self.downsample(x))
        return y


def middle_channels(channels_in: int, channels: int) -> int:
    """Return the filters of a spatial convolution with which it and its temporal one hold no more weights than one 3x3x3 (section 3.5)."""
    return channels_in * channels * 27 // (channels_in * 9 + channels * 3)


def factored(channels_in: int, middle: int, channels: int, *, stride: int) -> nn.Sequential:
    """Return a 1x3x3 convolution, batch normalisation, ReLU and a 3x1x1 convolution."""
    return nn.Sequential(
        nn.Conv3d(channels_in, middle, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(),
        nn.Conv3d(middle, channels, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
    )
