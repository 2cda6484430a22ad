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
}
BOUNDS = ((-0.5, 1.0), (0.25, math.inf), (-math.inf, -0.1))


def activated(x: Tensor, name: str | None, bounds: tuple[float, float]) -> Tensor:
    """Return a function of x."""
    if name is None:
        return x
    return x.clamp(*bounds) if name == "clamp" else FUNCTIONS[name](x)
