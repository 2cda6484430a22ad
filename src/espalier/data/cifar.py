"""CIFAR-10 and CIFAR-100, read strictly: a file that is not the official content is named and refused.

Krizhevsky 2009. Two forms are read: the official python batches, and for CIFAR-10 a packed copy, strips of 500 images as lossless WebP.
The test images come sorted by class (inside a class in the official order), so that both forms give the same data set.
"""

import io
import pickle
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espalier.data.augment import Augment
from espalier.data.files import MissingDataError, check_bytes, checked_bytes, data_root
from espalier.data.module import ImageData, image_data
from espalier.data.split import SPLIT_SEED, Split, held_out, stratified

STRIP = 500  # images one below the other
PLAIN = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype", "_codecs.encode")


@dataclass(frozen=True)
class Official:
    """The python version of a data set, as its authors publish it.

    Args:
        archive: Its file at the source.
        archive_md5: Of that file; the source's page states it.
        folder: Folder inside the archive.
        train: File -> MD5.
        test: File -> MD5.
        label: Key of the labels in a batch.
        num_classes: Classes.
    """

    archive: str
    archive_md5: str
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    label: bytes
    num_classes: int


OFFICIAL = {
    "cifar10": Official(
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        label=b"labels",
        num_classes=10,
    ),
    "cifar100": Official(
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        label=b"fine_labels",
        num_classes=100,
    ),
}
PACKED = {  # file -> SHA-256
    "cifar10_train.tar": "710195e5df3537ebeb9966c677b223d0c1207c32b38498efe10b217f9652e087",
    "cifar10_test.tar": "ef923f74e771b31b2316bb277747b2622fd110765d67eb9a562c5ef72c58dd94",
    "labels.npz": "8af6b17d107a06efce744b2405d2655d7180d5b1e0cc205dfaf191e7191e1013",
}


def cifar(
    *,
    root: str | None,
    name: str,
    dataset: str,
    num_classes: int,
    in_channels: int,
    num_train: int | None,
    num_val: int,
    num_test: int | None,
    batch_size: int,
    eval_batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels_last: bool,
    crop_pad: int,
    mirror: bool,
    pool: int = 1,
) -> ImageData:
    """Return CIFAR with a validation split held out of the 50,000 training images; every subset has each class in proportion.

    Args:
        root: Folder that holds ``cifar10/`` or ``cifar100/``; None takes ``ESPALIER_DATA``.
        name: Name in records.
        dataset: ``cifar10`` or ``cifar100``.
        num_classes: 10 or 100; what models read.
        in_channels: 3; what models read.
        num_train: Training images; None takes all that validation leaves.
        num_val: Images held out of the 50,000.
        num_test: Test images; None takes all 10,000.
        batch_size: Images of a training batch, at least 1.
        eval_batch_size: Images of a batch of validation and test, at least 1.
        mean: Mean of the pixels / 255, by channel.
        std: Standard deviation of the pixels / 255.
        channels_last: Memory format of the batches.
        crop_pad: Pixels of zeros around a training image before the random crop.
        mirror: Swap left and right of training images at random.
        pool: Pixels of each side that are averaged to one; 2 gives images of 16x16.

    Raises:
        MissingDataError: No form of the data set is there.
        CorruptDataError: A file is not the official content.
        ValueError: The data set is unknown, or a size or ``num_classes`` does not fit it.
    """
    if dataset not in OFFICIAL:
        raise ValueError(f"data.dataset={dataset}; it is one of {', '.join(OFFICIAL)}.")
    everything, tested = (split.pooled(pool) for split in read_cifar(data_root(root) / dataset, dataset))
    fitted, held = held_out(everything.labels, num_train=num_train, num_val=num_val)
    tested = tested if num_test is None else tested.take(stratified(tested.labels, num_test, SPLIT_SEED))
    return image_data(
        name,
        [everything.take(fitted), everything.take(held), tested],
        classes=OFFICIAL[dataset].num_classes,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
        augment=Augment(crop_pad, mirror),
        num_classes=num_classes,
        in_channels=in_channels,
    )


