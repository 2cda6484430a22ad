"""What a library of kernels is put together from: their C functions and the blob of their constants."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from espalier.compiler.lowering.kernel import NAME, Kernel

ALIGNED = 64  # bytes: each array of the blob begins at a multiple
SMALL = 1 << 16  # bytes of an array from which on it is not compared with others
HEADERS = """#include <stdint.h>
#include <string.h>

#include "espalier_isa.h"
#include "espalier_runtime.h"
#include "network.h"

"""
C_TYPES = {"float32": "float", "int32": "int32_t"}


@dataclass
class Blob:
    """Constants one after the other; small arrays that are equal, and large ones that are the same object, are stored once."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    known: dict[tuple[str, bytes | int], tuple[int, np.ndarray]] = field(default_factory=dict)

    def add(self, array: np.ndarray) -> int:
        """Return the first byte of the array, which is appended where it is new."""
        key = (array.dtype.str, array.tobytes() if array.nbytes < SMALL else id(array))
        if key not in self.known:
            self.known[key] = self.size, array  # held, so that no other array takes its id
            raw = array.tobytes()
            padded = raw + bytes(-len(raw) % ALIGNED) or bytes(ALIGNED)
            self.parts.append(padded)
            self.size += len(padded)
        return self.known[key][0]

    def pointer(self, array: np.ndarray) -> str:
        """Return the C expression of the array's address."""
        return f"(const {c_type(array)} *)(c->weights + {self.add(array)})"

    def bytes(self) -> bytes:
        """Return all of it."""
        return b"".join(self.parts)


@dataclass
class Parts:
    """Functions and constants of some kernels; those of equal C text share one function.

    Args:
        blob: Their constants.
        names: C text -> name of its function.
        prototypes: Of all functions.
    """

    blob: Blob = field(default_factory=Blob)
    names: dict[str, str] = field(default_factory=dict)
    prototypes: list[str] = field(default_factory=list)

    def call(self, kernel: Kernel, inputs: Sequence[str], result: str) -> str:
        """Return the statement that calls a kernel, for expressions of its inputs and its result; what it needs joins where it is new."""
        arrays = kernel.arrays.values()
        if kernel.source not in self.names:
            name = self.names[kernel.source] = f"es_k{len(self.names)}"
            taken = [*(f"const float *x{number}" for number in range(len(inputs))), "float *y"]
            taken += [f"const {c_type(array)} *" for array in arrays]
            self.prototypes.append(f"void {name}(const struct es_context *c, int tid, {', '.join(taken)});")
        given = ", ".join([*inputs, result, *map(self.blob.pointer, arrays)])
        return f"{self.names[kernel.source]}(c, tid, {given});"

    def files(self, most: int | None = None) -> dict[str, str]:
        """Return file name -> text of all functions: a file each, or as many files as ``most`` allows."""
        bodies = [source.replace(NAME, name) for source, name in self.names.items()]
        count = min(len(bodies), most or len(bodies))
        return {f"kernel_{number}.c": HEADERS + "\n".join(bodies[number::count]) for number in range(count)}


def c_type(array: np.ndarray) -> str:
    """Return the type of an array's numbers in C."""
    return C_TYPES[str(array.dtype)]
