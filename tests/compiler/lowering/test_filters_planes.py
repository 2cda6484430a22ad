"""Kernel planes that a tile of template F needs: all that reach the map, whatever stride, padding and dilation, and few others."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kernels import RUNNABLE, Case, check
from layouts_of import samples

from espalier.compiler.bcrc import pack
from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, lines, map_of
from espalier.compiler.lowering.convolutions import conv_layer
from espalier.compiler.lowering.filters import Convolution, lowered
from espalier.compiler.lowering.filters_planes import Planes, cuts, macs_taken, planes_of, without_idle_planes
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.tiles import Tile


@dataclass(frozen=True)
class Depth:
    """What a layer is along D."""

    taps: int
    stride: int
    padding: tuple[int, int]
    dilation: int
    planes: int
    tile: int

    @property
    def source(self) -> int:
        """Return the planes of its input, as few as ``planes`` of the result want."""
        return max(1, (self.planes - 1) * self.stride + (self.taps - 1) * self.dilation + 1 - sum(self.padding))

    def layer(self) -> Convolution:
        """Return a layer of one filter and one channel."""
        weight, three = torch.ones(1, 1, self.taps, 1, 1), (self.stride, 1, 1)
        return Convolution(weight, None, torch.zeros(1), three, (self.padding[0], 0, 0), (self.dilation, 1, 1), None)

    def at(self, plane: int, tap: int) -> int:
        """Return the plane of the input that a tap of a plane of the result reads."""
        return plane * self.stride - self.padding[0] + tap * self.dilation

    def reaches(self, plane: int, tap: int) -> bool:
        """Return whether that lies on the map."""
        return 0 <= self.at(plane, tap) < self.source


@st.composite
def depths(draw: st.DrawFn) -> Depth:
    """Draw a layer and a tile that fits its result."""
    taps, planes = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    padding = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    return Depth(taps, draw(st.integers(1, 3)), padding, draw(st.integers(1, 2)), planes, draw(st.integers(1, planes)))


@given(depths())
def test_planes_that_reach_the_map_are_taken_and_no_others(depth: Depth) -> None:
    found = planes_of(depth.layer(), depth.source, depth.planes, depth.tile)
    assert len(found.reached) == -(-depth.planes // depth.tile)
    for tile, (low, high) in enumerate(found.reached):
        first = min(tile * depth.tile, depth.planes - depth.tile)
        needed = {tap for tap in range(depth.taps) if any(depth.reaches(first + place, tap) for place in range(depth.tile))}
        assert 0 <= low <= high <= depth.taps
        assert needed <= set(range(low, high))
        before, behind = depth.at(first + depth.tile - 1, low - 1), depth.at(first, high)
        assert low == 0 or before < 0, "the plane before the first lies before the map even for the tile's last plane"
        assert high in (low, depth.taps) or behind >= depth.source
        if depth.tile == 1:
            assert {*range(low, high)} == needed


@given(depths())
def test_a_layer_without_idle_planes_reads_what_it_read(depth: Depth) -> None:
    layer = depth.layer()
    layer = replace(layer, weight=torch.arange(1.0, depth.taps + 1).reshape(layer.weight.shape), mask=torch.ones_like(layer.weight).bool())
    less = without_idle_planes(layer, depth.source, depth.planes)
    assert less.padding[0] >= 0
    assert less.mask is not None
    assert less.mask.shape == less.weight.shape

    def read(one: Convolution) -> list[dict[int, float]]:
        steps = range(one.weight.shape[2])
        at = [{z * one.stride[0] - one.padding[0] + tap * one.dilation[0]: tap for tap in steps} for z in range(depth.planes)]
        return [{place: float(one.weight[0, 0, tap]) for place, tap in taps.items() if 0 <= place < depth.source} for taps in at]

    assert read(less) == read(layer)


@pytest.mark.parametrize(("planes", "share"), [(1, 1 / 3), (2, 2 / 3), (4, 5 / 6), (16, 23 / 24)])
def test_a_same_convolution_of_three_planes_leaves_out_its_border(planes: int, share: float) -> None:
    depth = Depth(3, 1, (1, 1), 1, planes, 1)
    assert planes_of(depth.layer(), depth.source, planes, 1).share == pytest.approx(share)
    assert planes_of(depth.layer(), depth.source, planes, planes).share == (1 / 3 if planes == 1 else 1)
    assert without_idle_planes(depth.layer(), depth.source, planes).weight.shape[2] == (1 if planes == 1 else 3)


def test_cuts_part_each_blocks_entries_by_plane_and_products_are_counted_by_them() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(24, 8, 3, 2, 2, generator=generator) > 0.9
    weight = torch.randn(24, 8, 3, 2, 2, generator=generator) * mask
    packed = pack(weight, mask, block_filters=8, group_channels=2, by_plane=True)
    assert torch.equal(packed.dense(), weight)
    found = cuts(packed)
    assert found.shape == (3, 4)
    assert (found[:, 0] == packed.start[:-1]).all()
    assert (found[:, -1] == packed.start[1:]).all()
    for block, plane in np.ndindex(3, 3):
        assert (packed.positions[found[block, plane] : found[block, plane + 1]] // 4 == plane).all()
    assert macs_taken(packed, Planes(3, ((0, 3), (0, 3)), 2, 1), 35) == packed.executed * 70
    middle = int((found[:, 2] - found[:, 1]).sum()) * 16
    assert macs_taken(packed, Planes(3, ((1, 2), (1, 2)), 2, 1), 35) == middle * 70
    assert macs_taken(packed, Planes(3, ((1, 2), (1, 2)), 3, 2), 35) == middle * 105, "a plane that two tiles compute counts once"


@pytest.mark.parametrize("isa", RUNNABLE, ids=lambda isa: isa.name)
def test_layers_that_leave_planes_out_are_pytorchs(isa: Isa, tmp_path: Path) -> None:
    cases = []
    for by_filters, residual, pool, tile in itertools.product((False, True), (False, True), (False, True), (1, 2)):
        if not (residual and pool):
            cases.append(case((5, 3, 3), (2, 1, 1), (3, 4, 4), Choice(1, 4, Tile(2, 2, tile), by_filters), residual=residual, pool=pool))
    cases.append(case((5, 1, 1), (4, 0, 0), (3, 1, 2), Choice(1, 4, Tile(1, 2), None)))
    cases.append(case((300, 1, 1), (20, 0, 0), (290, 1, 1), Choice(1, 4, Tile(1, 1), None)))  # more planes than a byte counts
    check(cases, isa, tmp_path)


def case(
    kernel: tuple[int, ...], padding: tuple[int, ...], size: tuple[int, ...], choice: Choice, *, residual: bool = False, pool: bool = False
) -> Case:
    """Return a dense 3-D convolution of 8 channels and 20 filters whose tiles leave planes out."""
    constants = {"weight": samples((20, 8, *kernel), 1), "bias": samples((20,), 2)}
    x = samples((1, 8, *size))
    wanted = F.conv3d(*(one.double() for one in (x, *constants.values())), padding=padding).float()
    inputs, layouts = (x,), (map_of(x.shape, tuple((one, one) for one in padding)),)
    if residual:
        inputs += (samples(tuple(wanted.shape), 3),)
        layouts += (map_of(wanted.shape, ((0, 0),) * 3),)
        wanted = wanted + inputs[1]
    wanted = F.max_pool3d(wanted, (1, 2, 2)) if pool else wanted
    one = (1, 1, 1)
    attributes = {
        "stride": one,
        "padding": tuple((n, n) for n in padding),
        "dilation": one,
        "groups": 1,
        "pool": pool,
        "residual": residual,
    }

    def lower(node: Node, given: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
        source, *rest, result = (lines(layout) for layout in (*given, output))
        kernel = lowered(conv_layer(node, graph), source, result, rest[0] if rest else None, isa, choice)
        assert "_planes[t / " in kernel.source
        return kernel

    return Case("conv", attributes, inputs, layouts, map_of(wanted.shape, ((0, 0),) * 3), wanted, constants, True, lower, fills=False)
