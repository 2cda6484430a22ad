"""Dense convolutions by Winograd's filtering against PyTorch, whatever the knobs; what lies around the map is zeros of its border."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from activations import BOUNDS, activated
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import CHANNELS, borders, samples
from test_depthwise import widened

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import Layout, lines, map_of
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.winograd import Blocks, blocks_of, lowered_winograd, takes
from espalier.compiler.lowering.winograd_transforms import TRANSFORMS, transformed

CONVOLUTIONS = {2: F.conv2d, 3: F.conv3d}
ACTIVATIONS = (None, None, "relu", "relu6", "silu", "sigmoid", "clamp")
POINTS = [(sign * one, other) for one, other in ((0.5**0.5, 2**0.5), (2**0.5, 0.5**0.5)) for sign in (1, -1)]  # beside each its companion
TOLERANCE = 1e-4  # what a compiled network may differ by


def lower_with(size: int, knobs: Callable[[Blocks, Isa], Blocks]) -> Callable[..., Kernel]:
    """Return a lowering to template W with knobs changed from the rule's."""

    def lower(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
        weight, bias = graph.constants["weight"], graph.constants["bias"]
        missing = 5 - weight.ndim
        before = [0] * missing + [pair[0] for pair in node["padding"]]
        whole = weight.reshape(*weight.shape[:2], *[1] * missing, *weight.shape[2:])
        layer = Convolution(whole, None, bias, (1, 1, 1), (before[0], before[1], before[2]), (1, 1, 1), node["activation"])
        source, *residuals, result = (lines(layout) for layout in (*inputs, output))
        assert takes(layer, source, result)
        blocks = knobs(blocks_of(layer, result, isa, size), isa)
        return lowered_winograd(node, layer, source, result, residuals[0] if residuals else None, isa, blocks)

    return lower


@st.composite
def dense(draw: st.DrawFn) -> Case:
    """Draw a dense convolution of 3x3 or Dx3x3 and knobs."""
    rank, size = draw(st.sampled_from([2, 2, 3])), draw(st.sampled_from(sorted(TRANSFORMS)))
    channels, filters = draw(st.sampled_from(CHANNELS[1:])), draw(st.sampled_from(CHANNELS))
    depth = draw(st.sampled_from([1, 3]))
    kernel = (depth, 3, 3)[3 - rank :]
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in kernel)
    out = (draw(st.integers(1, 4)), *(draw(st.integers(size, 15)) for _ in range(2)))[3 - rank :]
    spatial = tuple(max(1, n + k - 1 - sum(pair)) for n, k, pair in zip(out, kernel, padding, strict=True))
    x, constants = samples((1, channels, *spatial)), {"weight": samples((filters, channels, *kernel), 1), "bias": samples((filters,), 2)}
    wanted = CONVOLUTIONS[rank](F.pad(x, [n for pair in reversed(padding) for n in pair]), constants["weight"], constants["bias"])
    inputs, layouts = (x,), (map_of(x.shape, widened(draw(borders(rank)), padding)),)
    residual = draw(st.booleans())
    if residual:
        inputs += (samples(tuple(wanted.shape), 3),)
        layouts += (map_of(wanted.shape, draw(borders(rank))),)
        wanted = wanted + inputs[1]
    activation, (low, high) = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(BOUNDS))
    attributes = {"stride": (1,) * rank, "padding": padding, "dilation": (1,) * rank, "groups": 1}
    attributes |= {"activation": activation, "residual": residual, "low": low, "high": high}
    vectors, tiles, groups = draw(st.sampled_from([1, 2])), draw(st.integers(0, 13)), draw(st.integers(1, 3))
    planes = draw(st.sampled_from([n for n in range(1, 5) if wanted.shape[2] % n == 0])) if rank == 3 else 1

    def knobs(rule: Blocks, isa: Isa) -> Blocks:
        own = Blocks(size, vectors, 1 + tiles % isa.pixels(vectors), planes, groups)
        return rule if draw_rule else own

    draw_rule = draw(st.booleans())
    output = map_of(wanted.shape, draw(borders(rank)))
    wanted = activated(wanted, activation, (low, high))
    return Case("conv", attributes, inputs, layouts, output, wanted, constants, True, lower_with(size, knobs), TOLERANCE)


@few(dense())
def test_winograds_convolutions_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("winograd"))


@many(dense())
def test_many_of_winograds_convolutions_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("winograd"))


@pytest.mark.parametrize("size", TRANSFORMS)
def test_filters_transformed_in_double_precision_convolve_exactly(size: int) -> None:
    """A tile by the matrices of the literature, written out: A' [(G g G') * (B' d B)] A."""
    into, back = {
        2: ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], [[1, 1, 1, 0], [0, 1, -1, -1]]),
        4: (
            [[1, 0, -2.5, 0, 1, 0], *([0, -p * q * q, -q * q, p, 1, 0] for p, q in POINTS), [0, 1, 0, -2.5, 0, 1]],
            [[0.0**power, *(p**power for p, _ in POINTS), 0] for power in range(3)] + [[0, *(p**3 for p, _ in POINTS), 1]],
        ),
    }[size]
    b, a = np.array(into, np.float64), np.array(back, np.float64)
    weight, tile = samples((1, 1, 1, 3, 3)), samples((size + 2, size + 2)).double()
    domain = transformed(weight, TRANSFORMS[size]).reshape(size + 2, size + 2)
    got = a @ (domain * (b @ tile.numpy() @ b.T)) @ a.T
    wanted = F.conv2d(tile[None, None], weight[0].double())[0, 0]
    assert np.abs(got - wanted.numpy()).max() < 1e-12


def test_only_dense_layers_of_3x3_and_stride_1_are_taken() -> None:
    x, y = lines(map_of((1, 32, 9, 9))), lines(map_of((1, 32, 9, 9)))
    weight = samples((32, 32, 1, 3, 3))
    layer = Convolution(weight, None, torch.zeros(32), (1, 1, 1), (0, 1, 1), (1, 1, 1), None)
    assert takes(layer, x, y)
    assert takes(replace(layer, weight=samples((32, 32, 3, 3, 3))), x, y)
    assert not takes(replace(layer, mask=weight > 0), x, y)
    assert not takes(replace(layer, stride=(1, 2, 2)), x, y)
    assert not takes(replace(layer, stride=(2, 1, 1)), x, y)
    assert not takes(replace(layer, dilation=(1, 2, 2)), x, y)
    assert not takes(replace(layer, weight=samples((32, 32, 1, 5, 5))), x, y)
    assert not takes(layer, replace(x, line=4), y)
    assert not takes(layer, x, lines(map_of((1, 32, 1, 9))))


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_a_layers_tiles_fill_the_scratch_but_not_more_than_that(isa: Isa) -> None:
    layer = Convolution(samples((64, 64, 3, 3, 3)), None, torch.zeros(64), (1, 1, 1), (1, 1, 1), (1, 1, 1), None)
    blocks = blocks_of(layer, lines(map_of((1, 64, 16, 56, 56))), isa, 4)
    assert 16 % blocks.planes == 0
    assert blocks.planes > 1
    assert blocks.tiles <= isa.pixels(blocks.vectors)
