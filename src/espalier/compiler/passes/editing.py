"""How passes write the next graph: node by node, in order; what is not touched stays as it was."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from espalier.compiler.graph import Graph, Node


class Editing:
    """A graph in the making.

    Args:
        graph: The graph that is read; it is never changed.
    """

    def __init__(self, graph: Graph) -> None:
        self.before = graph
        self.nodes: dict[str, Node] = {}
        self.constants = dict(graph.constants)
        self.masks = dict(graph.masks)
        self.structures = dict(graph.structures)
        self._instead: dict[str, str] = {}

    def current(self, name: str) -> str:
        """Return what stands for a tensor now."""
        while name in self._instead:
            name = self._instead[name]
        return name

    def node(self, name: str) -> Node:
        """Return the node that stands for a tensor now; it must have been put."""
        return self.nodes[self.current(name)]

    def put(self, node: Node) -> None:
        """Write a node behind all others, or in the place of the one of its name; it reads what stands for its inputs now."""
        self.nodes[node.name] = replace(node, inputs=tuple(map(self.current, node.inputs)))

    def drop(self, node: Node, instead: str) -> None:
        """Leave a node out; its readers read another tensor."""
        self._instead[node.name] = self.current(instead)

    def constant(self, value: Tensor, *, like: str | None = None, mask: Tensor | None = None) -> str:
        """Write a constant and return its key.

        Args:
            value: The constant.
            like: Key of the one it comes from, whose mask and label it takes; None gives it none.
            mask: Its mask, where that of ``like`` does not fit; one that keeps all is none.
        """
        number = len(self.constants)
        while f"c{number}" in self.constants:
            number += 1
        key = f"c{number}"
        self.constants[key] = value
        mask = self.masks.get(like or "") if mask is None else mask
        if mask is not None and not mask.all():
            self.masks[key] = mask
            if like in self.structures:
                self.structures[key] = self.structures[like]
        return key

    def with_constants(self, node: Node, values: dict[str, Tensor]) -> Node:
        """Return the node with constants of other values; each keeps mask and label of the one that played its role."""
        keys = {role: self.constant(value, like=node.constants.get(role)) for role, value in values.items()}
        return replace(node, constants={**node.constants, **keys})

    def graph(self, nodes: Sequence[Node] | None = None) -> Graph:
        """Return the new graph without what nothing reads.

        Args:
            nodes: Its nodes where their order changed; None takes them as they were put.
        """
        outputs = tuple(map(self.current, self.before.outputs))
        written = [*self.nodes.values()] if nodes is None else nodes
        final = tuple(replace(node, inputs=tuple(map(self.current, node.inputs))) for node in written)
        return Graph(final, outputs, self.constants, self.masks, self.structures).pruned()


def only_reader(graph: Graph, readers: dict[str, list[Node]], name: str) -> Node | None:
    """Return the node that alone reads a tensor; None where there are others, or the tensor is an output."""
    return readers[name][0] if len(readers[name]) == 1 and name not in graph.outputs else None
