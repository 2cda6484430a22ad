"""One archive file: members named in a manifest with their digests, written the same to the bit, and read as if a stranger had sent it."""

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from espalier.files import WAY_OUT, make_folder, replacing

FORMAT: Literal["espalier-archive-1"] = "espalier-archive-1"
MANIFEST = "MANIFEST.json"
ENDING = ".tar.gz"
CHUNK = 1 << 20
MAX_TEXT_BYTES = 64 << 20  # of one record, config, patch or manifest
MAX_WEIGHTS_BYTES = 16 << 30  # of one checkpoint
MAX_MEMBERS = 100_000
MAX_TOTAL_BYTES = 64 << 30  # of all members, unpacked
MORE_HEADERS = {  # kinds of entry that continue in the next header; the form that ``write_archive`` writes has none of them
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
}
WEIGHTS = "model.safetensors"
_RUN = r"[^/]+/[^/]+/[^/]+/(smoke|desk|paper)/seed[^/]+"
KNOWN = re.compile(  # the members that there are; anything else is refused
    rf"(README\.md|environment\.json|requirements\.txt|commands\.sh|dirty\.patch"
    rf"|runs/{_RUN}/(record\.json|config\.yaml|README\.md|{re.escape(WEIGHTS)}|measurements/[^/]+\.json)"
    rf"|shipped/{_RUN}/(record\.json|measurements/[^/]+\.json)"
    r"|runs/compare/[^/]+/table\.yaml)"
)


class Member(BaseModel):
    """What the manifest says of one member."""

    model_config = ConfigDict(extra="forbid")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    num_bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """The first member of an archive.

    Args:
        format: Version of the form.
        espalier: Version that packed it.
        packed: The name that was packed, a run's or a table's.
        scale: The scale asked for; None is all.
        members: Every other member, by name.
    """

    model_config = ConfigDict(extra="forbid")
    format: Literal["espalier-archive-1"]
    espalier: str
    packed: str
    scale: str | None
    members: dict[str, Member]

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all members, unpacked."""
        return sum(member.num_bytes for member in self.members.values())


def write_archive(path: Path, members: Mapping[str, bytes | Path], facts: Mapping[str, Any]) -> Manifest:
    """Write an archive, all or nothing; the same members give the same bytes.

    Args:
        path: The file; replaced whole.
        members: Name -> content, or the file that holds it.
        facts: The manifest's other fields, its format aside.

    Raises:
        ValueError: A name is too long for the form.
        OSError: A file cannot be read, or the archive not written.
    """
    told = {name: _described(members[name]) for name in sorted(members)}
    manifest = Manifest(format=FORMAT, members=told, **facts)
    text = (json.dumps(manifest.model_dump(), indent=1, sort_keys=True) + "\n").encode()
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        raw = stack.enter_context(temporary.open("wb"))
        packed = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))
        archive = stack.enter_context(tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT))
        archive.addfile(_header(MANIFEST, len(text)), BytesIO(text))
        for name, member in told.items():
            with _opened(members[name]) as content:
                archive.addfile(_header(name, member.num_bytes), content)
    return manifest


def _header(name: str, num_bytes: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = num_bytes, 0o644, 0
    return header


def _opened(content: bytes | Path) -> IO[bytes]:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _described(content: bytes | Path) -> Member:
    found, num_bytes = hashlib.sha256(), 0
    with _opened(content) as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
            num_bytes += len(chunk)
    return Member(sha256=found.hexdigest(), num_bytes=num_bytes)


def read_archive(path: Path, into: Path | None = None, *, way_out: str = WAY_OUT) -> Manifest:
    """Check every member of an archive against its manifest; return the manifest.

    Args:
        path: The archive, from wherever it came.
        into: Folder to write the members to; None writes nothing.
        way_out: What to do where that folder's disk has too little room.

    Raises:
        ValueError: The file is damaged or no archive; or a member is not in the manifest, of no kind that there is, leaves its folder, is a
            link or a device, is larger than allowed, missing, there twice, or has another digest. The message has its name. Or there are
            more members, or more bytes in all, than allowed.
        OSError: The folder cannot be written, or its disk has less room than the members need.
    """
    if not path.is_file():
        raise ValueError(f"there is no archive {path}; `espalier pack` writes one.")
    with _readable(path) as archive:
        manifest = _manifest(path, archive)
        waiting = dict(manifest.members)
        for name, member in waiting.items():
            _check_name(path, name, member.num_bytes)
        _check_total(path, manifest)
        if into is not None:
            check_room(path, manifest, into, way_out=way_out)
        while (entry := archive.next()) is not None:
            member = _check_entry(path, entry, waiting)
            content = archive.extractfile(entry)
            assert content is not None, "a regular file has content"
            if _copied(content, None if into is None else into / entry.name) != member.sha256:
                raise ValueError(f"{path}: {entry.name} has another digest than {MANIFEST} says; it was damaged or changed. Get it anew.")
        if waiting:
            raise ValueError(f"{path} lacks {', '.join(sorted(waiting))}, which {MANIFEST} names; get the archive anew.")
    return manifest


class _OneHeader(tarfile.TarInfo):
    """An entry of one header of 512 bytes. tarfile reads further ones at once, whatever size they claim, each within the one before."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in MORE_HEADERS:
            raise tarfile.ReadError(f"a header of kind {entry.type.decode()!r}: a long name, PAX or sparse, which none of ours has")
        return entry


