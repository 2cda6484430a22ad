"""Pools, whatever their windows, against PyTorch; borders are NaN, because no pool may read them."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import map_shapes, maps, samples
from torch import Tensor

from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import Plain, map_of

MAX_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
AVG_POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
ADAPTIVE_POOLS = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


@st.composite
def pools(draw: st.DrawFn) -> Case:
    """Draw a maximum or an average over windows that are padded unevenly and need not end at the map's end."""
    shape = draw(map_shapes(most=14))
    x, rank = samples(shape), len(shape) - 2
    is_max = draw(st.booleans())
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    dilation = tuple(draw(st.integers(1, 2)) if is_max else 1 for _ in range(rank))
    padding = tuple((draw(st.integers(0, size // 2)), draw(st.integers(0, size // 2))) for size in kernel)
    around = [size for pair in reversed(padding) for size in pair]
    reach = [(size - 1) * apart + 1 for size, apart in zip(kernel, dilation, strict=True)]
    assume(all(size + sum(pair) >= need for size, pair, need in zip(shape[2:], padding, reach, strict=True)))
    attributes: dict[str, object] = {"kernel": kernel, "stride": stride, "padding": padding}
    if is_max:
        attributes["dilation"] = dilation
        wanted = MAX_POOLS[rank - 1](F.pad(x, around, value=-math.inf), kernel, stride, 0, dilation)
    else:
        attributes["count_padding"] = draw(st.booleans())
        wanted = averages(x, kernel, stride, around, counted=bool(attributes["count_padding"]))
    assume(not wanted.isnan().any())
    return Case("max_pool" if is_max else "avg_pool", attributes, (x,), (draw(maps(shape)),), draw(maps(tuple(wanted.shape))), wanted)


def averages(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], around: list[int], *, counted: bool) -> Tensor:
    """Return averages over windows, with or without the zeros around the map."""
    pool = AVG_POOLS[x.ndim - 3]
    total = pool(F.pad(x, around), kernel, stride)
    return total if counted else total / pool(F.pad(torch.ones_like(x), around), kernel, stride)


@st.composite
def adaptive_pools(draw: st.DrawFn) -> Case:
    """Draw an average over bins."""
    shape = draw(map_shapes())
    sizes = [draw(st.integers(1, 7)) for _ in shape[2:]]
    wanted = ADAPTIVE_POOLS[len(shape) - 3](samples(shape), sizes)
    return Case("adaptive_avg_pool", {}, (samples(shape),), (draw(maps(shape)),), draw(maps(tuple(wanted.shape))), wanted)


CASES = st.one_of(pools(), pools(), adaptive_pools())


@few(CASES)
def test_pools_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("pools"))


@many(CASES)
def test_many_pools_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("pools"))


def test_a_row_major_tensor_has_no_pool() -> None:
    x = samples((1, 3, 4, 4))
    case = Case("adaptive_avg_pool", {}, (x,), (Plain((1, 3, 4, 4)),), map_of((1, 3, 2, 2)), x[..., :2, :2])
    with pytest.raises(ValueError, match=r"y \(adaptive_avg_pool\).*row-major"):
        case.kernel(ISAS["generic"])
