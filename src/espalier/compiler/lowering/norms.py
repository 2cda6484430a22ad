"""Normalisations whose mean and variance are of the sample: ``layer_norm`` over rows, ``group_norm`` over groups of a map's channels."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from espalier.compiler.graph import Graph, Node
from espalier.compiler.isas import Isa
from espalier.compiler.layouts import Layout, Map, Plain, map_of
from espalier.compiler.lowering.functions import literal
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.loops import block, function, signature
from espalier.compiler.lowering.places import stored
from espalier.compiler.lowering.rows import Vectors, maps, vectors
from espalier.compiler.lowering.runs import filled, helpers, load, store, vectorised


def lower_layer_norm(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a layer norm over the last axes.

    Raises:
        ValueError: A tensor of it is a map.
    """
    if not all(isinstance(layout, Plain) for layout in (*inputs, output)):
        raise ValueError(f"{node.name} (layer_norm) has a kernel for row-major tensors; a tensor of it is a map. Convert it first.")
    size = math.prod(node.shape[-node["num_axes"] :])
    arrays = {
        role: graph.constants[node.constants[role]].detach().numpy().reshape(-1) for role in ("weight", "bias") if role in node.constants
    }
    lanes = isa.lanes

    def element(index: str, count: int) -> str:
        return load("from", 1, index, count, lanes)

    def square(index: str, count: int) -> list[str]:
        return block("", [f"const es_v d = {filled(f'{element(index, count)} - mean', count, lanes, '0.0f')};", "squares += d * d;"])

    def normal(index: str, count: int) -> list[str]:
        value = f"({element(index, count)} - mean) * scale"
        value += f" * {load('weight', 1, index, count, lanes)}" if "weight" in arrays else ""
        value += f" + {load('bias', 1, index, count, lanes)}" if "bias" in arrays else ""
        return [store("to", value, index, count, lanes)]

    row = [
        f"const float *from = x0 + row * {size};",
        f"float *to = y + row * {size};",
        "es_v sum = es_zero(), squares = es_zero();",
        *vectorised(size, lanes, lambda index, count: [f"sum += {element(index, count)};"]),
        f"const float mean = es_sum(sum) * {literal(1 / size)};",
        *vectorised(size, lanes, square),
        f"const float scale = 1.0f / sqrtf(es_sum(squares) * {literal(1 / size)} + {literal(node['eps'])});",
        *vectorised(size, lanes, normal),
    ]
    rows = math.prod(node.shape) // size
    body = [f"es_split({rows}, tid, c->threads, &begin, &end);", *block("for (long row = begin; row < end; ++row)", row)]
    return Kernel("norm", function(signature(1, arrays), body, helpers(body)), arrays)


