"""The entry loop of template F as one asm block with fixed registers, for the instruction sets where gcc loses much from vector types.

Accumulators lie in the low registers, then the weights, then the broadcasts, which alternate. AVX-512 multiplies by a broadcast in memory,
so that blocks of one vector need no register for it; AVX2 broadcasts into one first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espalier.compiler.isas import Isa

if TYPE_CHECKING:
    from espalier.compiler.lowering.filters_loop import Loop

MOST_BROADCASTS = 2  # registers that alternate


@dataclass(frozen=True)
class Registers:
    """Which register holds what.

    Args:
        loop: The micro-kernel.
        isa: Instruction set.
    """

    loop: "Loop"
    isa: Isa

    @property
    def first_weight(self) -> int:
        """Return the register behind the accumulators."""
        return len(self.loop.inputs) * self.loop.vectors

    @property
    def broadcasts(self) -> range:
        """Return those that broadcasts alternate between."""
        first = self.first_weight + self.loop.vectors
        return range(first, min(self.isa.registers, first + MOST_BROADCASTS))

    @property
    def fit(self) -> bool:
        """Return whether there are enough of them."""
        return len(self.broadcasts) > 0

    def sum(self, pixel: int, vector: int) -> str:
        """Return the accumulator of a pixel and a vector of filters."""
        return self[pixel * self.loop.vectors + vector]

    def __getitem__(self, number: int) -> str:
        return f"%%{'zmm' if self.isa.lanes == 16 else 'ymm'}{number}"


def asm(loop: "Loop", isa: Isa) -> list[str]:
    """Return the loop's body as C text.

    Args:
        loop: The micro-kernel; its registers fit.
        isa: AVX2 or AVX-512.
    """
    registers = Registers(loop, isa)
    text = [*_sums(registers), *_entries(registers), *_windows(registers), *_results(registers)]
    operands = ['[x] "r"(x)', '[bias] "r"(bias)', '[y] "r"(y)']
    operands += ['[r] "r"(r)'] if loop.residuals else []
    operands += ['[six] "m"(six)'] if loop.clamp == "relu6" else []
    clobbered = ", ".join([*(f'"xmm{number}"' for number in range(isa.registers)), *(['"k1"'] if isa.lanes == 16 else [])])
    before = ["static const float six = 6.0f;"] if loop.clamp == "relu6" else []
    return [
        *before,
        "__asm__ volatile(",
        *(f'    "{line}\\n\\t"' for line in text),
        '    : [entry] "+&r"(entry), [w] "+&r"(w), [n] "+&r"(entries)',
        f"    : {', '.join(operands)}",
        f'    : "rax", "cc", "memory", {clobbered});',
    ]


def _sums(registers: Registers) -> Iterator[str]:
    """Yield what begins the sums: the bias, for every pixel."""
    loop, bytes_ = registers.loop, 4 * registers.isa.lanes
    yield from (f"vmovups {v * bytes_}(%[bias]), {registers.sum(0, v)}" for v in range(loop.vectors))
    for pixel in range(1, len(loop.inputs)):
        yield from (f"vmovaps {registers.sum(0, v)}, {registers.sum(pixel, v)}" for v in range(loop.vectors))


def _entries(registers: Registers) -> Iterator[str]:
    """Yield the loop over entries."""
    loop, isa, weight = registers.loop, registers.isa, registers.first_weight
    vectors, bytes_ = range(loop.vectors), 4 * isa.lanes
    embedded = isa.lanes == 16 and loop.vectors == 1
    yield from ("testq %[n], %[n]", "jz 2f", ".p2align 4", "1:", "movslq (%[entry]), %%rax", "addq %[x], %%rax", "addq $4, %[entry]")
    turn = 0
    for n in range(loop.channels):
        yield from (f"vmovups {(n * loop.stride + v) * bytes_}(%[w]), {registers[weight + v]}" for v in vectors)
        for pixel, floats in enumerate(loop.inputs):
            source = f"{(floats + n) * 4}(%%rax)"
            if embedded:
                yield f"vfmadd231ps {source}%{{1to16%}}, {registers[weight]}, {registers.sum(pixel, 0)}"
                continue
            broadcast = registers[registers.broadcasts[turn % len(registers.broadcasts)]]
            yield f"vbroadcastss {source}, {broadcast}"
            yield from (f"vfmadd231ps {broadcast}, {registers[weight + v]}, {registers.sum(pixel, v)}" for v in vectors)
            turn += 1
    yield from (f"addq ${loop.channels * loop.stride * bytes_}, %[w]", "decq %[n]", "jnz 1b", "2:")


def _windows(registers: Registers) -> Iterator[str]:
    """Yield what leaves in the first pixel of each window its maximum; the second source comes out where one is a NaN, as in es_larger."""
    for first, *others in registers.loop.windows:
        for pixel in others:
            for v in range(registers.loop.vectors):
                yield from _larger(registers, registers.sum(first, v), registers.sum(pixel, v))


def _larger(registers: Registers, largest: str, beside: str) -> Sequence[str]:
    maximum = f"vmaxps {largest}, {beside}, {largest}"
    if registers.isa.lanes == 16:
        return f"vcmpunordps {beside}, {beside}, %%k1", maximum, f"vmovaps {beside}, {largest}%{{%%k1%}}"
    nans = registers[registers.first_weight]
    return f"vcmpunordps {beside}, {beside}, {nans}", maximum, f"vblendvps {nans}, {beside}, {largest}, {largest}"


def _results(registers: Registers) -> Iterator[str]:
    """Yield what adds the residual, clamps and stores."""
    loop, lanes = registers.loop, registers.isa.lanes
    places = [(output, first, v) for output, (first, *_) in enumerate(loop.windows) for v in range(loop.vectors)]
    if loop.residuals:
        for output, pixel, v in places:
            yield f"vaddps {loop.added(v, output, lanes) * 4}(%[r]), {registers.sum(pixel, v)}, {registers.sum(pixel, v)}"
    zero, six = registers[registers.first_weight], registers[registers.first_weight + 1]
    if loop.clamp:
        yield f"vxorps {zero}, {zero}, {zero}"
    if loop.clamp == "relu6":
        yield f"vbroadcastss %[six], {six}"
    for output, pixel, v in places:
        register = registers.sum(pixel, v)
        if loop.clamp:
            yield f"vmaxps {register}, {zero}, {register}"  # a NaN comes out: it is the second source
        if loop.clamp == "relu6":
            yield f"vminps {register}, {six}, {register}"
        yield f"vmovups {register}, {loop.place(v, output, lanes) * 4}(%[y])"
