"""``torch.compile`` with its default back end, inductor, and weights frozen into the code."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from espalier.frames.cpu import threads
from espalier.frames.engines.engine import Precision, Run, installed


class TorchCompile:
    """Inductor for one fixed shape; freezing folds batch norm and packs weights.

    Args:
        max_autotune: Also try several matrix products a layer, which takes minutes a network.
    """

    name = "torch-compile"
    precision: Precision = "fp32"

    def __init__(self, *, max_autotune: bool = False) -> None:
        self.max_autotune = max_autotune

    def version(self) -> str | None:
        return installed("torch")

    def missing(self) -> str | None:
        compiler = os.environ.get("CXX", "g++")
        return None if shutil.which(compiler) else f"no C++ compiler '{compiler}', which inductor needs; install g++ or set CXX"

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        options: dict[str, str | int | bool | Callable[..., Any]] = {"freezing": True, "max_autotune": self.max_autotune}
        compiled = torch.compile(model, fullgraph=True, dynamic=False, options=options)

        @torch.inference_mode()
        def run(x: Tensor) -> Tensor:
            output: Tensor = compiled(x)
            return output

        with threads(num_threads):  # the number is written into the code
            run(example)
        return run
