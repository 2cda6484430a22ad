"""Template S: pruned convolutions whose blocks have 4 or 8 filters, pixels in the lanes (compiler spec, 3.2 and 4.3).

Template F, which has filters in the lanes, fills such blocks with zeros to whole vectors. Here a thread takes bands of rows through three
steps, and what passes between them stays in its scratch, that is, in L2:

    band[channel][plane][row][column]   = the rows of the input that a band of the result sees, turned from lines of channels
    sums[filter][row][column]           = for each block of filters, vectors of pixels along the run that the rows form
    map                                 = sums turned back + residual, activated

    acc[filter][vector] = bias
    for each entry of the block:                 # a kernel position and gN channels
        for n in 0 .. gN-1:
            x = vectors of neighbouring pixels   # one load each, used for every filter
            for each filter: acc[filter] += w[n][filter] * x

Pixels at the end of a row, which see the next one, are computed and dropped.
"""

import numpy as np
import torch

from espalier.compiler.bcrc import Packed, pack
from espalier.compiler.graph import Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Lines
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.functions import activated, keeps_zero
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import block, defined
from espalier.compiler.lowering.runs import helpers
from espalier.compiler.lowering.spatial_shape import Blocks, Shape, shape_of, takes
from espalier.compiler.lowering.transposes import turn_function


