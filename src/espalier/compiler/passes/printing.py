"""A graph in lines, and what a pass changed in them."""

import difflib

from espalier.compiler.graph import Graph, Node


def lines(graph: Graph) -> list[str]:
    """Return one line a node: its name, inputs, shape, attributes, and each constant with its shape and how much of it is kept."""
    return [*(_line(graph, node) for node in graph), f"outputs: {', '.join(graph.outputs)}"]


def difference(name: str, before: Graph, after: Graph) -> str:
    """Return a pass's name and the lines that it changed, those of before with ``-`` and those of after with ``+``.

    Args:
        name: Of the pass.
        before: The graph it took.
        after: The graph it gave.
    """
    changed = [line for line in difflib.unified_diff(lines(before), lines(after), n=0, lineterm="") if line[:3] not in ("---", "+++")]
    changed = [line for line in changed if not line.startswith("@@")]
    count = f"{len(before.nodes)} -> {len(after.nodes)} nodes" if changed else "changes nothing"
    return "\n".join([f"{name}: {count}", *changed])


def _line(graph: Graph, node: Node) -> str:
    settings = [f"{name}={value}" for name, value in node.attributes.items() if value is not None and value is not False]
    held = [f"{role}={_constant(graph, key)}" for role, key in node.constants.items()]
    shape = "x".join(map(str, node.shape)) or "scalar"
    return " ".join([f"{node.name} = {node.op}({', '.join(node.inputs)}) {shape}", *settings, *held])


def _constant(graph: Graph, key: str) -> str:
    value = graph.constants[key]
    shape = "x".join(map(str, value.shape)) or f"{value.item():g}"
    return f"{key}[{shape}]" if key not in graph.masks else f"{key}[{shape}, {graph.masks[key].float().mean():.0%} kept]"
