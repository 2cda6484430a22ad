"""Train a network for some epochs under Lightning, going on from the last epoch if there is one."""

import logging
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from espalier.methods import LossTerm, Method
from espalier.steps.context import Context
from espalier.tasks import Journal, MethodCallback
from espalier.tasks.journal import Series

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[..., float]


@dataclass(frozen=True)
class Fitted:
    """What training gave: weights of the last epoch and of the one that validation chose, and the series."""

    last: dict[str, Tensor]
    best: dict[str, Tensor]
    series: Series


def fit(
    model: nn.Module,
    context: Context,
    *,
    epochs: int,
    first_epoch: int,
    optimizer: Optimizer,
    schedule: Schedule,
    method: Method | None,
    examine: Callable[[nn.Module], dict[str, float]] | None = None,
    terms: Sequence[LossTerm] = (),
) -> Fitted:
    """Train ``model`` in place.

    Numbers too small for fp32's full precision become zero: Adam's moments of masked weights and dead units sink there within an epoch or
    two, and arithmetic on them takes a CPU several times as long.

    Args:
        model: The network.
        context: The step's surroundings.
        epochs: Epochs, at least 1.
        first_epoch: Epochs trained before this step.
        optimizer: Parameters -> optimizer; made anew, so that no momentum of an earlier step moves a weight.
        schedule: ``(epoch, epochs, milestones)`` -> factor on the learning rate.
        method: What pulls the weights into their sets; None trains freely.
        examine: Figures of the model, taken whenever the method reports some.
        terms: What the task adds to its loss.

    Raises:
        ValueError: The resume checkpoint is damaged; the message names it.
        NonFiniteLossError: The loss became NaN or infinite.
    """
    torch.set_flush_denormal(True)
    milestones = [] if method is None else method.milestones
    factor = partial(schedule, epochs=epochs, milestones=milestones)
    task = context.task(model, optimizer=optimizer, rate_factor=factor)
    task.terms = terms
    checkpoint = context.folder / "last.ckpt"
    context.folder.mkdir(parents=True, exist_ok=True)
    batches = context.data.train_loader(context.seed)
    seed = f"{context.seed}/{context.key}"
    journal = Journal(checkpoint, loader=batches, seed=seed, first_epoch=first_epoch, on_epoch=context.on_epoch)
    callbacks: list[pl.Callback] = [] if method is None else [MethodCallback(method, examine)]
    loaders = [context.data.val_loader()] + ([context.data.test_loader()] if context.test_every_epoch else [])
    with warnings.catch_warnings(), quiet_lightning():
        for message in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[*callbacks, journal],
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **context.trainer,
        )
        trainer.fit(
            task,
            train_dataloaders=batches,
            val_dataloaders=loaders,
            ckpt_path=_resumable(checkpoint),
            weights_only=True,
        )
    last = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return Fitted(last, journal.best_weights, journal.series)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on devices and its tips out of the terminal; warnings and errors still come as such."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")]
    loggers += [
        logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith(("pytorch_lightning.", "lightning"))
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


IGNORED_WARNINGS = (
    ".*does not have many workers.*",  # batches come from memory; there are no workers
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 on torch 2.15
    ".*Found keys that are not in the model state dict.*",
    ".*GPU available but not used.*",
    ".*`weights_only` was not set.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*will save the checkpoint .*",
)


def _resumable(checkpoint: Path) -> str | None:
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f"{checkpoint} is damaged ({error}); delete it, the step then starts from its first epoch.") from error
    return str(checkpoint)
