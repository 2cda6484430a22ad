"""Copies between layouts and the operators that only move values, against PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from kernels import RUNNABLE, Case, check, few, many
from layouts_of import layouts, map_shapes, samples
from torch import Tensor

from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Plain, map_of
from espalier.compiler.lowering.nests import Axis, Nest, Run
from espalier.compiler.lowering.transposes import is_turned

BORDER = ((0, 0), (1, 1), (1, 1))
SHAPES = st.one_of(
    map_shapes(), st.sampled_from([(1, 37, 2, 21), (3, 17, 35)]), st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)
)


@st.composite
def copies(draw: st.DrawFn) -> Case:
    """Draw an operator that moves values, its layouts whatever it may meet."""
    shape = draw(
        st.one_of(
            map_shapes(), st.sampled_from([(1, 37, 2, 21), (3, 17, 35)]), st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)
        )
    )
    x = samples(shape)
    op = draw(st.sampled_from(["permute", "slice", "concat", "pad", "expand", "reshape", "input"]))
    attributes, inputs, wanted = draw(
        {"permute": permuted, "slice": cut, "concat": joined, "pad": padded, "expand": repeated, "reshape": reshaped, "input": taken_in}[
            op
        ](x)
    )
    given_layouts = tuple(draw(layouts(tuple(value.shape), maps=False if op == "input" else None)) for value in inputs)
    return Case(op, attributes, inputs, given_layouts, draw(layouts(tuple(wanted.shape))), wanted)


Drawn = tuple[dict[str, object], tuple[Tensor, ...], Tensor]


def taken_in(x: Tensor) -> st.SearchStrategy[Drawn]:
    return st.just(({"index": 0}, (x,), x))


@st.composite
def permuted(draw: st.DrawFn, x: Tensor) -> Drawn:
    axes = tuple(draw(st.permutations(range(x.ndim))))
    return {"axes": axes}, (x,), x.permute(axes)


@st.composite
def cut(draw: st.DrawFn, x: Tensor) -> Drawn:
    axis = draw(st.integers(0, x.ndim - 1))
    start = draw(st.integers(0, x.shape[axis] - 1))
    stop, step = draw(st.integers(start + 1, x.shape[axis])), draw(st.integers(1, 3))
    chosen = [slice(None)] * axis + [slice(start, stop, step)]
    return {"axis": axis, "start": start, "stop": stop, "step": step}, (x,), x[tuple(chosen)]


@st.composite
def joined(draw: st.DrawFn, x: Tensor) -> Drawn:
    axis = draw(st.integers(0, x.ndim - 1))
    sizes = draw(st.lists(st.integers(1, 20 if axis == 1 else 3), min_size=1, max_size=2))
    parts = (x, *(samples((*x.shape[:axis], size, *x.shape[axis + 1 :]), seed) for seed, size in enumerate(sizes, 1)))
    return {"axis": axis}, parts, torch.cat(parts, axis)


@st.composite
def padded(draw: st.DrawFn, x: Tensor) -> Drawn:
    around = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) if axis or x.ndim == 1 else (0, 0) for axis in range(x.ndim))
    value = draw(st.sampled_from([0.0, 1.5]))
    return {"padding": around, "value": value}, (x,), F.pad(x, [size for pair in reversed(around) for size in pair], value=value)


@st.composite
def repeated(draw: st.DrawFn, x: Tensor) -> Drawn:
    axis = draw(st.integers(0, x.ndim - 1))
    one = x.narrow(axis, 0, 1).contiguous()
    size = 1 if axis == 0 else draw(st.integers(1, 20))
    return {}, (one,), one.expand([*x.shape[:axis], size, *x.shape[axis + 1 :]])


@st.composite
def reshaped(draw: st.DrawFn, x: Tensor) -> Drawn:
    """Join the axes from the second on, part them at another place, or move pixels to other axes."""
    shape = x.shape
    forms = [(shape[0], -1), (*shape, 1), (1, 1, -1)]
    if x.ndim > 3:
        forms += [(*shape[:2], -1), (*shape[:2], shape[3], shape[2], *shape[4:])]
    if x.ndim > 1 and shape[1] % 2 == 0:
        forms += [(shape[0], 2, shape[1] // 2, *shape[2:]), (shape[0], shape[1] // 2, 2, *shape[2:])]
    form = draw(st.sampled_from([form for form in forms if len(form) <= 5]))
    return {}, (x,), x.reshape(form)


@few(copies())
def test_moved_values_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("copies"))


@many(copies())
def test_many_moved_values_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("copies"))


@pytest.mark.parametrize("isa", RUNNABLE, ids=lambda isa: isa.name)
def test_a_row_that_is_one_square_and_a_rest_is_turned(isa: Isa, tmp_path_factory: pytest.TempPathFactory) -> None:
    x = samples((1, 128, 28, isa.lanes + 2))  # rows, not joined because of the border, in a loop that threads do not share
    check([Case("input", {"index": 0}, (x,), (Plain(x.shape),), map_of(x.shape, BORDER), x)], isa, tmp_path_factory.mktemp("square"))


def test_zeros_that_fill_a_line_are_written_and_not_turned() -> None:
    line = (Axis(8, (1, 16)),)
    assert is_turned(Nest(line, (Run(15, (0, 0), (2, 1)),)), 4)
    assert not is_turned(Nest(line, (Run(15, (0, 1), (0, 1), fills=True),)), 4), "no operand lies there"
