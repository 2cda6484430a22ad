"""Means, softmaxes and normalisations against PyTorch."""

import pytest
import torch.nn.functional as F
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import layouts, map_shapes, maps, samples

from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import Plain, map_of

PLAIN_SHAPES = st.lists(st.sampled_from([1, 2, 3, 5, 8, 17, 33]), min_size=1, max_size=4).map(tuple)


@st.composite
def means(draw: st.DrawFn) -> Case:
    """Draw a mean over any axes, and layouts that know nothing of each other."""
    shape = draw(st.one_of(map_shapes(), PLAIN_SHAPES, st.just((1, 24, 12, 20))))
    spatial = tuple(range(2, len(shape)))
    some = st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True).map(tuple)
    axes = draw(st.one_of(st.just(spatial), some)) if spatial else draw(some)
    keepdim = draw(st.booleans())
    wanted = samples(shape).mean(axes, keepdim)
    attributes = {"axes": axes, "keepdim": keepdim}
    return Case("mean", attributes, (samples(shape),), (draw(layouts(shape)),), draw(layouts(tuple(wanted.shape))), wanted)


@st.composite
def softmaxes(draw: st.DrawFn) -> Case:
    """Draw a softmax along any axis, of numbers whose exponentials would overflow."""
    shape = draw(st.one_of(map_shapes(), PLAIN_SHAPES))
    axis = draw(st.integers(0, len(shape) - 1))
    x = samples(shape) * 30 + draw(st.sampled_from([0.0, -500.0, 500.0]))
    return Case("softmax", {"axis": axis}, (x,), (draw(layouts(shape)),), draw(layouts(shape)), x.softmax(axis))


@st.composite
def layer_norms(draw: st.DrawFn) -> Case:
    """Draw a layer norm, with and without scale and shift; of very few numbers the variance may be all rounding error."""
    shape = draw(PLAIN_SHAPES.filter(lambda sizes: sizes[-1] > 4))
    num_axes = draw(st.integers(1, len(shape)))
    size = shape[len(shape) - num_axes :]
    roles = draw(st.sampled_from([(), ("weight",), ("weight", "bias")]))
    constants = {role: samples(size, seed) for seed, role in enumerate(roles, 1)}
    x = samples(shape) * 3 + 1
    wanted = F.layer_norm(x, size, constants.get("weight"), constants.get("bias"), 1e-5)
    return Case("layer_norm", {"num_axes": num_axes, "eps": 1e-5}, (x,), (Plain(shape),), Plain(shape), wanted, constants)


@st.composite
def group_norms(draw: st.DrawFn) -> Case:
    """Draw a group norm whose groups need not be lines."""
    shape = draw(map_shapes())
    shape = (1, draw(st.sampled_from([3, 8, 20, 24, 40, 60, 64])), *shape[2:-1], shape[-1] + 5)
    groups = draw(st.sampled_from([groups for groups in (1, 2, 3, 4, 5, 8, 12, 20) if shape[1] % groups == 0]))
    constants = {role: samples(shape[1:2], seed) for seed, role in enumerate(draw(st.sampled_from([(), ("weight", "bias")])), 1)}
    x = samples(shape) * 3 + 1
    wanted = F.group_norm(x, groups, constants.get("weight"), constants.get("bias"), 1e-5)
    return Case("group_norm", {"groups": groups, "eps": 1e-5}, (x,), (draw(maps(shape)),), draw(maps(shape)), wanted, constants)


CASES = st.one_of(means(), means(), softmaxes(), softmaxes(), layer_norms(), group_norms())


@few(CASES)
def test_joined_axes_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("reductions"))


@many(CASES)
def test_many_joined_axes_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("reductions"))


def test_a_layer_norm_of_a_map_names_the_way_out() -> None:
    shape = (1, 8, 4)
    case = Case("layer_norm", {"num_axes": 1, "eps": 1e-5}, (samples(shape),), (map_of(shape),), Plain(shape), samples(shape))
    with pytest.raises(ValueError, match=r"y \(layer_norm\).*Convert"):
        case.kernel(ISAS["generic"])
