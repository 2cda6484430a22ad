"""The entry loop of template F, as C text: one tile of pixels against one block of filters (compiler spec, 3.1 and 8.2).

    acc[pixel][vector] = bias
    for each entry of the block:                 # a kernel position and gN channels
        for n in 0 .. gN-1:
            w = vectors of filters               # one load each, used for every pixel
            for each pixel: acc[pixel] += w * x[pixel + n]

All distances between pixels are constants. The function is emitted twice over: with vector types for every instruction set, and as one asm
block (``filters_asm``) where the instruction set says that it pays. Both read the same arrays, and a test holds them to the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.compiler.isas import Isa
from espalier.compiler.lowering.filters_asm import Registers, asm

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
    if isa.inline_loop and Registers(loop, isa).fit:
        body = ["#ifdef __SANITIZE_ADDRESS__ /* which does not see what asm reads and writes */", *body, "#else", *asm(loop, isa), "#endif"]
    return "\n".join([head, "{", *(f"  {line}" for line in body), "}"])


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


def used_vectors(filters: int, lanes: int, vectors: int) -> Sequence[int]:
    """Return how many vectors each block computes; the last one fewer where the filters end before it does."""
    total = -(-filters // lanes)
    return [min(vectors, total - first) for first in range(0, total, vectors)]
