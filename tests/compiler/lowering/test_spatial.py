"""Pruned convolutions with pixels in the lanes against masked PyTorch, whatever the knobs; around the map lie zeros of its border."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from activations import BOUNDS, activated, settings
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import CHANNELS, borders, samples
from test_depthwise import widened
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import Layout, Lines, lines, map_of
from espalier.compiler.lowering.convolutions import conv_layer
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.spatial import lowered_spatial
from espalier.compiler.lowering.spatial_rule import spatial_blocks
from espalier.compiler.lowering.spatial_shape import BAND_FLOATS, Blocks, blocks_of, shape_of, takes

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
ACTIVATIONS = (None, None, "relu", "relu6", "silu", "sigmoid", "clamp", "leaky_relu")


def lower_with(knobs: Callable[[Blocks, Isa], Blocks], filters: int, channels: int) -> Callable[..., Kernel]:
    """Return a lowering to template S with knobs changed from the rule's."""

    def lower(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
        layer = conv_layer(node, graph)
        layer = replace(layer, mask=layer.weight != 0)
        source, *residuals, result = (lines(layout) for layout in (*inputs, output))
        assert takes(layer, source, result)
        blocks = knobs(blocks_of(layer, result, isa, filters, channels), isa)
        return lowered_spatial(node, layer, source, result, residuals[0] if residuals else None, isa, blocks)

    return lower


def masked(weight: Tensor, filters: int, channels: int, rate: float) -> Tensor:
    """Return a weight of which groups are zero, whole filters, whole channels and whole blocks of filters among them."""
    kept = torch.rand(weight.shape, generator=torch.Generator().manual_seed(weight.numel())) < 1 / rate
    kept = kept[::filters, ::channels].repeat_interleave(filters, 0).repeat_interleave(channels, 1)[: weight.shape[0], : weight.shape[1]]
    kept[1::5] = False
    kept[:, 2::7] = False
    kept[filters : 2 * filters] = False
    return weight * kept


@st.composite
def pruned(draw: st.DrawFn) -> Case:
    """Draw a pruned convolution and knobs."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    channels, filters = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(CHANNELS))
    kernel, dilation = (tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (3, 2))
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in kernel)
    out = (draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 40)))[3 - rank :]
    ends = zip(out, kernel, dilation, padding, strict=True)
    spatial = tuple(max(1, n + (k - 1) * step - sum(pair)) for n, k, step, pair in ends)
    block_filters, group_channels = draw(st.sampled_from([4, 8])), draw(st.sampled_from([1, 2, 4]))
    weight = masked(samples((filters, channels, *kernel), 1), block_filters, group_channels, draw(st.sampled_from([1.2, 3.0, 8.0])))
    x, bias = samples((1, channels, *spatial)), samples((filters,), 2)
    wanted = CONVOLUTIONS[rank](F.pad(x, [n for pair in reversed(padding) for n in pair]), weight, bias, dilation=dilation)
    inputs, layouts = (x,), (map_of(x.shape, widened(draw(borders(rank)), padding)),)
    residual = draw(st.booleans())
    if residual:
        inputs += (samples(tuple(wanted.shape), 3),)
        layouts += (map_of(wanted.shape, draw(borders(rank))),)
        wanted = wanted + inputs[1]
    activation, bounds = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(BOUNDS))
    attributes = {"stride": (1,) * rank, "padding": padding, "dilation": dilation, "groups": 1, "residual": residual}
    attributes |= {"activation": activation, **settings(bounds)}
    vectors, rows, by_rule = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.booleans())

    def knobs(rule: Blocks, isa: Isa) -> Blocks:
        return rule if by_rule else replace(rule, vectors=min(vectors, rule.vectors), rows=rows)

    output = map_of(wanted.shape, draw(borders(rank)))
    largest = float(wanted.abs().max())
    wanted = activated(wanted, activation, bounds)
    lower = lower_with(knobs, block_filters, group_channels)
    return Case("conv", attributes, inputs, layouts, output, wanted, {"weight": weight, "bias": bias}, True, lower, largest=largest)


@few(pruned())
def test_convolutions_with_pixels_in_the_lanes_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("spatial"))


@many(pruned())
def test_many_convolutions_with_pixels_in_the_lanes_are_pytorchs(
    isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(cases, isa, tmp_path_factory.mktemp("spatial"))


def layer_of(filters: int, channels: int, size: int, block_filters: int, rate: float) -> tuple[Convolution, Lines, Lines]:
    """Return a pruned layer of 3x3 whose groups have so many filters and 4 channels, its input and its output."""
    weight = samples((filters, channels, 1, 3, 3))
    kept = torch.rand(-(-filters // block_filters), -(-channels // 4), 1, 3, 3, generator=torch.Generator().manual_seed(0)) < 1 / rate
    mask = kept.repeat_interleave(block_filters, 0).repeat_interleave(4, 1)[:filters, :channels]
    layer = Convolution(weight * mask, mask, torch.zeros(filters), (1, 1, 1), (0, 1, 1), (1, 1, 1), None)
    return layer, lines(map_of((1, channels, size, size))), lines(map_of((1, filters, size, size)))


def test_only_pruned_layers_of_stride_1_are_taken() -> None:
    layer, x, y = layer_of(32, 32, 9, 8, 4)
    assert takes(layer, x, y)
    assert takes(replace(layer, dilation=(1, 2, 2)), x, y)
    assert not takes(replace(layer, mask=None), x, y)
    assert not takes(replace(layer, stride=(1, 2, 2)), x, y)
    assert not takes(replace(layer, stride=(1, 1, 2)), x, y)
    assert not takes(replace(layer, pool=True), x, y)
    assert not takes(layer, replace(x, line=4), y)
    assert not takes(layer, x, replace(y, line=4))


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("channels", "size"), [(16, 7), (64, 56), (256, 56), (256, 14), (4096, 5)])
def test_a_band_fills_the_scratch_but_not_more_than_that(isa: Isa, channels: int, size: int) -> None:
    layer, _, result = layer_of(32, channels, size, 8, 4)
    blocks = blocks_of(layer, result, isa, 8, 4)
    assert blocks.vectors * (8 + 1) < isa.registers
    shape = shape_of(layer, result, isa, blocks)
    bands = -(-size // blocks.rows)
    assert shape.band <= BAND_FLOATS or blocks.rows == 1
    assert bands == 1 or shape_of(layer, result, isa, replace(blocks, rows=-(-size // (bands - 1)))).band > BAND_FLOATS
    assert shape.channel // 16 % 2 == shape.sums // 16 % 2 == 1


def test_what_fills_the_last_line_of_filters_is_no_block_that_is_multiplied() -> None:
    layer, x, y = layer_of(20, 16, 9, 8, 1.5)
    node = Node("y", "conv", ("x",), (1, 20, 9, 9), {"activation": None})
    kernel = lowered_spatial(node, layer, x, y, None, ISAS["avx512"], blocks_of(layer, y, ISAS["avx512"], 8, 4))
    start = kernel.arrays["start"]
    assert len(start) == 4 + 1
    assert np.diff(start).tolist()[3:] == [0]
    assert kernel.macs == start[-1] * 8 * 4 * 81
    assert (kernel.template, kernel.detail) == ("S", "gM=8 gN=4 vectors=3 rows=9")


def test_blocks_of_8_filters_are_left_to_pixels_in_the_lanes_and_those_of_whole_vectors_to_template_f() -> None:
    isa = ISAS["avx512"]
    blocks = spatial_blocks(*layer_of(128, 64, 56, 8, 4), isa)
    assert blocks is not None
    assert (blocks.filters, blocks.channels) == (8, 4)
    assert spatial_blocks(*layer_of(128, 64, 56, 16, 4), isa) is None
    assert spatial_blocks(*layer_of(128, 64, 56, 32, 4), isa) is None
    assert spatial_blocks(*layer_of(128, 64, 56, 8, 1.05), isa) is None
    assert spatial_blocks(*layer_of(128, 64, 4, 8, 4), isa) is None


def test_where_vectors_are_no_longer_than_blocks_template_f_computes_them() -> None:
    assert spatial_blocks(*layer_of(128, 64, 56, 8, 4), ISAS["avx2"]) is None
    assert spatial_blocks(*layer_of(128, 64, 56, 4, 4), ISAS["generic"]) is None
