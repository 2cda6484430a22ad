"""Instruction sets as data: what a kernel may use, and which blocks and emissions proved fast on it.

Chosen by feature flags, never by a model's name, because hypervisors hide it. The efficiencies are shares of the FMA peak that the F kernel
reached in measurements (compiler spec, 2 and 8.2), kept as ratios to the best: they choose a block shape, they promise no time.
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
        inline_loop: Whether the entry loop of F is written as one asm block: gcc 12 loses 8 to 24 % from vector types there.
        vectors: Vectors of filters a block may have, the best first.
        efficiency: (vectors, channels of an entry) -> speed relative to the best; all of ``vectors`` by 1 to 4 channels.
        winograd: Whether template W may take dense 3x3 layers; F computes them otherwise.
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

    def pixels(self, vectors: int) -> int:
        """Return how many pixels a tile may hold: accumulators fill the registers but for the weights and one or two broadcasts."""
        spare = vectors + (2 if vectors > 1 else 1)
        return max(1, min(28, (self.registers - spare) // vectors))


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
        Isa("avx2", ("avx2", "fma"), ("-mavx2", "-mfma"), lanes=8, registers=16, inline_loop=False, vectors=(2, 1), efficiency=_EFFICIENCY),
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
