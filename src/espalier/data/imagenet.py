"""ImageNet and other images sorted by class: a folder of images or a tar for each class, decoded once into memory.

Meant for subsets and checks: all of ImageNet at 224x224 takes 193 GB. Classes are numbered in the order of their names.
"""

import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from espalier.data.augment import Augment
from espalier.data.files import CorruptDataError, MissingDataError, checked_bytes, data_root
from espalier.data.module import ImageData, image_data
from espalier.data.split import SPLIT_SEED, Split, held_out, stratified
from espalier.progress import late_bar, terminal

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_BYTES = 32 * 2**30  # decoded images of one split
MODES = {1: "L", 3: "RGB"}  # channels -> how Pillow reads an image
SAMPLE = ("imagenet_sample_1000.tar", "1e7ed12ffd24b8e97d7e77274cf97534196e86303488a847ef7de171e2812b59")  # file, SHA-256


@dataclass(frozen=True)
class Picture:
    """One image file.

    Args:
        label: Number of its class.
        file: Its name; inside ``archive`` where there is one.
        archive: Tar that holds it.
    """

    label: int
    file: str
    archive: Path | None


class Form(NamedTuple):
    """What an image becomes: shorter side, side of the cut, how it is scaled, and Pillow's name of its channels."""

    resize: int
    size: int
    interpolation: str
    mode: str


def sources(folder: Path) -> dict[Path, str]:
    """Return the folder or tar of each class below ``folder`` -> the class's name, in the order of names; nothing in them is read."""
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = {path: path.name if path.is_dir() else path.stem for path in visible if path.is_dir() or path.suffix == ".tar"}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def listing(folder: Path) -> tuple[list[Picture], list[str]]:
    """Return the images below ``folder`` in the order of classes and names, and the names of the classes.

    A class is a folder of images or a tar of images; its name is that of the folder or of the tar.

    Raises:
        MissingDataError: There is no such folder.
        ValueError: It holds no classes, or a class no images.
    """
    if not folder.is_dir():
        raise MissingDataError(
            f"there is no {folder}. Point ESPALIER_DATA at a folder that holds imagenet/train and imagenet/val, each with a folder or a "
            "tar for every class; ImageNet is had from image-net.org, under its terms. scale=smoke needs no files."
        )
    found = sources(folder)
    names = list(found.values())
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{folder} holds {len(names)} classes ({len(set(names))} different names); give one folder or tar a class.")
    pictures: list[Picture] = []
    for label, source in enumerate(found):
        archive = None if source.is_dir() else source
        files = [str(path) for path in source.rglob("*")] if archive is None else _members(archive)
        images = sorted(file for file in files if file.lower().endswith(SUFFIXES) and not Path(file).name.startswith("."))
        if not images:
            raise ValueError(f"{source} holds no images ({', '.join(SUFFIXES)}); remove the class or complete it.")
        pictures += [Picture(label, file, archive) for file in images]
    return pictures, names


def _members(archive: Path) -> list[str]:
    try:
        with tarfile.open(archive) as content:
            return [member.name for member in content if member.isfile()]
    except tarfile.TarError as error:
        raise CorruptDataError(f"{archive} is damaged ({error}); replace it.") from error


def decoded(
    pictures: Sequence[Picture], *, resize: int, size: int, interpolation: str = "bilinear", channels: int = 3, unit: str = "images"
) -> Split:
    """Return the images as uint8: the shorter side scaled to ``resize``, the centre ``size`` x ``size`` cut out.

    Args:
        pictures: What to read.
        resize: Shorter side after scaling.
        size: Side of the cut.
        interpolation: A name in ``PIL.Image.Resampling``: bilinear, bicubic, nearest, lanczos, box or hamming.
        channels: 3 reads every image as RGB (a grey one repeats its channel, transparency is dropped), 1 as grey.
        unit: What the progress bar counts; it appears where decoding takes over 2 s.

    Raises:
        CorruptDataError: A file is no complete image; the message names it.
        ValueError: They would not fit in memory, or ``size`` is larger than ``resize``.
    """
    if not 0 < size <= resize:
        raise ValueError(f"data.size={size} and data.resize={resize}; the cut is at most as large as the scaled image.")
    if channels not in MODES:
        raise ValueError(f"data.in_channels={channels}; images are read with 3 channels or with 1.")
    if (need := len(pictures) * channels * size * size) > MAX_BYTES:
        shape = f"{channels}x{size}x{size}"
        raise ValueError(f"{len(pictures):,} images of {shape} take {need / 2**30:.0f} GiB; lower data.num_train, num_test, size.")
    form = Form(resize, size, interpolation, MODES[channels])
    images = torch.empty(len(pictures), channels, size, size, dtype=torch.uint8)
    places: dict[Path | None, list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        places[picture.archive].append(place)
    with late_bar(terminal(), unit, total=len(pictures), transient=True) as told:
        for archive, members in places.items():
            for place, content, name in _contents(archive, members, pictures):
                images[place] = _image(content, name, form)
                told("reading")
    return Split(images, torch.tensor([picture.label for picture in pictures], dtype=torch.int64))


def _contents(archive: Path | None, members: Sequence[int], pictures: Sequence[Picture]) -> Iterator[tuple[int, bytes, str]]:
    """Yield (place, content, name) of each picture of one archive, or of files."""
    if archive is None:
        for place in members:
            yield place, Path(pictures[place].file).read_bytes(), pictures[place].file
        return
    with tarfile.open(archive) as content:
        for place in members:
            stream = content.extractfile(pictures[place].file)
            assert stream is not None, "listing names files only"
            yield place, stream.read(), f"{archive}: {pictures[place].file}"


def _image(content: bytes, name: str, form: Form) -> Tensor:
    from PIL import Image  # noqa: PLC0415  only photographs need it

    try:
        image = Image.open(io.BytesIO(content)).convert(form.mode)
    except (OSError, SyntaxError) as error:  # SyntaxError: a broken PNG
        raise CorruptDataError(f"{name} is no complete image ({error}); replace it.") from error
    size, scale = form.size, form.resize / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    known = {kind.name.lower(): kind for kind in Image.Resampling}
    if form.interpolation not in known:
        raise ValueError(f"data.interpolation={form.interpolation} is not one of {', '.join(known)}.")
    scaled = image.resize((width, height), known[form.interpolation]).crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(scaled)).view(size, size, -1).permute(2, 0, 1)


