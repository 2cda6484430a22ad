"""Layers as a layer-wise objective sees them: a layer, the batch norm and the ReLU that follow it directly, and the network up to there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from espalier.constraints.selection import BATCH_NORMS
from espalier.rewrites.tracing import NormTracer

RELU_CALLS = (F.relu, torch.relu, "relu", "relu_")


@dataclass(frozen=True)
class Unit:
    """One layer of a network with what follows it directly. All modules are the network's own, so that training it trains the network.

    Args:
        name: The layer's name in the network.
        before: Images -> the layer's input.
        through: Images -> the unit's output.
        modules: The layer, and the batch norm after it.
        relu: Whether a ReLU ends the unit.
    """

    name: str
    before: Callable[[Tensor], Tensor]
    through: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]
    relu: bool

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the unit's output for the layer's input."""
        for module in self.modules:
            inputs = module(inputs)
        return F.relu(inputs) if self.relu else inputs


def units(model: nn.Module, names: Sequence[str]) -> list[Unit]:
    """Return the units of the named layers in the order in which the network computes them.

    Args:
        model: A network that ``torch.fx`` can follow.
        names: Layers.

    Raises:
        ValueError: The network cannot be followed, or a layer is called more than once or never.
    """
    try:
        graph = NormTracer().trace(model)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"torch.fx cannot follow {type(model).__name__} ({error}), so that its layers cannot be matched one by one; "
            "take objective: whole_model."
        ) from error
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target in names]
    for name in names:
        if (count := sum(node.target == name for node in calls)) != 1:
            raise ValueError(f"layer {name} is called {count} times; a layer-wise objective takes layers that are called once.")
    return [_unit(model, graph, node) for node in calls]


def _unit(model: nn.Module, graph: fx.Graph, node: fx.Node) -> Unit:
    modules, end = [model.get_submodule(str(node.target))], node
    if (after := _only_user(end)) is not None and _is(model, after, BATCH_NORMS):
        modules.append(model.get_submodule(str(after.target)))
        end = after
    after = _only_user(end)
    relu = after is not None and (_is(model, after, (nn.ReLU,)) or after.target in RELU_CALLS)
    if after is not None and relu:
        end = after
    (before,) = node.all_input_nodes
    return Unit(str(node.target), _up_to(model, graph, before), _up_to(model, graph, end), tuple(modules), relu)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is(model: nn.Module, node: fx.Node, kinds: tuple[type[nn.Module], ...]) -> bool:
    return node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), kinds)


def _up_to(model: nn.Module, graph: fx.Graph, last: fx.Node) -> fx.GraphModule:
    """Return the network up to a node's value; its modules are those of ``model``."""
    needed, waiting = set(), [last]
    while waiting:
        if (node := waiting.pop()) not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[last])
    return fx.GraphModule(model, part)
