"""What ``espalier bench`` runs: a network by name with random weights and masks, a finished run, a packed checkpoint, or the user's own."""

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from espalier.composing import config_dir
from espalier.constraints import STRUCTURES, Assignment, Sparse, Structure, Support, assign, prunable, read_rate_file
from espalier.constraints.sparse import checked_rate
from espalier.devices import cpu
from espalier.frames.groups import preferred_group
from espalier.interface import frozen, hold, load
from espalier.inventory import find
from espalier.measuring import input_shape_of, trained_model
from espalier.models.from_timm import input_of, timm_model
from espalier.packing import content_digest, unpack
from espalier.record import Store
from espalier.stepping import built
from espalier.tables.published import rate_file
from espalier.untrained import calibrate, prune_at_random, randomise
from espalier.workload import uses, workload

CLIP, PHOTOGRAPH, THUMBNAIL = (3, 16, 112, 112), (3, 224, 224), (3, 32, 32)
NUM_CLASSES = 1000  # of timm's networks
GROUPED = ("block_punched", "kgs", "vanilla", "block_column")  # structures whose blocks count filters, or filters and channels
SAME_RATE = 0.01  # relative: a rate this near to a file's own means that file
SPLIT_STRUCTURE = "kgs"  # that the rate files were found for


@dataclass(frozen=True)
class Known:
    """A network that bears a name here.

    Args:
        shape: Of one sample.
        config: Its file in ``conf/model``; None where timm has it.
        timm: timm's name.
        splits: Rate of its multiply-adds -> rate file that says which layers bear it, for groups of ``SPLIT_STRUCTURE``.
    """

    shape: tuple[int, ...]
    config: str | None = None
    timm: str | None = None
    splits: dict[float, str] = field(default_factory=dict)


KNOWN: dict[str, Known] = {
    "vgg16_cifar": Known(THUMBNAIL, config="vgg16_bn_cifar"),
    "mobilenetv2": Known(PHOTOGRAPH, timm="mobilenetv2_100"),
    "c3d": Known(CLIP, config="c3d", splits={2.53: "rt3d/c3d-2.53x", 3.57: "rt3d/c3d-3.57x"}),
    "r2plus1d_18": Known(CLIP, config="r2plus1d_18", splits={2.56: "rt3d/r2plus1d_18-2.56x", 3.2: "rt3d/r2plus1d_18-3.20x"}),
}


@dataclass(frozen=True)
class Subject:
    """A network and what it is fed.

    Args:
        name: As it was asked for.
        model: In evaluation mode, pruned.
        inputs: Two batches of one.
        weights: ``random`` where they were drawn here, ``trained`` where a run says so, ``as given`` where nobody does.
        constraint: Labels of the structures of its weights; empty where none is known.
        group: Filters x channels of a group, such as ``32x4``; None where groups are no such blocks.
        split: Where the rates of the layers come from: a rate file, ``uniform``, ``dense`` or ``checkpoint``.
        macs: Multiply-adds of one sample, zeros included.
        macs_effective: Those whose weight is not zero.
    """

    name: str
    model: nn.Module
    inputs: tuple[Tensor, Tensor]
    weights: Literal["random", "trained", "as given"]
    constraint: tuple[str, ...]
    group: str | None
    split: str
    macs: int
    macs_effective: int

    @property
    def rate_macs(self) -> float:
        """Return the rate that was counted."""
        return self.macs / self.macs_effective


def random_subject(
    name: str, *, constraint: str, rate: float, group: Sequence[int] | None = None, shape: Sequence[int] | None = None, seed: int = 0
) -> Subject:
    """Return a network by name with seeded random weights and masks.

    Rates of layers come from the network's rate file where it has one of that rate; else all layers have the one rate with which the whole
    network meets it, the stem, grouped convolutions and layers of a single group aside, which stay dense.

    Args:
        name: A name of ``KNOWN``, a file of ``conf/model`` for 32x32 images, or any of timm.
        constraint: A structure.
        rate: Multiply-adds of the whole network / those kept, at least 1; 1 prunes nothing.
        group: Filters and channels of a group; None takes the one that this machine's kernels like.
        shape: Of one sample; None takes the network's.
        seed: Of weights, masks and inputs.

    Raises:
        ValueError: There is no such network or structure (close names are listed), or the rate is out of reach.
    """
    rate, structure = checked_rate(rate), _sized(constraint, group)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, own_shape = _built(name)
    generator = torch.Generator().manual_seed(seed)
    randomise(model, generator)
    example = torch.randn(1, *(own_shape if shape is None else shape), generator=generator)
    sets, split = (None, "dense") if rate == 1 else _assigned(name, model.eval(), example, structure, rate)
    if sets is not None:
        hold(model, prune_at_random(model, sets, generator))
    calibrate(model, example, generator)
    return _subject(name, model, example, "random", split, seed)


def run_subject(
    name: str, *, store: Store | None = None, shape: Sequence[int] | None = None, seed: int = 0, word: str = "input="
) -> Subject:
    """Return a finished run's network, or that of a packed checkpoint.

    Args:
        name: A run, the beginning of one, or a file.
        store: Where runs live; None takes ``ESPALIER_STORE``, else ``runs``.
        shape: Of one sample; a run knows its own, a file does not.
        seed: Of the inputs.
        word: How the shape is given, for the message.

    Raises:
        ValueError: There is no such run, its checkpoint is damaged, or a file comes without the shape of its input, or does not say
            how to rebuild its network.
    """
    path, place = Path(name), Store() if store is None else store
    if path.is_file():
        if shape is None:
            like = f"{word}3x32x32" if word.endswith("=") else f"{word} 3x32x32"
            raise ValueError(f"{name} does not say what its network takes; add {word}, such as {like}.")
        meta = unpack(path)[2]
        if not meta.get("model"):
            raise ValueError(
                f"{name} does not say how to rebuild its network, which only Python can then do: model = espalier.load('{name}', network), "
                "and that model to espalier.bench or espalier.compile; or save it with config=."
            )
        run = place.find(str(meta.get("row", "")))
        known = run is not None and run.trained and run.checkpoint == content_digest(path)
        return _subject(name, load(path), torch.zeros(1, *shape), "trained" if known else "as given", "checkpoint", seed)
    record = find(name, place)
    model = trained_model(record, place)
    example = torch.zeros(1, *(input_shape_of(record) if shape is None else shape))
    return _subject(record.name, model, example, "trained" if record.trained else "as given", "checkpoint", seed)


