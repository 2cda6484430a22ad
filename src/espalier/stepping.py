"""A recipe's steps: built from their config, run in order or found done.

This module and what it imports count to every record's code digest (``espalier.code``), so it holds nothing else.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import torch
from filelock import FileLock, Timeout
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn

from espalier.constraints import Assignment, assign
from espalier.data import ImageData
from espalier.files import make_folder
from espalier.memory_format import channels_last
from espalier.steps import Context, State
from espalier.steps.context import DesignerContext, OnEpoch
from espalier.tasks.journal import by_epoch, reseed
from espalier.workload import uses


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


def model_of(config: Mapping[str, Any]) -> nn.Module:
    """Return the untrained model of a resolved config."""
    model: nn.Module = built(config["model"])
    return channels_last(model) if config["data"].get("channels_last") else model


def assigner(config: Mapping[str, Any], input_shape: Sequence[int] | None = None) -> Callable[[nn.Module], Assignment]:
    """Return the function that gives each layer of a model the set that a constraint config describes.

    Args:
        config: ``set`` and the arguments of ``espalier.constraints.assign``.
        input_shape: Of one sample; where the rate counts multiply-adds and the config gives no costs, they are counted for it.
    """
    make = built(config["set"])
    knobs = {key: value for key, value in config.items() if key != "set"}

    def assigned(model: nn.Module) -> Assignment:
        if knobs.get("rate_of") != "macs" or knobs.get("costs") or input_shape is None:
            return assign(model, make, **knobs)
        return assign(model, make, **{**knobs, "costs": uses(model, torch.zeros(1, *input_shape))})

    return assigned


Waiting = Callable[[], AbstractContextManager[None]]


def run_steps(
    config: Mapping[str, Any],
    *,
    keys: Mapping[str, str],
    folders: Mapping[str, Path],
    data: ImageData,
    on_epoch: OnEpoch,
    waiting: Waiting = nullcontext,
) -> State:
    """Return the State after the last step of a recipe.

    Args:
        config: The resolved config.
        keys: Step -> hash of all settings its result depends on; its generators are seeded from it.
        folders: Step -> where its State is kept; a State found there is taken, the step not run.
        data: The data set.
        on_epoch: Called once for every epoch of the row, also for those trained earlier; ``progress/step`` joins its figures.
        waiting: Entered while another process that runs the same step is waited for.

    Raises:
        ValueError: A step's settings don't fit, or a kept file is damaged.
    """
    state = State()
    for index, (name, step) in enumerate(config["recipe"]["steps"].items()):
        tell = partial(_tell, on_epoch, index)
        folder = folders[name]
        make_folder(folder)
        with _alone(folder, waiting):
            if (folder / "state.json").exists():
                before, state = state, State.load(folder)
                for progress, figures in by_epoch(state.series, after=before.epochs):
                    tell(progress, figures)
                continue
            reseed(f"{config['seed']}/{keys[name]}")
            context = Context(
                name=name,
                key=keys[name],
                seed=config["seed"],
                folder=folder,
                data=data,
                model=partial(model_of, config),
                task=built(config["task"]),
                trainer=config["trainer"],
                test_every_epoch=config["test_every_epoch"],
                on_epoch=tell,
                bn_images=config["bn_images"],
            )
            earlier = {done: folders[done] for done in list(config["recipe"]["steps"])[:index]}
            state = _step(step, name, earlier, data.input_shape)(state, context)
            state.save(folder)
            (folder / "last.ckpt").unlink(missing_ok=True)
    return state


@contextmanager
def _alone(folder: Path, waiting: Waiting) -> Iterator[None]:
    """Hold a step's lock."""
    lock = FileLock(folder / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with waiting():
                lock.acquire()
        yield
    finally:
        lock.release()


def _tell(on_epoch: OnEpoch, step: int, progress: int, figures: dict[str, float]) -> None:
    on_epoch(progress, {"progress/step": float(step), **figures})


def _step(
    config: Mapping[str, Any], name: str, earlier: Mapping[str, Path], input_shape: Sequence[int]
) -> Callable[[State, Context], State]:
    """Return the step of a config; a parameter annotated ``State`` takes the State of the earlier step that the config names.

    The step's key needs no more: it hashes the name and, through the key of the step before, all earlier steps. A step that asks for a
    ``DesignerContext`` is never handed the data.
    """
    function = get_object(config["_target_"])
    knobs = {key: value for key, value in config.items() if key != "_target_"}
    known = list(inspect.signature(function).parameters)[2:]
    if wrong := sorted(knobs.keys() ^ set(known)):
        raise ValueError(f"step '{name}' takes {', '.join(known)}; {', '.join(wrong)} is missing or not known.")
    hints = get_type_hints(function)
    arguments = {
        key: _earlier(value, f"step '{name}': {key}", earlier) if hints.get(key) is State else _argument(key, value, input_shape)
        for key, value in knobs.items()
    }
    blind = hints.get("context") is DesignerContext
    return lambda state, context: function(state, context.for_designer() if blind else context, **arguments)


def _earlier(step: Any, what: str, earlier: Mapping[str, Path]) -> State:
    if step not in earlier:
        raise ValueError(f"{what}={step} names no earlier step; there are {', '.join(earlier) or 'none'}.")
    return State.load(earlier[step])


def _argument(key: str, value: Any, input_shape: Sequence[int]) -> Any:
    if key == "constraint":
        return assigner(value, input_shape)
    return built(value) if isinstance(value, dict) else value
