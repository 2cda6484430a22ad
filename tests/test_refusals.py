"""What is refused before anything trains."""

import fcntl
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from espalier.record import Store
from espalier.runner import execute, plan
from espalier.running import run, run_overrides
from espalier.tasks import classification

LENET5 = "progressive-admm/lenet5"
FILE = "constraint.rate_file=progressive-admm/lenet5-71x"
NO_FILE = "constraint.rate_file=null"


@pytest.fixture(autouse=True)
def _nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def trains(_: object) -> None:
        raise AssertionError("a network trains before the refusal")

    monkeypatch.setattr(classification.Classification, "on_train_epoch_start", trains)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["row=admm-70x", "rate=2"],
            rf"^rate=2 has no effect on row admm-70x: step 'constrain' takes .* from {FILE}; add {NO_FILE}",
        ),
        (["row=admm-70x", "sparsity=0.5"], rf"^sparsity=0\.5 has no effect .*{FILE}"),
        (["row=admm-70x", "constraint.rate=2"], rf"^constraint\.rate=2 has no effect .*{FILE}"),
        (["row=admm-70x", "+constraint.rates.fc1=2"], rf"^constraint\.rates\.fc1=2 has no effect .*{FILE}"),
        (["row=progressive-70x", "rate=2"], r"step 'constrain_2' takes its rates"),
        (["row=dense", "rate=7"], r"^rate=7 has no effect on row dense: none of its steps \(train\) reads it"),
    ],
)
def test_a_rate_that_no_step_reads_is_refused(store_folder: Path, words: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_overrides(LENET5, words)
    row, *rest = words
    with pytest.raises(ValueError, match=message):
        run(LENET5, rows=[row.partition("=")[2]], overrides=rest)
    assert not store_folder.exists()


@pytest.mark.parametrize("rate", ["0", "-1", "0.5"])
def test_a_rate_out_of_range_is_refused_before_the_dense_network_trains(store_folder: Path, rate: str) -> None:
    with pytest.raises(ValueError, match=rf"step 'constrain': .*rate={rate}"):
        run(LENET5, rows=["admm-70x"], overrides=[NO_FILE, f"rate={rate}"])
    assert not store_folder.exists()


def test_a_second_process_says_for_whom_it_waits(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("espalier.runner.PATIENCE_S", 0.05)
    job = plan(LENET5, row="dense", scale="smoke", seed=0)
    folder = Store().folder(job.name)
    folder.mkdir(parents=True)
    held = (folder / ".lock").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    threading.Timer(0.5, held.close).start()
    with pytest.raises(AssertionError, match="trains before"):
        execute(job, store=Store(), command="")
    assert f"waiting for another process that runs {job.name}; it holds" in caplog.text
