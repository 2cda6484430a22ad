"""A classification data set as the steps see it."""

import hashlib
import json
from dataclasses import dataclass

from espalier.data.loader import Split, TensorLoader


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
        eval_batch_size: Batch of validation and test.
        mean: Mean of the pixels / 255.
        std: Standard deviation of the same.
        channels_last: Memory format of the batches.
    """

    name: str
    train: Split
    val: Split
    test: Split
    num_classes: int
    batch_size: int
    eval_batch_size: int
    mean: float
    std: float
    channels_last: bool

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return ``(C, H, W)``."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def fingerprint(self) -> str:
        """Return the hash of every sample and its split; batch size and memory format aside."""
        parts = [self.name, self.train.digest(), self.val.digest(), self.test.digest()]
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

    def train_loader(self, seed: int) -> TensorLoader:
        """Return shuffled training batches; the order follows from the seed and the epoch."""
        return self._loader(self.train, self.batch_size, seed)

    def calibration_loader(self) -> TensorLoader:
        """Return the training batches in the order of the split."""
        return self._loader(self.train, self.batch_size, None)

    def val_loader(self) -> TensorLoader:
        """Return the validation batches."""
        return self._loader(self.val, self.eval_batch_size, None)

    def test_loader(self) -> TensorLoader:
        """Return the test batches."""
        return self._loader(self.test, self.eval_batch_size, None)

    def _loader(self, split: Split, batch_size: int, seed: int | None) -> TensorLoader:
        return TensorLoader(split, batch_size, mean=self.mean, std=self.std, seed=seed, channels_last=self.channels_last)
