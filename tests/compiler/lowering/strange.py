"""Inputs that hold NaN and infinities."""

import math

import torch
from torch import Tensor

STRANGE = ((math.nan,), (math.inf,), (-math.inf,), (math.nan, math.inf), (math.inf, -math.inf))


def strange(x: Tensor, seed: int) -> Tensor:
    """Return the tensor with one or two elements replaced by NaN and infinities."""
    generator = torch.Generator().manual_seed(seed)
    flat = x.flatten().clone()
    for value in STRANGE[seed % len(STRANGE)]:
        flat[torch.randint(len(flat), (), generator=generator)] = value
    return flat.view_as(x)
