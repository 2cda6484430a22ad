"""The graph's meaning: an interpreter in plain PyTorch, against which every pass and every kernel is tested."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from espalier.compiler.graph import Graph, Node

BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
    "neg": torch.neg,
    "abs": torch.abs,
}
CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
MAX_POOLS: tuple[Callable[..., Tensor], ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
AVG_POOLS: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
ADAPTIVE_POOLS: tuple[Callable[..., Tensor], ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
SHAPING = ("constant", "concat", "slice", "pad", "expand", "reshape", "permute")  # what moves values


@torch.no_grad()
def evaluate(graph: Graph, *inputs: Tensor) -> list[Tensor]:
    """Return the graph's outputs.

    Args:
        graph: Any graph.
        inputs: One tensor an input, of its shape.

    Raises:
        ValueError: Another number of inputs, or another shape.
    """
    wanted, given = [node.shape for node in graph.inputs], [tuple(tensor.shape) for tensor in inputs]
    if wanted != given:
        raise ValueError(f"the graph takes {wanted}, it was given {given}.")
    left = {name: len(readers) for name, readers in graph.readers().items()}
    values: dict[str, Tensor] = {}
    for node in graph:
        values[node.name] = inputs[node["index"]] if node.op == "input" else value_of(graph, node, [values[name] for name in node.inputs])
        assert tuple(values[node.name].shape) == node.shape, (
            f"{node.name} gives {tuple(values[node.name].shape)}, its shape is {node.shape}"
        )
        for name in node.inputs:
            left[name] -= 1
            if not left[name] and name not in graph.outputs:
                values.pop(name, None)
    return [values[name] for name in graph.outputs]


def value_of(graph: Graph, node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Return what one node gives for these inputs.

    Args:
        graph: Where its constants are.
        node: Any node but an input.
        inputs: One tensor an input of the node.
    """
    constants = {role: graph.constants[key] for role, key in node.constants.items()}
    value = _shaped(node, inputs, constants) if node.op in SHAPING else _computed(node, inputs, constants)
    value = activated(node, value, node["activation"]) if node.attributes.get("activation") else value
    return MAX_POOLS[value.ndim - 3](value, (1,) * (value.ndim - 4) + (2, 2)) if node.attributes.get("pool") else value


def activated(node: Node, x: Tensor, function: str) -> Tensor:
    """Return a function of ``x``; what ``SETTINGS`` names is an attribute of the node."""
    match function:
        case "clamp":
            return x.clamp(node["low"], node["high"])
        case "leaky_relu":
            return F.leaky_relu(x, node["slope"])
    return UNARY[function](x)


def borders(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return padding by axis as ``F.pad`` takes it: from the last axis."""
    return [size for pair in reversed(padding) for size in pair]


def _computed(node: Node, inputs: Sequence[Tensor], constants: dict[str, Tensor]) -> Tensor:
    x, bias = inputs[0], constants.get("bias")
    match node.op:
        case "conv":
            convolve = CONVOLUTIONS[x.ndim - 3]
            value = convolve(
                F.pad(x, borders(node["padding"])), constants["weight"], bias, node["stride"], 0, node["dilation"], node["groups"]
            )
            return value + inputs[-1] if node["residual"] else value
        case "linear":
            value = F.linear(x, constants["weight"], bias)
            return value + inputs[-1] if node["residual"] else value
        case "affine":
            shape = [-1 if axis == node["axis"] else 1 for axis in range(x.ndim)]
            return x * constants["scale"].view(shape) + constants["shift"].view(shape)
        case "unary":
            return activated(node, x, node["function"])
        case "binary":
            return BINARY[node["function"]](x, constants["other"] if "other" in constants else inputs[1])
        case "softmax":
            return x.softmax(node["axis"])
        case "mean":
            return x.mean(node["axes"], node["keepdim"])
        case "layer_norm":
            return F.layer_norm(x, node.shape[-node["num_axes"] :], constants.get("weight"), bias, node["eps"])
        case "group_norm":
            return F.group_norm(x, node["groups"], constants.get("weight"), bias, node["eps"])
        case "matmul":
            return torch.matmul(x, inputs[1])
    return _pooled(node, x)


def _pooled(node: Node, x: Tensor) -> Tensor:
    match node.op:
        case "max_pool":
            padded = F.pad(x, borders(node["padding"]), value=-torch.inf)
            return MAX_POOLS[x.ndim - 3](padded, node["kernel"], node["stride"], 0, node["dilation"])
        case "avg_pool":
            around, pool = borders(node["padding"]), AVG_POOLS[x.ndim - 3]
            value = pool(F.pad(x, around), node["kernel"], node["stride"])
            if node["count_padding"] or not any(around):
                return value
            return value / pool(F.pad(torch.ones_like(x[:1, :1]), around), node["kernel"], node["stride"])
        case "adaptive_avg_pool":
            return ADAPTIVE_POOLS[x.ndim - 3](x, node.shape[2:])
    assert node.op == "upsample"
    settings = {} if node["mode"] == "nearest" else {"align_corners": node["align_corners"]}
    return F.interpolate(x, node.shape[2:], mode=node["mode"], **settings)


def _shaped(node: Node, inputs: Sequence[Tensor], constants: dict[str, Tensor]) -> Tensor:
    match node.op:
        case "constant":
            return constants["value"]
        case "concat":
            return torch.cat([*inputs], node["axis"])
        case "slice":
            cut: list[slice] = [slice(None)] * len(node.shape)
            cut[node["axis"]] = slice(node["start"], node["stop"], node["step"])
            return inputs[0][tuple(cut)]
        case "pad":
            return F.pad(inputs[0], borders(node["padding"]), value=node["value"])
        case "expand":
            return inputs[0].expand(node.shape)
        case "reshape":
            return inputs[0].reshape(node.shape)
    assert node.op == "permute"
    return inputs[0].permute(node["axes"])
