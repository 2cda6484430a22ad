"""Several kernels of one layer in one library, to be checked and timed by turns: what a search for the fastest one runs.

The layer stands alone, with its own layouts, weights and threads. Before each call its threads write their part of its inputs, as the layer
in front of it would have just done: whoever reads what another core wrote pays for it here as well. Where the network's weights do not fit
the second caches, other data passes through these before that, so that the layer's weights come from where they come from in the network.
The clock runs over the kernel and the barrier behind it.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from espalier.compiler.emission import HEADERS, Blob
from espalier.compiler.layouts import Layout, Map
from espalier.compiler.lowering.kernel import NAME, Kernel
from espalier.compiler.lowering.places import stored
from espalier.compiler.lowering.site import Site
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.loading import CompiledModel
from espalier.devices import num_cores

MOST_REPEATS = 256
SEED = 0
C_TYPES = {"float32": "float", "int32": "int32_t"}
RUN = """#include <time.h>

{headers}#include "network.h"

void es_load_zero(float *arena) {{ (void)arena; }}

static double now(void)
{{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}}

/* Each thread reads other data than the kernel's, where there is any, then writes its rows of the inputs. */
static void take(const struct es_context *c, int tid)
{{
  int64_t begin, end;
  const volatile float *other = c->arena + {other};
  for (int64_t i = 0; i < {other_floats}; i += 16) (void)other[tid * INT64_C({other_floats}) + i];
{takes}
}}

/* inputs[0]: which kernel, repeats. outputs[0]: seconds of each repeat; outputs[1]: the result. */
void es_run_thread(const struct es_context *c, int tid)
{{
  const int which = (int)c->inputs[0][0];
  const int64_t repeats = (int64_t)c->inputs[0][1];
  float *y = c->arena + {y};
  if (tid == 0 && repeats == 0) memset(y, 0, {y_floats} * sizeof(float));
  for (int64_t repeat = -1; repeat < repeats; ++repeat) {{
    take(c, tid);
    es_barrier(c->team, tid);
    const double begun = now();
    switch (which) {{
{cases}
    }}
    es_barrier(c->team, tid);
    if (tid == 0 && repeat >= 0) c->outputs[0][repeat] = (float)(now() - begun);
  }}
  if (tid == 0 && repeats == 0) memcpy(c->outputs[1], y, {y_floats} * sizeof(float));
}}
"""


class Trial:
    """Kernels of one layer, loaded with random inputs.

    Args:
        site: The layer.
        kernels: What computes it, in several ways.
        num_threads: Threads that run it.
        other_bytes: Other data that each thread reads before each call; 0 leaves the weights in the caches.

    Raises:
        ValueError: A kernel does not compile, or the machine has no C compiler.
    """

    def __init__(self, site: Site, kernels: Sequence[Kernel], *, num_threads: int, other_bytes: int = 0) -> None:
        self.kernels = tuple(kernels)
        generator = torch.Generator().manual_seed(SEED)
        shapes = [site.graph[name].shape for name in site.node.inputs]
        self.inputs = [stored(torch.randn(shape, generator=generator), layout) for shape, layout in zip(shapes, site.inputs, strict=True)]
        self.num_floats = site.output.floats
        self.seconds_of = np.zeros(MOST_REPEATS, np.float32)
        self.result = np.zeros(self.num_floats, np.float32)
        blob = Blob()
        with tempfile.TemporaryDirectory(prefix="espalier-trial-") as folder:
            library = build(_sources(site, kernels, blob, num_threads, other_bytes), site.isa.name, cache=Path(folder))
            self.native = CompiledModel(library, np.frombuffer(blob.bytes(), np.uint8), num_threads=num_threads)

    def output(self, number: int) -> NDArray[np.float32]:
        """Return what a kernel gives, as its buffer lies in memory, from a buffer of zeros."""
        self._run(number, 0)
        return self.result.copy()

    def seconds(self, number: int, repeats: int) -> float:
        """Return the median time of so many calls of a kernel, after one that does not count."""
        repeats = min(repeats, MOST_REPEATS)
        self._run(number, repeats)
        return float(np.median(self.seconds_of[:repeats]))

    def _run(self, number: int, repeats: int) -> None:
        self.native(np.asarray([number, repeats], np.float32), *self.inputs, out=[self.seconds_of, self.result])

    def close(self) -> None:
        """End its threads."""
        self.native.close()

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _sources(site: Site, kernels: Sequence[Kernel], blob: Blob, num_threads: int, other_bytes: int) -> dict[str, str]:
    """Return the C files: as many of kernels as the compiler has cores, because most of a small file's time is its headers'."""
    places, floats = [], 0
    for layout in (*site.inputs, site.output):
        places.append(floats)
        floats += -(-layout.floats // 1024) * 1024
    *inputs, y = places
    other, other_floats = floats, other_bytes // 4
    floats += num_threads * other_floats
    cases, prototypes, files = [], [], {}
    num_files = min(len(kernels), num_cores())
    bodies: list[list[str]] = [[] for _ in range(num_files)]
    for number, kernel in enumerate(kernels):
        name = f"es_k{number}"
        types = [C_TYPES[str(array.dtype)] for array in kernel.arrays.values()]
        arrays = [f"(const {kind} *)(c->weights + {blob.add(array)})" for kind, array in zip(types, kernel.arrays.values(), strict=True)]
        parameters = [*(f"const float *x{k}" for k in range(len(inputs))), "float *y", *(f"const {kind} *" for kind in types)]
        prototypes.append(f"void {name}(const struct es_context *c, int tid, {', '.join(parameters)});")
        arguments = ", ".join([*(f"c->arena + {place}" for place in inputs), "y", *arrays])
        cases.append(f"      case {number}: {name}(c, tid, {arguments}); break;")
        bodies[number % num_files].append(kernel.source.replace(NAME, name))
    for number, body in enumerate(bodies):
        files[f"kernel_{number}.c"] = "\n".join([f'{HEADERS}#include "network.h"\n', *body])
    takes = "\n".join(_take(k, place, layout) for k, (place, layout) in enumerate(zip(inputs, site.inputs, strict=True), 1))
    sizes = [layout.floats for layout in site.inputs]
    shapes = {"inputs": [[2], *([size] for size in sizes)], "outputs": [[MOST_REPEATS], [site.output.floats]]}
    info = json.dumps(json.dumps({"isa": site.isa.name, **shapes}))
    files["network.h"] = f"""#include "espalier_runtime.h"
