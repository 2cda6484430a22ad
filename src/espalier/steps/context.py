"""What a step may use beside the State it is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from espalier.data import ImageData, ImageFormat

OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Context:
    """A step's surroundings.

    Args:
        name: The step's name in its recipe.
        key: Hash of all that the step's result depends on.
        seed: The run's seed.
        folder: Where the step may keep what it needs to go on after a kill.
        data: The data set.
        model: Builds the untrained network; the caller has seeded the generators.
        task: Builds the LightningModule: ``task(model, optimizer=..., rate_factor=...)``.
        trainer: Arguments of ``pl.Trainer``.
        test_every_epoch: Whether test accuracy is noted after every epoch (the papers' protocol).
        on_epoch: Called at the end of each epoch with ``progress/epoch`` and its figures; a training that repeats epochs gives none again.
        bn_images: Training images on which batch norm is recalibrated for a second hard-pruned accuracy; 0 takes none.

    Raises:
        ValueError: ``bn_images`` is negative or 1.
    """

    name: str
    key: str
    seed: int
    folder: Path
    data: ImageData
    model: Callable[[], nn.Module]
    task: Callable[..., Any]
    trainer: Mapping[str, Any]
    test_every_epoch: bool
    on_epoch: OnEpoch
    bn_images: int = 0

    def __post_init__(self) -> None:
        if self.bn_images < 0 or self.bn_images == 1:
            raise ValueError(f"bn_images={self.bn_images}: statistics need 2 images or more; 0 switches recalibration off.")

    def for_designer(self) -> "DesignerContext":
        """Return the surroundings of a step that must not see the data: the same, without it."""
        return DesignerContext(
            name=self.name,
            key=self.key,
            seed=self.seed,
            folder=self.folder,
            form=self.data.format,
            model=self.model,
            trainer=self.trainer,
            on_epoch=self.on_epoch,
        )


@dataclass(frozen=True)
class DesignerContext:
    """The surroundings of a step that works for a client without the client's data (privacy-pruning, P1).

    A step whose ``context`` is annotated so is given nothing that leads to a sample.

    Args:
        name: The step's name in its recipe.
        key: Hash of all that the step's result depends on.
        seed: The run's seed.
        folder: Where the step may keep what it needs to go on after a kill.
        form: Shape and scaling of the client's images.
        model: Builds the untrained network.
        trainer: Arguments of ``pl.Trainer``, of which the accelerator and the clipping of gradients are heeded.
        on_epoch: Called with ``progress/epoch`` and the figures of an epoch.
    """

    name: str
    key: str
    seed: int
    folder: Path
    form: ImageFormat
    model: Callable[[], nn.Module]
    trainer: Mapping[str, Any]
    on_epoch: OnEpoch

    @property
    def data(self) -> NoReturn:
        """Refuse.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"step '{self.name}' is a designer's and has no data: the client's samples stay with the client.")
