"""Template F: convolutions and linear layers of any block structure, filters in the lanes, pixels broadcast (compiler spec, 3.1).

Blocks of filters share a list of kept columns (``bcrc.Packed``), so that a pruned layer runs the loop of a dense one over fewer entries.
Tiles are the outer loop and blocks the inner one, because the tile's input stays in L2 while the blocks pass; blocks whose weights exceed
``RESIDENT_BYTES`` are taken in portions, and each portion passes over all tiles.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from espalier.compiler.bcrc import Packed, needed_entries, pack
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Lines
from espalier.compiler.lowering.filters_loop import Loop, emitted, used_vectors
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.tiles import Tile, best_tile

RESIDENT_BYTES = 384 * 1024  # of weights that stay in L2 beside the tile's input
TILE_OVERHEAD = 0.6  # cost of a tile beside its pixels, in pixels: two weight loads are about one FMA each
CLAMPED = (None, "relu", "relu6")  # activations applied in registers

SPLIT = f"""/* This thread's blocks: as many entries for each thread as whole blocks allow, the same ones on every call. */
static inline __attribute__((unused)) void {NAME}_blocks(
    const int32_t *start, int64_t blocks, int tid, int threads, int64_t *first, int64_t *last)
{{
  int64_t p = 0, from = (int64_t)start[blocks] * tid / threads, to = (int64_t)start[blocks] * (tid + 1) / threads;
  if (start[blocks] == 0) {{ from = blocks * tid / threads; to = blocks * (tid + 1) / threads; *first = from; *last = to; return; }}
  while (p < blocks && start[p] < from) ++p;
  *first = p;
  while (p < blocks && (tid + 1 == threads || start[p] < to)) ++p;
  *last = p;
}}"""


@dataclass(frozen=True)
class Convolution:
    """What a layer computes: ``y = act(w * x + bias + r)``. A linear layer is a 1x1 convolution over its rows.

    Args:
        weight: ``(M, C, D, H, W)`` over all input channels; groups are expanded, what lies outside them is masked.
        mask: What pruning or the groups kept; None keeps everything.
        bias: ``(M,)``.
        stride: Along D, H, W.
        padding: Zeros before the first pixel, along D, H, W.
        dilation: Along D, H, W.
        activation: None, or a function of the ISA header.
    """

    weight: Tensor
    mask: Tensor | None
    bias: Tensor
    stride: tuple[int, int, int]
    padding: tuple[int, int, int]
    dilation: tuple[int, int, int]
    activation: str | None


@dataclass(frozen=True)
class Choice:
    """The blocks of a layer: knobs of template F.

    Args:
        vectors: Vectors of filters a block has.
        channels: gN.
        tile: Pixels a call computes.
        by_filters: Whether threads share out filters, not pixels; None asks ``_split_by_filters``.
        resident_bytes: Weights of a portion of blocks, which passes over all tiles before the next one does.
    """

    vectors: int
    channels: int
    tile: Tile
    by_filters: bool | None = None
    resident_bytes: int = RESIDENT_BYTES


def choose(layer: Convolution, isa: Isa, size: tuple[int, int, int], line: int) -> Choice:
    """Return the blocks that should be fastest: fewest multiplications, stored zeros included, over the speed of such blocks.

    Args:
        layer: The layer.
        isa: Instruction set.
        size: D, H, W of the output.
        line: Channels of a line of the input.
    """
    shape = tuple(layer.weight.shape)
    best: tuple[float, Choice] | None = None
    for vectors in isa.vectors:
        if vectors * isa.lanes > max(isa.lanes, -(-shape[0] // isa.lanes) * isa.lanes):
            continue
        for channels in (4, 3, 2, 1):
            if (channels == 3) != (shape[1] == 3) or (line % channels and channels != 3) or channels > shape[1] or shape[1] % channels:
                continue
            entries = int(needed_entries(shape, layer.mask, block_filters=vectors * isa.lanes, group_channels=channels).sum())
            tile = best_tile(size, isa.pixels(vectors), overhead=TILE_OVERHEAD * vectors)
            slots = tile.slots(size) * (1 + 1.5 / (tile.pixels * vectors))
            cost = entries * channels * vectors * slots / isa.efficiency[vectors, channels]
            if best is None or cost < best[0]:
                best = cost, Choice(vectors, channels, tile)
    assert best is not None
    return best[1]


def lowered(layer: Convolution, source: Lines, result: Lines, residual: Lines | None, isa: Isa, choice: Choice | None = None) -> Kernel:
    """Return the kernel of a layer.

    Args:
        layer: What it computes.
        source: Its input.
        result: Its output; its lines take whole vectors of filters.
        residual: What is added before the activation.
        isa: Instruction set.
        choice: Knobs; None takes the rule's.
    """
    choice = choice or choose(layer, isa, result.size, source.line)
    packed = pack(layer.weight, layer.mask, block_filters=choice.vectors * isa.lanes, group_channels=choice.channels)
    bias = torch.zeros(packed.num_blocks * packed.block_filters)
    bias[: len(layer.bias)] = layer.bias.detach()
    body = _function(layer, packed, choice, source, result, residual, isa)
    arrays = {"start": packed.start, "entry": offsets(packed, layer, source), "w": packed.weights, "bias": bias.numpy()}
    tile = choice.tile
    detail = f"gM={packed.block_filters} gN={choice.channels} tile={tile.rows}x{tile.columns}"
    return Kernel("F", body, arrays, packed.executed * math.prod(result.size), detail, choice)


def offsets(packed: Packed, layer: Convolution, source: Lines) -> np.ndarray:
    """Return the bytes from a pixel of the input to each entry's."""
    kernel = tuple(layer.weight.shape[2:])
    along = np.stack(np.unravel_index(packed.positions, kernel))
    steps = np.array([d * s for d, s in zip(layer.dilation, source.strides, strict=True)])
    shift = -sum(p * s for p, s in zip(layer.padding, source.strides, strict=True))
    channel = np.array([source.channel(int(number)) for number in packed.channels], np.int64)
    offsets = ((along * steps[:, None]).sum(0) + shift + channel) * 4
    if offsets.size and np.abs(offsets).max() >= 2**31:
        raise ValueError(f"a map of {source.line_stride * 4} bytes a line is too large for 32-bit offsets.")
    narrow: np.ndarray = offsets.astype(np.int32)
    return narrow


