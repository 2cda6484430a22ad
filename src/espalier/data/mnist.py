"""MNIST from the official IDX files, read strictly: a file that is not bit for bit the official content is named and refused."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espalier.data.files import CorruptDataError, MissingDataError, data_root
from espalier.data.module import ImageData, image_data
from espalier.data.split import Split, held_out

# file -> (magic, shape, md5 of the unpacked content)
FILES: dict[str, tuple[int, tuple[int, ...], str]] = {
    "train-images-idx3-ubyte.gz": (2051, (60000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte.gz": (2049, (60000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte.gz": (2051, (10000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte.gz": (2049, (10000,), "27ae3e4e09519cfbb04c329615203637"),
}


def read_idx(path: Path, magic: int, shape: tuple[int, ...], md5: str) -> Tensor:
    """Return the content of a gzipped IDX file as uint8 of ``shape``.

    Raises:
        MissingDataError: There is no such file.
        CorruptDataError: It is truncated, of another kind, or its content is not the official one.
    """
    if not path.is_file():
        raise MissingDataError(
            f"there is no {path}. Point ESPALIER_DATA at a folder that holds mnist/, or fetch it with `espalier fetch mnist`; "
            "scale=smoke needs no files."
        )
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptDataError(f"{path} is damaged ({error}); delete it and run `espalier fetch mnist`.") from error
    header_size = 4 + 4 * len(shape)
    header = np.frombuffer(content[:header_size], dtype=">u4").tolist()
    if header != [magic, *shape] or len(content) != header_size + int(np.prod(shape)):
        raise CorruptDataError(f"{path} holds {header} and {len(content)} bytes instead of {[magic, *shape]}; run `espalier fetch mnist`.")
    if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
        raise CorruptDataError(f"{path} has md5 {found} unpacked, the official file {md5}; delete it and run `espalier fetch mnist`.")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape).copy())


def mnist(
    *,
    root: str | None,
    name: str,
    num_train: int | None,
    num_val: int,
    batch_size: int,
    eval_batch_size: int,
    mean: float,
    std: float,
    channels_last: bool,
) -> ImageData:
    """Return MNIST with a validation split held out of the training images; the 10,000 test images stay whole.

    Args:
        root: Folder that holds ``mnist/``; None takes ``ESPALIER_DATA``.
        name: Name in records.
        num_train: Training images, a stratified subset; None takes all that validation leaves.
        num_val: Images held out of the 60,000.
        batch_size: Images of a training batch, at least 1.
        eval_batch_size: Images of a batch of validation and test, at least 1.
        mean: Mean of the pixels / 255.
        std: Standard deviation of the pixels / 255.
        channels_last: Memory format of the batches.
    """
    folder = data_root(root) / "mnist"
    train_images, train_labels, test_images, test_labels = (read_idx(folder / file, *facts) for file, facts in FILES.items())
    everything = Split(train_images[:, None], train_labels.long())
    fitted, held = held_out(everything.labels, num_train=num_train, num_val=num_val)
    return image_data(
        name,
        [everything.take(fitted), everything.take(held), Split(test_images[:, None], test_labels.long())],
        classes=10,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
    )
