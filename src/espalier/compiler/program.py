"""A network as it will run: kernels one after the other, each tensor at its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        aliases: Node -> node in whose buffer its result lies: a view of a plain tensor, which is nothing to compute, or a sum that takes
            the place of one of its terms.
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
    steps: list[Step] = []
    for node in laid.graph:
        if _is_view(node, laid.layouts):
            continue
        layouts = [laid.layouts[name] for name in node.inputs]
        steps.append(Step(node, lower(node, layouts, laid.layouts[node.name], isa, laid.graph)))
    return _planned(laid.graph, laid.layouts, steps, isa)


def with_kernels(made: Program, kernels: Mapping[str, Kernel]) -> Program:
    """Return a program in which nodes have other kernels; tensors find their places anew."""
    steps = [replace(step, kernel=kernels.get(step.node.name, step.kernel)) for step in made.steps]
    return _planned(made.graph, made.layouts, steps, made.isa)


def site_of(made: Program, number: int) -> Site:
    """Return where the kernel of a step stands."""
    node = made.steps[number].node
    return Site(node, [made.layouts[name] for name in node.inputs], made.layouts[node.name], made.isa, made.graph)


def _planned(graph: Graph, layouts: Mapping[str, Layout], steps: Sequence[Step], isa: Isa) -> Program:
    aliases: dict[str, str] = {}
    for node in graph:
        if _is_view(node, layouts):
            aliases[node.name] = aliases.get(node.inputs[0], node.inputs[0])
    for number, step in enumerate(steps):
        if (taken := _place_taken(number, graph, layouts, steps, aliases)) is not None:
            roots = {name: taken for name, root in aliases.items() if root == step.node.name}
            aliases |= {step.node.name: taken, **roots}
    plan = planned(_lifetimes(graph, layouts, steps, aliases))
    return Program(graph, layouts, tuple(steps), plan, aliases, isa)


def _is_view(node: Node, layouts: Mapping[str, Layout]) -> bool:
    return node.op == "reshape" and isinstance(layouts[node.inputs[0]], Plain)


def _place_taken(number: int, graph: Graph, layouts: Mapping[str, Layout], steps: Sequence[Step], aliases: Mapping[str, str]) -> str | None:
    """Return the buffer of the residual where the sum may be written over it: nobody else reads it, then or later."""
    node = steps[number].node
    if not steps[number].kernel.in_place or not node.attributes.get("residual"):
        return None
    *others, residual = (aliases.get(name, name) for name in node.inputs)
    last = _last_reads(graph, steps, aliases)
    if residual in others or last[residual] > number or layouts[residual] != layouts[node.name]:
        return None
    return residual


def _last_reads(graph: Graph, steps: Sequence[Step], aliases: Mapping[str, str]) -> dict[str, int]:
    """Return the last step that reads each buffer; outputs are read behind all steps."""
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        for name in step.node.inputs:
            last[aliases.get(name, name)] = number
    for name in graph.outputs:
        last[aliases.get(name, name)] = len(steps)
    return last


def _lifetimes(graph: Graph, layouts: Mapping[str, Layout], steps: Sequence[Step], aliases: Mapping[str, str]) -> list[Lifetime]:
    last = _last_reads(graph, steps, aliases)
    return [
        Lifetime(step.node.name, layouts[step.node.name], number, last.get(step.node.name, number))
        for number, step in enumerate(steps)
        if step.node.name not in aliases
    ]
