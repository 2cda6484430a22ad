"""The C text of nests: a function whose threads share the outer loops."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from espalier.compiler.lowering.kernel import NAME
from espalier.compiler.lowering.nests import Axis, Nest, Run

RESULTS = ("y", "to")  # pointers to what a kernel writes begin so
ENOUGH_TASKS = 64  # for threads to share evenly; what lies further inside stays a loop

Body = Callable[[Run, Sequence[str]], Sequence[str]]  # a run, and C expressions of where it begins in each tensor -> statements


def signature(num_inputs: int, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the head of a kernel's function.

    Args:
        num_inputs: How many tensors it reads.
        arrays: Its constants.
    """
    inputs = "".join(f"const float *x{number}, " for number in range(num_inputs))
    constants = "".join(f", const {'float' if array.dtype == np.float32 else 'int32_t'} *{name}" for name, array in arrays.items())
    return f"void {NAME}(const struct es_context *c, int tid, {inputs}float *y{constants})"


def function(head: str, lines: Sequence[str], helpers: Sequence[str] = ()) -> str:
    """Return the C text of a kernel, in whose function ``begin`` and ``end`` hold a thread's share.

    Args:
        head: Of the function.
        lines: Its statements.
        helpers: Functions that it calls.
    """
    text = ["#include <math.h>", "#include <string.h>", "", *helpers, defined(head, ["long begin, end;", *lines])]
    return "\n".join(text)


def defined(head: str, lines: Sequence[str]) -> str:
    """Return a C function."""
    return "\n".join([head, "{", *indented(lines), "}", ""])


def indented(lines: Sequence[str]) -> list[str]:
    """Return lines of C one level deeper."""
    return [f"  {line}" if line else line for line in lines]


def block(head: str, lines: Sequence[str]) -> list[str]:
    """Return statements in braces behind ``head``, such as a loop's."""
    return [f"{head} {{".lstrip(), *indented(lines), "}"]


def either(condition: str, yes: Sequence[str], no: Sequence[str]) -> list[str]:
    """Return statements for when a condition holds, and those for when it does not."""
    return [f"if ({condition}) {{", *indented(yes), "} else {", *indented(no), "}"]


def zeroed(run: Run, at: Sequence[str]) -> list[str]:
    """Return the statements that write zeros to a run of the result."""
    if run.steps[-1] == 1:
        return [f"memset({at[-1]}, 0, {run.size} * sizeof(float));"]
    return [f"for (int i = 0; i < {run.size}; ++i) {element(at[-1], run.steps[-1])} = 0.0f;"]


def walked(found: Sequence[Nest], tensors: Sequence[str], body: Body) -> list[str]:
    """Return statements that visit every nest, each thread its part of each.

    Args:
        found: The nests.
        tensors: Names of the pointers, the result's last; where a run begins is ``x0_run`` for ``x0``.
        body: Returns the statements of one run.
    """
    lines = []
    for nest in found:
        shared, num_shared = _shared(nest)
        sizes = [axis.size for axis in shared.axes[:num_shared]]
        inside = _visited(shared, "i", tensors, [f"{name}_run" for name in tensors], body, first=num_shared)
        indices = [f"const long i{number} = {_index(sizes, number)};" for number, size in enumerate(sizes) if size > 1]
        lines.append(f"es_split({math.prod(sizes)}, tid, c->threads, &begin, &end);")
        lines += block("for (long t = begin; t < end; ++t)", [*indices, *inside])
    return lines


def _shared(nest: Nest) -> tuple[Nest, int]:
    """Return a nest and how many of its loops threads share: those that give each enough, the last one cut in two where it gives more."""
    tasks = 1
    for number, axis in enumerate(nest.axes):
        if tasks * axis.size >= ENOUGH_TASKS:
            parts = next(size for size in range(-(-ENOUGH_TASKS // tasks), axis.size + 1) if axis.size % size == 0)
            inner = axis.size // parts
            outer = Axis(parts, tuple(step * inner for step in axis.steps))
            cut = (outer, replace(axis, size=inner)) if inner > 1 else (axis,)
            return replace(nest, axes=(*nest.axes[:number], *cut, *nest.axes[number + 1 :])), number + 1
        tasks *= axis.size
    return nest, len(nest.axes)


def visited(found: Sequence[Nest], tensors: Sequence[str], pointers: Sequence[str], body: Body) -> list[str]:
    """Return statements that visit every nest inside the body of others.

    Args:
        found: The nests.
        tensors: C expressions of where each tensor begins, the result's last.
        pointers: Names for where a run begins in each.
        body: Returns the statements of one run.
    """
    lines = []
    for nest in found:
        if nest.axes:
            lines += _visited(nest, "j", tensors, pointers, body)
        else:
            lines += [line for run in nest.runs for line in body(run, [added(*place) for place in zip(tensors, run.starts, strict=True)])]
    return lines


def _visited(nest: Nest, index: str, tensors: Sequence[str], pointers: Sequence[str], body: Body, first: int = 0) -> list[str]:
    """Return the loops of a nest from the one that is numbered ``first`` on, and its runs in them."""
    written = [len(tensors) - 1] if all(run.fills for run in nest.runs) else range(len(tensors))
    lines = [_pointer(nest, index, tensors[k], pointers[k], k) for k in written]
    for run in nest.runs:
        lines += body(run, [added(name, run.starts[k] - nest.runs[0].starts[k]) for k, name in enumerate(pointers)])
    for number in reversed(range(first, len(nest.axes))):
        lines = repeated(f"{index}{number}", nest.axes[number].size, lines)
    return lines


def _index(sizes: Sequence[int], number: int) -> str:
    """Return the index of one of the loops that are joined to ``t``."""
    behind = math.prod(sizes[number + 1 :])
    quotient = "t" if behind == 1 else f"t / {behind}"
    return quotient if number == 0 else f"{quotient} % {sizes[number]}"


def _pointer(nest: Nest, index: str, tensor: str, pointer: str, number: int) -> str:
    """Return the declaration of the pointer to where the first run begins in a tensor."""
    moves = [times(f"{index}{loop}", axis.steps[number]) for loop, axis in enumerate(nest.axes) if axis.steps[number] and axis.size > 1]
    place = added(tensor, nest.runs[0].starts[number], *moves)
    return f"{'' if tensor.startswith(RESULTS) else 'const '}float *{pointer} = {place};"


def times(index: str, step: int) -> str:
    """Return the C expression of a product."""
    factor = f"({index})" if " " in index else index
    return index if step == 1 else f"{factor} * {step}"


def added(*terms: str | int) -> str:
    """Return the C expression of a sum, without terms that are 0."""
    return " + ".join(str(term) for term in terms if term != 0).replace("+ -", "- ") or "0"


def repeated(index: str, size: int, lines: Sequence[str]) -> list[str]:
    """Return a loop; of a single turn, in which ``index`` must not occur, only what is in it."""
    return block(f"for (long {index} = 0; {index} < {size}; ++{index})", lines) if size > 1 else [*lines]


def element(place: str, step: int, index: str = "i") -> str:
    """Return the C expression of an element of a run.

    Args:
        place: Where the run begins.
        step: Floats between neighbours.
        index: The element.
    """
    base = f"({place})" if " " in place else place
    return f"{base}[{times(index, step)}]" if step and index != "0" else f"{base}[0]"
