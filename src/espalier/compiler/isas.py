"""Instruction sets as data: what a kernel may use, and which blocks and emissions proved fast on it.

Chosen by feature flags, never by a model's name, because hypervisors hide it. The efficiencies are shares of the FMA peak that the F kernel
reached in measurements (compiler spec, 2 and 8.2), kept as ratios to the best: they choose a block shape, they promise no time. Those of
AVX2, and what its tiles cost, were measured on a Zen3 of two cores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from espalier.devices import cpu


@dataclass(frozen=True)
class Isa:
    """One instruction set.

    Args:
        name: As ``isa=`` takes it.
        flags: Feature flags that /proc/cpuinfo must list.
        gcc: What selects it in the C compiler.
        lanes: fp32 numbers of a vector.
        registers: Vector registers.
        inline_loop: Whether the entry loop of F is written as one asm block: gcc 12 loses 8 to 24 % from vector types with AVX-512, and
            spills sums with AVX2, which costs more the further away the weights lie.
        vectors: Vectors of filters a block may have, the best first.
        efficiency: (vectors, channels of an entry) -> speed relative to the best; all of ``vectors`` by 1 to 4 channels.
        winograd: Whether template W may take dense 3x3 layers; F computes them otherwise.
        tile_overhead: What a tile of F costs for each vector of filters beside its pixels (loads of weights, the loop), in pixels.
        near_overhead: The same for blocks of few weights (``filters_rule.FEW_BYTES``).
        streamed: Multiply-adds of a vector in the time that one vector of weights takes from L3.
        chains: Sums that must be in flight to keep the multipliers busy; a tile of fewer takes as long as one of that many. 1 leaves
            that out: with the tiles of AVX-512 and generic it was not seen to count.
    """

    name: str
    flags: tuple[str, ...]
    gcc: tuple[str, ...]
    lanes: int
    registers: int
    inline_loop: bool
    vectors: tuple[int, ...]
    efficiency: Mapping[tuple[int, int], float] = field(default_factory=dict)
    winograd: bool = True
    tile_overhead: float = 0.6  # two weight loads are about one multiply-add each
    near_overhead: float = 0.6
    streamed: float = 12.8  # 27 GB/s and 172 GFLOP/s a core
    chains: int = 1

    def pixels(self, vectors: int) -> int:
        """Return how many pixels a tile may hold: accumulators fill the registers but for the weights and one or two broadcasts."""
        spare = vectors + (2 if vectors > 1 else 1)
        return max(1, min(28, (self.registers - spare) // vectors))

    def least_pixels(self, vectors: int) -> int:
        """Return from how many pixels on a tile keeps the multipliers busy."""
        return -(-self.chains // vectors)


_AVX2 = {(2, 4): 1.0, (2, 3): 1.0, (2, 2): 0.98, (2, 1): 0.94, (1, 4): 0.78, (1, 3): 0.78, (1, 2): 0.69, (1, 1): 0.68}
_EFFICIENCY = {(2, 4): 1.0, (2, 3): 1.0, (2, 2): 0.89, (2, 1): 0.81, (1, 4): 0.85, (1, 3): 0.85, (1, 2): 0.76, (1, 1): 0.69}

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa(
            "avx512",
            ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"),
            ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
            lanes=16,
            registers=32,
            inline_loop=True,
            vectors=(2, 1),
            efficiency=_EFFICIENCY,
        ),
        Isa(
            "avx2",
            ("avx2", "fma"),
            ("-mavx2", "-mfma"),
            lanes=8,
            registers=16,
            inline_loop=True,
            vectors=(2, 1),
            efficiency=_AVX2,
            near_overhead=0.1,  # fitted to a dozen layers of VGG-16, ResNet-50 and C3D: there 4 pixels a tile were as fast as 6
            streamed=3.2,  # 63 GB/s and 102 GFLOP/s
            chains=8,
        ),
        Isa("generic", (), (), lanes=4, registers=16, inline_loop=False, vectors=(2, 1), efficiency=_EFFICIENCY),
    )
}


def detect(flags: Sequence[str] | None = None) -> Isa:
    """Return the widest instruction set whose flags this machine has.

    Args:
        flags: Feature flags; None asks the machine.
    """
    present = set(cpu().flags if flags is None else flags)
    return next(isa for isa in ISAS.values() if present.issuperset(isa.flags))
