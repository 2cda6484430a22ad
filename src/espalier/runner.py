"""The one path that every row takes: compose, run the steps that are not done, measure, write one record."""

import logging
import platform
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from hydra.utils import get_object
from torch import nn

from espalier.checkout import git, is_checkout
from espalier.code import code_digest, is_stale, step_digests
from espalier.composing import composed, identity_of, refilled, register_rows, resolved, step_keys
from espalier.constraints import Assignment
from espalier.data import ImageData
from espalier.devices import cpu
from espalier.figures import final_figures
from espalier.files import WAY_OUT, make_folder
from espalier.frames.cpu import Cpu
from espalier.frames.machine import SHARE
from espalier.packing import PackReport
from espalier.record import DataSource, Measurement, Record, Store, Weights, digest
from espalier.refusals import refuse_constraints, refuse_idle_rates, refuse_network
from espalier.stepping import built, model_of, run_steps
from espalier.steps.context import OnEpoch
from espalier.steps.measuring import is_measuring
from espalier.tracking import WandbRun

Rerun = Literal["stale"] | None  # which finished runs are done anew

PATIENCE_S = 1.0  # a process waits this long for another that runs the same before it says so
PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "numpy", "espalier")


@dataclass(frozen=True)
class Job:
    """One row at one scale and seed, composed and named.

    Args:
        config: The resolved config.
        identity: Its keys that can change the result.
        variant: Whether it differs from what the row composes to.
        data: The data set, read.
    """

    config: dict[str, Any]
    identity: dict[str, Any]
    variant: bool
    data: ImageData

    @property
    def digest(self) -> str:
        """Return the hash that names the run."""
        return digest(self.identity)

    @property
    def code(self) -> str:
        """Return the hash of the modules it uses."""
        return code_digest(self.identity)

    @property
    def name(self) -> str:
        """Return the run's folder below the store."""
        config = self.config
        return f"{config['paper']}/{config['table']}/{config['row']}/{config['scale']}/seed{config['seed']}-{self.digest[:6]}"


def plan(name: str, *, row: str, scale: str, seed: int, overrides: Sequence[str] = (), store: Path | None = None) -> Job:
    """Compose one row; ``store`` is the root of the store whose comparisons are meant.

    Raises:
        ValueError: A name or key does not exist, the data set of the scale is not on this machine, or an override names row, scale or seed
            again, or gives a rate that no step reads.
    """
    if again := [word for word in overrides if word.partition("=")[0].lstrip("+~") in ("row", "scale", "seed")]:
        raise ValueError(f"{again[0]} would file the run where its data were not chosen for; give row, scale and seed by themselves.")
    register_rows(name, scale, store=store)
    config = composed(name, [f"row={row}", f"scale={scale}", f"seed={seed}", *overrides], store=store)
    job = job_of(resolved(config), plain=not overrides, store=store)
    refuse_idle_rates(config, overrides)
    return job


def job_of(config: dict[str, Any], *, plain: bool = False, store: Path | None = None) -> Job:
    """Return the job that a resolved config describes; ``plain`` says that it is what its row composes to."""
    data = _data(digest(config["data"]), config["data"])
    identity = identity_of(config, data.fingerprint)
    if plain:
        return Job(config, identity, False, data)
    name = f"{config['paper']}/{config['table']}"
    register_rows(name, config["scale"], store=store)
    words = [f"row={config['row']}", f"scale={config['scale']}", f"seed={config['seed']}"]
    unchanged = resolved(composed(name, words, store=store))
    return Job(config, identity, identity_of(unchanged, data.fingerprint) != identity, data)


_DATA: dict[str, ImageData] = {}


def _data(key: str, config: Mapping[str, Any]) -> ImageData:
    if key not in _DATA:
        _DATA.clear()  # one data set in memory at a time
        _DATA[key] = built(config)
    return _DATA[key]


