"""Which layers an entry of ``include``, ``skip``, ``rates`` or ``kept`` means: a glob, or a named rule that reads the model."""

import difflib
import math
from collections.abc import Callable
from fnmatch import fnmatchcase

from torch import nn

from espalier.constraints.assignment import prunable

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
Rule = Callable[[list[tuple[str, nn.Module]]], list[str]]  # (parameter, its module) of each layer, in module order -> parameters


def _convs(layers: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Conv1d | nn.Conv2d | nn.Conv3d]]:
    return [(name, module) for name, module in layers if isinstance(module, CONVS)]


def _first_conv(layers: list[tuple[str, nn.Module]]) -> list[str]:
    return [name for name, _ in _convs(layers)][:1]


def _last_linear(layers: list[tuple[str, nn.Module]]) -> list[str]:
    return [name for name, module in layers if isinstance(module, nn.Linear)][-1:]


def _downsample(layers: list[tuple[str, nn.Module]]) -> list[str]:
    on_shortcut = ("*downsample*", "*shortcut*")
    pointwise = [name for name, module in _convs(layers) if math.prod(module.kernel_size) == 1]
    return [name for name in pointwise if any(fnmatchcase(name.lower(), pattern) for pattern in on_shortcut)]


def _depthwise(layers: list[tuple[str, nn.Module]]) -> list[str]:
    return [name for name, module in _convs(layers) if module.groups == module.in_channels > 1]


def _conv1x1(layers: list[tuple[str, nn.Module]]) -> list[str]:
    return [name for name, module in _convs(layers) if module.kernel_size == (1, 1)]


def _conv3x3(layers: list[tuple[str, nn.Module]]) -> list[str]:
    return [name for name, module in _convs(layers) if module.kernel_size == (3, 3)]


RULES: dict[str, Rule] = {
    "first_conv": _first_conv,
    "last_linear": _last_linear,
    "downsample": _downsample,
    "depthwise": _depthwise,
    "conv1x1": _conv1x1,
    "conv3x3": _conv3x3,
}


def matching(model: nn.Module, pattern: str, key: str) -> list[str]:
    """Return the weights an entry means.

    A glob means weights by their name or their module's (``conv1`` is ``conv1.weight``). Where no layer bears it, it may be a rule:
    ``first_conv`` and ``last_linear``, the first convolution and the last linear layer in the order in which the model registers modules;
    ``downsample``, 1x1 convolutions of any stride with ``downsample`` or ``shortcut`` in their name; ``depthwise``, convolutions with
    one input channel a group; ``conv1x1`` and ``conv3x3``, 2-D convolutions of that kernel.

    Args:
        model: The network.
        pattern: Glob or rule.
        key: Config key that holds it, for the message.

    Raises:
        ValueError: It means none; the message lists the nearest names.
    """
    names = prunable(model)
    if found := [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)]:
        return found
    if pattern in RULES:
        if found := RULES[pattern]([(name, model.get_submodule(name.rpartition(".")[0])) for name in names]):
            return found
        raise ValueError(f"{key}: rule '{pattern}' means no layer of this model; drop it. The model has {', '.join(names)}.")
    known = [*names, *(name.rpartition(".")[0] for name in names), *RULES]
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3) or names
    raise ValueError(f"{key}: '{pattern}' matches no linear, convolution or recurrent layer; nearest: {', '.join(near)}.")
