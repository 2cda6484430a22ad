"""Borders go into the convolution or pooling that reads them, where it can hold them."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checking import check_same, ops
from torch import Tensor, nn

from espalier.compiler.front import read_model
from espalier.compiler.graph import Graph
from espalier.compiler.passes.borders import fold_borders


class Padded(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def folded(function: Callable[[Tensor], Tensor]) -> tuple[Graph, Graph]:
    graph = read_model(Padded(function), torch.zeros(1, 2, 6, 6))
    after = fold_borders(graph)
    check_same(graph, after)
    return graph, after


WEIGHT = torch.ones(2, 2, 3, 3)


def test_a_convolution_takes_borders_of_two_sizes_and_adds_its_own() -> None:
    _, after = folded(lambda x: F.conv2d(F.pad(x, (0, 1, 2, 3)), WEIGHT, stride=2, padding=1))
    assert ops(after) == ["conv"]
    assert after.nodes[1]["padding"] == ((3, 4), (1, 2))


def test_pools_take_borders_of_their_own_value() -> None:
    _, after = folded(lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2))
    assert ops(after) == ["max_pool"]
    _, after = folded(lambda x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2))
    assert ops(after) == ["avg_pool"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), value=1.0), WEIGHT),
        lambda x: F.conv2d(F.pad(x, (0, 0, 0, 0, 0, 1))[:, 1:], WEIGHT),
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2),
        lambda x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2, 1, count_include_pad=False),
    ],
    ids=["of ones", "of a channel", "zeros before max", "counted before uncounted"],
)
def test_another_border_stays(function: Callable[[Tensor], Tensor]) -> None:
    graph, after = folded(function)
    assert ops(after) == ops(graph)


def test_a_border_that_others_read_stays_for_them() -> None:
    def both(x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(padded, WEIGHT).mean() + padded

    _, after = folded(both)
    assert after.nodes[ops(after).index("conv") + 1].inputs == (after.nodes[0].name,)
    assert "pad" in ops(after)
