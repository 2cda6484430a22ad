"""Builds kernels into one library, runs them as a team of threads would, and compares them with PyTorch.

Every buffer lies between guards. What a kernel must not read is NaN, what it must not write is checked bit by bit: guards, borders, inputs.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import espalier.compiler
from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import ISAS, Isa
from espalier.compiler.layouts import Layout
from espalier.compiler.lowering import LOWERINGS, is_depthwise, lower_depthwise
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.places import access
from espalier.devices import cpu

RUNTIME = Path(espalier.compiler.__file__).parent / "runtime"
SANITIZED = "ESPALIER_SANITIZED" in os.environ  # set by the test that runs all of them again under ASan and UBSan
FLAGS = ("-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
HEADERS = '#include "espalier_isa.h"\n#include "espalier_runtime.h"\n'
GUARD = 0 if SANITIZED else 64  # floats before and behind each buffer; ASan has guards of its own
ALIGNMENT = 16  # floats
UNTOUCHED = np.float32(np.nan)
TOLERANCE = 1e-5
TEAMS = (1, 3)
RUNNABLE = [isa for isa in ISAS.values() if set(isa.flags) <= set(cpu().flags)]

Test = Callable[..., None]


def few(cases: st.SearchStrategy["Case"]) -> Callable[[Test], Test]:
    """Run a test for each instruction set with some batches of cases."""
    return _drawn(cases, 16, 2)


def many(cases: st.SearchStrategy["Case"]) -> Callable[[Test], Test]:
    """Run a test for each instruction set with many batches of cases; slow."""
    return lambda test: pytest.mark.slow(_drawn(cases, 40, 10)(test))


def _drawn(cases: st.SearchStrategy["Case"], size: int, num_batches: int) -> Callable[[Test], Test]:
    """Run a test with batches of that size, each of which takes one call of the C compiler; nothing is shrunk, for that takes hundreds."""
    once = settings(max_examples=num_batches, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
    by_isa = pytest.mark.parametrize("isa", RUNNABLE, ids=lambda isa: isa.name)
    return lambda test: by_isa(given(cases=st.lists(cases, min_size=size, max_size=size))(once(test)))


class Context(ctypes.Structure):
    """``struct es_context``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("arena", "weights", "inputs", "outputs", "team")),
        ("threads", ctypes.c_int),
        ("scratch", ctypes.c_void_p),
        ("scratch_floats", ctypes.c_int64),
    )


@dataclass(frozen=True, repr=False)
class Case:
    """One operator.

    Args:
        op: A key of ``LOWERINGS``.
        attributes: Of the node.
        inputs: Its operands.
        layouts: Theirs.
        output: Layout of the result.
        wanted: The result.
        constants: Role -> constant.
        zero_border: Whether the borders of the inputs are zeros that may be read, as of a convolution's; else they are NaN.
        lower: Returns its kernel; None takes that of ``LOWERINGS``.
        tolerance: Largest difference, relative to the largest result, or sum before an activation that cuts it.
        largest: That sum; 0 where there is none.
        fills: Whether the channels that fill the last line of a map must be zero; F leaves whatever its last vector has there, or nothing.
    """

    op: str
    attributes: Mapping[str, object]
    inputs: tuple[Tensor, ...]
    layouts: tuple[Layout, ...]
    output: Layout
    wanted: Tensor
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    zero_border: bool = False
    lower: Callable[..., Kernel] | None = None
    tolerance: float = TOLERANCE
    largest: float = 0.0
    fills: bool = True

    def kernel(self, isa: Isa) -> Kernel:
        """Return the kernel of the operator."""
        sources = [Node(f"x{k}", "input", (), tuple(x.shape), {"index": k}) for k, x in enumerate(self.inputs)]
        constants = dict(self.constants)
        names = () if self.op == "input" else tuple(source.name for source in sources)
        node = Node("y", self.op, names, tuple(self.wanted.shape), dict(self.attributes), {role: role for role in constants})
        graph = Graph((*sources, node), ("y",), constants)
        lower = self.lower or (lower_depthwise if is_depthwise(node, graph) else LOWERINGS[self.op])
        return lower(node, self.layouts, self.output, isa, graph)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{tuple(x.shape)} {layout}" for x, layout in zip(self.inputs, self.layouts, strict=True))
        return f"{self.op} {dict(self.attributes)} of {inputs} -> {tuple(self.wanted.shape)} {self.output}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print it in few words where hypothesis prints a batch; the message of a failure says which it was."""
        printer.text(self.op)


def check(cases: Sequence[Case], isa: Isa, folder: Path) -> None:
    """Build the cases, run each with one thread and with three, and compare."""
    kernels = [case.kernel(isa) for case in cases]
    library = build([kernel.source for kernel in kernels], isa, folder)
    for number, (case, kernel) in enumerate(zip(cases, kernels, strict=True)):
        for threads in TEAMS:
            compare(case, kernel, getattr(library, f"es_k{number}"), threads, isa)


