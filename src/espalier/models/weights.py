"""Weights from a file of the user's into a network that has been built."""

import hashlib
import logging
import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training scripts keep a state dict
SHOWN = 3  # names in a message


def file_digest(path: str | Path | None) -> str | None:
    """Return the SHA-256 of a file; None for None. A file that looks the same (place, size, time of change) is read once a process.

    Raises:
        ValueError: There is no such file.
    """
    if path is None:
        return None
    if not Path(path).is_file():
        raise ValueError(f"model.checkpoint={path}: there is no such file; name a .safetensors file or a state dict that torch.save wrote.")
    stat = Path(path).stat()
    return _digest(Path(path).absolute(), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, *stamp: int) -> str:  # noqa: ARG001 (a changed file has another stamp)
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def fill(model: nn.Module, path: str | Path, sha256: str | None) -> None:
    """Fill ``model`` with the weights of a file; a head of other shape keeps its random weights, and a warning says so.

    Args:
        model: The network.
        path: A safetensors file, or a state dict that ``torch.save`` wrote, plain or under ``state_dict`` or ``model``.
        sha256: What the file's digest was when the run was planned; None checks nothing.

    Raises:
        ValueError: The file is missing, holds no weights, has changed, or does not fit.
    """
    if sha256 is not None and (found := file_digest(path)) != sha256:
        raise ValueError(f"{path} has changed since the run was planned ({found} now, {sha256} then); give the command again.")
    weights, own = _read(Path(path)), model.state_dict()
    head = _head(model)
    resized = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    lacking = [name for name in own if name not in weights and not name.endswith(".num_batches_tracked")]  # which old files lack
    unknown = [name for name in weights if name not in own]
    dropped = [name for name in own if name in resized or (head and name in lacking and name.startswith(head))]
    if wrong := [name for name in dropped if not head or not name.startswith(head)]:
        shapes = f"{tuple(weights[wrong[0]].shape)} in the file, {tuple(own[wrong[0]].shape)} in the network"
        raise ValueError(f"{path} does not fit {type(model).__name__}: {wrong[0]} is {shapes}; only the head ({head}*) may differ.")
    if rest := [name for name in lacking if name not in dropped] or unknown:
        what = "lacks" if rest[0] in lacking else "also holds"
        raise ValueError(f"{path} does not fit {type(model).__name__}: it {what} {', '.join(rest[:SHOWN])}{', ...' * (len(rest) > SHOWN)}.")
    model.load_state_dict({name: weight for name, weight in weights.items() if name not in dropped}, strict=False)
    if dropped:
        logging.getLogger(__name__).warning(
            "%s: the head (%s) is for other classes and is left out; the network's own starts untrained", path, ", ".join(dropped)
        )


def _head(model: nn.Module) -> str:
    """Return how the names of the head's weights begin: those of the linear layer that the model registers last; empty without one."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return f"{layers[-1]}." if layers and layers[-1] else ""


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"there is no {path}; name a .safetensors file or a state dict that torch.save wrote.")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} holds no weights that can be read without running code from it: {str(error).splitlines()[0]}") from error
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict; save one with torch.save(model.state_dict(), ...) or safetensors.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}
