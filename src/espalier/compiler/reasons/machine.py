"""What a kernel runs on, and what a reason is: one thing that holds it back, and how much of its speed that leaves."""

from collections.abc import Callable
from dataclasses import dataclass

from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.runtime.probing import Ceilings

BEST_SHARE = 0.9  # of the peak that F reached with the best blocks: 0.93 to 1.0 on Zen4, 0.83 to 0.90 on a Xeon (compiler spec, 3.1, 8.2)
WORTH = 0.97  # share below which a reason is told
L3_BYTES = 80 << 20  # that a third cache shared with others holds: on a Xeon 64 MB of weights came at 50 GB/s, of 93 MB at 27, as from DRAM
RIDGES = {"L2": 1.0, "L3": 4.0, "DRAM": 10.0}  # FLOP a byte at which reading keeps up with the peak, where nothing was measured


@dataclass(frozen=True)
class Machine:
    """What a kernel runs on.

    Args:
        num_threads: Threads that run it.
        l2_bytes: Second cache of a core.
        network_bytes: Weights of the whole network, which pass through the caches in every run.
        ceilings: What it was measured to reach; None where nobody has.
    """

    num_threads: int
    l2_bytes: int
    network_bytes: int
    ceilings: Ceilings | None = None

    def level(self, num_bytes: int) -> str:
        """Return the cache, or memory, that data of that size comes from, spread over the cores."""
        if num_bytes <= self.num_threads * self.l2_bytes:
            return "L2"
        return "L3" if num_bytes <= L3_BYTES else "DRAM"

    def flop(self, num_bytes: float, level: str) -> float:
        """Return the FLOP at peak speed in the time of reading so many bytes."""
        if self.ceilings is None:
            return num_bytes * RIDGES[level]
        found = self.ceilings
        return num_bytes * found.fma_gflops / {"L2": found.l2_gb_s, "L3": found.l3_gb_s, "DRAM": found.dram_gb_s}[level]


@dataclass(frozen=True)
class Reason:
    """One thing that holds a kernel back.

    Args:
        text: In words.
        share: Of its speed that this leaves.
        wastes: Whether it wastes multiply-adds, which count as carried out, rather than slow them down.
    """

    text: str
    share: float
    wastes: bool = False


Finder = Callable[[Site, Kernel, Machine], Reason | None]
