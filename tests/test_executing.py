"""The list of jobs: several at a time or one, a process that dies, a run that fails."""

import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier import executing
from espalier.executing import Ask, Outcome, Told, carry_out, num_cores
from espalier.record import Record, Store
from espalier.running import run, run_overrides

LENET5 = "progressive-admm/lenet5"
QUICK = ("budgets.smoke.train=2", "budgets.smoke.admm=2", "budgets.smoke.retrain=2")


def same(first: Record, second: Record) -> bool:
    untimed = {"started", "duration_s", "commit", "dirty"}
    left, right = (record.model_dump(exclude=untimed) for record in (first, second))
    for record in (left, right):
        record["series"].pop("train/samples_per_sec", None)
    return left == right


@pytest.mark.slow
def test_two_at_a_time_give_the_same_records_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "num_cores", lambda: 2)
    rows = ["dense", "admm-70x", "magnitude-70x"]
    one = run(LENET5, rows=rows, overrides=QUICK, store=Store(tmp_path / "one"))
    two = run(LENET5, rows=rows, overrides=QUICK, store=Store(tmp_path / "two"), jobs=2)
    assert [record.name for record in two] == [record.name for record in one]
    assert all(same(*pair) for pair in zip(one, two, strict=True))
    assert len(list((tmp_path / "two").glob(".steps/*/state.json"))) == len(list((tmp_path / "one").glob(".steps/*/state.json")))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_run_that_fails_and_one_whose_process_dies_do_not_lose_the_others(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "num_cores", lambda: 2)
    asks = [Ask(LENET5, "dense", "smoke", seed, (*QUICK, *words)) for seed, words in ((0, ()), (1, ("optimizers.train.lr=1e30",)), (2, ()))]
    epochs: list[int] = []

    class KilledOnce(executing._Crew):
        """Kills the process that trains seed 2, when it has told of an epoch."""

        def _listen(self, records: dict[int, Record], outcome: Outcome) -> None:
            super()._listen(records, outcome)
            for hand in self.hands:
                if hand.todo is not None and hand.todo[1].seed == 2 and not epochs and any(store_folder.glob(".steps/*/last.ckpt")):
                    epochs.append(2)
                    os.kill(hand.process.pid or 0, signal.SIGKILL)

    monkeypatch.setattr(executing, "_Crew", KilledOnce)
    outcome = carry_out(asks, title="three", store=Store(store_folder), jobs=2)
    assert [record.seed for record in outcome.records] == [0]
    assert sorted(outcome.failed.values(), key=len) == [
        "its process was ended by SIGKILL (out of memory?); the same command goes on with it",
        next(why for why in outcome.failed.values() if "not finite" in why),
    ]
    with pytest.raises(ValueError, match=r"2 of 3 runs failed, the others are kept: .*not finite"):
        outcome.refuse()


def test_one_process_ends_at_a_failure_or_goes_on(store_folder: Path) -> None:
    bad, good = (
        Ask(LENET5, "dense", "smoke", 1, ("optimizers.train.lr=1e30",)),
        Ask(LENET5, "dense", "smoke", 0, ("budgets.smoke.train=1",)),
    )
    with pytest.raises(ValueError, match="not finite"):
        carry_out([bad, good], title="two", store=Store(store_folder))
    assert not list(Store(store_folder).records())
    outcome = carry_out([bad, good], title="two", store=Store(store_folder), keep_going=True)
    assert [record.seed for record in outcome.records] == [0]
    assert ["not finite" in why for why in outcome.failed.values()] == [True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jobs=0"], "jobs=0: at least one process"),
        (["jobs=two"], "jobs=two is no whole number"),
        (["jobs=2", "-m"], "Leave one of both out"),
    ],
)
def test_a_number_of_jobs_that_cannot_be(store_folder: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_overrides(LENET5, ["row=dense", *words])


def test_more_jobs_than_cores_are_lowered_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "num_cores", lambda: 4)
    said: list[str] = []
    console: Any = SimpleNamespace(print=lambda text, **_: said.append(text))
    several: Any = [SimpleNamespace(config={"num_threads": 2})] * 5
    assert executing._at_once(8, several, console) == 2
    assert said == ["jobs=8 is lowered to 2: 4 cores, 2 threads a run"]
    assert executing._at_once(2, several[:1], console) == 1
    assert num_cores() >= 1


def test_jobs_that_train_the_same_step_are_not_given_out_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"dense": ["train"], "admm": ["train", "constrain"], "mest": ["sparse"]}
    monkeypatch.setattr(
        executing, "step_folders", lambda identity: dict.fromkeys(steps[identity]) | {name: name for name in steps[identity]}
    )
    given: list[str] = []

    class Idle(executing._Crew):
        def _hired(self) -> Any:
            hand: Any = SimpleNamespace(todo=None, pipe=SimpleNamespace(send=lambda ask: given.append(ask.row)))
            self.hands.append(hand)
            return hand

    crew = Idle(Store(tmp_path), None, 2, Told(lambda _: None, lambda: None))
    waiting: Any = [(index, Ask("t", row, "smoke", 0), SimpleNamespace(identity=row)) for index, row in enumerate(steps)]
    crew._give_out(waiting)
    assert given == ["dense", "mest"]
    crew.hands[1].todo = None
    crew._give_out(waiting)
    assert given == ["dense", "mest"]
    (tmp_path / ".steps" / "train").mkdir(parents=True)
    (tmp_path / ".steps" / "train" / "state.json").touch()
    crew._give_out(waiting)
    assert given == ["dense", "mest", "admm"]
