"""Networks that timm has: any of them by name, and MobileNet-V2 with the strides that 32x32 images need."""

import difflib

from torch import nn

WIDTHS = (0.35, 0.5, 1.0, 1.4)  # of MobileNet-V2 in timm


def timm_model(*, name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    """Return a network of timm.

    Args:
        name: timm's name; a tag after a dot names the weights, such as ``resnet18.a1_in1k``.
        num_classes: Outputs.
        in_channels: Channels of the images.
        pretrained: Download timm's weights; without it nothing reaches for a network.

    Raises:
        ValueError: timm has no such network; the message lists the nearest.
    """
    import timm  # noqa: PLC0415  seconds to import; only where it is asked for

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.0)
        raise ValueError(f"model.name={name} is not in timm {timm.__version__}; nearest: {', '.join(near)}.")
    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels)
    return model


def mobilenetv2_cifar(*, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """Return MobileNet-V2 whose stem and second stage keep the map's size: 32x32 images end in a 4x4 map.

    Args:
        width: Factor on the channels: 0.35, 0.5, 1 or 1.4.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: timm has no such width.
    """
    if width not in WIDTHS:
        raise ValueError(f"model.width={width:g}; MobileNet-V2 comes in widths {', '.join(f'{known:g}' for known in WIDTHS)}.")
    name = f"mobilenetv2_{round(100 * width):03d}"
    model = timm_model(name=name, num_classes=num_classes, in_channels=in_channels, pretrained=False)
    for path in ("conv_stem", "blocks.1.0.conv_dw"):
        layer = model.get_submodule(path)
        assert isinstance(layer, nn.Conv2d)
        assert layer.stride == (2, 2)
        layer.stride = (1, 1)
    return model
