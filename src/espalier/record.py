"""One run's record: its schema, its identity and the store that keeps it.

A run is named by the hash of the keys that can change its result. Its folder is readable, ``PAPER/TABLE/ROW/SCALE/seed1-3f2a9c``,
and holds one ``record.json``, written once. A measurement (the same checkpoint on a frame, a device, a thread count) writes a record
of its own beside it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from espalier.files import write_once, write_over

Schema = TypeVar("Schema", bound=BaseModel)

Weights = Literal["trained", "random", "unknown"]

DIGEST_LENGTH = 6  # hex digits in a folder's name; the record holds the whole digest


class DataSource(BaseModel):
    """The data a run saw.

    Args:
        name: Name of the data set or subset.
        fingerprint: Hash of its images, labels and splits.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    fingerprint: str


class Record(BaseModel):
    """What one run of one row at one scale and seed gave. Written once, never edited.

    Args:
        paper: Paper whose table the row is of.
        table: That table.
        row: The row.
        scale: ``smoke``, ``desk`` or ``paper``.
        seed: Seed of weights, batches and draws.
        identity: Hash of ``config``; the run is named by its beginning.
        variant: Whether its config differs from what the row composes to; such a run never enters the row's cell.
        command: Command that repeats the run.
        commit: Commit of the code; None outside a repository.
        dirty: Whether tracked files differed from that commit.
        code_digest: Hash of the modules that the run used, comments and layout left out; a run is stale once they hash otherwise.
        config: The resolved config, without what cannot change a result.
        data: The data that it saw; None where it saw none.
        metrics: Figure by name, as listed above; None where it could not be had.
        series: Figures by epoch: name -> pairs of ``progress/epoch`` and value.
        steps: Step -> key of its State.
        checkpoint: Digest of the packed weights; None where none were kept.
        input_shape: Shape of one sample, channels first; None in records made before it was noted.
        versions: Package -> version.
        device: CPU or GPU that it trained on.
        started: When it began, ISO 8601, UTC.
        duration_s: Seconds that it took, steps taken from other runs left out.
    """

    model_config = ConfigDict(extra="forbid")
    paper: str
    table: str
    row: str
    scale: str
    seed: int
    identity: str
    variant: bool = False
    command: str
    commit: str | None
    dirty: bool
    code_digest: str
    config: dict[str, Any]
    data: DataSource | None
    metrics: dict[str, float | None]
    series: dict[str, list[tuple[float, float]]] = Field(default_factory=dict)
    steps: dict[str, str]
    checkpoint: str | None
    input_shape: tuple[int, ...] | None = None
    versions: dict[str, str]
    device: str
    started: str
    duration_s: float

    @property
    def name(self) -> str:
        """Return the run's name, which is its folder below the store."""
        return f"{self.paper}/{self.table}/{self.row}/{self.scale}/seed{self.seed}-{self.identity[:DIGEST_LENGTH]}"

    @property
    def trained(self) -> bool:
        """Return whether a step of it, or of a run that it went on from, trained its weights."""
        return bool(self.series.get("train/loss"))


class Measurement(BaseModel):
    """One timing of one checkpoint on one frame; times of different devices are never averaged.

    Args:
        checkpoint: Digest of the packed weights.
        weights: ``trained`` where a run says so, ``random`` where they were drawn for the measurement, ``unknown`` where nobody says.
        frame: The frame, a file of ``conf/frame``.
        kind: Whether a clock or a model gave the figures.
        engine: What ran the network.
        device: CPU or GPU that was timed.
        precision: Number format of the arithmetic.
        batch_size: Samples a pass.
        num_threads: Threads that the engine could use.
        num_warmup: Passes before the clock ran.
        num_runs: Passes timed one by one.
        metrics: Figure by name, as listed above.
        versions: Package -> version.
        started: When it began, ISO 8601, UTC.
    """

    model_config = ConfigDict(extra="forbid")
    checkpoint: str
    weights: Weights
    frame: str
    kind: Literal["measured", "modelled"]
    engine: str
    device: str
    precision: str
    batch_size: int
    num_threads: int
    num_warmup: int
    num_runs: int
    metrics: dict[str, float | None]
    versions: dict[str, str]
    started: str

    @property
    def identity(self) -> str:
        """Return the hash of what was measured where, figures and time of day aside."""
        keys = self.model_dump(exclude={"metrics", "started", "versions"})
        return digest(keys)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        ValueError: The file is no record; the message names the file, the key and what was expected.
    """
    return _read(path, Record)


def read_measurement(path: Path) -> Measurement:
    """Read one measurement's record; raises as ``read_record`` does."""
    return _read(path, Measurement)


def _read(path: Path, schema: type[Schema]) -> Schema:
    return parsed(path, schema, str(path), way_out="Move it away; its run is then done anew.")


def parsed(path: Path, schema: type[Schema], name: str, *, way_out: str) -> Schema:
    """Read a record or a measurement that a message calls by another name than its path, with another way out.

    Raises:
        ValueError: The file is none; the message has the name, the key, what was expected and the way out.
    """
    try:
        return schema.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{name} is no {schema.__name__.lower()}: {key}: {first['msg']}. {way_out}") from error


@lru_cache
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning("passed over: %s", message)


def store_root() -> Path:
    """Return the folder that holds the runs: ``ESPALIER_STORE``, else ``runs`` below the current folder."""
    return Path(os.environ.get("ESPALIER_STORE", "runs"))


class Store:
    """The runs of one folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = store_root() if root is None else root

    def folder(self, name: str) -> Path:
        """Return the folder of the run of that name."""
        return self.root / name

    def find(self, name: str) -> Record | None:
        """Return the record of the run ``name``; None where it has not finished."""
        path = self.folder(name) / "record.json"
        return read_record(path) if path.exists() else None

    def add(self, record: Record) -> Path:
        """File a finished run; raises ``FileExistsError`` if it has a record already."""
        path = self.folder(record.name) / "record.json"
        write_once(path, record.model_dump_json(indent=1) + "\n")
        return path

    def retire(self, record: Record) -> Path:
        """Move what a run left to ``.stale/<run>/<start>-<code>``, so that it can be done anew; return that folder. Nothing is deleted.

        The record moves last: a run whose move was interrupted still counts as done. The caller holds the run's lock, which stays.
        """
        place = self.root / ".stale" / record.name / f"{record.started.replace(':', '')}-{record.code_digest[:DIGEST_LENGTH]}"
        place.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder(record.name).iterdir(), key=lambda path: path.name == "record.json"):
            if path.name != ".lock":
                path.rename(place / path.name)
        return place

    def add_measurement(self, name: str, measurement: Measurement) -> Path:
        """File a measurement of the run ``name``."""
        path = self.folder(name) / "measurements" / f"{measurement.frame}-{measurement.identity[:DIGEST_LENGTH]}.json"
        write_over(path, measurement.model_dump_json(indent=1) + "\n")
        return path

    def records(self) -> Iterator[Record]:
        """Yield every record, ordered by name; a damaged one is passed over, with one warning that names it."""
        for path in sorted(self.root.glob("*/*/*/*/seed*/record.json")):
            try:
                record = read_record(path)
            except ValueError as error:
                _warn_once(str(error))
                continue
            yield record

    def measurements(self, name: str) -> Iterator[Measurement]:
        """Yield the measurements of one run."""
        for path in sorted((self.folder(name) / "measurements").glob("*.json")):
            yield read_measurement(path)
