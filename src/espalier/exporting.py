"""``espalier export``: a compiled network as C that builds and runs without Python."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.utils._pytree import tree_leaves

from espalier.compiler.compiling import CompiledNetwork
from espalier.compiler.hybrid import HybridNetwork
from espalier.compiler.reference import evaluate
from espalier.compiler.runtime.emitted import HEADER, WEIGHTS, emitted_info
from espalier.compiler.runtime.exporting import SPARSE, Origin, Reference, write_standalone
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.weights import read_weights
from espalier.compiler.tuning import BUDGET_S
from espalier.frames.contending import relative_error
from espalier.frames.engines import TOLERANCES
from espalier.inventory import find
from espalier.native import compile  # noqa: A004
from espalier.packing import content_digest
from espalier.record import Store, Weights
from espalier.subjects import run_subject
from espalier.words import sizes

SEED = 0  # of the sample by which every build is checked
IDLE = "what tuning is for, and nothing is tuned: tune too (--tune), or leave it out."

Outputs = Callable[..., Sequence[Tensor]]  # of a network, for its inputs


def export_c(
    source: str | Path | CompiledNetwork,
    out: str | Path,
    *,
    shape: Sequence[int] | str | None = None,
    tune: bool = False,
    num_threads: int | None = None,
    tune_budget_s: float | None = None,
    console: Console | None = None,
) -> Path:
    """Write a network as a folder that builds with ``make`` and prints a measurement's record; return the folder.

    Its program first checks the outputs for a stored sample. Those of a run or a packed file are PyTorch's, those of a compiled network
    what PyTorch gives for its graph as it was read; before anything is written, this machine's build is held against them too. A bare
    folder of C has no model that could be asked: its stored outputs are those of the library itself as this machine compiles it, so they
    tell one build from another, and not right from wrong.

    Args:
        source: A run, a packed checkpoint's file, a folder of emitted C, or what ``compile`` returned.
        out: Folder to write; new, or empty.
        shape: Of one sample, such as ``3x32x32``, for a checkpoint's file; a run knows its own, and nothing else takes one.
        tune: Take the fastest kernels that tuning found on this machine, or finds now; a run or a file alone can be tuned here. Records of
            what is tuned say so; so do those of what ``compile`` tuned.
        num_threads: Threads that it is tuned for; None takes 1. What is exported runs with any number.
        tune_budget_s: Seconds after which the layers that are left keep the rule's kernels; None takes as many as ``compile`` does.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: There is no such source or it is damaged, a file comes without the shape of its input, a part of the network runs in
            PyTorch, this machine cannot compile or run it, outputs are wrong, ``out`` holds something, threads or a budget come without
            tuning, threads are below 1 or exceed the cores, or what is already compiled shall be tuned.
        OSError: The folder cannot be written, or the disk is full.
    """
    if isinstance(source, HybridNetwork):
        raise ValueError(f"a hybrid cannot be exported ({source.hybrid}): its C would not be all of it; replace the operators in PyTorch.")
    if not isinstance(source, str | Path | CompiledNetwork):
        raise ValueError(f"export_c takes a run, a file, a folder, or what espalier.compile gives, not {type(source).__name__}.")
    given = sizes(shape, "--input", "3x32x32") if isinstance(shape, str) else shape
    is_folder = not isinstance(source, CompiledNetwork) and (Path(source) / HEADER).is_file()
    if given is not None and (is_folder or isinstance(source, CompiledNetwork)):
        raise ValueError(f"{source}: its C was made for one shape; leave the shape (--input {'x'.join(map(str, given))}) out.")
    if tune and (is_folder or isinstance(source, CompiledNetwork)):
        raise ValueError(f"{source}: its kernels are chosen; tune what is compiled from a model, espalier.compile(..., tune=True).")
    if not tune and num_threads is not None:
        raise ValueError(f"num_threads={num_threads} (--threads) is {IDLE}")
    if not tune and tune_budget_s is not None:
        raise ValueError(f"tune_budget_s={tune_budget_s} is {IDLE}")
    if is_folder:
        return _written(Path(source), Path(out), None, None, None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if isinstance(source, CompiledNetwork):
            source.write(folder)
            return _written(folder, Path(out), None, None, lambda *inputs: evaluate(source.graph, *inputs), tuned=source.tuned)
        subject = run_subject(str(source), shape=given, word="--input")
        with compile(
            subject.model,
            subject.inputs[0],
            num_threads=1 if num_threads is None else num_threads,
            tune=tune,
            tune_budget_s=BUDGET_S if tune_budget_s is None else tune_budget_s,
            console=console,
        ) as compiled:
            compiled.write(folder)

        @torch.inference_mode()
        def outputs(*inputs: Tensor) -> Sequence[Tensor]:
            return tree_leaves(subject.model(*inputs))

        weights: Weights = "trained" if subject.weights == "trained" else "unknown"
        return _written(folder, Path(out), _checkpoint(str(source)), weights, outputs, tuned=compiled.tuned)


def _written(
    folder: Path, out: Path, checkpoint: str | None, weights: Weights | None, wanted: Outputs | None, *, tuned: bool = False
) -> Path:
    """Write a folder of emitted C as one that stands alone.

    Args:
        folder: The emitted C.
        out: Folder to write.
        checkpoint: Digest of the packed weights; None takes what the C says, else the digest of its own.
        weights: Whether they are trained; None takes what the C says.
        wanted: The right outputs for inputs; None takes the library's own.
        tuned: Whether a search had a say in its kernels.
    """
    info, blob = emitted_info(folder), read_weights(folder / WEIGHTS)
    said = info.facts.get("weights")
    origin = Origin(
        checkpoint=checkpoint or str(info.facts.get("checkpoint") or hashlib.sha256(blob.tobytes()).hexdigest()),
        weights=weights or (said if said in ("trained", "random") else "unknown"),
        engine=f"{SPARSE} tuned" if tuned else SPARSE,
    )
    generator = torch.Generator().manual_seed(SEED)
    inputs = [torch.randn(port.shape, generator=generator) for port in info.inputs]
    with CompiledModel.from_folder(folder) as model:
        given = model(*inputs)
    outputs = list(given) if isinstance(given, tuple) else [given]
    right = outputs if wanted is None else list(wanted(*inputs))
    error = max(relative_error(found, one) for found, one in zip(outputs, right, strict=True))
    if not error <= TOLERANCES["fp32"]:
        raise ValueError(f"the native code differs from PyTorch by {error:.1e} of the largest output: it is not exported.")
    return write_standalone(out, folder, blob, origin, Reference([x.numpy() for x in inputs], [one.numpy() for one in right]))


def _checkpoint(source: str) -> str | None:
    """Return the digest of a run's or a file's weights."""
    return content_digest(Path(source)) if Path(source).is_file() else find(source, Store()).checkpoint
