"""The fastest kernel of one layer, by trying: candidates are checked against the rule's kernel, and timed beside it by turns.

Medians. A few samples of every candidate say which are worth more; then the best of them and the rule's kernel take turns,
and one displaces the rule only by a margin above noise: every comparison of two samples taken one after the other counts as one vote.
"""

import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np

from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.templates import TEMPLATES, Way, first_ways, lowered_by, near_ways
from espalier.compiler.runtime.toolchain import BuildError
from espalier.compiler.trials import MOST_REPEATS, Trial

LOG = logging.getLogger(__name__)
SAMPLE_S = 1e-3  # of calls behind each sample
FEW, MANY = 5, 21  # samples of a candidate, and of those that meet the rule's kernel
FINALISTS = 3
MARGIN = 1.03  # median speed-up from which a candidate displaces the rule
VOTES = 0.75  # share of its comparisons that it must win
TOLERANCE = 1e-4  # of the largest output
LONGEST_US = 1e12  # of a layer; what a file has beyond is no time


@dataclass(frozen=True)
class Tuned:
    """What trying gave for one layer.

    Args:
        way: The fastest; None where the rule's choice stays.
        rule_us: Microseconds of the rule's kernel, the layer alone.
        best_us: Those of the fastest; the rule's own where it stays.
        num_tried: Kernels that were timed, the rule's among them.
    """

    way: Way | None
    rule_us: float
    best_us: float
    num_tried: int

    @property
    def gain(self) -> float:
        """Return how many times as fast as the rule's kernel the layer is now."""
        return self.rule_us / self.best_us

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Tuned":
        """Return what ``as_json`` gave; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        way = None if values["way"] is None else Way(values["way"]["template"], dict(values["way"]["knobs"]))
        if way is not None and not isinstance(way.template, str):
            raise TypeError(f"template={way.template!r} is no name")
        rule_us, best_us, num_tried = (values[name] for name in ("rule_us", "best_us", "num_tried"))
        for name, us in {"rule_us": rule_us, "best_us": best_us}.items():
            if type(us) not in (int, float) or not 0 < us < LONGEST_US:
                raise ValueError(f"{name}={us!r} is no time")
        if type(num_tried) is not int or num_tried < 1:
            raise ValueError(f"num_tried={num_tried!r} is no number of kernels")
        return cls(way, float(rule_us), float(best_us), num_tried)


@dataclass(frozen=True)
class Candidate:
    """A kernel to try; ``way`` is None for one of a template that nobody can ask for by its knobs."""

    way: Way | None
    kernel: Kernel


def searched(site: Site, rule: Kernel, *, num_threads: int, other_bytes: int, deadline: float) -> Tuned | None:
    """Return what trying gives for a layer; None where the rule's kernel stays untried.

    That is where there is nothing to choose, and, with a warning, where a candidate does not compile or outputs are no finite numbers.

    Args:
        site: The layer.
        rule: Its kernel by the rule.
        num_threads: Threads that run it.
        other_bytes: What passes through each thread's caches before each call, as in ``Trial``.
        deadline: On the monotonic clock; behind it no second round of candidates is compiled.
    """
    field = [Candidate(way_of(rule), rule), *_lowered(site, first_ways(site))]
    field = _distinct(field)
    if len(field) < 2:
        return None
    try:
        with Trial(site, [one.kernel for one in field], num_threads=num_threads, other_bytes=other_bytes) as trial:
            order = _qualified(trial, site)
            if not order:
                return None
            best = field[order[0]].way
            near = _lowered(site, near_ways(site, best)) if best is not None and time.monotonic() < deadline else []
            met = _distinct([field[0], *(field[number] for number in order[:FINALISTS])])
            second = _distinct([*met, *near])
            new = len(second) - len(met)
            if not new:
                return _decided(trial, field, order, num_tried=len(field))
        with Trial(site, [one.kernel for one in second], num_threads=num_threads, other_bytes=other_bytes) as trial:
            order = _qualified(trial, site)
            return _decided(trial, second, order, num_tried=len(field) + new) if order else None
    except BuildError as error:
        LOG.warning("%s keeps the rule's kernel: what was to be tried does not compile. %s", site.node.source or site.node.name, error)
        return None


def way_of(kernel: Kernel) -> Way | None:
    """Return the way that a kernel was lowered; None where its template has no knobs to ask for."""
    choice = kernel.choice
    known = kernel.template in TEMPLATES and is_dataclass(choice) and not isinstance(choice, type)
    return Way(kernel.template, asdict(choice)) if known else None  # type: ignore[call-overload]


def _lowered(site: Site, ways: Sequence[Way]) -> list[Candidate]:
    return [Candidate(way, lowered_by(site, way)) for way in ways]


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates whose C differs, the first of each kind, in their order."""
    first: dict[str, Candidate] = {}
    for one in candidates:
        first.setdefault(one.kernel.source, one)
    return list(first.values())


def _qualified(trial: Trial, site: Site) -> list[int]:
    """Return the numbers of the candidates that are right, the fastest first; none, with a warning, where nothing can be held to be."""
    wanted = trial.output(0)
    if not np.isfinite(wanted).all():
        LOG.warning("%s keeps the rule's kernel: its outputs are no finite numbers, see its weights.", site.node.source or site.node.name)
        return []
    largest = float(np.abs(wanted).max()) or 1.0
    right = []
    for number in range(len(trial.kernels)):
        error = float(np.abs(trial.output(number) - wanted).max()) / largest
        if error <= TOLERANCE:  # never where it is NaN
            right.append(number)
        else:
            LOG.warning(
                "%s of %s differs from the rule's kernel by %.1e of the largest output: not timed.",
                trial.kernels[number].detail, site.node.source or site.node.name, error,
            )  # fmt: skip
    times = _samples(trial, right, FEW)
    return sorted(right, key=lambda number: statistics.median(times[number]))


def _decided(trial: Trial, field: Sequence[Candidate], order: Sequence[int], *, num_tried: int) -> Tuned:
    """Return which of the best candidates displaces the rule's, candidate 0, if any does."""
    finalists = [number for number in order[: FINALISTS + 1] if number][:FINALISTS]
    times = _samples(trial, [0, *finalists], MANY)
    rule_us = 1e6 * statistics.median(times[0])
    best: tuple[float, int] | None = None
    for number in finalists:
        ratios = [rule / own for rule, own in zip(times[0], times[number], strict=True)]
        gain = statistics.median(ratios)
        won = sum(ratio > 1 for ratio in ratios) / len(ratios)
        if gain >= MARGIN and won >= VOTES and field[number].way is not None and (best is None or gain > best[0]):
            best = gain, number
    if best is None:
        return Tuned(None, rule_us, rule_us, num_tried)
    return Tuned(field[best[1]].way, rule_us, rule_us / best[0], num_tried)


def _samples(trial: Trial, numbers: Sequence[int], count: int) -> dict[int, list[float]]:
    """Return seconds of a call, so many samples of each candidate, taken by turns; who goes first moves on."""
    repeats = {number: _repeats(trial.seconds(number, 1)) for number in numbers}
    times: dict[int, list[float]] = {number: [] for number in numbers}
    order = list(numbers)
    for _ in range(count):
        for number in order:
            times[number].append(trial.seconds(number, repeats[number]))
        order = [*order[1:], *order[:1]]
    return times


def _repeats(seconds: float) -> int:
    return min(MOST_REPEATS, max(1, math.ceil(SAMPLE_S / max(seconds, 1e-7))))
