"""Unused path removal: weights that nothing feeds or nobody reads become zero, until nothing changes.  Source: prm, N4 and N5.

Two facts carry it. A filter without weights, bias, gamma and beta writes a map of zeros: whoever reads that map may drop its channel. A map
that nobody reads needs no filter, no bias, gamma and beta. Both leave the outputs as they are. On a residual stream a map is zero only
where all that was added up so far is, and unread only where it is so for all later readers: the two flags travel along the graph, node by
node, so chains, sums, products and concatenations need no case of their own.

Suffixes: F = filters (outputs), C = channels (inputs).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from espalier.rewrites.channels import ChannelGraph, Node

Maps = dict[str, Tensor]  # node -> bool vector over its channels
Kept = dict[str, Tensor]  # parameter -> bool mask of its shape; False was set to zero for good


@dataclass(frozen=True)
class PathRemoval:
    """What unused path removal did.

    Args:
        model: The network without unused paths; outputs as before.
        kept: Parameter -> mask of the entries left to train, for every parameter that was looked at.
        sweeps: Sweeps over the graph until nothing changed, the last one included.
        empty_groups: Filters and channels without a weight before it.
    """

    model: nn.Module
    kept: Kept
    sweeps: int
    empty_groups: int


@torch.no_grad()
def remove_unused_paths(model: nn.Module, example: Tensor) -> PathRemoval:
    """Set to zero what cannot matter: channels of maps that are zero, filters (bias, gamma and beta too) of maps that nobody reads.

    Constants of empty filters are not touched: with a bias, or batch norm behind it, an empty filter writes a constant and is in use.
    ``silence`` takes these away first, which may change the outputs; removal itself never does.

    Args:
        model: A network that ``torch.fx`` can follow; left as it was.
        example: What it takes, a batch of one or more; only shapes are read.

    Raises:
        ValueError: ``torch.fx`` cannot follow the network.
    """
    model = copy.deepcopy(model)
    graph = ChannelGraph(model, example)
    reads = read_maps(graph, model)
    empty_groups = sum(int((~reads[node.name].any(axis)).sum()) for node in graph.of_kind("layer") for axis in (0, 1))
    kept: Kept = {f"{node.module}.weight": torch.ones_like(reads[node.name]) for node in graph.of_kind("layer", "depthwise")}
    sweeps, changed = 0, True
    while changed:
        sweeps += 1
        zero, unread = zero_maps(graph, model, reads), unread_maps(graph, model, reads)
        changes = [
            _drop(model, node, reads, zero[node.sources[0]], unread[node.name], kept) for node in graph.of_kind("layer", "depthwise")
        ]
        changes += [_mute(model, node, ("weight", "bias"), unread[node.name], kept) for node in graph.of_kind("norm")]
        changed = any(changes)
    for node in graph.of_kind("layer", "depthwise"):
        name = f"{node.module}.weight"
        weight = model.get_parameter(name).detach()
        kept[name] = kept[name].view(*kept[name].shape, *[1] * (weight.ndim - 2)).expand_as(weight)
        weight.masked_fill_(~kept[name].to(weight.device), 0.0)
    return PathRemoval(model, kept, sweeps, empty_groups)


@torch.no_grad()
def silence(model: nn.Module, example: Tensor) -> tuple[nn.Module, Kept]:
    """Return a copy whose empty filters write zeros: no bias, gamma and beta of batch norm behind; and the masks that keep it so.

    A filter counts as empty when every weight it has left reads a map of zeros. The outputs may change (an empty filter wrote
    ``relu(beta - gamma mean / sqrt(var + eps))``), which is why it belongs before the retraining. Source: prm, N4, caveat on BN.

    Args:
        model: A network that ``torch.fx`` can follow; left as it was.
        example: What it takes; only shapes are read.

    Raises:
        ValueError: ``torch.fx`` cannot follow the network.
    """
    model = copy.deepcopy(model)
    graph = ChannelGraph(model, example)
    reads = read_maps(graph, model)
    kept: Kept = {}
    zero: Maps = {}
    for node in graph.nodes:
        if node.name in graph.outputs:
            continue
        if node.kind in ("layer", "depthwise"):
            _mute(model, node, ("bias",), _empty(node, reads[node.name], zero[node.sources[0]]), kept)
        elif node.kind == "norm":
            _mute(model, node, ("weight", "bias"), zero[node.sources[0]], kept)
        zero[node.name] = _zero(model, node, reads, [zero[source] for source in node.sources])
    return model, kept


def read_maps(graph: ChannelGraph, model: nn.Module) -> Maps:
    """Return layer -> which filter has a weight on which channel, ``(F, C)``; ``(F, 1)`` for a depthwise one."""
    weights = {node.name: model.get_parameter(f"{node.module}.weight").detach() for node in graph.of_kind("layer", "depthwise")}
    return {name: (weight != 0).reshape(*weight.shape[:2], -1).any(2).cpu() for name, weight in weights.items()}


def zero_maps(graph: ChannelGraph, model: nn.Module, reads: Maps) -> Maps:
    """Return node -> which of its channels are zero whatever the network sees (in evaluation mode)."""
    zero: Maps = {}
    for node in graph.nodes:
        zero[node.name] = _zero(model, node, reads, [zero[source] for source in node.sources])
    return zero


def unread_maps(graph: ChannelGraph, model: nn.Module, reads: Maps) -> Maps:
    """Return node -> which of its channels have no effect on the outputs."""
    unread = {node.name: torch.full((node.channels,), node.name not in graph.outputs) for node in graph.nodes}
    for node in reversed(graph.nodes):
        start = 0
        for name in node.sources:
            channels = graph.by_name[name].channels
            unread[name] &= _unread(model, node, reads, unread[node.name], slice(start, start + channels))
            start += channels
    return unread


def _zero(model: nn.Module, node: Node, reads: Maps, sources: list[Tensor]) -> Tensor:
    module: Any = model.get_submodule(node.module) if node.module else None
    if node.kind in ("layer", "depthwise"):
        empty = _empty(node, reads[node.name], sources[0])
        return empty if module.bias is None else empty & (module.bias == 0).cpu()
    if node.kind == "norm" and node.keeps_zero and module.weight is not None:
        silent: Tensor = (module.weight == 0) & (module.bias == 0)
        return silent.cpu()
    if node.kind == "same" and node.keeps_zero:
        return sources[0]
    if node.kind == "add":
        return sources[0] & sources[1]
    if node.kind == "mul":
        return sources[0] | sources[1]
    if node.kind == "cat":
        return torch.cat(sources)
    if node.kind == "flatten":
        return sources[0].repeat_interleave(node.channels // len(sources[0]))
    if node.kind == "pad":
        return torch.cat([torch.ones(module.before, dtype=torch.bool), sources[0], torch.ones(module.after, dtype=torch.bool)])
    return torch.zeros(node.channels, dtype=torch.bool)


def _unread(model: nn.Module, node: Node, reads: Maps, unread: Tensor, place: slice) -> Tensor:
    """Return which of a source's channels a node has no use for; ``place``: where they stand among those of all its sources."""
    module: Any = model.get_submodule(node.module) if node.module else None
    channels = place.stop - place.start
    if node.kind == "layer":
        return ~(reads[node.name] & ~unread.unsqueeze(1)).any(0)
    if node.kind == "depthwise":
        return unread | ~reads[node.name].any(1)
    if node.kind == "norm":
        return unread if module.weight is None else unread | (module.weight == 0).cpu()
    if node.kind in ("same", "add", "mul"):
        return unread
    if node.kind == "cat":
        return unread[place]
    if node.kind == "flatten":
        return unread.view(channels, -1).all(1)
    if node.kind == "pad":
        return unread[module.before : module.before + channels]
    return torch.zeros(channels, dtype=torch.bool)


