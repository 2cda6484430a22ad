"""Kernels alone: several in one library, run and timed by turns on one thread, without a network around them.

Times are those of the thread on its CPU, so that neighbours on a shared machine, which interrupt the longest kernels most, don't count.
Everything a kernel reads is warm: each is run once before its clock starts. ``trials`` times candidates of one layer as a network runs
them, by all threads and behind whoever wrote their input, which is another clock around other calls.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espalier.compiler.isas import Isa
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.parts import HEADERS, Parts
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.emitted import HEADER, network_header
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.weights import aligned_blob

RUN = """#include <time.h>

void es_load_zero(float *arena) { (void)arena; }

static double es_now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* inputs[0]: which kernel, repeats, floats of its result. outputs[0]: seconds of a repeat. outputs[1]: the result. */
void es_run_thread(const struct es_context *c, int tid)
{
  const int which = (int)c->inputs[0][0], repeats = (int)c->inputs[0][1];
  es_one(c, tid, which);
  const double begun = es_now();
  for (int repeat = 0; repeat < repeats; ++repeat) es_one(c, tid, which);
  c->outputs[0][0] = (float)((es_now() - begun) / (repeats ? repeats : 1));
  memcpy(c->outputs[1], c->arena, (size_t)c->inputs[0][2] * sizeof(float));
}
"""
STRETCH_S = 1e-3  # a timed stretch: far above the resolution of the clock
MOST_REPEATS = 1 << 16


@dataclass(frozen=True)
class Alone:
    """A kernel with all that it reads.

    Args:
        kernel: The kernel; of one input.
        source: The input's buffer, as its layout has it.
        result_floats: Size of the result's buffer.
    """

    kernel: Kernel
    source: np.ndarray
    result_floats: int


class Kernels:
    """Some kernels in one library; use it as a context manager.

    Args:
        parts: The kernels, at least one.
        isa: Instruction set.

    Raises:
        ValueError: There is no kernel, no C compiler, or it failed.
    """

    def __init__(self, parts: Sequence[Alone], isa: Isa) -> None:
        if not parts:
            raise ValueError("there are no kernels to time; give at least one.")
        self.parts = parts
        self._most = max(part.result_floats for part in parts)
        files, blob = self._emitted(isa)
        self._model = CompiledModel(build(files, isa.name), aligned_blob(blob), num_threads=1)

    def __enter__(self) -> "Kernels":
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()

    def result(self, number: int) -> np.ndarray:
        """Return the buffer that a kernel wrote."""
        return self._run(number, 0)[1]

    def medians_ms(self, numbers: Sequence[int], *, num_warmup: int, num_runs: int) -> list[float]:
        """Return the median milliseconds of some kernels, timed by turns.

        Args:
            numbers: Which ones.
            num_warmup: Rounds before the clock counts.
            num_runs: Rounds that count.
        """
        repeats = [min(MOST_REPEATS, max(1, int(STRETCH_S / max(self._run(number, 1)[0], 1e-7)))) for number in numbers]
        times: list[list[float]] = [[] for _ in numbers]
        for round_number in range(num_warmup + num_runs):
            for number, count, taken in zip(numbers, repeats, times, strict=True):
                seconds = self._run(number, count)[0]
                if round_number >= num_warmup:
                    taken.append(seconds)
        return [1e3 * statistics.median(taken) for taken in times]

    def _run(self, number: int, repeats: int) -> tuple[float, np.ndarray]:
        floats = self.parts[number].result_floats
        seconds, result = self._model(np.asarray([number, repeats, floats if repeats == 0 else 0], np.float32))
        return float(seconds[0]), result[:floats]

    def _emitted(self, isa: Isa) -> tuple[dict[str, str], bytes]:
        parts = Parts()
        calls = [parts.call(part.kernel, [parts.blob.pointer(part.source)], "c->arena") for part in self.parts]
        cases = [f"    case {number}: {call} break;" for number, call in enumerate(calls)]
        one = ["static void es_one(const struct es_context *c, int tid, int which)", "{", "  switch (which) {", *cases, "  }", "}"]
        header = network_header(
            {"isa": isa.name, "inputs": [[3]], "outputs": [[1], [self._most]]},
            arena_floats=self._most,
            scratch_floats=max(part.kernel.scratch_floats for part in self.parts),
            weights_bytes=parts.blob.size,
            prototypes=parts.prototypes,
        )
        return {**parts.files(), HEADER: header, "network.c": "\n".join([HEADERS, *one, "", RUN])}, parts.blob.bytes()
