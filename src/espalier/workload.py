"""The one description of a network that counters, compiler and frames read: ``torch.export`` -> operators with shapes and counts.

One MAC is one multiply-add. Operators without weights count none here.
"""

import inspect
import io
import logging
import math
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TORCH = Path(torch.__file__).parent
REFUSALS = (torch._dynamo.exc.TorchDynamoException, RuntimeError, AssertionError)  # what a failed export raises
TALKATIVE = ("torch.export", "torch.fx.experimental.symbolic_shapes")  # loggers that dump what they know before export fails


@dataclass(frozen=True)
class Operator:
    """One operator of the exported graph.

    Args:
        name: Node name in the graph.
        kind: ATen name, such as ``aten.conv2d.default``.
        output_shape: Shape of its result; empty where it has none.
        weight_name: Parameter it multiplies with.
        macs: Multiply-adds of one sample, zeros included.
        macs_effective: Those whose weight is not zero.
        source: Module path it came from.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weight_name: str | None
    macs: int
    macs_effective: int
    source: str


@dataclass(frozen=True)
class Workload:
    """A network's operators and its parameters' counts."""

    operators: tuple[Operator, ...]
    parameters: int
    weight_names: tuple[str, ...]
    weights: int
    weights_nonzero: int

    @property
    def macs(self) -> int:
        """Return the multiply-adds of one sample, zeros included."""
        return sum(operator.macs for operator in self.operators)

    @property
    def macs_effective(self) -> int:
        """Return the multiply-adds of one sample whose weight is not zero."""
        return sum(operator.macs_effective for operator in self.operators)


def workload(model: nn.Module, example: Tensor) -> Workload:
    """Describe ``model`` in evaluation mode on ``example``, a batch of one.

    Raises:
        ValueError: ``example`` holds more than one sample, or the model cannot be exported.
    """
    if example.shape[0] != 1:
        raise ValueError(f"the example holds {example.shape[0]} samples; counts are per sample, give a batch of one.")
    program = exported(model, example)
    found = operators(program, model)
    parameters = dict(model.named_parameters())
    weight_names = tuple(dict.fromkeys(operator.weight_name for operator in found if operator.weight_name is not None))
    return Workload(
        found,
        sum(parameter.numel() for parameter in parameters.values()),
        weight_names,
        sum(parameters[name].numel() for name in weight_names),
        sum(int(parameters[name].count_nonzero()) for name in weight_names),
    )


def exported(model: nn.Module, *examples: Tensor) -> torch.export.ExportedProgram:
    """Return what ``model`` computes in evaluation mode, without gradients; its modes are left as they are.

    Args:
        model: Any network that ``torch.export`` can follow.
        examples: Its arguments; their shapes hold for the program.

    Raises:
        ValueError: The model cannot be exported.
    """
    try:
        inspect.signature(model.forward).bind(*examples)
    except TypeError as error:
        raise ValueError(f"{type(model).__name__} does not take {len(examples)} arguments: {error}; give an example of each.") from error
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet_where_it_fails():
            warnings.filterwarnings("ignore", "The tensor attribute")  # caches that a model fills as it runs: they change no result
            return torch.export.export(model, examples)
    except REFUSALS as error:
        raise ValueError(_refusal(model, examples, error)) from error
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _quiet_where_it_fails() -> Iterator[None]:
    """Drop what export logs and dumps for its developers where its failure becomes our message, which says what of it a user can use.

    Whatever else was written to stderr meanwhile is passed on at the end. Both the loggers' levels and ``sys.stderr`` are the process's:
    what other threads write meanwhile is held too, and dropped with the rest.
    """
    levels = {logger: logger.level for logger in map(logging.getLogger, TALKATIVE)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    held = io.StringIO()
    try:
        with redirect_stderr(held):
            yield
    except REFUSALS:
        held = io.StringIO()
        raise
    finally:
        sys.stderr.write(held.getvalue())
        for logger, level in levels.items():
            logger.setLevel(level)


def _refusal(model: nn.Module, examples: Sequence[Tensor], error: Exception) -> str:
    """Return what a failed export tells a user: whose fault, the line of the model's code, the reason, and the way out if there is one."""
    if "pytree" in str(error):
        return f"{type(model).__name__} gives or takes an object that torch.export does not know; return tuples, lists or dicts of tensors."
    if "data-dependent" in str(error):
        way_out = " What is computed must not hang on values: compute both branches and choose by torch.where, or take the branch out."
        return f"torch.export cannot follow {_reason(model, error)}{way_out}"
    if (failure := _failure(model, examples)) is not None:
        shapes = " and ".join("x".join(map(str, example.shape)) or "no axes" for example in examples)
        return f"an example of {shapes} does not go through {_reason(model, failure)} Give one that the model takes."
    return f"torch.export cannot follow {_reason(model, error)}"


