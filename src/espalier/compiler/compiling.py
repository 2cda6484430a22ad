"""From a network to native code: front, passes, program, C, library."""

import ctypes
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from espalier.compiler.ceilings import ceilings, known_ceilings
from espalier.compiler.defaults import float32_on_cpu
from espalier.compiler.emission import Emitted, emitted
from espalier.compiler.explaining import Explanation, explanation
from espalier.compiler.front import read_model
from espalier.compiler.graph import Graph
from espalier.compiler.isas import ISAS, Isa, detect
from espalier.compiler.missing import MissingOperatorsError
from espalier.compiler.passes import DENSE_PASSES, PASSES, optimised
from espalier.compiler.placing import check_one_sample
from espalier.compiler.program import Program, program
from espalier.compiler.reasons import Machine
from espalier.compiler.runtime.arrays import Array
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.emitted import WEIGHTS
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.probing import l2_bytes
from espalier.compiler.runtime.weights import write_weights
from espalier.compiler.tuning import BUDGET_S, Tuning, tuned
from espalier.constraints.assignment import Assignment
from espalier.devices import BUSY_CPUS, OthersCpus, check_threads

if TYPE_CHECKING:
    from espalier.compiler.hybrid import HybridNetwork

FALLBACKS = (None, "torch")
PROFILE = ("-DES_PROFILE",)
NUM_WARMUP = 3
SETTLE_S = 0.01  # of untimed runs: PyTorch's threads spin for 7 ms behind its operators, and take CPUs from ours


class CompiledNetwork:
    """A network as native code, called like a module, and the program it runs.

    Args:
        emitted: C files and constants.
        program: What they carry out.
        graph: The network as it was read, before any pass: what its outputs are held against.
        num_threads: Threads that run it.
        tuning: What tuning found; None where the rule chose.
        cache: Folder of compiled libraries; None takes the user's.
        console: Where progress is shown; None shows none.
    """

    hybrid = ""  # what about it is not native code: nothing

    def __init__(
        self,
        emitted: Emitted,
        program: Program,
        graph: Graph,
        *,
        num_threads: int,
        tuning: Tuning | None = None,
        cache: Path | None,
        console: Console | None,
    ) -> None:
        self.emitted, self.program, self.graph = emitted, program, graph
        self.num_threads, self.tuning, self.cache = num_threads, tuning, cache
        library = build(emitted.files, program.isa.name, cache=cache, console=console)
        self.native = CompiledModel(library, np.frombuffer(emitted.blob, np.uint8), num_threads=num_threads)

    @property
    def isa(self) -> str:
        """Return the instruction set it was compiled for."""
        return self.program.isa.name

    def __call__(self, *inputs: Array, out: Array | Sequence[Array] | None = None) -> Any:
        """Run the network; return its outputs as the model wraps them. ``CompiledModel`` says what it takes and raises."""
        results = self.native(*inputs, out=out)
        return results if self.graph.tree is None else tree_unflatten(results if isinstance(results, tuple) else [results], self.graph.tree)

    @property
    def tuned(self) -> bool:
        """Return whether a search, now or earlier, had a say in its kernels."""
        return self.tuning is not None and bool(self.tuning.found)

    def __repr__(self) -> str:
        return f"CompiledNetwork({len(self.program.steps)} kernels{', tuned' if self.tuned else ''}; {self.native!r})"

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

    def explain(self, *, num_runs: int = 0) -> Explanation:
        """Return a line for each kernel, in order; printed, they are a table.

        Args:
            num_runs: Runs over which each kernel is timed, in a build of its own, beside what this machine reaches, which is measured where
                nobody has; 0 measures nothing.
        """
        isa = self.program.isa.name
        others = OthersCpus()
        seconds = self._seconds(num_runs) if num_runs else None
        reached = (ceilings if num_runs else known_ceilings)(self.num_threads, isa, cache=self.cache)
        machine = Machine(self.num_threads, l2_bytes(), len(self.emitted.blob), reached)
        found = explanation(self.program, machine, self.tuning.found if self.tuning else {}, seconds)
        used = others.used() if num_runs else 0.0
        note = f"Other processes used {used:.1f} CPUs meanwhile: times and expectations are not this machine's own. Repeat it when idle."
        return replace(found, note=note) if used > BUSY_CPUS else found

    def _seconds(self, num_runs: int) -> list[float]:
        """Return the median time of each step."""
        library = build(self.emitted.files, self.program.isa.name, cache=self.cache, flags=PROFILE)
        blob = np.frombuffer(self.emitted.blob, np.uint8)
        with CompiledModel(library, blob, num_threads=self.num_threads) as timed:
            inputs = [torch.zeros(port.shape) for port in timed.info.inputs]
            summed = (ctypes.c_double * len(self.program.steps)).in_dll(timed.library.functions, "es_step_seconds")
            settled = time.monotonic() + SETTLE_S
            for _ in range(NUM_WARMUP):
                timed(*inputs)
            while time.monotonic() < settled:
                timed(*inputs)
            seen = [list(summed)]
            for _ in range(num_runs):
                timed(*inputs)
                seen.append(list(summed))
            return medians(seen)


