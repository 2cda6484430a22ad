"""Batch-norm folding: a convolution or linear layer and the batch norm after it become one layer with one weight and bias.

In evaluation mode batch norm is ``y = gamma (x - mean) / sqrt(var + eps) + beta``. With ``s = gamma / sqrt(var + eps)`` per output, the
layer ``W, b`` before it becomes ``s W, s (b - mean) + beta``. Zero weights stay zero, so supports keep holding; levels are scaled by row.
"""

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import fx, nn

from espalier.constraints.selection import BATCH_NORMS
from espalier.rewrites.tracing import NormTracer

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norm(model: nn.Module, *, skip: Sequence[str] = ()) -> nn.Module:
    """Return a copy of ``model`` with every batch norm folded into the layer before it and an ``nn.Identity`` in its place.

    The copy computes what ``model`` computes in evaluation mode; modes are left as they are. Linear layers are taken to see
    ``(N, features)``.

    Args:
        model: A network that ``torch.fx`` can follow.
        skip: Globs of batch-norm layers to leave as they are.

    Raises:
        ValueError: A batch norm cannot be folded, or a glob matches none; the message names it and the reason.
    """
    folded = copy.deepcopy(model)
    norms = {name: module for name, module in folded.named_modules() if isinstance(module, BATCH_NORMS)}
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in norms):
            raise ValueError(f"skip: '{pattern}' matches no batch norm; there are {', '.join(norms) or 'none'}.")
    wanted = [name for name in norms if not any(fnmatchcase(name, pattern) for pattern in skip)]
    if not wanted:
        return folded
    modules, calls = dict(folded.named_modules()), _calls(folded)
    pairs = {name: _layer_before(name, modules, calls) for name in wanted}
    for name, layer_name in pairs.items():
        _fold(modules[layer_name], modules[name])
        parent, _, child = name.rpartition(".")
        setattr(folded.get_submodule(parent), child, nn.Identity().train(modules[name].training))
    return folded


def _calls(model: nn.Module) -> dict[str, list[fx.Node]]:
    """Return module name -> its calls in the graph."""
    try:
        graph = NormTracer().trace(model)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise ValueError(f"torch.fx cannot follow {type(model).__name__} ({error}); its batch norms cannot be folded.") from error
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    return calls


def _layer_before(name: str, modules: dict[str, nn.Module], calls: dict[str, list[fx.Node]]) -> str:
    norm: Any = modules[name]
    uses = calls.get(name, [])
    if type(norm) not in BATCH_NORMS:
        raise _refusal(name, f"it is a {type(norm).__name__}, which computes more than batch norm")
    if norm.running_mean is None:
        raise _refusal(name, "it keeps no running statistics")
    if len(uses) != 1:
        raise _refusal(name, f"it is called {len(uses)} times")
    (before,) = uses[0].all_input_nodes
    layer_name = str(before.target)
    layer: Any = modules[layer_name] if before.op == "call_module" else None
    if type(layer) not in LAYERS:
        found = before.name if layer is None else type(layer).__name__
        raise _refusal(name, f"it follows {found}, no linear or convolution layer")
    if len(calls[layer_name]) != 1 or len(before.users) != 1:
        raise _refusal(name, f"others read the output of {layer_name} too")
    if sum(parameter is layer.weight for module in modules.values() for parameter in module.parameters(recurse=False)) != 1:
        raise _refusal(name, f"{layer_name} shares its weight with another layer")
    if layer.weight.shape[0] != norm.num_features:
        raise _refusal(name, f"{layer_name} has {layer.weight.shape[0]} outputs, it normalises {norm.num_features}")
    return layer_name


def _refusal(name: str, reason: str) -> ValueError:
    return ValueError(f"batch norm {name} cannot be folded: {reason}. Leave it as it is with skip: [{name}].")


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    weight = layer.weight
    exact = {"dtype": torch.float64, "device": weight.device}
    mean, variance = norm.running_mean.to(**exact), norm.running_var.to(**exact)
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.to(**exact)
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.to(**exact)
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.to(**exact)
    scale = gamma / (variance + norm.eps).sqrt()
    weight.mul_(scale.to(weight.dtype).view(-1, *[1] * (weight.ndim - 1)))
    layer.bias = nn.Parameter((scale * (bias - mean) + beta).to(weight.dtype))
