"""A network as it will run: kernels one after the other, each tensor at its place."""

from collections.abc import Mapping
from dataclasses import dataclass

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Plain
from espalier.compiler.lowering.dispatch import lower
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.placing import placed
from espalier.compiler.planning import Lifetime, Plan, planned


@dataclass(frozen=True)
class Step:
    """One kernel of the network.

    Args:
        node: What it computes.
        kernel: How.
    """

    node: Node
    kernel: Kernel


@dataclass(frozen=True)
class Program:
    """What is emitted.

    Args:
        graph: With converters.
        layouts: Node -> layout of its result.
        steps: Kernels in order.
        plan: The arena.
        aliases: Node -> node in whose buffer its result lies; a view of a plain tensor is nothing to compute.
        isa: Instruction set.
    """

    graph: Graph
    layouts: Mapping[str, Layout]
    steps: tuple[Step, ...]
    plan: Plan
    aliases: Mapping[str, str]
    isa: Isa

    def place(self, name: str) -> int:
        """Return the first float of a tensor in the arena."""
        return self.plan.places[self.aliases.get(name, name)]


def program(graph: Graph, isa: Isa) -> Program:
    """Return the program of an optimised graph.

    Raises:
        ValueError: An operator has no kernel for the layouts or attributes it has here.
    """
    laid = placed(graph)
    aliases: dict[str, str] = {}
    steps: list[Step] = []
    for node in laid.graph:
        source = node.inputs[0] if node.inputs else ""
        if node.op == "reshape" and isinstance(laid.layouts[source], Plain):
            aliases[node.name] = aliases.get(source, source)
            continue
        layouts = [laid.layouts[name] for name in node.inputs]
        steps.append(Step(node, lower(node, layouts, laid.layouts[node.name], isa, laid.graph)))
    plan = planned(_lifetimes(laid.graph, laid.layouts, steps, aliases))
    return Program(laid.graph, laid.layouts, tuple(steps), plan, aliases, isa)


def site_of(made: Program, number: int) -> Site:
    """Return where the kernel of a step stands."""
    node = made.steps[number].node
    return Site(node, [made.layouts[name] for name in node.inputs], made.layouts[node.name], made.isa, made.graph)


def _lifetimes(graph: Graph, layouts: Mapping[str, Layout], steps: list[Step], aliases: Mapping[str, str]) -> list[Lifetime]:
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        for name in step.node.inputs:
            last[aliases.get(name, name)] = number
    for name in graph.outputs:
        last[aliases.get(name, name)] = len(steps)
    return [
        Lifetime(step.node.name, layouts[step.node.name], number, last.get(step.node.name, number)) for number, step in enumerate(steps)
    ]
