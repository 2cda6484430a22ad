"""Layers with weights, and normalisations: ATen -> ``conv``, ``linear``, ``affine``, ``layer_norm``, ``group_norm``."""

from collections.abc import Callable

import torch
from torch import Tensor

from espalier.compiler.aten.arithmetic import binary, mean, unary
from espalier.compiler.aten.building import Building, Result, UnreadableError, Value, constant, spread, weight_of
from espalier.compiler.graph import Node

Sizes = list[int]


def convolution(
    build: Building, x: Node, weight: Value, bias: Value | None, stride: Sizes, padding: Sizes | str, dilation: Sizes, groups: int
) -> Node:
    """Read a convolution; ``padding`` may be ``same`` or ``valid``."""
    kept, rank = weight_of(weight), weight_of(weight).ndim - 2
    if len(x.shape) != rank + 2:
        raise UnreadableError(f"its input has {len(x.shape)} axes, a batch of such maps {rank + 2}")
    dilation = list(spread(dilation, rank))
    if isinstance(padding, str):
        reach = [step * (size - 1) for step, size in zip(dilation, kept.shape[2:], strict=True)]
        borders = tuple((total // 2, total - total // 2) if padding == "same" else (0, 0) for total in reach)
    else:
        borders = tuple((size, size) for size in spread(padding, rank))
    return build.add(
        "conv",
        x,
        constants={"weight": kept, "bias": constant(bias, "bias")},
        stride=spread(stride, rank),
        padding=borders,
        dilation=tuple(dilation),
        groups=groups,
        activation=None,
        residual=False,
    )


def any_convolution(
    build: Building,
    x: Node,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Node:
    """Read ``aten.convolution``, which may be transposed."""
    if transposed or any(output_padding):
        raise UnreadableError("it is transposed")
    return convolution(build, x, weight, bias, stride, padding, dilation, groups)


def linear(build: Building, x: Value, weight: Value, bias: Value | None = None) -> Node:
    """Read a linear layer; one whose weight depends on the input becomes ``matmul``."""
    if isinstance(weight, Node):
        *rows, columns, inner = range(len(weight.shape))
        turned = build.add("permute", weight, shape=(*weight.shape[:-2], weight.shape[-1], weight.shape[-2]), axes=(*rows, inner, columns))
        product = build.add("matmul", x, turned)
        return product if bias is None else binary(build, "add", product, bias)
    return build.add("linear", x, constants={"weight": weight, "bias": constant(bias, "bias")}, activation=None, residual=False)


def added_product(build: Building, bias: Value, x: Node, weight: Value, beta: float, alpha: float) -> Node:
    """Read ``addmm``: ``bias + x @ weight``."""
    if beta != 1 or alpha != 1:
        raise UnreadableError(f"its beta is {beta} and its alpha {alpha}")
    kept = constant(bias, "bias")
    if kept is not None and kept.ndim != 1:
        raise UnreadableError(f"its bias has {kept.ndim} axes")
    return linear(build, x, weight_of(weight).t().contiguous(), kept)


def batch_norm(
    build: Building,
    x: Node,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Node:
    """Read a batch norm with running statistics: ``scale * x + shift`` with ``scale = gamma / sqrt(var + eps)``."""
    del momentum, cudnn_enabled
    assert not training, "an export in training mode is traced, which gives another operator"
    assert mean is not None
    assert variance is not None
    exact = weight_of(variance).double()
    gamma, beta = constant(weight, "weight"), constant(bias, "bias")
    scale = (exact + eps).rsqrt() if gamma is None else gamma.double() * (exact + eps).rsqrt()
    shift = -weight_of(mean).double() * scale
    shift = shift if beta is None else shift + beta.double()
    return build.add("affine", x, constants={"scale": scale.float(), "shift": shift.float()}, axis=1, activation=None)


def native_batch_norm(
    build: Building, x: Node, weight: Value | None, bias: Value | None, mean: Value, variance: Value, momentum: float, eps: float
) -> Result:
    """Read the form of a batch norm that gives its statistics too."""
    return (batch_norm(build, x, weight, bias, mean, variance, False, momentum, eps),)


def layer_norm(
    build: Building, x: Node, shape: Sizes, weight: Value | None, bias: Value | None, eps: float, cudnn_enable: bool = False
) -> Node:
    """Read a layer norm over the last axes."""
    del cudnn_enable
    return build.add("layer_norm", x, constants=_scaling(weight, bias), num_axes=len(shape), eps=eps)


def native_layer_norm(build: Building, x: Node, shape: Sizes, weight: Value | None, bias: Value | None, eps: float) -> Result:
    """Read the form of a layer norm that gives its statistics too."""
    return (layer_norm(build, x, shape, weight, bias, eps),)


def group_norm(
    build: Building, x: Node, groups: int, weight: Value | None, bias: Value | None, eps: float, cudnn_enabled: bool = False
) -> Node:
    """Read a group norm over groups of channels."""
    del cudnn_enabled
    return build.add("group_norm", x, constants=_scaling(weight, bias), groups=groups, eps=eps)


def native_group_norm(
    build: Building, x: Node, weight: Value | None, bias: Value | None, samples: int, channels: int, positions: int, groups: int, eps: float
) -> Result:
    """Read the form of a group norm that gives its statistics too."""
    del samples, channels, positions
    return (group_norm(build, x, groups, weight, bias, eps),)


def root_mean_square_norm(build: Building, x: Node, shape: Sizes, weight: Value | None, eps: float | None) -> Node:
    """Read an RMS norm: ``x / sqrt(mean(x^2) + eps) * weight``."""
    small = torch.finfo(torch.float32).eps if eps is None else eps
    squares = mean(build, binary(build, "mul", x, x), range(-len(shape), 0), keepdim=True)
    normal = binary(build, "div", x, unary(build, "sqrt", binary(build, "add", squares, small)))
    return normal if weight is None else binary(build, "mul", normal, weight)


def _scaling(weight: Value | None, bias: Value | None) -> dict[str, Tensor | None]:
    return {"weight": constant(weight, "weight"), "bias": constant(bias, "bias")}


LAYERS: dict[str, Callable[..., Result]] = {
    "aten.conv1d.default": convolution,
    "aten.conv1d.padding": convolution,
    "aten.conv2d.default": convolution,
    "aten.conv2d.padding": convolution,
    "aten.conv3d.default": convolution,
    "aten.conv3d.padding": convolution,
    "aten.convolution.default": any_convolution,
    "aten.linear.default": linear,
    "aten.addmm.default": added_product,
    "aten.batch_norm.default": batch_norm,
    "aten._native_batch_norm_legit_no_training.default": native_batch_norm,
    "aten.layer_norm.default": layer_norm,
    "aten.native_layer_norm.default": native_layer_norm,
    "aten.group_norm.default": group_norm,
    "aten.native_group_norm.default": native_group_norm,
    "aten.rms_norm.default": root_mean_square_norm,
}
