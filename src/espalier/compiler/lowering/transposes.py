"""Copies that turn rows into columns: squares of vectors are turned in registers where neighbours of one side lie apart on the other.

A square is turned in log2(lanes) steps. Step ``d`` exchanges, for each pair of rows that are ``d`` apart, the lanes of the first whose
number has bit ``d`` with those of the second whose number has not:

    d = 1    a b    a c
             c d    b d
"""

from collections.abc import Sequence
from dataclasses import replace

from espalier.compiler.lowering.kernel import NAME
from espalier.compiler.lowering.loops import block, defined, walked
from espalier.compiler.lowering.nests import Axis, Nest, Run
from espalier.compiler.lowering.runs import moved

SHUFFLE = """/* Chosen lanes of a, then of b; the choice is constant. */
#ifdef __clang__
#define ES_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define ES_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (es_i){__VA_ARGS__})
#endif
"""


def is_turned(nest: Nest, lanes: int) -> bool:
    """Return whether a copy is worth turning: the innermost loop is a line of the operand, the run one of the result, both long enough.

    Args:
        nest: Loops over the operand and the result.
        lanes: Of a vector.
    """
    if not nest.axes or len(nest.runs) != 1 or nest.runs[0].fills:
        return False
    line, run = nest.axes[-1], nest.runs[0]
    return line.steps[0] == run.steps[1] == 1 and 1 not in (line.steps[1], run.steps[0]) and 2 * min(line.size, run.size) >= lanes


def turned(nest: Nest, tensors: Sequence[str], lanes: int) -> list[str]:
    """Return statements that copy such a nest.

    Args:
        nest: The loops.
        tensors: Names of the pointers, the result's last.
        lanes: Of a vector.
    """
    *axes, line = nest.axes
    run = nest.runs[0]
    whole, rest = line.size // lanes, line.size % lanes
    lines: list[str] = []
    if whole:
        bands = (Axis(whole, tuple(step * lanes for step in line.steps)),) if whole > 1 else ()
        band = Nest((*axes, *bands), nest.runs)
        lines += walked([band], tensors, lambda run, at: _band(run, at, lanes, line.steps[1], lanes))
    if rest:
        starts = tuple(start + step * whole * lanes for start, step in zip(run.starts, line.steps, strict=True))
        lines += walked(
            [Nest((*axes,), (replace(run, starts=starts),))], tensors, lambda run, at: _band(run, at, rest, line.steps[1], lanes)
        )
    return lines


def _band(run: Run, at: Sequence[str], rows: int, apart: int, lanes: int) -> list[str]:
    """Return statements that turn a band of squares: some elements of the operand's line at each element of the run.

    Args:
        run: The run.
        at: Where it begins.
        rows: How many elements of the line, a row of the result each.
        apart: Floats from one row of the result to the next.
        lanes: Of a vector.
    """
    source, result = at
    whole, rest = run.size // lanes * lanes, run.size % lanes

    def square(index: str, columns: int) -> str:
        place = moved(source, f"{index} * {run.steps[0]}" if index else "")
        return f"{NAME}_turn({place}, {run.steps[0]}, {moved(result, index)}, {apart}, {rows}, {columns});"

    lines = block(f"for (long i = 0; i < {whole}; i += ES_LANES)", [square("i", lanes)]) if whole else []
    return lines + ([square(str(whole) if whole else "", rest)] if rest else [])


def turn_function(lanes: int) -> str:
    """Return the C function that turns ``rows`` x ``columns`` elements, at most a vector each way, both constants."""
    lines = [f"es_v r{k} = {k} < columns ? {NAME}_take(x + {k} * from, 1, rows) : es_zero();" for k in range(lanes)]
    distance = lanes // 2
    while distance:
        low = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
        high = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
        for first in (k for k in range(lanes) if not k & distance):
            pair = f"r{first}, r{first + distance}"
            lines += [
                f"{{ const es_v a = ES_SHUFFLE({pair}, {', '.join(map(str, low))});",
                f"  r{first + distance} = ES_SHUFFLE({pair}, {', '.join(map(str, high))}); r{first} = a; }}",
            ]
        distance //= 2
    lines += [f"if ({k} < rows) {NAME}_put(y + {k} * to, r{k}, columns);" for k in range(lanes)]
    return f"{SHUFFLE}\n" + defined(
        f"ES_INLINE void {NAME}_turn(const float *x, long from, float *y, long to, int rows, int columns)", lines
    )