def lowered_spatial(
    node: Node, layer: Convolution, source: Lines, result: Lines, residual: Lines | None, isa: Isa, blocks: Blocks
) -> Kernel:
    """Return the kernel of a pruned layer.

    Args:
        node: Whose activation, and its bounds, are applied.
        layer: What it computes; ``takes`` says which it may be.
        source: Its input.
        result: Its output.
        residual: What is added before the activation.
        isa: Instruction set.
        blocks: Knobs.
    """
    assert takes(layer, source, result)
    shape = shape_of(layer, result, isa, blocks)
    packed = pack(layer.weight, layer.mask, block_filters=blocks.filters, group_channels=blocks.channels)
    num_blocks = -(-result.channels // LINE) * LINE // blocks.filters  # those that only fill a line keep nothing
    bias = torch.zeros(num_blocks * blocks.filters)
    bias[: result.channels] = layer.bias.detach()
    start = np.pad(packed.start, (0, num_blocks + 1 - len(packed.start)), mode="edge")
    arrays = {"start": start, "entry": _entries(packed, shape), "w": packed.weights, "bias": bias.numpy()}
    turn, output = turn_function(isa.lanes), _output(node, shape, result, residual)
    text = "\n".join(
        [
            "#include <math.h>\n",
            *helpers([turn]),
            turn,
            _copy(shape, source),
            *(_tile(shape, vectors) for vectors in range(1, blocks.vectors + 1)),
            output,
            _bands(layer, shape, output, source, result, residual),
        ]
    )
    detail = f"gM={blocks.filters} gN={blocks.channels} vectors={blocks.vectors} rows={blocks.rows}"
    macs = packed.executed * int(np.prod(result.size))
    return Kernel("S", text, arrays, macs, detail, -(-shape.scratch // LINE) * LINE, blocks)


def _entries(packed: Packed, shape: Shape) -> np.ndarray:
    """Return the bytes from a pixel's place in the copy to each entry's first channel."""
    plane, row, column = np.unravel_index(packed.positions, shape.kernel)
    _, down, right = shape.dilation
    floats = packed.channels.astype(np.int64) * shape.channel + plane * shape.plane + row * down * shape.width + column * right
    if floats.size and floats.max() >= 2**29:
        raise ValueError(f"a band of {shape.band * 4} bytes is too large for 32-bit offsets; template F takes the layer.")
    entries: np.ndarray = (4 * floats).astype(np.int32)
    return entries


def _copy(shape: Shape, source: Lines) -> str:
    """Return the function that copies a band of the input."""
    depth, height, _ = source.strides
    rows = [
        f"const float *from = x + line * {source.line_stride} + plane * {shape.dilation[0] * depth} + row * {height} + lane;",
        f"float *to = band + (line * {LINE} + lane) * {shape.channel} + plane * {shape.plane} + row * {shape.width};",
        *_squares(shape.width, shape.lanes, f"from + i * {LINE}", LINE, "to + i", shape.channel, "ES_LANES, {0}"),
    ]
    loop = f"for (int lane = 0; lane < {LINE}; lane += ES_LANES)"
    for index, size in (("row", f"rows + {shape.reach[1]}"), ("plane", shape.kernel[0]), ("line", shape.lines)):
        rows = block(loop, rows)
        loop = f"for (long {index} = 0; {index} < {size}; ++{index})"
    return defined(f"static void {NAME}_copy(const float *x, long rows, float *band)", block(loop, rows))


def _squares(size: int, lanes: int, source: str, apart: int, result: str, apart_in: int, counts: str) -> list[str]:
    """Return statements that turn a row of ``size`` pixels square by square; the last one is moved back over the one before it.

    Args:
        size: Pixels of the row.
        lanes: Of a vector.
        source: Where pixel ``i`` is read.
        apart: Floats to what becomes its neighbour.
        result: Where it is written.
        apart_in: Floats from there to the next row of the square.
        counts: Rows and columns of a square of ``{0}`` pixels.
    """

    def square(pixels: int) -> str:
        width = "ES_LANES" if pixels == lanes else str(pixels)
        return f"{NAME}_turn({source}, {apart}, {result}, {apart_in}, {counts.format(width)});"

    if size <= lanes:
        return block("", ["const long i = 0;", square(size)])
    last = [] if size % lanes == 0 else block("", [f"const long i = {size - lanes};", square(lanes)])
    return [*block(f"for (long i = 0; i < {size // lanes * lanes}; i += ES_LANES)", [square(lanes)]), *last]


def _tile(shape: Shape, vectors: int) -> str:
    """Return the entry loop for so many vectors of pixels; accumulators are scalars of vector type, as those of template F."""
    filters, channels = range(shape.blocks.filters), range(shape.blocks.channels)
    lines = [f"es_v {', '.join(f'a{f}_{v} = es_splat(bias[{f}])' for v in range(vectors))};" for f in filters]
    loop = ["const float *p = (const float *)((const char *)x + entry[e]);"]
    for n in channels:
        inside = [f"const es_v x{v} = es_loadu(p + {n * shape.channel + v * shape.lanes});" for v in range(vectors)]
        for f in filters:
            terms = " ".join(f"a{f}_{v} += b * x{v};" for v in range(vectors))
            inside.append(f"{{ const es_v b = es_splat(w[{n * len(filters) + f}]); {terms} }}")
        loop += block("", inside)
    loop.append(f"w += {len(channels) * len(filters)};")
    lines += block("for (int64_t e = 0; e < entries; ++e)", loop)
    lines += [f"es_storeu(sums + {f * shape.sums + v * shape.lanes}, a{f}_{v});" for f in filters for v in range(vectors)]
    arguments = "const float *x, const int32_t *entry, const float *w, int64_t entries, const float *bias, float *sums"
    return defined(f"static inline void {NAME}_tile{vectors}({arguments})", lines)


def _output(node: Node, shape: Shape, result: Lines, residual: Lines | None) -> str:
    """Return the function that writes a band of one line of filters."""
    activation, width, (_, height, pixel) = node["activation"], shape.size[2], result.strides
    sums = f"sums + lane * {shape.sums} + row * {shape.width} + i"
    rows = [f"float *to = y + row * {height} + lane;"]
    rows += _squares(width, shape.lanes, sums, shape.sums, f"to + i * {pixel}", pixel, "{0}, ES_LANES")
    value = f"es_loadu(to + i * {pixel})"
    if residual is not None:
        rows.append(f"const float *added = r + row * {residual.strides[1]} + lane;")
        value = f"{value} + es_loadu(added + i * {residual.strides[2]})"
    value, extra = activated(value, node, activation), ""
    if result.channels % LINE and not keeps_zero(node, activation):
        value, extra = f"es_filled({value}, filters - lane, 0.0f)", ", int filters"
    if residual is not None or activation is not None:
        rows.append(f"for (long i = 0; i < {width}; ++i) es_storeu(to + i * {pixel}, {value});")
    loop = block("for (long row = 0; row < rows; ++row)", block(f"for (int lane = 0; lane < {LINE}; lane += ES_LANES)", rows))
    added = "" if residual is None else ", const float *r"
    return defined(f"static void {NAME}_output(const float *sums, long rows{extra}{added}, float *y)", loop)


def _bands(layer: Convolution, shape: Shape, output: str, source: Lines, result: Lines, residual: Lines | None) -> str:
    """Return the function that takes a thread's rows through the three steps."""
    blocks, (depth, height, _), parts = shape.blocks, shape.size, LINE // shape.blocks.filters
    shift = source.origin - sum(before * step for before, step in zip(layer.padding, source.strides, strict=True))
    arguments = (
        f"band + from * ES_LANES, entry + start[p], w + start[p] * INT64_C({blocks.channels * blocks.filters}), start[p + 1] - start[p],\n"
        f"              bias + p * {blocks.filters}, sums + p % {parts} * {blocks.filters * shape.sums} + from * ES_LANES"
    )
    cases = [f"case {vectors}: {NAME}_tile{vectors}({arguments}); break;" for vectors in range(1, blocks.vectors + 1)]
    joined = "\n            ".join(cases)
    filters = f", {result.channels} - (int)line * {LINE}" if "int filters" in output else ""
    extra, added = ("", "") if residual is None else (", const float *r", f", r + {_row_of(residual)}")
    return f"""void {NAME}(const struct es_context *c, int tid, const float *x{extra}, float *y,
    const int32_t *start, const int32_t *entry, const float *w, const float *bias)
{{
  float *band = c->scratch + tid * c->scratch_floats, *sums = band + {shape.band};
  int64_t next, last, rows, from, to;
  es_split({depth * height}, tid, c->threads, &next, &last);
  for (; next < last; next += rows) {{
    const int64_t z = next / {height}, y0 = next % {height};
    rows = {height} - y0 < last - next ? {height} - y0 : last - next;
    if (rows > {blocks.rows}) rows = {blocks.rows};
    const int vectors = (int)((rows * {shape.width} - {shape.reach[2]} + ES_LANES - 1) / ES_LANES);
    const int tiles = (vectors + {blocks.vectors - 1}) / {blocks.vectors};
    {NAME}_copy(x + {shift} + z * {source.strides[0]} + y0 * {source.strides[1]}, rows, band);
    for (int64_t line = 0; line < {-(-result.channels // LINE)}; ++line) {{
      for (int64_t p = line * {parts}; p < (line + 1) * {parts}; ++p)
        for (int t = 0; t < tiles; ++t) {{
          es_split(vectors, t, tiles, &from, &to);
          switch (to - from) {{
            {joined}
          }}
        }}
      {NAME}_output(sums, rows{filters}{added}, y + {_row_of(result)});
    }}
  }}
}}
"""


def _row_of(lines: Lines) -> str:
    depth, height, _ = lines.strides
    return f"{lines.origin} + line * {lines.line_stride} + z * {depth} + y0 * {height}"
