"""C3D: eight 3x3x3 convolutions and three linear layers (Tran and others 2015, section 3.2), the network of rt3d on 16 frames of 112x112.

38.5 GMAC a clip at 101 classes (rt3d, Hardware). It has no batch normalisation; layers are named as in the paper.
"""

import torch
from torch import Tensor, nn

PLAN = {"1": 64, "2": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}  # convolution -> filters
POOLED_AFTER = ("1", "2", "3b", "4b", "5b")


class C3D(nn.Module):
    """conv1, conv2, conv3a-b, conv4a-b, conv5a-b with ReLU, five max-pools, fc6, fc7, fc8.

    Args:
        width: Factor on the channels and the hidden widths, above 0; 1 is the published network.
        num_classes: Classes, the outputs of the network.
        in_channels: Channels of the clips.
        frames: Frames of a clip, at least 16; four pools halve them.
        side: Height and width of a clip, at least 16; five pools halve them.
        dropout: Share of the hidden units that training leaves out, from 0 to below 1.

    Raises:
        ValueError: Clips are too small for the pools, or the width is not above 0.
    """

    def __init__(self, *, width: float, num_classes: int, in_channels: int, frames: int, side: int, dropout: float) -> None:
        super().__init__()
        if min(frames, side) < 16:
            raise ValueError(f"model.frames={frames}, model.side={side}; C3D halves both four times, so that each is 16 or more.")
        if not width > 0:
            raise ValueError(f"model.width={width}; it is a factor on the channels, above 0, and 1 is the published network.")
        layers: dict[str, nn.Module] = {}
        channels_in = in_channels
        for name, filters in PLAN.items():
            channels = max(1, round(width * filters))
            layers |= {f"conv{name}": nn.Conv3d(channels_in, channels, 3, padding=1), f"relu{name}": nn.ReLU()}
            if name in POOLED_AFTER:
                layers[f"pool{name[0]}"] = _pool(name[0])
            channels_in = channels
        self.features = nn.Sequential()
        for name, layer in layers.items():
            self.features.add_module(name, layer)
        hidden = max(1, round(width * 4096))
        # pool5 pads height and width by one, which a map of 7 x 7 turns into 4 x 4
        self.fc6 = nn.Linear(channels_in * (frames // 16) * (side // 16 // 2 + 1) ** 2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        for module in self.features:
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of clips ``(N, C, frames, side, side)``."""
        x = torch.flatten(self.features(clips), 1)
        x = self.dropout(self.relu(self.fc6(x)))
        x = self.dropout(self.relu(self.fc7(x)))
        logits: Tensor = self.fc8(x)
        return logits


def _pool(stage: str) -> nn.MaxPool3d:
    """Return the max-pool of a stage: the first leaves the frames alone (section 3.2), the last pads the map."""
    if stage == "1":
        return nn.MaxPool3d((1, 2, 2))
    return nn.MaxPool3d(2, padding=(0, 1, 1)) if stage == "5" else nn.MaxPool3d(2)
