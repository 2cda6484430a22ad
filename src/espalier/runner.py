"""The one path that every row takes: compose, run the steps that are not done, measure, write one record."""

import ast
import contextlib
import inspect
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn

from espalier.composing import composed, identity_of, register_rows, resolved, step_keys
from espalier.constraints import Assignment, assign
from espalier.data import ImageData
from espalier.devices import cpu
from espalier.files import make_folder
from espalier.frames.cpu import Cpu
from espalier.packing import pack
from espalier.record import DataSource, Measurement, Record, Store, digest
from espalier.steps import Context, State
from espalier.steps.context import OnEpoch
from espalier.tasks import accuracy
from espalier.tasks.journal import reseed
from espalier.tracking import WandbRun
from espalier.workload import workload

PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "numpy", "espalier")
RESULT_PACKAGES = ("constraints", "methods", "models", "data", "rewrites", "tasks", "steps")  # the modules that can change a result


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
    def name(self) -> str:
        """Return the run's folder below the store."""
        config = self.config
        return f"{config['paper']}/{config['table']}/{config['row']}/{config['scale']}/seed{config['seed']}-{self.digest[:6]}"


def plan(name: str, *, row: str, scale: str, seed: int, overrides: Sequence[str] = ()) -> Job:
    """Compose one row.

    Raises:
        ValueError: A name or key does not exist, or the data set of the scale is not on this machine.
    """
    register_rows(name, scale)
    return job_of(resolved(composed(name, [f"row={row}", f"scale={scale}", f"seed={seed}", *overrides])))


def job_of(config: dict[str, Any]) -> Job:
    """Return the job that a resolved config describes."""
    data = _data(digest(config["data"]), config["data"])
    identity = identity_of(config, data.fingerprint)
    plain = resolved(
        composed(f"{config['paper']}/{config['table']}", [f"row={config['row']}", f"scale={config['scale']}", f"seed={config['seed']}"])
    )
    plain_data = _data(digest(plain["data"]), plain["data"]) if plain["data"] != config["data"] else data
    return Job(config, identity, identity_of(plain, plain_data.fingerprint) != identity, data)


_DATA: dict[str, ImageData] = {}


def _data(key: str, config: Mapping[str, Any]) -> ImageData:
    if key not in _DATA:
        _DATA.clear()  # one data set in memory at a time
        _DATA[key] = built(config)
    return _DATA[key]


def built(config: Mapping[str, Any], **arguments: Any) -> Any:
    """Instantiate a config; an error that names its way out comes as itself, not wrapped in Hydra's.

    Raises:
        ValueError: The class refused its settings.
        ModuleNotFoundError: An extra is not installed.
    """
    try:
        return instantiate(config, **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError | ModuleNotFoundError):
            raise error.__cause__ from None
        raise ValueError(f"{config.get('_target_')} cannot be built: {str(error).splitlines()[0]}") from error


def execute(job: Job, *, store: Store, command: str, on_epoch: OnEpoch | None = None, measure: bool = True) -> Record:
    """Return the job's record, running whatever of it is not done.

    A second process that asks for the same run waits for the first and takes its record.

    Raises:
        ValueError: A step's settings don't fit, a kept file is damaged, or the loss is not finite.
    """
    folder = store.folder(job.name)
    make_folder(folder)
    with FileLock(folder / ".lock"):
        if (done := store.find(job.name)) is not None:
            return done
        torch.set_num_threads(job.config["num_threads"])
        started, clock = datetime.now(UTC), time.monotonic()
        tracker = _tracker(job, folder)
        listeners: list[OnEpoch] = [*([] if on_epoch is None else [on_epoch]), *([] if tracker is None else [tracker.log])]

        def tell(progress: int, figures: dict[str, float]) -> None:
            for listen in listeners:
                listen(progress, figures)

        state, keys = _run_steps(job, store, tell)
        model = state.rebuilt(partial(model_of, job.config))
        metrics, checkpoint = _final_figures(job, state, model, folder)
        record = Record(
            **{key: job.config[key] for key in ("paper", "table", "row", "scale", "seed")},
            identity=job.digest,
            variant=job.variant,
            command=command,
            **_commit(),
            code_digest=code_digest(),
            config=job.identity,
            data=DataSource(name=job.data.name, fingerprint=job.data.fingerprint),
            metrics=metrics,
            series={name: [(x, y) for x, y in points] for name, points in state.series.items()},
            steps=keys,
            checkpoint=checkpoint,
            versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            device=cpu().name,
            started=started.isoformat(timespec="seconds"),
            duration_s=round(time.monotonic() - clock, 3),
        )
        store.add(record)
        if tracker is not None:
            tracker.finish(metrics)
    if measure:
        store.add_measurement(job.name, time_eager(job, model, checkpoint))
    return record


def _tracker(job: Job, folder: Path) -> WandbRun | None:
    logger = job.config["logger"]
    if logger["_target_"] is None:
        return None
    tracker: WandbRun = built(logger, run_config=job.config, name=job.name, folder=folder, _recursive_=False, _convert_="all")
    return tracker


def time_eager(job: Job, model: nn.Module, checkpoint: str) -> Measurement:
    """Time the final model on the job's frame."""
    frame: Cpu = built(job.config["frame"])
    return frame.measure(model.eval(), torch.zeros(1, *job.data.input_shape), checkpoint=checkpoint, weights="trained")


