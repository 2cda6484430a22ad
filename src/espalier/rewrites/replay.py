"""Lists of rewrites: each an importable name with plain arguments, applied in order.

A checkpoint holds the weights of the rewritten network. To load it the untrained network is built, rewritten and then filled, so what a
rewrite does to the structure must follow from its arguments and the network's structure alone, not from the weights.
"""

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from hydra.utils import get_object
from torch import nn

Rewrite = Mapping[str, Any]  # {"_target_": "espalier.rewrites.fold_batch_norm", **arguments}


def rewritten(model: nn.Module, rewrites: Iterable[Rewrite]) -> nn.Module:
    """Return ``model`` with each rewrite applied in turn.

    Raises:
        ValueError: A rewrite does not exist, takes other arguments, or refuses the network.
    """
    for rewrite in rewrites:
        function = _function(str(rewrite.get("_target_")))
        arguments = {key: value for key, value in rewrite.items() if key != "_target_"}
        try:
            model = function(model, **arguments)
        except TypeError as error:
            raise ValueError(f"rewrite {rewrite['_target_']} cannot be called with {arguments}: {error}.") from error
    return model


def _function(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = [f"espalier.rewrites.{entry}" for entry in _shipped()]
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.3) or known
        raise ValueError(
            f"there is no rewrite '{name}'; nearest: {', '.join(near)}. A rewrite of your own is any importable function model -> model."
        ) from error


def _shipped() -> list[str]:
    """Return the names in ``espalier.rewrites`` that are rewrites: functions of a module that bears their name."""
    package = import_module("espalier.rewrites")
    return [name for name in package.__all__ if getattr(getattr(package, name), "__module__", "").endswith(f".{name}")]


def untrusted(config: Any, packages: tuple[str, ...]) -> list[str]:
    """Return the ``_target_`` of every part of a config, nested ones too, whose code lies outside ``packages`` (``timm.``).

    A name counts by where its code is defined: ``espalier.runner.subprocess.run`` is not espalier's. Nothing outside is imported.
    """
    if isinstance(config, Mapping):
        own = [str(config["_target_"])] if "_target_" in config and not _defined_in(str(config["_target_"]), packages) else []
        return own + [name for value in config.values() for name in untrusted(value, packages)]
    if isinstance(config, list | tuple):
        return [name for value in config for name in untrusted(value, packages)]
    return []


def _defined_in(name: str, packages: tuple[str, ...]) -> bool:
    try:
        return name.startswith(packages) and str(getattr(get_object(name), "__module__", "")).startswith(packages)
    except ImportError:
        return False
