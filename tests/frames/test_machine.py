"""Whose turn the machine is, on real processes: epochs share it, a measurement has it alone and waits for no more than one epoch."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.frames.machine import SHARE, machine_lock
from espalier.turns import Turns

TRAINS = """
import sys, time
from pathlib import Path
from espalier.frames.machine import SHARE
log = Path(sys.argv[1])
for epoch in range(int(sys.argv[2])):
    SHARE.take()
    start = time.monotonic()
    time.sleep(0.1)
    with log.open("a") as file:
        file.write(f"{start} {time.monotonic()}\\n")
    SHARE.give_up()
"""


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    SHARE.give_up()


def spans(log: Path) -> list[tuple[float, float]]:
    return [(float(start), float(end)) for start, end in (line.split() for line in log.read_text().splitlines())] if log.exists() else []


def test_a_measurement_runs_while_no_epoch_does_and_no_stream_of_epochs_keeps_it_waiting(tmp_path: Path) -> None:
    logs = [tmp_path / "first", tmp_path / "second"]
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen([sys.executable, "-c", TRAINS, str(log), "40"])) for log in logs]
        while not all(spans(log) for log in logs):
            time.sleep(0.01)
        with machine_lock():
            alone = (time.monotonic(), time.sleep(0.5), time.monotonic())[::2]
        assert any(process.poll() is None for process in processes)  # it did not wait for the trainings to end
    every = [span for log in logs for span in spans(log)]
    assert len(every) == 80
    assert not [span for span in every if span[0] < alone[1] and span[1] > alone[0]]
    first, second = (spans(log) for log in logs)
    assert any(a[0] < b[1] and b[0] < a[1] for a in first for b in second)  # epochs share the machine


def test_a_process_that_dies_holds_nothing(tmp_path: Path) -> None:
    code = "import time; from espalier.frames.machine import SHARE; SHARE.take(); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    with machine_lock():
        assert not SHARE.held


def test_a_measurement_inside_a_training_gives_its_own_share_up_and_takes_it_back() -> None:
    SHARE.take()
    with machine_lock():
        assert not SHARE.held
    assert SHARE.held
    with pytest.raises(RuntimeError), machine_lock():
        raise RuntimeError
    assert SHARE.held


def test_a_run_holds_a_share_from_its_first_batch_to_the_last_epoch_of_each_step() -> None:
    turns = Turns({"recipe": {"steps": {"train": {"epochs": 2}, "decide": {}, "retrain": {"epochs": 1}}}})
    data: Any = turns.watched(SimpleNamespace(train_loader=list, val_loader=list, format="form"))  # type: ignore[arg-type]

    def end_of_epoch(step: int) -> bool:
        turns.on_epoch(1, {"progress/step": float(step)})
        return SHARE.held

    assert data.val_loader() == []
    assert not SHARE.held
    assert data.train_loader() == []
    assert SHARE.held
    assert end_of_epoch(0)
    assert not end_of_epoch(0)
    assert data.format == "form"  # a designer's step, which sees no data
    assert SHARE.held
    assert not end_of_epoch(2)


def test_epochs_of_steps_found_done_take_no_share() -> None:
    turns = Turns({"recipe": {"steps": {"train": {"epochs": 2}}}})
    turns.on_epoch(1, {"progress/step": 0.0})
    assert not SHARE.held
