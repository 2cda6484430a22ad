"""What ``espalier bench`` gives: one entry an engine, and what follows from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from espalier.compiler import Explanation
from espalier.compiler.runtime.exporting import DENSE, SPARSE
from espalier.frames.contending import Outcome
from espalier.frames.roofline import Placement
from espalier.subjects import Subject

OURS = (DENSE, SPARSE)


@dataclass(frozen=True)
class Entry:
    """One engine's line.

    Args:
        engine: Its name.
        version: What is installed; None where nothing is.
        precision: What it is asked to compute in.
        latency_ms_p10: 10th percentile of one pass; None where it was not timed, as the two below.
        latency_ms_p50: Median of one pass.
        latency_ms_p90: 90th percentile of one pass.
        max_rel_error: Largest difference of an output from PyTorch's, over the largest of these; None where it gave none to compare.
        status: ``ok``; ``hybrid`` where PyTorch carries out a part of it; ``mismatch`` where outputs are wrong, ``failed`` where it
            raised, ``unavailable`` where it cannot run here or this.
        reason: Why it is not ``ok``.
        num_runs: Passes that count.
        num_dropped: Passes left out because the process was interrupted meanwhile.
        switches_p50: Median of the involuntary context switches of a pass, above which a pass is left out.
    """

    engine: str
    version: str | None
    precision: str
    latency_ms_p10: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p90: float | None = None
    max_rel_error: float | None = None
    status: Literal["ok", "hybrid", "mismatch", "failed", "unavailable"] = "ok"
    reason: str = ""
    num_runs: int = 0
    num_dropped: int = 0
    switches_p50: float | None = None

    @classmethod
    def of(cls, engine: str, version: str | None, precision: str, outcome: Outcome, *, hybrid: str = "") -> "Entry":
        """Return the line of an engine that took part in a contest; ``hybrid`` says which part PyTorch carried out, if any."""
        times = outcome.latency_ms
        if times is None:
            facts = {"max_rel_error": outcome.max_rel_error, "status": outcome.status, "reason": outcome.reason}
            return cls(engine, version, precision, **facts)  # type: ignore[arg-type]
        kept = len(outcome.kept_ms)
        counts = {"num_runs": kept, "num_dropped": len(outcome.samples) - kept, "switches_p50": outcome.switches_p50}
        entry = cls(engine, version, precision, *times, outcome.max_rel_error, **counts)  # type: ignore[arg-type]
        return replace(entry, status="hybrid", reason=hybrid) if hybrid else entry

    @property
    def title(self) -> str:
        """Return the engine's name as it is shown: a hybrid says so."""
        return f"{self.engine} ({self.status})" if self.status == "hybrid" else self.engine


