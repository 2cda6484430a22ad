"""A run's turns at the machine: it has a share while it trains, and lets go of it at each epoch's end.

A step's epochs begin after its data set is asked for batches (or, by a designer, for its form), under the step's lock; the share is first
taken there, and given up for good after the step's last epoch, so that nobody holds one who waits for a step that another process trains.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from espalier.data import ImageData
from espalier.frames.machine import SHARE


class Turns:
    """The turns of one run.

    Args:
        config: Its resolved config.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.epochs = [step.get("epochs", 0) for step in config["recipe"]["steps"].values()]
        self.seen: Counter[int] = Counter()

    def watched(self, data: ImageData) -> ImageData:
        """Return the data set; whoever asks it for something to train on takes a share."""
        return cast("ImageData", _Watched(data))

    def on_epoch(self, progress: int, figures: Mapping[str, float]) -> None:
        """Let go at an epoch's end; take a share again where the step has another epoch."""
        del progress
        step = int(figures["progress/step"])
        self.seen[step] += 1
        if SHARE.held:
            SHARE.give_up()
            if self.seen[step] < self.epochs[step]:
                SHARE.take()


class _Watched:
    """A data set as it is, but for what training begins with."""

    def __init__(self, data: ImageData) -> None:
        self._data = data

    def __getattr__(self, name: str) -> Any:
        if name in ("train_loader", "format"):
            SHARE.take()
        return getattr(self._data, name)
