"""Cutting a program that the compiler reads in part: its largest readable regions, and a module in PyTorch that calls them.

What does not depend on the sample is computed once and held as a constant by whoever needs it. Only float32 tensors pass from one side to
the other. A region without multiply-adds stays with PyTorch, because handing over costs more than it gains.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import create_op_support
from torch.fx.passes.utils.fuser_utils import fuse_by_partitions

from espalier.compiler.front import Reading
from espalier.compiler.graph import Graph
from espalier.compiler.masks import Found

MULTIPLIES = ("aten.conv", "aten.linear", "aten.addmm", "aten.mm", "aten.bmm", "aten.matmul", "aten.scaled_dot_product_attention")
NATIVE = "native_"  # starts the names of the calls of regions


@dataclass(frozen=True)
class Region:
    """A part of the program that the compiler reads.

    Args:
        call: Name of the module that runs it.
        graph: What it computes, with its masks.
    """

    call: str
    graph: Graph


def cut(reading: Reading, masks: Mapping[str, Found] | None) -> tuple[fx.GraphModule, list[Region]]:
    """Return the program as a module in PyTorch, and the regions that it calls: submodules, still to be put in, that return tuples.

    Args:
        reading: A program, read in part.
        masks: Parameter -> mask and label, from frozen sets; None detects them.
    """
    module, unread = _of_the_sample(reading)
    compilable = {node for node in module.graph.nodes if _compilable(node, unread)}
    support = create_op_support(lambda _, node: node in compilable)
    partitions = CapabilityBasedPartitioner(module, support, allows_single_node_partition=True).propose_partitions()
    kept = [partition.nodes for partition in partitions if any(str(node.target).startswith(MULTIPLIES) for node in partition.nodes)]
    fuse_by_partitions(module, kept, prefix=NATIVE, always_return_tuple=True)
    regions = [_region(module, node, reading, masks) for node in calls(module)]
    module.graph.eliminate_dead_code()
    module.recompile()
    return module, regions


def calls(module: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield the calls of regions, in order."""
    return (node for node in module.graph.nodes if node.op == "call_module" and str(node.target).startswith(NATIVE))


def _region(module: fx.GraphModule, call: fx.Node, reading: Reading, masks: Mapping[str, Found] | None) -> Region:
    """Return a region as the compiler reads it; its call is left with the arguments that depend on the sample."""
    part = module.get_submodule(str(call.target))
    assert isinstance(part, fx.GraphModule)
    places = [node for node in part.graph.nodes if node.op == "placeholder"]
    given = dict(zip(places, call.args, strict=True))
    known = {place: getattr(module, str(node.target)) for place, node in given.items() if isinstance(node, fx.Node) and _held(node)}
    call.args = tuple(node for place, node in given.items() if place not in known)
    with torch.no_grad():
        read = Reading(part, known, reading.parameters, part.graph.output_node().args[0])  # type: ignore[arg-type]
    assert not read.missing
    return Region(str(call.target), read.graph(masks))


def _of_the_sample(reading: Reading) -> tuple[fx.GraphModule, set[fx.Node]]:
    """Return a module of all that depends on the sample, and its nodes that could not be read."""
    graph, root = fx.Graph(), nn.Module()
    copies: dict[fx.Node, Any] = {}

    def copied(node: fx.Node) -> Any:
        if node not in copies:
            copies[node] = _constant(reading.values[node], graph, root)
        return copies[node]

    for node in reading.nodes:
        if reading.depends(node):
            copies[node] = graph.node_copy(node, copied)
    graph.output(tuple(copied(node) for node in reading.asked))
    return fx.GraphModule(root, graph), {copies[node] for node in reading.missing}


def _constant(value: Any, graph: fx.Graph, root: nn.Module) -> Any:
    """Return a value as an argument: what is no plain number becomes an attribute of the module."""
    name = f"held{len(root._buffers) + len(root._modules)}"
    if isinstance(value, Tensor):
        root.register_buffer(name, value)
    elif isinstance(value, nn.Module):
        root.add_module(name, value)
    else:
        return value
    return graph.get_attr(name)


def _held(node: fx.Node) -> bool:
    return node.op == "get_attr"


def _compilable(node: fx.Node, unread: set[fx.Node]) -> bool:
    """Return whether a node was read and takes and gives float32 alone."""
    if node.op != "call_function" or node in unread:
        return False
    if node.target is operator.getitem:
        return _compilable(node.all_input_nodes[0], unread)
    results = list(node.users) if isinstance(node.meta.get("val"), list | tuple) else [node]
    taken = [used for used in node.all_input_nodes if not _held(used)]
    return all(_is_float(one) for one in [*taken, *results])


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype is torch.float32


def macs_of(graph: Graph) -> int:
    """Return the multiply-adds of a graph for one sample, zeros included."""
    return sum(_MACS[node.op](graph, node.name) for node in graph if node.op in _MACS)


def _layer_macs(graph: Graph, name: str) -> int:
    node = graph[name]
    positions = node.shape[2:] if node.op == "conv" else node.shape[1:-1]
    return graph.constants[node.constants["weight"]].numel() * int(torch.Size(positions).numel())


def _matmul_macs(graph: Graph, name: str) -> int:
    node = graph[name]
    return int(torch.Size(node.shape).numel()) * graph[node.inputs[0]].shape[-1]


_MACS: dict[str, Callable[[Graph, str], int]] = {"conv": _layer_macs, "linear": _layer_macs, "matmul": _matmul_macs}
