"""Our own compiler: sparse code for a pruned network, and dense code of the same generator for the same network."""

from contextlib import nullcontext

from torch import Tensor, nn

from espalier import compiler
from espalier.compiler.runtime.exporting import DENSE, SPARSE
from espalier.constraints.assignment import Assignment
from espalier.frames.engines.engine import Precision, Run, Unable, installed
from espalier.frames.machine import machine_lock


class Ours:
    """Compiled C.

    Args:
        dense: Treat every weight as dense, the zeros that pruning left included.
        tune: Search for the fastest code, with the machine to itself.
        fallback: ``torch`` leaves operators that the compiler lacks to PyTorch; None refuses networks with any.
        frozen: The sets that the weights lie in; None takes masks from the zeros of a network that has none.
    """

    precision: Precision = "fp32"

    def __init__(self, *, dense: bool, tune: bool = False, fallback: str | None = None, frozen: Assignment | None = None) -> None:
        self.dense, self.tune, self.fallback, self.frozen = dense, tune, fallback, frozen
        self.name = DENSE if dense else SPARSE

    def version(self) -> str | None:
        return installed("espalier")

    def missing(self) -> str | None:
        return None

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        with machine_lock() if self.tune else nullcontext():
            try:
                compiled: Run = compiler.compile_model(
                    model,
                    example,
                    num_threads=num_threads,
                    dense=self.dense,
                    frozen=self.frozen,
                    tune=self.tune,
                    fallback=self.fallback,
                )
            except ValueError as error:  # names what the compiler lacks, and the way out
                raise Unable(str(error)) from error
        return compiled
