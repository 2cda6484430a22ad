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
from espalier.compiler.lowering.loops import added, block, defined, function, repeated, signature
from espalier.compiler.lowering.places import stored
from espalier.compiler.lowering.rows import Vectors, maps, over_row, vectors
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
        return [f"const es_v d = {filled(f'{element(index, count)} - mean', count, lanes, '0.0f')};", "squares += d * d;"]

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
    place, at = added("x0", source.origin, f"(first + l) * {source.line_stride}"), f"l * {source.line}"
    statements = [
        f"const long first = t * {lines_of}, lines = {_at_most(lines_of, source.lines, 'first')};",
        f"const long groups = {_at_most(groups_of, node['groups'], f't * {groups_of}')};",
        f"float sums[{task}], center[{task}] = {{0}}, variance[{task}] = {{0}};",
        f"{each_line}sums({place}, center + {at}, 1, sums + {at});",
        f"{NAME}_share(sums, groups, center);",
        f"{each_line}sums({place}, center + {at}, 2, sums + {at});",
        f"{NAME}_share(sums, groups, variance);",
        *block(
            "for (long l = 0; l < lines; ++l)",
            [
                f"const float *w = weight + (first + l) * {source.line}, *b = bias + (first + l) * {source.line};",
                f"float *to = {added('y', result.origin, f'(first + l) * {result.line_stride}')};",
                f"{NAME}_normal({place}, center + {at}, variance + {at}, w, b, to);",
            ],
        ),
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
    pixel = [f"const es_v d = {_pixel(source, line, 'x')} - middle;", "if (power == 1) part += d;", "else part += d * d;"]
    pixels = block(f"for (long column = 0; column < {source.size[2]}; ++column)", pixel)
    lines = [
        f"const es_v middle = {line.load('center + lane')};",
        "es_v sum = es_zero();",
        *_every_row(source, ["es_v part = es_zero();", *pixels, "sum += part;"]),
        line.store("sums + lane", "sum"),
    ]
    head = f"ES_INLINE void {NAME}_sums(const float *x, const float *center, int power, float *sums)"
    comment = "/* For each channel of a line the sum over its pixels of (x - center)^power; power is 1 or 2. */"
    return f"{comment}\n{defined(head, line.over(lines))}"


def _every_row(source: Map, lines: Sequence[str]) -> list[str]:
    """Return loops over the rows of a line."""
    return repeated("z", source.size[0], repeated("row", source.size[1], lines))


def _pixel(layout: Map, line: Vectors, tensor: str) -> str:
    """Return the C expression of a vector of a pixel."""
    return line.load(_place(layout, tensor))


def _place(layout: Map, tensor: str) -> str:
    return added(tensor, *over_row(layout.size, *layout.strides[:2]), f"column * {layout.line}", "lane")


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
    value = f"({_pixel(source, line, 'x')} - middle) * scale + shift"
    pixels = block(f"for (long column = 0; column < {source.size[2]}; ++column)", [line.store(_place(result, "y"), value)])
    lines = [
        f"const es_v middle = {line.load('center + lane')}, shift = {line.load('bias + lane')};",
        f"const es_v scale = {line.load('weight + lane')} / es_sqrt({line.load('variance + lane')} + {literal(eps)});",
        *_every_row(source, pixels),
    ]
    given = ("x", "center", "variance", "weight", "bias")
    head = f"ES_INLINE void {NAME}_normal({', '.join(f'const float *{name}' for name in given)}, float *y)"
    return f"/* (x - center) / sqrt(variance + eps) * weight + bias for a line. */\n{defined(head, line.over(lines))}"
