"""Files are written once, all or nothing; a full or read-only disk is named."""

import subprocess
from pathlib import Path

import pytest

from espalier.files import write_once, write_over


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    write_once(tmp_path / "record.json", "first")
    with pytest.raises(FileExistsError, match=r"record\.json exists already"):
        write_once(tmp_path / "record.json", "second")
    assert (tmp_path / "record.json").read_text() == "first"
    write_over(tmp_path / "record.json", "third")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


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
