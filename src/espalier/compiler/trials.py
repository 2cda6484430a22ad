"""Several kernels of one layer in one library, to be checked and timed by turns: what a search for the fastest one runs.

The layer stands alone, with its own layouts, weights and threads. Before each call its threads write their part of its inputs, as the layer
in front of it would have just done: whoever reads what another core wrote pays for it here as well. Where the network's weights do not fit
the second caches, other data passes through these before that, so that the layer's weights come from where they come from in the network.
The clock runs over the kernel and the barrier behind it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from espalier.compiler.layouts import Layout, Map
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.places import stored
from espalier.compiler.lowering.site import Site
from espalier.compiler.parts import HEADERS, Parts
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.emitted import HEADER, network_header
from espalier.compiler.runtime.loading import CompiledModel
from espalier.devices import num_cores

MOST_REPEATS = 256
SEED = 0
RUN = """#include <time.h>

{headers}void es_load_zero(float *arena) {{ (void)arena; }}

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
        parts = Parts()
        with tempfile.TemporaryDirectory(prefix="espalier-trial-") as folder:
            library = build(_sources(site, kernels, parts, num_threads, other_bytes), site.isa.name, cache=Path(folder))
            self.native = CompiledModel(library, np.frombuffer(parts.blob.bytes(), np.uint8), num_threads=num_threads)

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


def _sources(site: Site, kernels: Sequence[Kernel], parts: Parts, num_threads: int, other_bytes: int) -> dict[str, str]:
    """Return the C files: as many of kernels as the compiler has cores, because most of a small file's time is its headers'."""
    places, floats = [], 0
    for layout in (*site.inputs, site.output):
        places.append(floats)
        floats += -(-layout.floats // 1024) * 1024
    *inputs, y = places
    other, other_floats = floats, other_bytes // 4
    floats += num_threads * other_floats
    calls = [parts.call(kernel, [f"c->arena + {place}" for place in inputs], "y") for kernel in kernels]
    cases = [f"      case {number}: {call} break;" for number, call in enumerate(calls)]
    takes = [_take(number, place, layout) for number, (place, layout) in enumerate(zip(inputs, site.inputs, strict=True), 1)]
    shapes = {"inputs": [[2], *([layout.floats] for layout in site.inputs)], "outputs": [[MOST_REPEATS], [site.output.floats]]}
    header = network_header(
        {"isa": site.isa.name, **shapes},
        arena_floats=floats,
        scratch_floats=max(kernel.scratch_floats for kernel in kernels),
        weights_bytes=parts.blob.size,
        prototypes=parts.prototypes,
    )
    run = RUN.format(
        headers=HEADERS,
        other=other,
        other_floats=other_floats,
        takes="\n".join(takes),
        y=y,
        y_floats=site.output.floats,
        cases="\n".join(cases),
    )
    return {**parts.files(num_cores()), HEADER: header, "network.c": run}


def _take(number: int, place: int, layout: Layout) -> str:
    """Return statements that copy a thread's rows of an input: of a map whole ones, else a stretch."""
    if not isinstance(layout, Map):
        rows, row = layout.floats, 1
    else:
        depth, height, _ = layout.padded
        rows, row = depth * height, layout.strides[1]
    return f"""  es_split({rows}, tid, c->threads, &begin, &end);
  memcpy(c->arena + {place} + begin * {row}, c->inputs[{number}] + begin * {row}, (size_t)(end - begin) * {row} * sizeof(float));"""
