"""The graph's functions of one and two numbers as C expressions on vectors, and which of them keep zeros zero.

The channels that fill the last line of a map are zero, and stay so without a word where a function gives zero for zeros.
"""

import math
from collections.abc import Mapping

from espalier.compiler.graph import UNARY, Node

BINARY = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "maximum": "es_max({0}, {1})",
    "minimum": "es_min({0}, {1})",
}
MOVING_ZERO = ("hardsigmoid", "sigmoid", "exp")  # f(0) is not 0
ZERO_OF_ZEROS = ("add", "sub", "mul", "maximum", "minimum")  # f(0, 0) is 0
ZERO_OF_ANY = ("mul", "div")  # f(0, b) is 0 for any b but infinity, or zero below a fraction


def literal(value: float) -> str:
    """Return a C literal of type float."""
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    if math.isnan(value):
        return "NAN"
    return f"{float(value)!r}f"


def activated(value: str, node: Node | Mapping[str, float], function: str | None) -> str:
    """Return the C expression of a function of one number.

    Args:
        value: C expression of its argument.
        node: What holds the numbers that ``SETTINGS`` names: a node, or its ``settings``.
        function: One of ``UNARY``; None returns ``value``.
    """
    match function:
        case None:
            return value
        case "neg":
            return f"-({value})"
        case "clamp":
            return f"es_clamp({value}, {literal(node['low'])}, {literal(node['high'])})"
        case "leaky_relu":
            return f"es_leaky_relu({value}, {literal(node['slope'])})"
    assert function in UNARY, f"no function is called '{function}'"
    return f"es_{function}({value})"


def keeps_zero(node: Node, function: str | None) -> bool:
    """Return whether that function of zero is zero.

    Args:
        node: Whose attributes hold the bounds of ``clamp``.
        function: One of ``UNARY``, or None.
    """
    if function == "clamp":
        return bool(node["low"] <= 0 <= node["high"])
    return function not in MOVING_ZERO
