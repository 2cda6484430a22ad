"""Physical shrinking: what unused path removal emptied is cut out, and smaller dense tensors compute the same.  Source: prm, N5.

Channels that a sum or product joins are one and live or die together: the union over the graph, so that chains, residual networks and
concatenations need no case of their own. A layer's new size is all that a checkpoint has to say; its weights are the small network's.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Pinned, Support
from espalier.constraints.frozen import as_frozen
from espalier.constraints.selection import BATCH_NORMS
from espalier.models.resnet_cifar import SubsampleAndPad
from espalier.rewrites.channels import ChannelGraph, Node
from espalier.rewrites.replay import Rewrite
from espalier.rewrites.unused_paths import remove_unused_paths

TOLERANCE = 1e-4  # prm, What must hold 1: largest change of a logit
REWRITE = "espalier.rewrites.shrink"

Index = tuple[Tensor, ...]  # what is kept along each of the first axes


@dataclass(frozen=True)
class Shrunk:
    """A network cut to what is in use.

    Args:
        model: The small network.
        rewrite: What makes a network of this shape from the large one, for ``State.rewrites`` and ``espalier.save``.
        kept: Parameter or buffer -> what is kept along its first axes; those that are whole are left out.
        change: Largest change of an output on the example.
    """

    model: nn.Module
    rewrite: Rewrite
    kept: Mapping[str, Index]
    change: float

    def frozen(self, sets: Assignment | None) -> Assignment | None:
        """Return the frozen sets of the large network as those of the small one.

        Raises:
            ValueError: A set holds a slice of a parameter that was cut.
        """
        return None if sets is None else Assignment([(targets, self._cut(as_frozen(part))) for targets, part in sets.parts])

    def _cut(self, part: Support | Pinned) -> Support | Pinned:
        if isinstance(part, Support):
            return Support({target: self._taken(str(target), mask) for target, mask in part.masks.items()}, part.structure)
        values = {target: self._taken(str(target), value) for target, value in part.values.items()}
        pinned, support = (
            {target: self._taken(str(target), mask) for target, mask in masks.items()} for masks in (part.pinned, part.support)
        )
        return Pinned(values, pinned, support)

    def _taken(self, name: str, tensor: Tensor) -> Tensor:
        if name.partition("[")[0] in self.kept and "[" in name:
            raise ValueError(f"{name} is a slice of a parameter that shrinking cuts; freeze the whole parameter, or shrink first.")
        return taken(tensor, self.kept.get(name, ()))


def shrink(model: nn.Module, *, sizes: Mapping[str, Sequence[int]]) -> nn.Module:
    """Return a copy whose layers have the sizes that ``shrunk`` found, holding its first channels until a checkpoint fills it.

    Args:
        model: The network as it was before shrinking.
        sizes: Layer -> ``[outputs, inputs]`` of a convolution or linear layer, ``[channels]`` of a depthwise one or of batch norm,
            ``[before, after]`` of a shortcut that pads channels.

    Raises:
        ValueError: The network lacks a layer, or has it smaller already.
    """
    model = copy.deepcopy(model)
    modules = dict(model.named_modules())
    for name, size in sizes.items():
        if name not in modules:
            raise ValueError(f"shrink names layer '{name}', which {type(model).__name__} lacks; use the network that was shrunk.")
        module: Any = modules[name]
        if isinstance(module, SubsampleAndPad):
            module.before, module.after = size
            continue
        if any(wanted > present for wanted, present in zip(size, _size(module), strict=False)):
            raise ValueError(f"shrink: layer {name} has size {_size(module)}, less than {[*size]}; use the network as it was before.")
        _cut(module, tuple(torch.arange(wanted) for wanted in size))
    return model


@torch.no_grad()
def shrunk(model: nn.Module, example: Tensor) -> Shrunk:
    """Remove the unused paths of a pruned network and cut them out; outputs on ``example`` are compared.

    Every layer keeps a channel, even where all are empty. Empty filters with a bias, or with batch norm behind them, write a constant and
    stay: ``silence`` them before the last training.

    Args:
        model: A network that ``torch.fx`` can follow; left as it was.
        example: A batch of what it takes, real or random.

    Raises:
        ValueError: ``torch.fx`` cannot follow the network.
        RuntimeError: The outputs changed by more than 1e-4 of their largest: the network computes what its graph does not show.
    """
    removal = remove_unused_paths(model, example)
    graph = ChannelGraph(removal.model, example)
    alive = _alive(graph, removal.model)
    small = removal.model
    before = _outputs(model, example)
    sizes: dict[str, list[int]] = {}
    kept: dict[str, Index] = {}
    for node in graph.of_kind("layer", "depthwise", "norm", "pad"):
        index = _index(node, alive)
        module: Any = small.get_submodule(node.module)
        if isinstance(module, SubsampleAndPad):
            size = [int(alive[node.name][: module.before].sum()), int(alive[node.name][len(alive[node.name]) - module.after :].sum())]
            if size != [module.before, module.after]:
                module.before, module.after = size
                sizes[node.module] = size
        elif (size := [len(axis) for axis in index]) != _size(module)[: len(index)]:
            sizes[node.module] = size
            tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
            kept |= {f"{node.module}.{name}": index[: tensor.ndim] for name, tensor in tensors.items() if tensor.ndim}
            _cut(module, index)
    change = float((_outputs(small, example) - before).abs().max())
    if not change <= TOLERANCE * max(1.0, float(before.abs().max())):
        raise RuntimeError(f"shrinking {type(model).__name__} changed an output by {change:.3g}; its graph does not show all it computes.")
    return Shrunk(small, {"_target_": REWRITE, "sizes": sizes}, kept, change)


def taken(tensor: Tensor, index: Index) -> Tensor:
    """Return a tensor cut to what is kept along its first axes, in the memory format it has."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    for axis, kept in enumerate(index):
        tensor = tensor.index_select(axis, kept.to(tensor.device))
    return tensor.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _outputs(model: nn.Module, example: Tensor) -> Tensor:
    modes = {module: module.training for module in model.modules()}
    outputs: Tensor = model.eval()(example)
    for module, mode in modes.items():
        module.training = mode
    return outputs


