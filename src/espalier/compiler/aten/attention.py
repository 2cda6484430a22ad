"""Products of two activations, and attention: ATen -> ``matmul``, ``softmax``."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from espalier.compiler.aten.arithmetic import binary
from espalier.compiler.aten.building import Building, Result, UnreadableError, Value, broadcast
from espalier.compiler.aten.layers import linear
from espalier.compiler.aten.shapes import transpose
from espalier.compiler.graph import Node


def matmul(build: Building, x: Value, y: Value) -> Node:
    """Read a matrix product; one with a constant matrix on the right is a linear layer."""
    if isinstance(y, Tensor) and y.ndim == 2:
        return linear(build, x, y.t().contiguous())
    return _product(build, x, y)


def attention(
    build: Building,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    grouped: bool = False,
) -> Node:
    """Read attention as ``softmax(scale q k^T + mask) v``."""
    if dropout:
        raise UnreadableError(f"it draws at random (dropout_p={dropout:g})")
    if grouped:
        raise UnreadableError("its queries share keys (enable_gqa)")
    q, k = build.node(query), build.node(key)
    scaled = binary(build, "mul", q, q.shape[-1] ** -0.5 if scale is None else scale)
    scores = _product(build, scaled, transpose(build, k, -2, -1))
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    if mask is not None:
        scores = binary(build, "add", scores, mask)
    weights = build.add("softmax", scores, shape=scores.shape, axis=len(scores.shape) - 1)
    return _product(build, weights, value)


def _product(build: Building, x: Value, y: Value) -> Node:
    left, right = build.node(x), build.node(y)
    if min(len(left.shape), len(right.shape)) < 2:
        raise UnreadableError("one side is a vector")
    batch = broadcast(left.shape[:-2], right.shape[:-2])
    return build.add("matmul", left, right, shape=(*batch, left.shape[-2], right.shape[-1]))


ATTENTION: dict[str, Callable[..., Result]] = {
    "aten.matmul.default": matmul,
    "aten.mm.default": matmul,
    "aten.bmm.default": matmul,
    "aten.scaled_dot_product_attention.default": attention,
}