def medians(sums: Sequence[Sequence[float]]) -> list[float]:
    """Return the median time of each step over runs, from what had added up before the first run and behind each."""
    runs = [[after - before for before, after in zip(*pair, strict=True)] for pair in itertools.pairwise(sums)]
    return [statistics.median(times) for times in zip(*runs, strict=True)]


@overload
def compile_model(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    num_threads: int = 1,
    isa: str | None = None,
    dense: bool = False,
    winograd: bool = True,
    frozen: Assignment | None = None,
    tune: bool = False,
    tune_budget_s: float = BUDGET_S,
    fallback: None = None,
    cache: Path | None = None,
    console: Console | None = None,
) -> CompiledNetwork: ...


@overload
def compile_model(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    num_threads: int = 1,
    isa: str | None = None,
    dense: bool = False,
    winograd: bool = True,
    frozen: Assignment | None = None,
    tune: bool = False,
    tune_budget_s: float = BUDGET_S,
    fallback: str | None,
    cache: Path | None = None,
    console: Console | None = None,
) -> "CompiledNetwork | HybridNetwork": ...


def compile_model(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    num_threads: int = 1,
    isa: str | None = None,
    dense: bool = False,
    winograd: bool = True,
    frozen: Assignment | None = None,
    tune: bool = False,
    tune_budget_s: float = BUDGET_S,
    fallback: str | None = None,
    cache: Path | None = None,
    console: Console | None = None,
) -> "CompiledNetwork | HybridNetwork":
    """Return ``model`` as native code for one sample.

    Args:
        model: A network, pruned or not; compiled as it computes in evaluation mode.
        example: Its argument, a batch of one; shapes hold for the compiled network.
        num_threads: Threads that run it, at most the cores that this process may use; what is exported takes its own when it runs.
        isa: A key of ``ISAS``; None takes the widest this CPU has.
        dense: Treat every weight as dense, the zeros that pruning left included.
        winograd: Let template W take dense 3x3 layers; without, F computes them, the same kernel as at any pruning rate.
            W spreads what is not finite within a tile: around a NaN or an infinity up to 4x4 results become NaN where PyTorch has fewer.
        frozen: The checkpoint's frozen sets; None detects masks from zeros.
        tune: Search for the fastest kernel of each layer on this machine, as ``tuning.tuned`` does; the rule chooses otherwise.
        tune_budget_s: Seconds after which the layers that are left keep the rule's kernels.
        fallback: ``torch`` leaves operators that the compiler lacks to PyTorch, which makes a ``HybridNetwork`` of a network that holds
            any; None refuses such a network.
        cache: Folder of compiled libraries, and of what tuning found; None takes ``ESPALIER_CACHE``, else the user's cache folder.
        console: Where progress is shown after two seconds; None shows none.

    Raises:
        MissingOperatorsError: It holds operators that the compiler lacks; all are listed.
        ValueError: An unknown ISA or fallback, more threads than cores, a model that cannot be exported, feature maps of several samples,
            an operator without a kernel for its shapes, a budget below 0, or no C compiler.
    """
    if isa is not None and isa not in ISAS:
        raise ValueError(f"isa={isa} is not known; there are {', '.join(ISAS)}.")
    check_threads(num_threads)
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback={fallback} is not known; there is {FALLBACKS[1]}, and None, which refuses what cannot be compiled.")
    target, begun = replace(ISAS[isa] if isa else detect(), winograd=winograd), time.monotonic()

    cache = None if cache is None else Path(cache)

    @float32_on_cpu()
    def native(graph: Graph) -> CompiledNetwork:
        made, tuning = _lowered(graph, target, dense=dense), None
        if tune:
            left_s = max(0.0, tune_budget_s - (time.monotonic() - begun)) if tune_budget_s >= 0 else tune_budget_s
            made, tuning = tuned(made, num_threads=num_threads, budget_s=left_s, cache=cache, console=console)
        return CompiledNetwork(emitted(made), made, graph, num_threads=num_threads, tuning=tuning, cache=cache, console=console)

    try:
        graph = read_model(model, example, frozen=frozen)
    except MissingOperatorsError:
        if fallback is None:
            raise
        from espalier.compiler.hybrid import with_torch  # noqa: PLC0415  which needs this module

        return with_torch(model, example, native, num_threads=num_threads, frozen=frozen)
    return native(graph)


def lowered_model(
    model: nn.Module, example: Tensor | tuple[Tensor, ...], *, isa: Isa, dense: bool = False, frozen: Assignment | None = None
) -> Program:
    """Return the program of ``model``; raises as ``compile_model`` does. Arguments as there."""
    return _lowered(read_model(model, example, frozen=frozen), isa, dense=dense)


@float32_on_cpu()
def _lowered(graph: Graph, isa: Isa, *, dense: bool) -> Program:
    check_one_sample(graph)
    if dense:
        graph = replace(graph, masks={}, structures={})
    return program(optimised(graph, passes=DENSE_PASSES if dense else PASSES), isa)