def _function(layer: Convolution, packed: Packed, choice: Choice, source: Lines, result: Lines, residual: Lines | None, isa: Isa) -> str:
    tile = choice.tile
    used = used_vectors(result.channels, isa.lanes, choice.vectors)
    loop = Loop(
        inputs=_pixels(tile, _input_steps(layer, source)),
        outputs=_pixels(tile, result.strides),
        residuals=() if residual is None else _pixels(tile, residual.strides),
        vectors=choice.vectors,
        stride=choice.vectors,
        channels=choice.channels,
        output_step=result.line_stride,
        residual_step=0 if residual is None else residual.line_stride,
        clamp=layer.activation if layer.activation in CLAMPED else None,
    )
    loops = [emitted(f"{NAME}_tile", loop, isa), _finish(layer.activation, loop, isa)]
    if used[-1] != choice.vectors:
        loops.append(emitted(f"{NAME}_last", replace(loop, vectors=used[-1]), isa))
    return "\n".join([*filter(None, loops), SPLIT, _passes(layer, packed, choice, source, result, residual, used[-1])])


def _passes(
    layer: Convolution, packed: Packed, choice: Choice, source: Lines, result: Lines, residual: Lines | None, last_vectors: int
) -> str:
    """Return the function that takes a thread's tiles through its blocks."""
    tile, filters = choice.tile, packed.block_filters
    depth, rows, columns = tile.counts(result.size)
    _, height, width = result.size
    extra, residual_tile = (
        ("", "") if residual is None else (", const float *r", f"const float *rt = r + {_at(residual, residual.strides)};")
    )
    weights = f"w + start[p] * INT64_C({choice.channels * filters})"
    arguments = f"xt, entry + start[p], {weights}, start[p + 1] - start[p], bias + p * {filters}, yt + {_block(result, filters)}"
    if residual is not None:
        arguments += f", rt + {_block(residual, filters)}"
    call = f"{NAME}_tile({arguments});"
    if last_vectors != choice.vectors:
        call = f"if (p == {packed.num_blocks - 1}) {NAME}_last({arguments});\n        else {call}"
    if layer.activation not in CLAMPED:
        vectors = f"p == {packed.num_blocks - 1} ? {last_vectors} : {choice.vectors}"
        call += f"\n        {NAME}_finish(yt + {_block(result, filters)}, {vectors});"
    by_filters = _split_by_filters(packed, source, result, tile) if choice.by_filters is None else choice.by_filters
    if by_filters:
        split = f"{NAME}_blocks(start, {packed.num_blocks}, tid, c->threads, &first, &last);"
    else:
        split = f"es_split({depth * rows * columns}, tid, c->threads, &begin, &end);"
    portion = max(1, choice.resident_bytes * packed.num_blocks // max(1, packed.weights.nbytes))
    steps = _input_steps(layer, source)
    return f"""void {NAME}(const struct es_context *c, int tid, const float *x{extra}, float *y,
    const int32_t *start, const int32_t *entry, const float *w, const float *bias)
{{
  int64_t begin = 0, end = {depth * rows * columns}, first = 0, last = {packed.num_blocks};
  {split}
  for (int64_t from = first; from < last; from += {portion}) {{
    const int64_t to = from + {portion} < last ? from + {portion} : last;
    for (int64_t t = begin; t < end; ++t) {{
      const int64_t z = t / {rows * columns}, row = t / {columns} % {rows} * {tile.rows}, column = t % {columns} * {tile.columns};
      const int64_t y0 = row < {height - tile.rows} ? row : {height - tile.rows};
      const int64_t x0 = column < {width - tile.columns} ? column : {width - tile.columns};
      const float *xt = x + {_at(source, steps)};
      float *yt = y + {_at(result, result.strides)};
      {residual_tile}
      for (int64_t p = from; p < to; ++p) {{
        {call}
      }}
    }}
  }}
}}
"""


def _input_steps(layer: Convolution, source: Lines) -> tuple[int, int, int]:
    depth, height, width = (stride * step for stride, step in zip(layer.stride, source.strides, strict=True))
    return depth, height, width


def _at(lines: Lines, steps: tuple[int, int, int]) -> str:
    return f"{lines.origin} + z * {steps[0]} + y0 * {steps[1]} + x0 * {steps[2]}"


def _block(lines: Lines, filters: int) -> str:
    """Return the floats to the first channel of block ``p``: whole lines, or a part of one."""
    if filters % lines.line == 0:
        return f"p * {filters // lines.line * lines.line_stride}"
    per_line = lines.line // filters
    return f"(p / {per_line} * {lines.line_stride} + p % {per_line} * {filters})"


def _pixels(tile: Tile, steps: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(row * steps[1] + column * steps[2] for row in range(tile.rows) for column in range(tile.columns))


def _split_by_filters(packed: Packed, source: Lines, result: Lines, tile: Tile) -> bool:
    """Return whether threads share out filters, not pixels: where the weights outweigh the map, each thread should read half of them."""
    map_bytes = 4 * source.channels * math.prod(result.size)
    return packed.num_blocks > 1 and (packed.weights.nbytes > 2 * map_bytes or tile.slots(result.size) // tile.pixels < 4)


def _finish(activation: str | None, loop: Loop, isa: Isa) -> str:
    """Return a function that applies an activation to the block that was just stored, while it is in L1; empty where the loop did."""
    if activation in CLAMPED:
        return ""
    places = [loop.place(vector, pixel, isa.lanes) for vector in range(loop.vectors) for pixel in range(len(loop.outputs))]
    return f"""static void {NAME}_finish(float *y, int vectors)
{{
  static const int32_t place[] = {{{", ".join(map(str, places))}}};
  for (int i = 0; i < vectors * {len(loop.outputs)}; ++i) es_storeu(y + place[i], es_{activation}(es_loadu(y + place[i])));
}}
"""
