"""A classification data set as the steps see it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from espalier.data.augment import Augment
from espalier.data.form import ImageFormat
from espalier.data.loader import TensorLoader
from espalier.data.split import Split


@dataclass(frozen=True)
class ImageData:
    """Three splits of images with how to batch them.

    Args:
        name: Name in records.
        train: What the weights are fitted to.
        val: Held out of the training images; chooses the epoch.
        test: Touched for reporting only.
        num_classes: Classes.
        batch_size: Training batch, over all devices.
        eval_batch_size: Images of a batch of validation and test, at least 1.
        mean: Mean of the pixels / 255; one number, or one for each channel.
        std: Standard deviation of the pixels / 255.
        channels_last: Memory format of the batches.
        augment: What chance does to a training image.
    """

    name: str
    train: Split
    val: Split
    test: Split
    num_classes: int
    batch_size: int
    eval_batch_size: int
    mean: float | Sequence[float]
    std: float | Sequence[float]
    channels_last: bool
    augment: Augment | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return ``(C, H, W)``."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def format(self) -> ImageFormat:
        """Return what may be told of the images to someone who must not see them."""
        return ImageFormat(self.input_shape, self.mean, self.std, self.channels_last)

    @property
    def fingerprint(self) -> str:
        """Return the hash of every sample and its split; batch size and memory format aside."""
        parts = [self.name, self.train.digest(), self.val.digest(), self.test.digest()]
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

    def confirmed(self, *, num_classes: int, in_channels: int) -> "ImageData":
        """Return this data set, once what its config tells the models is what its images have.

        Raises:
            ValueError: A number differs.
        """
        for key, stated, found in (("num_classes", num_classes, self.num_classes), ("in_channels", in_channels, self.input_shape[0])):
            if stated != found:
                raise ValueError(f"data.{key}={stated}, but {self.name} has {found}; models read that key, set it to {found}.")
        return self

    def train_loader(self, seed: int, *, with_index: bool = False) -> TensorLoader:
        """Return shuffled and augmented training batches; both follow from the seed and the epoch.

        Args:
            seed: Of the run.
            with_index: Yield each sample's number in ``train`` as a third part of the batch.

        Raises:
            ValueError: The data set is for evaluation only.
        """
        if not len(self.train):
            raise ValueError(f"data={self.name} holds no training images, it is for evaluation only; choose other data to train on.")
        return self._loader(self.train, self.batch_size, seed, with_index=with_index)

    def calibration_loader(self) -> TensorLoader:
        """Return the training batches in the order of the split."""
        return self._loader(self.train, self.batch_size, None)

    def val_loader(self) -> TensorLoader:
        """Return the validation batches."""
        return self._loader(self.val, self.eval_batch_size, None)

    def test_loader(self) -> TensorLoader:
        """Return the test batches."""
        return self._loader(self.test, self.eval_batch_size, None)

    def _loader(self, split: Split, batch_size: int, seed: int | None, *, with_index: bool = False) -> TensorLoader:
        return TensorLoader(
            split,
            batch_size,
            mean=self.mean,
            std=self.std,
            seed=seed,
            channels_last=self.channels_last,
            augment=self.augment,
            with_index=with_index,
        )


def image_data(
    name: str,
    splits: Sequence[Split],
    *,
    classes: int,
    batch_size: int,
    eval_batch_size: int,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    channels_last: bool,
    augment: Augment | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> ImageData:
    """Return a data set as a function that a config names builds it.

    Args:
        name: Name in records.
        splits: Training, validation, test.
        classes: Classes that the images have.
        batch_size: Training batch.
        eval_batch_size: Batch of validation and test.
        mean: Mean of the pixels / 255; one number, or one for each channel.
        std: Standard deviation of the same.
        channels_last: Memory format of the batches.
        augment: What chance does to a training image.
        num_classes: Classes that the config tells the models; None where it tells none.
        in_channels: Channels that it tells them.

    Raises:
        ValueError: What the config tells the models is not what the images have.
    """
    train, val, test = splits
    data = ImageData(
        name=name,
        train=train,
        val=val,
        test=test,
        num_classes=classes,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=tuple(mean) if isinstance(mean, Sequence) else mean,
        std=tuple(std) if isinstance(std, Sequence) else std,
        channels_last=channels_last,
        augment=augment,
    )
    if num_classes is None or in_channels is None:
        return data
    return data.confirmed(num_classes=num_classes, in_channels=in_channels)
