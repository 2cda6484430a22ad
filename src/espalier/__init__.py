"""espalier: fit neural networks to the frame of the hardware.

Python comes first: ``espalier.run``, ``espalier.records`` and ``espalier.table`` do what the shell's verbs do. Importing espalier loads
neither torch nor wandb, DVC or plotly; each name is imported when it is first used.
"""

from importlib import import_module
from typing import Any

HOMES = {
    "run": "espalier.running",
    "records": "espalier.interface",
    "table": "espalier.interface",
    "prune": "espalier.interface",
    "project": "espalier.interface",
    "measure": "espalier.interface",
    "save": "espalier.interface",
    "load": "espalier.interface",
    "frozen": "espalier.interface",
    "Structure": "espalier.constraints",
}

__all__ = ["Structure", "frozen", "load", "measure", "project", "prune", "records", "run", "save", "table"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"espalier has no '{name}'; it has {', '.join(sorted(HOMES))}.")
    return getattr(import_module(HOMES[name]), name)
