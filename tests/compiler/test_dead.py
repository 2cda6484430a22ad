"""Dead filters and channels leave all weights that have a row or a column for them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checking import check_same, ops
from torch import Tensor, nn

from espalier.compiler.front import read_model
from espalier.compiler.graph import Graph
from espalier.compiler.passes.dead import remove_dead_channels
from espalier.compiler.passes.scaling import fold_scales

DEAD = [1, 4, 6]


def cut(model: nn.Module, *shape: int) -> Graph:
    """Return the graph after the pass, checked."""
    graph = fold_scales(read_model(model.eval(), torch.zeros(shape)))
    after = remove_dead_channels(graph)
    check_same(graph, after)
    return after


def weights(graph: Graph) -> list[tuple[int, ...]]:
    return [tuple(graph.constants[node.constants["weight"]].shape) for node in graph if "weight" in node.constants]


@torch.no_grad()
def kill(layer: nn.Module, filters: list[int] = DEAD, bias: float = 0.0) -> None:
    layer.weight[filters] = 0
    layer.bias[filters] = bias


@torch.no_grad()
def ignore(layer: nn.Module, channels: list[int] = DEAD) -> None:
    layer.weight[:, channels] = 0


class Net(nn.Module):
    """Layers of 8 channels and a function that uses them."""

    def __init__(self, function: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.depthwise, self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8 * 4, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


SHAPE = (1, 3, 4, 4)


def test_a_filter_that_gives_zero_goes_with_the_columns_that_read_it() -> None:
    net = Net(lambda m, x: m.last(F.max_pool2d(m.stem(x).relu(), 2)))
    kill(net.stem)
    after = cut(net, *SHAPE)
    assert weights(after) == [(5, 3, 3, 3), (5, 5, 3, 3)]
    assert [node.shape for node in after] == [SHAPE, (1, 5, 4, 4), (1, 5, 4, 4), (1, 5, 2, 2), (1, 5, 2, 2)]


def test_a_channel_that_nobody_reads_goes_with_its_filter() -> None:
    net = Net(lambda m, x: m.last(m.norm(m.stem(x)).sigmoid()))
    ignore(net.last)
    assert weights(cut(net, *SHAPE)) == [(5, 3, 3, 3), (5, 5, 3, 3)]


def test_a_filter_is_dead_only_if_its_bias_and_activation_leave_zero() -> None:
    for function, left in [(F.relu, 5), (F.silu, 5), (torch.sigmoid, 8)]:
        net = Net(lambda m, x, function=function: m.last(function(m.stem(x))))
        kill(net.stem)
        assert weights(cut(net, *SHAPE))[0][0] == left
    net = Net(lambda m, x: m.last(m.stem(x).relu()))
    kill(net.stem, bias=-1.0)
    assert weights(cut(net, *SHAPE))[0][0] == 5
    kill(net.stem, bias=1.0)
    assert weights(cut(net, *SHAPE))[0][0] == 8  # the border of the next layer is zero, its inside would not be


def test_a_constant_channel_goes_into_the_bias_of_a_layer_without_border() -> None:
    net = Net(lambda m, x: m.gate(m.stem(x).sigmoid()))
    kill(net.stem, bias=1.0)
    assert weights(cut(net, *SHAPE)) == [(5, 3, 3, 3), (8, 5, 1, 1)]


def test_flattened_channels_go_from_a_linear_layer() -> None:
    net = Net(lambda m, x: m.fc(F.avg_pool2d(m.stem(x).relu(), 2).flatten(1)))
    kill(net.stem)
    after = cut(net, *SHAPE)
    assert weights(after) == [(5, 3, 3, 3), (5, 5 * 4)]


def test_a_depthwise_convolution_loses_its_channels_too() -> None:
    net = Net(lambda m, x: m.last(m.depthwise(m.stem(x).relu()).relu()))
    kill(net.depthwise)
    after = cut(net, *SHAPE)
    assert weights(after) == [(5, 3, 3, 3), (5, 1, 3, 3), (5, 5, 3, 3)]
    assert after.nodes[3]["groups"] == 5


def test_gates_by_channel_lose_theirs() -> None:
    def gated(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).relu()
        return m.last(x * m.gate(x.mean((2, 3), keepdim=True)).sigmoid())

    net = Net(gated)
    kill(net.stem)
    assert weights(cut(net, *SHAPE)) == [(5, 3, 3, 3), (5, 5, 1, 1), (5, 5, 3, 3)]


def test_a_residual_stream_loses_what_is_dead_in_all_its_terms() -> None:
    net = Net(lambda m, x: m.last((m.stem(x) + m.other(x)).relu()))
    kill(net.stem)
    assert weights(cut(net, *SHAPE))[0][0] == 8
    kill(net.other, [1, 4])
    assert weights(cut(net, *SHAPE)) == [(6, 3, 3, 3), (6, 3, 1, 1), (5, 6, 3, 3)]


def test_what_died_kills_what_only_it_read() -> None:
    net = Net(lambda m, x: m.last(m.gate(m.stem(x).relu()).relu()))
    kill(net.gate, [0, 1, 2])
    with torch.no_grad():
        net.gate.weight[3:, [5, 7]] = 0  # read by the dead filters alone
    assert weights(cut(net, *SHAPE)) == [(6, 3, 3, 3), (5, 6, 1, 1), (5, 5, 3, 3)]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.stem(x).relu(),
        lambda m, x: torch.cat([m.stem(x), m.other(x)], 1),
        lambda m, x: m.grouped(m.stem(x).relu()),
        lambda m, x: m.stem(x).view(1, 2, 4, 4, 4).transpose(1, 2).flatten(1, 2).relu(),
        lambda m, x: F.group_norm(m.stem(x), 2),
        lambda m, x: m.stem(x).permute(0, 2, 3, 1).softmax(3),
        lambda m, x: m.stem(x)[:, 2:],
    ],
    ids=["output", "concatenated", "grouped", "shuffled", "group norm", "softmax", "sliced"],
)
def test_channels_that_are_needed_in_place_stay(function: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net(function)
    kill(net.stem)
    assert weights(cut(net, *SHAPE))[0][0] == 8


def test_one_channel_stays_where_all_are_dead() -> None:
    net = Net(lambda m, x: m.last(m.stem(x).relu()))
    kill(net.stem, [*range(8)])
    assert weights(cut(net, *SHAPE)) == [(1, 3, 3, 3), (5, 1, 3, 3)]


def test_only_whole_blocks_of_a_structure_go() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 64, 1, bias=False), nn.ReLU(), nn.Conv2d(64, 8, 1))
    with torch.no_grad():
        net[0].weight[:16] = 0
        net[0].weight[20] = 0
        net[0].weight[32:48, :2] = 0
    graph = read_model(net, torch.zeros(1, 4, 3, 3))
    (key,) = graph.masks
    labelled = Graph(graph.nodes, graph.outputs, graph.constants, graph.masks, {key: "block_column 16"})
    after = remove_dead_channels(labelled)
    check_same(graph, after)
    assert weights(after)[0] == (48, 4, 1, 1)
    assert [*after.structures.values()] == ["block_column 16"]


def test_a_layer_left_without_zeros_is_dense() -> None:
    net = Net(lambda m, x: m.last(m.stem(x).relu()))
    kill(net.stem)
    after = cut(net, *SHAPE)
    assert not after.masks
    assert ops(after) == ["conv", "unary", "conv"]
