"""Template V: a linear layer of one row. Weights stream by once, so memory sets the pace: filters in the lanes, several sums at a time."""

import torch

from espalier.compiler.bcrc import pack
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Lines
from espalier.compiler.lowering.filters import Convolution, offsets
from espalier.compiler.lowering.filters_shares import SHARE_OF_FILTERS
from espalier.compiler.lowering.functions import activated
from espalier.compiler.lowering.kernel import NAME, Kernel

SUMS = 4  # independent sums of a vector of filters: an FMA takes four cycles


def lowered_vector(layer: Convolution, source: Lines, result: Lines, residual: Lines | None, isa: Isa) -> Kernel:
    """Return the kernel of a linear layer whose rows lie one after the other.

    Args:
        layer: What it computes; kernel of one position.
        source: Its input.
        result: Its output; a row need not take whole vectors.
        residual: What is added before the activation.
        isa: Instruction set.
    """
    filters, channels = layer.weight.shape[:2]
    group = next(size for size in (SUMS, 2, 1) if channels % size == 0)
    packed = pack(layer.weight, layer.mask, block_filters=isa.lanes, group_channels=group)
    bias = torch.zeros(packed.num_blocks * isa.lanes)
    bias[:filters] = layer.bias.detach()
    sums = " + ".join(f"s{n}" for n in range(group))
    steps = "\n".join(f"        s{n} += es_load(weight + {n * isa.lanes}) * es_splat(in[{n}]);" for n in range(group))
    add = "" if residual is None else f"sum += es_load_first(r + t * {residual.strides[2]} + p * {isa.lanes}, used);\n      "
    activation = "" if layer.activation is None else f"sum = {activated('sum', layer.settings, layer.activation)};\n      "
    extra = "" if residual is None else ", const float *r"
    text = f"""#include <math.h>

{SHARE_OF_FILTERS}
void {NAME}(const struct es_context *c, int tid, const float *x{extra}, float *y,
    const int32_t *start, const int32_t *entry, const float *w, const float *bias)
{{
  int64_t first, last, tile; /* always 0: of one tile no block is parted */
  {NAME}_share(start, {packed.num_blocks}, 1, tid, c->threads, &first, &tile);
  {NAME}_share(start, {packed.num_blocks}, 1, tid + 1, c->threads, &last, &tile);
  for (int64_t p = first; p < last; ++p) {{
    const int used = {filters} - p * {isa.lanes} < {isa.lanes} ? {filters} - p * {isa.lanes} : {isa.lanes};
    for (int64_t t = 0; t < {result.size[2]}; ++t) {{
      es_v {", ".join(f"s{n} = es_zero()" for n in range(group))};
      const float *weight = w + start[p] * INT64_C({group * isa.lanes});
      for (int64_t e = start[p]; e < start[p + 1]; ++e, weight += {group * isa.lanes}) {{
        const float *in = (const float *)((const char *)(x + t * {source.strides[2]}) + entry[e]);
{steps}
      }}
      es_v sum = es_load(bias + p * {isa.lanes}) + ({sums});
      {add}{activation}es_store_first(y + t * {result.strides[2]} + p * {isa.lanes}, sum, used);
    }}
  }}
}}
"""
    arrays = {"start": packed.start, "entry": offsets(packed, layer, source), "w": packed.weights, "bias": bias.numpy()}
    return Kernel("V", text, arrays, packed.executed * result.size[2], f"gM={isa.lanes} gN={group}")
