"""Records: written once, all or nothing; damage named; identity by what can change a result."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.composing import SCALES, composed, identity_of, register_rows, resolved, step_keys
from espalier.record import digest, read_record, write_once, write_over
from espalier.runner import assigner, model_of
from espalier.tables.published import table

TABLES = ("progressive-admm/lenet5", "progressive-admm/lenet5_claims")
ROWS = [(name, row, scale) for name in TABLES for row in table(name).runnable for scale in SCALES]


def config(row: str, *overrides: str, name: str = TABLES[0], scale: str = "smoke") -> dict:
    register_rows(name, scale)
    return resolved(composed(name, [f"row={row}", f"scale={scale}", *overrides]))


@pytest.mark.parametrize(("name", "row", "scale"), ROWS, ids=["/".join(entry) for entry in ROWS])
def test_every_row_composes_and_its_sets_fit_the_model(name: str, row: str, scale: str) -> None:
    settings = config(row, name=name, scale=scale)
    assert settings["row"] == row
    model = model_of(settings)
    for step in settings["recipe"]["steps"].values():
        if "constraint" in step:
            assert assigner(step["constraint"])(model).targets


def test_only_what_can_change_a_result_names_a_run() -> None:
    plain = identity_of(config("dense", scale="desk"), "fingerprint")
    moved = identity_of(config("dense", "data.root=elsewhere", "trainer.accelerator=cpu", "frame.num_runs=3", scale="desk"), "fingerprint")
    changed = [
        identity_of(config("dense", override, scale="desk"), "fingerprint")
        for override in (
            "seed=1",
            "data.batch_size=32",
            "model.width=0.5",
            "trainer.gradient_clip_val=1.0",
            "optimizers.train.lr=0.01",
            "bn_images=0",
        )
    ]
    assert digest(moved) == digest(plain)
    assert len({digest(identity) for identity in [plain, *changed]}) == 7


def test_rows_share_the_steps_they_have_in_common() -> None:
    keys = {row: step_keys(identity_of(config(row), "fingerprint")) for row in ("dense", "admm-70x", "magnitude-70x", "progressive-246x")}
    assert len({key["train"] for key in keys.values()}) == 1
    assert keys["admm-70x"]["constrain"] == keys["progressive-246x"]["constrain_1"]
    assert keys["admm-70x"]["retrain"] == keys["progressive-246x"]["retrain_1"]
    assert keys["admm-70x"]["retrain"] != keys["magnitude-70x"]["retrain"]


def test_a_method_setting_does_not_change_a_step_that_has_no_method() -> None:
    plain, other = (step_keys(identity_of(config("admm-70x", *words), "fingerprint")) for words in ([], ["method.rho.start=0.5"]))
    assert plain["train"] == other["train"]
    assert plain["constrain"] != other["constrain"]


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    write_once(tmp_path / "record.json", "first")
    with pytest.raises(FileExistsError, match=r"record\.json exists already"):
        write_once(tmp_path / "record.json", "second")
    assert (tmp_path / "record.json").read_text() == "first"
    write_over(tmp_path / "record.json", "third")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mount"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named_and_leaves_nothing(small_disk: Path) -> None:
    write_once(small_disk / "kept.json", "kept")
    with pytest.raises(OSError, match=r"cannot write .*record\.json.*ESPALIER_STORE"):
        write_once(small_disk / "record.json", "x" * 200_000)
    assert [path.name for path in small_disk.iterdir()] == ["kept.json"]
    assert (small_disk / "kept.json").read_text() == "kept"


def test_a_read_only_folder_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"cannot write .*ESPALIER_STORE"):
        write_once(small_disk / "record.json", "text")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "Invalid JSON"), ('{"paper": 3}', "paper"), ('{"unknown": 1}', "record.json is no record")],
    ids=["no JSON", "wrong type", "unknown key"],
)
def test_a_malformed_record_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_record(tmp_path / "record.json")
    assert "record.json" in str(caught.value)
