"""All passes on random networks, dense and pruned, one by one and together; and how their changes are printed."""

import pytest
import torch
from checking import check_same, ops
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import networks, relative_error
from torch import Tensor, nn

from espalier.compiler.front import read_model
from espalier.compiler.graph import Graph
from espalier.compiler.passes import PASSES, optimised
from espalier.compiler.passes.printing import difference
from espalier.compiler.reference import evaluate


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.booleans().flatmap(lambda pruned: networks(pruned=pruned)))
def test_a_random_network_computes_the_same(drawn: tuple[nn.Module, Tensor]) -> None:
    check_network(*drawn)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(pruned=True))
def test_many_pruned_networks_compute_the_same(drawn: tuple[nn.Module, Tensor]) -> None:
    check_network(*drawn)


def check_network(model: nn.Module, x: Tensor) -> None:
    graph = read_model(model, x)
    after = optimised(graph, told=lambda _, before, later: check_same(before, later))
    with torch.no_grad():
        wanted = model(x)
    (got,) = evaluate(after, x)
    assert relative_error(got, wanted) < 1e-5
    assert len(after.nodes) <= len(graph.nodes)


def test_a_residual_block_becomes_its_layers() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.first_norm = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
            self.second, self.second_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.short, self.short_norm = nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8)
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.second_norm(self.second(self.first_norm(self.first(x)).relu()))
            return self.fc((y + self.short_norm(self.short(x))).relu().mean((2, 3)))

    graph = read_model(Block(), torch.zeros(1, 4, 8, 8))
    after = optimised(graph)
    assert ops(after) == ["conv", "conv", "conv", "mean", "linear"]
    assert [(node["activation"], node["residual"]) for node in after if node.op == "conv"] == [
        ("relu", False),
        (None, False),
        ("relu", True),
    ]
    check_same(graph, after)


def test_passes_never_change_what_they_take() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    weight = model[0].weight.detach().clone()
    graph = read_model(model, torch.zeros(1, 3, 5, 5))
    text, constants = str(graph), dict(graph.constants)
    optimised(graph)
    assert (str(graph), dict(graph.constants)) == (text, constants)
    assert torch.equal(model[0].weight, weight)


@pytest.mark.tiny
def test_a_difference_shows_only_the_lines_that_changed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Sigmoid())
    shown: dict[str, str] = {}

    def told(name: str, before: Graph, after: Graph) -> None:
        shown[name] = difference(name, before, after)

    optimised(read_model(model, torch.zeros(1, 3, 5, 5)), told=told)
    assert [*shown] == [function.__name__ for function in PASSES]
    assert shown["fold_borders"] == "fold_borders: changes nothing"
    conv = "stride=(1, 1) padding=((0, 0), (0, 0)) dilation=(1, 1) groups=1"
    assert shown["fuse_activations"].splitlines() == [
        "fuse_activations: 4 -> 3 nodes",
        f"-n1_conv = conv(n0_input) 1x4x5x5 {conv} weight=c0[4x3x1x1] bias=c1[4]",
        "-n2_unary = unary(n1_conv) 1x4x5x5 function=relu",
        "-n3_unary = unary(n2_unary) 1x4x5x5 function=sigmoid",
        f"+n1_conv = conv(n0_input) 1x4x5x5 {conv} activation=relu weight=c0[4x3x1x1] bias=c1[4]",
        "+n3_unary = unary(n1_conv) 1x4x5x5 function=sigmoid",
    ]
