"""A program as C files and one blob of constants (the runtime's headers say what they may use)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espalier.compiler.layouts import Map, Plain
from espalier.compiler.parts import HEADERS, Parts
from espalier.compiler.program import Program, Step
from espalier.compiler.runtime.emitted import HEADER, network_header
from espalier.compiler.watching import ALL as WATCH_ALL
from espalier.compiler.watching import TEXT as WATCH
from espalier.compiler.watching import watched

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
    parts = Parts()
    calls: list[str] = []
    for number, step in enumerate(program.steps):
        calls += [*_call(step, program, parts), f"ES_TICK({number});"]
    info = _info(program)
    header = network_header(
        info,
        arena_floats=program.plan.floats,
        scratch_floats=max((step.kernel.scratch_floats for step in program.steps), default=0),
        weights_bytes=parts.blob.size,
        prototypes=parts.prototypes,
    )
    files = {**parts.files(), HEADER: header, "network.c": _network(program, calls)}
    return Emitted(files, parts.blob.bytes(), info)


def _call(step: Step, program: Program, parts: Parts) -> list[str]:
    node = step.node
    spans = [(parts.blob.add(array), array.nbytes) for array in step.kernel.arrays.values()]
    lines = [watched(step, program, spans)]
    if node.name in program.plan.zeroed:
        lines.append(f"{_border_function(program, node.name)}(c, tid);")
    inputs = [f"c->arena + {program.place(source)}" for source in node.inputs]
    if node.op == "input":
        inputs = [f"c->inputs[{node['index']}]"]
    lines.append(parts.call(step.kernel, inputs, f"c->arena + {program.place(node.name)}"))
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
    float *row = c->arena + {program.place(step.node.name)} + (i * {layout.lines} + line) * {row};
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
    return f"""{HEADERS}/* The arena comes zeroed, which is what borders and the channels that fill a line want. */
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


def _info(program: Program) -> dict[str, object]:
    graph = program.graph
    return {
        "isa": program.isa.name,
        "inputs": [list(node.shape) for node in graph.inputs],
        "outputs": [list(graph[name].shape) for name in graph.outputs],
        "arena_bytes": program.plan.floats * 4,
    }