def build(sources: Sequence[str], isa: Isa, folder: Path) -> ctypes.CDLL:
    """Return the library of these functions, ``es_k0`` and on; warnings are errors."""
    text = HEADERS + "\n".join(source.replace(NAME, f"es_k{number}") for number, source in enumerate(sources))
    source, library = folder / "kernels.c", folder / "kernels.so"
    source.write_text(text)
    optimised = SANITIZERS if SANITIZED else ("-O1",)
    words = ["gcc", *FLAGS, *optimised, *isa.gcc, f"-I{RUNTIME}", str(source), "-o", str(library), "-lm"]
    bare = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # ASan is for the kernels, not for gcc
    done = subprocess.run(words, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def compare(case: Case, kernel: Kernel, function: Callable[..., None], threads: int, isa: Isa) -> None:
    """Run one kernel and compare its result, and all around it, with what must be there."""
    told = f"{case} on {isa.name} by {threads}\n{kernel.source}"
    given = [held(x, layout, zero_border=case.zero_border) for x, layout in zip(case.inputs, case.layouts, strict=True)]
    arrays = [guarded(array.reshape(-1)) for array in kernel.arrays.values()]
    result = guarded(np.full(case.output.floats, UNTOUCHED, np.float32))
    before = [buffer.copy() for buffer in (*given, *arrays)]
    pointers = [pointer(buffer) for buffer in (*given, result, *arrays)]
    scratch = guarded(np.full(threads * kernel.scratch_floats, UNTOUCHED, np.float32))
    context = Context(threads=threads, scratch=pointer(scratch), scratch_floats=kernel.scratch_floats)
    for tid in range(threads):
        function(ctypes.byref(context), ctypes.c_int(tid), *pointers)
    for buffer, old in zip((*given, *arrays), before, strict=True):
        assert np.array_equal(buffer, old, equal_nan=True), f"an operand changed: {told}"
    wanted, written, untouched = expected(case)
    assert np.isnan(inside(result)[untouched]).all(), f"written beside the result: {told}"
    for buffer in (result, scratch):
        assert np.isnan(np.r_[buffer[:GUARD], buffer[len(buffer) - GUARD :]]).all(), f"written outside the buffer: {told}"
    got, wanted = inside(result)[written], wanted[written]
    compared = np.isfinite(wanted)
    assert np.array_equal(got[~compared], wanted[~compared], equal_nan=True), f"other NaN or infinities: {told}"
    got, wanted = got[compared], wanted[compared]
    assert np.isfinite(got).all(), f"NaN or infinities of its own: {told}"
    difference = got - wanted
    error = np.abs(difference).max(initial=0)
    assert error <= case.tolerance * max(1.0, case.largest, np.abs(wanted).max(initial=0)), f"differs by {error}: {told}"


def held(x: Tensor, layout: Layout, *, zero_border: bool) -> np.ndarray:
    """Return a guarded buffer with the tensor inside."""
    values = np.full(layout.floats, 0.0 if zero_border else np.nan, np.float32)
    place(x, layout, values)
    return guarded(values)


def expected(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the result's buffer, where it must be so, and where nothing may be written.

    What fills the last line of a map must be zeros where ``fills`` says so, else it may be anything.
    """
    values, written = np.full(case.output.floats, UNTOUCHED, np.float32), np.zeros(case.output.floats, bool)
    place(case.wanted, case.output, values)
    tensor = access(case.output, tuple(case.wanted.shape))
    written[tensor.places()] = True
    untouched = ~written
    if tensor.fill is not None:
        filling = tensor.filling().places()
        untouched[filling], written[filling] = False, case.fills
    return values, written, untouched


def place(x: Tensor, layout: Layout, values: np.ndarray) -> None:
    """Put a tensor into a buffer, and zeros into the channels that fill a map's last line."""
    tensor = access(layout, tuple(x.shape))
    values[tensor.places()] = x.numpy()
    if tensor.fill is not None:
        values[tensor.filling().places()] = 0


def guarded(values: np.ndarray) -> np.ndarray:
    """Return the values between guards, aligned to 64 bytes where there are guards."""
    around = np.nan if values.dtype == np.float32 else 2**30
    whole = np.full(len(values) + 2 * GUARD + (ALIGNMENT if GUARD else 0), around, values.dtype)
    shift = -whole.ctypes.data // 4 % ALIGNMENT if GUARD else 0
    buffer = whole[shift : shift + len(values) + 2 * GUARD]
    buffer[GUARD : GUARD + len(values)] = values
    return buffer


def inside(buffer: np.ndarray) -> np.ndarray:
    """Return what lies between the guards."""
    return buffer[GUARD : len(buffer) - GUARD]


def pointer(buffer: np.ndarray) -> ctypes.c_void_p:
    """Return the address of what lies between the guards."""
    return ctypes.c_void_p(inside(buffer).ctypes.data)
