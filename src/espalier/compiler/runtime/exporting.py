"""A compiled network as a folder that builds with ``make`` and runs without Python.

It holds the emitted C, the runtime, ``weights.bin``, ``reference.bin`` (inputs, then the outputs they should give), a ``Makefile`` and a
``main.c`` that checks the outputs, times the network and prints a measurement's record.
"""

import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from espalier.compiler.runtime.building import HERE, PROGRAM, SHIPPED, emitted_texts
from espalier.compiler.runtime.emitted import HEADER, WEIGHTS, Info, info_of
from espalier.compiler.runtime.toolchain import FLAGS, SANITIZERS, known_isa
from espalier.compiler.runtime.weights import Blob, write_weights

DENSE, SPARSE = "espalier-dense", "espalier-sparse"  # what records call our code: zeros computed with, and left out
REFERENCE, MAKEFILE, FACTS = "reference.bin", "Makefile", "espalier_facts.h"
_PLAIN = re.compile(r"[A-Za-z0-9._+ -]+")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Origin:
    """Where a compiled network came from, as its measurement's record says it.

    Args:
        checkpoint: Digest of the packed weights.
        weights: Whether they were trained.
        engine: What the record calls this code.
    """

    checkpoint: str
    weights: Literal["trained", "random", "unknown"] = "trained"
    engine: str = SPARSE


@dataclass(frozen=True)
class Reference:
    """A sample and what the network gives for it, by which every build is checked."""

    inputs: Sequence[Floats]
    outputs: Sequence[Floats]


def write_standalone(out: Path, sources: Mapping[str, str] | Path, blob: Blob, origin: Origin, reference: Reference) -> Path:
    """Write the folder, all or nothing; return it.

    Args:
        out: The folder; it must not exist, or be empty.
        sources: Emitted C: file name -> text, or a folder of it.
        blob: Its weights.
        origin: Where it came from.
        reference: A sample and its outputs.

    Raises:
        ValueError: The folder holds something, the sources are no network's, or the sample does not fit it.
        OSError: The folder cannot be written, or the disk is full; nothing is left behind.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder; name another one, or empty it.")
    emitted = emitted_texts(sources)
    info = info_of(emitted[HEADER], str(out))
    known_isa(info.isa)
    _check_reference(reference, info)
    texts = {name: (HERE / name).read_text(encoding="utf-8") for name in (*SHIPPED, *PROGRAM)} | emitted
    texts |= {MAKEFILE: _makefile(info), FACTS: _facts(origin, info)}
    making = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}")
    try:
        making.mkdir(parents=True)
        for name, text in texts.items():
            (making / name).write_text(text, encoding="utf-8")
        write_weights(making / WEIGHTS, blob)
        arrays = [*reference.inputs, *reference.outputs]
        (making / REFERENCE).write_bytes(b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays))
        making.replace(out)
    except OSError as error:
        raise OSError(
            f"cannot write {out}: {error.strerror or error}; nothing was left behind. Name one with room that can be written."
        ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return out


def _check_reference(reference: Reference, info: Info) -> None:
    for side, arrays, ports in (("inputs", reference.inputs, info.inputs), ("outputs", reference.outputs, info.outputs)):
        found, wanted = [tuple(array.shape) for array in arrays], [port.shape for port in ports]
        if found != wanted:
            raise ValueError(f"the reference's {side} have shapes {found}, the network's {wanted}.")


def _makefile(info: Info) -> str:
    flags = " ".join([*FLAGS, *known_isa(info.isa).gcc])
    return (HERE / "exported.mk").read_text(encoding="utf-8").replace("@FLAGS@", flags).replace("@SANITIZERS@", " ".join(SANITIZERS))


def _facts(origin: Origin, info: Info) -> str:
    """Return the header with what the record says of the network; nothing but plain words enters C."""
    facts = {
        "ES_CHECKPOINT": origin.checkpoint,
        "ES_WEIGHTS_KIND": origin.weights,
        "ES_ENGINE": origin.engine,
        "ES_VERSION": version("espalier"),
    }
    if wrong := [value for value in facts.values() if not _PLAIN.fullmatch(value)]:
        raise ValueError(f"{', '.join(map(repr, wrong))} cannot stand in a record: letters, digits, spaces and . _ + - only.")
    lines = [f'#define {name} "{value}"' for name, value in facts.items()]
    return "\n".join(
        ["/* What the record says of the network. */", *lines, f"#define ES_BATCH_SIZE {(info.inputs[0].shape or (1,))[0]}", ""]
    )
