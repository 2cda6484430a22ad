"""Golden files: figures kept as text, compared exactly on the kind of machine that wrote them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from espalier import devices

ELSEWHERE = 1e-3  # relative and absolute, for floats on another kind of machine


class Golden:
    """Figures of a small training kept as text: floats exact on the kind of machine that wrote them, integers exact everywhere.

    Args:
        folder: Where the files lie.
        write: Rewrite them instead of comparing.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.folder, self.write = folder, write

    def check(self, name: str, *, floats: Mapping[str, Sequence[float]], integers: Mapping[str, Sequence[int]]) -> None:
        """Compare with ``NAME.json``, or rewrite it; entries of other machines that the new figures contradict are dropped then."""
        path = self.folder / f"{name}.json"
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"integers": {}, "floats": {}}
        now = {key: list(values) for key, values in floats.items()}
        counts = {key: list(values) for key, values in integers.items()}
        if self.write:
            others = {machine: old for machine, old in kept["floats"].items() if counts == kept["integers"] and _near(now, old)}
            content = {"integers": counts, "floats": others | {machine_key(): now}}
            path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            return
        assert kept["floats"], f"{path.name} is missing or empty; write it with: pytest --golden-write"
        assert counts == kept["integers"]
        if machine_key() in kept["floats"]:
            assert now == kept["floats"][machine_key()]
        else:
            assert _near(now, next(iter(kept["floats"].values())))


def _near(now: Mapping[str, Sequence[float]], old: Mapping[str, Sequence[float]]) -> bool:
    if {key: len(values) for key, values in now.items()} != {key: len(values) for key, values in old.items()}:
        return False
    return all(values == pytest.approx(old[key], rel=ELSEWHERE, abs=ELSEWHERE) for key, values in now.items())


def machine_key() -> str:
    """Return what floats may depend on: instruction set, CPU model (libraries choose kernels by it), torch version."""
    torch_version = torch.__version__.partition("+")[0]
    return f"{torch.backends.cpu.get_cpu_capability()}, {devices.cpu().name}, torch {torch_version}"
