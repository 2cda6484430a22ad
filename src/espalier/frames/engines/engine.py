"""What every engine offers, and what it says when it cannot run."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from espalier.compiler import Explanation

Run = Callable[[Tensor], Tensor]
Precision = Literal["fp32", "bf16"]
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2}  # largest |output - wanted| / largest |wanted|


class Unable(Exception):  # noqa: N818  not a fault: a state that is shown
    """An engine cannot run a network, or cannot run here; the message is the reason that is shown in place of a time."""


@runtime_checkable
class Native(Protocol):
    """What our own compiler makes of a network: a ``Run`` that also says what it is."""

    @property
    def hybrid(self) -> str:
        """Return what about it is not native code; empty where all is."""
        ...

    @property
    def tuned(self) -> bool:
        """Return whether a search had a say in it."""
        ...

    def __call__(self, x: Tensor, /) -> Tensor:
        """Run it."""
        ...

    def fork_join_ns(self) -> float:
        """Return how long handing work to all threads and waiting for them takes."""
        ...

    def explain(self, *, num_runs: int) -> Explanation:
        """Return a line for each kernel, timed over that many runs."""
        ...


class Engine(Protocol):
    """A way to run a network on this machine's CPU."""

    @property
    def name(self) -> str:
        """Return the name in every table and record."""
        ...

    @property
    def precision(self) -> Precision:
        """Return the precision that it is asked to compute in."""
        ...

    def version(self) -> str | None:
        """Return the version that is installed; None where none is."""
        ...

    def missing(self) -> str | None:
        """Return why it cannot run here, whatever the network, and the way out; None where it can."""
        ...

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        """Compile a network for one shape of input.

        Args:
            model: The network in evaluation mode; left as it was.
            example: What it takes, a batch of one.
            num_threads: Threads that one pass may use.

        Returns:
            A function from such an input to the output. The output may be overwritten by the next call.

        Raises:
            Unable: The engine knows that it cannot run this network.
            Exception: Whatever else the engine raises of a network that it does not understand.
        """
        ...


def installed(distribution: str) -> str | None:
    """Return the version of a distribution; None where it isn't installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def lacking(*modules: str) -> str | None:
    """Return that modules are not installed and what to do; None where all can be found."""
    absent = [module for module in modules if find_spec(module) is None]
    return f"{', '.join(absent)} not installed; pip install 'espalier[peers]'" if absent else None


@contextmanager
def affinity_kept() -> Iterator[None]:
    """Give the calling thread back its set of CPUs, which engines that pin their threads may narrow."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


@contextmanager
def stdout_held() -> Iterator[Callable[[], str]]:
    """Keep what C code prints on standard output from there, so that ``--json`` stays JSON; yield what returns it so far."""
    kept = os.dup(1)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 1)
        try:
            yield lambda: os.pread(held.fileno(), os.fstat(held.fileno()).st_size, 0).decode(errors="replace")
        finally:
            os.dup2(kept, 1)
            os.close(kept)
