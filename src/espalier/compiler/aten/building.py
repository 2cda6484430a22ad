"""A graph under construction: what the builders of ATen operators write into."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from espalier.compiler.graph import Node

Value = Node | Tensor  # a tensor is known before the first sample
Result = Value | tuple[Value, ...]


class UnreadableError(Exception):
    """An operator that the vocabulary has, called in a way that it cannot say; the message is the reason."""


class Building:
    """Nodes and constants read so far, and the call that is being read: what ``add`` writes bears its place."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Tensor] = {}
        self.shape: tuple[int, ...] = ()
        self.shapes: tuple[tuple[int, ...], ...] = ()
        self.source = ""
        self.line = ""
        self._keys: dict[int, str] = {}  # id of a tensor -> its key; ``constants`` keeps the tensor alive
        self._nodes: dict[str, Node] = {}  # key -> the node that gives this constant

    def at(self, shapes: tuple[tuple[int, ...], ...], source: str, line: str) -> None:
        """Go on to the next call.

        Args:
            shapes: Those of its results.
            source: Path of the module that makes it.
            line: Where it stands in the model's source.
        """
        self.shapes, self.shape = shapes, shapes[0] if shapes else ()
        self.source, self.line = source, line

    def add(
        self,
        op: str,
        *inputs: Value,
        shape: tuple[int, ...] | None = None,
        constants: Mapping[str, Tensor | None] | None = None,
        **attributes: Any,
    ) -> Node:
        """Write a node and return it.

        Args:
            op: One of the vocabulary.
            inputs: What it reads; a tensor gets a node of its own.
            shape: Of its result; None takes the shape of the call's.
            constants: Role -> tensor; None where it has none.
            attributes: As the vocabulary lists them.
        """
        names = tuple((self.node(value) if isinstance(value, Tensor) else value).name for value in inputs)
        keys = {role: self.key(value) for role, value in (constants or {}).items() if value is not None}
        shape = self.shape if shape is None else shape
        node = Node(f"n{len(self.nodes)}_{op}", op, names, tuple(shape), attributes, keys, self.source, self.line)
        self.nodes.append(node)
        return node

    def key(self, tensor: Tensor) -> str:
        """Return the key of a constant; the same tensor keeps its key."""
        if id(tensor) not in self._keys:
            key = self._keys[id(tensor)] = f"c{len(self.constants)}"
            self.constants[key] = tensor
        return self._keys[id(tensor)]

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a node reads this constant."""
        return id(tensor) in self._keys

    def node(self, value: Value) -> Node:
        """Return the node that gives this value; a constant gets one."""
        if isinstance(value, Node):
            return value
        key = self.key(value)
        if key not in self._nodes:
            self._nodes[key] = self.add("constant", shape=tuple(value.shape), constants={"value": value})
        return self._nodes[key]


def constant(value: Value | None, what: str) -> Tensor | None:
    """Return a constant operand as it is.

    Raises:
        UnreadableError: It depends on the network's input.
    """
    if isinstance(value, Node):
        raise UnreadableError(f"its {what} depends on the input")
    return value


def weight_of(value: Value) -> Tensor:
    """Return a weight as it is. Raises as ``constant`` does."""
    weight = constant(value, "weight")
    assert weight is not None
    return weight


def axis_of(axis: int, rank: int) -> int:
    """Return the axis counted from the front."""
    return axis % rank if rank else 0


def spread(sizes: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Return one size an axis; a single one holds for all."""
    given = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return given * rank if len(given) == 1 else given


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that tensors of these shapes take together."""
    rank = max(map(len, shapes))
    aligned = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*aligned, strict=True))


def number(value: float) -> Tensor:
    """Return a number as a constant."""
    return torch.tensor(float(value))