#define ES_NUM_INPUTS {1 + len(sizes)}
#define ES_NUM_OUTPUTS 2
#define ES_INPUT_FLOATS {{{", ".join(map(str, [2, *sizes]))}}}
#define ES_OUTPUT_FLOATS {{{MOST_REPEATS}, {site.output.floats}}}
#define ES_ARENA_FLOATS {floats}
#define ES_SCRATCH_FLOATS {max(kernel.scratch_floats for kernel in kernels)}
#define ES_WEIGHTS_FLOATS {blob.size // 4}
#define ES_INFO {info}
{chr(10).join(prototypes)}
"""
    files["network.c"] = RUN.format(
        headers=HEADERS, other=other, other_floats=other_floats, takes=takes, y=y, y_floats=site.output.floats, cases="\n".join(cases)
    )
    return files


def _take(number: int, place: int, layout: Layout) -> str:
    """Return statements that copy a thread's rows of an input: of a map those of each line of channels, else a stretch."""
    if not isinstance(layout, Map):
        lines, rows, row = 1, layout.floats, 1
    else:
        depth, height, width = layout.padded
        lines, rows, row = layout.lines, depth * height, width * layout.line
    return f"""  es_split({rows}, tid, c->threads, &begin, &end);
  for (int64_t line = 0; line < {lines}; ++line) {{
    const int64_t from = line * {rows * row} + begin * {row};
    memcpy(c->arena + {place} + from, c->inputs[{number}] + from, (size_t)(end - begin) * {row} * sizeof(float));
  }}"""
