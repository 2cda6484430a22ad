"""Functions of one and two tensors, with every broadcasting and in every layout, against PyTorch."""

import pytest
import torch
from activations import BOUNDS, activated, settings
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import layouts, map_shapes, samples

from espalier.compiler.graph import UNARY
from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import map_of
from espalier.compiler.lowering.functions import BINARY

OPERATORS = {name: getattr(torch, name) for name in ("add", "sub", "mul", "div", "maximum", "minimum")}


@st.composite
def unaries(draw: st.DrawFn) -> Case:
    """Draw a function of one tensor."""
    shape = draw(st.one_of(map_shapes(), st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple), st.just((2500,))))
    function, bounds = draw(st.sampled_from(UNARY)), draw(st.sampled_from(BOUNDS))
    x = samples(shape).mul(4)
    x = x.abs() if function == "sqrt" else x
    attributes = {"function": function, **settings(bounds)}
    return Case("unary", attributes, (x,), (draw(layouts(shape)),), draw(layouts(shape)), activated(x, function, bounds))


@st.composite
def binaries(draw: st.DrawFn) -> Case:
    """Draw a function of two tensors, either of them broadcast, the second maybe a constant."""
    shape = draw(st.one_of(map_shapes(), st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)))
    kinds = draw(st.sampled_from([("full", "full"), ("full", "part"), ("part", "full"), ("part", "part"), ("full", "scalar")]))
    first, second = (draw(operands(shape, kind)) for kind in kinds)
    name, activation = draw(st.sampled_from([*BINARY])), draw(st.sampled_from([None, "relu", "sigmoid", "clamp", "gelu", "leaky_relu"]))
    x = samples(first)
    y = samples(second, seed=1)
    y = torch.where(y < 0, y - 0.5, y + 0.5)  # a divisor
    bounds = draw(st.sampled_from(BOUNDS))
    wanted = activated(OPERATORS[name](x, y), activation, bounds)
    attributes = {"function": name, "activation": activation, **settings(bounds)}
    output = draw(layouts(tuple(wanted.shape)))
    if draw(st.booleans()):
        return Case("binary", attributes, (x,), (draw(layouts(first)),), output, wanted, {"other": y})
    return Case("binary", attributes, (x, y), (draw(layouts(first)), draw(layouts(second))), output, wanted)


@st.composite
def operands(draw: st.DrawFn, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Draw the shape of an operand: some axes of size 1, leading ones maybe missing."""
    if kind == "full":
        return shape
    if kind == "scalar":
        return draw(st.sampled_from([(), (1,), (1,) * len(shape)]))
    kept = tuple(draw(st.sampled_from([1, size])) for size in shape)
    return kept[draw(st.integers(0, len(shape) - 1)) :] if draw(st.booleans()) else kept


@st.composite
def affines(draw: st.DrawFn) -> Case:
    """Draw a scale and a shift along an axis."""
    shape = draw(map_shapes())
    axis = draw(st.sampled_from([1, 1, len(shape) - 1]))
    scale, shift = samples((shape[axis],), seed=1), samples((shape[axis],), seed=2)
    view = [-1 if other == axis else 1 for other in range(len(shape))]
    activation, bounds = draw(st.sampled_from([None, "relu", "sigmoid", "clamp", "leaky_relu"])), draw(st.sampled_from(BOUNDS))
    wanted = activated(samples(shape) * scale.view(view) + shift.view(view), activation, bounds)
    constants = {"scale": scale, "shift": shift}
    attributes = {"axis": axis, "activation": activation, **settings(bounds)}
    return Case("affine", attributes, (samples(shape),), (draw(layouts(shape)),), draw(layouts(shape)), wanted, constants)


CASES = st.one_of(unaries(), binaries(), binaries(), affines())


@few(CASES)
def test_elements_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("elementwise"))


@many(CASES)
def test_many_elements_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("elementwise"))


def test_whole_lines_are_taken_where_zeros_stay_zeros() -> None:
    """One loop of whole rows for silu, which keeps zeros; a loop over the pixels of the last line for sigmoid, which does not."""
    shape = (1, 40, 7, 9)
    layout = map_of(shape, ((0, 0), (1, 1), (1, 1)))

    def loops(function: str) -> int:
        attributes = {"function": function}
        return (
            Case("unary", attributes, (samples(shape),), (layout,), layout, samples(shape)).kernel(ISAS["generic"]).source.count("es_split")
        )

    assert (loops("silu"), loops("sigmoid")) == (1, 2)
