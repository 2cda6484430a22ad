"""Template F: convolutions and linear layers of any block structure, filters in the lanes, pixels broadcast (compiler spec, 3.1).

Blocks of filters share a list of kept columns (``bcrc.Packed``), so that a pruned layer runs the loop of a dense one over fewer entries.
Tiles are the outer loop and blocks the inner one, because the tile's input stays in L2 while the blocks pass; blocks whose weights exceed
``Choice.resident_bytes`` are taken in portions, and each portion passes over all tiles.

Activations beyond ``CLAMPED``, and rows that do not take whole vectors of filters, are left to ``filters_finish``.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from espalier.compiler.bcrc import Packed, pack
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Lines
from espalier.compiler.lowering.filters_finish import finish, unwhole
from espalier.compiler.lowering.filters_loop import Loop, emitted, used_vectors
from espalier.compiler.lowering.filters_planes import Planes, cuts, macs_taken, planes_of
from espalier.compiler.lowering.filters_rule import Choice, choose, split_by_filters
from espalier.compiler.lowering.filters_shares import SHARE_OF_FILTERS, SHARE_OF_PIXELS, shared
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.places import narrowed
from espalier.compiler.lowering.tiles import Tile

CLAMPED = (None, "relu", "relu6")  # activations applied in registers


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
        activation: None, or one of ``UNARY``; one of ``CLAMPED`` where it pools.
        settings: Numbers of the activation, as ``Node.settings`` has them.
        pool: Whether the result is the maximum over each 2x2 window of H and W.
    """

    weight: Tensor
    mask: Tensor | None
    bias: Tensor
    stride: tuple[int, int, int]
    padding: tuple[int, int, int]
    dilation: tuple[int, int, int]
    activation: str | None
    settings: Mapping[str, float] = field(default_factory=dict)
    pool: bool = False

    @property
    def side(self) -> int:
        """Return how many rows, and columns, each result is the maximum of."""
        return 2 if self.pool else 1

    def computed(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return D, H and W of what is convolved for a result of ``size``."""
        depth, height, width = size
        return depth, height * self.side, width * self.side


def lowered(layer: Convolution, source: Lines, result: Lines, residual: Lines | None, isa: Isa, choice: Choice | None = None) -> Kernel:
    """Return the kernel of a layer.

    Args:
        layer: What it computes.
        source: Its input.
        result: Its output; lines of a map take whole vectors of filters, rows of a plain tensor need not.
        residual: What is added before the activation.
        isa: Instruction set.
        choice: Knobs; None takes the rule's.
    """
    size = layer.computed(result.size)
    choice = choice or choose(layer, isa, size, source)
    tile, planes = choice.tile, planes_of(layer, source.size[0], size[0], choice.tile.planes)
    filters, channels = choice.vectors * isa.lanes, choice.channels
    packed = pack(layer.weight, layer.mask, block_filters=filters, group_channels=channels, by_plane=planes.skipped)
    bias = torch.zeros(packed.num_blocks * packed.block_filters)
    bias[: len(layer.bias)] = layer.bias.detach()
    body = _function(layer, packed, choice, source, result, residual, isa, planes)
    arrays = {"start": packed.start, "entry": offsets(packed, layer, source), "w": packed.weights, "bias": bias.numpy()}
    if planes.skipped:
        arrays["cut"] = cuts(packed)
    detail = f"gM={packed.block_filters} gN={choice.channels} tile={tile}" + (" pool=2x2" if layer.pool else "")
    macs = macs_taken(packed, planes, size[1] * size[2])
    in_place = residual is not None and not layer.pool and tile.slots(size) == math.prod(size)  # no pixel is computed twice
    return Kernel("F", body, arrays, macs, detail, in_place=in_place, choice=choice)


def offsets(packed: Packed, layer: Convolution, source: Lines) -> np.ndarray:
    """Return the bytes from a pixel of the input to each entry's; raises as ``narrowed`` does."""
    kernel = tuple(layer.weight.shape[2:])
    along = np.stack(np.unravel_index(packed.positions, kernel))
    steps = np.array([d * s for d, s in zip(layer.dilation, source.strides, strict=True)])
    shift = -sum(p * s for p, s in zip(layer.padding, source.strides, strict=True))
    channel = np.array([source.channel(int(number)) for number in packed.channels], np.int64)
    return narrowed(((along * steps[:, None]).sum(0) + shift + channel) * 4)


def _function(
    layer: Convolution,
    packed: Packed,
    choice: Choice,
    source: Lines,
    result: Lines,
    residual: Lines | None,
    isa: Isa,
    needed: Planes,
) -> str:
    tile = choice.tile
    last_vectors = used_vectors(result.channels, isa.lanes, choice.vectors)[-1]
    loop = Loop(
        inputs=_pixels(tile, _input_steps(layer, source)),
        outputs=_pixels(replace(tile, rows=tile.rows // layer.side, columns=tile.columns // layer.side), result.strides),
        residuals=() if residual is None else _pixels(tile, residual.strides),
        vectors=choice.vectors,
        stride=choice.vectors,
        channels=choice.channels,
        output_step=result.line_stride,
        residual_step=0 if residual is None else residual.line_stride,
        clamp=layer.activation if layer.activation in CLAMPED else None,
        pooled=_windows(tile, layer.side) if layer.pool else (),
    )
    rest = unwhole(result, isa)
    behind = finish(layer, loop, isa, rest) if layer.activation not in CLAMPED or rest else ""
    if behind:
        apart = tuple(pixel * choice.vectors * isa.lanes for pixel in range(tile.pixels))
        loop = replace(loop, outputs=apart, residuals=(), output_step=LINE, clamp=None)
    loops = [behind, emitted(f"{NAME}_tile", loop, isa)]
    if last_vectors != choice.vectors:
        loops.append(emitted(f"{NAME}_last", replace(loop, vectors=last_vectors), isa))
    calls = _calls(packed, choice, result, residual, last_vectors, finished=bool(behind), ragged=bool(rest))
    buffer = f"  float sums[{tile.pixels * choice.vectors * isa.lanes}] __attribute__((aligned(64)));\n" if behind else ""
    passes = _passes(layer, packed, choice, source, result, residual, calls, buffer, needed)
    return "\n".join(["#include <math.h>\n", *filter(None, loops), passes])


def _calls(
    packed: Packed, choice: Choice, result: Lines, residual: Lines | None, last_vectors: int, *, finished: bool, ragged: bool
) -> list[str]:
    """Return statements that compute block ``p`` of a tile."""
    filters, last = packed.block_filters, f"p == {packed.num_blocks - 1}"
    into = [f"yt + {_block(result, filters)}"]
    added = [] if residual is None else [f"rt + {_block(residual, filters)}"]
    weights = f"w + at * INT64_C({choice.channels * filters})"
    arguments = ["xt", "entry + at", weights, "behind - at", f"bias + p * {filters}"]
    given = ", ".join([*arguments, "sums"] if finished else [*arguments, *into, *added])
    lines = [f"{NAME}_tile({given});"]
    if last_vectors != choice.vectors:
        lines = [f"if ({last}) {NAME}_last({given});", f"else {lines[0]}"]
    if finished:
        vectors = f"{last} ? {last_vectors} : {choice.vectors}"
        lines.append(f"{NAME}_finish({', '.join(['sums', *added, *into, vectors, *([last] if ragged else [])])});")
    return lines


def _passes(
    layer: Convolution,
    packed: Packed,
    choice: Choice,
    source: Lines,
    result: Lines,
    residual: Lines | None,
    calls: Sequence[str],
    buffer: str,
    needed: Planes,
) -> str:
    """Return the function that takes a thread's tiles through its blocks."""
    tile = choice.tile
    size = layer.computed(result.size)
    planes, rows, columns = tile.counts(size)
    depth, height, width = size
    extra, residual_tile = (
        ("", []) if residual is None else (", const float *r", [f"const float *rt = r + {_at(residual, residual.strides)};"])
    )
    by_filters = split_by_filters(packed, source, size, tile) if choice.by_filters is None else choice.by_filters
    table, cut, taken, bounds = "", "", [], ("start[p]", "start[p + 1]")
    if needed.skipped:
        pairs = ", ".join(f"{{{low}, {high}}}" for low, high in needed.reached)
        table = f"static const int32_t {NAME}_planes[][2] = {{{pairs}}}; /* of the kernel, which a tile along D needs */\n"
        cut, taken = ", const int32_t *cut", [f"const int32_t *planes = {NAME}_planes[t / {rows * columns}];"]
        bounds = (f"cut[p * {needed.taps + 1} + planes[0]]", f"cut[p * {needed.taps + 1} + planes[1]]")
    steps = _input_steps(layer, source)
    work = [
        f"const int64_t plane = t / {rows * columns} * {tile.planes}, z = plane < {depth - tile.planes} ? plane : {depth - tile.planes};",
        f"const int64_t row = t / {columns} % {rows} * {tile.rows}, column = t % {columns} * {tile.columns};",
        f"const int64_t y0 = row < {height - tile.rows} ? row : {height - tile.rows};",
        f"const int64_t x0 = column < {width - tile.columns} ? column : {width - tile.columns};",
        f"const float *xt = x + {_at(source, steps)};",
        f"float *yt = y + {_at(result, _output_steps(layer, result))};",
        *residual_tile,
        *taken,
        "for (int64_t p = low; p < high; ++p) {",
        f"  const int64_t at = {bounds[0]}, behind = {bounds[1]};",
        *(f"  {call}" for call in calls),
        "}",
    ]
    portion = max(1, choice.resident_bytes * packed.num_blocks // max(1, packed.weights.nbytes))
    loops = shared(packed.num_blocks, planes * rows * columns, portion, work, by_filters=by_filters)
    return f"""{SHARE_OF_FILTERS if by_filters else SHARE_OF_PIXELS}
{table}void {NAME}(const struct es_context *c, int tid, const float *x{extra}, float *y,
    const int32_t *start, const int32_t *entry, const float *w, const float *bias{cut})
{{
{buffer}{loops}
}}
"""


def _input_steps(layer: Convolution, source: Lines) -> tuple[int, int, int]:
    depth, height, width = (stride * step for stride, step in zip(layer.stride, source.strides, strict=True))
    return depth, height, width


def _output_steps(layer: Convolution, result: Lines) -> tuple[int, int, int]:
    depth, height, width = result.strides
    return depth, height // layer.side, width // layer.side  # whole: tiles begin at multiples of the side


def _at(lines: Lines, steps: tuple[int, int, int]) -> str:
    return f"{lines.origin} + z * {steps[0]} + y0 * {steps[1]} + x0 * {steps[2]}"


def _block(lines: Lines, filters: int) -> str:
    """Return the floats to the first channel of block ``p``: whole lines, or a part of one."""
    if filters % lines.line == 0:
        return f"p * {filters // lines.line * lines.line_stride}"
    per_line = lines.line // filters
    return f"(p / {per_line} * {lines.line_stride} + p % {per_line} * {filters})"


def _pixels(tile: Tile, steps: tuple[int, int, int]) -> tuple[int, ...]:
    ranges = (range(tile.planes), range(tile.rows), range(tile.columns))
    return tuple(sum(place * step for place, step in zip(pixel, steps, strict=True)) for pixel in itertools.product(*ranges))


def _windows(tile: Tile, side: int) -> tuple[tuple[int, ...], ...]:
    """Return the pixels of a tile that each of its results is the maximum of."""
    corners = itertools.product(range(tile.planes), range(0, tile.rows, side), range(0, tile.columns, side))
    inside = [*itertools.product(range(side), range(side))]
    return tuple(
        tuple((plane * tile.rows + row + down) * tile.columns + column + right for down, right in inside) for plane, row, column in corners
    )
