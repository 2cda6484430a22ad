"""A run's share of the machine, in real processes: it computes under it, makes way at each epoch's end, and holds none while it waits."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from espalier import runner
from espalier.executing import epochs_of
from espalier.frames.machine import SHARE, machine_lock
from espalier.record import Store
from espalier.runner import execute, plan, step_folders

LENET5 = "progressive-admm/lenet5"
QUICK = ("budgets.smoke.train=2", "budgets.smoke.admm=1", "budgets.smoke.retrain=1")
RUNS = """
import sys, time
from pathlib import Path
from espalier.record import Store
from espalier.runner import execute, plan
log, row, *words = sys.argv[1:]
def epoch(*_):
    with Path(log).open("a") as file:
        file.write(f"{time.monotonic()}\\n")
execute(plan("progressive-admm/lenet5", row=row, scale="smoke", seed=0, overrides=words), store=Store(), command="", on_epoch=epoch)
"""
MEASURES = "from espalier.frames.machine import machine_lock; machine_lock().__enter__()"


@contextmanager
def running(log: Path, row: str, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", RUNS, str(log), row, *words]) as process:
        try:
            yield process
        finally:
            process.kill()


def epochs(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for(process: subprocess.Popen[bytes], log: Path, count: int) -> None:
    until = time.monotonic() + 120
    while epochs(log) < count:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_measurement_gets_in_at_the_next_epochs_end(tmp_path: Path) -> None:
    log = tmp_path / "epochs"
    with running(log, "dense", ["budgets.smoke.train=2000"]) as process:
        wait_for(process, log, 2)
        asked = epochs(log)
        with machine_lock():
            came = epochs(log)
            time.sleep(1.0)
            assert epochs(log) == came
        wait_for(process, log, came + 2)
    assert came - asked <= 2


def test_a_run_that_waits_for_a_step_holds_no_measurement_up(tmp_path: Path) -> None:
    log = tmp_path / "epochs"
    job = plan(LENET5, row="admm-70x", scale="smoke", seed=0, overrides=QUICK)
    second = Store().root / ".steps" / list(step_folders(job.identity).values())[1]
    second.mkdir(parents=True)
    lock = FileLock(second / ".lock")
    with lock, running(log, "admm-70x", QUICK) as process:
        wait_for(process, log, 2)  # its first step is trained, and nothing computed before the second
        subprocess.run([sys.executable, "-c", MEASURES], check=True, timeout=60)
        time.sleep(0.5)
        assert (process.poll(), epochs(log)) == (None, 2)
        lock.release()
        assert process.wait(120) == 0
    assert epochs(log) == 4
    assert Store().find(job.name) is not None


def test_all_that_a_run_computes_is_under_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, list[bool]] = {"epochs": []}

    def watched(name: str) -> None:
        function: Callable[..., Any] = getattr(runner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            held.setdefault(name, []).append(SHARE.held)
            return function(*args, **kwargs)

        monkeypatch.setattr(runner, name, called)

    for name in ("refuse_constraints", "run_steps", "final_figures", "time_eager"):
        watched(name)
    words = ["budgets.smoke.width=0.25", *(f"budgets.smoke.{key}=1" for key in ("train", "batches", "retrain"))]
    job = plan("privacy-pruning/cifar10", row="layer-4.5x", scale="smoke", seed=0, overrides=words)
    record = execute(job, store=Store(), command="", on_epoch=lambda *_: held["epochs"].append(SHARE.held))
    assert len(held["epochs"]) == record.metrics["train/epochs"]
    assert len(held["epochs"]) > epochs_of(job.config)  # the designer's step trains part after part
    assert set(map(tuple, (set(calls) for calls in held.values()))) == {(True,)}
    assert held.keys() == {"epochs", "refuse_constraints", "run_steps", "final_figures", "time_eager"}
    assert not SHARE.held
