"""One check for every pass: the graph after it computes what the graph before it does."""

import torch
from random_networks import relative_error

from espalier.compiler.graph import Graph
from espalier.compiler.reference import evaluate


def check_same(before: Graph, after: Graph) -> None:
    """Check outputs for one random input, and that every node comes after what it reads and has its constants."""
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(node.shape, generator=generator) for node in before.inputs]
    for got, wanted in zip(evaluate(after, *inputs), evaluate(before, *inputs), strict=True):
        assert relative_error(got, wanted) < 1e-5
    for key, mask in after.masks.items():
        assert mask.shape == after.constants[key].shape
        assert not after.constants[key][~mask].any()
    assert after.structures.keys() <= after.masks.keys() <= after.constants.keys()


def ops(graph: Graph) -> list[str]:
    """Return the operators in order, inputs aside."""
    return [node.op for node in graph if node.op != "input"]
