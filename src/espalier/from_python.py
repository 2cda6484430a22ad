"""Networks and data sets from a user's own function, named in a config: ``model=python`` and ``data=python``.

They lie outside ``espalier.models``, so that a checkpoint that names one is code from outside and wants ``trust=True``.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espalier.data.augment import Augment
from espalier.data.module import ImageData
from espalier.data.split import Split
from espalier.importing import called
from espalier.models.weights import fill

SPLITS = ("train", "val", "test")
CONTRACT = (
    "return an espalier.data.ImageData, or (train, val, test), each a pair (images, labels) with images uint8 of shape (N, C, H, W), or a "
    "torch Dataset of pairs (image, label) with PIL images or uint8 tensors (C, H, W) of one size"
)


def python_model(
    *,
    target: str | None,
    args: Mapping[str, Any],
    num_classes: int,
    in_channels: int,
    checkpoint: str | None = None,
    checkpoint_digest: str | None = None,
) -> nn.Module:
    """Return the network that a user's function builds.

    Args:
        target: ``pkg.module:function``; a class is a function too.
        args: Its arguments.
        num_classes: Outputs; passed where the function has a parameter of that name.
        in_channels: Channels of the images; passed likewise.
        checkpoint: File of weights to fill it with; None keeps those that it comes with.
        checkpoint_digest: SHA-256 of that file when the run was planned.

    Raises:
        ValueError: The function cannot be imported, does not take the arguments or returns no network, or the weights do not fit.
    """
    model = called(target, "model.target", always=args, where_taken={"num_classes": num_classes, "in_channels": in_channels})
    if not isinstance(model, nn.Module):
        raise ValueError(f"model.target={target} returned a {type(model).__name__}; it must return a torch.nn.Module.")
    if checkpoint:
        fill(model, checkpoint, checkpoint_digest)
    return model


def python_data(
    *,
    target: str | None,
    args: Mapping[str, Any],
    name: str,
    num_classes: int,
    in_channels: int,
    batch_size: int,
    eval_batch_size: int,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    channels_last: bool,
    crop_pad: int,
    mirror: bool,
) -> ImageData:
    """Return the data set that a user's function gives: an ``ImageData`` as it is, or three splits, see ``CONTRACT``.

    Args:
        target: ``pkg.module:function``.
        args: Its arguments.
        name: Name in records.
        num_classes: Classes; what models read.
        in_channels: Channels; what models read.
        batch_size: Training batch.
        eval_batch_size: Batch of validation and test.
        mean: Mean of the pixels / 255; one number, or one for each channel.
        std: Standard deviation of the same.
        channels_last: Memory format of the batches.
        crop_pad: Pixels of zeros around a training image before the random crop.
        mirror: Swap left and right of training images at random.

    Raises:
        ValueError: The function cannot be imported, does not take the arguments, or does not return data.
    """
    found = _loaded(target, json.dumps(dict(args), sort_keys=True))
    if isinstance(found, ImageData):
        return found.confirmed(num_classes=num_classes, in_channels=in_channels)
    data = ImageData(
        name=name,
        train=found[0],
        val=found[1],
        test=found[2],
        num_classes=_num_classes(found),
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
        augment=Augment(crop_pad, mirror),
    )
    return data.confirmed(num_classes=num_classes, in_channels=in_channels)


def data_facts(target: str | None, args: Mapping[str, Any]) -> dict[str, int]:
    """Return ``num_classes`` and ``in_channels`` of the data that a function gives. Raises as ``python_data`` does."""
    found = _loaded(target, json.dumps(dict(args), sort_keys=True))
    if isinstance(found, ImageData):
        return {"num_classes": found.num_classes, "in_channels": found.input_shape[0]}
    return {"num_classes": _num_classes(found), "in_channels": found[0].images.shape[1]}


def _num_classes(splits: Sequence[Split]) -> int:
    return 1 + max(int(split.labels.max()) for split in splits)


@lru_cache(maxsize=1)
def _loaded(target: str | None, args: str) -> ImageData | tuple[Split, Split, Split]:
    """Return what a user's function gives, as splits; called once a process, however often a config is composed."""
    key = "data.target"
    found = called(target, key, always=json.loads(args), where_taken={})
    if isinstance(found, ImageData):
        return found
    if not isinstance(found, tuple | list) or len(found) != len(SPLITS):
        what = f"{len(found)} parts" if isinstance(found, tuple | list) else f"a {type(found).__name__}"
        raise ValueError(f"{key}={target} returned {what}; {CONTRACT}.")
    train, val, test = (_split(part, f"{key}={target}: {split}") for split, part in zip(SPLITS, found, strict=True))
    if len({part.images.shape[1:] for part in (train, val, test)}) > 1:
        shapes = ", ".join(f"{split} {tuple(part.images.shape[1:])}" for split, part in zip(SPLITS, (train, val, test), strict=True))
        raise ValueError(f"{key}={target}: the splits hold images of different shape ({shapes}); give all the same.")
    if len(present := torch.unique(train.labels)) < 2:
        raise ValueError(f"{key}={target}: the training labels hold {len(present)} class; a classifier needs two or more.")
    return train, val, test


def _split(part: Any, what: str) -> Split:
    """Return one split as tensors.

    Args:
        part: A pair of arrays or a Dataset.
        what: How the message begins.
    """
    pair = isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(one, Tensor | np.ndarray) for one in part)
    if not pair and not (hasattr(part, "__getitem__") and hasattr(part, "__len__")):
        raise ValueError(f"{what} is a {type(part).__name__}; {CONTRACT}.")
    if pair:
        images, labels = (torch.as_tensor(one) for one in part)
    else:
        items = [part[index] for index in range(len(part))]
        pixels = [_pixels(item[0], f"{what}, item {index}") for index, item in enumerate(items)]
        if len(shapes := {tuple(one.shape) for one in pixels}) > 1:
            some = ", ".join(map(str, sorted(shapes)[:2]))
            raise ValueError(f"{what} holds images of {len(shapes)} shapes, such as {some}; give all one size.")
        images, labels = torch.stack(pixels) if pixels else torch.empty(0), torch.tensor([int(item[1]) for item in items])
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(f"{what} holds images of {str(images.dtype).removeprefix('torch.')} and shape {tuple(images.shape)}; {CONTRACT}.")
    if labels.ndim != 1 or len(labels) != len(images) or labels.is_floating_point() or int(labels.min()) < 0:
        raise ValueError(f"{what} holds labels of shape {tuple(labels.shape)} for {len(images)} images; give one whole number from 0 each.")
    return Split(images.contiguous(), labels.to(torch.int64))


def _pixels(image: Any, what: str) -> Tensor:
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8:
            kind = str(image.dtype).removeprefix("torch.")
            raise ValueError(f"{what} is a tensor of {kind}; leave ToTensor and Normalize out: {CONTRACT}.")
        return image
    if not hasattr(image, "convert"):
        raise ValueError(f"{what} is a {type(image).__name__}; {CONTRACT}.")
    pixels = torch.from_numpy(np.array(image.convert("L" if image.mode in ("1", "L") else "RGB")))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
