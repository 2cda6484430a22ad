"""A build under ASan in which each step sees only the tensors and constants that it works on.

Activations share one allocation, and so do constants: by itself ASan would let a kernel run from one tensor into the next. Asm is not
checked at all, so that template F has its portable loop there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espalier.compiler.program import Program, Step

TEXT = """#ifdef __SANITIZE_ADDRESS__ /* each step may touch its own tensors and constants only; run one handle at a time */
#include <sanitizer/asan_interface.h>
static void es_watch(const struct es_context *c, int tid, const int64_t *spans, int count, int arena_count)
{
  if (tid == 0) {
    ASAN_POISON_MEMORY_REGION(c->arena, sizeof(float) * ES_ARENA_FLOATS);
    ASAN_POISON_MEMORY_REGION(c->weights, sizeof(float) * ES_WEIGHTS_FLOATS);
    for (int i = 0; i < count; i += 2) { /* first byte, bytes */
      const char *from = i < arena_count ? (const char *)c->arena : (const char *)c->weights;
      ASAN_UNPOISON_MEMORY_REGION(from + spans[i], spans[i + 1]);
    }
  }
  es_barrier(c->team, tid);
}
#define ES_WATCH(arena_count, ...) do { \\
  const int64_t spans[] = {__VA_ARGS__}; \\
  es_watch(c, tid, spans, (int)(sizeof spans / sizeof *spans), arena_count); \\
} while (0)
#else
#define ES_WATCH(arena_count, ...)
#endif
"""
ALL = "ES_WATCH(2, 0, sizeof(float) * ES_ARENA_FLOATS, 0, sizeof(float) * ES_WEIGHTS_FLOATS);"


def watched(step: "Step", program: "Program", constants: Sequence[tuple[int, int]]) -> str:
    """Return the statement before a step.

    Args:
        step: The step.
        program: Where its tensors lie.
        constants: First byte and bytes of each of its constants in the blob.
    """
    names = dict.fromkeys((*step.node.inputs, step.node.name))
    arena = [(4 * program.place(name), 4 * program.layouts[name].floats) for name in names]
    spans = [str(number) for span in (*arena, *constants) for number in span]
    return f"ES_WATCH({2 * len(arena)}, {', '.join(spans)});"
