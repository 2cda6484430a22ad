"""Template V against PyTorch: linear layers of few rows, pruned or not, and where they give NaN and infinities."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch.nn.functional as F
from activations import BOUNDS, activated, settings
from hypothesis import strategies as st
from kernels import Case, check, few, many
from layouts_of import CHANNELS, samples
from strange import strange
from test_filters import ACTIVATIONS, PRUNED, pruned_mask
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Plain, lines
from espalier.compiler.lowering.convolutions import linear_layer
from espalier.compiler.lowering.filters import CLAMPED
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.vectors import lowered_vector


def lower_with(mask: Tensor | None) -> Callable[..., Kernel]:
    """Return a lowering to template V of a layer pruned to ``mask``."""

    def lower(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
        layer = linear_layer(node, graph if mask is None else replace(graph, masks={"weight": mask}))
        source, *residuals, result = (lines(layout) for layout in (*inputs, output))
        return lowered_vector(layer, source, result, residuals[0] if residuals else None, isa)

    return lower


@st.composite
def linears(draw: st.DrawFn, *, finite: bool = True) -> Case:
    """Draw a linear layer over a row or some; where not ``finite``, a dense one whose input holds NaN and infinities."""
    shape = (*draw(st.sampled_from([(1,), (1,), (1, 1), (3,)])), draw(st.sampled_from([1, 3, 6, 17, 40, 260])))
    filters = draw(st.sampled_from(CHANNELS))
    constants = {"weight": samples((filters, shape[-1]), 1), "bias": samples((filters,), 2)}
    mask = pruned_mask(constants["weight"].shape, draw(st.sampled_from(PRUNED)) if finite else "dense")
    constants["weight"] *= 1 if mask is None else mask
    x = samples(shape) if finite else strange(samples(shape), draw(st.integers(0, 99)))
    wanted = F.linear(x.double(), constants["weight"].double(), constants["bias"].double()).float()
    inputs: tuple[Tensor, ...] = (x,)
    residual = draw(st.booleans())
    if residual:
        inputs += (samples(tuple(wanted.shape), 3),)
        wanted = wanted + inputs[1]
    activation, bounds = draw(st.sampled_from(ACTIVATIONS if finite else CLAMPED)), draw(st.sampled_from(BOUNDS))
    wanted = activated(wanted, activation, bounds)
    layouts = tuple(Plain(tuple(tensor.shape)) for tensor in inputs)
    attributes = {"activation": activation, "residual": residual, **settings(bounds)}
    return Case("linear", attributes, inputs, layouts, Plain(tuple(wanted.shape)), wanted, constants, lower=lower_with(mask))


@few(linears())
def test_layers_of_a_row_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("vectors"))


@many(linears())
def test_many_layers_of_a_row_are_pytorchs(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    check(cases, isa, tmp_path_factory.mktemp("vectors"))


@few(linears(finite=False))
def test_nan_and_infinities_stand_where_pytorch_has_them(isa: Isa, cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert any(case.wanted.isnan().any() for case in cases)
    check(cases, isa, tmp_path_factory.mktemp("vectors"))
