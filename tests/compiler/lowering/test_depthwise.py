"""Depthwise convolutions against PyTorch; what lies around the map is read as the zeros of its border."""

import pytest
import torch.nn.functional as F
from activations import BOUNDS, activated, settings
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import borders, map_shapes, samples

from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import Border, map_of

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


@st.composite
def depthwise(draw: st.DrawFn) -> Case:
    """Draw a depthwise convolution of one or several filters a channel with uneven padding, inside a border that may be wider."""
    shape = draw(map_shapes(most=19).filter(lambda shape: shape[1] > 1))
    rank, x = len(shape) - 2, samples(shape)
    kernel = tuple(draw(st.sampled_from([1, 2, 3, 5, 9] if rank < 3 else [1, 3])) for _ in range(rank))
    stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (3, 2))
    drawn = [(draw(st.integers(0, size)), draw(st.integers(0, size))) for size in kernel]
    reach = [(size - 1) * apart + 1 for size, apart in zip(kernel, dilation, strict=True)]
    lacks = [need - size - sum(pair) for need, size, pair in zip(reach, shape[2:], drawn, strict=True)]
    padding = tuple((before, after + max(0, lack)) for (before, after), lack in zip(drawn, lacks, strict=True))
    around = [size for pair in reversed(padding) for size in pair]
    filters = shape[1] * draw(st.sampled_from([1, 1, 2, 4] if shape[1] != 3 else [1]))
    constants = {"weight": samples((filters, 1, *kernel), seed=1)}
    if draw(st.booleans()):
        constants["bias"] = samples((filters,), seed=2)
    wanted = CONVOLUTIONS[rank - 1](F.pad(x, around), constants["weight"], constants.get("bias"), stride, 0, dilation, shape[1])
    inputs, line = (x,), 4 if shape[1] == 3 else 16
    layouts = (map_of(shape, widened(draw(borders(rank)), padding), line),)
    residual = draw(st.booleans())
    if residual:
        inputs += (samples(tuple(wanted.shape), seed=3),)
        layouts += (map_of(wanted.shape, draw(borders(rank)), line),)
        wanted = wanted + inputs[1]
    activation, (low, high) = (
        draw(st.sampled_from([None, "relu", "relu6", "silu", "sigmoid", "clamp", "leaky_relu"])),
        draw(st.sampled_from(BOUNDS)),
    )
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": shape[1]}
    attributes |= {"activation": activation, "residual": residual, **settings((low, high))}
    output = map_of(wanted.shape, draw(borders(rank)), line)
    return Case("conv", attributes, inputs, layouts, output, activated(wanted, activation, (low, high)), constants, zero_border=True)


def widened(border: Border, padding: tuple[tuple[int, int], ...]) -> Border:
    """Return a border that is the padding wider."""
    all_axes = ((0, 0),) * (3 - len(padding)) + padding
    depth, height, width = ((before + first, after + last) for (before, after), (first, last) in zip(border, all_axes, strict=True))
    return depth, height, width


@few(depthwise())
def test_depthwise_convolutions_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("depthwise"))


@many(depthwise())
def test_many_depthwise_convolutions_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("depthwise"))


def test_a_border_narrower_than_the_padding_is_refused() -> None:
    x, weight = samples((1, 16, 8, 8)), samples((16, 1, 3, 3), seed=1)
    attributes = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 16, "activation": None}
    case = Case("conv", attributes, (x,), (map_of(x.shape, ((0, 0), (1, 1), (1, 0))),), map_of(x.shape), x, {"weight": weight})
    with pytest.raises(ValueError, match="has a border of"):
        case.kernel(ISAS["generic"])