def _reason(model: nn.Module, error: Exception) -> str:
    """Return a model's name, the line of its code at which it failed, and why."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(Path(frame.filename))]
    place = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    reason = (str(error).splitlines() or [type(error).__name__])[0].partition("  (Size-like")[0].rstrip(".")
    return f"{type(model).__name__}{place}: {reason}."


def _failure(model: nn.Module, examples: Sequence[Tensor]) -> Exception | None:
    """Return what a model raises when it is called without export, None if nothing; it and what it was given are left as they were."""
    buffers = {buffer: buffer.clone() for buffer in model.buffers()}
    said = io.StringIO()  # once more
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
        warnings.simplefilter("ignore")
        try:
            model(*(example.clone() for example in examples))
        except Exception as error:  # noqa: BLE001  whatever the model's code raises is its answer
            return error
        finally:
            for buffer, before in buffers.items():
                buffer.copy_(before)
    return None


def _is_machinery(path: Path) -> bool:
    """Return whether a file is torch's or this one, or code without a file; torchvision's, which lies beside torch, is a user's."""
    return path.name.startswith("<") or path.is_relative_to(TORCH) or path == Path(__file__)


def operators(program: torch.export.ExportedProgram, model: nn.Module) -> tuple[Operator, ...]:
    """Return the operators of a program that ``exported`` made of ``model``; a shared parameter goes by the first of its names."""
    parameters = dict(model.named_parameters())
    first = {id(parameter): name for name, parameter in parameters.items()}
    names = {alias: first[id(parameter)] for alias, parameter in model.named_parameters(remove_duplicate=False)}
    named = {given: names[name] for given, name in program.graph_signature.inputs_to_parameters.items()}
    return tuple(_operator(node, named, parameters) for node in program.graph.nodes if node.op == "call_function")


def uses(model: nn.Module, example: Tensor) -> dict[str, float]:
    """Return how many multiply-adds of one sample each weight of a parameter takes part in, by parameter. Raises as ``workload`` does."""
    found: dict[str, float] = {}
    for operator in workload(model, example).operators:
        if operator.weight_name is not None:
            size = model.get_parameter(operator.weight_name).numel()
            found[operator.weight_name] = found.get(operator.weight_name, 0.0) + operator.macs / size
    return found


def _operator(node: Any, named: dict[str, str], parameters: dict[str, nn.Parameter]) -> Operator:
    value = node.meta.get("val")
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    kind = str(node.target)
    weight_name = named.get(node.args[1].name) if _multiplies(kind) and len(node.args) > 1 and hasattr(node.args[1], "name") else None
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    source = stack[-1][0] if stack else ""
    if weight_name is None:
        return Operator(node.name, kind, shape, None, 0, 0, source)
    weight = parameters[weight_name]
    # a convolution applies each of its weights once for every output position, a linear layer once for every row of its input
    uses = math.prod(shape[2:]) if "conv" in kind else math.prod(shape[1:-1])
    return Operator(node.name, kind, shape, weight_name, weight.numel() * uses, int(weight.count_nonzero()) * uses, source)


def _multiplies(kind: str) -> bool:
    return kind.startswith(("aten.conv", "aten.linear"))
