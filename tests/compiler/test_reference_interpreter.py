"""What a graph means where PyTorch has no operator to read it from: fused layers and borders of two sizes."""

import pytest
import torch
import torch.nn.functional as F

from espalier.compiler.graph import Graph, Node
from espalier.compiler.reference import evaluate


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def one(node: Node, constants: dict[str, torch.Tensor], *shapes: tuple[int, ...]) -> Graph:
    inputs = [Node(f"x{index}", "input", (), shape, {"index": index}) for index, shape in enumerate(shapes)]
    return Graph((*inputs, node), (node.name,), constants)


def test_a_fused_convolution_adds_then_activates() -> None:
    plain = {"stride": (2,), "padding": ((1, 2),), "dilation": (1,), "groups": 1}
    node = Node("y", "conv", ("x0", "x1"), (1, 3, 4), {**plain, "activation": "relu", "residual": True}, {"weight": "w", "bias": "b"})
    constants = {"w": random(3, 2, 3), "b": random(3)}
    x, residual = random(1, 2, 7), random(1, 3, 4)
    (got,) = evaluate(one(node, constants, (1, 2, 7), (1, 3, 4)), x, residual)
    assert torch.equal(got, F.relu(F.conv1d(F.pad(x, (1, 2)), constants["w"], constants["b"], 2) + residual))


def test_a_fused_linear_layer_clamps_between_its_bounds() -> None:
    bounds = {"activation": "clamp", "low": -0.5, "high": 0.25, "residual": False}
    node = Node("y", "linear", ("x0",), (2, 3), bounds, {"weight": "w"})
    weight, x = random(3, 4), random(2, 4)
    (got,) = evaluate(one(node, {"w": weight}, (2, 4)), x)
    assert torch.equal(got, (x @ weight.t()).clamp(-0.5, 0.25))


def test_borders_of_pools_may_differ_in_size() -> None:
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 1), (1, 0))}
    x = random(1, 1, 3, 3) - 5
    largest = Node("y", "max_pool", ("x0",), (1, 1, 2, 2), {**window, "dilation": (1, 1)})
    assert torch.equal(evaluate(one(largest, {}, (1, 1, 3, 3)), x)[0], F.max_pool2d(F.pad(x, (1, 0, 0, 1), value=-torch.inf), 2))
    for counted in (True, False):
        average = Node("y", "avg_pool", ("x0",), (1, 1, 2, 2), {**window, "count_padding": counted})
        corner = evaluate(one(average, {}, (1, 1, 3, 3)), x)[0][0, 0, 1, 0]
        assert corner == pytest.approx(float(x[0, 0, 2, 0] / (4 if counted else 1)))


def test_inputs_of_another_shape_are_refused() -> None:
    graph = one(Node("y", "unary", ("x0",), (1, 2), {"function": "relu"}), {}, (1, 2))
    with pytest.raises(ValueError, match=r"takes \[\(1, 2\)\], it was given \[\(2, 2\)\]"):
        evaluate(graph, torch.zeros(2, 2))