def _cut(module: Any, index: Index) -> None:
    """Cut a layer to what is kept of its outputs and inputs, or of its channels."""
    for name, parameter in [*module.named_parameters(recurse=False)]:
        setattr(module, name, nn.Parameter(taken(parameter.detach(), index[: parameter.ndim]), requires_grad=parameter.requires_grad))
    for name, buffer in [*module.named_buffers(recurse=False)]:
        if buffer.ndim:
            setattr(module, name, taken(buffer, index))
    if isinstance(module, BATCH_NORMS):
        module.num_features = len(index[0])
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = map(len, index)
    elif len(index) == 1:
        module.out_channels = module.in_channels = module.groups = len(index[0])
    else:
        module.out_channels, module.in_channels = map(len, index)


def _size(module: Any) -> list[int]:
    return [module.num_features] if isinstance(module, BATCH_NORMS) else [*module.weight.shape]


def _index(node: Node, alive: Mapping[str, Tensor]) -> Index:
    outputs = alive[node.name].nonzero().flatten()
    return (outputs, alive[node.sources[0]].nonzero().flatten()) if node.kind == "layer" else (outputs,)


def _alive(graph: ChannelGraph, model: nn.Module) -> dict[str, Tensor]:
    """Return node -> which of its channels anybody reads; where none of a layer's is read, its first stays."""
    identities = _Identities(graph, model)
    for node in graph.nodes:
        if node.kind == "layer":
            weight = model.get_parameter(f"{node.module}.weight").detach()
            identities.read(node.sources[0], (weight != 0).transpose(0, 1).flatten(1).any(1).cpu())
        elif node.kind == "opaque":
            for name in (node.name, *node.sources):
                identities.read(name, torch.ones(graph.by_name[name].channels, dtype=torch.bool))
    for name in graph.outputs:
        identities.read(name, torch.ones(graph.by_name[name].channels, dtype=torch.bool))
    for node in graph.of_kind("layer"):
        for name in (node.name, *node.sources):
            if not bool(identities.alive(name).any()):
                identities.read(name, torch.arange(graph.by_name[name].channels) == 0)
    return {node.name: identities.alive(node.name) for node in graph.nodes}


class _Identities:
    """Which channels are one and the same: union and find over numbers that the nodes carry.

    Args:
        graph: The nodes.
        model: Their network.
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module) -> None:
        self.parents: list[int] = []
        self.numbers: dict[str, list[int]] = {}
        self.living: set[int] = set()
        for node in graph.nodes:
            self.numbers[node.name] = self._numbers(node, [self.numbers[source] for source in node.sources], model)

    def read(self, name: str, channels: Tensor) -> None:
        """Note that some channels of a node are read."""
        self.living |= {self._find(number) for number, wanted in zip(self.numbers[name], channels.tolist(), strict=True) if wanted}

    def alive(self, name: str) -> Tensor:
        """Return which channels of a node are read somewhere."""
        return torch.tensor([self._find(number) in self.living for number in self.numbers[name]], dtype=torch.bool)

    def _numbers(self, node: Node, sources: list[list[int]], model: nn.Module) -> list[int]:
        if node.kind in ("depthwise", "norm", "same"):
            return sources[0]
        if node.kind in ("add", "mul"):
            for one, other in zip(*sources, strict=True):
                self.parents[self._find(one)] = self._find(other)
            return sources[0]
        if node.kind == "cat":
            return [number for source in sources for number in source]
        if node.kind == "flatten":
            return [number for number in sources[0] for _ in range(node.channels // len(sources[0]))]
        if node.kind == "pad":
            shortcut: Any = model.get_submodule(node.module)
            return [*self._new(shortcut.before), *sources[0], *self._new(shortcut.after)]
        return self._new(node.channels)

    def _new(self, count: int) -> list[int]:
        start = len(self.parents)
        self.parents += range(start, start + count)
        return [*range(start, start + count)]

    def _find(self, number: int) -> int:
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number
