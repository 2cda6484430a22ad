"""Contests: checked before timed, by turns, disturbed samples dropped by the rule; times come from a clock of the test's own."""

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from espalier import devices
from espalier.frames import contending
from espalier.frames.contending import Contestant, Outcome, Sample, contend, relative_error
from espalier.frames.engines import Run

ONE = torch.ones(1, 2)


class Clock:
    """Stands still until a contestant runs; the process is interrupted when a contestant says so."""

    def __init__(self) -> None:
        self.now_ns, self.ru_nivcsw, self.ru_utime, self.ru_stime = 0, 0, 0.0, 0.0
        self.log: list[str] = []

    def contestant(self, name: str, *, ms: float = 1.0, interrupted: frozenset[int] = frozenset(), output: Tensor = ONE) -> Contestant:
        """Return one that takes ``ms``, ten times that with an involuntary switch in the calls of those numbers."""
        calls: list[int] = []

        def run(x: Tensor) -> Tensor:
            self.log.append(name)
            late = len(calls) in interrupted
            calls.append(0)
            self.now_ns += round(1e6 * ms * (10 if late else 1))
            self.ru_nivcsw += late
            return output * x

        return Contestant(run, 1e-4)


@pytest.fixture(autouse=True)
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing real is timed, so no test waits until the machine is free."""
    monkeypatch.setattr(contending, "machine_lock", nullcontext)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(contending.time, "perf_counter_ns", lambda: made.now_ns)
    monkeypatch.setattr(contending.time, "monotonic", lambda: made.now_ns / 1e9)
    monkeypatch.setattr(contending.resource, "getrusage", lambda who: made if who == resource.RUSAGE_SELF else Clock())
    monkeypatch.setattr(contending, "SETTLE_S", 0.0)
    return made


def contest(contestants: dict[str, Contestant], *, num_runs: int = 10, budget_s: float = 1e3, **changes: object) -> contending.Contention:
    return contend(contestants, [ONE], [ONE], num_threads=1, num_runs=num_runs, budget_s=budget_s, **changes)  # type: ignore[arg-type]


def test_turns_move_on_and_each_has_a_pass_that_is_not_timed(clock: Clock) -> None:
    found = contest({"a": clock.contestant("a", ms=1.0), "b": clock.contestant("b", ms=3.0)})
    assert "".join(clock.log) == "ab" + 5 * ("aabb" + "bbaa")  # the check, then the rounds
    assert found.outcomes["a"].latency_ms == (1.0, 1.0, 1.0)
    assert found.outcomes["b"].latency_ms == (3.0, 3.0, 3.0)
    assert found.seconds == pytest.approx(0.08)
    assert found.fork_join_ns is None


def test_short_passes_are_repeated_until_the_machine_has_settled(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contending, "SETTLE_S", 0.0045)
    contest({"a": clock.contestant("a", ms=1.0)})
    assert len(clock.log) == 1 + 10 * (5 + 1)


def test_interrupted_passes_are_dropped(clock: Clock) -> None:
    found = contest({"a": clock.contestant("a", interrupted=frozenset({2, 6}))})  # timed are the even calls, from the second on
    assert [sample.switches for sample in found.outcomes["a"].samples] == [1, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found.outcomes["a"].kept_ms == [1.0] * 8


def test_where_most_passes_are_interrupted_those_more_often_than_usual_are_dropped() -> None:
    outcome = Outcome("ok", samples=tuple(Sample(float(ms), switches) for ms, switches in [(1, 1), (2, 1), (3, 2), (9, 7), (4, 2)]))
    assert outcome.switches_p50 == 2
    assert outcome.kept_ms == [1.0, 2.0, 3.0, 4.0]


def test_percentiles_are_of_the_kept_times() -> None:
    outcome = Outcome("ok", samples=tuple(Sample(float(ms), 0) for ms in range(11)))
    assert outcome.latency_ms == (1.0, 5.0, 9.0)
    assert Outcome("failed").latency_ms is None


def raising(x: Tensor) -> Tensor:
    raise RuntimeError("no such operator\nand a trace")


@pytest.mark.parametrize(
    ("run", "status", "reason"),
    [
        (lambda x: x * 1.001, "mismatch", "differs from PyTorch by 1.0e-03 of the largest output, more than 0.0001"),
        (lambda x: x * float("nan"), "mismatch", "differs from PyTorch by nan"),
        (lambda x: x[:, :1], "mismatch", r"shape \(1, 1\), PyTorch one of \(1, 2\)"),
        (raising, "failed", "RuntimeError: no such operator$"),
    ],
    ids=["wrong", "nan", "shape", "raises"],
)
def test_what_is_wrong_is_not_timed(clock: Clock, run: Run, status: str, reason: str) -> None:
    found = contest({"wrong": Contestant(run, 1e-4), "right": clock.contestant("right")})
    assert found.outcomes["wrong"].status == status
    assert found.outcomes["wrong"].latency_ms is None
    assert re.search(reason, found.outcomes["wrong"].reason)
    assert found.outcomes["right"].latency_ms == (1.0, 1.0, 1.0)


def test_every_input_is_checked() -> None:
    constant = Contestant(lambda x: ONE, 1e-4)  # right on the first alone
    found = contend({"constant": constant}, [ONE, 2 * ONE], [ONE, 2 * ONE], num_threads=1, num_runs=10, budget_s=1.0)
    assert found.outcomes["constant"].status == "mismatch"
    assert found.outcomes["constant"].max_rel_error == 0.5


def test_an_output_of_zeros_is_compared_as_it_is() -> None:
    assert relative_error(torch.tensor([1e-3]), torch.zeros(1)) == pytest.approx(1e-3)


def test_the_budget_ends_the_rounds_but_not_before_the_tenth(clock: Clock) -> None:
    found = contest({"a": clock.contestant("a", ms=100.0)}, num_runs=100, budget_s=3.0)
    assert len(found.outcomes["a"].samples) == 16
    found = contest({"a": clock.contestant("a", ms=100.0)}, num_runs=100, budget_s=0.1)
    assert len(found.outcomes["a"].samples) == 10


def test_cpus_that_others_used_are_noted(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text(f"cpu  {100 * ticks} 0 0 999 0 0 0 0 0 0\ncpu0 0\n")
    monkeypatch.setattr(devices, "STAT", stat)

    def run(x: Tensor) -> Tensor:  # in a second, it and others use 1.5 s of the CPUs, it alone 0.9 s
        clock.now_ns += 10**9
        clock.ru_utime += 0.9
        used = int(stat.read_text().split()[1]) + 3 * ticks // 2
        stat.write_text(f"cpu  {used} 0 0 999 0 0 0 0 0 0\n")
        return x

    assert contest({"a": Contestant(run, 1e-4)}, num_runs=10).others_cpus == pytest.approx(0.6)
    monkeypatch.setattr(devices, "STAT", tmp_path / "none")
    assert contest({"a": Contestant(run, 1e-4)}, num_runs=10).others_cpus is None


def test_fork_join_is_noted_before_and_after(clock: Clock) -> None:
    times = iter([110.0, 430.0, 300.0, 310.0])
    moved = contest({"a": clock.contestant("a")}, fork_join=lambda: next(times))
    assert moved.fork_join_ns == (110.0, 430.0)
    assert moved.moved
    assert not contest({"a": clock.contestant("a")}, fork_join=lambda: next(times)).moved


def test_the_machine_is_held_and_threads_are_given_back(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    @contextmanager
    def lock() -> Iterator[None]:
        held.append(torch.get_num_threads())
        yield
        held.append(torch.get_num_threads())

    monkeypatch.setattr(contending, "machine_lock", lock)
    before, seen = torch.get_num_threads(), []
    watch = Contestant(lambda x: seen.append(torch.get_num_threads()) or x, 1e-4)  # type: ignore[func-returns-value]
    contend({"watch": watch}, [ONE], [ONE], num_threads=before + 1, num_runs=10, budget_s=1.0)
    assert held == [before, before]
    assert set(seen) == {before + 1}


@pytest.mark.parametrize(
    ("num_runs", "budget_s", "said"), [(9, 1.0, "runs=9: percentiles need 10"), (10, 0.0, "budget_s=0: a contest needs time")]
)
def test_what_times_nothing_is_refused(num_runs: int, budget_s: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        contest({}, num_runs=num_runs, budget_s=budget_s)
