"""Take runs away: one archive of records, measurements, checkpoints with their cards, configs, and the surroundings they were made in.

An archive holds ``runs/`` (folders as in a store), ``shipped/`` (the reference records of the same rows), ``environment.json``,
``requirements.txt`` (what is installed), ``commands.sh``, ``dirty.patch`` where the checkout had changes, and ``MANIFEST.json`` with the
SHA-256 of each. What was packed twice from the same store is the same to the bit.
"""

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import yaml

from espalier.archives import ENDING, WEIGHTS, write_archive
from espalier.cards import card
from espalier.checkout import git, is_checkout
from espalier.composing import check_scale
from espalier.devices import cpu
from espalier.record import Record, Store, read_record
from espalier.tables import published
from espalier.tables.names import did_you_mean

COMPARE = "compare"  # the paper whose tables lie in the store, beside their runs


@dataclass(frozen=True)
class Packed:
    """What ``pack`` wrote: the file, the names of the runs in it, and what a reader must know."""

    path: Path
    num_bytes: int
    runs: list[str]
    shipped: list[str]
    checkpoints: int
    remarks: list[str]


def pack(name: str, to: str | Path, *, scale: str | None = None, store: Store | None = None) -> Packed:
    """Write one archive of a table's runs, or of the runs that a name begins or a glob matches; ``unpack`` merges it elsewhere.

    Args:
        name: ``PAPER/TABLE`` (its dense baseline comes along, wherever that stands), a run, the beginning of runs' names, or a glob.
        to: File to write, ``.tar.gz``.
        scale: smoke, desk or paper; None takes all.
        store: Where the runs live; None takes ``ESPALIER_STORE``, else ``runs``.

    Raises:
        ValueError: Nothing bears that name, there is no such scale, or the file's ending is another.
        OSError: The file cannot be written.
    """
    path, place = Path(to), store or Store()
    if not path.name.endswith(ENDING):
        raise ValueError(f"--to {path} must end in {ENDING}, such as {path.name.partition('.')[0] or 'table'}{ENDING}.")
    if scale is not None:
        check_scale(scale)
    every = list(place.records())
    is_meant = _chooser(name, scale, place)
    own = [record for record in every if is_meant(record)]
    shipped = {folder: record for folder, record in _shipped() if is_meant(record)}
    if not own and not shipped:
        tables = [f"{of.name}/{one}" for of in published.papers(store=place.root).values() for one in of.table_names]
        known = [record.name for record in every] + tables
        where = "" if scale is None else f" at scale={scale}"
        raise ValueError(f"no run of '{name}'{where} in {place.root}; {did_you_mean(name, known)}; `espalier runs` lists what there is.")
    members: dict[str, bytes | Path] = {}
    for record in own:
        members |= _run_members(record, every, place)
    for folder, record in shipped.items():
        members |= {f"shipped/{record.name}/{file.relative_to(folder).as_posix()}": file for file in _record_files(folder)}
    checkpoints = sum(member.endswith(f"/{WEIGHTS}") for member in members)
    remarks = [f"{record.name} has no checkpoint to pack" for record in own if f"runs/{record.name}/{WEIGHTS}" not in members]
    surroundings, more = _surroundings([*own, *shipped.values()])
    members |= surroundings
    members["README.md"] = _overview(name, own, shipped.values()).encode()
    write_archive(path, members, {"espalier": version("espalier"), "packed": name, "scale": scale})
    names = [[record.name for record in records] for records in (own, shipped.values())]
    return Packed(path, path.stat().st_size, names[0], names[1], checkpoints, remarks + more)


