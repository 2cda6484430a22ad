"""Networks that timm has: any of them by name, and MobileNet-V2 with the strides that 32x32 images need."""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from espalier.models.weights import fill

WIDTHS = (0.35, 0.5, 1.0, 1.4)  # of MobileNet-V2 in timm
PLAIN_INPUT: dict[str, Any] = {  # ImageNet's usual
    "size": 224,
    "crop": 0.875,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
TAKEN = ("pretrained", "num_classes", "in_chans", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def timm_model(
    *,
    name: str,
    num_classes: int,
    in_channels: int,
    pretrained: bool,
    checkpoint: str | None = None,
    checkpoint_digest: str | None = None,
    image_size: int | None = None,
    args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a network of timm, its head for ``num_classes``.

    Args:
        name: timm's name; a tag after a dot names the weights, such as ``resnet18.a1_in1k``.
        num_classes: Outputs.
        in_channels: Channels of the images.
        pretrained: Take timm's weights, from its cache or by download; without it nothing reaches for a network.
        checkpoint: File of weights to start from in their place.
        checkpoint_digest: SHA-256 of that file when the run was planned.
        image_size: Side of the images, for networks that are built for one size (vision transformers); None takes theirs.
        args: Further arguments of ``timm.create_model``, such as ``{img_size: 32}``.

    Raises:
        ValueError: timm has no such network or weights (the message lists the nearest), the weights cannot be had, or they do not fit.
    """
    import timm  # noqa: PLC0415  seconds to import; only where it is asked for

    facts = _facts(name)
    settings = timm_arguments(name=name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, args=args)
    if pretrained and checkpoint:
        raise ValueError(f"model.pretrained=true and model.checkpoint={checkpoint} both give weights; keep one.")
    if pretrained and not (facts.get("hf_hub_id") or facts.get("url")):
        raise ValueError(f"timm {timm.__version__} has no weights for model.name={name}; {_with_weights(name)}.")
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **settings)
    except OSError as error:  # what the hub's client and urllib raise where there is neither network nor cache
        if not pretrained:
            raise
        raise ValueError(_no_download(name, facts, error)) from error
    except TypeError as error:
        raise ValueError(f"model.name={name} cannot be built with model.args={dict(args or {})}: {error}") from error
    if checkpoint:
        fill(model, checkpoint, checkpoint_digest)
    return model


def timm_arguments(
    *, name: str, num_classes: int, in_channels: int, image_size: int | None = None, args: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what ``timm.create_model`` is given for a network, its name and weights aside; arguments as of ``timm_model``.

    Raises:
        ValueError: timm has no such network, or ``args`` holds what ``timm_model`` gives itself.
    """
    facts, args = _facts(name), args or {}
    if wrong := [key for key in args if key in TAKEN]:
        raise ValueError(f"model.args holds {', '.join(wrong)}, which model=timm gives itself; set model.pretrained or model.checkpoint.")
    sized = {"img_size": image_size} if facts.get("fixed_input_size") and image_size not in (None, facts["input_size"][-1]) else {}
    return {"num_classes": num_classes, "in_chans": in_channels, **sized, **args}


def _facts(name: str) -> dict[str, Any]:
    """Return what timm knows of a network's weights and the input they want; empty where it has none.

    Raises:
        ValueError: timm has no such network, or no weights of that tag.
    """
    import timm  # noqa: PLC0415

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.0)
        raise ValueError(f"model.name={name} is not in timm {timm.__version__}; nearest: {', '.join(near)}.")
    try:
        found: Any = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that the architecture does not have
        raise ValueError(f"model.name={name}: timm {timm.__version__} has no weights of that tag; {_with_weights(name)}.") from error
    return {} if found is None else dict(found.to_dict())


def _with_weights(name: str) -> str:
    import timm  # noqa: PLC0415

    architecture = name.partition(".")[0]
    known = [other for other in timm.list_pretrained(f"{architecture}*") if other.partition(".")[0] == architecture]
    known = known or difflib.get_close_matches(name, timm.list_pretrained(), n=3, cutoff=0.0)
    return f"there are {', '.join(known)}"


def _no_download(name: str, facts: Mapping[str, Any], error: OSError) -> str:
    where = f"https://huggingface.co/{facts['hf_hub_id']}" if facts.get("hf_hub_id") else facts.get("url")
    return (
        f"model.pretrained=true: the weights of {name} are not in timm's cache (HF_HOME, else ~/.cache/huggingface; TORCH_HOME) and cannot "
        f"be downloaded from {where} ({type(error).__name__}). Give the command once where there is a network, copy the cache, or download "
        "model.safetensors from there and name it: model.pretrained=false model.checkpoint=FILE."
    )


def input_of(name: str | None, *, image_size: int | None = None) -> dict[str, Any]:
    """Return what weights expect of images: ``size``, ``crop`` (size / side before the cut), ``interpolation``, ``mean`` and ``std``.

    Args:
        name: timm's name; None is any other network, which gets ImageNet's usual input.
        image_size: The side that the network was asked to be built for; None takes its own.

    Raises:
        ValueError: timm has no such network.
    """
    facts = {} if name is None else _facts(name)
    if not facts:
        return PLAIN_INPUT | ({} if image_size is None else {"size": image_size})
    return {
        "size": image_size or facts["input_size"][-1],
        "crop": facts["crop_pct"],
        "interpolation": facts["interpolation"],
        "mean": tuple(facts["mean"]),
        "std": tuple(facts["std"]),
    }


def resized(size: int, crop: float) -> int:
    """Return the shorter side to scale to before the centre is cut out, as timm's evaluation does."""
    return math.floor(size / crop)


def mobilenetv2_cifar(*, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """Return MobileNet-V2 whose stem and second stage keep the map's size: 32x32 images end in a 4x4 map.

    Args:
        width: Factor on the channels: 0.35, 0.5, 1 or 1.4.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ValueError: timm has no such width.
    """
    import timm  # noqa: PLC0415

    if width not in WIDTHS:
        raise ValueError(f"model.width={width:g}; MobileNet-V2 comes in widths {', '.join(f'{known:g}' for known in WIDTHS)}.")
    name = f"mobilenetv2_{round(100 * width):03d}"
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    for path in ("conv_stem", "blocks.1.0.conv_dw"):
        layer = model.get_submodule(path)
        assert isinstance(layer, nn.Conv2d)
        assert layer.stride == (2, 2)
        layer.stride = (1, 1)
    return model
