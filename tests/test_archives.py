"""An archive is the same to the bit each time, and nothing that a stranger put into one is written."""

import errno
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.archives import MANIFEST, MAX_TEXT_BYTES, MORE_HEADERS, read_archive, write_archive

pytestmark = pytest.mark.tiny

FACTS = {"espalier": "0.1.0", "packed": "paper/table", "scale": None}
RUN = "runs/paper/table/row/desk/seed0-abcdef"
MEMBERS: dict[str, bytes | Path] = {f"{RUN}/record.json": b"{}", "commands.sh": b"true\n"}


def forged(path: Path, members: dict[str, bytes], *, told: dict[str, Any] | None = None, entries: list[tarfile.TarInfo] = []) -> Path:  # noqa: B006
    """Write an archive whose manifest tells ``told`` of its members; by default the truth."""
    truth = {name: {"sha256": hashlib.sha256(text).hexdigest(), "num_bytes": len(text)} for name, text in members.items()}
    manifest = {"format": "espalier-archive-1", **FACTS, "members": truth | (told or {})}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in {MANIFEST: json.dumps(manifest).encode(), **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        for entry in entries:
            archive.addfile(entry)
    return path


def entry(name: str, kind: bytes) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, "/etc/passwd"
    return made


def test_the_same_members_give_the_same_bytes_and_come_back(tmp_path: Path) -> None:
    for name, members in (("a", MEMBERS), ("b", dict(reversed(MEMBERS.items())))):
        write_archive(tmp_path / f"{name}.tar.gz", members, FACTS)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    manifest = read_archive(tmp_path / "a.tar.gz", tmp_path / "out")
    assert (tmp_path / "out" / "commands.sh").read_bytes() == b"true\n"
    assert manifest.members["commands.sh"].sha256 == hashlib.sha256(b"true\n").hexdigest()
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in archive} == {(0, 0, "", 0o644)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: forged(path, {"../evil": b"x"}), r"'\.\./evil' would be written outside its folder"),
        (lambda path: forged(path, {"/var/evil": b"x"}), r"'/var/evil' would be written outside"),
        (lambda path: forged(path, {f"{RUN}/../../../../../../evil": b"x"}), "would be written outside"),
        (lambda path: forged(path, {f"{RUN}/record.py": b"x"}), r"record\.py' is no member that"),
        (lambda path: forged(path, {}, entries=[entry("commands.sh", tarfile.SYMTYPE)]), r"'commands\.sh' is no plain file but a link"),
        (lambda path: forged(path, {}, entries=[entry("commands.sh", tarfile.LNKTYPE)]), "is no plain file"),
        (lambda path: forged(path, {}, entries=[entry("commands.sh", tarfile.CHRTYPE)]), "is no plain file"),
        (lambda path: forged(path, {}, entries=[entry("runs", tarfile.DIRTYPE)]), "is no plain file"),
        (lambda path: forged(path, {}, entries=[tarfile.TarInfo("commands.sh")]), r"does not name it"),
        (lambda path: forged(path, {"commands.sh": b"x"}, entries=[tarfile.TarInfo("commands.sh")]), "stands twice"),
        (
            lambda path: forged(path, {"commands.sh": b"x"}, told={"commands.sh": {"sha256": "0" * 64, "num_bytes": 1}}),
            r"commands\.sh has another digest",
        ),
        (
            lambda path: forged(path, {"commands.sh": b"xy"}, told={"commands.sh": {"sha256": "0" * 64, "num_bytes": 1}}),
            r"commands\.sh holds 2 bytes, MANIFEST\.json says 1",
        ),
        (
            lambda path: forged(path, {}, told={"commands.sh": {"sha256": "0" * 64, "num_bytes": MAX_TEXT_BYTES + 1}}),
            r"commands\.sh would hold 67,108,865 bytes, over the 67,108,864",
        ),
        (lambda path: forged(path, {}, told={"commands.sh": {"sha256": "0" * 64, "num_bytes": 1}}), r"lacks commands\.sh"),
    ],
    ids=[
        "dots",
        "root",
        "dots inside",
        "unknown",
        "symlink",
        "hard link",
        "device",
        "folder",
        "unnamed",
        "twice",
        "digest",
        "size",
        "bomb",
        "missing",
    ],
)
def test_what_a_stranger_put_in_is_named_and_nothing_written(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path / "made.tar.gz")
    with pytest.raises(ValueError, match=message):
        read_archive(path)
    assert [file.name for file in tmp_path.iterdir()] == ["made.tar.gz"]


@pytest.mark.parametrize("size", [0, 1 << 30])
@pytest.mark.parametrize("kind", sorted(MORE_HEADERS))
def test_a_header_that_wants_another_is_not_followed(tmp_path: Path, kind: bytes, size: int) -> None:
    path = forged(tmp_path / "chain.tar.gz", {})
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    whole = gzip.decompress(path.read_bytes())
    for before in (b"", whole[:1024]):  # the manifest's two blocks
        path.write_bytes(gzip.compress(before + header.tobuf(tarfile.GNU_FORMAT) * 3000 + whole))
        with pytest.raises(ValueError, match=rf"chain\.tar\.gz cannot be read .*a header of kind '{kind.decode()}'"):
            read_archive(path)


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_TOTAL_BYTES"])
def test_the_whole_is_bounded_as_each_member_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    path = tmp_path / "all.tar.gz"
    write_archive(path, MEMBERS, FACTS)
    monkeypatch.setattr(f"espalier.archives.{limit}", 1)
    with pytest.raises(ValueError, match=r"all\.tar\.gz would hold 2 members of 7 bytes in all, over the"):
        read_archive(path)


def test_what_the_disk_has_no_room_for_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "all.tar.gz"
    write_archive(path, MEMBERS, FACTS)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=6))
    with pytest.raises(OSError, match=r"No space left.*needs 7 bytes, 6 are free; .*ESPALIER_STORE") as caught:
        read_archive(path, tmp_path / "deep" / "out")
    assert caught.value.errno == errno.ENOSPC
    assert [file.name for file in tmp_path.iterdir()] == ["all.tar.gz"]
    assert read_archive(path).members


@pytest.mark.parametrize("keep", [10, 200, -30])
def test_a_damaged_archive_says_so(tmp_path: Path, keep: int) -> None:
    write_archive(tmp_path / "whole.tar.gz", MEMBERS, FACTS)
    path = tmp_path / "cut.tar.gz"
    path.write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut\.tar\.gz cannot be read as an archive of espalier"):
        read_archive(path)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no archive"):
        read_archive(tmp_path / "none.tar.gz")
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("readme"))
    with pytest.raises(ValueError, match=r"does not begin with MANIFEST\.json"):
        read_archive(tmp_path / "other.tar.gz")
    newer = forged(tmp_path / "newer.tar.gz", {})
    newer.write_bytes(gzip.compress(gzip.decompress(newer.read_bytes()).replace(b"archive-1", b"archive-2")))
    with pytest.raises(ValueError, match="this espalier reads 'espalier-archive-1'"):
        read_archive(newer)