def read_cifar(folder: Path, dataset: str) -> tuple[Split, Split]:
    """Return training images in the official order and test images sorted by class.

    Raises:
        MissingDataError: ``folder`` holds neither the official batches nor the packed copy.
        CorruptDataError: A file is not the official content.
    """
    official = OFFICIAL[dataset]
    if (folder / official.folder).is_dir():
        train, test = read_official(folder, official)
    elif dataset == "cifar10" and (folder / "cifar10_train.tar").is_file():
        train, test = _read_packed(folder)
    else:
        raise MissingDataError(
            f"there is no {folder / official.folder}. Point ESPALIER_DATA at a folder that holds {dataset}/{official.folder}/, or fetch it "
            f"with `espalier fetch {dataset}`; scale=smoke needs no files."
        )
    return train, test.take(test.labels.argsort(stable=True))


def read_official(folder: Path, official: Official) -> tuple[Split, Split]:
    """Return training and test images of the python version below ``folder``, in the official order.

    Raises:
        MissingDataError: A batch is missing.
        CorruptDataError: A batch is not the official content.
    """
    train, test = (
        [_read_batch(folder / official.folder / file, md5, official) for file, md5 in files.items()]
        for files in (official.train, official.test)
    )
    return joined(train), joined(test)


def joined(parts: Sequence[Split]) -> Split:
    """Return splits one after the other."""
    return Split(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def _read_batch(path: Path, md5: str, official: Official) -> Split:
    if not path.is_file():
        raise MissingDataError(f"{path} is missing; delete {path.parent} and fetch the data set again.")
    content = _Plain(io.BytesIO(checked_bytes(path, md5)), encoding="bytes").load()
    return Split(torch.from_numpy(content[b"data"].reshape(-1, 3, 32, 32).copy()), torch.tensor(content[official.label]))


class _Plain(pickle.Unpickler):
    """Unpickle arrays and plain values; any other object is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if f"{module_name}.{global_name}" not in PLAIN:
            raise pickle.UnpicklingError(f"a batch of CIFAR holds no {module_name}.{global_name}")
        return super().find_class(module_name.replace("numpy.core", "numpy._core"), global_name)  # its name before NumPy 2


def _read_packed(folder: Path) -> tuple[Split, Split]:
    labels = np.load(io.BytesIO(_packed_bytes(folder, "labels.npz")))
    splits = []
    for part in ("train", "test"):
        name = f"cifar10_{part}.tar"
        images = _strips(folder / name, _packed_bytes(folder, name))
        splits.append(Split(images, torch.from_numpy(labels[part].astype(np.int64))))
    return splits[0], splits[1]


def _packed_bytes(folder: Path, name: str) -> bytes:
    if not (folder / name).is_file():
        raise MissingDataError(f"{folder / name} is missing from the packed copy of CIFAR-10; copy it, or fetch the official batches.")
    return checked_bytes(folder / name, PACKED[name])


def _strips(path: Path, content: bytes) -> torch.Tensor:
    """Return the images of a tar of strips, ``(N, 3, 32, 32)``."""
    from PIL import Image  # noqa: PLC0415  only the packed copy needs it

    parts = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            strip = archive.extractfile(member)
            assert strip is not None, f"{path} holds only files"
            parts.append(np.asarray(Image.open(strip).convert("RGB")).reshape(STRIP, 32, 32, 3))
    return torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2).contiguous()


def extract(path: Path, official: Official, folder: Path) -> None:
    """Write an official archive's batches below ``folder``, each checked; nothing else of the archive is written.

    Args:
        path: The archive.
        official: What it should hold.
        folder: The data set's folder.

    Raises:
        CorruptDataError: The archive or a batch is not the official content; nothing was filed.
    """
    archive = checked_bytes(path, official.archive_md5)
    place, partial = folder / official.folder, folder / f".{official.folder}"
    partial.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as content:
        for name, md5 in {**official.train, **official.test}.items():
            member = content.extractfile(f"{official.folder}/{name}")
            assert member is not None, "the archive's checksum is the official one"
            batch = member.read()
            check_bytes(place / name, batch, md5)
            (partial / name).write_bytes(batch)
    partial.replace(place)
