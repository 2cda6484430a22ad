/* A network that computes nothing but how fast this machine is: it stands where an emitted network.c would, and runs on the same team.
 *
 * inputs[0]: what (0: multiply-adds, 1: reading), repeats, floats that each thread reads. inputs[1]: memory to read, 64-byte aligned.
 * outputs[0]: seconds from all threads' start to all threads' end. outputs[1]: what was computed, so that no compiler leaves it out.
 */
#include <time.h>

#include "espalier_isa.h"
#include "network.h"

#define ES_CHAINS(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11)

void es_load_zero(float *arena) { arena[0] = 0.0f; }

/* Twelve independent chains: more than latency times issue width of any core we know, few enough for 16 registers. */
static float multiply_add(int64_t repeats, float factor) {
    const es_v x = es_splat(factor), y = es_splat(1.0f - factor);
#define ES_BEGIN(i) es_v s##i = es_splat((float)i);
    ES_CHAINS(ES_BEGIN)
    for (int64_t repeat = 0; repeat < repeats; ++repeat) {
#define ES_STEP(i) s##i = es_fma(s##i, x, y);
        ES_CHAINS(ES_STEP)
        ES_CHAINS(ES_STEP)
    }
    es_v sum = es_zero();
#define ES_ADD(i) sum += s##i;
    ES_CHAINS(ES_ADD)
    return es_sum(sum);
}

static float read_all(const float *memory, int64_t floats, int64_t repeats) {
    es_v s[8] = {es_zero()};
    for (int64_t repeat = 0; repeat < repeats; ++repeat) {
        for (int64_t i = 0; i + 8 * ES_LANES <= floats; i += 8 * ES_LANES) {
            for (int part = 0; part < 8; ++part) s[part] += es_load(memory + i + part * ES_LANES);
        }
        __asm__ __volatile__("" ::: "memory"); /* or the compiler may read once for all repeats */
    }
    return es_sum(((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void es_run_thread(const struct es_context *c, int tid) {
    const int what = (int)c->inputs[0][0];
    const int64_t repeats = (int64_t)c->inputs[0][1], floats = (int64_t)c->inputs[0][2];
    const float *memory = c->inputs[1] + tid * floats;
    const float factor = c->inputs[1][0] - 1e-6f; /* the memory holds ones, which no compiler knows */
    float result = what == 1 ? read_all(memory, floats, 1) : multiply_add(1000, factor); /* caches and clock are warm from here */
    es_barrier(c->team, tid);
    const double begun = now();
    result += what == 1 ? read_all(memory, floats, repeats) : multiply_add(repeats, factor);
    es_barrier(c->team, tid);
    if (tid == 0) c->outputs[0][0] = (float)(now() - begun);
    c->outputs[1][tid] = result;
}
