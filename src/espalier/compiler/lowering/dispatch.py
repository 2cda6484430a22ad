"""Which function lowers which operator."""

from collections.abc import Sequence

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout
from espalier.compiler.lowering import LOWERINGS
from espalier.compiler.lowering.convolutions import lower_conv, lower_linear
from espalier.compiler.lowering.depthwise import is_depthwise, lower_depthwise
from espalier.compiler.lowering.kernel import Kernel


def lower(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of any operator.

    Raises:
        ValueError: It has attributes that no kernel has; the message names operator and module.
    """
    if node.op == "conv":
        function = lower_depthwise if is_depthwise(node, graph) else lower_conv
    elif node.op == "linear":
        function = lower_linear
    else:
        function = LOWERINGS["reshape" if node.op == "convert" else node.op]
    try:
        return function(node, inputs, output, isa, graph)
    except ValueError as error:
        raise ValueError(f"{node.op} of {node.source or node.name}: {error}") from error
