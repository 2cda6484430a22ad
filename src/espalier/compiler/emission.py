"""A program as C files and one blob of constants (the runtime's headers say what they may use)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from espalier.compiler.layouts import Map, Plain
from espalier.compiler.lowering.kernel import NAME
from espalier.compiler.program import Program, Step
from espalier.compiler.watching import ALL as WATCH_ALL
from espalier.compiler.watching import TEXT as WATCH
from espalier.compiler.watching import watched

ALIGNED = 64  # bytes: each array of the blob begins at a multiple
HEADERS = '#include <stdint.h>\n#include <string.h>\n\n#include "espalier_isa.h"\n#include "espalier_runtime.h"\n\n'


TICKS = """#ifdef ES_PROFILE /* a build of its own: seconds of each step, barriers included, added up over runs */
#include <time.h>
__attribute__((visibility("default"))) double es_step_seconds[NUM_STEPS];
static double es_now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#define ES_TICK_START double tick = tid == 0 ? es_now() : 0.0
#define ES_TICK(i) do { if (tid == 0) { const double now = es_now(); es_step_seconds[i] += now - tick; tick = now; } } while (0)
#else
#define ES_TICK_START
#define ES_TICK(i)
#endif
"""


@dataclass
class Blob:
    """Constants one after the other; equal arrays are stored once."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    known: dict[tuple[str, bytes], int] = field(default_factory=dict)

    def add(self, array: np.ndarray) -> int:
        """Return the first byte of the array, which is appended where it is new."""
        raw = np.ascontiguousarray(array).tobytes()
        key = (array.dtype.str, raw) if len(raw) < 1 << 16 else (array.dtype.str, str(len(self.parts)).encode())
        if key not in self.known:
            self.known[key] = self.size
            padded = raw + bytes(-len(raw) % ALIGNED) or bytes(ALIGNED)
            self.parts.append(padded)
            self.size += len(padded)
        return self.known[key]

    def bytes(self) -> bytes:
        """Return all of it."""
        return b"".join(self.parts)


@dataclass(frozen=True)
class Emitted:
    """What the C compiler and the loader take.

    Args:
        files: File name -> text.
        blob: Constants.
        info: What the library says of itself.
    """

    files: Mapping[str, str]
    blob: bytes
    info: Mapping[str, object]


def emitted(program: Program) -> Emitted:
    """Return the C files of a program; equal kernels share one function."""
    functions: dict[str, str] = {}
    blob, files, calls, prototypes = Blob(), {}, [], []
    for number, step in enumerate(program.steps):
        source = step.kernel.source
        if source not in functions:
            name = f"es_k{len(functions)}"
            functions[source] = name
            files[f"kernel_{len(functions) - 1}.c"] = HEADERS + '#include "network.h"\n\n' + source.replace(NAME, name)
            prototypes.append(_prototype(step, name))
        calls += [*_call(step, functions[source], program, blob), f"ES_TICK({number});"]
    info = _info(program)
    files["network.h"] = _header(program, prototypes, blob.size, info)
    files["network.c"] = _network(program, calls)
    return Emitted(files, blob.bytes(), info)


def _prototype(step: Step, name: str) -> str:
    inputs = [f"const float *x{number}" for number in range(max(1, len(step.node.inputs)) if step.node.op != "constant" else 0)]
    arrays = [f"const {_type(array)} *" for array in step.kernel.arrays.values()]
    return f"void {name}({', '.join(['const struct es_context *c', 'int tid', *inputs, 'float *y', *arrays])});"


def _type(array: np.ndarray) -> str:
    return {"float32": "float", "int32": "int32_t"}[str(array.dtype)]


def _call(step: Step, name: str, program: Program, blob: Blob) -> list[str]:
    node = step.node
    places = [blob.add(array) for array in step.kernel.arrays.values()]
    spans = [(place, array.nbytes) for place, array in zip(places, step.kernel.arrays.values(), strict=True)]
    lines = [watched(step, program, spans)]
    if node.name in program.plan.zeroed:
        lines.append(f"{_border_function(program, node.name)}(c, tid);")
    inputs = [f"c->arena + {program.place(source)}" for source in node.inputs]
    if node.op == "input":
        inputs = [f"c->inputs[{node['index']}]"]
    arrays = [f"(const {_type(array)} *)(c->weights + {place})" for array, place in zip(step.kernel.arrays.values(), places, strict=True)]
    lines.append(f"{name}({', '.join(['c', 'tid', *inputs, f'c->arena + {program.place(node.name)}', *arrays])});")
    lines.append("es_barrier(c->team, tid);")
    return lines