def _run_steps(job: Job, store: Store, on_epoch: OnEpoch) -> tuple[State, dict[str, str]]:
    keys = step_keys(job.identity)
    state = State()
    folders: dict[str, Path] = {}
    for name, step in job.config["recipe"]["steps"].items():
        folder = folders[name] = store.root / ".steps" / keys[name][:16]
        make_folder(folder)
        with FileLock(folder / ".lock"):
            if (folder / "state.json").exists():
                state = State.load(folder)
                continue
            reseed(f"{job.config['seed']}/{keys[name]}")
            context = Context(
                name=name,
                key=keys[name],
                seed=job.config["seed"],
                folder=folder,
                data=job.data,
                model=partial(model_of, job.config),
                task=built(job.config["task"]),
                trainer=job.config["trainer"],
                test_every_epoch=job.config["test_every_epoch"],
                on_epoch=on_epoch,
                bn_images=job.config["bn_images"],
            )
            state = _step(step, name, folders)(state, context)
            state.save(folder)
            (folder / "last.ckpt").unlink(missing_ok=True)
    return state, keys


def model_of(config: Mapping[str, Any]) -> nn.Module:
    """Return the untrained model of a resolved config."""
    model: nn.Module = built(config["model"])
    return model.to(memory_format=torch.channels_last) if config["data"].get("channels_last") else model


def _step(config: Mapping[str, Any], name: str, folders: Mapping[str, Path]) -> Callable[[State, Context], State]:
    """Return the step of a config; a parameter annotated ``State`` takes the State of the earlier step that the config names.

    Its key needs no more: it hashes the name and, through the key of the step before, all earlier steps.
    """
    function = get_object(config["_target_"])
    knobs = {key: value for key, value in config.items() if key != "_target_"}
    known = dict(list(inspect.signature(function).parameters.items())[2:])
    if wrong := sorted(knobs.keys() ^ known.keys()):
        raise ValueError(f"step '{name}' takes {', '.join(known)}; {', '.join(wrong)} is missing or not known.")
    arguments = {
        key: _earlier(value, f"step '{name}': {key}", list(folders)[:-1], folders)
        if known[key].annotation is State
        else _argument(key, value)
        for key, value in knobs.items()
    }
    return lambda state, context: function(state, context, **arguments)


def _earlier(step: Any, what: str, earlier: Sequence[str], folders: Mapping[str, Path]) -> State:
    if step not in earlier:
        raise ValueError(f"{what}={step} names no earlier step; there are {', '.join(earlier) or 'none'}.")
    return State.load(folders[step])


def _argument(key: str, value: Any) -> Any:
    if key == "constraint":
        return assigner(value)
    return built(value) if isinstance(value, dict) else value


def assigner(config: Mapping[str, Any]) -> Callable[[nn.Module], Assignment]:
    """Return the function that gives each layer of a model the set that a constraint config describes."""
    make = built(config["set"])
    knobs = {key: value for key, value in config.items() if key != "set"}
    return lambda model: assign(model, make, **knobs)


def _final_figures(job: Job, state: State, model: nn.Module, folder: Path) -> tuple[dict[str, float | None], str]:
    model.eval()
    counts = workload(model, torch.zeros(1, *job.data.input_shape))
    meta = {"model": job.config["model"], "row": job.name, "metrics": state.metrics}
    meta |= {"rewrites": state.rewrites} if state.rewrites else {}  # the header counts as stored bytes
    packed = pack(folder / "model.safetensors", state.weights, state.frozen, meta)
    weights = sum(state.weights[name].numel() for name in counts.weight_names)
    dense = sum(tensor.numel() * tensor.element_size() for tensor in state.weights.values())
    metrics: dict[str, float | None] = {
        **state.metrics,
        "top1_pct": accuracy(model, job.data.test_loader()),
        "train/epochs": float(state.epochs),
        "weights": float(weights),
        "weights_nonzero": float(counts.weights_nonzero),
        "parameters": float(counts.parameters),
        "macs": float(counts.macs),
        "macs_effective": float(counts.macs_effective),
        "stored_bytes": float(packed.file_bytes),
        "dense_bytes": float(dense),
        "size_ratio": dense / packed.file_bytes,
        "rate": weights / max(counts.weights_nonzero, 1),
    }
    return metrics, packed.digest


def code_digest() -> str:
    """Return the hash of the modules that can change a result, comments and docstrings aside."""
    root = Path(__file__).parent
    parts = {}
    for package in RESULT_PACKAGES:
        for path in sorted((root / package).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:] or [ast.Pass()]
            parts[f"{package}/{path.name}"] = digest(ast.dump(tree))
    return digest(parts)


def _commit() -> dict[str, Any]:
    root = Path(__file__).parents[2]

    def git(*words: str) -> str | None:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607
        return None

    if not (root / "pyproject.toml").exists():
        return {"commit": None, "dirty": False}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def command_of(name: str, row: str, scale: str, seed: int, overrides: Sequence[str]) -> str:
    """Return the command that repeats a run."""
    return shlex.join(["espalier", "run", name, f"row={row}", f"scale={scale}", f"seed={seed}", *overrides])


def missing(
    name: str, *, scale: str, rows: Sequence[str] | None, seeds: Sequence[int] | None, overrides: Sequence[str], store: Store
) -> Iterator[tuple[Job, bool]]:
    """Yield each job of a table with whether it is done."""
    published = register_rows(name, scale)
    for row in rows or list(published.runnable):
        for seed in seeds if seeds is not None else published.seeds_of(row, scale):
            job = plan(name, row=row, scale=scale, seed=seed, overrides=overrides)
            yield job, store.find(job.name) is not None
