"""Native code for any network, from Python: one call."""

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from torch import Tensor, nn

from espalier.compiler import CompiledNetwork, compile_model
from espalier.compiler.hybrid import HybridNetwork
from espalier.compiler.tuning import BUDGET_S
from espalier.frames.machine import machine_lock
from espalier.interface import frozen


def compile(  # noqa: A001  the verb, as ``torch.compile`` has it
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    num_threads: int = 1,
    isa: str | None = None,
    tune: bool = False,
    tune_budget_s: float = BUDGET_S,
    fallback: str | None = None,
    cache: Path | None = None,
    console: Console | None = None,
) -> CompiledNetwork | HybridNetwork:
    """Return ``model`` as native code for one sample, called like a module; what pruning took away costs nothing.

    What is pruned is known from the frozen sets of ``prune`` and ``load``; in any other network it is seen by the zeros.

    Args:
        model: A network, compiled as it computes in evaluation mode.
        example: Its argument, a batch of one; its shape holds for the compiled network.
        num_threads: Threads that run it.
        isa: ``avx512``, ``avx2`` or ``generic``; None takes the widest this CPU has.
        tune: Search for the fastest kernel of each layer, with the machine to itself; without, a rule chooses, and nothing is timed. What
            was found is kept, so that the same network takes no search the next time.
        tune_budget_s: Seconds after which the layers that are left keep the rule's kernels.
        fallback: ``torch`` leaves operators that the compiler lacks to PyTorch and compiles the rest; what comes of it says that it is a
            hybrid. None refuses such a network.
        cache: Folder of compiled libraries and of what was found; None takes ``ESPALIER_CACHE``, else the user's cache folder.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: The network holds operators that the compiler lacks (all are listed), it cannot be exported, the budget is below 0, or
            there is no C compiler.
    """
    with machine_lock() if tune else nullcontext():
        return compile_model(
            model,
            example,
            num_threads=num_threads,
            isa=isa,
            frozen=frozen(model),
            fallback=fallback,
            tune=tune,
            tune_budget_s=tune_budget_s,
            cache=cache,
            console=console,
        )
