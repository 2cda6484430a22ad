"""Resizing of maps: ``upsample``, nearest and bilinear, channels in the lanes. Which pixels a pixel is made of stands in tables."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Map
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.loops import added, block, function, signature
from espalier.compiler.lowering.places import narrowed
from espalier.compiler.lowering.rows import maps, over_rows, result_row, vectors


def lower_upsample(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a resizing.

    Raises:
        ValueError: A tensor of it is no map, or a volume is to be interpolated.
    """
    del graph
    source, result = maps(node, *inputs, output)
    if node["mode"] == "nearest":
        return _nearest(source, result)
    assert node["mode"] == "bilinear"
    if source.size[0] > 1 or result.size[0] > 1:
        raise ValueError(f"{node.name} interpolates from {source.size} to {result.size}; there is a kernel for two axes.")
    return _bilinear(source, result, isa, align_corners=node["align_corners"])


def _nearest(source: Map, result: Map) -> Kernel:
    arrays = {
        f"{index}_at": narrowed(nearest(before, after) * stride)
        for index, before, after, stride in zip(("z", "row", "column"), source.size, result.size, source.strides, strict=True)
        if after > 1 or index == "column"
    }
    copy = f"memcpy(to + column * {result.line}, from + column_at[column], {result.line} * sizeof(float));"
    moves = [f"{index}_at[{index}]" for index in ("z", "row") if f"{index}_at" in arrays]
    row = [
        f"const float *from = {added('x0', source.origin, f'line * {source.line_stride}', *moves)};",
        result_row(result),
        f"for (long column = 0; column < {result.size[2]}; ++column) {copy}",
    ]
    return Kernel("upsample", function(signature(1, arrays), over_rows(result, row)), arrays)


def _bilinear(source: Map, result: Map, isa: Isa, *, align_corners: bool) -> Kernel:
    line, arrays = vectors(result, isa), {}
    for name, axis in (("row", 1), ("column", 2)):
        low, high, share = neighbours(source.size[axis], result.size[axis], align_corners=align_corners)
        arrays[f"{name}_low"] = narrowed(low * source.strides[axis])
        arrays[f"{name}_high"] = narrowed(high * source.strides[axis])
        arrays[f"{name}_share"] = share
    number = "row" if result.size[1] > 1 else "0"
    pixel = [
        "const long left = column_low[column] + lane, right = column_high[column] + lane;",
        f"const es_v above = {line.load('upper + left')} * (1.0f - along) + {line.load('upper + right')} * along;",
        f"const es_v below = {line.load('lower + left')} * (1.0f - along) + {line.load('lower + right')} * along;",
        line.store(f"to + column * {result.line} + lane", "above * (1.0f - down) + below * down"),
    ]
    row = [
        f"const float *from = {added('x0', source.origin, f'line * {source.line_stride}')};",
        f"const float *upper = from + row_low[{number}], *lower = from + row_high[{number}];",
        f"const float down = row_share[{number}];",
        result_row(result),
        *block(
            f"for (long column = 0; column < {result.size[2]}; ++column)", ["const float along = column_share[column];", *line.over(pixel)]
        ),
    ]
    return Kernel("upsample", function(signature(1, arrays), over_rows(result, row)), arrays)


def nearest(before: int, after: int) -> np.ndarray:
    """Return which of ``before`` pixels each of ``after`` shows: PyTorch's own choice, whose rounding is of its own."""
    numbers = torch.arange(before, dtype=torch.float32).view(1, 1, -1)
    return F.interpolate(numbers, after, mode="nearest").view(-1).to(torch.int64).numpy()


def neighbours(before: int, after: int, *, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each of ``after`` pixels the two of ``before`` that it lies between, and the share of the second."""
    numbers = np.arange(after, dtype=np.float64)
    centred = (numbers + 0.5) * before / after - 0.5
    place = numbers * (before - 1) / max(1, after - 1) if align_corners else np.maximum(0, centred)
    low = np.minimum(place.astype(np.int64), before - 1)
    return low, np.minimum(low + 1, before - 1), (place - low).astype(np.float32)