def _border_function(program: Program, name: str) -> str:
    """Return the name of what zeroes a tensor's border: one for each place and geometry."""
    layout = program.layouts[name]
    assert isinstance(layout, Map)
    sizes = [layout.channels, *layout.size, *(end for ends in layout.border for end in ends)]
    return "_".join(["es_zero_border", str(program.place(name)), *map(str, sizes)])


def _border_functions(program: Program) -> list[str]:
    """Return a function for each border that must be zeroed on every run: whole rows, then the ends of the others."""
    made: dict[str, str] = {}
    for step in program.steps:
        if step.node.name not in program.plan.zeroed:
            continue
        layout = program.layouts[step.node.name]
        assert isinstance(layout, Map)
        name = _border_function(program, step.node.name)
        depth, height, width = layout.padded
        (d0, _), (h0, _), (w0, w1) = layout.border
        size_d, size_h, _ = layout.size
        row, before, after = width * layout.line, w0 * layout.line, w1 * layout.line
        made[name] = f"""static void {name}(const struct es_context *c, int tid)
{{
  int64_t first, last, begin, end;
  es_split_map({layout.lines}, {depth * height}, tid, c->threads, &first, &last, &begin, &end);
  for (int64_t line = first; line < last; ++line) for (int64_t i = begin; i < end; ++i) {{
    float *row = c->arena + {program.place(step.node.name)} + (line * {depth * height} + i) * {row};
    const int64_t y = i % {height} - {h0}, z = i / {height} - {d0};
    if (y < 0 || y >= {size_h} || z < 0 || z >= {size_d}) memset(row, 0, {row} * sizeof(float));
    else {{
      memset(row, 0, {before} * sizeof(float));
      memset(row + {row - after}, 0, {after} * sizeof(float));
    }}
  }}
}}
"""
    return list(made.values())


def _network(program: Program, calls: Sequence[str]) -> str:
    outputs = []
    for number, name in enumerate(program.graph.outputs):
        layout = program.layouts[name]
        assert isinstance(layout, Plain)
        outputs += [
            f"es_split({layout.floats}, tid, c->threads, &begin, &end);",
            f"memcpy(c->outputs[{number}] + begin, c->arena + {program.place(name)} + begin, (size_t)(end - begin) * sizeof(float));",
        ]
    body = "\n".join(f"  {line}" for line in ["ES_TICK_START;", *calls, WATCH_ALL, *outputs])
    borders = "\n".join(_border_functions(program))
    return f"""{HEADERS}#include "network.h"

/* The arena comes zeroed, which is what borders and the channels that fill a line want. */
void es_load_zero(float *arena)
{{
  (void)arena;
}}

{TICKS.replace("NUM_STEPS", str(len(program.steps)))}
{WATCH}
{borders}
void es_run_thread(const struct es_context *c, int tid)
{{
  int64_t begin, end;
{body}
}}
"""


def _header(program: Program, prototypes: Sequence[str], blob_bytes: int, info: Mapping[str, object]) -> str:
    graph = program.graph
    text = json.dumps(info).replace("\\", "\\\\").replace('"', '\\"')
    sizes_in = ", ".join(str(_floats(node.shape)) for node in graph.inputs)
    sizes_out = ", ".join(str(_floats(graph[name].shape)) for name in graph.outputs)
    return f"""#ifndef ESPALIER_NETWORK_H
#define ESPALIER_NETWORK_H

#include "espalier_runtime.h"

#define ES_NUM_INPUTS {len(graph.inputs)}
#define ES_NUM_OUTPUTS {len(graph.outputs)}
#define ES_INPUT_FLOATS {{{sizes_in}}}
#define ES_OUTPUT_FLOATS {{{sizes_out}}}
#define ES_ARENA_FLOATS {program.plan.floats}
#define ES_SCRATCH_FLOATS {max((step.kernel.scratch_floats for step in program.steps), default=0)}
#define ES_WEIGHTS_FLOATS {blob_bytes // 4}
#define ES_INFO "{text}"

void es_load_zero(float *arena);
void es_run_thread(const struct es_context *c, int tid);

{chr(10).join(prototypes)}

#endif
"""


def _floats(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _info(program: Program) -> dict[str, object]:
    graph = program.graph
    return {
        "isa": program.isa.name,
        "inputs": [list(node.shape) for node in graph.inputs],
        "outputs": [list(graph[name].shape) for name in graph.outputs],
        "arena_bytes": program.plan.floats * 4,
    }