@dataclass(frozen=True)
class Bench:
    """A network, and every engine's time on it.

    Args:
        subject: The network.
        rate: The rate asked, of the multiply-adds of the whole network; None where nothing was pruned here.
        num_threads: Threads of every engine.
        precision: Of those that are compared.
        tuned: Whether a search had a say in our code; otherwise a rule chose it.
        seed: Of random weights and masks.
        engines: One entry an engine.
        fork_join_ns: Handing work to all threads and waiting for them, before and after; None where it could not be measured.
        moved: Whether the threads' CPUs changed places meanwhile, so that the times are of two machines.
        others_cpus: CPUs that other processes used meanwhile; None where the kernel doesn't say.
        roofline: Layer -> where it lies; None where the roof is not known.
        device: The CPU.
        versions: Package -> version.
        started: When, ISO 8601, UTC.
        layers: Each kernel of our sparse code, timed in a build of its own, and what holds it back; None where nobody asked.
    """

    subject: Subject
    rate: float | None
    num_threads: int
    precision: str
    tuned: bool
    seed: int
    engines: tuple[Entry, ...]
    fork_join_ns: tuple[float, float] | None
    moved: bool
    others_cpus: float | None
    roofline: Mapping[str, Placement] | None
    device: str
    versions: Mapping[str, str]
    started: str
    layers: Explanation | None = None

    def entry(self, engine: str | None) -> Entry | None:
        """Return an engine's line; None where it took no part."""
        return next((entry for entry in self.engines if entry.engine == engine), None)

    @property
    def hybrid(self) -> bool:
        """Return whether PyTorch carried out a part of what our sparse code was timed on."""
        return (sparse := self.entry(SPARSE)) is not None and sparse.status == "hybrid"

    @property
    def best_dense_peer(self) -> str | None:
        """Return the fastest of the others' engines that computes in the asked precision; None where none was timed."""
        times = {
            entry.engine: entry.latency_ms_p50
            for entry in self.engines
            if entry.latency_ms_p50 is not None and entry.engine not in OURS and entry.precision == self.precision
        }
        return min(times, key=times.__getitem__) if times else None

    @property
    def ratio_to_best_dense_peer(self) -> float | None:
        """Return the median of the best dense peer over that of our sparse code: above 1 ours is faster."""
        return self.gain(self.best_dense_peer)

    @property
    def realised_share(self) -> float | None:
        """Return the share of the rate that became speed: (our dense code / our sparse code) / ``rate_macs``, of medians.

        None where one was not timed, or PyTorch carried out a part, which no rate speeds up.
        """
        gain = self.gain(DENSE)
        return None if gain is None or self.hybrid else gain / self.subject.rate_macs

    def gain(self, engine: str | None) -> float | None:
        """Return the median of an engine over that of our sparse code; None where one was not timed, or computes in another precision."""
        slow, fast = (
            None if entry is None or entry.precision != self.precision else entry.latency_ms_p50
            for entry in (self.entry(engine), self.entry(SPARSE))
        )
        return None if slow is None or fast is None else slow / fast

    @property
    def timed(self) -> tuple[Entry, ...]:
        """Return the engines that have a time."""
        return tuple(entry for entry in self.engines if entry.latency_ms_p50 is not None)

    @property
    def failure(self) -> str | None:
        """Return why a program must not take the benchmark for one: nothing was timed, or our own code is wrong or broke; else None."""
        reasons = {entry.engine: f"{entry.engine} {entry.status}: {entry.reason}" for entry in self.engines if entry.reason}
        if not self.timed:
            return f"no engine was timed: {'; '.join(reasons.values())}"
        wrong = [reasons[entry.engine] for entry in self.engines if entry.engine in OURS and entry.status in ("failed", "mismatch")]
        return f"our own code is at fault: {'; '.join(wrong)}" if wrong else None

    @property
    def threads(self) -> str:
        """Return how many threads every engine had, in words."""
        return f"{self.num_threads} thread{'s' * (self.num_threads != 1)}"

    @property
    def memory_bound_share(self) -> float | None:
        """Return the share of the least possible time that layers bound by memory take; None where the roof is not known."""
        if not self.roofline:
            return None
        bound = sum(layer.least_ms for layer in self.roofline.values() if layer.bound == "memory")
        return bound / sum(layer.least_ms for layer in self.roofline.values())

    def plot(self, to: Path) -> Path:
        """Draw the times to a file; see ``espalier.bench_chart.chart``."""
        from espalier.bench_chart import chart  # noqa: PLC0415  which needs this module

        return chart(self, to)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        subject = self.subject
        return {
            "model": subject.name,
            "weights": subject.weights,
            "constraint": list(subject.constraint),
            "group": subject.group,
            "split": subject.split,
            "rate": self.rate,
            "rate_macs": subject.rate_macs,
            "macs": subject.macs,
            "macs_effective": subject.macs_effective,
            "input_shape": list(subject.inputs[0].shape),
            "num_threads": self.num_threads,
            "precision": self.precision,
            "tuned": self.tuned,
            "hybrid": self.hybrid,
            "seed": self.seed,
            "best_dense_peer": self.best_dense_peer,
            "ratio_to_best_dense_peer": self.ratio_to_best_dense_peer,
            "realised_share": self.realised_share,
            "engines": [asdict(entry) for entry in self.engines],
            "fork_join_ns": None if self.fork_join_ns is None else list(self.fork_join_ns),
            "moved": self.moved,
            "others_cpus": self.others_cpus,
            "roofline": None if self.roofline is None else {layer: asdict(one) for layer, one in self.roofline.items()},
            "layers": None if self.layers is None else self.layers.as_json(),
            "device": self.device,
            "versions": dict(self.versions),
            "started": self.started,
        }
