"""The UCI handwritten digits inside scikit-learn: real data without a download, for smoke runs and tests."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from espalier.data.augment import Augment
from espalier.data.module import ImageData, image_data
from espalier.data.split import SPLIT_SEED, Split, stratified

SIZES = {"val": 200, "test": 300}  # of 1,797; the other 1,297 train


def digits(*, batch_size: int, eval_batch_size: int, mean: float, std: float, channels_last: bool) -> ImageData:
    """Return the 1,797 digits: 8x8 enlarged to 24x24 (bilinear) on a 28x28 ground, as MNIST has it, split by class.

    Args:
        batch_size: Images of a training batch.
        eval_batch_size: Images of a batch of validation and test; changes no result.
        mean: Mean of the pixels / 255.
        std: Standard deviation of the pixels / 255.
        channels_last: Memory format of the batches.

    Raises:
        ModuleNotFoundError: scikit-learn, which carries them, is not installed.
    """
    return image_data(
        "digits",
        _divided(_enlarged(border=2)),
        classes=10,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
    )


def digits_rgb(
    *,
    num_classes: int,
    in_channels: int,
    batch_size: int,
    eval_batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels_last: bool,
    crop_pad: int,
    mirror: bool,
) -> ImageData:
    """Return the digits in CIFAR's shape, 3x32x32: ink of a random colour on a darker random ground, so that no channel repeats another.

    Args:
        num_classes: 10; what models read.
        in_channels: 3; what models read.
        batch_size: Images of a training batch, at least 1.
        eval_batch_size: Images of a batch of validation and test, at least 1.
        mean: Mean of the pixels / 255, by channel.
        std: Standard deviation of the pixels / 255.
        channels_last: Memory format of the batches.
        crop_pad: Pixels of zeros around a training image before the random crop.
        mirror: Swap left and right at random; digits do not bear it.

    Raises:
        ModuleNotFoundError: scikit-learn, which carries them, is not installed.
        ValueError: ``num_classes`` or ``in_channels`` is not what the images have.
    """
    grey = _enlarged(border=4)
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    ink = 0.5 + 0.5 * torch.rand(len(grey), 3, 1, 1, generator=generator)
    ground = 0.2 * torch.rand(len(grey), 3, 1, 1, generator=generator)
    strength = grey.images.float() / 255
    coloured = Split((255 * (ground + (ink - ground) * strength)).round().to(torch.uint8), grey.labels)
    return image_data(
        "digits_rgb",
        _divided(coloured),
        classes=10,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
        augment=Augment(crop_pad, mirror),
        num_classes=num_classes,
        in_channels=in_channels,
    )


def _enlarged(*, border: int) -> Split:
    """Return all digits, enlarged to 24x24 on a ground ``border`` pixels wider on each side."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("data=digits is carried by scikit-learn; pip install 'espalier[embedded]'.") from error
    content = load_digits()
    small = torch.tensor(content.images, dtype=torch.float32)[:, None] / 16
    large = F.pad(F.interpolate(small, size=(24, 24), mode="bilinear", align_corners=False), (border,) * 4)
    return Split((large * 255).round().to(torch.uint8), torch.tensor(content.target, dtype=torch.int64))


def _divided(everything: Split) -> tuple[Split, Split, Split]:
    held = stratified(everything.labels, SIZES["val"] + SIZES["test"], SPLIT_SEED)
    rest = torch.ones(len(everything), dtype=torch.bool).index_fill(0, held, False)
    return everything.take(rest.nonzero().squeeze(1)), everything.take(held[: SIZES["val"]]), everything.take(held[SIZES["val"] :])
