"""What is refused before anything trains: rates that no step reads, and constraints that a layer cannot meet."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import nn

from espalier.composing import resolved
from espalier.data import ImageData
from espalier.methods.groups import check_grouped
from espalier.stepping import assigner, built, model_of
from espalier.steps import decide

RATE_KEYS = ("rate", "sparsity", "constraint.rate", "constraint.rates", "constraint.kept")
REWRITERS = ("espalier.steps.rewrite", "espalier.steps.shrink")


def refuse_idle_rates(config: DictConfig, overrides: Sequence[str]) -> None:
    """Check that each rate among the overrides changes a step.

    Args:
        config: What the overrides compose to.
        overrides: The user's own words, without those of the row.

    Raises:
        ValueError: A rate changes nothing; the message says which file takes its place, or that no step reads one.
    """
    for word in overrides:
        name = word.partition("=")[0].lstrip("+")
        key = next((key for key in RATE_KEYS if name == key or name.startswith(f"{key}.")), None)
        if key is None or OmegaConf.select(config, key) is None:
            continue
        without = copy.deepcopy(config)
        OmegaConf.update(without, key, None)
        if resolved(without)["recipe"]["steps"] == resolved(config)["recipe"]["steps"]:
            raise ValueError(f"{word.lstrip('+')} has no effect on row {config.row}: {_why_idle(config)}")


def _why_idle(config: DictConfig) -> str:
    file = OmegaConf.select(config, "constraint.rate_file")
    steps = config.recipe.steps
    readers = [name for name in steps if file is not None and OmegaConf.select(steps[name], "constraint.rate_file") == file]
    if readers:
        which = f"step '{readers[0]}' takes its" if len(readers) == 1 else f"steps {', '.join(readers)} take their"
        return f"{which} rates from constraint.rate_file={file}; add constraint.rate_file=null."
    return f"none of its steps ({', '.join(steps)}) reads it; leave it out."


def refuse_network(config: Mapping[str, Any], data: ImageData) -> None:
    """Check with one image of zeros that a row's untrained network takes the data's images and has an output for each class.

    Where the last training batch holds one image, it is also checked that the network can train on one. Generators are left as they were.

    Args:
        config: The resolved config.
        data: The data set.

    Raises:
        ValueError: It does not; the message names both sides.
    """
    with torch.random.fork_rng():
        model = model_of(config).eval()
    image, what = torch.zeros(1, *data.input_shape), str(config["model"]["_target_"])
    try:
        with torch.no_grad():
            logits = model(image)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # what layers, and timm's checks of sizes, raise
        raise ValueError(
            f"the network ({what}) cannot take images of {data.name}, {tuple(data.input_shape)}: {str(error).splitlines()[0]} "
            "Choose a network for that size, or change the images (data.size) or what the network is built for (model.args.img_size)."
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        found = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"the network ({what}) gives {found} for one image; a classifier gives logits of shape (1, {data.num_classes}).")
    if logits.shape[1] != data.num_classes:
        raise ValueError(
            f"the network ({what}) has {logits.shape[1]} outputs, {data.name} has {data.num_classes} classes; give the network that many "
            "(model.num_classes, or the argument of model.target that says so)."
        )
    if min(len(data.train), data.batch_size) == 1:
        try:
            with torch.random.fork_rng(), torch.no_grad():
                model.train()(image)
        except ValueError as error:  # batch norm without statistics
            raise ValueError(
                f"{len(data.train)} training image{'s' * (len(data.train) > 1)} in batches of {data.batch_size}: this network cannot train "
                f"on one image at a time ({error}); set data.batch_size to 2 or more, and give it as many images."
            ) from error


def refuse_constraints(config: Mapping[str, Any], input_shape: Sequence[int]) -> None:
    """Check that the layers of a row's untrained network can be given the sets its steps name; generators are left as they were.

    Looks no further than the first step that may rewrite the network: what layers the later ones meet is not known yet.

    Args:
        config: The resolved config.
        input_shape: Of one sample.

    Raises:
        ValueError: A rate is out of range or would empty a layer, a layer does not fit a structure, or a name matches nothing.
    """
    constrained = []
    for name, step in config["recipe"]["steps"].items():
        if step["_target_"] in REWRITERS or not step["_target_"].startswith("espalier.steps."):
            break
        if isinstance(step.get("constraint"), dict):
            constrained.append((name, step["constraint"]))
    if not constrained:
        return
    with torch.random.fork_rng():
        model = model_of(config)
    for name, constraint in constrained:
        try:
            assigner(constraint, input_shape)(model)
        except ValueError as error:
            raise ValueError(f"step '{name}': {error}{_kind(model, str(error))}") from error


def refuse_methods(config: Mapping[str, Any], model: nn.Module, input_shape: Sequence[int]) -> None:
    """Check that each step's method takes its sets and starts on the network; generators and network are left as they were.

    Looks as far as ``refuse_constraints`` does.

    Args:
        config: The resolved config.
        model: The untrained network.
        input_shape: Of one sample.

    Raises:
        ValueError: A layer does not fit its set, or a method or step refuses the set; the message says why.
    """
    for name, step in config["recipe"]["steps"].items():
        if step["_target_"] in REWRITERS or not step["_target_"].startswith("espalier.steps."):
            break
        if not isinstance(step.get("constraint"), dict):
            continue
        try:
            assignment = assigner(step["constraint"], input_shape)(model)
            if isinstance(step.get("method"), dict):
                method = built(step["method"])(assignment, epochs=step["epochs"], frozen=None)
                with torch.random.fork_rng():
                    method.start(copy.deepcopy(model))
            if get_object(step["_target_"]) is decide:
                check_grouped(assignment, f"step '{name}'")
        except ValueError as error:
            raise ValueError(f"step '{name}': {error}") from error


def _kind(model: nn.Module, message: str) -> str:
    """Return a sentence on the rule that leaves out all layers of a kind, where a message speaks of a depthwise convolution."""
    convolutions = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    thin = any(module.groups == module.in_channels > 1 and message.startswith(f"{name}.") for name, module in convolutions)
    return " The rule 'depthwise' in constraint.skip leaves out all convolutions of one input channel a group." if thin else ""
