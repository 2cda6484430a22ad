"""Image classification."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.methods import LossTerm

SPLITS = ("val", "test")  # what the validation loaders are, in order
CHECK_EVERY = 50  # steps between looks at the flag of a non-finite loss; reading it waits for the device


class NonFiniteLossError(ValueError):
    """The training loss became NaN or infinite; the last good checkpoint stands."""


class Classification(pl.LightningModule):
    """Cross entropy and top-1.

    Figures are summed as tensors and read once an epoch, into ``epoch_figures``: logging every step costs more than a small network's step.

    Args:
        model: ``(N, C, H, W)`` -> logits ``(N, classes)``.
        optimizer: Parameters -> optimizer.
        rate_factor: Epoch within the step -> factor on the learning rate.
        label_smoothing: Share of the target that goes to all classes alike, from 0 to 1.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        rate_factor: Callable[[int], float],
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer, self.rate_factor, self.label_smoothing = optimizer, rate_factor, label_smoothing
        self.penalties: list[Callable[[], None]] = []  # add to the gradients after they are clipped
        self.terms: Sequence[LossTerm] = ()  # join the loss, each under its own name
        self.observers: list[Callable[..., None]] = []  # told of a training batch: numbers of its samples, whether each is right
        self.epoch_figures: dict[str, float] = {}
        self.sums: dict[str, Tensor] = {}
        self.bad_step: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.model(images)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.optimizer(self.model.parameters())
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def on_train_epoch_start(self) -> None:
        factor = self.rate_factor(self.current_epoch)
        for optimizer in self.trainer.optimizers:
            for group, rate in zip(optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * factor
        self.epoch_figures = {"train/lr": self.base_rates[0] * factor}
        self.sums = {}
        self.bad_step = torch.tensor(-1, device=self.device)

    def training_step(self, batch: tuple[Tensor, ...], batch_index: int) -> Tensor:
        images, labels, *index = batch
        logits = self(images)
        for observe in self.observers:
            observe(*index, logits.detach().argmax(1) == labels)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self._sum("train", loss.detach() * len(labels), len(labels))
        for term in self.terms:
            value = term(images, logits)
            self._sum(f"train/{term.name}", value.detach() * len(labels), len(labels))
            loss = loss + value
        assert self.bad_step is not None
        self.bad_step = torch.where((self.bad_step < 0) & ~loss.detach().isfinite(), batch_index, self.bad_step)
        if batch_index % CHECK_EVERY == CHECK_EVERY - 1:
            self._check_finite()
        return loss

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        for add_penalty in self.penalties:
            add_penalty()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int, dataloader_idx: int = 0) -> None:
        del batch_index
        images, labels = batch
        logits = self(images)
        split = SPLITS[dataloader_idx]
        self._sum(split, F.cross_entropy(logits, labels, reduction="sum"), len(labels))
        self._sum(f"{split}/correct", (logits.argmax(1) == labels).sum(), 0)

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        self.epoch_figures["train/loss"] = self._mean("train")
        self.epoch_figures |= {f"train/{term.name}": self._mean(f"train/{term.name}") for term in self.terms}
        for split in SPLITS:
            if split in self.sums:
                self.epoch_figures[f"{split}/top1_pct"] = 100.0 * float(self.sums[f"{split}/correct"]) / float(self.sums[f"{split}/count"])
        self.epoch_figures["val/loss"] = self._mean("val")

    def _check_finite(self) -> None:
        assert self.bad_step is not None
        if (step := int(self.bad_step)) >= 0:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise NonFiniteLossError(
                f"the training loss is not finite at step {step} of epoch {self.current_epoch} (learning rate {rate:g}). Lower the rate "
                "(this step starts anew, those before it are kept) or set trainer.gradient_clip_val (every step starts anew); "
                "the checkpoint of the epoch before is kept."
            )

    def _sum(self, name: str, value: Tensor, count: int) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        if count:
            key = f"{name}/count"
            self.sums[key] = self.sums[key] + count if key in self.sums else torch.tensor(count)

    def _mean(self, name: str) -> float:
        return float(self.sums[name]) / float(self.sums[f"{name}/count"])


@torch.no_grad()
def accuracy(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the top-1 accuracy in percent; the model's training mode is restored."""
    training = model.training
    model.eval()
    device: Any = next(model.parameters()).device
    correct = count = 0
    for images, labels in loader:
        correct += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
        count += len(labels)
    model.train(training)
    return 100.0 * correct / count
