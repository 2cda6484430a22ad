"""What is kept in the cache folder outlives damage, and two who write at once."""

import json
import logging
import threading
from pathlib import Path

import pytest

from espalier.compiler.kept import Kept


def test_entries_come_back_and_join_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "new" / "measured.json"
    assert Kept(path).entries() == {}
    Kept(path).add({"a": {"us": 1.5}})
    Kept(path).add({"b": [1, 2], "a": {"us": 1.25}})
    assert Kept(path).entries() == {"a": {"us": 1.25}, "b": [1, 2]}
    assert sorted(json.loads(path.read_text())) == ["entries", "version"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99, "entries": {}}', '{"version": 1, "entries": 3}', "\x00\xff"])
def test_a_damaged_file_is_warned_of_moved_aside_and_begun_anew(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "measured.json"
    path.write_bytes(content.encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert Kept(path).entries() == {}
    assert f"{path} is damaged" in caplog.text
    Kept(path).add({"a": 1})
    assert Kept(path).entries() == {"a": 1}
    assert (tmp_path / "measured.json.damaged").read_bytes() == content.encode("latin-1")


def test_an_empty_collection_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "measured.json"
    Kept(path).add({})
    Kept(path).add({"a": 1})
    assert Kept(path).entries() == {"a": 1}
    assert not list(tmp_path.glob("*.damaged"))
    assert not caplog.records


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    writers = [threading.Thread(target=lambda n=n: [Kept(path).add({f"{n}-{k}": k}) for k in range(10)]) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Kept(path).entries()) == 40


def test_a_folder_that_cannot_be_written_costs_the_entry_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    Kept(tmp_path / "file" / "measured.json").add({"a": 1})
    assert "cannot be written" in caplog.text
