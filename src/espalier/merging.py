"""Merge an archive of ``espalier pack`` into a store: checked whole, then all of it or nothing."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from filelock import FileLock, Timeout

from espalier.archives import WEIGHTS, check_room, read_archive
from espalier.files import make_folder
from espalier.packing import check_digest
from espalier.record import DIGEST_LENGTH, Measurement, Record, Store, parsed, read_record
from espalier.tables import published

STAGING = ".unpacked"  # of the store; removed when done
WAY_OUT = "Nothing was unpacked; get the archive anew, or have it packed again."


@dataclass
class Unpacked:
    """What ``unpack`` did, or, where it only checked, would do.

    Args:
        path: The archive.
        checked: Members whose digest is right.
        added: Names of the runs that the store lacked.
        present: Names of the runs that were there already, the same.
        remarks: What a reader must know.
    """

    path: Path
    checked: int
    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Contents:
    """What an archive holds, read and found right: the folder it is staged in, comparisons' tables, and run -> folder of its files."""

    staging: Path
    tables: list[Path]
    runs: dict[str, Path]


def unpack(path: str | Path, *, check: bool = False, store: Store | None = None) -> Unpacked:
    """Merge an archive into the store. Every digest is verified before anything is written.

    Every record, measurement and table is read, and every checkpoint held against its record, before anything is merged.
    A run that the store has already, the same, is skipped; what only the archive has of it (a checkpoint, a measurement on another device)
    joins. A reference record that neither the papers here nor the archive's own runs hold is filed as a run. What a run left that was
    begun here and not finished makes room: it moves to ``.stale/<run>`` of the store.

    Args:
        path: What ``pack`` wrote.
        check: Verify all of that and change nothing: what would be refused is refused, what would be added is told.
        store: Where the runs live; None takes ``ESPALIER_STORE``, else ``runs``.

    Raises:
        ValueError: The archive is damaged or no archive; a member would be written outside its folder or is otherwise refused; a record,
            measurement, table or checkpoint is none, or they speak of different weights; or a run of the same name has another record, here
            or among the papers' references. Nothing is changed.
        OSError: The store cannot be written, or has no room; nothing is changed.
    """
    file, place = Path(path), store or Store()
    manifest = read_archive(file)
    done = Unpacked(file, len(manifest.members))
    if check:
        check_room(file, manifest, place.root)
        with TemporaryDirectory(prefix="espalier-") as folder, ExitStack() as locks:
            read_archive(file, Path(folder), way_out="the check needs that room too; set TMPDIR to a folder with room")
            _compared(_read(Path(folder), done), place, done, locks, check=True)
        return done
    with _staging(place) as staging, ExitStack() as locks:
        read_archive(file, staging)
        contents = _read(staging, done)
        _compared(contents, place, done, locks, check=False)
        _merge(contents, place, done)
    return done


