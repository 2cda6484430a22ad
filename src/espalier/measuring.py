"""Measure finished runs later, or on another machine: the model is rebuilt from the run's packed checkpoint and timed on a frame."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import get_object
from rich.console import Console
from torch import nn

from espalier.composing import config_dir, own_config_dir, refilled
from espalier.frames import CompiledCpu, Cpu
from espalier.importing import make_importable
from espalier.interface import frozen, hold
from espalier.inventory import matching
from espalier.packing import check_digest, unpack
from espalier.progress import progress_bar
from espalier.record import Measurement, Record, Store, Weights
from espalier.rewrites import rewritten
from espalier.stepping import built, model_of
from espalier.tables.names import did_you_mean


def measure_runs(
    names: str | Sequence[str],
    *,
    frame: str = "cpu",
    num_threads: int | None = None,
    batch_size: int | None = None,
    num_warmup: int | None = None,
    num_runs: int | None = None,
    store: Store | None = None,
    console: Console | None = None,
) -> dict[str, Measurement]:
    """Time finished runs and file a measurement beside each; return run -> measurement.

    A second measurement in the same setting (device, threads, batch, precision, frame) takes the place of the first.

    Args:
        names: Runs: their names, beginnings of names, or globs.
        frame: A file of ``conf/frame``.
        num_threads: Threads PyTorch may use; None takes the frame's.
        batch_size: Samples a pass; None takes the frame's.
        num_warmup: Passes before the clock runs; None takes the frame's.
        num_runs: Passes timed one by one; None takes the frame's.
        store: Where the runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: There is no such run or frame, or a run's checkpoint is missing, damaged, or not the one its record speaks of.
    """
    place = store or Store()
    wanted = {record.name: record for name in ([names] if isinstance(names, str) else names) for record in matching(name, place)}
    knobs = {"num_threads": num_threads, "batch_size": batch_size, "num_warmup": num_warmup, "num_runs": num_runs}
    timer: Cpu | CompiledCpu = built(_frame(frame) | {name: value for name, value in knobs.items() if value is not None})
    taken = {}
    with progress_bar(console, "runs") as progress:
        bar = progress.add_task("", total=len(wanted))
        for name, record in wanted.items():
            progress.update(bar, description=f"{record.row} seed {record.seed}")
            model = trained_model(record, place)
            example = torch.zeros(1, *input_shape_of(record))
            weights: Weights = "trained" if record.trained else "unknown"
            taken[name] = timer.measure(model, example, checkpoint=str(record.checkpoint), weights=weights, frozen=frozen(model))
            place.add_measurement(name, taken[name])
            progress.advance(bar)
    return taken


def trained_model(record: Record, store: Store) -> nn.Module:
    """Return the final network of a run, in evaluation mode; ``frozen`` gives the sets its weights lie in.

    Raises:
        ValueError: Its checkpoint is missing, damaged, not the one the record speaks of, or does not fit the model as it is now.
    """
    path = store.folder(record.name) / "model.safetensors"
    way_out = f"copy it from where it was trained, or move {path.parent} away and train it anew: {record.command}"
    if not path.exists():
        raise ValueError(f"{path} is missing; {way_out}")
    try:
        check_digest(path, record.checkpoint)
        weights, sets, meta = unpack(path)
    except ValueError as error:
        raise ValueError(f"{error} To mend it, {way_out}") from error
    make_importable()
    config = {**record.config, "model": refilled(record.config["model"])}
    model = rewritten(model_of(config), meta.get("rewrites", []))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {type(model).__name__} as it is now ({error}); {way_out}") from error
    hold(model, sets)
    return model.eval()


def input_shape_of(record: Record) -> tuple[int, ...]:
    """Return the shape of one sample that a run's network takes."""
    if record.input_shape is not None:
        return record.input_shape
    settings = dict(record.config["data"])
    if "root" in inspect.signature(get_object(settings["_target_"])).parameters:
        settings["root"] = None  # where the data lie is no part of a run's identity
    shape: tuple[int, ...] = built(settings).input_shape
    return shape


def _frame(name: str) -> dict[str, Any]:
    folders = [Path(folder) / "frame" for folder in (own_config_dir(), config_dir()) if folder is not None]
    known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise ValueError(f"frame={name} is not known; {did_you_mean(name, known)}")
    config: dict[str, Any] = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    return config
