"""Maxima over 2x2 windows inside the convolution before them, which holds whole windows in registers: the unpooled map is never written.

Dense 3x3 convolutions are left as they are: template W saves more on them than the map costs.
"""

from dataclasses import replace

from espalier.compiler.graph import Graph, Node
from espalier.compiler.lowering.winograd_rule import LEAST
from espalier.compiler.passes.editing import Editing, only_reader

MONOTONE = (None, "relu", "relu6")  # their maximum is theirs of the maximum
SIDE = 2


def fuse_pools(graph: Graph) -> Graph:
    """Return the graph with every maximum over 2x2 windows of H and W inside the convolution that alone gives its argument."""
    edit, readers = Editing(graph), graph.readers()
    for node in graph:
        before = edit.node(node.inputs[0]) if node.op == "max_pool" else None
        if (
            before is not None
            and _pools(before, graph)
            and _is_pooled(node, before)
            and only_reader(graph, readers, node.inputs[0]) is not None
        ):
            edit.put(replace(before.having(pool=True), shape=node.shape))
            edit.drop(node, before.name)
        else:
            edit.put(node)
    return edit.graph()


def _pools(layer: Node, graph: Graph) -> bool:
    plain = layer.op == "conv" and layer["groups"] == 1 and not layer["residual"]
    return plain and layer["activation"] in MONOTONE and not layer.attributes.get("pool") and not _suits_winograd(layer, graph)


def _suits_winograd(layer: Node, graph: Graph) -> bool:
    filters, channels, *kernel = graph.constants[layer.constants["weight"]].shape
    plain = all(step == 1 for step in (*layer["stride"], *layer["dilation"]))
    return plain and graph.mask(layer) is None and tuple(kernel[-SIDE:]) == (3, 3) and min(filters, channels) >= LEAST


def _is_pooled(node: Node, layer: Node) -> bool:
    rank = len(node["kernel"])
    windows = (1,) * (rank - SIDE) + (SIDE,) * SIDE
    sizes = (*layer.shape[:-SIDE], *(size // SIDE for size in layer.shape[-SIDE:]))
    aside = not any(map(any, node["padding"])) and all(step == 1 for step in node["dilation"])
    return rank >= SIDE and tuple(node["kernel"]) == tuple(node["stride"]) == windows and aside and node.shape == sizes
