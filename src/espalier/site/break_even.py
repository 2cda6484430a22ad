"""The page of break-even rates: from which rate our sparse code beats the best dense engine, by structure, layer and threads.

The figures are those of ``benchmarks/compiler/break_even.py``, whose result file the wheel ships.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

RESULT = "break_even.json"
LEVELS = (1.0, 1.5, 2.5, 5.0)  # rates up to which a cell is tinted, the lower the deeper


def break_even_result() -> Mapping[str, Any]:
    """Return the entries of the shipped result, by name; none where there is no result yet."""
    packaged = Path(str(files("espalier"))) / "_benchmarks"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[3] / "benchmarks" / "compiler" / "results"
    path = folder / RESULT
    entries: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["entries"] if path.exists() else {}
    return entries


def break_even_context(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of entries: where they were measured, and a map for each number of threads."""
    origins = dict.fromkeys(_origin(entry) for entry in entries.values())
    structures = list(dict.fromkeys(name for entry in entries.values() for name in entry["structures"]))
    threads = dict.fromkeys(entry["num_threads"] for entry in entries.values())
    maps = [
        {
            "threads": number,
            "title": f"{number} thread{'s' if number > 1 else ''}",
            "rows": [_row(entry, structures) for entry in entries.values() if entry["num_threads"] == number],
        }
        for number in threads
    ]
    return {"origins": list(origins), "structures": structures, "maps": maps}


def _origin(entry: Mapping[str, Any]) -> str:
    installed = ", ".join(f"{name} {number}" for name, number in entry["versions"].items() if number)
    return f"{entry['device']}, {entry['started'][:10]}, {installed}"


def _row(entry: Mapping[str, Any], structures: list[str]) -> dict[str, Any]:
    best = entry["best_dense"]
    return {
        "layer": entry["layer"],
        "against": f"{best['name']}, {best['ms'] / entry['chain']:.3g} ms" if best else "no engine was timed",
        "machine": _machine(entry),
        "cells": [_cell(entry["structures"].get(name, {})) for name in structures],
    }


def _machine(entry: Mapping[str, Any]) -> str:
    """Return what was the matter with the machine during an entry."""
    others = entry["others_cpus"]
    busy = "load unknown" if others is None else f"{others:.2f}"
    return f"{busy}, CPUs moved" if entry["moved"] else busy


def _cell(found: Mapping[str, Any]) -> dict[str, str]:
    """Return a cell's words and its tint, which says no more than they do."""
    if "break_even" not in found:
        return {"text": "-", "tint": "", "value": "99"}
    rate = found["break_even"]
    if rate is None:
        return {"text": f"not up to {max(rate for rate, _ in found['points']):.2g}x", "tint": "", "value": "98"}
    level = next((number for number, most in enumerate(LEVELS) if rate <= most), len(LEVELS))
    return {"text": "any rate" if rate <= 1.0 else f"from {rate:.3g}x", "tint": f"t{len(LEVELS) - level}", "value": f"{rate:.4g}"}
