"""The entry loop of template F, as C text: one tile of pixels against one block of filters (compiler spec, 3.1 and 8.2).

    acc[pixel][vector] = bias
    for each entry of the block:                 # a kernel position and gN channels
        for n in 0 .. gN-1:
            w = vectors of filters               # one load each, used for every pixel
            for each pixel: acc[pixel] += w * x[pixel + n]

All distances between pixels are constants. The function is emitted twice over: with vector types for every instruction set, and as one asm
block with fixed registers where the instruction set says that it pays. Both read the same arrays, and a test holds them to the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.compiler.isas import Isa

CLAMPS = {None: "", "relu": "es_max(%s, es_splat(0.0f))", "relu6": "es_min(es_max(%s, es_splat(0.0f)), es_splat(6.0f))"}


@dataclass(frozen=True)
class Loop:
    """One micro-kernel.

    Args:
        inputs: Floats from the tile's first input pixel to each pixel's.
        outputs: Floats from the tile's first output pixel to each.
        residuals: The same of the tensor that is added; empty where none is.
        vectors: Vectors of filters computed.
        stride: Vectors of filters stored, of which the first ``vectors`` are computed; more at the last block of a ragged layer.
        channels: gN.
        output_step: Floats from one line of output channels to the next.
        residual_step: The same of the tensor that is added.
        clamp: Activation applied in registers: None, relu or relu6.
        pooled: The pixels of each output, whose maximum it is; empty where each is one.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    residuals: tuple[int, ...]
    vectors: int
    stride: int
    channels: int
    output_step: int
    residual_step: int
    clamp: str | None
    pooled: tuple[tuple[int, ...], ...] = ()

    @property
    def windows(self) -> tuple[tuple[int, ...], ...]:
        """Return the pixels of each output."""
        return self.pooled or tuple((pixel,) for pixel in range(len(self.inputs)))

    def place(self, vector: int, output: int, lanes: int, line: int = 16) -> int:
        """Return the floats from the tile's first output to that output's vector; a line holds ``line / lanes`` vectors."""
        return self.outputs[output] + _line(vector, lanes, line, self.output_step)

    def added(self, vector: int, output: int, lanes: int, line: int = 16) -> int:
        """Return the same of the tensor that is added."""
        return self.residuals[output] + _line(vector, lanes, line, self.residual_step)


def _line(vector: int, lanes: int, line: int, step: int) -> int:
    return vector * lanes // line * step + vector * lanes % line


SIGNATURE = (
    "static inline void {name}(const float *x, const int32_t *entry, const float *w, int64_t entries, const float *bias, float *y{extra})"
)


def emitted(name: str, loop: Loop, isa: Isa) -> str:
    """Return the C function."""
    head = SIGNATURE.format(name=name, extra=", const float *r" if loop.residuals else "")
    body = _vectors(loop, isa)
    if isa.inline_loop and _fits(loop):
        body = ["#ifdef __SANITIZE_ADDRESS__ /* which does not see what asm reads and writes */", *body, "#else", *_asm(loop), "#endif"]
    return "\n".join([head, "{", *(f"  {line}" for line in body), "}"])


def _fits(loop: Loop) -> bool:
    return len(loop.inputs) * loop.vectors + loop.vectors + 2 <= 32


def _vectors(loop: Loop, isa: Isa) -> list[str]:
    """Return the body in vector types; accumulators are scalars of vector type, because an array would go through memory."""
    pixels, vectors = range(len(loop.inputs)), range(loop.vectors)
    lines = [f"es_v {', '.join(f'a{p}_{v} = es_load(bias + {v * isa.lanes})' for p in pixels)};" for v in vectors]
    lines.append("for (int64_t e = 0; e < entries; ++e) {")
    lines.append("  const float *p = (const float *)((const char *)x + entry[e]);")
    for n in range(loop.channels):
        lines.append("  {")
        lines += [f"    const es_v w{v} = es_load(w + {(n * loop.stride + v) * isa.lanes});" for v in vectors]
        for pixel in pixels:
            terms = " ".join(f"a{pixel}_{v} += w{v} * b;" for v in vectors)
            lines.append(f"    {{ const es_v b = es_splat(p[{loop.inputs[pixel] + n}]); {terms} }}")
        lines.append("  }")
    lines.append(f"  w += {loop.channels * loop.stride * isa.lanes};")
    lines.append("}")
    for output, window in enumerate(loop.windows):
        for v in vectors:
            value = f"a{window[0]}_{v}"
            for pixel in window[1:]:
                value = f"es_larger({value}, a{pixel}_{v})"
            if loop.residuals:
                value = f"({value} + es_loadu(r + {loop.added(v, output, isa.lanes)}))"
            clamp = CLAMPS[loop.clamp]
            lines.append(f"es_storeu(y + {loop.place(v, output, isa.lanes)}, {clamp % value if clamp else value});")
    return lines


