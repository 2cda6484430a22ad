"""Layouts and shapes, drawn at random."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from espalier.compiler.layouts import Border, Layout, Map, Plain, map_of

CHANNELS = (1, 3, 5, 8, 16, 17, 24, 32, 40)


@st.composite
def borders(draw: st.DrawFn, rank: int) -> Border:
    """Draw a border along the last ``rank`` axes of D, H, W."""
    drawn = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank)]
    return ((0, 0),) * (3 - rank) + tuple(drawn)


@st.composite
def map_shapes(draw: st.DrawFn, most: int = 9) -> tuple[int, ...]:
    """Draw the shape of a map with one to three spatial axes."""
    rank = draw(st.integers(1, 3))
    return (1, draw(st.sampled_from(CHANNELS)), *(draw(st.integers(1, most if rank < 3 else 4)) for _ in range(rank)))


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...], *, maps: bool | None = None) -> Layout:
    """Draw a layout for a tensor of that shape: a map or plain, where both are possible."""
    may = shape[:1] == (1,) and 2 <= len(shape) <= 5
    if not may or maps is False or (maps is None and draw(st.booleans())):
        return Plain(shape)
    line = 4 if shape[1] <= 4 and draw(st.booleans()) else 16
    return map_of(shape, draw(borders(len(shape) - 2)), line)


@st.composite
def maps(draw: st.DrawFn, shape: tuple[int, ...]) -> Map:
    """Draw a map for a tensor of that shape."""
    return map_of(shape, draw(borders(len(shape) - 2)), 4 if shape[1] == 3 else 16)


def samples(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return normal samples, the same for each shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + sum(shape)))
