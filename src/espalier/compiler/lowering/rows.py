"""What kernels share whose lanes are channels: rows of a map as tasks, a line in vectors, and windows along D, H and W."""

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.compiler.graph import Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Map
from espalier.compiler.lowering.loops import added, block, times

Triple = tuple[int, int, int]


def maps(node: Node, *layouts: Layout) -> tuple[Map, ...]:
    """Return the layouts, which must be maps with lines of one length.

    Raises:
        ValueError: They are not.
    """
    found = tuple(layout for layout in layouts if isinstance(layout, Map))
    if len(found) != len(layouts):
        raise ValueError(f"{node.name} ({node.op}) has a kernel for maps; a tensor of it is row-major. Convert it first.")
    if len({layout.line for layout in found}) > 1:
        raise ValueError(
            f"{node.name} ({node.op}) has lines of {' and '.join(str(layout.line) for layout in found)} channels; they must be equal."
        )
    return found


@dataclass(frozen=True)
class Vectors:
    """A line of channels in vectors; a vector longer than the line is used in part.

    Args:
        line: Channels of a line.
        lanes: fp32 numbers of a vector.
    """

    line: int
    lanes: int

    def over(self, lines: Sequence[str]) -> list[str]:
        """Return statements for each vector of a line; ``lane`` is its first channel."""
        return block(f"for (int lane = 0; lane < {self.line}; lane += ES_LANES)", lines)

    def load(self, place: str) -> str:
        """Return the C expression of a vector in memory."""
        return f"es_loadu({place})" if self.lanes <= self.line else f"es_load_first({place}, {self.line})"

    def store(self, place: str, value: str) -> str:
        """Return the statement that writes a vector."""
        return f"es_storeu({place}, {value});" if self.lanes <= self.line else f"es_store_first({place}, {value}, {self.line});"


def vectors(layout: Map, isa: Isa) -> Vectors:
    """Return how an instruction set takes the lines of a map."""
    return Vectors(layout.line, isa.lanes)


def over_rows(result: Map, lines: Sequence[str]) -> list[str]:
    """Return statements for each row of each line of the result, shared among threads in bands of rows.

    ``line``, ``z`` and ``row`` say which; ``z`` and ``row`` are there where the result has more than one.
    """
    depth, height, _ = result.size
    indices = []
    if depth > 1:
        indices.append(f"z = t / {height}" if height > 1 else "z = t")
    if height > 1:
        indices.append(f"row = t % {height}" if depth > 1 else "row = t")
    declared = [f"const long {', '.join(indices)};"] if indices else []
    inside = block("for (long t = begin; t < end; ++t)", [*declared, *lines])
    return [
        "int64_t first_line, last_line;",
        f"es_split_map({result.lines}, {depth * height}, tid, c->threads, &first_line, &last_line, &begin, &end);",
        *block("for (long line = first_line; line < last_line; ++line)", inside),
    ]


def result_row(result: Map) -> str:
    """Return the declaration of ``to``, the first pixel of a row of the result."""
    return f"float *to = {row_of(result, 'y')};"


def row_of(layout: Map, tensor: str) -> str:
    """Return the C expression of the first pixel of the row of ``over_rows`` in a map of the result's size."""
    depth, height, _ = layout.strides
    return added(tensor, layout.origin, f"line * {layout.line_stride}", *over_row(layout.size, depth, height))


def over_row(size: Triple, depth: int, height: int) -> list[str]:
    """Return what ``z`` and ``row`` of ``over_rows`` add to a place.

    Args:
        size: D, H and W of the result.
        depth: Floats from one z to the next.
        height: Floats from one row to the next.
    """
    return [times(index, step) for index, count, step in (("z", size[0], depth), ("row", size[1], height)) if count > 1]


def cleared(result: Map, *, keeps_zero: bool) -> list[str]:
    """Return statements that write zeros to the channels that fill the last line of a row; none where they are zero already."""
    fill = -result.channels % result.line
    if keeps_zero or not fill:
        return []
    clear = f"memset(to + i * {result.line} + {result.line - fill}, 0, {fill} * sizeof(float));"
    return [f"if (line == {result.lines - 1}) for (int i = 0; i < {result.size[2]}; ++i) {clear}"]


@dataclass(frozen=True)
class Window:
    """Which pixels of a map each pixel of the result sees, along D, H and W.

    Args:
        kernel: Pixels seen.
        stride: Between windows.
        padding: Pixels before the first that the first window may see, and behind the last.
        dilation: Between the pixels of a window.
    """

    kernel: Triple
    stride: Triple
    padding: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    dilation: Triple

    @property
    def before(self) -> Triple:
        """Return the padding before the first pixel."""
        return self.padding[0][0], self.padding[1][0], self.padding[2][0]


def window(node: Node, kernel: Sequence[int]) -> Window:
    """Return the window of a convolution or pool; axes that the tensor lacks are of size 1."""
    missing = 3 - len(kernel)

    def triple(values: Sequence[int]) -> Triple:
        depth, height, width = (1,) * missing + tuple(values)
        return depth, height, width

    depth, height, width = ((0, 0),) * missing + tuple(node["padding"])
    dilation = node.attributes.get("dilation", (1,) * len(kernel))
    return Window(triple(kernel), triple(node["stride"]), (depth, height, width), triple(dilation))
