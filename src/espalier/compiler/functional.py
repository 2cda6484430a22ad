"""An exported program as one that writes nothing in place.

``run_decompositions`` does it for any program by tracing it once more, which takes longer than reading and lowering it. Most networks write
in place, if at all, only to the fresh result of an operator that nothing else reads (``relu_`` after a batch norm, ``+=`` at the end of a
residual block): there it is enough to call the operator's other form, which gives its result.
"""

import operator

import torch
from torch import fx

from espalier.compiler.aten import BUILDERS

BATCH_NORM = "aten.batch_norm.default"
TRAINING = 5  # the place of this argument of a batch norm
WRITERS = {
    f"aten.{name}_.{overload}": getattr(getattr(torch.ops.aten, name), overload)
    for overload, names in {
        "default": ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh", "gelu", "clamp", "leaky_relu"),
        "Tensor": ("add", "sub", "mul", "div"),
    }.items()
    for name in names
}  # operator that writes to its first argument -> its form that gives the result
FRESH = {
    BATCH_NORM,
    "aten.linear.default",
    "aten.cat.default",
    *(f"aten.conv{rank}d.{form}" for rank in (1, 2, 3) for form in ("default", "padding")),
    *map(str, WRITERS.values()),
}  # operators whose result shares memory with nothing


def functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program that gives the same and writes nothing in place: ``program`` itself, changed, where other forms of calls do it."""
    calls = [node for node in program.graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    if not all(map(_is_readable, calls)):
        traced: torch.export.ExportedProgram = program.run_decompositions({})
        return traced
    for node in calls:
        node.target = WRITERS.get(str(node.target), node.target)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _is_private(written: fx.Node) -> bool:
    """Return whether the one call that reads a result is the only way to what it holds."""
    return str(written.target) in FRESH | WRITERS.keys() and len(written.users) == 1


def _dtypes(*nodes: fx.Node) -> set[torch.dtype]:
    """Return the types of results: a write keeps the type of what it writes to, the other form takes the wider."""
    return {node.meta["val"].dtype for node in nodes}


def _is_readable(call: fx.Node) -> bool:
    """Return whether a call has a builder as it is, or in its form that gives the result."""
    name = str(call.target)
    if name in WRITERS:
        written = call.args[0]
        return isinstance(written, fx.Node) and _is_private(written) and _dtypes(*call.all_input_nodes) == _dtypes(written)
    if name == BATCH_NORM:
        return not call.args[TRAINING]  # else it writes its running statistics
    return call.target is operator.getitem or name in BUILDERS
