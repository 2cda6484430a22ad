"""Activations and sums of residual streams go into the layers that give their arguments."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from checking import check_same, ops
from torch import Tensor, nn

from espalier.compiler.front import read_model
from espalier.compiler.graph import Graph
from espalier.compiler.passes.fusion import fuse_activations, fuse_residuals


class Layers(nn.Module):
    """Two convolutions, a linear layer and what a function makes of them."""

    def __init__(self, function: Callable[["Layers", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Linear(5, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def read(function: Callable[[Layers, Tensor], Tensor]) -> Graph:
    return read_model(Layers(function), torch.zeros(1, 3, 5, 5))


def activated(function: Callable[[Layers, Tensor], Tensor]) -> Graph:
    graph = read(function)
    after = fuse_activations(graph)
    check_same(graph, after)
    return after


def summed(function: Callable[[Layers, Tensor], Tensor]) -> Graph:
    graph = fuse_activations(read(function))
    after = fuse_residuals(graph)
    check_same(graph, after)
    return after


def test_activations_go_into_layers_and_sums() -> None:
    after = activated(lambda m, x: (F.silu(m.fc(F.hardswish(m.first(x)))) + x).clamp(-0.5, 0.5))
    assert [(node.op, node["activation"]) for node in after if node.op != "input"] == [
        ("conv", "hardswish"),
        ("linear", "silu"),
        ("binary", "clamp"),
    ]
    assert (after.nodes[-1]["low"], after.nodes[-1]["high"], after.nodes[-1]["function"]) == (-0.5, 0.5, "add")


def test_an_activation_goes_into_a_batch_norm_that_no_layer_takes() -> None:
    after = activated(lambda m, x: F.leaky_relu(F.batch_norm(x, torch.ones(3), torch.full((3,), 2.0)), 0.3))
    assert [(node.op, node["activation"], node["slope"]) for node in after if node.op != "input"] == [("affine", "leaky_relu", 0.3)]


def test_an_activation_stays_where_its_argument_is_read_again_or_already_activated() -> None:
    def twice(m: Layers, x: Tensor) -> Tensor:
        y = m.first(x)
        return y.relu() * y

    assert ops(activated(twice)) == ["conv", "unary", "binary"]
    assert ops(activated(lambda m, x: m.first(x).relu().sigmoid())) == ["conv", "unary"]
    assert ops(activated(lambda m, x: F.max_pool2d(x, 2).relu())) == ["max_pool", "unary"]


def test_a_sum_goes_into_the_layer_before_it_with_its_activation() -> None:
    after = summed(lambda m, x: (x + m.first(x)).relu())
    assert ops(after) == ["conv"]
    assert (after.nodes[-1].inputs, after.nodes[-1]["activation"]) == (("n0_input", "n0_input"), "relu")


def test_of_two_layers_the_last_takes_the_sum() -> None:
    after = summed(lambda m, x: (m.first(x) + m.second(x)).clamp(max=1.0))
    assert ops(after) == ["conv", "conv"]
    assert [node["residual"] for node in after if node.op == "conv"] == [False, True]
    assert after.nodes[-1].inputs == ("n0_input", "n1_conv")


def test_a_layer_before_the_other_term_moves_behind_it() -> None:
    after = summed(lambda m, x: m.first(x) + F.max_pool2d(x, 3, 1, 1))
    assert ops(after) == ["max_pool", "conv"]
    assert after.nodes[-1].inputs == ("n0_input", "n2_max_pool")


def test_a_linear_layer_takes_a_sum_too() -> None:
    assert ops(summed(lambda m, x: m.fc(x) + x)) == ["linear"]


def test_a_stream_of_sums_is_one_layer_each() -> None:
    def stream(m: Layers, x: Tensor) -> Tensor:
        x = (x + m.first(x)).relu()
        x = x + m.second(x)
        return x + m.first(x)

    assert ops(summed(stream)) == ["conv", "conv", "conv"]


def test_sums_that_no_layer_can_take_stay() -> None:
    def reread(m: Layers, x: Tensor) -> Tensor:
        y = m.first(x)
        return (x + y) * y

    assert ops(summed(reread)) == ["conv", "binary", "binary"]
    assert ops(summed(lambda m, x: x + m.first(x).relu())) == ["conv", "binary"]
    assert ops(summed(lambda m, x: m.first(x) + x.mean((2, 3), keepdim=True))) == ["conv", "mean", "binary"]  # broadcast
    assert ops(summed(lambda m, x: x - m.first(x))) == ["conv", "binary"]


def test_a_layer_added_to_itself_stays() -> None:
    def doubled(m: Layers, x: Tensor) -> Tensor:
        y = m.first(x)
        return y + y

    assert ops(summed(doubled)) == ["conv", "binary"]
