"""Activations computed where their argument is, and sums of a residual stream added where the last term is.

A fused layer gives ``activation(op + bias + residual)``; its residual is its last input.
"""

from dataclasses import replace

from espalier.compiler.graph import Graph, Node
from espalier.compiler.passes.editing import Editing, only_reader

LAYERS = ("conv", "linear")
ACTIVATED = (*LAYERS, "binary", "affine")


def fuse_activations(graph: Graph) -> Graph:
    """Return the graph with every activation inside the layer or the operator of ``ACTIVATED`` that alone gives its argument."""
    edit, readers = Editing(graph), graph.readers()
    for node in graph:
        before = edit.node(node.inputs[0]) if node.op == "unary" else None
        if (
            before is not None
            and before.op in ACTIVATED
            and not before["activation"]
            and only_reader(graph, readers, node.inputs[0]) is not None
        ):
            edit.put(before.having(activation=node["function"], **node.settings))
            edit.drop(node, before.name)
        else:
            edit.put(node)
    return edit.graph()


def fuse_residuals(graph: Graph) -> Graph:
    """Return the graph with each sum of two tensors of one shape inside the last of its terms that is a layer read by nothing else.

    The layer takes the place of the sum where its other term comes later than it.
    """
    nodes = {node.name: node for node in graph}
    place = {node.name: index for index, node in enumerate(graph)}
    readers = graph.readers()
    edit = Editing(graph)
    for node in graph:
        layer = _last_layer(graph, nodes, readers, place, node)
        if layer is None:
            continue
        (other,) = (name for name in node.inputs if name != layer.name)
        fused = replace(layer.having(residual=True, activation=node["activation"], **node.settings), inputs=(*layer.inputs, other))
        late = place[other] > place[layer.name]
        nodes[node.name if late else layer.name] = replace(fused, name=node.name) if late else fused
        del nodes[layer.name if late else node.name]
        if not late:
            edit.drop(node, layer.name)
    return edit.graph([*nodes.values()])


def _last_layer(graph: Graph, nodes: dict[str, Node], readers: dict[str, list[Node]], place: dict[str, int], node: Node) -> Node | None:
    """Return the term of a sum that can add the other; None where the node is no such sum, or neither can."""
    if node.op != "binary" or node["function"] != "add" or len(set(node.inputs)) != 2:
        return None
    if any(graph[name].shape != node.shape for name in node.inputs):
        return None
    for name in sorted(node.inputs, key=place.__getitem__, reverse=True):
        term = nodes.get(name)
        alone = term is not None and term.op in LAYERS and only_reader(graph, readers, name) is not None
        if term is not None and alone and not term["activation"] and not term["residual"]:
            return term
    return None
