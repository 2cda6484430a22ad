"""The way of a row, on real processes: shared steps, kills, two at once, variants, unknown names."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from espalier.record import Record, Store, read_record
from espalier.running import run, run_overrides
from espalier.tasks import classification

LENET5 = "progressive-admm/lenet5"
QUICK = ["budgets.smoke.train=2", "budgets.smoke.admm=2", "budgets.smoke.retrain=2"]


def command(store: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "ESPALIER_STORE": str(store), "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "espalier.cli", "run", LENET5, *words], environment


def call(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(store, *words)
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def same(first: Record, second: Record) -> bool:
    untimed = {"started", "duration_s", "command", "commit", "dirty"}
    left, right = (record.model_dump(exclude=untimed) for record in (first, second))
    for record in (left, right):
        record["series"].pop("train/samples_per_sec", None)
    return left == right


def only_record(store: Path) -> Record:
    (path,) = store.glob("*/*/*/*/*/record.json")
    return read_record(path)


def test_rows_of_one_scale_and_seed_train_one_dense_network(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int] = []
    plain = classification.Classification.on_train_epoch_start

    def counted(task: classification.Classification) -> None:
        epochs.append(task.current_epoch)
        plain(task)

    monkeypatch.setattr(classification.Classification, "on_train_epoch_start", counted)
    records = run(LENET5, rows=["dense", "admm-70x"], overrides=QUICK)
    assert len(epochs) == 2 + 2 + 2
    assert records[0].steps["train"] == records[1].steps["train"]
    assert records[1].metrics["train/epochs"] == 6
    assert run(LENET5, rows=["dense", "admm-70x"], overrides=QUICK) == records
    assert len(epochs) == 6


def test_a_row_meets_its_rate_and_stays_in_its_sets(store_folder: Path) -> None:
    (record,) = run(LENET5, rows=["admm-70x"], overrides=QUICK)
    assert record.metrics["weights_nonzero"] == 6050
    assert record.metrics["weights_outside_set"] == 0
    assert (store_folder / record.name / "model.safetensors").stat().st_size == record.metrics["stored_bytes"]
    (measured,) = Store(store_folder).measurements(record.name)
    assert measured.checkpoint == record.checkpoint
    assert measured.metrics["latency_ms_p50"] > 0  # type: ignore[operator]


def test_a_changed_setting_makes_a_variant(store_folder: Path) -> None:
    (plain,) = run(LENET5, rows=["dense"])
    (changed,) = run(LENET5, rows=["dense"], overrides=["budgets.smoke.train=1"])
    assert (plain.variant, changed.variant) == (False, True)
    assert plain.name != changed.name


def test_neutral_keys_do_not_change_the_run(store_folder: Path) -> None:
    (plain,) = run(LENET5, rows=["dense"], overrides=QUICK)
    assert run(LENET5, rows=["dense"], overrides=[*QUICK, "trainer.enable_progress_bar=true", "frame.num_runs=10"]) == [plain]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["row=adm-70x"], "did you mean 'admm-70x'"),
        (["row=dense", "scale=dsk"], "did you mean desk"),
        (["row=dense", "method.num_period=3"], "method.num_periods"),
        (["row=dense", "method.rho.strt=1"], "method.rho.start"),
        (["row=dense", "scale=desk"], "espalier fetch mnist"),
        (["row=admm-70x", "constraint.rate_file=null", "rate=0.5"], "rate=0.5"),
    ],
    ids=["row", "scale", "key", "nested key", "data", "rate"],
)
def test_bad_words_name_the_way_out(store_folder: Path, words: Sequence[str], message: str) -> None:
    done = call(store_folder, *words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["row=glob(adm_*)"], r"row=glob\(adm_\*\) matches none of dense"),
        (["scale=glob(x*)"], "matches none of smoke, desk, paper"),
        (["seed=glob(*)"], "matches none"),
        (["row=dense", "row=admm-70x"], "row= is given 2 times"),
        (["seed=x"], "seed=x is no seed"),
        (["seed=0,4294967296"], "seed=4294967296 is too large; the largest seed is 4294967295"),
        (["dry_run=yes"], "dry_run=yes is neither true nor false"),
        (["row=dense", "seed=0,1", "dry_run=true", "-m"], "dry_run=true shows rows one by one .*leave out -m"),
        (["row=admm-70x", "constraint=filte"], r"Nearest of constraint=: filter"),
        (["row=dense", "++scale=desk"], r"\+\+scale=desk would file the run"),
    ],
)
def test_words_that_name_nothing_run_nothing(store_folder: Path, words: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_overrides(LENET5, words)
    assert not list(Store(store_folder).records())


def test_a_quoted_table_names_those_that_run(store_folder: Path) -> None:
    message = "admm_vs_heuristics is quoted only, no row of it can be run; tables of progressive-admm that can: .*progressive-admm/lenet5"
    with pytest.raises(ValueError, match=message):
        run_overrides("progressive-admm/admm_vs_heuristics", [])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seeds", 1, r"seeds=1 is no list; write one, such as seeds=\[0, 1\]"),
        ("rows", "dense", r"rows='dense' is no list"),
        ("seeds", ["abc"], r"seeds holds 'abc', which is no int"),
        ("overrides", "rate=2", r"overrides='rate=2' is no list"),
    ],
)
def test_what_is_no_list_is_named(store_folder: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(LENET5, **{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "value"), [("rows", []), ("seeds", []), ("overrides", ["scale=desk"])])
def test_nothing_asked_is_no_wish_for_all(store_folder: Path, key: str, value: list[str]) -> None:
    with pytest.raises(ValueError, match=r"names nothing to run|would file the run"):
        run(LENET5, **{key: value})  # type: ignore[arg-type]
    assert not list(Store(store_folder).records())


def test_a_record_never_comes_before_its_measurement(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", killed)
        with pytest.raises(KeyError, match="killed"):
            run(LENET5, rows=["dense"], overrides=QUICK)
    assert list(store_folder.glob("*/*/*/*/*/measurements/*.json"))
    (record,) = run(LENET5, rows=["dense"], overrides=QUICK)
    assert len(list(Store(store_folder).measurements(record.name))) == 1


def test_hydra_prints_the_config_and_sweeps(store_folder: Path) -> None:
    printed = call(store_folder, "row=admm-70x", "--cfg", "job")
    assert "num_periods" in printed.stdout, printed.stderr
    swept = call(store_folder, "row=dense", "seed=0,1", "budgets.smoke.train=1", "-m")
    assert swept.returncode == 0, swept.stderr
    assert len(list(store_folder.glob("*/*/dense/smoke/*/record.json"))) == 2
    for record in Store(store_folder).records():
        assert f"{record.name}: top1_pct {record.metrics['top1_pct']:.4g}" in swept.stderr


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_record(tmp_path: Path) -> None:
    words = ["row=admm-70x", "budgets.smoke.train=6", "budgets.smoke.admm=6", "budgets.smoke.retrain=6"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert call(undisturbed, *words).returncode == 0
    kills = 0
    for epochs_seen in (1, 4, 8, 12):
        line, environment = command(killed, *words)
        process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline:
            if _epochs_on_disk(killed) >= epochs_seen:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.02)
        process.wait()
    assert kills >= 2
    assert call(killed, *words).returncode == 0
    assert same(only_record(undisturbed), only_record(killed))


def _epochs_on_disk(store: Path) -> int:
    finished = 6 * len(list(store.glob(".steps/*/state.json")))
    return finished + len(list(store.glob(".steps/*/last.ckpt")))


@pytest.mark.slow
def test_two_of_the_same_run_at_once_leave_one_record(tmp_path: Path) -> None:
    line, environment = command(tmp_path, "row=admm-70x", *QUICK, "--json")
    both = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert json.loads(printed[0]) == json.loads(printed[1])
    only_record(tmp_path)


def test_stale_runs_are_done_anew_when_asked_and_nothing_is_lost(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own_net_going_stale.py").write_text("from espalier.models import LeNet5 as Net\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["budgets.smoke.train=1", "model._target_=own_net_going_stale.Net"]
    (first,) = run(LENET5, rows=["dense"], overrides=words)
    assert run(LENET5, rows=["dense"], overrides=words, rerun="stale") == [first]
    (tmp_path / "own_net_going_stale.py").write_text("from espalier.models import LeNet5 as Net\nADDED = 1\n")
    assert run(LENET5, rows=["dense"], overrides=words) == [first]
    (second,) = run(LENET5, rows=["dense"], overrides=words, rerun="stale")
    assert (second.name, second.steps) == (first.name, first.steps)
    assert second.code_digest != first.code_digest
    assert len(list(store_folder.glob(".steps/*/state.json"))) == 2
    assert list(Store(store_folder).records()) == [second]
    (old,) = (store_folder / ".stale" / first.name).iterdir()
    assert read_record(old / "record.json") == first
    assert {"model.safetensors", "measurements"} <= {path.name for path in old.iterdir()}
    assert same(first, second.model_copy(update={"code_digest": first.code_digest}))


def test_an_unknown_word_for_rerun_is_refused(store_folder: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'stale'"):
        run_overrides(LENET5, ["row=dense", "rerun=stail"])


def test_it_says_what_is_there_and_how_long_the_rest_will_take(store_folder: Path) -> None:
    def said(*words: str) -> str:
        console = Console(file=io.StringIO(), width=200)
        run_overrides(LENET5, [*words, *QUICK], console=console)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text.splitlines()[0]

    assert (
        said("row=dense") == f"{LENET5} at scale=smoke: 1 runs, 0 done; expected time unknown: none of these rows has run on this machine"
    )
    (record,) = Store(store_folder).records()
    assert said("row=dense", "seed=0,1").endswith(f"2 runs, 1 done; expected time {record.duration_s:.0f} s")
    assert said("row=dense", "seed=0,1").endswith("2 runs, 2 done; nothing to run")


def test_several_scales_run_one_after_another(store_folder: Path) -> None:
    with pytest.raises(ValueError, match="did you mean desk"):
        run_overrides(LENET5, ["row=dense", "scale=smoke,dsk"])
    words = ["row=dense", "seed=0,1", "scale=smoke,desk", "data=digits", "budgets.smoke.train=1", "budgets.desk.train=1"]
    records = run_overrides(LENET5, words)
    assert [(record.scale, record.seed) for record in records] == [("smoke", 0), ("smoke", 1), ("desk", 0), ("desk", 1)]


def test_a_swept_run_states_the_command_that_repeats_it(store_folder: Path) -> None:
    swept = call(store_folder, "row=dense", "scale=smoke,desk", "data=digits", "budgets.smoke.train=1", "budgets.desk.train=1", "-m")
    assert swept.returncode == 0, swept.stderr
    records = list(Store(store_folder).records())
    assert [record.scale for record in records] == ["desk", "smoke"]
    words = "data=digits budgets.smoke.train=1 budgets.desk.train=1"
    assert records[1].command == f"espalier run {LENET5} row=dense scale=smoke seed=0 {words}"
