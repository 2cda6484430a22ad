"""The statements of a run of elements: whole vectors, then the lanes that are left."""

from collections.abc import Callable, Sequence

from espalier.compiler.lowering.kernel import NAME
from espalier.compiler.lowering.loops import block, element

Statements = Callable[[str, int], Sequence[str]]  # index of the first element ("" for 0), how many -> statements

STRIDED = f"""/* The first n lanes from floats that lie apart. */
ES_INLINE es_v {NAME}_strided(const float *p, long apart, int n)
{{
  es_v x = es_zero();
  for (int lane = 0; lane < n; ++lane) x[lane] = p[lane * apart];
  return x;
}}
"""
TAKE = f"""/* n elements that lie a distance apart, zeros in the lanes behind them; n and the distance are constants. */
ES_INLINE es_v {NAME}_take(const float *p, long apart, int n)
{{
  if (apart == 0) return es_splat(*p);
  if (apart == 1) return n == ES_LANES ? es_loadu(p) : es_load_first(p, n);
  return {NAME}_strided(p, apart, n);
}}
"""
PUT = f"""/* Writes the first n lanes; n is a constant. */
ES_INLINE void {NAME}_put(float *p, es_v x, int n)
{{
  if (n == ES_LANES) es_storeu(p, x);
  else es_store_first(p, x, n);
}}
"""


def helpers(lines: Sequence[str]) -> list[str]:
    """Return the C functions of this module that some C text calls."""
    functions = {"put": PUT, "take": TAKE, "strided": STRIDED}
    found: list[str] = []
    for name, text in functions.items():
        if any(f"{NAME}_{name}(" in line for line in (*lines, *found)):
            found.insert(0, text)
    return found


def vectorised(size: int, lanes: int, statements: Statements) -> list[str]:
    """Return the statements of a run.

    Args:
        size: Its elements.
        lanes: Of a vector.
        statements: Those of one vector.
    """
    whole, rest = size // lanes * lanes, size % lanes
    lines: list[str] = []
    if whole == lanes:
        lines += _scoped(statements("", lanes))
    elif whole:
        lines += block(f"for (int i = 0; i < {whole}; i += ES_LANES)", statements("i", lanes))
    if rest:
        lines += _scoped(statements(str(whole) if whole else "", rest))
    return lines


def _scoped(lines: Sequence[str]) -> list[str]:
    """Return statements in braces, where they are several and may declare something."""
    return block("", lines) if len(lines) > 1 else [*lines]


def load(place: str, step: int, index: str, count: int, lanes: int) -> str:
    """Return the C expression of elements of a run; zeros in the lanes behind them.

    Args:
        place: Where the run begins.
        step: Floats between neighbours.
        index: The first element; empty for the run's first.
        count: How many.
        lanes: Of a vector.
    """
    match step:
        case 0:
            return f"es_splat({element(place, 0)})"
        case 1:
            return f"es_loadu({moved(place, index)})" if count == lanes else f"es_load_first({moved(place, index)}, {count})"
    return f"{NAME}_strided(&{element(place, step, index or '0')}, {step}, {count})"


def store(place: str, value: str, index: str, count: int, lanes: int) -> str:
    """Return the statement that writes elements of a run whose neighbours lie side by side."""
    place = moved(place, index)
    return f"es_storeu({place}, {value});" if count == lanes else f"es_store_first({place}, {value}, {count});"


def filled(value: str, count: int, lanes: int, number: str) -> str:
    """Return the C expression of a vector with a number in the lanes behind the first ``count``."""
    return value if count == lanes else f"es_filled({value}, {count}, {number})"


def moved(place: str, index: str) -> str:
    """Return the C expression of a place some floats further."""
    return f"{place} + {index}" if index else place
