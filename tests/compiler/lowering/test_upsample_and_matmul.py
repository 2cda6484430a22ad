"""Resizing, and products of two activations, against PyTorch."""

import pytest
import torch.nn.functional as F
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import map_shapes, maps, samples

from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import Plain, map_of
from espalier.compiler.lowering.matmul import Product, balanced, strips


@st.composite
def resizings(draw: st.DrawFn) -> Case:
    """Draw a resizing to any size, larger or smaller."""
    shape = draw(map_shapes())
    mode = draw(st.sampled_from(["nearest", "bilinear"])) if len(shape) == 4 else "nearest"
    corners = mode == "bilinear" and draw(st.booleans())
    sizes = tuple(draw(st.sampled_from([1, size, 2 * size, 11])) for size in shape[2:])
    wanted = F.interpolate(samples(shape), sizes, mode=mode, **({"align_corners": corners} if mode == "bilinear" else {}))
    attributes = {"mode": mode, "align_corners": corners}
    return Case("upsample", attributes, (samples(shape),), (draw(maps(shape)),), draw(maps(tuple(wanted.shape))), wanted)


@st.composite
def products(draw: st.DrawFn) -> Case:
    """Draw a product of batches of matrices, either of which may be shared by the batch."""
    rows, inner, columns = (draw(st.sampled_from([1, 2, 5, 7, 13, 16, 33, 50, 64, 70])) for _ in range(3))
    batch = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    first, second = (tuple(draw(st.sampled_from([1, size])) for size in batch) for _ in range(2))
    second = second[draw(st.integers(0, len(second))) :]
    x, y = samples((*first, rows, inner)), samples((*second, inner, columns), seed=1)
    return Case("matmul", {}, (x, y), (Plain(tuple(x.shape)), Plain(tuple(y.shape))), Plain(tuple((x @ y).shape)), x @ y)


CASES = st.one_of(resizings(), products())


@few(CASES)
def test_resizings_and_products_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("upsample"))


@many(CASES)
def test_many_resizings_and_products_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("upsample"))


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 63, 64, 65, 197, 1000])
def test_strips_cover_each_column(columns: int) -> None:
    product = Product(rows=1, inner=1, columns=columns, lanes=16)
    covered: set[int] = set()
    for strip in strips(product, 4):
        for start in range(strip.start, strip.start + strip.count * strip.width, strip.width):
            for vector in strip.vectors:
                covered |= {*range(start + vector, start + vector + min(16, columns))}
    assert covered == {*range(columns)}


def test_parts_are_balanced() -> None:
    assert balanced(49, 6) == [6, 6, 6, 6, 5, 5, 5, 5, 5]
    assert balanced(6, 6) == [6]
    assert balanced(7, 6) == [4, 3]


def test_volumes_are_not_interpolated() -> None:
    x, shape = samples((1, 16, 2, 2, 2)), (1, 16, 4, 4, 4)
    attributes = {"mode": "bilinear", "align_corners": False}
    case = Case("upsample", attributes, (x,), (map_of(x.shape),), map_of(shape), F.interpolate(x, shape[2:]))
    with pytest.raises(ValueError, match=r"\(2, 2, 2\) to \(4, 4, 4\)"):
        case.kernel(ISAS["generic"])