@contextmanager
def _readable(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:", tarinfo=_OneHeader) as archive:
            yield archive
    except (tarfile.TarError, EOFError, RecursionError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read as an archive of espalier ({error}); get it anew, or pack it again.") from error


def _manifest(path: Path, archive: tarfile.TarFile) -> Manifest:
    first = archive.next()
    if first is None or first.name != MANIFEST or first.type != tarfile.REGTYPE or not 0 <= first.size <= MAX_TEXT_BYTES:
        raise ValueError(f"{path} does not begin with {MANIFEST}; it is no archive of `espalier pack`.")
    content = archive.extractfile(first)
    assert content is not None, "a regular file has content"
    text = b"".join(iter(lambda: content.read(CHUNK), b""))
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{path}: {MANIFEST}: {where}: {problem['msg']}; this espalier reads '{FORMAT}'.") from error


def _check_name(path: Path, name: str, num_bytes: int) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or "\0" in name or any(part in (".", "..") for part in name.split("/")):
        raise ValueError(f"{path}: {name!r} would be written outside its folder; nothing was unpacked. Don't trust this archive.")
    if not KNOWN.fullmatch(name):
        raise ValueError(f"{path}: {name!r} is no member that `espalier pack` writes; nothing was unpacked.")
    limit = MAX_WEIGHTS_BYTES if parts[-1] == WEIGHTS else MAX_TEXT_BYTES
    if num_bytes > limit:
        raise ValueError(f"{path}: {name} would hold {num_bytes:,} bytes, over the {limit:,} that are allowed; nothing was unpacked.")


def _check_total(path: Path, manifest: Manifest) -> None:
    count, num_bytes = len(manifest.members), manifest.num_bytes
    if count > MAX_MEMBERS or num_bytes > MAX_TOTAL_BYTES:
        raise ValueError(
            f"{path} would hold {count:,} members of {num_bytes:,} bytes in all, over the {MAX_MEMBERS:,} of {MAX_TOTAL_BYTES:,} that are "
            "allowed; nothing was unpacked. Pack fewer runs at a time."
        )


def check_room(path: Path, manifest: Manifest, into: Path, *, way_out: str = WAY_OUT) -> None:
    """Refuse what the disk of a folder, which need not be there yet, has no room for.

    Args:
        path: The archive.
        manifest: What it holds.
        into: The folder.
        way_out: How the message ends.

    Raises:
        OSError: The members need more bytes than are free.
    """
    num_bytes = manifest.num_bytes
    free = shutil.disk_usage(next(folder for folder in (into, *into.parents) if folder.is_dir())).free
    if num_bytes > free:
        full = os.strerror(errno.ENOSPC)
        raise OSError(errno.ENOSPC, f"{full}: {path} needs {num_bytes:,} bytes, {free:,} are free; {way_out}", str(into))


def _check_entry(path: Path, entry: tarfile.TarInfo, waiting: dict[str, Member]) -> Member:
    """Return what the manifest says of an entry, and take it off the list of those that must come."""
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ValueError(f"{path}: {entry.name!r} is no plain file but a link, folder or device; nothing was unpacked.")
    if entry.name not in waiting:
        _check_name(path, entry.name, entry.size)
        raise ValueError(f"{path}: {entry.name!r} stands twice in it, or {MANIFEST} does not name it; nothing was unpacked.")
    member = waiting.pop(entry.name)
    if entry.size != member.num_bytes:
        raise ValueError(f"{path}: {entry.name} holds {entry.size:,} bytes, {MANIFEST} says {member.num_bytes:,}; nothing was unpacked.")
    return member


def _copied(content: IO[bytes], to: Path | None) -> str:
    """Return the digest of a member, having written it where ``to`` says so."""
    found = hashlib.sha256()
    with ExitStack() as stack:
        if to is not None:
            make_folder(to.parent)
        out = None if to is None else stack.enter_context(to.open("xb"))
        while chunk := content.read(CHUNK):
            found.update(chunk)
            if out is not None:
                out.write(chunk)
    return found.hexdigest()
