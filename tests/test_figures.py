"""Figures of a final State: rates of the convolutions and of the layers that frozen sets hold."""

import pytest
import torch
from torch import nn

from espalier.constraints import Assignment, Support, Target
from espalier.figures import convolution_figures, layer_figures
from espalier.steps import State
from espalier.workload import workload


def network() -> nn.Module:
    """Return a convolution with 6 of 18 and a linear layer with 3 of 4 weights."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)[0].zero_()
        model[0].weight[1, 0, 0] = 0.0
        model[2].weight.fill_(1.0)[0, 0] = 0.0
    return model


def test_the_rate_of_the_convolutions_leaves_linear_layers_out() -> None:
    model = network()
    counts = workload(model, torch.zeros(1, 1, 3, 3))
    assert convolution_figures(model.state_dict(), counts) == {"conv_rate": 3.0}
    linear = nn.Linear(2, 2)
    assert convolution_figures(linear.state_dict(), workload(linear, torch.zeros(1, 2))) == {}


def test_layers_count_where_a_frozen_set_holds_them() -> None:
    model = network()
    assert layer_figures(State(model.state_dict())) == {}
    bias = Target("0.bias")
    assert (
        layer_figures(State(model.state_dict(), Assignment([([bias], Support({bias: torch.tensor([True, False])}, "unused paths"))]))) == {}
    )
    targets = [Target("0.weight"), Target("2.weight")]
    frozen = Assignment([([target], Support({target: model.get_parameter(target.parameter) != 0}, "unstructured")) for target in targets])
    figures = layer_figures(State(model.state_dict(), frozen))
    assert figures.pop("sparsity_pct") == pytest.approx(100 * 13 / 22)
    assert figures == pytest.approx({"layer/rate/0.weight": 3, "layer/rate/2.weight": 4 / 3, "layer/rate_min": 4 / 3, "layer/rate_max": 3})
