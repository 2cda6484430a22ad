"""The flow of channels through a network: which layer writes a map, which layers read it, and what a map shares with others.

Traced once with ``torch.fx``. A node stands for one tensor, its channels are axis 1. Whatever is not known here is ``opaque``: it reads all
that goes in, and what comes out is taken as it is, so that a network with unknown parts loses less than it could, never too much.
"""

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from espalier.constraints.selection import BATCH_NORMS, CONVS
from espalier.models.resnet_cifar import SubsampleAndPad
from espalier.rewrites.tracing import NormTracer

Kind = Literal["layer", "depthwise", "norm", "same", "add", "mul", "cat", "flatten", "pad", "opaque"]

POOLS = tuple(getattr(nn, f"{kind}{rank}d") for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool") for rank in (1, 2, 3))
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Tanh, nn.ELU, nn.Identity)
KEEP_ZERO = (*POOLS, *DROPOUTS, *ACTIVATIONS)  # channel by channel, and a map of zeros stays one
LOSE_ZERO = (nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)  # channel by channel, but zero becomes something else
KEEP_ZERO_NAMES = frozenset(
    {f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg") for rank in (1, 2, 3)}
    | {"relu", "relu_", "relu6", "leaky_relu", "silu", "gelu", "hardswish", "tanh", "elu", "dropout", "dropout2d", "contiguous"}
)
LOSE_ZERO_NAMES = frozenset({"sigmoid", "hardsigmoid", "softplus"})
NORM_AND_ACTIVATION = "BatchNormAct2d"  # timm's; by name, because timm takes seconds to import
DISPATCHED = {F.max_pool1d, F.max_pool2d, F.max_pool3d}  # functions that bear another's name
READ_NO_VALUES = frozenset({"size", "dim", "getattr"})


@dataclass(frozen=True)
class Node:
    """One tensor of the network.

    Args:
        name: Name in the graph.
        kind: What makes it: ``layer`` mixes channels, ``depthwise`` and ``norm`` scale each by itself, ``same`` leaves them where they are.
        sources: Nodes it is made of, in order.
        channels: Size of axis 1; 0 where it has none.
        module: Path of the module that makes it; empty for a function.
        keeps_zero: Of ``same`` and of the activation inside a ``norm``: whether a map of zeros stays one.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    channels: int
    module: str = ""
    keeps_zero: bool = True


class ChannelGraph:
    """The nodes of a network in order of computation, and which channels of them are one and the same.

    Args:
        model: A network that ``torch.fx`` can follow.
        example: What it takes, a batch of one or more; only shapes are read.

    Raises:
        ValueError: ``torch.fx`` cannot follow the network, or the example does not fit it.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        traced = _traced(model, example)
        modules = dict(model.named_modules())
        describe = _Describer(modules, Counter(str(node.target) for node in traced.nodes if node.op == "call_module"))
        self.nodes = [describe(node) for node in traced.nodes if node.op != "output" and not _reads_no_values(node)]
        (output,) = [node for node in traced.nodes if node.op == "output"]
        self.outputs = tuple(node.name for node in output.all_input_nodes)
        self.by_name = {node.name: node for node in self.nodes}

    def of_kind(self, *kinds: Kind) -> Iterator[Node]:
        """Yield the nodes of these kinds, in order."""
        return (node for node in self.nodes if node.kind in kinds)


def _traced(model: nn.Module, example: Tensor) -> fx.Graph:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        graph = NormTracer(SubsampleAndPad).trace(model)
        with torch.no_grad():
            ShapeProp(fx.GraphModule(model, graph)).propagate(example)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"torch.fx cannot follow {type(model).__name__} on an example of shape {tuple(example.shape)} ({str(error).splitlines()[0]}); "
            "its channels are not known. Cut the part that it can follow, or give an example that fits."
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    return graph


def _reads_no_values(node: fx.Node) -> bool:
    """Return whether a node asks for a tensor's shape, or works with such numbers."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op in ("call_method", "call_function") and name in READ_NO_VALUES:
        return True
    return node.op == "call_function" and bool(node.all_input_nodes) and all(map(_reads_no_values, node.all_input_nodes))


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor; empty where it is something else."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if isinstance(meta, TensorMetadata) else ()


@dataclass(frozen=True)
class _Describer:
    """Tells what each node of a traced graph is."""

    modules: dict[str, nn.Module]
    calls: Counter[str]

    def __call__(self, node: fx.Node) -> Node:
        sources = [source for source in node.all_input_nodes if not _reads_no_values(source)]
        shape = _shape(node)
        channels = shape[1] if len(shape) > 1 else 0
        kind, keeps_zero = self._kind(node, [_shape(source) for source in sources], shape)
        module = str(node.target) if node.op == "call_module" else ""
        return Node(node.name, kind, tuple(source.name for source in sources), channels, module, keeps_zero)

    def _kind(self, node: fx.Node, sources: list[tuple[int, ...]], shape: tuple[int, ...]) -> tuple[Kind, bool]:
        if len(shape) < 2 or any(len(source) < 2 for source in sources):
            return "opaque", False
        if node.op == "call_module":
            return self._kind_of_module(node, sources[0] if sources else ())
        if node.op in ("call_function", "call_method"):
            return _kind_of_function(node, sources, shape)
        return "opaque", False

    def _kind_of_module(self, node: fx.Node, source: tuple[int, ...]) -> tuple[Kind, bool]:
        name = str(node.target)
        module: Any = self.modules[name]
        alone = self.calls[name] == 1 and self._owns(module)
        if type(module) in CONVS and alone and len(source) == module.weight.ndim:
            if module.groups == 1:
                return "layer", True
            return ("depthwise", True) if module.groups == module.in_channels == module.out_channels else ("opaque", False)
        if type(module) is nn.Linear and alone and len(source) == 2:
            return "layer", True
        if isinstance(module, BATCH_NORMS) and alone and module.running_mean is not None:
            if type(module) in BATCH_NORMS:
                return "norm", True
            return ("norm", type(module.act) in KEEP_ZERO) if type(module).__name__ == NORM_AND_ACTIVATION else ("opaque", False)
        if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            return "flatten", True
        if type(module) is SubsampleAndPad and alone:
            return "pad", True
        if type(module) in KEEP_ZERO or type(module) in LOSE_ZERO:
            return "same", type(module) in KEEP_ZERO
        return "opaque", False

    def _owns(self, module: nn.Module) -> bool:
        """Return whether no other module has a parameter of this one."""
        own = {id(parameter) for parameter in module.parameters(recurse=False)}
        others = (other for other in self.modules.values() if other is not module)
        return not any(id(parameter) in own for other in others for parameter in other.parameters(recurse=False))


def _kind_of_function(node: fx.Node, sources: list[tuple[int, ...]], shape: tuple[int, ...]) -> tuple[Kind, bool]:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    arguments = [*node.args[1:], *node.kwargs.values()]
    if name in KEEP_ZERO_NAMES or node.target in DISPATCHED:
        return "same", True
    if name in LOSE_ZERO_NAMES:
        return "same", False
    if name in ("flatten", "view", "reshape") and _flattens(name, arguments, sources[0], shape):
        return "flatten", True
    if name == "mean" and _keeps_channels(node, sources[0]):
        return "same", True
    if node.target is operator.getitem and _slices_positions(node.args[1]):
        return "same", True
    if name in ("add", "iadd", "mul", "imul") and len(sources) == len(node.args) == 2 and not node.kwargs:
        same = len({(len(source), source[1]) for source in sources}) == 1
        return (("add" if "add" in name else "mul"), True) if same else ("opaque", False)
    whole = sum(source[1] for source in sources) == shape[1]  # not where one tensor is named twice
    if node.target is torch.cat and (node.args[1:] or tuple(node.kwargs.values())) == (1,) and whole:
        return "cat", True
    return "opaque", False


def _flattens(name: str, arguments: list[Any], source: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Return whether all axes from 1 on become one, whatever their size: a size written out would not survive a cut."""
    if name == "flatten":
        return arguments in ([1], [1, -1])
    return len(shape) == 2 and shape[0] == source[0] and len(arguments) == 2 and arguments[1] == -1


def _keeps_channels(node: fx.Node, source: tuple[int, ...]) -> bool:
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = dims if isinstance(dims, list | tuple) else [dims]
    return all(isinstance(dim, int) and dim % len(source) > 1 for dim in dims)


def _slices_positions(index: Any) -> bool:
    everything = slice(None)
    return (
        isinstance(index, tuple)
        and len(index) > 2
        and index[0] == everything
        and index[1] == everything
        and all(type(part) is slice for part in index)
    )
