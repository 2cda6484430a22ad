"""Template DW: convolutions whose filters read one channel each, filters in the lanes (compiler spec, 4.3).

A tile is several pixels of one row. For each row of the kernel its weights are loaded once, and each input pixel once, whichever pixels of
the tile see it.
"""

import math
from collections.abc import Sequence

import torch

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import LINE, Layout, Map, map_of
from espalier.compiler.lowering.functions import activated, keeps_zero
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import added, block, defined, function, repeated, signature, times
from espalier.compiler.lowering.places import stored
from espalier.compiler.lowering.rows import Vectors, Window, cleared, maps, over_row, over_rows, result_row, row_of, vectors, window
from espalier.compiler.lowering.tiles import best_tile

MOST_PIXELS = 14  # of a tile: enough to hide the latency of two FMA units, and a divisor of what maps mostly measure
MOST_TAPS = 7  # of a row of the kernel held in registers
REPEATS = (2, 4)  # filters a channel that vectors take whole on every instruction set, beside 1
TILE_OVERHEAD = 0.6  # cost of a tile beside its pixels, in pixels


def is_depthwise(node: Node, graph: Graph) -> bool:
    """Return whether each filter of a convolution reads one channel, and each channel is read by as many as DW takes."""
    if node.op != "conv":
        return False
    filters, channels, *_ = graph.constants[node.constants["weight"]].shape
    groups = node["groups"]  # 1: any convolution of one channel, which template F takes
    return bool(groups > 1 and channels == 1 and filters in [repeat * groups for repeat in (1, *REPEATS)])


