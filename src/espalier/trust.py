"""Which code a checkpoint may name without being asked about: the models and rewrites of espalier, and timm."""

from collections.abc import Mapping
from typing import Any

from espalier.rewrites import untrusted

TRUSTED = ("espalier.models.", "timm.", "espalier.rewrites.")


def foreign(config: Any) -> list[str]:
    """Return the names in a checkpoint's model or rewrites for which ``espalier.load`` wants ``trust=True``.

    Args:
        config: ``{"_target_": ..., **arguments}``, a list of those, or None.
    """
    names = untrusted(config, TRUSTED)
    if isinstance(config, Mapping) and "target" in config:
        names.append(str(config["target"]))  # of model=python
    return names