def lower_group_norm(node: Node, inputs: Sequence[Layout], output: Layout, isa: Isa, graph: Graph) -> Kernel:
    """Return the kernel of a group norm over a map.

    A task is the fewest whole lines that are whole groups as well. Sums over pixels are taken a lane a channel, then joined by group.
    """
    source, result = maps(node, *inputs, output)
    group = source.channels // node["groups"]
    task = min(math.lcm(group, source.line), source.lines * source.line)
    arrays = {role: _padded(graph.constant(node, role), value, result) for role, value in (("weight", 1.0), ("bias", 0.0))}
    lines_of, groups_of = task // source.line, max(1, task // group)
    num_tasks = -(-source.lines // lines_of)
    each_line = f"for (long l = 0; l < lines; ++l) {NAME}_"
    place, at = f"x0 + {source.origin} + (first + l) * {source.line_stride}", f"l * {source.line}"
    statements = [
        f"const long first = t * {lines_of}, lines = {_at_most(lines_of, source.lines, 'first')};",
        f"const long groups = {_at_most(groups_of, node['groups'], f't * {groups_of}')};",
        f"float sums[{task}], center[{task}] = {{0}}, variance[{task}] = {{0}};",
        f"{each_line}sums({place}, center + {at}, 1, sums + {at});",
        f"{NAME}_share(sums, groups, center);",
        f"{each_line}sums({place}, center + {at}, 2, sums + {at});",
        f"{NAME}_share(sums, groups, variance);",
        f"{each_line}normal({place}, center + {at}, variance + {at}, weight + (first + l) * {source.line},",
        f"    bias + (first + l) * {source.line}, y + {result.origin} + (first + l) * {result.line_stride});",
    ]
    body = [f"es_split({num_tasks}, tid, c->threads, &begin, &end);", *block("for (long t = begin; t < end; ++t)", statements)]
    line = vectors(result, isa)
    functions = [_sums(source, line), _share(group, source), _normal(source, result, line, node["eps"])]
    return Kernel("norm", function(signature(1, arrays), body, functions), arrays, detail=f"groups={node['groups']}")


def _padded(value: Tensor | None, absent: float, result: Map) -> np.ndarray:
    """Return a constant of one number a channel in lines."""
    shape = (1, result.channels)
    return stored(torch.full(shape, absent) if value is None else value.reshape(shape), map_of(shape, line=result.line))


def _at_most(size: int, total: int, before: str) -> str:
    """Return the C expression of how many of ``size`` are left of ``total`` behind ``before``."""
    return str(min(size, total)) if total % size == 0 or size >= total else f"{total} - {before} < {size} ? {total} - {before} : {size}"


def _sums(source: Map, line: Vectors) -> str:
    depth, height, width = source.size
    steps = source.strides
    return f"""/* For each channel of a line the sum over its pixels of (x - center)^power; power is 1 or 2. */
ES_INLINE void {NAME}_sums(const float *x, const float *center, int power, float *sums)
{{
  for (int lane = 0; lane < {line.line}; lane += ES_LANES) {{
    const es_v middle = {line.load("center + lane")};
    es_v sum = es_zero();
    for (long z = 0; z < {depth}; ++z) {{
      for (long row = 0; row < {height}; ++row) {{
        es_v part = es_zero();
        for (long column = 0; column < {width}; ++column) {{
          const es_v d = {line.load(f"x + z * {steps[0]} + row * {steps[1]} + column * {steps[2]} + lane")} - middle;
          if (power == 1) part += d;
          else part += d * d;
        }}
        sum += part;
      }}
    }}
    {line.store("sums + lane", "sum")}
  }}
}}
"""


def _share(group: int, source: Map) -> str:
    return f"""/* Gives every channel of a group the mean over the group's channels and pixels. */
ES_INLINE void {NAME}_share(const float *sums, long groups, float *means)
{{
  for (long g = 0; g < groups; ++g, sums += {group}, means += {group}) {{
    float total = 0.0f;
    for (int k = 0; k < {group}; ++k) total += sums[k];
    for (int k = 0; k < {group}; ++k) means[k] = total * {literal(1 / (group * math.prod(source.size)))};
  }}
}}
"""


def _normal(source: Map, result: Map, line: Vectors, eps: float) -> str:
    depth, height, width = source.size
    before, after = source.strides, result.strides
    return f"""/* (x - center) / sqrt(variance + eps) * weight + bias for a line. */
ES_INLINE void {NAME}_normal(const float *x, const float *center, const float *variance, const float *weight, const float *bias, float *y)
{{
  for (int lane = 0; lane < {line.line}; lane += ES_LANES) {{
    const es_v middle = {line.load("center + lane")}, shift = {line.load("bias + lane")};
    const es_v scale = {line.load("weight + lane")} / es_sqrt({line.load("variance + lane")} + {literal(eps)});
    for (long z = 0; z < {depth}; ++z) {{
      for (long row = 0; row < {height}; ++row) {{
        const float *from = x + z * {before[0]} + row * {before[1]} + lane;
        float *to = y + z * {after[0]} + row * {after[1]} + lane;
        for (long column = 0; column < {width}; ++column) {{
          {line.store(f"to + column * {after[2]}", f"({line.load(f'from + column * {before[2]}')} - middle) * scale + shift")}
        }}
      }}
    }}
  }}
}}
"""