def imagenet(
    *,
    root: str | None,
    name: str,
    num_classes: int,
    in_channels: int,
    num_train: int,
    num_val: int,
    num_test: int | None,
    resize: int,
    size: int,
    interpolation: str = "bilinear",
    batch_size: int,
    eval_batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels_last: bool,
    crop_pad: int,
    mirror: bool,
) -> ImageData:
    """Return a stratified subset of ImageNet; validation is held out of ``train``, ``val`` is the test set.

    Args:
        root: Folder that holds ``imagenet/train`` and ``imagenet/val``; None takes ``ESPALIER_DATA``.
        name: Name in records.
        num_classes: Classes; what models read.
        in_channels: 3; what models read.
        num_train: Training images.
        num_val: Images held out of the training images.
        num_test: Test images; None takes all.
        resize: Shorter side after scaling.
        size: Side of the cut.
        interpolation: How images are scaled, see ``decoded``.
        batch_size: Training batch.
        eval_batch_size: Batch of validation and test.
        mean: Mean of the pixels / 255, by channel.
        std: Standard deviation of the same.
        channels_last: Memory format of the batches.
        crop_pad: Pixels of zeros around a training image before the random crop.
        mirror: Swap left and right of training images at random.

    Raises:
        MissingDataError: A folder is missing.
        CorruptDataError: A file is no complete image.
        ValueError: A size does not fit, or train and val have different classes.
    """
    folder = data_root(root) / "imagenet"
    (trained, classes), (tested, test_classes) = listing(folder / "train"), listing(folder / "val")
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise ValueError(f"{folder}: train and val have different classes, such as {', '.join(odd[:3])}; give both the same.")
    labels = torch.tensor([picture.label for picture in trained])
    fitted, held = held_out(labels, num_train=num_train, num_val=num_val)
    test_labels = torch.tensor([picture.label for picture in tested])
    chosen = torch.arange(len(tested)) if num_test is None else stratified(test_labels, num_test, SPLIT_SEED)
    splits = [
        decoded([pictures[place] for place in index], resize=resize, size=size, interpolation=interpolation, channels=in_channels)
        for pictures, index in ((trained, fitted.tolist()), (trained, held.tolist()), (tested, chosen.tolist()))
    ]
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


def imagenet_sample(
    *,
    root: str | None,
    num_classes: int,
    in_channels: int,
    resize: int,
    size: int,
    interpolation: str = "bilinear",
    eval_batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels_last: bool,
) -> ImageData:
    """Return one photograph for each of the 1,000 classes, for checks of trained networks: validation and test, no training images.

    The photographs come from ImageNet's training part, so accuracies are higher than on its validation set.

    Args:
        root: Folder that holds ``imagenet_sample/``; None takes ``ESPALIER_DATA``.
        num_classes: 1,000; what models read.
        in_channels: 3; what models read.
        resize: Shorter side after scaling.
        size: Side of the cut.
        interpolation: How images are scaled, see ``decoded``.
        eval_batch_size: Batch of validation and test.
        mean: Mean of the pixels / 255, by channel.
        std: Standard deviation of the same.
        channels_last: Memory format of the batches.

    Raises:
        MissingDataError: The tar is missing.
        CorruptDataError: It is not the known file.
    """
    archive = data_root(root) / "imagenet_sample" / SAMPLE[0]
    if not archive.is_file():
        raise MissingDataError(f"there is no {archive}. Point ESPALIER_DATA at a folder that holds imagenet_sample/{SAMPLE[0]}.")
    checked_bytes(archive, SAMPLE[1])
    numbered = {file: re.match(r"(\d+)_n\d{8}\.", Path(file).name) for file in sorted(_members(archive))}
    pictures = sorted(
        (Picture(int(match[1]), file, archive) for file, match in numbered.items() if match is not None), key=lambda picture: picture.label
    )
    photographs = decoded(pictures, resize=resize, size=size, interpolation=interpolation)
    return image_data(
        "imagenet_sample",
        [photographs.take(torch.arange(0)), photographs, photographs],
        classes=1000,
        batch_size=1,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
        num_classes=num_classes,
        in_channels=in_channels,
    )
