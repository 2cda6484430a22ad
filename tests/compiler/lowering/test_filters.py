"""Template F against PyTorch, whatever the knobs, and where it gives NaN and infinities; what lies around a map is zeros of its border."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from activations import BOUNDS, activated, settings
from hypothesis import assume
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import CHANNELS, borders, samples
from strange import strange
from test_depthwise import widened
from torch import Tensor

from espalier.compiler.bcrc import pack
from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Plain, lines, map_of
from espalier.compiler.lowering.convolutions import conv_layer, linear_layer
from espalier.compiler.lowering.filters import CLAMPED, Convolution, lowered
from espalier.compiler.lowering.filters_rule import RESIDENT_BYTES, Choice, split_by_filters
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.tiles import Tile, best_tile

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
POOLS = {2: F.max_pool2d, 3: F.max_pool3d}
ACTIVATIONS = (*CLAMPED, "silu", "hardswish", "clamp", "leaky_relu")
PRUNED = ("dense", "single", "blocks", "filters", "nothing")
Knobs = Callable[[Convolution, tuple[int, int, int], int, Isa], Choice | None]


def lower_with(knobs: Knobs, mask: Tensor | None) -> Callable[..., Kernel]:
    """Return a lowering to template F with those knobs, of a layer pruned to ``mask``."""

    def lower(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
        pruned = graph if mask is None else replace(graph, masks={"weight": mask})
        layer = (conv_layer if node.op == "conv" else linear_layer)(node, pruned)
        source, *residuals, result = (lines(layout) for layout in (*inputs, output))
        choice = knobs(layer, layer.computed(result.size), source.line, isa)
        return lowered(layer, source, result, residuals[0] if residuals else None, isa, choice)

    return lower


@st.composite
def drawn_knobs(draw: st.DrawFn) -> Knobs:
    """Draw the rule's knobs, or any that fit."""
    by_rule, by_filters = draw(st.booleans()), draw(st.sampled_from([None, False, True]))
    which, resident_bytes = draw(st.tuples(*[st.integers(0, 10_000)] * 3)), draw(st.sampled_from([1, 4096, RESIDENT_BYTES]))

    def knobs(layer: Convolution, size: tuple[int, int, int], line: int, isa: Isa) -> Choice | None:
        filters, channels = layer.weight.shape[:2]
        vectors = [number for number in isa.vectors if number == 1 or number * isa.lanes <= -(-filters // isa.lanes) * isa.lanes]
        groups = [group for group in (1, 2, 3, 4) if channels % group == 0 and (line % group == 0 or channels == group)]
        number, group = (found[place % len(found)] for found, place in zip((vectors, groups), which, strict=False))
        ranges = [range(step, size[axis] + 1, step) for axis, step in ((0, 1), (1, layer.side), (2, layer.side))]
        tiles = [Tile(rows, columns, planes) for planes in ranges[0] for rows in ranges[1] for columns in ranges[2]]
        fitting = [tile for tile in tiles if tile.pixels <= isa.pixels(number)]
        return None if by_rule or not fitting else Choice(number, group, fitting[which[2] % len(fitting)], by_filters, resident_bytes)

    return knobs


def pruned_mask(shape: tuple[int, ...], kind: str) -> Tensor | None:
    """Return what pruning keeps of a weight: all, nothing, single weights, blocks of 16x4 at a position, or whole filters."""
    if kind == "dense":
        return None
    filters, channels, *kernel = shape
    blocks = {"single": (1, 1), "blocks": (16, 4), "filters": (1, channels), "nothing": (filters, channels)}[kind]
    counts = (-(-filters // blocks[0]), -(-channels // blocks[1]), *([1] * len(kernel) if kind == "filters" else kernel))
    kept = (samples(counts, 4) > 0.3) & (kind != "nothing")
    return kept.repeat_interleave(blocks[0], 0).repeat_interleave(blocks[1], 1)[:filters, :channels].expand(shape).contiguous()


@st.composite
def convolutions(draw: st.DrawFn, *, finite: bool = True) -> Case:
    """Draw a convolution and knobs; where not ``finite``, a dense one whose input holds NaN and infinities."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    pool = rank > 1 and draw(st.booleans())
    groups = draw(st.sampled_from([1, 1, 2, 4])) if finite and not pool else 1
    channels, filters = (groups * -(-draw(st.sampled_from(CHANNELS)) // groups) for _ in range(2))
    kernel = tuple(draw(st.sampled_from([1, 2, 3, 5] if rank < 3 else [1, 3])) for _ in range(rank))
    stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (3, 2))
    padding = tuple((draw(st.integers(0, size)), draw(st.integers(0, size))) for size in kernel)
    out = tuple(draw(st.integers(2 if pool else 1, 9 if rank < 3 else 5)) for _ in range(rank))
    facts = zip(out, kernel, stride, dilation, padding, strict=True)
    spatial = tuple(max(1, (n - 1) * step + (k - 1) * apart + 1 - sum(pair)) for n, k, step, apart, pair in facts)
    constants = {"weight": samples((filters, channels // groups, *kernel), 1), "bias": samples((filters,), 2)}
    mask = pruned_mask(constants["weight"].shape, draw(st.sampled_from(PRUNED))) if finite else None
    constants["weight"] *= 1 if mask is None else mask
    x = samples((1, channels, *spatial))
    x = x if finite else strange(x, draw(st.integers(0, 99)))
    around = [n for pair in reversed(padding) for n in pair]
    double = (tensor.double() for tensor in (F.pad(x, around), constants["weight"], constants["bias"]))
    wanted = CONVOLUTIONS[rank](*double, stride, 0, dilation, groups).float()
    inputs, line = (x,), 4 if channels <= 4 and groups == 1 else 16
    layouts = (map_of(x.shape, widened(draw(borders(rank)), padding), line),)
    residual = not pool and draw(st.booleans())
    if residual:
        inputs += (samples(tuple(wanted.shape), 3),)
        layouts += (map_of(wanted.shape, draw(borders(rank))),)
        wanted = wanted + inputs[1]
    activation = draw(st.sampled_from(ACTIVATIONS if finite and not pool else CLAMPED))
    bounds = draw(st.sampled_from(BOUNDS))
    largest = float(wanted.abs().max()) if finite else 0.0
    wanted = activated(wanted, activation, bounds)
    if pool:
        windows = (1, 2, 2)[3 - rank :]
        wanted = POOLS[rank](wanted, windows)
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "pool": pool}
    attributes |= {"activation": activation, "residual": residual, **settings(bounds)}
    output = map_of(wanted.shape, draw(borders(rank)))
    lower = lower_with(draw(drawn_knobs()), mask)
    return Case("conv", attributes, inputs, layouts, output, wanted, constants, True, lower, largest=largest, fills=False)


@st.composite
def linears(draw: st.DrawFn) -> Case:
    """Draw a linear layer over several rows, whose last vector of filters mostly is not whole, and knobs."""
    shape = (*draw(st.sampled_from([(), (1,), (2,)])), draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 8, 17, 40])))
    filters = draw(st.sampled_from(CHANNELS))
    constants = {"weight": samples((filters, shape[-1]), 1), "bias": samples((filters,), 2)}
    mask = pruned_mask(constants["weight"].shape, draw(st.sampled_from(PRUNED)))
    constants["weight"] *= 1 if mask is None else mask
    inputs: tuple[Tensor, ...] = (samples(shape),)
    wanted = F.linear(inputs[0], constants["weight"], constants["bias"])
    residual = draw(st.booleans())
    if residual:
        inputs += (samples(tuple(wanted.shape), 3),)
        wanted = wanted + inputs[1]
    activation, bounds = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(BOUNDS))
    wanted = activated(wanted, activation, bounds)
    layouts = tuple(Plain(tuple(tensor.shape)) for tensor in inputs)
    attributes = {"activation": activation, "residual": residual, **settings(bounds)}
    lower = lower_with(draw(drawn_knobs()), mask)
    return Case("linear", attributes, inputs, layouts, Plain(tuple(wanted.shape)), wanted, constants, lower=lower)


@few(st.one_of(convolutions(), convolutions(), linears()))
def test_layers_by_filters_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("filters"))


@many(st.one_of(convolutions(), convolutions(), linears()))
def test_many_layers_by_filters_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("filters"))


@few(convolutions(finite=False))
def test_nan_and_infinities_stand_where_pytorch_has_them(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    assume(any(case.wanted.isnan().any() for case in cases))  # clamped and pooled maps may have none
    check(cases, isa, tmp_path_factory.mktemp("filters"))


@pytest.mark.parametrize(
    ("side", "kept", "wanted"),
    [
        (14, 1.0, True),  # 2.4 MB of weights, 0.2 of a map
        (14, 0.5, False),  # 1.2 MB: six times the map
        (8, 0.25, True),  # 0.6 MB: nine times the map
        (8, 0.125, False),  # it stays in L2
        (2, 0.01, True),  # one tile
    ],
)
def test_threads_share_out_filters_where_weights_outweigh_the_map_by_far(side: int, kept: float, wanted: bool) -> None:
    weight = torch.ones(256, 256, 1, 3, 3)
    mask = torch.zeros(256, 64, 4, 9, dtype=torch.bool)
    mask[:, : math.ceil(64 * kept)] = True
    packed = pack(weight, mask.reshape(weight.shape), block_filters=32, group_channels=4)
    size = (1, side, side)
    assert split_by_filters(packed, lines(map_of((1, 256, side, side))), size, best_tile(size, 14, overhead=1.2)) == wanted
