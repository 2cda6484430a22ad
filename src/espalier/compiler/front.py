"""The front: a PyTorch model -> the compiler's graph, by way of ``torch.export``.

The exported program is made functional first, so that writes in place are values like any other. What does not depend on the input
(position tables, standardised weights) is computed here and becomes a constant.
"""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.node import map_arg
from torch.utils._pytree import TreeSpec, tree_unflatten

from espalier.compiler.aten import BUILDERS
from espalier.compiler.aten.building import Building, UnreadableError
from espalier.compiler.defaults import float32_on_cpu
from espalier.compiler.functional import functional
from espalier.compiler.graph import Graph, Node
from espalier.compiler.masks import Found, detected_mask, frozen_masks
from espalier.compiler.missing import Missing, MissingOperatorsError
from espalier.constraints.assignment import Assignment
from espalier.workload import exported, operators

TORCH = str(Path(torch.__file__).parent)
FRAME = re.compile(r'File "([^"]+)", line (\d+)')
CHECK = "aten._assert"  # starts the names of operators that only check
WRITTEN = {OutputKind.BUFFER_MUTATION: "its buffer", OutputKind.USER_INPUT_MUTATION: "its input"}


def read_model(model: nn.Module, example: Tensor | tuple[Tensor, ...], *, frozen: Assignment | None = None) -> Graph:
    """Return the graph of what ``model`` computes in evaluation mode.

    Its constants share memory with the model's parameters and buffers where these are used as they are.

    Args:
        model: Any network that ``torch.export`` can follow.
        example: Its argument, or a tuple of them; their shapes hold for the graph.
        frozen: The checkpoint's frozen sets. None detects masks from the zeros of weights; the labels of their structures say so.

    Raises:
        MissingOperatorsError: The model holds operators that the compiler lacks; the message lists them all.
        ValueError: The model cannot be exported, is not float32 on the CPU, or has weights outside their frozen sets.
    """
    check_network(model)
    program = exported(model, *checked(example))
    reading = read_program(program)
    if reading.missing:
        raise MissingOperatorsError(type(model).__name__, [*reading.missing.values()], operators(program, model))
    return replace(reading.graph(None if frozen is None else frozen_masks(model, frozen)), tree=tree_of(program))


def check_network(model: object) -> None:
    """Refuse what is no network that can be exported.

    Raises:
        ValueError: It is no ``nn.Module``, or one that is scripted or traced already.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("the network is scripted or traced already; compile the nn.Module it was made of.")
    if not isinstance(model, nn.Module):
        raise ValueError(f"compile takes a network, an nn.Module, not {type(model).__name__}.")


def tree_of(program: torch.export.ExportedProgram) -> TreeSpec | None:
    """Return how a program wraps its outputs; None where it gives one tensor, or a tuple of several."""
    spec = program.call_spec.out_spec
    wrapped = tree_unflatten(range(spec.num_leaves), spec)
    plain = wrapped == 0 if spec.num_leaves == 1 else type(wrapped) is tuple and wrapped == tuple(range(spec.num_leaves))
    return None if plain else spec


def checked(example: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the arguments that an example stands for.

    Raises:
        ValueError: One is no tensor, or not float32 on the CPU.
    """
    examples = example if isinstance(example, tuple) else (example,)
    if others := [type(given).__name__ for given in examples if not isinstance(given, Tensor)]:
        raise ValueError(f"the example holds {', '.join(others)}; pass a tensor, or a tuple of the tensors that the model takes.")
    if wrong := [f"{given.dtype} on {given.device}" for given in examples if (given.dtype, given.device.type) != (torch.float32, "cpu")]:
        raise ValueError(f"the example is {', '.join(wrong)}; the compiler takes float32 on the CPU.")
    return examples


@float32_on_cpu()
def read_program(program: torch.export.ExportedProgram) -> "Reading":
    """Return what can be read of a program, made functional, its operators whole; what cannot is in ``missing``.

    Raises:
        ValueError: The model changes a buffer or its input when it is called, or gives something beside tensors.
    """
    with torch.no_grad():
        program = functional(program)
        signature = program.graph_signature
        tensors = {**program.state_dict, **program.constants}
        named = {entry.arg.name: entry for entry in signature.input_specs if entry.kind != InputKind.USER_INPUT}
        known: dict[fx.Node, Any] = {}
        parameters: dict[str, Tensor] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in named:
                entry = named[node.name]
                held = tensors.get(str(entry.target))
                known[node] = held.detach() if isinstance(held, Tensor) else held
                if entry.kind == InputKind.PARAMETER and isinstance(held, Tensor):
                    parameters[str(entry.target)] = known[node]
        if kept := [f"{WRITTEN[entry.kind]} '{entry.target}'" for entry in signature.output_specs if entry.kind in WRITTEN]:
            raise ValueError(
                f"the model writes to {', '.join(kept)} on every call, which compiled code does not: outputs would be those of the first "
                "call. Give the value back as an output, or leave it out in evaluation mode."
            )
        asked = [entry.kind == OutputKind.USER_OUTPUT for entry in signature.output_specs]
        given = [node for node, wanted in zip(program.graph.output_node().args[0], asked, strict=True) if wanted]
        if others := [value for value in given if not isinstance(value, fx.Node)]:
            raise ValueError(f"the model's outputs hold {others}, and compiled code gives tensors alone; leave what is none out.")
        return Reading(program.graph_module, known, parameters, given)


