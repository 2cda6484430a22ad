"""Engines that run a network on the CPU: one file each, ours among them. A new engine is one file and one line here."""

import difflib
from collections.abc import Sequence

from espalier.frames.engines.engine import TOLERANCES, Engine, Native, Precision, Run, Unable
from espalier.frames.engines.mnn import Mnn
from espalier.frames.engines.onnxruntime import OnnxRuntime
from espalier.frames.engines.openvino import OpenVino
from espalier.frames.engines.ours import Ours
from espalier.frames.engines.pytorch_eager import PyTorchEager
from espalier.frames.engines.torch_compile import TorchCompile

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        PyTorchEager(),
        TorchCompile(),
        OnnxRuntime(),
        OpenVino(),
        OpenVino(default_precision=True),
        Mnn(),
        Ours(dense=True),
        Ours(dense=False),
    )
}


def named(names: Sequence[str] | None = None) -> list[Engine]:
    """Return the engines of those names; None gives all.

    Raises:
        ValueError: There is no such engine, the message lists close names; or one is named twice.
    """
    chosen = list(ENGINES) if names is None else list(names)
    for name in chosen:
        if name not in ENGINES:
            near = difflib.get_close_matches(name, ENGINES, n=3, cutoff=0.3) or list(ENGINES)
            raise ValueError(f"engines={name} is not known; nearest: {', '.join(near)}.")
        if chosen.count(name) > 1:
            raise ValueError(f"engines={','.join(chosen)} names {name} twice; name it once.")
    return [ENGINES[name] for name in chosen]


__all__ = ["ENGINES", "TOLERANCES", "Engine", "Native", "Ours", "Precision", "Run", "Unable", "named"]
