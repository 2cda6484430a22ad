"""One thin callback that counts forgetting events under Lightning, and drops the examples that a removal names."""

from typing import Any

import pytorch_lightning as pl

from espalier.data import Forgetting, Removal, TensorLoader
from espalier.tasks.classification import Classification


class ForgettingCallback(pl.Callback):
    """Tell ``Forgetting`` of every training batch; after the epoch that a removal names, let the loader keep the others.

    The figure ``forget/never_pct`` is the share of the examples still trained on that were learnt and never forgotten; after a removal the
    count begins anew.

    Args:
        num_samples: Samples of the training split.
        removal: Which leave and when; None keeps all.
        epochs: Epochs of the step.
    """

    def __init__(self, num_samples: int, removal: Removal | None, *, epochs: int) -> None:
        self.forgetting = Forgetting(num_samples)
        self.num_samples, self.removal, self.epochs = num_samples, removal, epochs

    @property
    def removed_at(self) -> int | None:
        """Return the first epoch without the removed examples."""
        return None if self.removal is None else self.removal.epoch(self.epochs)

    def samples(self) -> list[int]:
        """Return the number of examples of each epoch."""
        if self.removal is None or self.removed_at is None:
            return [self.num_samples] * self.epochs
        left = self.num_samples - self.removal.num_removed(self.num_samples)
        return [self.num_samples if epoch < self.removed_at else left for epoch in range(self.epochs)]

    def state_dict(self) -> dict[str, Any]:
        return self.forgetting.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.forgetting.load_state_dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        del trainer
        pl_module.observers.append(self.forgetting.observe)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        never = int(self.forgetting.unforgettable().sum())
        pl_module.epoch_figures["forget/never_pct"] = 100.0 * never / self.samples()[trainer.current_epoch]
        if self.removal is not None and trainer.current_epoch + 1 == self.removed_at:
            loader = trainer.train_dataloader
            assert isinstance(loader, TensorLoader)
            loader.keep(self.removal.kept(self.forgetting, never_learnt=trainer.current_epoch + 1))
            self.forgetting.reset()
