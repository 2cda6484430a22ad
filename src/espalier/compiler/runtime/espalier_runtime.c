/* A handle: one network's weights, arena and threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "espalier_runtime.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "espalier_pool.h"
#include "network.h"

#define ES_ALIGNMENT 64
#define ES_HUGE_PAGE (2u << 20)
#define SCRATCH_START ((ES_ARENA_FLOATS + 15) / 16 * 16) /* the arena holds it behind the activations */
#define ES_REGIONS_A_SAMPLE 16 /* of es_fork_join_ns: reading the clock takes about 25 ns */

struct es_model {
    float *arena;
    const unsigned char *weights;
    struct es_pool *pool;
    atomic_flag busy;
};

/* Zeroed memory at a cache line, or, where it fills one, at a huge page, which spares most misses of the TLB. */
static float *allocate(size_t bytes) {
    void *memory = NULL;
    const size_t alignment = bytes < ES_HUGE_PAGE ? ES_ALIGNMENT : ES_HUGE_PAGE;
    if (posix_memalign(&memory, alignment, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (alignment == ES_HUGE_PAGE) (void)madvise(memory, bytes, MADV_HUGEPAGE); /* a kernel without them says no, and no harm done */
#endif
    return memset(memory, 0, bytes);
}

struct es_model *es_open(const void *blob, size_t bytes, int threads, const int *cpus, char *error, size_t error_bytes) {
    const size_t wanted = sizeof(float) * (size_t)ES_WEIGHTS_FLOATS;
    const size_t floats = (size_t)SCRATCH_START + (size_t)ES_SCRATCH_FLOATS * (size_t)(threads > 0 ? threads : 1);
    const size_t arena_bytes = sizeof(float) * (floats > 0 ? floats : 1);
    if (bytes != wanted) {
        snprintf(error, error_bytes, "the weights have %zu bytes, the network wants %zu; they belong to another one.", bytes, wanted);
        return NULL;
    }
    if (bytes > 0 && (uintptr_t)blob % ES_ALIGNMENT != 0) {
        snprintf(error, error_bytes, "the weights start at %p, which is no multiple of %d.", blob, ES_ALIGNMENT);
        return NULL;
    }
    struct es_model *model = calloc(1, sizeof *model);
    float *arena = model == NULL ? NULL : allocate(arena_bytes);
    if (arena == NULL) {
        snprintf(error, error_bytes, "out of memory: the network's activations take %zu bytes.", arena_bytes);
        free(model);
        return NULL;
    }
    *model = (struct es_model){.arena = arena, .weights = blob, .busy = ATOMIC_FLAG_INIT};
    model->pool = es_pool_open(threads, cpus, error, error_bytes);
    if (model->pool == NULL) {
        es_close(model);
        return NULL;
    }
    es_load_zero(arena);
    return model;
}

static void run_thread(const void *context, int tid) { es_run_thread(context, tid); }

int es_run(struct es_model *model, const float *const *inputs, float *const *outputs) {
    if (atomic_flag_test_and_set_explicit(&model->busy, memory_order_acquire)) return ES_BUSY;
    struct es_team *team = es_pool_team(model->pool);
    const struct es_context context = {model->arena,  model->weights, inputs, outputs, team, team->threads,
                                       model->arena + SCRATCH_START, ES_SCRATCH_FLOATS};
    const int status = es_pool_run(model->pool, run_thread, &context, 1);
    atomic_flag_clear_explicit(&model->busy, memory_order_release);
    return status;
}

void es_close(struct es_model *model) {
    if (model == NULL) return;
    es_pool_close(model->pool);
    free(model->arena);
    free(model);
}

const char *es_info(void) { return ES_INFO; }

const char *es_status_text(int status) {
    switch (status) {
        case ES_OK: return "done";
        case ES_BUSY: return "the handle is in use by another thread; open one for each";
        case ES_FORKED: return "the handle was opened before this process was forked, and its threads stayed behind; open one in the fork";
        case ES_THREADS: return "OpenMP gives fewer threads than the handle was opened with";
        default: return "unknown status";
    }
}

static void do_nothing(const void *argument, int tid) { (void)argument, (void)tid; }

static int ascending(const void *one, const void *other) {
    const double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

double es_fork_join_ns(struct es_model *model, int repeats) {
    if (atomic_flag_test_and_set_explicit(&model->busy, memory_order_acquire)) return -ES_BUSY;
    int status = es_pool_run(model->pool, do_nothing, NULL, ES_REGIONS_A_SAMPLE); /* wakes those that sleep */
    double *samples = malloc(sizeof *samples * (size_t)(repeats < 1 ? 1 : repeats)), median = 0.0;
    int taken = 0;
    for (; samples != NULL && taken < repeats && status == ES_OK; ++taken) {
        struct timespec begun, ended;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        status = es_pool_run(model->pool, do_nothing, NULL, ES_REGIONS_A_SAMPLE);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        samples[taken] = ((double)(ended.tv_sec - begun.tv_sec) * 1e9 + (double)(ended.tv_nsec - begun.tv_nsec)) / ES_REGIONS_A_SAMPLE;
    }
    if (taken > 0) {
        qsort(samples, (size_t)taken, sizeof *samples, ascending);
        median = samples[taken / 2];
    }
    free(samples);
    atomic_flag_clear_explicit(&model->busy, memory_order_release);
    return status == ES_OK ? median : -(double)status;
}
