"""Ship a run as a reference of its paper, and clean the store."""

import contextlib
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from espalier.files import write_once
from espalier.inventory import find
from espalier.record import DIGEST_LENGTH, Record, Store
from espalier.tables import published

HIDDEN = (".stale", ".states", ".sweeps", ".unpacked")  # what the store keeps beside runs and steps


@dataclass(frozen=True)
class Cleaned:
    """Folders that ``clean`` deletes, the bytes that frees, and whether it has deleted them."""

    folders: list[Path]
    num_bytes: int
    deleted: bool


def keep(name: str | Record, store: Store | None = None) -> Path:
    """Copy a run's measurements and record to ``experiments/<paper>/results``, a shipped reference; return the folder.

    Raises:
        ValueError: No run, or several, have that name, or it cannot stand for its row: a variant, or made by code that no commit holds.
        FileExistsError: The reference is there already.
    """
    record = find(name, store) if isinstance(name, str) else name
    if record.variant:
        raise ValueError(f"{record.name} is a variant: its settings are not its row's, and it cannot stand for it; keep a plain run.")
    if record.dirty:
        raise ValueError(f"{record.name} was made by code that was not committed; commit it, and do the run anew in a clean tree.")
    folder = published.experiment_roots()[0] / record.paper / "results" / Path(record.name).relative_to(record.paper)
    if (folder / "record.json").exists():
        raise FileExistsError(f"{folder} holds a reference already; delete it there if this run should take its place.")
    for measurement in (store or Store()).measurements(record.name):
        file = folder / "measurements" / f"{measurement.frame}-{measurement.identity[:DIGEST_LENGTH]}.json"
        file.unlink(missing_ok=True)  # left by a call that was stopped before the record
        write_once(file, measurement.model_dump_json(indent=1) + "\n")
    write_once(folder / "record.json", record.model_dump_json(indent=1) + "\n")
    return folder


def clean(*, steps_only: bool = True, dry_run: bool = False, store: Store | None = None) -> Cleaned:
    """Delete the kept states of steps; nothing but what the store itself made.

    Args:
        steps_only: False deletes all runs as well.
        dry_run: True only says what would be deleted.
        store: Where the runs live.

    Raises:
        ValueError: Another process is using one of the folders; nothing is deleted.
    """
    root = (store or Store()).root
    folders = sorted(root.glob(".steps/*"))
    if not steps_only:
        folders += [*sorted(root.glob("*/*/*/*/seed*")), *(root / name for name in HIDDEN if (root / name).is_dir())]
    num_bytes = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    if not dry_run:
        with ExitStack() as held:
            for folder in (folder for folder in folders if (folder / ".lock").exists()):
                try:
                    held.enter_context(FileLock(folder / ".lock", timeout=0))
                except Timeout as error:
                    raise ValueError(f"{folder} is in use by another process; nothing was deleted. Clean once it has ended.") from error
            for folder in folders:
                shutil.rmtree(folder)
        for parent in sorted({above for folder in folders for above in folder.parents if root in above.parents}, reverse=True):
            with contextlib.suppress(OSError):
                parent.rmdir()  # if it is empty now
    return Cleaned(folders, num_bytes, not dry_run)
