"""Which layout each tensor has: maps where convolutions and pools work, plain elsewhere, converters where the two meet.

A map's border is as wide as the widest padding among its readers, so that no kernel masks an edge (compiler spec, 4.2, pass 7).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from espalier.compiler.graph import Graph, Node
from espalier.compiler.layouts import LINE, Border, Layout, Plain, map_of

ON_MAPS = ("conv", "max_pool", "avg_pool", "adaptive_avg_pool", "upsample", "group_norm")  # read a map and give one
FOLLOWING = ("unary", "binary", "affine", "concat", "slice", "pad")  # stay on maps where all that they read lies there
ANY = ("permute", "mean")  # read either layout
FEW_CHANNELS = 4  # a network's input of so few is packed in lines of four


@dataclass(frozen=True)
class Placed:
    """A graph whose tensors have layouts.

    Args:
        graph: With ``convert`` nodes.
        layouts: Node -> layout of its result.
    """

    graph: Graph
    layouts: Mapping[str, Layout]


def placed(graph: Graph) -> Placed:
    """Return the graph with a layout for every tensor, and converters where a reader wants another one than the writer gives."""
    readers = graph.readers()
    on_map: dict[str, bool] = {}
    nodes: list[Node] = []
    converted: dict[tuple[str, bool], str] = {}

    def want(name: str, wanted: bool, of: Node) -> str:
        if on_map[name] == wanted:
            return name
        if (name, wanted) not in converted:
            made = Node(f"{name}_{'map' if wanted else 'plain'}", "convert", (name,), graph[name].shape, source=of.source, line=of.line)
            nodes.append(made)
            on_map[made.name] = wanted
            converted[name, wanted] = made.name
        return converted[name, wanted]

    for node in graph:
        result = _gives_map(node, graph, readers, on_map)
        if node.op in ON_MAPS or (node.op in FOLLOWING and result):
            inputs = tuple(want(name, wanted=True, of=node) for name in node.inputs)
        elif node.op in ANY or node.op == "input":
            inputs = node.inputs
        else:
            inputs = tuple(want(name, wanted=False, of=node) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
        on_map[node.name] = result
    with_converters = replace(graph, nodes=tuple(nodes))
    outputs = tuple(want(name, wanted=False, of=graph[name]) for name in graph.outputs)
    with_converters = replace(with_converters, nodes=tuple(nodes), outputs=outputs)
    return Placed(with_converters, _layouts(with_converters, on_map))


def check_one_sample(graph: Graph) -> None:
    """Check that layers over feature maps see one sample.

    Raises:
        ValueError: They see several; the message names the first layer, its shape and what to pass.
    """
    for node in graph:
        shapes = [graph[name].shape for name in node.inputs[:1]]
        if node.op in ON_MAPS and (several := [shape for shape in shapes if shape[0] != 1]):
            given = ", ".join(str(source.shape) for source in graph.inputs)
            raise ValueError(
                f"{node.op} of {node.source or node.name} sees {several[0][0]} samples, {several[0]}, with an example of shape {given}; "
                "native code of feature maps computes one: pass example[:1], and call what you get once for each sample."
            )


def _gives_map(node: Node, graph: Graph, readers: Mapping[str, list[Node]], on_map: Mapping[str, bool]) -> bool:
    """Return whether a node's result lies in a map."""
    if node.op in ON_MAPS:
        return True
    if not 3 <= len(node.shape) <= 5 or node.shape[0] != 1:
        return False
    if node.op == "input":
        return any(reader.op in ON_MAPS for reader in readers[node.name])
    if node.op == "mean":
        return on_map[node.inputs[0]] and bool(node["keepdim"]) and set(node["axes"]) == set(range(2, len(node.shape)))
    if node.op not in FOLLOWING or not node.inputs:
        return False
    if node.op == "affine" and node["axis"] != 1:
        return False
    if node.op in ("concat", "slice", "pad") and not _along_a_map(node):
        return False
    if node.op == "binary" and "other" in node.constants:
        other = graph.constants[node.constants["other"]]
        if other.ndim and (other.ndim > len(node.shape) or (other.ndim == len(node.shape) and other.shape[0] != 1)):
            return False
    same_rank = all(len(graph[name].shape) == len(node.shape) and graph[name].shape[0] == 1 for name in node.inputs)
    return same_rank and all(on_map[name] for name in node.inputs)


def _along_a_map(node: Node) -> bool:
    if node.op == "pad":
        return bool(node["padding"][0] == (0, 0))
    return int(node["axis"]) >= 1


def _layouts(graph: Graph, on_map: Mapping[str, bool]) -> dict[str, Layout]:
    readers = graph.readers()
    found: dict[str, Layout] = {}
    for node in graph:
        if not on_map[node.name]:
            found[node.name] = Plain(node.shape)
            continue
        few = node.op == "input" and node.shape[1] <= FEW_CHANNELS and all(_packs_few(reader) for reader in readers[node.name])
        found[node.name] = map_of(node.shape, _border(node, readers[node.name]), FEW_CHANNELS if few else LINE)
    return found


def _packs_few(reader: Node) -> bool:
    return reader.op == "conv" and reader["groups"] == 1


def _border(node: Node, readers: list[Node]) -> Border:
    """Return the zeros that the convolutions among ``readers`` want around the map."""
    border = [(0, 0)] * 3
    for reader in readers:
        if reader.op != "conv" or reader.inputs[0] != node.name:
            continue
        rank = len(reader["padding"])
        for axis in range(rank):
            before, after = reader["padding"][axis]
            place = 3 - rank + axis
            border[place] = (max(border[place][0], before), max(border[place][1], after))
    return border[0], border[1], border[2]