def execute(job: Job, *, store: Store, command: str, on_epoch: OnEpoch | None = None, rerun: Rerun = None) -> Record:
    """Return the job's record, running whatever of it is not done.

    A second process that asks for the same run says that it waits for the first, and takes its record.

    Args:
        job: The run.
        store: Where it lives.
        command: The command that repeats it.
        on_epoch: Called once for every epoch of the row, also for those that another row or an interrupted run trained.
        rerun: ``stale`` does the run anew if its code has changed since; what it left moves to ``.stale`` in the store. Steps need no
            such word: they are never taken from other code (``espalier.code.step_digests``).

    Raises:
        ValueError: A step's settings don't fit, a kept file is damaged, or the loss is not finite.
        OSError: The store cannot be written.
    """
    folder = store.folder(job.name)
    if store.find(job.name) is None:
        with SHARE.hold():
            refuse_network(job.config, job.data)
            refuse_constraints(job.config, job.data.input_shape)
    make_folder(folder)
    with _alone(folder, job.name):
        done = store.find(job.name)
        if done is not None and not (rerun == "stale" and is_stale(done)):
            return done
        if done is not None:
            store.retire(done)
        torch.set_num_threads(job.config["num_threads"])
        with _tracker(job, folder) as tracker:
            listeners = [listen for listen in (on_epoch, None if tracker is None else tracker.log) if listen is not None]
            with SHARE.hold():
                record, packed = _made(job, store, command, listeners)
            if tracker is not None:
                tracker.summarise(record, packed)
    return record


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Hold a run's lock; say so where another process holds it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        logging.getLogger(__name__).warning("waiting for another process that runs %s; it holds %s", name, lock.lock_file)
        lock.acquire()
    except OSError as error:
        raise OSError(f"cannot write {lock.lock_file}: {error.strerror}; {WAY_OUT}") from error
    try:
        yield
    finally:
        lock.release()


def _made(job: Job, store: Store, command: str, listeners: Sequence[OnEpoch]) -> tuple[Record, PackReport]:
    """Run the steps, take the figures, time the network, file the record last; return it with the bytes of its checkpoint.

    The caller holds a share of the machine.
    """
    started, clock = datetime.now(UTC), time.monotonic()

    def tell(progress: int, figures: dict[str, float]) -> None:
        for listen in listeners:
            listen(progress, figures)
        SHARE.make_way()

    keys = step_keys(job.identity)
    folders = {name: store.root / ".steps" / folder for name, folder in step_folders(job.identity).items()}
    state = run_steps(job.config, keys=keys, folders=folders, data=job.data, on_epoch=tell, waiting=SHARE.lent)
    final = {**job.config, "model": refilled(job.config["model"])}
    model = state.rebuilt(partial(model_of, final))
    meta = {"model": final["model"], "row": job.name}
    metrics, packed = final_figures(state, model, data=job.data, path=store.folder(job.name) / "model.safetensors", meta=meta)
    record = Record(
        **{key: job.config[key] for key in ("paper", "table", "row", "scale", "seed")},
        identity=job.digest,
        variant=job.variant,
        command=command,
        **_commit(),
        code_digest=job.code,
        config=job.identity,
        data=DataSource(name=job.data.name, fingerprint=job.data.fingerprint),
        metrics=metrics,
        series={name: [(x, y) for x, y in points] for name, points in state.series.items()},
        steps=keys,
        checkpoint=packed.digest,
        input_shape=job.data.input_shape,
        versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        device=cpu().name,
        started=started.isoformat(timespec="seconds"),
        duration_s=round(time.monotonic() - clock, 3),
    )
    weights: Weights = "trained" if record.trained else "unknown"
    store.add_measurement(job.name, time_eager(job, model, packed.digest, weights, state.frozen))
    store.add(record)  # whoever finds the record finds its measurement
    return record, packed


def step_folders(identity: Mapping[str, Any]) -> dict[str, str]:
    """Return step -> name of the folder that keeps its State: its key, its code, and the CPU from the first step on that measures.

    Like the code, the CPU stays out of the key, which seeds the step.
    """
    keys, codes = step_keys(identity), step_digests(identity)
    folders, device = {}, ""
    for name, step in identity["steps"]:
        if is_measuring(get_object(step["_target_"])):
            device = f"-{digest(cpu().name)[:6]}"
        folders[name] = f"{keys[name][:16]}-{codes[name][:6]}{device}"
    return folders


def _tracker(job: Job, folder: Path) -> AbstractContextManager[WandbRun | None]:
    logger = job.config["logger"]
    if logger["_target_"] is None:
        return nullcontext()
    facts = {"run_config": job.config, "name": job.name, "code": job.code, "folder": folder}
    tracker: WandbRun = built(logger, **facts, _recursive_=False, _convert_="all")
    return tracker


def time_eager(job: Job, model: nn.Module, checkpoint: str, weights: Weights, frozen: Assignment | None) -> Measurement:
    """Time the final model on the job's frame."""
    frame: Cpu = built(job.config["frame"])
    return frame.measure(model.eval(), torch.zeros(1, *job.data.input_shape), checkpoint=checkpoint, weights=weights, frozen=frozen)


def _commit() -> dict[str, Any]:
    if not is_checkout():
        return {"commit": None, "dirty": False}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def command_of(name: str, row: str, scale: str, seed: int, overrides: Sequence[str]) -> str:
    """Return the command that repeats a run."""
    return shlex.join(["espalier", "run", name, f"row={row}", f"scale={scale}", f"seed={seed}", *overrides])
