"""Places in memory: offsets that kernels read in 32 bits fit, or the layer and the way out are named."""

import numpy as np
import pytest
import torch

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import ISAS
from espalier.compiler.layouts import map_of
from espalier.compiler.lowering.dispatch import lower
from espalier.compiler.lowering.places import access, narrowed

FAR = (1, 32, 2, 70_000_000)  # no memory is asked for
RESIZED = (1, 32, 2, 2)


@pytest.mark.parametrize("offset", [2**31, -(2**31), 2**40])
def test_an_offset_that_does_not_fit_is_refused(offset: int) -> None:
    with pytest.raises(ValueError, match=f"an offset of {abs(offset)} does not fit 32 bits.*smaller example"):
        narrowed(np.array([0, offset]))


def test_offsets_that_fit_are_kept() -> None:
    kept = narrowed(np.array([2**31 - 1, -(2**31) + 1]))
    assert kept.dtype == np.int32
    assert kept.tolist() == [2**31 - 1, -(2**31) + 1]
    assert narrowed(np.zeros(0, np.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("op", "attributes", "shape"),
    [
        ("conv", {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}, FAR),
        ("upsample", {"mode": "nearest"}, RESIZED),
        ("upsample", {"mode": "bilinear", "align_corners": False}, RESIZED),
    ],
    ids=["conv", "nearest", "bilinear"],
)
def test_a_map_too_large_for_a_layer_names_it(op: str, attributes: dict[str, object], shape: tuple[int, ...]) -> None:
    source = Node("x", "input", (), FAR, {"index": 0})
    node = Node("y", op, ("x",), shape, attributes, {"weight": "w"} if op == "conv" else {}, source="head")
    graph = Graph((source, node), ("y",), {"w": torch.ones(32, 32, 1, 1)} if op == "conv" else {})
    with pytest.raises(ValueError, match=f"{op} of head: an offset of .* does not fit 32 bits.*smaller example"):
        lower(node, [map_of(FAR)], map_of(shape), ISAS["generic"], graph)


def test_a_band_of_rows_is_one_stretch_of_memory() -> None:
    layout = map_of((1, 40, 6, 5), ((0, 0), (1, 1), (1, 2)))
    places = access(layout, (1, 40, 6, 5)).places()[0]
    assert all(places[:, row].max() < places[:, row + 1].min() for row in range(5))
    assert len(np.unique(places)) == 40 * 6 * 5
    assert places.max() < layout.floats == 3 * 16 * 8 * 8
