"""What Python offers for any network: prune, project, measure, save and load it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from espalier.constraints import Assignment, Constraint, Sparse, Structure, Target, assign, prunable, structure
from espalier.frames import Cpu
from espalier.importing import make_importable
from espalier.packing import PackReport, pack, unpack
from espalier.record import digest
from espalier.rewrites import Rewrite, rewritten, shrunk, silence
from espalier.tables.published import experiment_roots
from espalier.trust import foreign
from espalier.workload import workload

SetFactory = Callable[..., Constraint]
_FROZEN = "espalier_frozen"  # attribute of a pruned model that holds its frozen sets
_REWRITES = "espalier_rewrites"  # attribute of a shrunk model that says how it came from the large one


def _factory(constraint: str | Structure | SetFactory) -> SetFactory:
    if isinstance(constraint, str):
        constraint = structure(constraint)
    if isinstance(constraint, Structure):
        grouping = constraint
        return lambda rate: Sparse(grouping, rate)
    return constraint


def project(weight: Tensor, *, constraint: str | Structure | SetFactory, rate: float | None = None) -> Tensor:
    """Return the nearest tensor in the set; ``weight`` is left as it was.

    Args:
        weight: A weight of any rank the structure fits.
        constraint: Name of a structure, a ``Structure``, or a function that builds a set (``rate`` is passed where it is given).
        rate: All groups / kept groups.

    Raises:
        ValueError: The name is unknown, the rate is out of range, or the weight doesn't fit the structure.
    """
    _check_rates(rate)
    made = _factory(constraint)() if rate is None else _factory(constraint)(rate=rate)
    target = Target("weight")
    return made.project({target: weight.detach()})[target]


def prune(
    model: nn.Module,
    *,
    constraint: str | Structure | SetFactory,
    rate: float | Mapping[str, float] | None = None,
    method: str = "magnitude",
    skip: Sequence[str] = (),
) -> nn.Module:
    """Return a pruned copy of ``model``; ``frozen(copy)`` gives the sets its weights now lie in, for masked retraining.

    Args:
        model: Any network with linear, convolution or recurrent layers.
        constraint: As for ``project``.
        rate: All groups / kept groups, for every layer or by glob.
        method: ``magnitude``, which needs no data. Methods that train run through ``espalier.run``, or by hand (``espalier.methods``).
        skip: Globs of layers to leave alone.

    Raises:
        ValueError: A layer does not fit, a glob matches nothing, or the method needs training.
    """
    if method != "magnitude":
        raise ValueError(
            f"method='{method}' trains; prune() offers magnitude. Use espalier.run, or espalier.methods in a loop of your own."
        )
    if not isinstance(model, nn.Module):
        raise ValueError(f"prune() takes a network, an nn.Module, not {type(model).__name__}.")
    if not prunable(model):
        raise ValueError(f"{type(model).__name__} has nothing to prune: no linear, convolution or recurrent layer.")
    if isinstance(skip, str):
        raise ValueError(f"skip={skip!r} is one word; write skip=({skip!r},).")
    _check_rates(rate)
    pruned = copy.deepcopy(model)
    rates = rate if isinstance(rate, Mapping) else None
    assignment = assign(pruned, _factory(constraint), rate=None if isinstance(rate, Mapping) else rate, rates=rates, skip=skip)
    with torch.no_grad():
        weights = assignment.read(pruned)
        sets = assignment.freeze(weights)
        sets.write(pruned, sets.project(assignment.project(weights)))
    hold(pruned, sets)
    return pruned


def _check_rates(rate: object) -> None:
    for one in rate.values() if isinstance(rate, Mapping) else [rate]:
        if one is not None and (isinstance(one, bool) or not isinstance(one, Real)):
            raise ValueError(f"rate={one!r} is no number; write rate=2, or rate={{'conv*': 2}} by layer.")


def hold(model: nn.Module, sets: Assignment | None) -> None:
    """Note the frozen sets that a model's weights lie in, for ``frozen`` to return; None notes that there are none."""
    object.__setattr__(model, _FROZEN, sets)


def frozen(model: nn.Module) -> Assignment | None:
    """Return the frozen sets of a model that ``prune`` or ``load`` gave; None for any other."""
    sets = getattr(model, _FROZEN, None)
    return sets if isinstance(sets, Assignment) else None


