"""What template F does behind its loop where registers are not the place for it: other activations, and rows of ragged length.

The loop leaves a block's sums in a buffer on the stack, and each result is written once, whole: two threads may compute the same pixels
where tiles overlap, and neither may read what the other one is about to finish.
"""

from typing import TYPE_CHECKING

from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Lines
from espalier.compiler.lowering.filters_loop import Loop
from espalier.compiler.lowering.functions import activated
from espalier.compiler.lowering.kernel import NAME

if TYPE_CHECKING:
    from espalier.compiler.lowering.filters import Convolution


def unwhole(result: Lines, isa: Isa) -> int:
    """Return how many filters of a row's last vector may be written, the next row lying right behind them; 0 where all may."""
    return result.channels % isa.lanes if result.strides[2] == result.channels else 0


def finish(layer: "Convolution", loop: Loop, isa: Isa, rest: int) -> str:
    """Return a function that adds the residual to a block's sums, applies the activation and writes the result.

    Args:
        layer: The layer.
        loop: Where its results and residuals lie.
        isa: Instruction set.
        rest: Filters of a row's last vector; 0 where the vector is whole.
    """
    pixels, vectors = range(len(loop.outputs)), range(loop.vectors)
    tables = {"place": [loop.place(vector, pixel, isa.lanes) for vector in vectors for pixel in pixels]}
    if loop.residuals:
        tables["added"] = [loop.added(vector, pixel, isa.lanes) for vector in vectors for pixel in pixels]
    constants = "\n".join(f"  static const int32_t {name}[] = {{{', '.join(map(str, table))}}};" for name, table in tables.items())
    sums = f"es_load(sums + (p * {loop.vectors} + v) * ES_LANES)"

    def written(load: str, store: str) -> str:
        value = f"{sums} + {load.format('r + added[i]')}" if loop.residuals else sums
        return store.format("y + place[i]", activated(value, layer.settings, layer.activation))

    whole = written("es_loadu({0})", "es_storeu({0}, {1});")
    part = written(f"es_load_first({{0}}, {rest})", f"es_store_first({{0}}, {{1}}, {rest});")
    body = f"if (last && v == vectors - 1) {part}\n      else {whole}" if rest else whole
    head = f"const float *sums, {'const float *r, ' if loop.residuals else ''}float *y, int vectors{', int last' if rest else ''}"
    return f"""static void {NAME}_finish({head})
{{
{constants}
  for (int v = 0; v < vectors; ++v)
    for (int p = 0; p < {len(pixels)}; ++p) {{
      const int i = v * {len(pixels)} + p;
      {body}
    }}
}}
"""
