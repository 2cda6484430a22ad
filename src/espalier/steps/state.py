"""State: what one step hands to the next, and how it is kept on disk."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from espalier.constraints import Assignment
from espalier.files import replacing, write_over
from espalier.rewrites import Rewrite, rewritten
from espalier.tasks.journal import Series


@dataclass
class State:
    """A network between two steps.

    Args:
        weights: The model's state dict; empty before the first step.
        frozen: Sets that hold from here on.
        metrics: Figures by the names of ``espalier.metrics``; a later step's replace an earlier one's.
        series: Figures by epoch: name -> ``[[progress/epoch, value], ...]``.
        epochs: Epochs that led here.
        rewrites: What changed the network that the config builds, in order; ``weights`` are those of the rewritten network.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    frozen: Assignment | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    series: Series = field(default_factory=dict)
    epochs: int = 0
    rewrites: list[Rewrite] = field(default_factory=list)

    def rebuilt(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Return the network of this state: built, rewritten, and filled; untrained where there are no weights yet."""
        model = rewritten(build(), self.rewrites)
        if self.weights:
            model.load_state_dict(self.weights)
        return model

    def extended(self, series: Series) -> Series:
        """Return this state's series with ``series`` appended name by name."""
        return {name: [*self.series.get(name, []), *series.get(name, [])] for name in {**self.series, **series}}

    def save(self, folder: Path) -> None:
        """Write ``state.safetensors``, then ``state.json``, whose presence says that the step is done.

        Raises:
            OSError: The folder cannot be written or the disk is full; no half file is left.
        """
        tensors = {f"weights/{name}": tensor.contiguous() for name, tensor in self.weights.items()}
        plain = {
            "metrics": self.metrics,
            "series": self.series,
            "epochs": self.epochs,
            "rewrites": [dict(rewrite) for rewrite in self.rewrites],
            "frozen": None if self.frozen is None else _outline(self.frozen.state_dict(), "frozen", tensors),
        }
        with replacing(folder / "state.safetensors") as temporary:
            save_file(tensors, temporary)
        write_over(folder / "state.json", json.dumps(plain))

    @classmethod
    def load(cls, folder: Path) -> "State":
        """Read what ``save`` wrote.

        Raises:
            ValueError: A file is damaged; the message names it.
        """
        try:
            plain = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            with safe_open(folder / "state.safetensors", framework="pt") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  no mapping
            frozen = None if plain["frozen"] is None else Assignment.frozen_from_state(_filled(plain["frozen"], tensors))
            weights = {name.removeprefix("weights/"): tensor for name, tensor in tensors.items() if name.startswith("weights/")}
            return cls(weights, frozen, plain["metrics"], plain["series"], plain["epochs"], plain.get("rewrites", []))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} holds a damaged step ({error!r}); delete that folder, the step is then done anew.") from error


def _outline(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` with its tensors moved to ``tensors`` and named in their place."""
    if isinstance(value, Tensor):
        tensors[path] = value.contiguous()
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {key: _outline(item, f"{path}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_outline(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _filled(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        return {key: _filled(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, tensors) for item in value]
    return value
