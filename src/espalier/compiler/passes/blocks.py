"""Block sizes of the structure that a layer's mask came from."""

from espalier.compiler.graph import Graph, Node
from espalier.compiler.masks import DETECTED
from espalier.constraints.structures import structure


def structure_blocks(graph: Graph, layer: Node) -> tuple[int, int]:
    """Return how many filters and channels the blocks of a layer's structure span; 1 and 1 where it has none, or its label is unknown."""
    label = graph.structures.get(layer.constants["weight"], "")
    try:
        filters, channels, *_ = *structure(label.removesuffix(DETECTED)).blocks.values(), 1, 1
    except ValueError:
        return 1, 1
    return filters, channels
