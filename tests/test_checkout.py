"""What the checkout says is what git says, to the byte."""

import subprocess
from pathlib import Path

import pytest

from espalier import checkout


def git(folder: Path, *words: str) -> bytes:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "text").write_text("one\n\n\n\n")
    (folder / "latin").write_bytes(b"na\xefve\r\n")
    (folder / "image").write_bytes(bytes(range(256)))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.setattr(checkout, "root", lambda: folder)
    return folder


def test_a_patch_makes_the_commit_into_what_lies_there(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "color.ui", "always")
    changed = {"text": b"two\n\n\n\n", "latin": b"th\xe9\r\n", "image": bytes(range(255, -1, -1))}
    git(tmp_path, "clone", "-q", str(repository), "elsewhere")
    for name, content in changed.items():
        (repository / name).write_bytes(content)
    patch = checkout.patch()
    assert patch is not None
    (tmp_path / "dirty.patch").write_bytes(patch)
    git(tmp_path / "elsewhere", "apply", "../dirty.patch")
    assert {name: (tmp_path / "elsewhere" / name).read_bytes() for name in changed} == changed


def test_a_clean_tree_has_no_changes_and_a_folder_without_history_no_answer(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkout.patch() == b""
    commit = checkout.git("rev-parse", "HEAD")
    assert commit is not None
    assert len(commit) == 40
    monkeypatch.setattr(checkout, "root", lambda: repository / "none")
    assert checkout.patch() is None
    assert checkout.git("rev-parse", "HEAD") is None
