"""Whose turn the machine is, on real processes: epochs share it, a measurement has it alone and waits for no more than one epoch."""

import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from espalier.frames.machine import MACHINE, SHARE, TURNSTILE, machine_lock

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


def test_making_way_leaves_things_as_they_were() -> None:
    SHARE.make_way()
    assert not SHARE.held
    with SHARE.hold():
        SHARE.make_way()
        assert SHARE.held
        with SHARE.lent():
            assert not SHARE.held
        assert SHARE.held
    assert not SHARE.held


def test_a_child_that_was_forked_meanwhile_keeps_nothing() -> None:
    SHARE.take()
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    SHARE.give_up()
    try:
        code = "from espalier.frames.machine import machine_lock; machine_lock().__enter__()"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    finally:
        child.terminate()
        child.join()


def test_no_link_is_followed_and_no_other_files_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = tmp_path / "temporary", tmp_path / "private"
    folder.mkdir()
    other.touch(0o600)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (folder / TURNSTILE).symlink_to(other)
    with pytest.raises(OSError, match=rf"{TURNSTILE} is a symbolic link.*Delete it, or set TMPDIR"), machine_lock():
        pass
    (folder / TURNSTILE).unlink()
    (folder / TURNSTILE).symlink_to(tmp_path / "missing")
    with pytest.raises(OSError, match="is a symbolic link"):
        SHARE.take()
    assert not (tmp_path / "missing").exists()
    (folder / TURNSTILE).unlink()
    (folder / TURNSTILE).touch(0o400)
    before = os.umask(0o077)
    try:
        with machine_lock():
            assert stat.S_IMODE((folder / TURNSTILE).stat().st_mode) == 0o400
            assert stat.S_IMODE((folder / MACHINE).stat().st_mode) == 0o644
    finally:
        os.umask(before)
    assert stat.S_IMODE(other.stat().st_mode) == 0o600
