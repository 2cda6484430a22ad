"""Filters that keep the same columns become neighbours; what reads them follows."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checking import check_same
from torch import Tensor, nn

from espalier.compiler.front import read_model
from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.row_order import group_rows, listed_columns

SHAPE = (1, 8, 4, 4)


class Net(nn.Module):
    """A layer whose even and odd filters read different channels, and a function that uses it."""

    def __init__(self, function: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.other = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(8, 32, 1)
        with torch.no_grad():
            self.conv.weight[::2, :4] = 0
            self.conv.weight[1::2, 4:] = 0
        self.depthwise, self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 4, 1, groups=2)
        self.norm, self.last, self.fc = nn.BatchNorm2d(32), nn.Conv2d(32, 5, 3), nn.Linear(32 * 4, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def read_twice(m: Net, y: Tensor) -> Tensor:
    return m.last(y) + m.fc(F.max_pool2d(y, 2).flatten(1)).view(1, 5, 1, 1)


def ordered(function: Callable[[Net, Tensor], Tensor]) -> tuple[Graph, Graph]:
    graph = read_model(Net(function).eval(), torch.zeros(SHAPE))
    after = group_rows(graph)
    check_same(graph, after)
    return graph, after


def listed(graph: Graph) -> int:
    """Return the listed columns of the first convolution."""
    mask = graph.mask(first_conv(graph))
    assert mask is not None
    return listed_columns(mask.flatten(1))


def first_conv(graph: Graph) -> Node:
    return next(node for node in graph if node.op == "conv")


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.last(m.conv(x).relu()),
        lambda m, x: m.last(m.depthwise(m.norm(m.conv(x).relu()))),
        lambda m, x: m.fc(F.max_pool2d(m.conv(x), 2).flatten(1)),
        lambda m, x: m.last(m.conv(x) + m.other(x)),
        lambda m, x: read_twice(m, m.conv(x)),
    ],
    ids=["chain", "norm and depthwise", "flattened", "dense sum", "two readers"],
)
def test_filters_with_the_same_columns_become_neighbours(function: Callable[[Net, Tensor], Tensor]) -> None:
    graph, after = ordered(function)
    assert (listed(graph), listed(after)) == (2 * 8 * 9, 2 * 4 * 9)
    assert [*after.structures.values()] == [*graph.structures.values()]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.conv(x).relu(),
        lambda m, x: m.last(torch.cat([m.conv(x)[:, :16], m.other(x)[:, :16]], 1)),
        lambda m, x: m.grouped(m.conv(x)),
        lambda m, x: m.last(m.conv(x).view(1, 2, 16, 4, 4).transpose(1, 2).flatten(1, 2)),
    ],
    ids=["output", "concatenated", "grouped", "shuffled"],
)
def test_where_a_reader_needs_the_order_it_stays(function: Callable[[Net, Tensor], Tensor]) -> None:
    graph, after = ordered(function)
    assert str(after) == str(graph)
    assert after.constants.keys() == graph.constants.keys()


def test_two_pruned_terms_of_a_sum_stay() -> None:
    net = Net(lambda m, x: m.last(m.conv(x) + m.other(x))).eval()
    with torch.no_grad():
        net.other.weight[::3, :4] = 0
    graph = read_model(net, torch.zeros(SHAPE))
    assert group_rows(graph) is graph


def test_groups_of_channels_that_a_readers_structure_cuts_stay_whole() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 64, 1), nn.ReLU(), nn.Conv2d(64, 16, 1))
    with torch.no_grad():
        net[0].weight.view(16, 4, 8)[::2, :, :4] = 0
        net[0].weight.view(16, 4, 8)[1::2, :, 4:] = 0
        net[2].weight.view(16, 16, 4)[:, ::3] = 0
    graph = read_model(net, torch.zeros(1, 8, 3, 3))
    first, last = (node for node in graph if node.op == "conv")
    labels = {first.constants["weight"]: "block_column 4", last.constants["weight"]: "block_punched 16x4"}
    graph = Graph(graph.nodes, graph.outputs, graph.constants, graph.masks, labels)
    after = group_rows(graph)
    check_same(graph, after)
    assert listed(after) == listed(graph) // 2
    mask = after.mask(next(node for node in reversed(after.nodes) if node.op == "conv"))
    assert mask is not None
    blocks = mask.view(16, 16, 4)
    assert torch.equal(blocks.all(2), blocks.any(2))


def test_an_order_that_saves_nothing_is_left() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 32, 3), nn.Conv2d(32, 4, 1))
    with torch.no_grad():
        net[0].weight[:16, :4] = 0
        net[0].weight[16:, 4:] = 0
    graph = read_model(net, torch.zeros(SHAPE))
    assert group_rows(graph) is graph
