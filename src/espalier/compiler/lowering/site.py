"""Where a kernel stands: the operator, what it reads and gives, and in which layouts."""

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout


@dataclass(frozen=True)
class Site:
    """Where a kernel stands.

    Args:
        node: What it computes.
        inputs: Layouts of what it reads.
        output: Layout of its result.
        isa: Instruction set.
        graph: The node's, with its constants.
    """

    node: Node
    inputs: Sequence[Layout]
    output: Layout
    isa: Isa
    graph: Graph
