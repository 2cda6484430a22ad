"""Measured on this machine's CPU: the network as native code of our own compiler, which skips what pruning took away."""

import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

from torch import Tensor, nn

from espalier.compiler import compile_model
from espalier.compiler.hybrid import LABEL as HYBRID
from espalier.compiler.tuning import BUDGET_S
from espalier.devices import cpu
from espalier.frames.machine import machine_lock
from espalier.record import Measurement

ENGINES = {False: "espalier-sparse", True: "espalier-dense"}


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

    def measure(self, model: nn.Module, example: Tensor, *, checkpoint: str, weights: Literal["trained", "random"]) -> Measurement:
        """Return p10, p50 and p90 of one forward pass.

        Args:
            model: The network; what is pruned is seen by its zeros.
            example: One sample, ``(1, ...)``.
            checkpoint: Digest of the weights.
            weights: Whether they are trained.

        Raises:
            ValueError: The compiler lacks an operator of the network, or the machine a C compiler.
        """
        with machine_lock() if self.tune else nullcontext():
            compiled = compile_model(
                model,
                example,
                num_threads=self.num_threads,
                isa=self.isa,
                dense=self.dense,
                tune=self.tune,
                tune_budget_s=self.tune_budget_s,
                fallback=self.fallback,
            )
        with compiled:
            words = (ENGINES[self.dense], compiled.isa, *([HYBRID] if compiled.hybrid else []), *(["tuned"] if compiled.tuned else []))
            engine = " ".join(words)
            out = compiled(example)
            with machine_lock():
                for _ in range(self.num_warmup):
                    compiled(example, out=out)
                times_ms = []
                for _ in range(self.num_runs):
                    start = time.perf_counter_ns()
                    compiled(example, out=out)
                    times_ms.append((time.perf_counter_ns() - start) / 1e6)
        cuts = statistics.quantiles(times_ms, n=10)
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
            metrics={"latency_ms_p10": cuts[0], "latency_ms_p50": statistics.median(times_ms), "latency_ms_p90": cuts[8]},
            versions={"espalier": version("espalier"), "torch": version("torch")},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
