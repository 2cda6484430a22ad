"""Template W: dense convolutions of 3x3 pixels and stride 1 by Winograd's minimal filtering (compiler spec, 4.3).

A thread takes ``Blocks.groups`` groups of tiles through three phases, and what passes between them stays in its scratch, that is, in L2:

    tiles[group][plane][position][line][tile][16]  = B' d B      for all channels
    products[position][group][plane][tile][filter] = the entry loop of template F, one call a position, for one block of filters
    map                                            = A' products A + bias + residual, activated

Tiles take the pixels' place in the entry loop, which broadcasts them against filters in the lanes. Where a kernel has three planes, each
is a further run of channels: planes are transformed once and read by every plane of the result that sees them.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from espalier.compiler.graph import Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Lines
from espalier.compiler.lowering.filters import Convolution
from espalier.compiler.lowering.filters_loop import Loop, emitted
from espalier.compiler.lowering.functions import activated, keeps_zero
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.places import narrowed
from espalier.compiler.lowering.winograd_shape import Blocks, Shape, takes
from espalier.compiler.lowering.winograd_transforms import functions, transformed


def lowered_winograd(
    node: Node, layer: Convolution, source: Lines, result: Lines, residual: Lines | None, isa: Isa, blocks: Blocks
) -> Kernel:
    """Return the kernel of a dense layer.

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
    filters, channels, depth = layer.weight.shape[:3]
    shape = Shape(blocks, result.size, depth, channels, filters, isa.lanes)
    group = next(size for size in (4, 2, 1) if channels % size == 0)
    bias = torch.zeros(len(shape.used) * shape.block_filters)
    bias[:filters] = layer.bias.detach()
    arrays = {"entry": _entries(shape, group), "w": _weights(layer, shape), "bias": bias.numpy()}
    text = "\n".join(
        [
            "#include <math.h>\n",
            functions(shape.transform),
            _input(layer, shape, source),
            _output(node, shape, result, residual),
            *_loops(shape, group, isa),
            _passes(shape, group, residual),
        ]
    )
    detail = f"F({blocks.size}x{blocks.size}) gM={shape.block_filters} gN={group} tiles={blocks.planes}x{blocks.tiles}x{blocks.groups}"
    return Kernel("W", text, arrays, shape.macs, detail, -(-shape.scratch // LINE) * LINE, blocks)


def _entries(shape: Shape, group: int) -> np.ndarray:
    """Return the bytes from a tile's first plane and channel to each run of ``group`` channels."""
    plane, channel = np.meshgrid(np.arange(shape.depth), np.arange(0, shape.channels, group), indexing="ij")
    floats = plane * shape.tile_plane + channel // LINE * shape.blocks.tiles * LINE + channel % LINE
    return narrowed(4 * floats.reshape(-1))


def _weights(layer: Convolution, shape: Shape) -> np.ndarray:
    """Return the weights in the order in which they are read: block of filters, position, plane, channel, filter."""
    domain = transformed(layer.weight, shape.transform)
    padded = np.zeros((shape.transform.positions, len(shape.used) * shape.block_filters, *domain.shape[2:]), np.float32)
    padded[:, : shape.filters] = domain
    blocked = padded.reshape(shape.transform.positions, len(shape.used), shape.block_filters, shape.channels, shape.depth)
    return np.ascontiguousarray(blocked.transpose(1, 0, 4, 3, 2))


def _place(shape: Shape) -> str:
    """Return the declarations of where a tile lies: its first pixel, moved back at the edges, and the pixels another tile writes."""
    m, (_, columns) = shape.blocks.size, shape.grid
    _, height, width = shape.size
    return f"""const long row = t / {columns} * {m}, column = t % {columns} * {m};
    const long y0 = row < {height - m} ? row : {height - m}, x0 = column < {width - m} ? column : {width - m};"""


def _group(shape: Shape) -> str:
    """Return the declarations of a group's planes and tiles."""
    tiles = math.prod(shape.grid)
    per_plane = -(-tiles // shape.blocks.tiles)
    return f"""const long z0 = group / {per_plane} * {shape.blocks.planes}, first = group % {per_plane} * {shape.blocks.tiles};
  const long last = first + {shape.blocks.tiles} < {tiles} ? first + {shape.blocks.tiles} : {tiles};"""


def _input(layer: Convolution, shape: Shape, source: Lines) -> str:
    depth, height, width = source.strides
    shift = source.origin - sum(p * s for p, s in zip(layer.padding, source.strides, strict=True))
    reach, position = shape.transform.reach, shape.tile_position
    return f"""/* A group's tiles, into the transform domain: columns, then rows. */
static void {NAME}_input(const float *x, long group, float *tiles)
{{
  {_group(shape)}
  for (long t = first; t < last; ++t) {{
    {_place(shape)}
    for (long plane = 0; plane < {shape.blocks.planes + shape.depth - 1}; ++plane)
      for (long line = 0; line < {shape.lines}; ++line)
        for (int lane = 0; lane < {LINE}; lane += ES_LANES) {{
          const float *from = x + {shift} + line * {source.line_stride} + (z0 + plane) * {depth} + y0 * {height} + x0 * {width} + lane;
          float *to = tiles + plane * {shape.tile_plane} + line * {shape.blocks.tiles * LINE} + (t - first) * {LINE} + lane;
          float half[{reach * reach} * ES_LANES] __attribute__((aligned(64)));
          for (int j = 0; j < {reach}; ++j) {NAME}_into(from + j * {width}, {height}, half + j * ES_LANES, {reach} * ES_LANES);
          for (int i = 0; i < {reach}; ++i) {NAME}_into(half + i * {reach} * ES_LANES, ES_LANES, to + i * {reach * position}, {position});
        }}
  }}
}}
"""


def _output(node: Node, shape: Shape, result: Lines, residual: Lines | None) -> str:
    m, reach, position = shape.blocks.size, shape.transform.reach, shape.product_position
    value = "es_loadu(row_of + j * ES_LANES) + b"
    added, pointer = "", ""
    if residual is not None:
        added = ", const float *r"
        pointer = f"const float *rt = r + {_tile_of(residual)};\n        "
        value = f"({value}) + es_loadu(rt + i * {residual.strides[1]} + j * {residual.strides[2]})"
    value = activated(value, node, node["activation"])
    rest = -shape.filters % LINE
    if rest and not keeps_zero(node, node["activation"]):
        value = f"{NAME}_kept({value}, {shape.filters} - channel)"
    tiles = shape.blocks.tiles
    return f"""{_kept() if "_kept(" in value else ""}/* A group's products of one block of filters, back to pixels: columns, then rows.
 * What an earlier tile writes is left to it. */
static void {NAME}_output(const float *products, long group, long block, int vectors, const float *bias{added}, float *y)
{{
  {_group(shape)}
  for (long t = first; t < last; ++t) {{
    {_place(shape)}
    for (long plane = 0; plane < {shape.blocks.planes}; ++plane)
      for (int v = 0; v < vectors; ++v) {{
        const long channel = block * {shape.block_filters} + v * ES_LANES;
        const float *from = products + (plane * {tiles} + t - first) * {shape.block_filters} + v * ES_LANES;
        float *to = y + {_tile_of(result)};
        {pointer}float half[{m * reach} * ES_LANES] __attribute__((aligned(64))), row_of[{m} * ES_LANES] __attribute__((aligned(64)));
        const es_v b = es_loadu(bias + channel);
        for (int j = 0; j < {reach}; ++j) {NAME}_back(from + j * {position}, {reach * position}, half + j * ES_LANES, {reach} * ES_LANES);
        for (int i = row - y0; i < {m}; ++i) {{
          {NAME}_back(half + i * {reach} * ES_LANES, ES_LANES, row_of, ES_LANES);
          for (int j = column - x0; j < {m}; ++j)
            es_storeu(to + i * {result.strides[1]} + j * {result.strides[2]}, {value});
        }}
      }}
  }}
}}
"""


def _tile_of(lines: Lines) -> str:
    depth, height, width = lines.strides
    line = f"channel / {LINE} * {lines.line_stride} + channel % {LINE}"
    return f"{lines.origin} + {line} + (z0 + plane) * {depth} + y0 * {height} + x0 * {width}"


def _kept() -> str:
    return f"""/* The first n lanes of x, and zeros in those behind: channels that only fill a line. */
ES_INLINE es_v {NAME}_kept(es_v x, long n)
{{
  for (int lane = 0; lane < ES_LANES; ++lane) x[lane] = lane < n ? x[lane] : 0.0f;
  return x;
}}
"""


def _loops(shape: Shape, group: int, isa: Isa) -> list[str]:
    """Return the entry loops: of a whole block of filters, and of a last one with fewer vectors."""
    tiles = range(shape.blocks.tiles)
    loop = Loop(
        inputs=tuple(tile * LINE for tile in tiles),
        outputs=tuple(tile * shape.block_filters for tile in tiles),
        residuals=(),
        vectors=shape.blocks.vectors,
        stride=shape.blocks.vectors,
        channels=group,
        output_step=LINE,
        residual_step=0,
        clamp=None,
    )
    loops = [emitted(f"{NAME}_tile", loop, isa)]
    if shape.used[-1] != shape.blocks.vectors:
        loops.append(emitted(f"{NAME}_last", replace(loop, vectors=shape.used[-1]), isa))
    return loops


def _passes(shape: Shape, group: int, residual: Lines | None) -> str:
    """Return the function that takes a thread's groups through the three phases."""
    blocks, positions = shape.blocks, shape.transform.positions
    filters, columns = shape.block_filters, shape.depth * shape.channels
    ragged = shape.used[-1] != blocks.vectors
    vectors = f"p == {len(shape.used) - 1} ? {shape.used[-1]} : {blocks.vectors}" if ragged else str(blocks.vectors)
    arguments = (
        f"tiles + j * {shape.tile_group} + z * {shape.tile_plane} + n * {shape.tile_position}, entry, "
        f"w + (p * {positions} + n) * INT64_C({columns * filters}), {columns // group}, zeros,\n"
        f"              products + n * {shape.product_position} + (j * {blocks.planes} + z) * {blocks.tiles * filters}"
    )
    call = f"{NAME}_tile({arguments});"
    if ragged:
        call = f"if (p == {len(shape.used) - 1}) {NAME}_last({arguments});\n            else {call}"
    split = (
        f"{len(shape.used)}, tid, c->threads, &first, &last" if shape.by_filters else f"{shape.num_groups}, tid, c->threads, &begin, &end"
    )
    extra, added = ("", "") if residual is None else (", const float *r", ", r")
    group_products = f"products + j * {blocks.planes * blocks.tiles * filters}"
    return f"""void {NAME}(const struct es_context *c, int tid, const float *x{extra}, float *y,
    const int32_t *entry, const float *w, const float *bias)
{{
  static const float zeros[{filters}] __attribute__((aligned(64)));
  float *tiles = c->scratch + tid * c->scratch_floats, *products = tiles + {blocks.groups * shape.tile_group};
  int64_t begin = 0, end = {shape.num_groups}, first = 0, last = {len(shape.used)};
  es_split({split});
  for (int64_t from = begin; from < end; from += {blocks.groups}) {{
    const int64_t count = from + {blocks.groups} < end ? {blocks.groups} : end - from;
    for (int64_t j = 0; j < count; ++j) {NAME}_input(x, from + j, tiles + j * {shape.tile_group});
    for (int64_t p = first; p < last; ++p) {{
      for (int64_t n = 0; n < {positions}; ++n)
        for (int64_t j = 0; j < count; ++j)
          for (int64_t z = 0; z < {blocks.planes}; ++z) {{
            {call}
          }}
      for (int64_t j = 0; j < count; ++j) {NAME}_output({group_products}, from + j, p, {vectors}, bias{added}, y);
    }}
  }}
}}
"""
