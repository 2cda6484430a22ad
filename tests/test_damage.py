"""Damage and full disks on the way of a row: named with the way out, and nothing else is lost."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from espalier.files import replacing
from espalier.packing import pack
from espalier.record import Record, Store
from espalier.runner import execute, plan
from espalier.steps import State
from espalier.steps.context import OnEpoch

LENET5 = "progressive-admm/lenet5"
QUICK = [f"budgets.smoke.{step}=1" for step in ("train", "admm", "retrain")]


def admm_row(*overrides: str, on_epoch: OnEpoch | None = None) -> Record:
    job = plan(LENET5, row="admm-70x", scale="smoke", seed=0, overrides=[*QUICK, *overrides])
    return execute(job, store=Store(), command="", on_epoch=on_epoch)


def same(first: Record, second: Record) -> bool:
    untimed = {"started", "duration_s"}
    return first.model_dump(exclude=untimed) == second.model_dump(exclude=untimed)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_truncated_state_amid_a_row_is_named_and_only_that_step_is_done_anew(store_folder: Path, name: str) -> None:
    first = admm_row()
    (store_folder / first.name / "record.json").unlink()
    (folder,) = store_folder.glob(f".steps/{first.steps['constrain'][:16]}-*")
    others = {path: path.stat().st_mtime_ns for path in (store_folder / ".steps").glob("*/state.*") if path.parent != folder}
    damaged = (folder / name).read_bytes()[:-20]
    (folder / name).write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"{folder.name} holds a damaged step .*delete that folder"):
        admm_row()
    assert (folder / name).read_bytes() == damaged
    shutil.rmtree(folder)
    assert same(admm_row(), first)
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_a_truncated_resume_checkpoint_is_named_and_the_step_starts_anew_without_it(store_folder: Path) -> None:
    def kill(progress: int, _: dict[str, float]) -> None:
        if progress == 2:
            raise KeyError("killed")

    first = admm_row()
    shutil.rmtree(store_folder)
    with pytest.raises(KeyError, match="killed"):
        admm_row(on_epoch=kill)
    (checkpoint,) = store_folder.glob(".steps/*/last.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged .*delete it, the step then starts from its first epoch"):
        admm_row()
    checkpoint.unlink()
    assert same(admm_row(), first)


def test_a_loss_that_is_not_finite_costs_only_its_step(store_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"not finite at step \d+ of epoch 0 \(learning rate 1e\+30\)\. Lower the rate"):
        admm_row("optimizers.retrain.lr=1e30")
    done = {path: path.stat().st_mtime_ns for path in store_folder.glob(".steps/*/state.json")}
    assert len(done) == 2
    assert admm_row("optimizers.retrain.lr=1e-3").metrics["weights_nonzero"] == 6050
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_a_record_that_exists_is_not_filed_twice_and_a_malformed_one_is_left_as_it_was(store_folder: Path) -> None:
    record = admm_row()
    path = store_folder / record.name / "record.json"
    with pytest.raises(FileExistsError, match=r"record\.json exists already and is never overwritten"):
        Store(store_folder).add(record)
    assert Store(store_folder).find(record.name) == record
    path.write_text("{")
    with pytest.raises(ValueError, match=r"record\.json is no record: .*Move it away; its run is then done anew"):
        admm_row()
    assert path.read_text() == "{"
    path.unlink()
    assert same(admm_row(), record)


WRITERS = {
    "state": lambda folder: State({"weight": torch.zeros(100_000)}).save(folder),
    "packed": lambda folder: pack(folder / "model.safetensors", {"weight": torch.zeros(100_000)}, None, {}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_leaves_nothing(small_disk: Path, writer: str) -> None:
    with pytest.raises(OSError, match=r"cannot write .*safetensors: .*No space left.*ESPALIER_STORE"):
        WRITERS[writer](small_disk / "folder")
    assert list((small_disk / "folder").iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_a_read_only_folder_is_named(small_disk: Path, writer: str) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"cannot write .*safetensors: .*Read-only.*ESPALIER_STORE"):
        WRITERS[writer](small_disk / "folder")


def test_a_disk_that_fills_in_training_is_named_and_leaves_no_half_file(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small_disk / "filler").write_bytes(b"x" * 50_000)
    monkeypatch.setenv("ESPALIER_STORE", str(small_disk))
    with pytest.raises(OSError, match=r"cannot write .*last\.ckpt: .*No space left.*ESPALIER_STORE"):
        admm_row()
    assert [path.name for path in small_disk.glob(".steps/*/*") if path.name != ".lock"] == []


def test_a_store_that_cannot_be_written_is_named(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    monkeypatch.setenv("ESPALIER_STORE", str(small_disk))
    with pytest.raises(OSError, match=rf"{small_disk}.*ESPALIER_STORE"):
        admm_row()


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("broken")

    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(OSError, match=r"cannot write .*file: broken"):
        fail(path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "before")]
    with replacing(path) as temporary:
        temporary.write_text("after")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "after")]
