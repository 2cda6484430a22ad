"""``espalier export``: a compiled network as C that builds and runs without Python."""

import hashlib
from pathlib import Path

import torch

from espalier.compiler.runtime.emitted import HEADER, WEIGHTS, Info, emitted_info
from espalier.compiler.runtime.exporting import Origin, Reference, write_standalone
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.weights import read_weights

SEED = 0  # of the sample by which every build is checked


def export_c(source: str | Path, out: str | Path) -> Path:
    """Write a compiled network as a folder that builds with ``make`` and prints a measurement's record; return the folder.

    Its program first checks the outputs for a stored sample, here those of the network as this machine compiles it.

    Args:
        source: A folder of emitted C.
        out: Folder to write; new, or empty.

    Raises:
        ValueError: The source is no emitted C or its weights are damaged, this machine cannot compile or run it, or ``out`` holds
            something.
        OSError: The folder cannot be written, or the disk is full.
    """
    folder = Path(source)
    if not (folder / HEADER).is_file():
        raise ValueError(f"{folder} is no folder of emitted C: it lacks {HEADER}. Compile the network into a folder first.")
    info, blob = emitted_info(folder), read_weights(folder / WEIGHTS)
    origin = Origin(
        checkpoint=str(info.facts.get("checkpoint") or hashlib.sha256(blob.tobytes()).hexdigest()),
        weights="trained" if info.facts.get("weights") == "trained" else "random",
    )
    return write_standalone(Path(out), folder, blob, origin, _reference(folder, info))


def _reference(folder: Path, info: Info) -> Reference:
    generator = torch.Generator().manual_seed(SEED)
    inputs = [torch.randn(port.shape, generator=generator).numpy() for port in info.inputs]
    with CompiledModel.from_folder(folder) as model:
        outputs = model(*inputs)
    return Reference(inputs, list(outputs) if isinstance(outputs, tuple) else [outputs])
