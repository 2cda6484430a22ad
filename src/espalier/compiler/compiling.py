"""From a network to native code: front, passes, program, C, library."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from espalier.compiler.emission import Emitted, emitted
from espalier.compiler.front import read_model
from espalier.compiler.isas import ISAS, Isa, detect
from espalier.compiler.passes import DENSE_PASSES, PASSES, optimised
from espalier.compiler.program import Program, program
from espalier.compiler.runtime.arrays import Array
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.emitted import WEIGHTS
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.weights import write_weights
from espalier.compiler.tuning import BUDGET_S, Tuning, tuned
from espalier.constraints.assignment import Assignment

PROFILE = ("-DES_PROFILE",)


@dataclass(frozen=True)
class Line:
    """What ``explain`` says of one kernel.

    Args:
        source: Module path it came from.
        op: Operator of the graph.
        shape: Its result.
        structure: What pruning left of its weight: a label, ``dense``, or nothing where it has none.
        template: Kernel template.
        detail: Its knobs.
        macs: Multiply-adds it carries out, stored zeros included.
        macs_dense: Those of the dense layer.
        microseconds: Measured time, barrier included; None where it was not measured.
    """

    source: str
    op: str
    shape: tuple[int, ...]
    structure: str
    template: str
    detail: str
    macs: int
    macs_dense: int
    microseconds: float | None = None

    @property
    def gflops(self) -> float | None:
        """Return 1e9 floating-point operations a second, two for a multiply-add; None where nothing was timed or multiplied."""
        return 2e-3 * self.macs / self.microseconds if self.microseconds and self.macs else None


class CompiledNetwork:
    """A network as native code, called like a module, and the program it runs.

    Args:
        emitted: C files and constants.
        program: What they carry out.
        num_threads: Threads that run it.
        tuning: What tuning found; None where the rule chose.
        cache: Folder of compiled libraries; None takes the user's.
        console: Where progress is shown; None shows none.
    """

    def __init__(
        self,
        emitted: Emitted,
        program: Program,
        *,
        num_threads: int,
        tuning: Tuning | None = None,
        cache: Path | None,
        console: Console | None,
    ) -> None:
        self.emitted, self.program, self.num_threads, self.tuning, self.cache = emitted, program, num_threads, tuning, cache
        library = build(emitted.files, program.isa.name, cache=cache, console=console)
        self.native = CompiledModel(library, np.frombuffer(emitted.blob, np.uint8), num_threads=num_threads)

    def __call__(self, *inputs: Array, out: Array | Sequence[Array] | None = None) -> Any:
        """Run the network; ``CompiledModel`` says what it takes and raises."""
        return self.native(*inputs, out=out)

    @property
    def tuned(self) -> bool:
        """Return whether a search, now or earlier, had a say in its kernels."""
        return self.tuning is not None and bool(self.tuning.found)

    def fork_join_ns(self) -> float:
        """Return how long handing work to all threads and waiting for them takes."""
        return self.native.fork_join_ns()

    def write(self, folder: Path) -> None:
        """Write its C files and weights to a folder, for ``CompiledModel.from_folder`` and ``espalier export``.

        Raises:
            OSError: It cannot be written, or the disk is full.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.emitted.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_weights(folder / WEIGHTS, np.frombuffer(self.emitted.blob, np.uint8))

    def close(self) -> None:
        """End its threads."""
        self.native.close()

    def __enter__(self) -> "CompiledNetwork":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def explain(self, *, num_runs: int = 0) -> list[Line]:
        """Return a line for each kernel, in order.

        Args:
            num_runs: Runs over which each kernel is timed, in a build of its own; 0 times nothing.
        """
        lines = [_line(self.program, number) for number in range(len(self.program.steps))]
        if not num_runs:
            return lines
        library = build(self.emitted.files, self.program.isa.name, cache=self.cache, flags=PROFILE)
        blob = np.frombuffer(self.emitted.blob, np.uint8)
        with CompiledModel(library, blob, num_threads=self.num_threads) as timed:
            inputs = [torch.zeros(port.shape) for port in timed.info.inputs]
            seconds = (ctypes.c_double * len(lines)).in_dll(timed.library.functions, "es_step_seconds")
            for _ in range(3):
                timed(*inputs)
            warm = list(seconds)
            for _ in range(num_runs):
                timed(*inputs)
            taken = [(after - before) / num_runs for before, after in zip(warm, seconds, strict=True)]
        return [replace(line, microseconds=1e6 * time) for line, time in zip(lines, taken, strict=True)]


def compile_model(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    num_threads: int = 1,
    isa: str | None = None,
    dense: bool = False,
    frozen: Assignment | None = None,
    tune: bool = False,
    tune_budget_s: float = BUDGET_S,
    cache: Path | None = None,
    console: Console | None = None,
) -> CompiledNetwork:
    """Return ``model`` as native code for one sample.

    Args:
        model: A network, pruned or not; compiled as it computes in evaluation mode.
        example: Its argument, a batch of one; shapes hold for the compiled network.
        num_threads: Threads that run it.
        isa: A key of ``ISAS``; None takes the widest this CPU has.
        dense: Treat every weight as dense, the zeros that pruning left included.
        frozen: The checkpoint's frozen sets; None detects masks from zeros.
        tune: Search for the fastest kernel of each layer on this machine, as ``tuning.tuned`` does; the rule chooses otherwise.
        tune_budget_s: Seconds after which the layers that are left keep the rule's kernels.
        cache: Folder of compiled libraries, and of what tuning found; None takes ``ESPALIER_CACHE``, else the user's cache folder.
        console: Where progress is shown after two seconds; None shows none.

    Raises:
        MissingOperatorsError: It holds operators that the compiler lacks; all are listed.
        ValueError: An unknown ISA, a model that cannot be exported, an operator without a kernel for its shapes, a budget below 0, or no C
            compiler.
    """
    if isa is not None and isa not in ISAS:
        raise ValueError(f"isa={isa} is not known; there are {', '.join(ISAS)}.")
    if num_threads < 1:
        raise ValueError(f"num_threads={num_threads} runs nothing; it starts at 1.")
    made, tuning = lowered_model(model, example, isa=ISAS[isa] if isa else detect(), dense=dense, frozen=frozen), None
    if tune:
        made, tuning = tuned(made, num_threads=num_threads, budget_s=tune_budget_s, cache=cache, console=console)
    return CompiledNetwork(emitted(made), made, num_threads=num_threads, tuning=tuning, cache=cache, console=console)


def lowered_model(
    model: nn.Module, example: Tensor | tuple[Tensor, ...], *, isa: Isa, dense: bool = False, frozen: Assignment | None = None
) -> Program:
    """Return the program of ``model``; raises as ``compile_model`` does. Arguments as there."""
    graph = read_model(model, example, frozen=frozen)
    if dense:
        graph = replace(graph, masks={}, structures={})
    return program(optimised(graph, passes=DENSE_PASSES if dense else PASSES), isa)


def _line(made: Program, number: int) -> Line:
    node, kernel = made.steps[number].node, made.steps[number].kernel
    key = node.constants.get("weight", "")
    multiplies = node.op in ("conv", "linear")
    structure = made.graph.structures.get(key, "dense") if multiplies else ""
    weight = made.graph.constants.get(key)
    positions = int(np.prod(node.shape[2:] if node.op == "conv" else node.shape[:-1], dtype=np.int64))
    macs_dense = weight.numel() * positions if multiplies and weight is not None else kernel.macs
    return Line(node.source, node.op, node.shape, structure, kernel.template, kernel.detail, kernel.macs, macs_dense)