def shrink(model: nn.Module, example: Tensor, *, silent: bool = False) -> nn.Module:
    """Return a small dense copy of a pruned network: filters that nobody reads and channels that nothing feeds are cut out.

    It computes what ``model`` computes in evaluation mode, which is checked on ``example``. ``save`` notes how to rebuild it, and
    ``frozen`` gives its masks. An empty filter with a bias, or with batch norm behind it, writes a constant and stays.

    Args:
        model: A network that ``torch.fx`` can follow, pruned by whatever means.
        example: A batch of what it takes.
        silent: Take the constants of empty filters away first. Far more is cut, and the outputs change: look at the accuracy, and retrain
            if it fell. Training within sets that ``espalier.rewrites.silence`` gave needs no such thing.

    Raises:
        ValueError: ``torch.fx`` cannot follow it.
        RuntimeError: An output changed by more than 1e-4 of the largest.
    """
    small = shrunk(silence(model, example)[0] if silent else model, example)
    hold(small.model, small.frozen(frozen(model)))
    object.__setattr__(small.model, _REWRITES, [*getattr(model, _REWRITES, []), small.rewrite])
    return small.model


def save(model: nn.Module, path: str | Path, *, config: Mapping[str, Any] | None = None, rewrites: Sequence[Rewrite] = ()) -> PackReport:
    """Write a packed checkpoint; print the report to see where its bytes go.

    Args:
        model: A network; pruned layers are stored sparse.
        path: File to write, ``.safetensors``.
        config: How to rebuild the model, ``{"_target_": ..., **arguments}``; without it ``load`` wants a model to fill.
        rewrites: What was done to the model that ``config`` builds, ``{"_target_": ..., **arguments}`` each; ``load`` does it again.
            Those that ``shrink`` and ``load`` noted join by themselves.
    """
    rewrites = [*rewrites, *(noted for noted in getattr(model, _REWRITES, []) if noted not in rewrites)]
    meta = {"model": dict(config) if config else None, **({"rewrites": [dict(rewrite) for rewrite in rewrites]} if rewrites else {})}
    return pack(Path(path), model.state_dict(), frozen(model), meta)


def load(path: str | Path, model: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """Return the network of a packed checkpoint.

    Args:
        path: A file, or the name of a shipped checkpoint such as ``progressive-admm/lenet5-246x``.
        model: A network to rewrite as the header says and to fill; None builds it from the header.
        trust: Whether the header may name a model or rewrite outside espalier and timm.

    Raises:
        ValueError: The file is missing or damaged, names code outside the trusted packages, or doesn't fit ``model``.
    """
    weights, sets, meta = unpack(_checkpoint(path))
    if model is None:
        config = meta.get("model")
        if not config:
            raise ValueError(f"{path} does not say how to rebuild its model; pass one: espalier.load(path, model).")
        _check_trust(path, config, trust=trust)
        make_importable()
        model = instantiate(config)
    assert model is not None
    _check_trust(path, meta.get("rewrites", []), trust=trust)
    model = rewritten(model, meta.get("rewrites", []))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {type(model).__name__}: {error}") from error
    hold(model, sets)
    object.__setattr__(model, _REWRITES, meta.get("rewrites", []))
    return model.eval()


def _check_trust(path: str | Path, config: Any, *, trust: bool) -> None:
    if not trust and (names := foreign(config)):
        raise ValueError(f"{path} names {', '.join(names)}; pass trust=True if you know the file, or the model itself.")


def _checkpoint(path: str | Path) -> Path:
    if Path(path).exists():
        return Path(path)
    paper, _, name = str(path).partition("/")
    shipped = [root / paper / "checkpoints" / f"{name}.safetensors" for root in experiment_roots()]
    if found := next((candidate for candidate in shipped if candidate.exists()), None):
        return found
    known = ", ".join(
        f"{file.parents[1].name}/{file.stem}" for root in experiment_roots() for file in root.glob("*/checkpoints/*.safetensors")
    )
    raise ValueError(f"there is neither a file nor a shipped checkpoint '{path}'; shipped: {known or 'none yet'}.")


def measure(
    model: nn.Module, example: Tensor, *, num_threads: int = 1, batch_size: int = 1, num_warmup: int = 20, num_runs: int = 200
) -> pd.Series:
    """Count and time any network on this machine's CPU: one figure a line, by the names of ``espalier.metrics``.

    Finished runs are measured by name, and the times filed beside them, with ``espalier.measure_runs``.

    Args:
        model: The network.
        example: One sample, ``(1, ...)``.
        num_threads: Threads PyTorch may use, at least 1.
        batch_size: Samples a timed pass.
        num_warmup: Passes before the clock runs.
        num_runs: Passes timed one by one.
    """
    counts = workload(model, example)
    taken = Cpu(num_threads, batch_size, num_warmup, num_runs).measure(model, example, checkpoint=digest(""), weights="unknown")
    figures = {
        "parameters": counts.parameters,
        "weights": counts.weights,
        "weights_nonzero": counts.weights_nonzero,
        "macs": counts.macs,
        "macs_effective": counts.macs_effective,
        **taken.metrics,
        "device": taken.device,
        "num_threads": num_threads,
        "batch_size": batch_size,
    }
    return pd.Series(figures, name=type(model).__name__)


__all__ = ["frozen", "load", "measure", "project", "prune", "save", "shrink"]
