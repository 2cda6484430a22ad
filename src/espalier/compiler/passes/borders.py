"""Borders of their own folded into the convolution or pooling that reads them."""

import math
from dataclasses import replace

from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.editing import Editing

Borders = tuple[tuple[int, int], ...]


def fold_borders(graph: Graph) -> Graph:
    """Return the graph with borders of zeros inside convolutions and average pooling, and of minus infinity inside max pooling."""
    edit = Editing(graph)
    for node in graph:
        before = graph[node.inputs[0]] if node.inputs else None
        if before is not None and before.op == "pad" and _takes(node, before):
            edit.put(replace(_bordered(node, before["padding"][2:]), inputs=(before.inputs[0], *node.inputs[1:])))
        else:
            edit.put(node)
    return edit.graph()


def _takes(node: Node, pad: Node) -> bool:
    """Return whether a node's own border can hold that of a pad: the same value, and only along spatial axes."""
    if any(map(any, pad["padding"][:2])):
        return False
    if node.op == "conv":
        return bool(pad["value"] == 0)
    if node.op == "avg_pool":  # the pad counts in its averages, a border of its own must do so too
        return bool(pad["value"] == 0 and (node["count_padding"] or not any(map(any, node["padding"]))))
    return node.op == "max_pool" and pad["value"] == -math.inf


def _bordered(node: Node, padding: Borders) -> Node:
    sums = tuple((before + own[0], after + own[1]) for (before, after), own in zip(padding, node["padding"], strict=True))
    return node.having(padding=sums, count_padding=True) if node.op == "avg_pool" else node.having(padding=sums)