class Reading:
    """One pass over a functional graph.

    Args:
        module: What holds the graph; every node of it is read.
        known: Placeholder -> its value; one that is not here depends on the sample.
        parameters: Name of each of the model's parameters -> its value, the tensor that ``known`` holds.
        outputs: Nodes that are asked for.
    """

    def __init__(
        self, module: fx.GraphModule, known: Mapping[fx.Node, Any], parameters: Mapping[str, Tensor], outputs: Sequence[fx.Node]
    ) -> None:
        self.build = Building()
        self.missing: dict[fx.Node, Missing] = {}
        self.parameters = parameters
        self.values: dict[fx.Node, Any] = dict(known)  # a value, a tuple of them, or None
        self.nodes, self.asked = list(module.graph.nodes), outputs
        for node in module.graph.nodes:
            if node.op == "placeholder" and node not in known:
                self.build.at(_shapes(node), "", "")
                self.values[node] = self.build.add("input", index=sum(before.op == "input" for before in self.build.nodes))
            elif node.op == "get_attr":
                held = getattr(module, node.target, None)
                self.values[node] = held.detach() if isinstance(held, Tensor) else held
            elif node.op == "call_function":
                self.values[node] = self._call(node)
        self.outputs = tuple(self.build.node(self.values[node]).name for node in outputs)

    def depends(self, node: fx.Node) -> bool:
        """Return whether a node must be carried out anew for each sample."""
        return node in self.missing or _depends(self.values.get(node))

    def graph(self, found: Mapping[str, Found] | None) -> Graph:
        """Return what was read, with the masks found by parameter.

        Those of weights that are no parameter as it is (transposed, standardised) are detected, and all are where ``found`` is None.
        """
        build = self.build
        weights = dict.fromkeys(node.constants["weight"] for node in build.nodes if node.op in ("conv", "linear"))
        names = {build.key(tensor): name for name, tensor in self.parameters.items() if build.holds(tensor)}
        told = {} if found is None else {key: found.get(name) for key, name in names.items()}
        masked = {key: told[key] if key in told else detected_mask(build.constants[key]) for key in weights}
        kept = {key: entry for key, entry in masked.items() if entry is not None}
        masks = {key: mask for key, (mask, _) in kept.items()}
        return Graph(tuple(build.nodes), self.outputs, build.constants, masks, {key: label for key, (_, label) in kept.items()}).pruned()

    def _call(self, node: fx.Node) -> Any:
        name = str(node.target)
        if name.startswith(CHECK):
            return None
        stack = [*(node.meta.get("nn_module_stack") or {}).values()]
        self.build.at(_shapes(node), stack[-1][0] if stack else "", _line(node))
        try:
            if node.target is operator.getitem:
                return self._entry(node)
            if not any(_depends(self.values[used]) for used in node.all_input_nodes):
                return self._folded(node)
            return self._built(node)
        except UnreadableError as error:
            self.missing[node] = Missing(name, self.build.source, self.build.line, str(error))
            unknown = tuple(Node("unknown", "input", (), shape) for shape in self.build.shapes)
            return unknown if isinstance(node.meta.get("val"), list | tuple) else next(iter(unknown), None)

    def _entry(self, node: fx.Node) -> Any:
        held, place = self.values[node.all_input_nodes[0]], node.args[1]
        if isinstance(held, tuple | list) and isinstance(place, int) and place < len(held):
            return held[place]
        raise UnreadableError(f"result {place} of {node.all_input_nodes[0].target} is out of reach")

    def _folded(self, node: fx.Node) -> Any:
        """Return what a call gives that does not depend on the input."""
        if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in node.target.tags:
            raise UnreadableError("it draws at random" if isinstance(node.target, torch._ops.OpOverload) else "")
        return node.target(*map_arg(node.args, self.values.__getitem__), **map_arg(node.kwargs, self.values.__getitem__))

    def _built(self, node: fx.Node) -> Any:
        """Return what a call gives that depends on the input, as its builder writes it."""
        builder = BUILDERS.get(str(node.target))
        if builder is None or not isinstance(node.target, torch._ops.OpOverload):
            raise UnreadableError("")
        dtypes = {value.dtype for value in _tensors(node)}
        if dtypes - {torch.float32, torch.int64} or torch.float32 not in dtypes:
            raise UnreadableError(f"it gives {', '.join(map(str, dtypes)) or 'no tensor'}")
        given = dict(zip((argument.name for argument in node.target._schema.arguments), node.args, strict=False)) | node.kwargs
        arguments = [given.get(argument.name, argument.default_value) for argument in node.target._schema.arguments]
        return builder(self.build, *map_arg(arguments, self.values.__getitem__))


def _tensors(node: fx.Node) -> list[Tensor]:
    """Return what export knows of a call's results."""
    value = node.meta.get("val")
    return [entry for entry in (value if isinstance(value, list | tuple) else [value]) if isinstance(entry, Tensor)]


def _shapes(node: fx.Node) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(value.shape) for value in _tensors(node))


def _depends(value: Any) -> bool:
    """Return whether a value depends on the network's input."""
    return isinstance(value, Node) or (isinstance(value, list | tuple) and any(map(_depends, value)))


def _line(node: fx.Node) -> str:
    """Return file and line of the call: the innermost frame outside PyTorch."""
    frames = [(file, line) for file, line in FRAME.findall(node.meta.get("stack_trace") or "") if not file.startswith(TORCH)]
    return ":".join(frames[-1]) if frames else ""
