"""Our own compiler: sparse code for a pruned network, and dense code of the same generator for the same network."""

from contextlib import nullcontext
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from espalier.frames.engines.engine import Precision, Run, installed
from espalier.frames.machine import machine_lock

COMPILER = "espalier.compiler"


class Ours:
    """Compiled C.

    Args:
        dense: Treat every weight as dense, the zeros that pruning left included.
        tune: Search for the fastest code, with the machine to itself.
        fallback: ``torch`` leaves operators that the compiler lacks to PyTorch; None refuses networks with any.
    """

    precision: Precision = "fp32"

    def __init__(self, *, dense: bool, tune: bool = False, fallback: str | None = None) -> None:
        self.dense, self.tune, self.fallback = dense, tune, fallback
        self.name = "espalier-dense" if dense else "espalier-sparse"

    def version(self) -> str | None:
        return installed("espalier")

    def missing(self) -> str | None:
        return None if _compile_model() is not None else f"this espalier has no compile_model in {COMPILER} yet"

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        asked = {"tune": self.tune, "fallback": self.fallback}
        given = {name: value for name, value in asked.items() if value}
        with machine_lock() if self.tune else nullcontext():
            compiled: Run = _compile_model()(model, example, num_threads=num_threads, dense=self.dense, **given)
        return compiled


def _compile_model() -> Any:
    return getattr(import_module(COMPILER), "compile_model", None)
