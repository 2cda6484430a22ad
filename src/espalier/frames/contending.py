"""Measured on this machine's CPU: several engines on one network, by turns, each checked before it is timed.

Whatever slows the machine for a while slows all of them. In a round each engine has one turn: passes that are not timed, until ``SETTLE_S``
have gone by, and one that is. The untimed ones bring its weights back into the caches, as they would be in a loop of its own, and outlast
the threads of the engine before, which spin for a while when their work is done and would take a CPU from it (that more than doubled
OpenVINO's median behind ONNX Runtime). Who goes first moves on from round to round.

A pass during which the kernel took a CPU away from one of this process's threads is slower for a reason that lies outside the engine:
a sample is dropped where it saw more involuntary context switches than the median pass of its engine, so that never more than half are.
On a quiet machine that median is 0 and every pass that was interrupted goes, but for engines whose threads wait by ``sched_yield`` (MNN),
which the kernel counts among them; theirs is some switches an operator. How many CPUs other processes used meanwhile is noted too.
"""

import gc
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from torch import Tensor

from espalier.devices import moved, others_cpu_s
from espalier.frames.cpu import threads
from espalier.frames.engines import Run
from espalier.frames.machine import machine_lock
from espalier.frames.percentiles import tenths
from espalier.progress import progress_bar

SETTLE_S = 0.05  # of untimed passes before a timed one; measured: ONNX Runtime's threads spin for 35 ms behind a pass, PyTorch's for 7
MIN_ROUNDS = 10  # whatever the budget: p10 and p90 need them, half of which may be dropped

Status = Literal["ok", "mismatch", "failed"]


@dataclass(frozen=True)
class Contestant:
    """An engine that a network was compiled with.

    Args:
        run: The compiled network.
        tolerance: Largest difference of an output, relative to the largest wanted, that its precision excuses.
        wanted: Its output for each input, where its weights are other ones than those of the contest; None takes the contest's.
    """

    run: Run
    tolerance: float
    wanted: Sequence[Tensor] | None = None


@dataclass(frozen=True)
class Sample:
    """One timed pass: milliseconds, and the involuntary context switches of the process meanwhile."""

    latency_ms: float
    switches: int


@dataclass(frozen=True)
class Outcome:
    """What came of one contestant.

    Args:
        status: ``ok``; ``mismatch`` where its outputs are wrong, ``failed`` where it raised: it is not timed then.
        reason: Why it is not ``ok``.
        max_rel_error: Largest difference of an output over the inputs, relative to the largest wanted.
        samples: Its timed passes, in order.
    """

    status: Status
    reason: str = ""
    max_rel_error: float | None = None
    samples: tuple[Sample, ...] = ()

    @property
    def switches_p50(self) -> float:
        """Return the median of the switches of a pass."""
        return statistics.median(sample.switches for sample in self.samples)

    @property
    def kept_ms(self) -> list[float]:
        """Return the times that count."""
        return [sample.latency_ms for sample in self.samples if sample.switches <= self.switches_p50]

    @property
    def latency_ms(self) -> tuple[float, float, float] | None:
        """Return p10, p50 and p90 of the times that count; None where it was not timed."""
        if not self.samples:
            return None
        return tenths(self.kept_ms)


@dataclass(frozen=True)
class Contention:
    """What a contest gave.

    Args:
        outcomes: Contestant -> what came of it.
        fork_join_ns: How long handing work to all threads and waiting for them took, before and after; None where nobody measured it.
        seconds: How long the rounds took.
        others_cpus: CPUs that other processes, and other guests of the machine below, used meanwhile; None where the kernel doesn't say.
    """

    outcomes: Mapping[str, Outcome]
    fork_join_ns: tuple[float, float] | None
    seconds: float
    others_cpus: float | None

    @property
    def moved(self) -> bool:
        """Return whether the machine's CPUs changed places meanwhile, as hypervisors do: the times before and after are of two machines."""
        return self.fork_join_ns is not None and moved(*self.fork_join_ns)


def check_effort(num_runs: int, budget_s: float) -> None:
    """Refuse too few passes or no time.

    Raises:
        ValueError: ``num_runs`` is below 10, or the budget is not above 0.
    """
    if num_runs < MIN_ROUNDS:
        raise ValueError(f"runs={num_runs}: percentiles need {MIN_ROUNDS} runs or more.")
    if not budget_s > 0:
        raise ValueError(f"budget_s={budget_s:g}: a contest needs time, such as budget_s=60.")


