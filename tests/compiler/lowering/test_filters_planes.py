"""Kernel planes that a tile of template F needs: all that reach the map, whatever stride, padding and dilation, and few others."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espalier.compiler.bcrc import pack
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.filters_planes import cuts, macs_reached, reached_planes, share_reached


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

    def reaches(self, plane: int, tap: int) -> bool:
        """Return whether a tap of a plane of the result lies on the map."""
        return 0 <= plane * self.stride - self.padding[0] + tap * self.dilation < self.source


@st.composite
def depths(draw: st.DrawFn) -> Depth:
    """Draw a layer and a tile that fits its result."""
    taps, planes = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    padding = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    return Depth(taps, draw(st.integers(1, 3)), padding, draw(st.integers(1, 2)), planes, draw(st.integers(1, planes)))


@given(depths())
def test_planes_that_reach_the_map_are_taken_and_no_others_by_tiles_of_one_plane(depth: Depth) -> None:
    found = reached_planes(depth.layer(), depth.source, depth.planes, depth.tile)
    assert len(found) == -(-depth.planes // depth.tile)
    for tile, (low, high) in enumerate(found):
        first = min(tile * depth.tile, depth.planes - depth.tile)
        needed = [tap for tap in range(depth.taps) if any(depth.reaches(first + place, tap) for place in range(depth.tile))]
        assert 0 <= low <= high <= depth.taps
        assert set(needed) <= set(range(low, high))
        if depth.tile == 1:
            assert [*range(low, high)] == needed


@pytest.mark.parametrize(("planes", "share"), [(1, 1 / 3), (2, 2 / 3), (4, 5 / 6), (16, 23 / 24)])
def test_a_same_convolution_of_three_planes_leaves_out_its_border(planes: int, share: float) -> None:
    depth = Depth(3, 1, (1, 1), 1, planes, 1)
    assert share_reached(depth.layer(), depth.source, planes, 1) == pytest.approx(share)
    assert share_reached(depth.layer(), depth.source, planes, planes) == (1 / 3 if planes == 1 else 1)


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
    every = [(0, 3), (0, 3)]
    assert macs_reached(packed, every, (2, 5, 7), 1) == packed.executed * 70
    middle = int((found[:, 2] - found[:, 1]).sum()) * 16
    assert macs_reached(packed, [(1, 2), (1, 2)], (2, 5, 7), 1) == middle * 70