def lower_depthwise(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a convolution whose filters read one channel each.

    Raises:
        ValueError: It is another convolution, a tensor of it is no map, or the input's border is narrower than its padding.
    """
    if not is_depthwise(node, graph):
        repeats = ", ".join(map(str, REPEATS))
        raise ValueError(f"{node.name} has not 1, {repeats} filters for each channel: groups={node['groups']}. Template F takes it.")
    source, *residuals, result = maps(node, *inputs, output)
    weight, bias = graph.constants[node.constants["weight"]], graph.constant(node, "bias")
    view = window(node, weight.shape[2:])
    if any(
        have < need for borders, wanted in zip(source.border, view.padding, strict=True) for have, need in zip(borders, wanted, strict=True)
    ):
        raise ValueError(f"{node.name} pads by {view.padding}; its input has a border of {source.border}.")
    filters, taps = weight.shape[0], math.prod(view.kernel)
    shape = (1, filters, 1)
    arrays = {
        "w": stored(weight.reshape(1, filters, taps), map_of((1, filters, taps), line=result.line)),
        "bias": stored(torch.zeros(shape) if bias is None else bias.reshape(shape), map_of(shape, line=result.line)),
    }
    repeat = filters // node["groups"]
    if repeat > 1 and source.line < LINE:
        raise ValueError(f"{node.name} has {repeat} filters a channel and lines of {source.line} channels; DW takes lines of {LINE}.")
    pixels = best_tile((1, 1, result.size[2]), most_pixels(isa, view), overhead=TILE_OVERHEAD).columns
    tile = _tile(node, view, source, vectors(result, isa), pixels, repeat, has_residual=bool(residuals))
    rows = _rows(node, view, source, residuals, result, vectors(result, isa), pixels, repeat)
    text = function(signature(len(inputs), arrays), rows, [tile])
    macs = filters * taps * math.prod(result.size)
    return Kernel("DW", text, arrays, macs, f"{'x'.join(map(str, weight.shape[2:]))} tile={pixels}")


def most_pixels(isa: Isa, view: Window) -> int:
    """Return how many pixels a tile may hold: accumulators share the registers with a row of weights and one input."""
    return min(MOST_PIXELS if isa.registers > 16 else MOST_PIXELS // 2, isa.registers - min(view.kernel[2], MOST_TAPS) - 1)


def _tile(node: Node, view: Window, source: Map, line: Vectors, pixels: int, repeat: int, *, has_residual: bool) -> str:
    """Return the C function of one tile."""
    depth, height, width = view.kernel
    step_z, step_row, _ = (dilation * stride for dilation, stride in zip(view.dilation, source.strides, strict=True))
    accumulators = ", ".join(f"a{pixel} = {line.load('bias')}" for pixel in range(pixels))
    moves = [times(index, step) for index, size, step in (("kz", depth, step_z), ("ky", height, step_row)) if size > 1]
    inside = [f"const float *p = {added('x', *moves)};"]
    for first in range(0, width, MOST_TAPS):
        inside += block("", _taps(view, line, pixels, repeat, range(first, min(first + MOST_TAPS, width))))
    inside.append(f"w += {width * line.line};")
    body = [f"es_v {accumulators};", *repeated("kz", depth, repeated("ky", height, inside))]
    for pixel in range(pixels):
        value = added(f"a{pixel}", *([line.load(added("r", pixel * line.line))] if has_residual else []))
        body.append(line.store(added("y", pixel * line.line), activated(value, node, node["activation"])))
    residual = ", const float *r" if has_residual else ""
    head = f"ES_INLINE void {NAME}_tile(const float *x, const float *w, const float *bias{residual}, float *y)"
    return defined(head, body)


def _taps(view: Window, line: Vectors, pixels: int, repeat: int, taps: Sequence[int]) -> list[str]:
    """Return statements that add neighbouring taps of a row of the kernel to the pixels: each input is loaded once."""
    _, _, stride = view.stride
    _, _, dilation = view.dilation
    seen: dict[int, list[str]] = {}  # input column -> what it adds to
    for pixel in range(pixels):
        for tap in taps:
            seen.setdefault(pixel * stride + tap * dilation, []).append(f"a{pixel} += w{tap} * v;")

    def channels(place: str) -> str:
        return line.load(place) if repeat == 1 else f"es_load_repeat{repeat}({place})"

    weights = [f"const es_v w{tap} = {line.load(added('w', tap * line.line))};" for tap in taps]
    return weights + [
        f"{{ const es_v v = {channels(added('p', column * line.line))}; {' '.join(adds)} }}" for column, adds in sorted(seen.items())
    ]


def _rows(
    node: Node, view: Window, source: Map, residuals: Sequence[Map], result: Map, line: Vectors, pixels: int, repeat: int
) -> list[str]:
    """Return statements that take a thread's rows tile by tile; the last tile of a row is moved back over the one before it."""
    width = result.size[2]
    depth, height, column = (stride * step for stride, step in zip(view.stride, source.strides, strict=True))
    origin = source.origin - sum(before * step for before, step in zip(view.before, source.strides, strict=True))
    moves = over_row(result.size, depth, height)
    rows = [
        f"const float *from = {added('x0', origin, *_source_line(source, repeat), *moves)};",
        f"const float *weights = w + line * {math.prod(view.kernel) * line.line};",
        *(f"const float *r = {row_of(residual, 'x1')};" for residual in residuals),
        result_row(result),
    ]
    at = f"column * {line.line} + lane"
    arguments = [
        f"from + column * {column} + {'lane' if repeat == 1 else f'lane / {repeat}'}",
        "weights + lane",
        f"bias + line * {line.line} + lane",
    ]
    arguments += [f"{name} + {at}" for name in (*("r" for _ in residuals), "to")]
    tile = line.over([f"{NAME}_tile({', '.join(arguments)});"])
    if width % pixels == 0:
        loop = block(f"for (long column = 0; column < {width}; column += {pixels})", tile)
    else:
        last = width - pixels
        columns = [f"const long column = first < {last} ? first : {last};", *tile]
        loop = block(f"for (long first = 0; first < {width}; first += {pixels})", columns)
    return over_rows(result, [*rows, *loop, *cleared(result, keeps_zero=keeps_zero(node, node["activation"]))])


def _source_line(source: Map, repeat: int) -> list[str]:
    """Return what the line of the result adds to the place of its channels in the input."""
    if repeat == 1:
        return [f"line * {source.line_stride}"]
    return [f"line / {repeat} * {source.line_stride}", f"line % {repeat} * {source.line // repeat}"]
