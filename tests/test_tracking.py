"""W&B as a mirror: offline, quick, one run a row and seed, every epoch once, finished whatever happens."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from espalier.composing import composed, register_rows, resolved
from espalier.metrics import unknown
from espalier.record import Store
from espalier.running import run
from espalier.tracking import WandbRun

LENET5 = "progressive-admm/lenet5"
QUICK = ["budgets.smoke.train=2", "budgets.smoke.admm=2", "budgets.smoke.retrain=2", "logger=wandb"]
RUN = {"paper": "p", "table": "t", "row": "r", "scale": "smoke", "recipe": {"steps": {"train": {}, "retrain": {}}}}


class Spy:
    """Stands in for a W&B run."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.offline = arguments["mode"] != "online"
        self.logged: list[dict[str, float]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def define_metric(self, *_: str, **__: str) -> None: ...

    def log(self, figures: dict[str, float], step: int) -> None:
        assert step == figures["progress/epoch"]
        self.logged.append(figures)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    """Return the W&B runs that are opened, in order."""
    import wandb

    opened: list[Spy] = []

    def init(**arguments: Any) -> Spy:
        opened.append(Spy(**arguments))
        return opened[-1]

    monkeypatch.setattr(wandb, "init", init)
    return opened


def tracker(folder: Path, *, name: str = "p/t/r/smoke/seed0-abcdef", code: str = "code", mode: str | None = None) -> WandbRun:
    return WandbRun(project="test", mode=mode, run_config=RUN, name=name, code=code, folder=folder)


def test_wandb_is_the_default_and_none_switches_it_off(store_folder: Path, spies: list[Spy]) -> None:
    register_rows(LENET5, "smoke")
    assert resolved(composed(LENET5, ["row=dense"]))["logger"]["_target_"] == "espalier.tracking.WandbRun"
    run(LENET5, rows=["dense"], overrides=["budgets.smoke.train=1", "logger=none"])
    assert spies == []


def test_a_row_is_one_run_with_every_epoch_of_its_steps(store_folder: Path, spies: list[Spy]) -> None:
    run(LENET5, rows=["dense"], overrides=QUICK)
    (record,) = run(LENET5, rows=["admm-70x"], overrides=QUICK)
    dense, admm = spies
    assert [figures["progress/epoch"] for figures in dense.logged] == [1, 2]
    assert [figures["progress/epoch"] for figures in admm.logged] == [1, 2, 3, 4, 5, 6]
    assert [figures["progress/step"] for figures in admm.logged] == [0, 0, 1, 1, 2, 2]
    assert admm.logged[0]["train/loss"] == dense.logged[0]["train/loss"]
    assert admm.arguments["group"] == LENET5
    assert admm.arguments["job_type"] == "retrain"
    assert admm.arguments["tags"] == ["admm-70x", "smoke"]
    assert admm.arguments["id"] != dense.arguments["id"]
    assert admm.exit_code == 0
    logged = {name for spy in spies for figures in spy.logged for name in figures} | (admm.summary.keys() - {"record"})
    assert unknown(logged) == []
    assert sum(value for name, value in admm.summary.items() if name.startswith("stored_bytes/")) < record.metrics["stored_bytes"]
    assert admm.summary["record"]["checkpoint"] == record.checkpoint


def test_a_run_that_fails_is_finished_and_goes_on_without_a_second_epoch(
    store_folder: Path, spies: list[Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("espalier.methods.ADMM.settle", killed)
        with pytest.raises(KeyboardInterrupt):
            run(LENET5, rows=["admm-70x"], overrides=QUICK)
    run(LENET5, rows=["admm-70x"], overrides=QUICK)
    first, second = spies
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert first.arguments["id"] == second.arguments["id"]
    assert [figures["progress/epoch"] for spy in spies for figures in spy.logged] == [1, 2, 3, 4, 5, 6]


def test_an_id_belongs_to_one_full_name_and_one_state_of_the_code(tmp_path: Path) -> None:
    names = [f"{paper}/{table}/r/{scale}/seed0-abcdef" for paper in "pq" for table in "tu" for scale in ("smoke", "desk")]
    ids = [tracker(tmp_path, name=name, code=code).id for name in names for code in ("before", "after")]
    assert len(set(ids)) == len(ids)
    assert tracker(tmp_path, name=names[0], code="before").id == ids[0]


def test_a_run_begun_offline_and_continued_online_sends_all_of_its_epochs(
    tmp_path: Path, spies: list[Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has none of those kept offline; it used to get only the later ones."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for mode, epochs in (("offline", (1, 2)), ("offline", (1, 2, 3)), ("online", (1, 2, 3, 4)), ("online", (1, 2, 3, 4, 5))):
        with tracker(tmp_path, mode=mode) as opened:
            for epoch in epochs:
                opened.log(epoch, {"train/loss": 1.0})
    assert [[int(figures["progress/epoch"]) for figures in spy.logged] for spy in spies] == [[1, 2], [3], [1, 2, 3, 4], [5]]


@pytest.mark.parametrize(
    ("variable", "mode", "logged_in", "expected"),
    [
        (None, None, False, "offline"),
        (None, None, True, "online"),
        (None, "offline", True, "offline"),
        ("offline", None, True, "offline"),
        ("online", "offline", False, "online"),
    ],
)
def test_offline_unless_asked(
    tmp_path: Path,
    spies: list[Spy],
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    mode: str | None,
    logged_in: bool,
    expected: str,
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    monkeypatch.setattr("wandb.login", lambda **_: logged_in)
    with tracker(tmp_path, mode=mode):
        assert spies[0].arguments["mode"] == expected


def test_a_server_that_does_not_answer_leaves_the_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def init(**arguments: Any) -> Spy:
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no route")
        return Spy(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_MODE", "online")
    with tracker(tmp_path) as opened:
        assert opened.run.arguments["mode"] == "offline"
    assert "no route" in caplog.text


def test_a_figure_without_a_meaning_is_refused(tmp_path: Path, spies: list[Spy]) -> None:
    with tracker(tmp_path) as opened, pytest.raises(ValueError, match=r"made/up .*metrics\.py"):
        opened.log(1, {"made/up": 1.0})


def test_without_a_network_or_an_account_a_run_costs_seconds_and_asks_nothing(store_folder: Path, tmp_path: Path) -> None:
    alone = ["unshare", "-rn"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no network namespace to a user")
    code = (
        "import json, sys, time; from pathlib import Path; from espalier.tracking import WandbRun\n"
        "def seconds(mode, folder):\n"
        "    start = time.monotonic()\n"
        f"    with WandbRun(project='test', mode=mode, run_config={RUN!r}, name=folder, code='', folder=Path(folder)) as run:\n"
        "        run.log(1, {'train/loss': 1.0})\n"
        "    return time.monotonic() - start\n"
        "times = [seconds('offline', sys.argv[1]), seconds(None, sys.argv[2])]\n"
        "Path(sys.argv[3]).write_text(json.dumps(times))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")} | {"HOME": str(tmp_path)}
    places = [str(store_folder / "told"), str(store_folder / "run"), str(tmp_path / "times.json")]
    line = [*alone, sys.executable, "-c", code, *places]
    done = subprocess.run(line, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    offline, unasked = json.loads(Path(places[2]).read_text())
    assert unasked < 2 * offline + 5, "a run that nobody told to stay offline waits; a server that does not answer takes 10 s and more"
    assert list(store_folder.glob("run/wandb/offline-run-*/run-*.wandb"))
    assert not (tmp_path / "wandb").exists()


def test_offline_files_lie_in_the_runs_folder(store_folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline", "HOME": str(tmp_path)}
    line = [sys.executable, "-m", "espalier.cli", "run", LENET5, "row=dense", "budgets.smoke.train=1"]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = Store(store_folder).records()
    assert list((store_folder / record.name).glob("wandb/offline-run-*"))
    assert not (tmp_path / "wandb").exists()
