"""``espalier export``: a compiled network as C that builds and runs without Python."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from espalier.compiler.compiling import CompiledNetwork
from espalier.compiler.runtime.emitted import HEADER, WEIGHTS, Info, emitted_info
from espalier.compiler.runtime.exporting import Origin, Reference, write_standalone
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.weights import read_weights
from espalier.inventory import find
from espalier.native import compile  # noqa: A004
from espalier.packing import content_digest
from espalier.record import Store
from espalier.subjects import run_subject
from espalier.words import sizes

SEED = 0  # of the sample by which every build is checked


def export_c(source: str | Path | CompiledNetwork, out: str | Path, *, shape: Sequence[int] | str | None = None) -> Path:
    """Write a network as a folder that builds with ``make`` and prints a measurement's record; return the folder.

    Its program first checks the outputs for a stored sample, here those of the network as this machine compiles it.

    Args:
        source: A run, a packed checkpoint's file, a folder of emitted C, or what ``compile`` returned.
        out: Folder to write; new, or empty.
        shape: Of one sample, such as ``3x32x32``, for a checkpoint's file; a run knows its own.

    Raises:
        ValueError: There is no such source or it is damaged, a file comes without the shape of its input, this machine cannot compile
            or run it, or ``out`` holds something.
        OSError: The folder cannot be written, or the disk is full.
    """
    if isinstance(source, CompiledNetwork):
        with tempfile.TemporaryDirectory() as place:
            source.write(Path(place))
            return _written(Path(place), Path(out), None)
    given = sizes(shape, "input", "3x32x32") if isinstance(shape, str) else shape
    if (Path(source) / HEADER).is_file():
        return _written(Path(source), Path(out), None)
    with tempfile.TemporaryDirectory() as place:
        subject = run_subject(str(source), shape=given)
        with compile(subject.model, subject.inputs[0]) as compiled:
            compiled.write(Path(place))
        return _written(Path(place), Path(out), _checkpoint(str(source)))


def _written(folder: Path, out: Path, checkpoint: str | None) -> Path:
    info, blob = emitted_info(folder), read_weights(folder / WEIGHTS)
    origin = Origin(
        checkpoint=checkpoint or str(info.facts.get("checkpoint") or hashlib.sha256(blob.tobytes()).hexdigest()),
        weights="trained" if checkpoint or info.facts.get("weights") == "trained" else "random",
    )
    return write_standalone(out, folder, blob, origin, _reference(folder, info))


def _reference(folder: Path, info: Info) -> Reference:
    generator = torch.Generator().manual_seed(SEED)
    inputs = [torch.randn(port.shape, generator=generator).numpy() for port in info.inputs]
    with CompiledModel.from_folder(folder) as model:
        outputs = model(*inputs)
    return Reference(inputs, list(outputs) if isinstance(outputs, tuple) else [outputs])


def _checkpoint(source: str) -> str | None:
    """Return the digest of a run's or a file's weights."""
    return content_digest(Path(source)) if Path(source).is_file() else find(source, Store()).checkpoint