def _asm(loop: Loop) -> list[str]:
    """Return the body as one asm block: accumulators in the low registers, then the weights, then two broadcasts that alternate."""
    lanes = 16
    pixels, vectors = range(len(loop.inputs)), range(loop.vectors)
    first_weight = len(loop.inputs) * loop.vectors
    broadcasts = (first_weight + loop.vectors, first_weight + loop.vectors + 1)
    text = [f"vmovups {v * 64}(%[bias]), %%zmm{v}" for v in vectors]
    text += [f"vmovaps %%zmm{v}, %%zmm{pixel * loop.vectors + v}" for pixel in pixels if pixel for v in vectors]
    text += ["testq %[n], %[n]", "jz 2f", ".p2align 4", "1:", "movslq (%[entry]), %%rax", "addq %[x], %%rax", "addq $4, %[entry]"]
    turn = 0
    for n in range(loop.channels):
        text += [f"vmovups {(n * loop.stride + v) * 64}(%[w]), %%zmm{first_weight + v}" for v in vectors]
        for pixel in pixels:
            source = f"{(loop.inputs[pixel] + n) * 4}(%%rax)"
            if loop.vectors == 1:
                text.append(f"vfmadd231ps {source}%{{1to16%}}, %%zmm{first_weight}, %%zmm{pixel}")
                continue
            text.append(f"vbroadcastss {source}, %%zmm{broadcasts[turn]}")
            text += [f"vfmadd231ps %%zmm{broadcasts[turn]}, %%zmm{first_weight + v}, %%zmm{pixel * loop.vectors + v}" for v in vectors]
            turn = 1 - turn
    text += [f"addq ${loop.channels * loop.stride * 64}, %[w]", "decq %[n]", "jnz 1b", "2:"]
    zero, six = first_weight, first_weight + 1
    registers = [[pixel * loop.vectors + v for v in vectors] for pixel, *_ in loop.windows]
    for window in loop.windows:
        for pixel in window[1:]:
            first, other = window[0] * loop.vectors, pixel * loop.vectors
            for largest, beside in (
                (first + v, other + v) for v in vectors
            ):  # the second source comes out where one is a NaN: as es_larger
                text += [f"vcmpunordps %%zmm{beside}, %%zmm{beside}, %%k1", f"vmaxps %%zmm{largest}, %%zmm{beside}, %%zmm{largest}"]
                text.append(f"vmovaps %%zmm{beside}, %%zmm{largest}%{{%%k1%}}")
    if loop.residuals:
        text += [
            f"vaddps {loop.added(v, output, lanes) * 4}(%[r]), %%zmm{number}, %%zmm{number}"
            for output, kept in enumerate(registers)
            for v, number in enumerate(kept)
        ]
    if loop.clamp:
        text.append(f"vpxord %%zmm{zero}, %%zmm{zero}, %%zmm{zero}")
    if loop.clamp == "relu6":
        text.append(f"vbroadcastss %[six], %%zmm{six}")
    for output, kept in enumerate(registers):
        for v, number in enumerate(kept):
            register = f"%%zmm{number}"
            if loop.clamp:
                text.append(f"vmaxps {register}, %%zmm{zero}, {register}")  # a NaN comes out: it is the second source
            if loop.clamp == "relu6":
                text.append(f"vminps {register}, %%zmm{six}, {register}")
            text.append(f"vmovups {register}, {loop.place(v, output, lanes) * 4}(%[y])")
    operands = ['[x] "r"(x)', '[bias] "r"(bias)', '[y] "r"(y)']
    operands += ['[r] "r"(r)'] if loop.residuals else []
    operands += ['[six] "m"(six)'] if loop.clamp == "relu6" else []
    clobbered = ", ".join(f'"xmm{number}"' for number in range(32))
    before = ["static const float six = 6.0f;"] if loop.clamp == "relu6" else []
    return [
        *before,
        "__asm__ volatile(",
        *(f'    "{line}\\n\\t"' for line in text),
        '    : [entry] "+r"(entry), [w] "+r"(w), [n] "+r"(entries)',
        f"    : {', '.join(operands)}",
        f'    : "rax", "k1", "cc", "memory", {clobbered});',
    ]


def used_vectors(filters: int, lanes: int, vectors: int) -> Sequence[int]:
    """Return how many vectors each block computes; the last one fewer where the filters end before it does."""
    total = -(-filters // lanes)
    return [min(vectors, total - first) for first in range(0, total, vectors)]
