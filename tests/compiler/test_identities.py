"""What is known is computed, what changes nothing goes."""

import torch
from checking import check_same, ops
from torch import Tensor

from espalier.compiler.aten.building import Building
from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.identities import drop_identities, fold_constants


def started(*shape: int) -> tuple[Building, Node]:
    """Return a graph under construction and its input."""
    build = Building()
    build.at((shape,), "", "")
    return build, build.add("input", index=0)


def finished(build: Building, *outputs: Node) -> Graph:
    return Graph(tuple(build.nodes), tuple(node.name for node in outputs), build.constants)


def test_what_depends_on_no_input_is_computed() -> None:
    build, x = started(1, 4)
    table = build.add("unary", torch.arange(4.0).view(4, 1), shape=(4, 1), function="neg")
    turned = build.add("reshape", table, shape=(1, 4))
    joined = build.add("concat", x, turned, shape=(2, 4), axis=0)
    graph = finished(build, joined)
    after = fold_constants(graph)
    assert ops(after) == ["constant", "concat"]
    assert after.constants[after.nodes[1].constants["value"]].tolist() == [[0.0, -1.0, -2.0, -3.0]]
    check_same(graph, after)


def test_a_constant_operand_is_held_as_one() -> None:
    build, x = started(1, 4)
    two: Tensor = torch.full((1, 4), 2.0)
    less = build.add("binary", x, two, function="sub", activation=None)
    half = build.add("binary", less, two, function="div", activation="relu")
    more = build.add("binary", two, half, function="maximum", activation=None)
    left = build.add("binary", two, more, function="sub", activation=None)
    graph = finished(build, left)
    after = fold_constants(graph)
    assert [(node["function"], len(node.inputs)) for node in after if node.op == "binary"] == [
        ("add", 1),
        ("mul", 1),
        ("maximum", 1),
        ("sub", 2),
    ]
    check_same(graph, after)


def test_what_changes_nothing_goes() -> None:
    build, x = started(1, 3, 4, 4)
    y = build.add("unary", x, function="relu")
    y = build.add("unary", y, function="relu")
    y = build.add("reshape", y)
    y = build.add("permute", y, axes=(0, 1, 2, 3))
    y = build.add("pad", y, padding=((0, 0),) * 4, value=0.0)
    y = build.add("slice", y, axis=1, start=0, stop=3, step=1)
    y = build.add("concat", y, axis=1)
    y = build.add("expand", y)
    y = build.add("binary", y, constants={"other": torch.zeros(3, 1, 1)}, function="add", activation=None)
    y = build.add("binary", y, constants={"other": torch.ones(())}, function="mul", activation=None)
    y = build.add("affine", y, constants={"scale": torch.ones(3), "shift": torch.zeros(3)}, axis=1)
    kept = build.add("binary", y, constants={"other": torch.zeros(())}, function="maximum", activation=None)
    graph = finished(build, kept)
    after = drop_identities(graph)
    assert ops(after) == ["unary", "binary"]
    check_same(graph, after)


def test_an_identity_that_is_the_output_gives_what_it_read() -> None:
    build, x = started(1, 3)
    graph = finished(build, build.add("reshape", x))
    after = drop_identities(graph)
    assert (ops(after), after.outputs) == ([], (x.name,))
    check_same(graph, after)


def test_moves_in_a_row_are_one() -> None:
    build, x = started(1, 2, 3, 4)
    y = build.add("permute", x, shape=(1, 4, 2, 3), axes=(0, 3, 1, 2))
    y = build.add("permute", y, shape=(1, 3, 4, 2), axes=(0, 3, 1, 2))
    y = build.add("reshape", y, shape=(1, 12, 2))
    y = build.add("permute", y, shape=(12, 1, 2), axes=(1, 0, 2))  # only an axis of size 1 moves
    y = build.add("reshape", y, shape=(6, 4))
    graph = finished(build, y)
    after = drop_identities(graph)
    assert ops(after) == ["permute", "reshape"]
    assert after.nodes[1]["axes"] == (0, 2, 3, 1)
    check_same(graph, after)


def test_a_mean_over_one_value_moves_it() -> None:
    build, x = started(1, 3, 1, 1)
    graph = finished(build, build.add("mean", x, shape=(1, 3), axes=(2, 3), keepdim=False))
    after = drop_identities(graph)
    assert ops(after) == ["reshape"]
    check_same(graph, after)


def test_constants_in_a_row_are_one() -> None:
    build, x = started(1, 3, 4)
    y = x
    for other in (torch.tensor(2.0), torch.arange(4.0), torch.arange(3.0).view(3, 1)):
        y = build.add("binary", y, constants={"other": other}, function="mul", activation=None)
    for activation in (None, "relu", None):
        y = build.add("binary", y, constants={"other": torch.tensor(-1.0)}, function="add", activation=activation)
    graph = finished(build, y)
    after = drop_identities(graph)
    assert [(node["function"], node["activation"]) for node in after if node.op == "binary"] == [
        ("mul", None),
        ("add", "relu"),
        ("add", None),
    ]
    check_same(graph, after)