def contend(
    contestants: Mapping[str, Contestant],
    inputs: Sequence[Tensor],
    wanted: Sequence[Tensor],
    *,
    num_threads: int,
    num_runs: int,
    budget_s: float,
    fork_join: Callable[[], float] | None = None,
    console: Console | None = None,
) -> Contention:
    """Check every contestant on all inputs, then time those that are right on the first, by turns, with the machine to themselves.

    Args:
        contestants: Name -> compiled network.
        inputs: What it takes, at least one.
        wanted: The output for each input.
        num_threads: Threads PyTorch may use; the other engines were told when they compiled.
        num_runs: Rounds, at least 10.
        budget_s: Seconds after which no further round begins, once there have been ten.
        fork_join: Measures how many nanoseconds it takes to hand work to all threads and wait for them.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: ``num_runs`` is below 10, or the budget is not above 0.
    """
    check_effort(num_runs, budget_s)
    with machine_lock(), threads(num_threads):
        outcomes = {name: checked(one, inputs, wanted if one.wanted is None else one.wanted) for name, one in contestants.items()}
        right = {name: contestants[name].run for name, outcome in outcomes.items() if outcome.status == "ok"}
        before = None if fork_join is None else fork_join()
        start, busy_s = time.monotonic(), others_cpu_s()
        samples = _rounds(right, inputs[0], num_runs, budget_s, console)
        seconds, more_s = time.monotonic() - start, others_cpu_s()
        after = None if fork_join is None else fork_join()
    timed = {
        name: Outcome("ok", max_rel_error=outcome.max_rel_error, samples=tuple(samples[name])) if name in samples else outcome
        for name, outcome in outcomes.items()
    }
    others = None if busy_s is None or more_s is None or seconds == 0 else max(0.0, more_s - busy_s) / seconds
    return Contention(timed, None if before is None or after is None else (before, after), seconds, others)


def checked(contestant: Contestant, inputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Outcome:
    """Return whether a contestant's outputs are those wanted."""
    error = 0.0
    for x, right in zip(inputs, wanted, strict=True):
        try:
            output = contestant.run(x)
        except Exception as failure:  # noqa: BLE001  whatever a peer raises is shown as its reason
            return Outcome("failed", explained(failure))
        if output.shape != right.shape:
            return Outcome("mismatch", f"gives a tensor of shape {tuple(output.shape)}, PyTorch one of {tuple(right.shape)}")
        found = relative_error(output, right)
        error = found if math.isnan(found) else max(error, found)
        if not error <= contestant.tolerance:  # also where it is NaN
            reason = f"differs from PyTorch by {error:.1e} of the largest output, more than {contestant.tolerance:g}"
            return Outcome("mismatch", reason, error)
    return Outcome("ok", max_rel_error=error)


def relative_error(output: Tensor, wanted: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute value wanted."""
    largest = float(wanted.abs().max())
    return float((output.to(wanted.dtype) - wanted).abs().max()) / (largest if largest > 0 else 1.0)


def explained(failure: Exception) -> str:
    """Return an exception as one line."""
    lines = str(failure).strip().splitlines() or ["no message"]
    return f"{type(failure).__name__}: {lines[0][:300]}"


def _rounds(runs: Mapping[str, Run], x: Tensor, num_runs: int, budget_s: float, console: Console | None) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
    order = list(runs)
    if not order:
        return samples
    deadline = time.monotonic() + budget_s
    with progress_bar(console, "rounds", transient=True) as progress, _no_collection():
        bar = progress.add_task(f"timing {len(order)} engines", total=num_runs)
        for number in range(num_runs):
            if number >= MIN_ROUNDS and time.monotonic() > deadline:
                break
            for name in order:
                samples[name].append(_turn(runs[name], x))
            order = [*order[1:], order[0]]
            progress.advance(bar)
    return samples


def _turn(run: Run, x: Tensor) -> Sample:
    settled = time.monotonic() + SETTLE_S
    run(x)
    while time.monotonic() < settled:
        run(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    start = time.perf_counter_ns()
    run(x)
    elapsed_ns = time.perf_counter_ns() - start
    return Sample(elapsed_ns / 1e6, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector from running inside a timed pass."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
