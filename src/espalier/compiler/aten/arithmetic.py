"""What works element by element, and reductions: ATen -> ``unary``, ``binary``, ``softmax``, ``mean``.

What is subtracted or divided by a constant is added or multiplied: less for later passes to know.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from espalier.compiler.aten.building import Building, UnreadableError, Value, axis_of, broadcast, number
from espalier.compiler.graph import Node

Operand = Value | float


def unary(build: Building, function: str, x: Value, **attributes: Any) -> Node:
    """Write one function of one tensor."""
    return build.add("unary", x, shape=tuple(x.shape), function=function, **attributes)


def binary(build: Building, function: str, x: Operand, y: Operand) -> Node:
    """Write one function of two operands, the second a constant where one is."""
    left, right = (value if isinstance(value, Node | Tensor) else number(value) for value in (x, y))
    shape = broadcast(left.shape, right.shape)
    if isinstance(right, Tensor) and function in ("sub", "div"):
        function, right = ("add", -right) if function == "sub" else ("mul", right.double().reciprocal().float())
    if isinstance(left, Tensor) and function not in ("sub", "div"):
        left, right = right, left
    if isinstance(right, Tensor):
        return build.add("binary", left, shape=shape, constants={"other": right.float()}, function=function, activation=None)
    return build.add("binary", left, right, shape=shape, function=function, activation=None)


def plain(function: str) -> Callable[..., Node]:
    """Return the builder of a function that has no settings."""
    return lambda build, x: unary(build, function, x)


def two(function: str) -> Callable[..., Node]:
    """Return the builder of a function of two operands."""
    return lambda build, x, y: binary(build, function, x, y)


def scaled(function: str) -> Callable[..., Node]:
    """Return the builder of a sum or difference whose second operand is multiplied by ``alpha``."""

    def builder(build: Building, x: Operand, y: Operand, alpha: float = 1) -> Node:
        if alpha == 1:
            return binary(build, function, x, y)
        return binary(build, function, x, binary(build, "mul", y, alpha) if isinstance(y, Node) else y * alpha)

    return builder


def reversed_subtraction(build: Building, x: Operand, y: Operand, alpha: float = 1) -> Node:
    """Read ``y - alpha x``."""
    return scaled("sub")(build, y, x, alpha)


def clamp(build: Building, x: Node, low: Operand | None = None, high: Operand | None = None) -> Node:
    """Read what keeps values between bounds; ReLU and ReLU6 under their own names."""
    if isinstance(low, Node | Tensor) or isinstance(high, Node | Tensor):
        raise UnreadableError("its bounds are tensors")
    if low == 0 and high in (None, 6):
        return unary(build, "relu6" if high else "relu", x)
    return unary(build, "clamp", x, low=-math.inf if low is None else float(low), high=math.inf if high is None else float(high))


def clamp_above(build: Building, x: Node, high: Operand) -> Node:
    """Read ``min(x, high)``."""
    return clamp(build, x, None, high)


def leaky_relu(build: Building, x: Node, slope: float = 0.01) -> Node:
    """Read ``x`` where it is positive, ``slope x`` elsewhere."""
    return unary(build, "leaky_relu", x, slope=float(slope))


def gelu(build: Building, x: Node, approximate: str) -> Node:
    """Read both forms of GELU."""
    return unary(build, "gelu" if approximate == "none" else "gelu_tanh", x)


def power(build: Building, x: Node, exponent: float) -> Node:
    """Read powers that are products, roots and reciprocals."""
    if exponent == 2:
        return binary(build, "mul", x, x)
    if exponent == 3:
        return binary(build, "mul", binary(build, "mul", x, x), x)
    if exponent == 0.5:
        return unary(build, "sqrt", x)
    if exponent == -0.5:
        return binary(build, "div", 1.0, unary(build, "sqrt", x))
    if exponent == -1:
        return binary(build, "div", 1.0, x)
    raise UnreadableError(f"its exponent is {exponent}; there are 2, 3, 0.5, -0.5, -1")


def fixed_power(exponent: float) -> Callable[..., Node]:
    """Return the builder of one power."""
    return lambda build, x: power(build, x, exponent)


def softmax(build: Building, x: Node, axis: int, dtype: object = None) -> Node:
    """Read a softmax."""
    del dtype  # the result is checked to be float32
    return build.add("softmax", x, axis=axis_of(axis, len(x.shape)))


def mean(build: Building, x: Node, axes: Sequence[int] | None = None, keepdim: bool = False, dtype: object = None) -> Node:
    """Read a mean; no axes are all axes."""
    del dtype
    chosen = tuple(sorted(axis_of(axis, len(x.shape)) for axis in axes)) if axes else tuple(range(len(x.shape)))
    shape = [1 if axis in chosen else size for axis, size in enumerate(x.shape) if keepdim or axis not in chosen]
    return build.add("mean", x, shape=tuple(shape), axes=chosen, keepdim=keepdim)


def total_mean(build: Building, x: Node, dtype: object = None) -> Node:
    """Read the mean of everything."""
    return mean(build, x, None, False, dtype)


def total(build: Building, x: Node, axes: Sequence[int] | None = None, keepdim: bool = False, dtype: object = None) -> Node:
    """Read a sum: the mean times how many were summed."""
    averaged = mean(build, x, axes, keepdim, dtype)
    return binary(build, "mul", averaged, math.prod(x.shape) / math.prod(averaged.shape))


def length(
    build: Building, x: Node, order: float = 2, axes: Sequence[int] | None = None, keepdim: bool = False, dtype: object = None
) -> Node:
    """Read a Euclidean norm."""
    if order != 2:
        raise UnreadableError(f"its order is {order}, not 2")
    return unary(build, "sqrt", total(build, binary(build, "mul", x, x), axes, keepdim, dtype))


def product_added(build: Building, x: Operand, y: Operand, z: Operand, value: float = 1) -> Node:
    """Read ``addcmul``: ``x + value y z``."""
    return scaled("add")(build, x, binary(build, "mul", y, z), value)


def divided(build: Building, x: Operand, y: Operand, rounding_mode: str | None = None) -> Node:
    """Read a division that may round."""
    if rounding_mode is not None:
        raise UnreadableError(f"it rounds ({rounding_mode})")
    return binary(build, "div", x, y)


def mish(build: Building, x: Node) -> Node:
    """Read ``x tanh(log(1 + e^x))`` as ``x n / (n + 2)`` with ``n = e^x (e^x + 2)``; the exponent stops at 20, where the fraction is 1."""
    grown = unary(build, "exp", unary(build, "clamp", x, low=-math.inf, high=20.0))
    n = binary(build, "mul", grown, binary(build, "add", grown, 2.0))
    return binary(build, "mul", x, binary(build, "div", n, binary(build, "add", n, 2.0)))


PLAIN = ("relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh", "exp", "sqrt", "neg", "abs")
ARITHMETIC: dict[str, Callable[..., Node]] = {
    **{f"aten.{function}.default": plain(function) for function in PLAIN},
    "aten.mish.default": mish,
    "aten.hardtanh.default": clamp,
    "aten.clamp.default": clamp,
    "aten.clamp_min.default": clamp,
    "aten.clamp_max.default": clamp_above,
    "aten.leaky_relu.default": leaky_relu,
    "aten.gelu.default": gelu,
    "aten.pow.Tensor_Scalar": power,
    "aten.square.default": fixed_power(2),
    "aten.rsqrt.default": fixed_power(-0.5),
    "aten.reciprocal.default": fixed_power(-1),
    "aten.add.Tensor": scaled("add"),
    "aten.add.Scalar": scaled("add"),
    "aten.sub.Tensor": scaled("sub"),
    "aten.sub.Scalar": scaled("sub"),
    "aten.rsub.Tensor": reversed_subtraction,
    "aten.rsub.Scalar": reversed_subtraction,
    "aten.mul.Tensor": two("mul"),
    "aten.mul.Scalar": two("mul"),
    "aten.div.Tensor": divided,
    "aten.div.Scalar": divided,
    "aten.div.Tensor_mode": divided,
    "aten.maximum.default": two("maximum"),
    "aten.minimum.default": two("minimum"),
    "aten.addcmul.default": product_added,
    "aten.softmax.int": softmax,
    "aten._softmax.default": softmax,
    "aten.mean.default": total_mean,
    "aten.mean.dim": mean,
    "aten.sum.default": lambda build, x, dtype=None: total(build, x, None, False, dtype),
    "aten.sum.dim_IntList": total,
    "aten.linalg_vector_norm.default": length,
}
