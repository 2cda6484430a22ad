"""A network written by hand: what the generator emits, in small. Two inputs, two outputs, two kernels and barriers between them."""

import numpy as np
from numpy.typing import NDArray

from espalier.compiler.isas import ISAS
from espalier.devices import cpu_flags

STRICT = ("-Wall", "-Wextra", "-Werror")
RUNNABLE = [isa.name for isa in ISAS.values() if set(isa.flags) <= cpu_flags()]

ROWS, COLUMNS, ROUNDS = 2, 37, 1
NETWORK_H = """
#ifndef ES_NETWORK_H
#define ES_NETWORK_H
#include "espalier_runtime.h"
#define ES_NUM_INPUTS 2
#define ES_NUM_OUTPUTS 2
#define ES_INPUT_FLOATS {74, 5}
#define ES_OUTPUT_FLOATS {74, 1}
#define ES_ARENA_FLOATS 96
#define ES_SCRATCH_FLOATS 0
#define ES_WEIGHTS_FLOATS 80
#define ES_INFO "{\\"isa\\": \\"ISA\\", \\"inputs\\": [{\\"name\\": \\"x\\", \\"shape\\": [2, 37]}, {\\"name\\": \\"y\\", \\"shape\\": [1, 5]}], \\"outputs\\": [{\\"name\\": \\"z\\", \\"shape\\": [2, 37]}, {\\"name\\": \\"total\\", \\"shape\\": [1, 1]}]}"
void es_k0(const struct es_team *team, int tid, const float *x, const float *scale, float *out, long n);
void es_k1(const struct es_team *team, int tid, const float *in, float *out, long n);
#endif
"""  # noqa: E501
NETWORK_C = """
#include "espalier_isa.h"
#include "network.h"

void es_load_zero(float *arena) { arena[74] = 3.0f; } /* a border, as it were */

void es_run_thread(const struct es_context *c, int tid) {
    const float *scale = (const float *)c->weights;
    es_k0(c->team, tid, c->inputs[0], scale, c->arena, 74);
    es_barrier(c->team, tid);
    for (int round = 0; round < 1; ++round) { /* each reads what another wrote */
        es_k1(c->team, tid, c->arena, c->outputs[0], 74);
        es_barrier(c->team, tid);
        es_k1(c->team, tid, c->outputs[0], c->arena, 74);
        es_barrier(c->team, tid);
    }
    es_k1(c->team, tid, c->arena, c->outputs[0], 74);
    if (tid == 0) c->outputs[1][0] = es_sum(es_load_first(c->inputs[1], 3)) + c->inputs[1][3] + c->inputs[1][4] + c->arena[74];
}
"""
KERNEL_0 = """
#include "espalier_isa.h"
#include "network.h"

/* out = relu(scale * x) */
void es_k0(const struct es_team *team, int tid, const float *x, const float *scale, float *out, long n) {
    int64_t i, end;
    es_split(n, tid, team->threads, &i, &end);
    for (; i + ES_LANES <= end; i += ES_LANES) es_storeu(out + i, es_relu(es_loadu(scale + i) * es_loadu(x + i)));
    if (i < end) {
        const int left = (int)(end - i);
        es_store_first(out + i, es_relu(es_load_first(scale + i, left) * es_load_first(x + i, left)), left);
    }
}
"""
KERNEL_1 = """
#include "network.h"

/* out[i] = in[n-1-i] + 1 */
void es_k1(const struct es_team *team, int tid, const float *in, float *out, long n) {
    int64_t i, end;
    es_split(n, tid, team->threads, &i, &end);
    for (; i < end; ++i) out[i] = in[n - 1 - i] + 1.0f;
}
"""


def sources(isa: str = "generic") -> dict[str, str]:
    """Return the files as the generator would emit them."""
    return {"network.h": NETWORK_H.replace("ISA", isa), "network.c": NETWORK_C, "kernel_0.c": KERNEL_0, "kernel_1.c": KERNEL_1}


def weights() -> NDArray[np.float32]:
    """Return the blob, 64-byte aligned."""
    room = np.zeros(80 + 16, np.float32)
    start = -(room.ctypes.data // 4) % 16
    room[start : start + 74] = np.random.default_rng(0).standard_normal(74)
    return room[start : start + 80]


def inputs(seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a random sample."""
    draw = np.random.default_rng(seed)
    return draw.standard_normal((ROWS, COLUMNS), np.float32), draw.standard_normal((1, 5), np.float32)


def expected(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what the network gives, by NumPy."""
    z = np.maximum(weights()[:74] * x.ravel(), 0)
    for _ in range(2 * ROUNDS + 1):
        z = z[::-1] + np.float32(1)
    return z.reshape(ROWS, COLUMNS), (y.sum() + 3).reshape(1, 1)
