"""Batches out of tensors that live in memory: no workers, no decoding, the same order on every machine."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from espalier.data.augment import Augment
from espalier.data.split import Split

EPOCH_STRIDE = 100_003  # a prime above any number of epochs: (seed, epoch) -> one number


class TensorLoader:
    """Iterate over a split in batches of normalised float images.

    Order and augmentation follow from ``(seed, epoch)`` and the sample alone: dropping samples leaves those of the others as they were.

    Args:
        split: The samples.
        batch_size: Samples a batch, over all devices; the last batch may be smaller. While training, a single sample that is left over
            joins the batch before it, as batch norm cannot learn from one.
        mean: Mean of the pixels / 255; one number, or one for each channel.
        std: Standard deviation of the pixels / 255.
        seed: None keeps the order of the split; a number shuffles by ``(seed, epoch)``, see ``set_epoch``.
        channels_last: Memory format of the batches.
        augment: What chance does to a training image; None, or a seed of None, leaves images as they are.
        with_index: Yield ``(images, labels, index)``, the index being a sample's number in ``split``.

    Raises:
        ValueError: A batch would be empty, or the split has another number of channels than ``mean`` or ``std``.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        seed: int | None,
        channels_last: bool,
        augment: Augment | None = None,
        with_index: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size}; a batch holds at least one sample.")
        self.split, self.batch_size, self.seed, self.with_index = split, batch_size, seed, with_index
        channels = split.images.shape[1]
        self.mean_C11, self.std_C11 = (by_channel(value, channels, name) for name, value in (("mean", mean), ("std", std)))
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.augment = None if seed is None else augment
        self.epoch = 0
        self.kept: Tensor | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def keep(self, index: Tensor) -> None:
        """Use only the samples ``index`` from the next pass on; indices count in the whole split, whatever was dropped before.

        Under Lightning 2.6, give the trainer ``reload_dataloaders_every_n_epochs=1`` (it validates only after the number of batches that it
        counted first) and let a callback carry ``state_dict`` (it restores a loader's own only in the middle of an epoch).

        Raises:
            ValueError: ``index`` is empty, holds a sample twice, or names one that does not exist.
        """
        kept = torch.unique(index.to(torch.int64))
        if len(kept) != index.numel() or not len(kept) or int(kept[0]) < 0 or int(kept[-1]) >= len(self.split):
            raise ValueError(
                f"cannot keep {index.numel()} samples ({len(kept)} different ones) of {len(self.split)}; "
                f"give different indices from 0 to {len(self.split) - 1}."
            )
        self.kept = kept

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the epoch and the samples kept."""
        return {"epoch": self.epoch, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what ``state_dict`` gave."""
        self.epoch = state["epoch"]
        self.kept = None
        if state["kept"] is not None:
            self.keep(state["kept"])

    def __len__(self) -> int:
        total = len(self.split if self.kept is None else self.kept)
        return math.ceil(total / self.batch_size) - self._joins(total)

    def _joins(self, total: int) -> bool:
        return self.seed is not None and total > self.batch_size > 1 and total % self.batch_size == 1

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0 if self.seed is None else self.seed * EPOCH_STRIDE + self.epoch)
        total = len(self.split)
        order = torch.arange(total) if self.seed is None else torch.randperm(total, generator=generator)
        draws = None if self.augment is None else self.augment.draw(total, generator)
        if self.kept is not None:
            order = order[torch.zeros(total, dtype=torch.bool).index_fill(0, self.kept, True)[order]]
        batches = list(torch.split(order, self.batch_size))
        if self._joins(len(order)):
            batches[-2:] = [torch.cat(batches[-2:])]
        for index in batches:
            images = self.split.images[index]
            if self.augment is not None and draws is not None:
                images = self.augment.apply(images, index, draws)
            images = images.to(torch.float32).div_(255).sub_(self.mean_C11).div_(self.std_C11)
            batch = (images.contiguous(memory_format=self.memory_format), self.split.labels[index])
            yield (*batch, index) if self.with_index else batch


def by_channel(value: float | Sequence[float], channels: int, name: str) -> Tensor:
    """Return a mean or deviation as ``(C or 1, 1, 1)``, to be broadcast over ``(N, C, H, W)``.

    Raises:
        ValueError: There are more or fewer numbers than channels.
    """
    numbers = torch.tensor([value] if isinstance(value, int | float) else list(value), dtype=torch.float32)
    if len(numbers) not in (1, channels):
        raise ValueError(f"data.{name} holds {len(numbers)} numbers, the images {channels} channels; give one number or one for each.")
    return numbers.view(-1, 1, 1)