def _empty(node: Node, reads_FC: Tensor, zero_C: Tensor) -> Tensor:
    """Return which filters have no weight on a map that is not zero, ``(F,)``."""
    return zero_C | ~reads_FC.any(1) if node.kind == "depthwise" else ~(reads_FC & ~zero_C).any(1)


def _drop(model: nn.Module, node: Node, reads: Maps, zero_C: Tensor, unread_F: Tensor, kept: Kept) -> bool:
    """Take from a layer what it writes for nobody and reads from nothing; return whether that changed anything."""
    dropped = unread_F.unsqueeze(1) | (zero_C if node.kind == "layer" else zero_C.unsqueeze(1))
    changed = bool((reads[node.name] & dropped).any())
    reads[node.name] &= ~dropped
    kept[f"{node.module}.weight"] &= ~dropped
    return _mute(model, node, ("bias",), unread_F, kept) or changed


def _mute(model: nn.Module, node: Node, parameters: tuple[str, ...], muted: Tensor, kept: Kept) -> bool:
    """Set to zero the entries of a layer's vectors, where it has them; return whether one was not zero."""
    changed = False
    for attribute in parameters:
        vector: Tensor | None = getattr(model.get_submodule(node.module), attribute)
        if vector is not None:
            name = f"{node.module}.{attribute}"
            kept[name] = kept[name] & ~muted if name in kept else ~muted
            where = muted.to(vector.device)
            changed = changed or bool(((vector.detach() != 0) & where).any())
            vector.detach().masked_fill_(where, 0.0)
    return changed


def merged(kept: Mapping[str, Tensor], newer: Mapping[str, Tensor]) -> Kept:
    """Return what both leave."""
    both = {name: mask & newer[name] if name in newer else mask for name, mask in kept.items()}
    return {**newer, **both}
