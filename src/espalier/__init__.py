"""espalier: fit neural networks to the frame of the hardware.

Python comes first: each verb of the shell is a thin layer over a function here.

- Papers and their tables: ``papers``, ``claims``, ``cells``, ``table`` (the same as a frame), ``layout`` (as the paper prints it),
  ``export``, ``plot``, ``report``, ``publish`` (to W&B), ``fetch``.
- Comparisons: ``compare`` (methods, constraints and rates on one's own network and data), ``compare_words`` (the words of a command line),
  ``outline_words`` (what these would do).
- Runs: ``run``, ``run_overrides`` (the words of a command line), ``runs``, ``records`` (a frame), ``find``, ``diff``, ``measure_runs``,
  ``import_measurement``, ``keep``, ``clean``; ``pack`` and ``unpack`` take them to another machine.
- Compiled networks: ``compile`` (native code that skips what pruning took away), ``export_c`` (as C that needs no Python).
- Engines: ``bench`` (our compiled code beside the best of others', on this machine), ``bench_words`` (the words of a command line).
- Settings: ``explain`` (what a key of the config means).
- Any network: ``prune``, ``shrink``, ``project``, ``frozen``, ``measure``, ``save``, ``load``, ``Structure``.

Importing espalier loads neither torch nor wandb, DVC or plotly; each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espalier.archiving import pack
    from espalier.asking import compare_words, outline_words
    from espalier.benching import bench, bench_words
    from espalier.comparing import compare
    from espalier.constraints import Structure
    from espalier.data.fetch import fetch
    from espalier.explaining import explain
    from espalier.exporting import export_c
    from espalier.filing import import_measurement
    from espalier.interface import frozen, load, measure, project, prune, save, shrink
    from espalier.inventory import cells, claims, diff, export, find, layout, papers, plot, records, report, runs, table
    from espalier.keeping import clean, keep
    from espalier.measuring import measure_runs
    from espalier.merging import unpack
    from espalier.native import compile  # noqa: A004
    from espalier.publishing import publish
    from espalier.running import run, run_overrides

HOMES = {
    "Structure": "espalier.constraints",
    "bench": "espalier.benching",
    "bench_words": "espalier.benching",
    "cells": "espalier.inventory",
    "claims": "espalier.inventory",
    "clean": "espalier.keeping",
    "compare": "espalier.comparing",
    "compare_words": "espalier.asking",
    "compile": "espalier.native",
    "diff": "espalier.inventory",
    "explain": "espalier.explaining",
    "export": "espalier.inventory",
    "export_c": "espalier.exporting",
    "fetch": "espalier.data.fetch",
    "find": "espalier.inventory",
    "frozen": "espalier.interface",
    "import_measurement": "espalier.filing",
    "keep": "espalier.keeping",
    "layout": "espalier.inventory",
    "load": "espalier.interface",
    "measure": "espalier.interface",
    "measure_runs": "espalier.measuring",
    "outline_words": "espalier.asking",
    "pack": "espalier.archiving",
    "papers": "espalier.inventory",
    "plot": "espalier.inventory",
    "project": "espalier.interface",
    "prune": "espalier.interface",
    "publish": "espalier.publishing",
    "records": "espalier.inventory",
    "report": "espalier.inventory",
    "run": "espalier.running",
    "run_overrides": "espalier.running",
    "runs": "espalier.inventory",
    "save": "espalier.interface",
    "shrink": "espalier.interface",
    "table": "espalier.inventory",
    "unpack": "espalier.merging",
}

__all__ = [
    "Structure",
    "bench",
    "bench_words",
    "cells",
    "claims",
    "clean",
    "compare",
    "compare_words",
    "compile",
    "diff",
    "explain",
    "export",
    "export_c",
    "fetch",
    "find",
    "frozen",
    "import_measurement",
    "keep",
    "layout",
    "load",
    "measure",
    "measure_runs",
    "outline_words",
    "pack",
    "papers",
    "plot",
    "project",
    "prune",
    "publish",
    "records",
    "report",
    "run",
    "run_overrides",
    "runs",
    "save",
    "shrink",
    "table",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"espalier has no '{name}'; it has {', '.join(sorted(HOMES))}.")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