@contextmanager
def _staging(store: Store) -> Iterator[Path]:
    folder = store.root / STAGING / uuid.uuid4().hex
    try:
        make_folder(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()  # if no other process unpacks


def _read(staging: Path, done: Unpacked) -> _Contents:
    """Return what lies in the staging area, each part of it read."""
    tables = sorted((staging / "runs" / published.COMPARISONS).glob("*/table.yaml"))
    for table in tables:
        _check_table(table, f"{done.path}: {table.relative_to(staging).as_posix()}")
    runs = {record.name: staging / "runs" / record.name for record in _records(staging / "runs", done.path)}
    references = {record.name: record for paper in published.papers().values() for record in paper.shipped_records()}
    for record in _records(staging / "shipped", done.path):
        if record.name in references:
            _refuse_another(record, references[record.name], f"the references of {record.paper}", done.path)
        elif record.name not in runs:
            runs[record.name] = staging / "shipped" / record.name
            done.remarks.append(f"{record.name} was a reference there and is a run here")
    return _Contents(staging, tables, runs)


def _compared(contents: _Contents, store: Store, done: Unpacked, locks: ExitStack, *, check: bool) -> None:
    """Refuse what the store has otherwise, and note what it lacks; the runs that it has folders of are locked until ``locks`` end."""
    for name, source in contents.runs.items():
        folder = store.folder(name)
        if folder.is_dir() and not (check and not (folder / ".lock").exists()):
            _hold(folder, locks)
        if (found := store.find(name)) is not None:
            _refuse_another(read_record(source / "record.json"), found, str(folder / "record.json"), done.path)
        (done.added if found is None else done.present).append(name)
    for table in contents.tables:
        _refuse_other_table(table, store.root / table.relative_to(contents.staging / "runs"), done.path)


def _merge(contents: _Contents, store: Store, done: Unpacked) -> None:
    """Move what was read and compared to its places in the store, or, if that fails, all of it back."""
    with ExitStack() as undo:
        for table in contents.tables:
            _move(table, store.root / table.relative_to(contents.staging / "runs"), undo)
        for name in done.present:
            _fill(contents.runs[name], store.folder(name), undo, done)
        for name in done.added:
            aside = store.root / ".stale" / name / f"unfinished-{contents.staging.name[:DIGEST_LENGTH]}"
            if _make_room(store.folder(name), aside, undo):
                done.remarks.append(f"{name} was begun here and not finished; what it left lies in {aside}")
            _fill(contents.runs[name], store.folder(name), undo, done)
        undo.pop_all()  # all is where it belongs


def _records(root: Path, archive: Path) -> Iterator[Record]:
    folders = dict.fromkeys(path if path.name != "measurements" else path.parent for path in sorted(root.glob("*/*/*/*/seed*")))
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        where = f"{archive}: {root.name}/{name}"
        if not (folder / "record.json").is_file():
            raise ValueError(f"{where} has no record.json; nothing was unpacked.")
        record = parsed(folder / "record.json", Record, f"{where}/record.json", way_out=WAY_OUT)
        if record.name != name:
            raise ValueError(f"{where} holds the record of {record.name}; nothing was unpacked.")
        _check_parts(folder, record, where)
        yield record


def _check_parts(folder: Path, record: Record, where: str) -> None:
    """Refuse measurements and weights that are none, or not those of the record."""
    for path in sorted((folder / "measurements").glob("*.json")):
        found = parsed(path, Measurement, f"{where}/measurements/{path.name}", way_out=WAY_OUT)
        if found.checkpoint != record.checkpoint:
            raise ValueError(
                f"{where}/measurements/{path.name} is of the checkpoint {found.checkpoint[:12]}, its record says "
                f"{str(record.checkpoint)[:12]}. {WAY_OUT}"
            )
    if (folder / WEIGHTS).is_file():
        try:
            check_digest(folder / WEIGHTS, record.checkpoint)
        except ValueError as error:
            raise ValueError(f"{str(error).replace(str(folder), where)} {WAY_OUT}") from error


def _check_table(path: Path, where: str) -> None:
    try:
        published.read_comparison(path)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{where} is no table ({str(error).replace(str(path), path.name)}). {WAY_OUT}") from error


def _refuse_another(theirs: Record, ours: Record, where: str, archive: Path) -> None:
    if theirs != ours:
        raise ValueError(
            f"{archive} has {theirs.name}, made {theirs.started} by code {theirs.code_digest[:6]}; {where} has another of that name, made "
            f"{ours.started} by code {ours.code_digest[:6]}. Nothing was unpacked: move the one here away, or unpack into another store "
            f"(ESPALIER_STORE) with its commit, {theirs.commit or 'which its record does not name'}."
        )


def _refuse_other_table(theirs: Path, ours: Path, archive: Path) -> None:
    if ours.is_file() and ours.read_bytes() != theirs.read_bytes():
        name = ours.parent.name
        raise ValueError(f"{archive} has the comparison {name}, {ours} is another of that name. Nothing was unpacked: rename one.")


def _hold(folder: Path, locks: ExitStack) -> None:
    try:
        locks.enter_context(FileLock(folder / ".lock", timeout=0))
    except Timeout as error:
        raise ValueError(f"{folder} is in use by another process; nothing was unpacked. Unpack once it has ended.") from error


def _make_room(folder: Path, aside: Path, undo: ExitStack) -> bool:
    """Move what an unfinished run left in its folder ``aside``, its lock excepted; return whether there was anything."""
    left = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / ".lock"]
    for path in left:
        _move(path, aside / path.relative_to(folder), undo)
    return bool(left)


def _fill(source: Path, folder: Path, undo: ExitStack, done: Unpacked) -> None:
    """Move the files of a run to its folder, the record last: whoever finds it finds the rest. A file that is there already stays.

    Args:
        source: Its folder in the staging area.
        folder: Its folder in the store.
        undo: Learns how to take each move back.
        done: Learns which measurement stayed as it was.
    """
    for path in sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.name == "record.json"):
        name = path.relative_to(source)
        to = folder / name
        if to.exists():
            if to.read_bytes() != path.read_bytes() and name.parts[0] == "measurements":
                done.remarks.append(f"{folder / name} was measured here as well and stays")
            continue
        _move(path, to, undo)


def _move(path: Path, to: Path, undo: ExitStack) -> None:
    if to.exists():
        return
    missing = [folder for folder in to.parents if not folder.exists()]
    make_folder(to.parent)
    for folder in reversed(missing):
        undo.callback(folder.rmdir)
    path.rename(to)
    undo.callback(to.rename, path)
