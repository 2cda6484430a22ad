"""One thin callback that runs any method under Lightning."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import nn

from espalier.methods import Method
from espalier.tasks.classification import Classification


class MethodCallback(pl.Callback):
    """Run any method under Lightning. Penalty gradients join in ``Classification.configure_gradient_clipping``, after clipping.

    Args:
        method: The method; its figures join the task's at the end of an epoch.
        examine: Called with the model whenever the method reports figures; what it returns joins them (hard-pruned accuracy).
    """

    def __init__(self, method: Method, examine: Callable[[nn.Module], dict[str, float]] | None = None) -> None:
        self.method, self.examine = method, examine
        self.step = 0
        self.restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return self.method.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict  # Lightning restores before on_fit_start, and start() would overwrite it

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        del trainer
        if self.restored is None:
            self.method.start(pl_module.model)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        self._restore(pl_module.model)  # by now Lightning has put the weights back
        self.step = trainer.global_step
        pl_module.penalties = [lambda: self.method.add_penalty_grad(pl_module.model)]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Classification, *_: Any) -> None:
        if trainer.global_step > self.step:  # not after a batch that only accumulates
            self.step = trainer.global_step
            self.method.after_step(pl_module.model)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        del trainer
        self._restore(pl_module.model)  # no epoch was left to train, so that training did not start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classification) -> None:
        del trainer
        self.method.epoch_end(pl_module.model)
        pl_module.epoch_figures |= self.method.figures
        if self.method.figures and self.examine is not None:
            pl_module.epoch_figures |= self.examine(pl_module.model)

    def _restore(self, model: nn.Module) -> None:
        if self.restored is not None:
            weights = {name: value.clone() for name, value in model.state_dict().items()}
            self.method.start(model)
            model.load_state_dict(weights)
            self.method.load_state_dict(self.restored)
            self.restored = None
