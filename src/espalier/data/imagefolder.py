"""Images of one's own, in folders by class."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from espalier.data.augment import Augment
from espalier.data.files import MissingDataError
from espalier.data.imagenet import Picture, decoded, listing, sources
from espalier.data.module import ImageData, image_data
from espalier.data.split import SPLIT_SEED, Split, held_out, stratified

SPLITS = ("train", "val", "test")
FORMS = (
    "give data.root a folder that holds one folder of images for each class, or train/ (and val/, test/ where there are any) with such "
    "folders in each"
)
SHOWN = 5  # names in a message


def imagefolder(
    *,
    root: str | None,
    name: str,
    num_classes: int,
    in_channels: int,
    num_train: int | None,
    val_share: float,
    test_share: float,
    resize: int,
    size: int,
    interpolation: str,
    batch_size: int,
    eval_batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels_last: bool,
    crop_pad: int,
    mirror: bool,
) -> ImageData:
    """Return the images below ``root``, split as its folders are; what they lack is held out by class, always the same way.

    ``root/train`` trains. Where there are ``val`` and ``test``, they are validation and test; one of both is the test set, and validation
    is held out of ``train``; without either, as with one folder of class folders, both are held out. A tar stands for a folder of images.

    Args:
        root: The folder.
        name: Name in records.
        num_classes: Classes; what models read.
        in_channels: 3 reads every image as RGB (a grey one repeats its channel, transparency is dropped), 1 as grey.
        num_train: Training images, a stratified subset; None takes all.
        val_share: Share that validation holds out of all images, or of ``train``.
        test_share: Share that the test set holds out of all images.
        resize: Shorter side after scaling.
        size: Side of the cut.
        interpolation: How images are scaled: bilinear, bicubic, ...
        batch_size: Training batch.
        eval_batch_size: Batch of validation and test.
        mean: Mean of the pixels / 255, by channel.
        std: Standard deviation of the same.
        channels_last: Memory format of the batches.
        crop_pad: Pixels of zeros around a training image before the random crop.
        mirror: Swap left and right of training images at random.

    Raises:
        MissingDataError: There is no such folder.
        CorruptDataError: A file is no complete image.
        ValueError: The folders hold no classes, fewer than two, or different ones, or a class has too few images to be divided.
    """
    classes = class_names(root)
    parts = {split: listing(folder)[0] for split, folder in _folders(root).items()}
    train, val, test = _divided(parts, classes, num_train=num_train, val_share=val_share, test_share=test_share)
    everything = decoded(
        [*train, *val, *test], resize=resize, size=size, interpolation=interpolation, channels=in_channels, unit=f"images of {root}"
    )
    ends = [0, len(train), len(train) + len(val), len(everything)]
    splits = [Split(everything.images[start:end], everything.labels[start:end]) for start, end in pairwise(ends)]
    return image_data(
        name,
        splits,
        classes=len(classes),
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
        augment=Augment(crop_pad, mirror),
        num_classes=num_classes,
        in_channels=in_channels,
    )


def class_names(root: str | None) -> list[str]:
    """Return the classes of a folder of images, in the order of their numbers; the classes' own folders are not read.

    Raises:
        MissingDataError: There is no such folder.
        ValueError: It holds no classes, fewer than two, or its parts hold different ones.
    """
    folders = _folders(root)
    found = {split: list(sources(folder).values()) for split, folder in folders.items()}
    first, names = next(iter(found.items()))
    for split, others in found.items():
        if others != names:
            only, lacking = sorted(set(others) - set(names)), sorted(set(names) - set(others))
            words = [f"{_shown(only)} only in {split}"] * bool(only) + [f"{_shown(lacking)} only in {first}"] * bool(lacking)
            raise ValueError(f"{root}: {first} and {split} have different classes: {'; '.join(words)}; give all parts the same.")
    if len(names) < 2:
        inside = sorted(path.name for path in (folders[first] / names[0]).glob("*/"))
        deeper = f" It holds folders itself ({_shown(inside)}); did you mean data.root={folders[first] / names[0]}?" if inside else ""
        raise ValueError(f"{folders[first]} holds one class only, {names[0]}; a classifier needs two or more.{deeper}")
    return names


def _folders(root: str | None) -> dict[str, Path]:
    """Return part -> its folder; one part, ``all``, where the classes lie in ``root`` itself."""
    if root is None:
        raise MissingDataError(f"data=imagefolder needs data.root; {FORMS}.")
    folder = Path(root)
    if not folder.is_dir():
        parent = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.is_dir())
        raise MissingDataError(f"data.root={root}: there is no such folder; {parent} holds {_shown(_names(parent))}. {_sentence(FORMS)}.")
    parts = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
    if parts and "train" not in parts:
        raise ValueError(f"{root} holds {', '.join(parts)}, but no train; {FORMS}.")
    places = parts or {"all": folder}
    for place in places.values():
        if not sources(place):
            raise ValueError(f"{place} holds no folders of classes, but {_shown(_names(place))}; {FORMS}.")
    return places


def _divided(
    found: dict[str, list[Picture]], classes: Sequence[str], *, num_train: int | None, val_share: float, test_share: float
) -> tuple[list[Picture], list[Picture], list[Picture]]:
    """Return the pictures of training, validation and test."""
    for key, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 < share < 1:
            raise ValueError(f"data.{key}={share:g}; it is a share of the images, between 0 and 1.")
    if set(found) == set(SPLITS):
        train, val, test = (found[split] for split in SPLITS)
        train = _picked(train, stratified(_labels(train), num_train, SPLIT_SEED)) if num_train is not None else train
    elif "train" in found and len(found) == 2:
        test = found.get("test") or found["val"]
        train, val = _held_out(found["train"], val_share, classes, num_train)
    else:
        everything = found.get("train") or found["all"]
        rest, test = _held_out(everything, test_share, classes, None)
        train, val = _held_out(rest, val_share * len(everything) / len(rest), classes, num_train)
    if missing := sorted({classes[picture.label] for picture in [*train, *val, *test]} - {classes[picture.label] for picture in train}):
        raise ValueError(f"no training image is left of {_shown(missing)}; give these classes more images, or raise data.num_train.")
    return train, val, test


def _held_out(
    pictures: Sequence[Picture], share: float, classes: Sequence[str], num_train: int | None
) -> tuple[list[Picture], list[Picture]]:
    """Return what is left and what is held out, each class in proportion."""
    labels = _labels(pictures)
    sizes = torch.bincount(labels, minlength=len(classes))
    if few := [name for name, size in zip(classes, sizes.tolist(), strict=True) if size < 2]:
        raise ValueError(f"{_shown(few)} has too few images to train on and to hold some out; give every class three or more.")
    fitted, held = held_out(labels, num_train=num_train, num_val=max(1, round(share * len(pictures))))
    return _picked(pictures, fitted), _picked(pictures, held)


def _labels(pictures: Sequence[Picture]) -> torch.Tensor:
    return torch.tensor([picture.label for picture in pictures], dtype=torch.int64)


def _picked(pictures: Sequence[Picture], index: torch.Tensor) -> list[Picture]:
    return [pictures[place] for place in index.tolist()]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _shown(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
