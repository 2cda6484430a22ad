"""Time of one projection of every layer of ResNet-50 (25.5 M weights, drawn at random), set by set; the aim is 1.5 s on 2 cores.

Run by hand: ``python benchmarks/projection.py [threads] [rounds]``. Sets take turns within a round and the median over the rounds is shown,
so that a slow minute does not fall on one set alone; CPU seconds add up the threads and hold on a busy machine as well.
"""

import platform
import statistics
import sys
import time
from functools import partial

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from espalier.constraints import (
    NM,
    STRUCTURES,
    UNSTRUCTURED,
    Assignment,
    BalancedKernels,
    Budget,
    FilterColumn,
    GlobalSparse,
    PatternKernels,
    Patterns,
    Sparse,
    assign,
)


def sets(model: nn.Module) -> dict[str, Assignment]:
    """Return the assignments to time, rate 4 where there is one."""
    ones = dict.fromkeys((name.removesuffix(".weight") for name, weight in model.named_parameters() if weight.ndim > 1), 1.0)
    found = {f"Sparse {name}": assign(model, partial(Sparse, entry), rate=4) for name, entry in STRUCTURES.items()}
    found["NM 2:4"] = assign(model, partial(NM, 2, 4))
    found["NM 4:8"] = assign(model, partial(NM, 4, 8), skip=["first_conv"])
    found["BalancedKernels"] = assign(model, BalancedKernels, rate=4)
    for name in ("std8", "all126"):
        found[f"Patterns {name}"] = assign(model, partial(Patterns, name), include=["conv3x3"])
    found["PatternKernels std8"] = assign(model, PatternKernels, rate=2, include=["conv3x3"])
    found["FilterColumn"] = assign(model, FilterColumn, rate=4)
    found["GlobalSparse unstructured"] = assign(model, partial(GlobalSparse, UNSTRUCTURED), rate=4)
    found["Budget unstructured"] = assign(model, partial(Budget, UNSTRUCTURED), rate=4, rate_of="macs", costs=ones)
    return found


def main(threads: int = 2, rounds: int = 5) -> None:
    """Time every set and write the table."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = timm.create_model("resnet50")
    assignments = sets(model)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in assignments}
    for _ in range(rounds + 1):  # the first fills caches
        for name, assignment in assignments.items():
            weights = assignment.read(model)
            wall, cpu = time.perf_counter(), time.process_time()
            assignment.project(weights)
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    title = f"torch {torch.__version__}, {threads} threads, median of {rounds}, {platform.machine()}, {time.strftime('%Y-%m-%d')}"
    table = Table("set", "weights [M]", "median [s]", "min [s]", "median [CPU s]", title=title)
    for name, assignment in assignments.items():
        millions = sum(weight.numel() for weight in assignment.read(model).values()) / 1e6
        wall, cpu = zip(*seconds[name][1:], strict=True)
        table.add_row(name, f"{millions:.1f}", f"{statistics.median(wall):.3f}", f"{min(wall):.3f}", f"{statistics.median(cpu):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
