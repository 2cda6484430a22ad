"""Native code for any network, from Python: one call."""

import logging
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from espalier.compiler import CompiledNetwork, compile_model
from espalier.compiler.front import check_network
from espalier.compiler.hybrid import HybridNetwork
from espalier.compiler.tuning import BUDGET_S
from espalier.frames.machine import machine_lock
from espalier.interface import frozen

LOG = logging.getLogger(__name__)
DROP_RATES = ("p", "drop_prob", "drop_rate")  # where layers that drop at random keep how often


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

    A model that is in training mode and would compute otherwise in it is compiled all the same, with a warning. Looked for are modules in
    training mode: norms that keep running statistics; layers whose class has ``Drop`` or ``StochasticDepth`` in its name and whose rate
    (``p``, ``drop_prob``, ``drop_rate``) is above 0; ``nn.MultiheadAttention`` with dropout; ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` with
    dropout between their layers; ``nn.RReLU`` with a range of slopes. What a ``forward`` does by functions or branches alone is not seen.

    What is pruned is known from the frozen sets of ``prune`` and ``load``; in any other network it is seen by the zeros.

    Args:
        model: A network, compiled as it computes in evaluation mode.
        example: Its argument, a batch of one; its shape holds for the compiled network.
        num_threads: Threads that run it, at most the cores that this process may use; what ``export_c`` writes takes its own when it runs.
        isa: ``avx512``, ``avx2`` or ``generic``; None takes the widest this CPU has.
        tune: Search for the fastest kernel of each layer, with the machine to itself; without, a rule chooses, and nothing is timed. What
            was found is kept, so that the same network takes no search the next time.
        tune_budget_s: Seconds after which the layers that are left keep the rule's kernels.
        fallback: ``torch`` leaves operators that the compiler lacks to PyTorch and compiles the rest; what comes of it says that it is a
            hybrid. None refuses such a network.
        cache: Folder of compiled libraries and of what was found; None takes ``ESPALIER_CACHE``, else the user's cache folder.
        console: Where progress is shown; None shows none.

    Raises:
        ValueError: It is no network, it holds operators that the compiler lacks (all are listed), it cannot be exported, threads exceed
            the cores, the budget is below 0, or there is no C compiler.
    """
    check_network(model)
    if training := [name or "itself" for name, module in model.named_modules() if _differs_in_training(module)]:
        LOG.warning(
            "%s is in training mode (%s): the compiled network gives what model.eval() does. Call model.eval() first, and the two agree.",
            type(model).__name__,
            training[0] if len(training) == 1 else f"{training[0]} and {len(training) - 1} more",
        )
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


def _differs_in_training(module: nn.Module) -> bool:
    """Return whether a module is in training mode and computes otherwise in it; ``compile`` lists what is looked for."""
    if not module.training:
        return False
    if isinstance(module, _NormBase):
        return module.running_mean is not None
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout)
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.RReLU):
        return module.lower < module.upper
    dropping = any(word in type(module).__name__ for word in ("Drop", "StochasticDepth"))
    return dropping and any(getattr(module, name, 0) for name in DROP_RATES)
