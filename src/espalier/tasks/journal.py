"""What a training step remembers: its series, the best weights, and a checkpoint after every epoch."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from espalier.data import TensorLoader
from espalier.files import replacing
from espalier.tasks.classification import Classification

Series = dict[str, list[list[float]]]


class Journal(pl.callbacks.Checkpoint):
    """Reseed before each epoch; after it note its figures, keep the best weights, and save a checkpoint to go on from.

    Args:
        checkpoint: File of the resume checkpoint, replaced whole after every epoch.
        loader: Training batches; told the next epoch here, because Lightning fetches its first batch before any hook of that epoch.
        seed: What the generators are reseeded from, with the epoch: an interrupted run equals an undisturbed one.
        first_epoch: Epochs that earlier steps of the row trained: where ``progress/epoch`` goes on.
        on_epoch: Called with ``progress/epoch`` and the figures of the epoch; after a restart first for the epochs trained before it.
    """

    def __init__(
        self, checkpoint: Path, *, loader: TensorLoader, seed: str, first_epoch: int, on_epoch: Callable[[int, dict[str, float]], None]
    ) -> None:
        self.checkpoint, self.loader, self.seed, self.first_epoch, self.on_epoch = checkpoint, loader, seed, first_epoch, on_epoch
        self.epochs_done = 0
        self.series: Series = {}
        self.best: dict[str, Any] | None = None

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """Return the weights of the epoch with the highest validation accuracy; the first of equals."""
        assert self.best is not None
        weights: dict[str, Tensor] = self.best["weights"]
        return weights

    def state_dict(self) -> dict[str, Any]:
        return {"series": self.series, "best": self.best, "epochs_done": self.epochs_done, "loader": self.loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.series, self.best, self.epochs_done = state_dict["series"], state_dict["best"], state_dict["epochs_done"]
        self.loader.load_state_dict(state_dict["loader"])  # Lightning restores a loader's own only in the middle of an epoch
        for progress, figures in by_epoch(self.series, after=self.first_epoch):
            self.on_epoch(progress, figures)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        del pl_module
        reseed(f"{self.seed}/{trainer.current_epoch}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        figures = dict(pl_module.epoch_figures)
        self.epochs_done = trainer.current_epoch + 1
        self.loader.set_epoch(self.epochs_done)
        progress = self.first_epoch + self.epochs_done
        for name, value in figures.items():
            self.series.setdefault(name, []).append([progress, value])
        if self.best is None or figures["val/top1_pct"] > self.best["val/top1_pct"]:
            weights = {name: value.detach().cpu().clone() for name, value in pl_module.model.state_dict().items()}
            self.best = {"epoch": progress, "val/top1_pct": figures["val/top1_pct"], "weights": weights}
        with replacing(self.checkpoint) as temporary:
            trainer.save_checkpoint(temporary)
        self.on_epoch(progress, figures)


def reseed(text: str) -> None:
    """Seed Python's, NumPy's and PyTorch's generators from a text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  third-party transforms draw from the global generator
    torch.manual_seed(number)


def by_epoch(series: Series, *, after: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield ``progress/epoch`` and the figures of each epoch later than ``after``, in order."""
    figures: dict[int, dict[str, float]] = {}
    for name, points in series.items():
        for progress, value in points:
            if progress > after:
                figures.setdefault(int(progress), {})[name] = value
    yield from sorted(figures.items())
