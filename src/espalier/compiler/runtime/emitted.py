"""The folder of one compiled network, and what its code says of itself.

Beside the runtime's files it holds ``network.h``, ``network.c``, ``kernel_<n>.c`` and ``weights.bin``. ``ES_INFO``, a C string in
``network.h``, is JSON: ``isa``, ``inputs`` and ``outputs`` (a shape each, or ``name`` and ``shape``), and whatever else is
worth knowing.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER, WEIGHTS = "network.h", "weights.bin"
_INFO = re.compile(r'^\s*#define\s+ES_INFO\s+("(?:[^"\\]|\\.)*")\s*$', re.MULTILINE)


@dataclass(frozen=True)
class Port:
    """An input or output: its name, and its shape with the batch."""

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True)
class Info:
    """What a compiled network says of itself.

    Args:
        isa: Instruction set.
        inputs: What it takes, in order.
        outputs: What it gives, in order.
        facts: All of it.
    """

    isa: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Info":
        """Return what ``ES_INFO`` says; raises ``KeyError`` or ``TypeError`` where it lacks a part."""
        return cls(str(facts["isa"]), _ports(facts["inputs"], "input"), _ports(facts["outputs"], "output"), facts)


def _ports(facts: Sequence[Any], side: str) -> tuple[Port, ...]:
    """Return ports from names and shapes, or from bare shapes, which are numbered."""
    named = [fact if isinstance(fact, Mapping) else {"name": f"{side}{number}", "shape": fact} for number, fact in enumerate(facts)]
    return tuple(Port(str(port["name"]), tuple(map(int, port["shape"]))) for port in named)


def network_header(
    info: Mapping[str, Any], *, arena_floats: int, scratch_floats: int = 0, weights_bytes: int = 0, prototypes: Sequence[str] = ()
) -> str:
    """Return the text of ``network.h``.

    Args:
        info: What the network says of itself; its inputs and outputs are bare shapes.
        arena_floats: Size of the arena.
        scratch_floats: What each thread needs beside it.
        weights_bytes: Size of the blob.
        prototypes: Of the kernels' functions.
    """
    sizes = {side: [math.prod(shape) for shape in info[side]] for side in ("inputs", "outputs")}
    lines = [
        "#ifndef ESPALIER_NETWORK_H",
        "#define ESPALIER_NETWORK_H",
        "",
        '#include "espalier_runtime.h"',
        "",
        f"#define ES_NUM_INPUTS {len(sizes['inputs'])}",
        f"#define ES_NUM_OUTPUTS {len(sizes['outputs'])}",
        f"#define ES_INPUT_FLOATS {{{', '.join(map(str, sizes['inputs']))}}}",
        f"#define ES_OUTPUT_FLOATS {{{', '.join(map(str, sizes['outputs']))}}}",
        f"#define ES_ARENA_FLOATS {arena_floats}",
        f"#define ES_SCRATCH_FLOATS {scratch_floats}",
        f"#define ES_WEIGHTS_FLOATS {weights_bytes // 4}",
        f"#define ES_INFO {json.dumps(json.dumps(info))}",
        "",
        *prototypes,
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def emitted_info(folder: Path) -> Info:
    """Return what the emitted C in ``folder`` says of its network, without compiling it; raises as ``info_of`` does."""
    path = folder / HEADER
    return info_of(path.read_text(encoding="utf-8") if path.exists() else "", str(folder))


def info_of(header: str, where: str) -> Info:
    """Return what a ``network.h`` says of its network.

    Raises:
        ValueError: It is none; the message says ``where`` it was sought.
    """
    try:
        found = _INFO.search(header)
        return Info.of(json.loads(json.loads(found[1] if found else "")))  # a C string of plain characters is a JSON string
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} holds no emitted C: {HEADER} with a line '#define ES_INFO \"{{...}}\"' is missing there.") from error
