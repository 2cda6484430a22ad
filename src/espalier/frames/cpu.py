"""Measured on this machine's CPU: the eager forward pass."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment
from espalier.devices import cpu
from espalier.frames.machine import machine_lock
from espalier.frames.percentiles import latencies
from espalier.record import Measurement, Weights


@dataclass(frozen=True)
class Cpu:
    """Time the eager fp32 forward pass.

    Args:
        num_threads: Threads PyTorch may use, at least 1.
        batch_size: Samples a pass, at least 1.
        num_warmup: Passes before the clock runs.
        num_runs: Passes timed one by one.
    """

    num_threads: int
    batch_size: int
    num_warmup: int
    num_runs: int

    def __post_init__(self) -> None:
        if min(self.num_threads, self.batch_size) < 1 or self.num_warmup < 0 or self.num_runs < 2:
            raise ValueError(f"{self} cannot time anything: threads and batch start at 1, num_warmup at 0, num_runs at 2 (percentiles).")

    def measure(
        self,
        model: nn.Module,
        example: Tensor,
        *,
        checkpoint: str,
        weights: Weights,
        frozen: Assignment | None = None,  # noqa: ARG002  all frames are asked alike
    ) -> Measurement:
        """Return p10, p50 and p90 of one forward pass.

        Args:
            model: The network; put into evaluation mode for the timing.
            example: One sample, ``(1, ...)``; repeated to the batch.
            checkpoint: Digest of the weights.
            weights: Whether they are trained.
            frozen: The sets that they lie in: no matter here, where zeros take their time like other weights.
        """
        batch = example.repeat(self.batch_size, *[1] * (example.ndim - 1))
        training = model.training
        model.eval()
        with machine_lock(), threads(self.num_threads), torch.inference_mode():
            for _ in range(self.num_warmup):
                model(batch)
            times_ms = []
            for _ in range(self.num_runs):
                start = time.perf_counter_ns()
                model(batch)
                times_ms.append((time.perf_counter_ns() - start) / 1e6)
        model.train(training)
        return Measurement(
            checkpoint=checkpoint,
            weights=weights,
            frame="cpu",
            kind="measured",
            engine="pytorch-eager",
            device=cpu().name,
            precision="fp32",
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            num_warmup=self.num_warmup,
            num_runs=self.num_runs,
            metrics=latencies(times_ms),
            versions={"torch": version("torch")},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def interleaved(models: Sequence[nn.Module], batch: Tensor, *, num_warmup: int, num_runs: int) -> list[float]:
    """Return the median time of a forward pass of each model in ms, one thread, passes taken in turn: what slows one slows the others.

    Args:
        models: Networks in evaluation mode.
        batch: What they take.
        num_warmup: Passes of each before the clock runs.
        num_runs: Passes of each timed one by one.
    """
    times_ms: list[list[float]] = [[] for _ in models]
    with machine_lock(), threads(1), torch.inference_mode():
        for number in range(num_warmup + num_runs):
            for model, taken in zip(models, times_ms, strict=True):
                start = time.perf_counter_ns()
                model(batch)
                if number >= num_warmup:
                    taken.append((time.perf_counter_ns() - start) / 1e6)
    return [statistics.median(taken) for taken in times_ms]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use that many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