def own_subject(model: nn.Module, example: Tensor | None, *, seed: int = 0) -> Subject:
    """Return a copy of the user's network, with the zeros and frozen sets that it has; ``seed`` is of the inputs.

    Raises:
        ValueError: It comes without an example, or with more than one sample.
    """
    if example is None or example.shape[0] != 1:
        found = "none" if example is None else f"{example.shape[0]} samples"
        raise ValueError(f"example: a network of your own needs a batch of one that it takes, and has {found}.")
    return _subject(type(model).__name__, copy.deepcopy(model).eval(), example, "as given", "checkpoint", seed)


def _subject(
    name: str, model: nn.Module, example: Tensor, weights: Literal["random", "trained", "as given"], split: str, seed: int
) -> Subject:
    counts = workload(model, example)
    if counts.macs_effective == 0:
        raise ValueError(f"{name} has no layer with weights that are not zero; there is nothing to compile.")
    generator = torch.Generator().manual_seed(seed + 1)  # another stream than that of the weights
    inputs = (torch.randn(example.shape, generator=generator), torch.randn(example.shape, generator=generator))
    labels = _labels(frozen(model))
    sizes = {label.partition(" ")[2] for label in labels}
    group = next(iter(sizes)) if len(sizes) == 1 and "" not in sizes else None
    model.requires_grad_(requires_grad=False)
    return Subject(name, model, inputs, weights, labels, group, split, counts.macs, counts.macs_effective)


def _labels(sets: Assignment | None) -> tuple[str, ...]:
    """Return the labels of the structures that sets were frozen from."""
    if sets is None:
        return ()
    return tuple(dict.fromkeys(constraint.structure for _, constraint in sets.parts if isinstance(constraint, Support)))


def _built(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    known = KNOWN.get(name)
    configs = {path.stem for path in (config_dir() / "model").glob("*_cifar.yaml")}
    config = known.config if known is not None else name if name in configs else None
    if config is not None:
        shape = THUMBNAIL if known is None else known.shape
        content: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "model" / f"{config}.yaml"), resolve=True)
        return built({**content, "in_channels": shape[0]}), shape
    import timm  # noqa: PLC0415  seconds to import; only where it is asked for

    title = name if known is None or known.timm is None else known.timm
    if not timm.is_model(title):
        near = difflib.get_close_matches(name, [*KNOWN, *configs, *timm.list_models()], n=3, cutoff=0.0)
        raise ValueError(f"model={name} is neither one of {', '.join(KNOWN)} nor in timm {timm.__version__}; nearest: {', '.join(near)}.")
    model = timm_model(name=title, num_classes=NUM_CLASSES, in_channels=3, pretrained=False)
    side = input_of(title)["size"]
    return model, (3, side, side)


def _sized(constraint: str, group: Sequence[int] | None) -> Structure:
    if constraint not in STRUCTURES:
        others = [path.stem for path in (config_dir() / "constraint").glob("*.yaml")]
        if constraint in others:
            raise ValueError(
                f"constraint={constraint} keeps no groups of weights that masks could be drawn of; take {', '.join(STRUCTURES)}, or bench "
                "a run that was trained with it."
            )
        near = difflib.get_close_matches(constraint, STRUCTURES, n=3, cutoff=0.3) or list(STRUCTURES)
        raise ValueError(f"constraint={constraint} is no structure; nearest: {', '.join(near)}.")
    structure = STRUCTURES[constraint]
    if group is not None:
        return structure.sized(group)
    return structure.sized(preferred_group(cpu().flags)[: len(structure.blocks)]) if constraint in GROUPED else structure


def _assigned(name: str, model: nn.Module, example: Tensor, structure: Structure, rate: float) -> tuple[Assignment, str]:
    splits = KNOWN[name].splits if name in KNOWN and structure.name == SPLIT_STRUCTURE else {}
    for own_rate, file in splits.items():
        if abs(rate / own_rate - 1) <= SAME_RATE:
            return assign(model, partial(Sparse, structure), rates=read_rate_file(rate_file(file)).rates), file
    costs = dict.fromkeys(prunable(model), 0.0) | uses(model, example)
    skip = _dense(model, structure, costs)
    return assign(model, partial(Sparse, structure), rate=rate, rate_of="macs", costs=costs, skip=skip), "uniform"


def _dense(model: nn.Module, structure: Structure, costs: dict[str, float]) -> list[str]:
    """Return the layers that stay dense: the first, grouped convolutions, those of one group, and those that no sample passes."""
    names = prunable(model)
    found = names[:1]
    for name in names[1:]:
        layer, shape = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name).shape
        grouped = isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.groups > 1
        if grouped or costs[name] == 0 or _num_groups(structure, shape) < 2:
            found.append(name)
    return found


def _num_groups(structure: Structure, shape: Sequence[int]) -> int:
    try:
        return structure.num_groups(shape)
    except ValueError:  # the weight lacks an axis, as a linear layer lacks kernels
        return 0
