"""The graph's functions of one number, in PyTorch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FUNCTIONS = {
    **{name: getattr(torch, name) for name in ("relu", "sigmoid", "tanh", "exp", "neg", "abs")},
    **{name: getattr(F, name) for name in ("relu6", "hardswish", "hardsigmoid", "silu", "gelu")},
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sqrt": lambda x: x.abs().sqrt(),
    "leaky_relu": lambda x: F.leaky_relu(x, SLOPE),
}
SLOPE = 0.2
BOUNDS = ((-0.5, 1.0), (0.25, math.inf), (-math.inf, -0.1))


def settings(bounds: tuple[float, float]) -> dict[str, float]:
    """Return the numbers beside a function, as a node has them."""
    return {"low": bounds[0], "high": bounds[1], "slope": SLOPE}


def activated(x: Tensor, name: str | None, bounds: tuple[float, float]) -> Tensor:
    """Return a function of x."""
    if name is None:
        return x
    return x.clamp(*bounds) if name == "clamp" else FUNCTIONS[name](x)
