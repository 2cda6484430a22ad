"""The compiler's graph: typed operators on tensors of known shape. A pass is a pure function graph -> graph.

The vocabulary (``OPS``) is smaller than ATen's: views become ``reshape``, every convolution is ``conv`` whatever its rank, attention is
``matmul`` and ``softmax``. A node's name is the name of the tensor it gives. The batch axis is written out and is 1 for networks compiled
for one sample; ``shape`` always counts it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec

OPS: dict[str, str] = {  # op -> its attributes, and constants behind a bar; ``activation`` is None or what ``unary`` takes
    "input": "index",
    "constant": "| value",
    "conv": "stride, padding ((before, after) an axis), dilation, groups, activation, residual (bool: last input is added), "
    "pool? (bool: what it gives is the maximum over each 2x2 window of H and W) | weight, bias?",
    "linear": "activation, residual | weight (M, K), bias?",
    "affine": "axis, activation | scale (C,), shift (C,)",  # batch norm that found no convolution to fold into
    "unary": "function, and what SETTINGS names for it",
    "binary": "function (add, sub, mul, div, maximum, minimum), activation; one input and other? | other",
    "softmax": "axis",
    "mean": "axes, keepdim",
    "concat": "axis",
    "slice": "axis, start, stop, step",
    "pad": "padding ((before, after) for every axis), value",
    "expand": "",
    "reshape": "",
    "permute": "axes",
    "max_pool": "kernel, stride, padding ((before, after) an axis), dilation",
    "avg_pool": "kernel, stride, padding ((before, after) an axis), count_padding (bool)",
    "adaptive_avg_pool": "",
    "upsample": "mode (nearest, bilinear), align_corners",
    "layer_norm": "num_axes, eps | weight?, bias?",
    "group_norm": "groups, eps | weight?, bias?",
    "matmul": "",
    "convert": "",  # from one layout to another; ``placing`` puts it in
}
UNARY = (
    *("relu", "relu6", "hardswish", "hardsigmoid", "silu", "gelu", "gelu_tanh", "sigmoid"),
    *("tanh", "leaky_relu", "clamp", "exp", "sqrt", "neg", "abs"),
)
SETTINGS = ("low", "high", "slope")  # numbers beside a function or activation: bounds of clamp, slope of leaky_relu


@dataclass(frozen=True)
class Node:
    """One operator, and the tensor it gives.

    Args:
        name: Its own; also that of its result.
        op: One of ``OPS``.
        inputs: Names of the nodes it reads, in order.
        shape: Logical shape of its result.
        attributes: As ``OPS`` lists them.
        constants: Role -> key in ``Graph.constants``.
        source: Module path it came from, such as ``layer1.0.conv1``.
        line: File and line of the call in the model's source; empty where unknown.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    line: str = ""

    def __post_init__(self) -> None:
        assert self.op in OPS, f"no operator is called '{self.op}'"

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

    @property
    def settings(self) -> dict[str, float]:
        """Return the numbers beside its function or activation."""
        return {name: self.attributes[name] for name in SETTINGS if name in self.attributes}

    def having(self, **attributes: Any) -> "Node":
        """Return the node with these attributes set."""
        return replace(self, attributes={**self.attributes, **attributes})


@dataclass(frozen=True)
class Graph:
    """Operators in an order in which each comes after its inputs.

    Args:
        nodes: The operators.
        outputs: Names of those whose results are asked for.
        constants: Weights and whatever else is known before the first sample; never changed in place.
        masks: Constant -> bool tensor of its shape, False where pruning holds a zero; none where it is dense.
        structures: Constant -> label of the structure its mask came from, such as ``block_punched 16x4``.
        tree: How the model wraps its outputs (``torch.utils._pytree``); None is one tensor, or a tuple. Passes drop it.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    structures: Mapping[str, str] = field(default_factory=dict)
    tree: TreeSpec | None = None

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def by_name(self) -> dict[str, Node]:
        """Return name -> node."""
        return {node.name: node for node in self.nodes}

    @property
    def inputs(self) -> tuple[Node, ...]:
        """Return the graph's inputs, in the order of the model's arguments."""
        return tuple(node for node in self.nodes if node.op == "input")

    def readers(self) -> dict[str, list[Node]]:
        """Return name -> the nodes that read its result; every node has an entry."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return found

    def constant(self, node: Node, role: str) -> Tensor | None:
        """Return the constant that plays ``role`` for ``node``; None where it has none."""
        return self.constants[node.constants[role]] if role in node.constants else None

    def mask(self, node: Node, role: str = "weight") -> Tensor | None:
        """Return the mask of that constant; None where it is dense."""
        return self.masks.get(node.constants.get(role, ""))

    def pruned(self) -> "Graph":
        """Return the graph without nodes that no output needs and constants that no node reads."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if node.name in needed or node.op == "input":
                needed.update(node.inputs)
                kept.append(node)
        read = {key for node in kept for key in node.constants.values()}
        return Graph(
            tuple(reversed(kept)),
            self.outputs,
            {key: value for key, value in self.constants.items() if key in read},
            {key: mask for key, mask in self.masks.items() if key in read},
            {key: label for key, label in self.structures.items() if key in read},
        )

    def __str__(self) -> str:
        return "\n".join(f"{node.name} = {node.op}({', '.join(node.inputs)}) {'x'.join(map(str, node.shape))}" for node in self.nodes)
