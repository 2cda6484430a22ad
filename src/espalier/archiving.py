"""Take runs away: one archive of records, measurements, checkpoints with their cards, configs, and the surroundings of the packing.

An archive holds ``runs/`` (folders as in a store), ``shipped/`` (the reference records of the same rows), ``commands.sh``, and
``MANIFEST.json`` with the SHA-256 of each. ``environment.json``, ``requirements.txt`` (what is installed) and ``dirty.patch`` (where the
checkout has changes) are of the machine and the moment of packing; commit, versions and device of a run stand in its record. What was
packed twice from the same store is the same to the bit.
"""

import json
import platform
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import yaml

from espalier.archives import ENDING, MAX_TEXT_BYTES, WEIGHTS, write_archive
from espalier.cards import card
from espalier.checkout import git, is_checkout, patch
from espalier.composing import check_scale
from espalier.devices import cpu
from espalier.packing import check_digest
from espalier.record import Record, Store, read_record
from espalier.tables import published
from espalier.tables.names import did_you_mean


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
        ValueError: Nothing bears that name, there is no such scale, the file's ending is another, or a run's checkpoint is damaged or not
            the one its record speaks of.
        OSError: The file cannot be written.
    """
    path, place = Path(to), store or Store()
    if not path.name.endswith(ENDING):
        raise ValueError(f"--to {path} must end in {ENDING}, such as {path.name.partition('.')[0] or 'table'}{ENDING}.")
    if scale is not None:
        check_scale(scale)
    every, references = list(place.records()), dict(_shipped())
    is_meant = _chooser(name, scale, place, {(record.paper, record.table) for record in (*every, *references.values())})
    own = [record for record in every if is_meant(record)]
    shipped = {folder: record for folder, record in references.items() if is_meant(record)}
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


def _chooser(name: str, scale: str | None, store: Store, tables: Container[tuple[str, str]]) -> Callable[[Record], bool]:
    """Return whether a record is one that a name stands for: a table's or its dense baseline's, or one that it begins or matches.

    Args:
        name: What was asked for. A table of exactly that name comes before runs whose names begin so.
        scale: The scale asked for; None is all.
        store: Where comparisons lie.
        tables: (paper, table) of the records that there are: a table of theirs may be gone.
    """
    pattern = name.strip("/")
    of, _, rest = pattern.partition("/")
    paper = published.papers(store=store.root).get(of)
    is_known = paper is not None and rest in paper.table_names
    is_table = is_known or (of, rest) in tables
    dense = paper.table(rest).dense_row if paper is not None and is_known else None

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
        _check_weights(record, folder / WEIGHTS)
        same_row = [one for one in every if (one.paper, one.table, one.row, one.scale) == _row(record) and one.variant == record.variant]
        seeds = [one for one in same_row if not record.variant or _settings(one) == _settings(record)]
        members[f"{under}/{WEIGHTS}"] = folder / WEIGHTS
        members[f"{under}/README.md"] = card(record, folder / WEIGHTS, seeds, list(store.measurements(record.name))).encode()
    table = published.comparison_file(store.root, record.table)
    if record.paper == published.COMPARISONS and table.is_file():
        members[f"runs/{table.relative_to(store.root).as_posix()}"] = table
    return members


def _check_weights(record: Record, path: Path) -> None:
    try:
        check_digest(path, record.checkpoint)
    except ValueError as error:
        raise ValueError(f"{error} Move {path.parent} away and do the run anew, or move the file away to pack without it.") from error


def _row(record: Record) -> tuple[str, str, str, str]:
    return record.paper, record.table, record.row, record.scale


def _settings(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.config.items() if key != "seed"}


def _surroundings(records: Iterable[Record]) -> tuple[dict[str, bytes | Path], list[str]]:
    """Return how to repeat the runs and what they are packed with here and now, and what of that this machine cannot tell."""
    records = list(records)
    commit, changes, remarks = None, None, []
    if is_checkout():
        commit, changes = git("rev-parse", "HEAD"), patch()
        if commit is None:
            remarks.append("git is not on this machine, or this checkout has no history: the archive holds no commit and no patch")
    installed = {f"{one.metadata['Name']}=={one.version}" for one in distributions() if one.metadata["Name"]}
    facts = {
        "of": "the packing; what a run was made with stands in its record.json: commit, dirty, versions, device",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": str(cpu()),
        "commit": commit,
        "dirty": bool(changes),
        "commits_of_records": sorted({record.commit for record in records if record.commit is not None}),
        "remarks": remarks,
    }
    members: dict[str, bytes | Path] = {
        "environment.json": (json.dumps(facts, indent=1) + "\n").encode(),
        "requirements.txt": "".join(f"{line}\n" for line in sorted(installed, key=str.lower)).encode(),
        "commands.sh": "".join(f"{line}\n" for line in sorted({record.command for record in records})).encode(),
    }
    if changes and len(changes) <= MAX_TEXT_BYTES:
        members["dirty.patch"] = changes
        remarks.append("the checkout has changes that no commit holds; dirty.patch has those of tracked files, as of now, not of the runs")
    elif changes:
        remarks.append(f"the checkout's changes fill {len(changes):,} bytes, over the {MAX_TEXT_BYTES:,} of a patch; they were left out")
    return members, remarks


def _overview(name: str, own: Iterable[Record], shipped: Iterable[Record]) -> str:
    lines = [
        f"# {name}",
        "",
        f"Packed by espalier {version('espalier')}. `espalier unpack FILE{ENDING}` checks every digest and merges the runs into a store;",
        f"`commands.sh` repeats them. Each checkpoint (`{WEIGHTS}`) has a card beside it: what it is, and how to load it without espalier.",
        "",
        "`environment.json`, `requirements.txt` and, where there is one, `dirty.patch` tell of the machine and the checkout at the time of",
        "packing, which need not be those of the runs. What a run was made with stands in its `record.json`: `commit`, `dirty` (whether",
        "tracked files differed from it; how is not kept), `code_digest`, `versions` and `device`.",
        "",
        *(f"- runs/{record.name}" for record in own),
        *(f"- shipped/{record.name}" for record in shipped),
    ]
    return "\n".join(lines) + "\n"
