"""Measured on this machine's CPU: the network as native code of our own compiler, which skips what pruning took away."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from espalier.compiler import compile_model
from espalier.compiler.hybrid import LABEL as HYBRID
from espalier.compiler.runtime.exporting import DENSE, SPARSE
from espalier.compiler.runtime.toolchain import compiler
from espalier.compiler.tuning import BUDGET_S
from espalier.constraints import Assignment
from espalier.devices import cpu
from espalier.frames.contending import Contestant, checked
from espalier.frames.engines import TOLERANCES
from espalier.frames.machine import machine_lock
from espalier.frames.percentiles import latencies
from espalier.record import Measurement, Weights

SEED = 0  # of the input that outputs are compared for, and that is timed
ENGINES = {False: SPARSE, True: DENSE}


@dataclass(frozen=True)
class CompiledCpu:
    """Time the compiled fp32 forward pass of one sample.

    Args:
        num_threads: Threads that run the network, at least 1.
        batch_size: 1: networks are compiled for one sample.
        num_warmup: Passes before the clock runs.
        num_runs: Passes timed one by one.
        isa: Instruction set, a key of ``espalier.compiler.isas.ISAS``; None takes the widest this CPU has.
        dense: Compile zeros like other weights: what the same generator makes of the network without its masks.
        tune: Search for the fastest kernel of each layer first; a rule chooses otherwise.
        tune_budget_s: Seconds after which the layers that are left keep the rule's kernels.
        fallback: ``torch`` leaves operators that the compiler lacks to PyTorch, and the record's engine is marked as a hybrid; None
            refuses networks with any.
    """

    num_threads: int
    batch_size: int
    num_warmup: int
    num_runs: int
    isa: str | None = None
    dense: bool = False
    tune: bool = False
    tune_budget_s: float = BUDGET_S
    fallback: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size != 1:
            raise ValueError(f"batch_size={self.batch_size}: networks are compiled for one sample; frame=cpu times larger batches.")
        if self.num_threads < 1 or self.num_warmup < 0 or self.num_runs < 2:
            raise ValueError(f"{self} cannot time anything: threads start at 1, num_warmup at 0, num_runs at 2 (percentiles).")

    def measure(
        self, model: nn.Module, example: Tensor, *, checkpoint: str, weights: Weights, frozen: Assignment | None = None
    ) -> Measurement:
        """Return p10, p50 and p90 of one forward pass, and how far its outputs are from PyTorch's.

        Args:
            model: The network; compiled as it computes in evaluation mode.
            example: One sample, ``(1, ...)``; its shape counts, its values are drawn.
            checkpoint: Digest of the weights.
            weights: Whether they are trained.
            frozen: The sets that they lie in; None takes masks from the zeros.

        Raises:
            ValueError: The compiler lacks an operator of the network, the machine a C compiler, or outputs are not PyTorch's.
        """
        with machine_lock() if self.tune else nullcontext():
            compiled = compile_model(
                model,
                example,
                num_threads=self.num_threads,
                isa=self.isa,
                dense=self.dense,
                frozen=frozen,
                tune=self.tune,
                tune_budget_s=self.tune_budget_s,
                fallback=self.fallback,
            )
        with compiled:
            words = (ENGINES[self.dense], compiled.isa, *([HYBRID] if compiled.hybrid else []), *(["tuned"] if compiled.tuned else []))
            engine = " ".join(words)
            x = torch.randn(example.shape, generator=torch.Generator().manual_seed(SEED))
            found = compiled(x)
            error, out = _error(model, x, found), tree_leaves(found)
            with machine_lock():
                for _ in range(self.num_warmup):
                    compiled(x, out=out)
                times_ms = []
                for _ in range(self.num_runs):
                    start = time.perf_counter_ns()
                    compiled(x, out=out)
                    times_ms.append((time.perf_counter_ns() - start) / 1e6)
        return Measurement(
            checkpoint=checkpoint,
            weights=weights,
            frame="compiled_cpu",
            kind="measured",
            engine=engine,
            device=cpu().name,
            precision="fp32",
            batch_size=1,
            num_threads=self.num_threads,
            num_warmup=self.num_warmup,
            num_runs=self.num_runs,
            metrics={**latencies(times_ms), "max_rel_error": error},
            versions={"espalier": version("espalier"), "torch": version("torch"), "cc": compiler().version},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )


@torch.inference_mode()
def _error(model: nn.Module, x: Tensor, found: Any) -> float:
    """Return the largest error of the outputs for ``x``; raise ``ValueError`` where it is more than rounding."""
    training = model.training
    wanted = model.eval()(x)
    model.train(training)
    outputs, rights = tree_leaves(found), tree_leaves(wanted)
    errors = []
    for output, right in zip(outputs, rights, strict=True):
        outcome = checked(Contestant(lambda _, output=output: output, TOLERANCES["fp32"]), [x], [right])  # type: ignore[misc]
        if outcome.status != "ok" or outcome.max_rel_error is None:
            raise ValueError(
                f"the native code {outcome.reason}: it is not timed. Time {type(model).__name__} with frame=cpu, and report its layers."
            )
        errors.append(outcome.max_rel_error)
    return max(errors)
