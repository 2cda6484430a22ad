"""Products of two activations: ``matmul`` of row-major matrices, batch by batch.

A tile is some rows of ``a`` by some vectors of columns of ``b``, all of whose sums stay in registers; its shapes are balanced, so that the
last tile is hardly smaller than the others:

    for each k: b_v = vectors of row k of b;  for each row: sums += a[row][k] * b_v
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Plain
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import added, block, defined, function, signature, walked
from espalier.compiler.lowering.nests import Run, nests
from espalier.compiler.lowering.places import Access, access
from espalier.compiler.lowering.runs import load, store

MOST_ROWS = 14  # of a tile; more hide no more latency


@dataclass(frozen=True)
class Product:
    """``y (M, N) = a (M, K) b (K, N)``.

    Args:
        rows: M.
        inner: K.
        columns: N.
        lanes: Of a vector.
    """

    rows: int
    inner: int
    columns: int
    lanes: int


@dataclass(frozen=True)
class Strip:
    """Neighbouring tiles of equal shape in a row of tiles.

    Args:
        start: Column of the first.
        count: How many.
        width: Columns from one to the next.
        vectors: Columns from a tile's first to those where its vectors begin.
    """

    start: int
    count: int
    width: int
    vectors: tuple[int, ...]


def lower_matmul(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a product of matrices, or of batches of them.

    Raises:
        ValueError: A tensor of it is a map.
    """
    if not all(isinstance(layout, Plain) for layout in (*inputs, output)):
        raise ValueError(f"{node.name} (matmul) has a kernel for row-major tensors; a tensor of it is a map. Convert it first.")
    left, right = (access(layout, graph[name].shape) for name, layout in zip(node.inputs, inputs, strict=True))
    product = Product(left.shape[-2], left.shape[-1], right.shape[-1], isa.lanes)
    across, heights = tiles(product, isa)
    helpers: list[str] = []
    lines: list[str] = []
    row = 0
    for height in sorted(set(heights), reverse=True):
        starts = row + np.arange(heights.count(height)) * height
        tensors = [
            _in_blocks(left, node.shape, starts * product.inner),
            _in_blocks(right, node.shape, starts * 0),
            _in_blocks(access(output, node.shape), node.shape, starts * product.columns),
        ]
        helpers += [*(_tile(product, height, number, strip) for number, strip in enumerate(across)), _row_of_tiles(height, across)]
        lines += walked(nests(*tensors, one_by_one=True), ("x0", "x1", "y"), partial(_called, height))
        row += len(starts) * height
    macs, detail = math.prod(node.shape) * product.inner, f"tile={heights[0]}x{len(across[0].vectors) * isa.lanes}"
    return Kernel("matmul", function(signature(2, {}), lines, helpers), macs=macs, detail=detail)


def tiles(product: Product, isa: Isa) -> tuple[list[Strip], list[int]]:
    """Return the strips of a row of tiles, and the heights of a column of them."""
    across = strips(product, 4 if isa.registers > 16 else 2)
    num_vectors = len(across[0].vectors)
    return across, balanced(product.rows, min(MOST_ROWS, (isa.registers - num_vectors - 1) // num_vectors))


def balanced(total: int, most: int) -> list[int]:
    """Return ``total`` in the fewest parts of at most ``most``, sizes differing by one at most, the larger first."""
    parts = -(-total // most)
    return [total // parts + (number < total % parts) for number in range(parts)]


def strips(product: Product, most: int) -> list[Strip]:
    """Return a row of tiles of at most ``most`` vectors; where columns are no whole vectors the last one overlaps the one before it."""
    found: list[Strip] = []
    first = 0
    for count in balanced(-(-product.columns // product.lanes), most):
        start = max(0, min(first, product.columns - product.lanes))
        last = max(0, min(first + (count - 1) * product.lanes, product.columns - product.lanes))
        vectors = (*range(0, (count - 1) * product.lanes, product.lanes), last - start)
        if found and found[-1].vectors == vectors and found[-1].start + found[-1].count * found[-1].width == start:
            found[-1] = replace(found[-1], count=found[-1].count + 1)
        else:
            found.append(Strip(start, 1, count * product.lanes, vectors))
        first += count * product.lanes
    return found


def _in_blocks(matrices: Access, shape: Sequence[int], starts: np.ndarray) -> Access:
    """Return where blocks of rows begin in each matrix of a batch."""
    batch = Access(matrices.start, matrices.terms[:-2]).spread(shape[:-2])
    return Access(batch.start, (*batch.terms, starts))


def _called(height: int, run: Run, at: Sequence[str]) -> list[str]:
    """Return the statement that computes a block of rows."""
    assert run.size == 1
    return [f"{NAME}_rows_{height}({', '.join(at)});"]


def _row_of_tiles(height: int, across: Sequence[Strip]) -> str:
    """Return the C function of a block of rows."""
    lines = []
    for number, strip in enumerate(across):
        call = f"{NAME}_tile_{height}_{number}(a, b + column, y + column);"
        end = strip.start + strip.count * strip.width
        lines.append(f"for (long column = {strip.start}; column < {end}; column += {strip.width}) {call}")
    return defined(f"static void {NAME}_rows_{height}(const float *a, const float *b, float *y)", lines)


def _tile(product: Product, height: int, number: int, strip: Strip) -> str:
    """Return the C function of one tile."""
    lanes, inner, columns = product.lanes, product.inner, product.columns
    count = min(lanes, columns)
    places = [(row, v) for row in range(height) for v in range(len(strip.vectors))]
    lines = [f"es_v {', '.join(f's{row}_{v} = es_zero()' for row, v in places)};"]
    inside = [f"const es_v b{v} = {load('b', 1, str(start or ''), count, lanes)};" for v, start in enumerate(strip.vectors)]
    for row in range(height):
        adds = " ".join(f"s{row}_{v} += value * b{v};" for v in range(len(strip.vectors)))
        inside.append(f"{{ const es_v value = es_splat(a[{added(row * inner, 'k')}]); {adds} }}")
    lines += block(f"for (long k = 0; k < {inner}; ++k, b += {columns})", inside)
    lines += [store("y", f"s{row}_{v}", str(row * columns + strip.vectors[v] or ""), count, lanes) for row, v in places]
    return defined(f"ES_INLINE void {NAME}_tile_{height}_{number}(const float *a, const float *b, float *y)", lines)