def _chooser(name: str, scale: str | None, store: Store) -> Callable[[Record], bool]:
    """Return whether a record is one that a name stands for: a table's or its dense baseline's, or one that it begins or matches."""
    pattern = name.strip("/")
    of, _, rest = pattern.partition("/")
    paper = published.papers(store=store.root).get(of)
    is_table = paper is not None and rest in paper.table_names
    dense = paper.table(rest).dense_row if paper is not None and is_table else None

    def is_meant(record: Record) -> bool:
        if scale is not None and record.scale != scale:
            return False
        if is_table:
            return record.paper == of and (record.table == rest or (record.table, record.row) == dense)
        return fnmatchcase(record.name, pattern) or ("*" not in pattern and record.name.startswith(pattern))

    return is_meant


def _shipped() -> Iterator[tuple[Path, Record]]:
    for paper in published.papers().values():
        for path in sorted((paper.folder / "results").rglob("record.json")):
            yield path.parent, read_record(path)


def _record_files(folder: Path) -> list[Path]:
    return [folder / "record.json", *sorted((folder / "measurements").glob("*.json"))]


def _run_members(record: Record, every: Iterable[Record], store: Store) -> dict[str, bytes | Path]:
    folder, under = store.folder(record.name), f"runs/{record.name}"
    members: dict[str, bytes | Path] = {f"{under}/{file.relative_to(folder).as_posix()}": file for file in _record_files(folder)}
    members[f"{under}/config.yaml"] = yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True).encode()
    if (folder / WEIGHTS).is_file():
        same_row = [one for one in every if (one.paper, one.table, one.row, one.scale) == _row(record) and one.variant == record.variant]
        seeds = [one for one in same_row if not record.variant or _settings(one) == _settings(record)]
        members[f"{under}/{WEIGHTS}"] = folder / WEIGHTS
        members[f"{under}/README.md"] = card(record, folder / WEIGHTS, seeds, list(store.measurements(record.name))).encode()
    table = store.root / COMPARE / record.table / "table.yaml"
    if record.paper == COMPARE and table.is_file():
        members[f"runs/{COMPARE}/{record.table}/table.yaml"] = table
    return members


def _row(record: Record) -> tuple[str, str, str, str]:
    return record.paper, record.table, record.row, record.scale


def _settings(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.config.items() if key != "seed"}


def _surroundings(records: Iterable[Record]) -> tuple[dict[str, bytes | Path], list[str]]:
    """Return what tells how the runs were made, and what of it this machine cannot tell."""
    records = list(records)
    commit, patch, remarks = None, None, []
    if is_checkout():
        commit, patch = git("rev-parse", "HEAD"), git("diff", "--binary", "HEAD")
        if commit is None:
            remarks.append("git is not on this machine, or this checkout has no history: the archive holds no commit and no patch")
    installed = {f"{one.metadata['Name']}=={one.version}" for one in distributions() if one.metadata["Name"]}
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": str(cpu()),
        "commit": commit,
        "dirty": bool(patch),
        "commits_of_records": sorted({record.commit for record in records if record.commit is not None}),
        "remarks": remarks,
    }
    members: dict[str, bytes | Path] = {
        "environment.json": (json.dumps(facts, indent=1) + "\n").encode(),
        "requirements.txt": "".join(f"{line}\n" for line in sorted(installed, key=str.lower)).encode(),
        "commands.sh": "".join(f"{line}\n" for line in sorted({record.command for record in records})).encode(),
    }
    if patch:
        members["dirty.patch"] = f"{patch}\n".encode()
        remarks.append("the checkout has changes that no commit holds; dirty.patch has those of tracked files")
    return members, remarks


def _overview(name: str, own: Iterable[Record], shipped: Iterable[Record]) -> str:
    lines = [
        f"# {name}",
        "",
        f"Runs of espalier {version('espalier')}. `espalier unpack FILE{ENDING}` checks every digest and merges them into a store;",
        f"`commands.sh` repeats them. Each checkpoint (`{WEIGHTS}`) has a card beside it: what it is, and how to load it without espalier.",
        "",
        *(f"- runs/{record.name}" for record in own),
        *(f"- shipped/{record.name}" for record in shipped),
    ]
    return "\n".join(lines) + "\n"
