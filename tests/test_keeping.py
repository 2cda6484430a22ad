"""Cleaning deletes what the store made, and nothing in use."""

from pathlib import Path

import pytest
from filelock import FileLock

import espalier

LENET5 = "progressive-admm/lenet5"


def test_cleaning_leaves_what_is_not_the_stores(store_folder: Path) -> None:
    (record,) = espalier.run(LENET5, rows=["dense"], overrides=["budgets.smoke.train=1"])
    mine = store_folder / "thesis" / "chapter.tex"
    mine.parent.mkdir()
    mine.write_text("words")
    assert {folder.name for folder in espalier.clean(steps_only=False, dry_run=True).folders} >= {Path(record.name).name}
    espalier.clean(steps_only=False)
    assert mine.read_text() == "words"
    assert [path.name for path in store_folder.iterdir()] == ["thesis"]


def test_cleaning_refuses_what_another_process_uses(store_folder: Path) -> None:
    espalier.run(LENET5, rows=["dense"], overrides=["budgets.smoke.train=1"])
    (step,) = store_folder.glob(".steps/*")
    with FileLock(step / ".lock"), pytest.raises(ValueError, match=rf"{step.name} is in use by another process; nothing was deleted"):
        espalier.clean()
    assert (step / "state.json").exists()
    espalier.clean()
    assert not step.exists()


def test_a_run_of_uncommitted_code_is_no_reference(store_folder: Path) -> None:
    (record,) = espalier.run(LENET5, rows=["dense"])
    with pytest.raises(ValueError, match="code that was not committed"):
        espalier.keep(record.model_copy(update={"dirty": True}))
