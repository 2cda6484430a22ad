/* What emitted code and its callers know of the runtime: the team of threads that runs a network, and the library's functions.
 *
 * A network runs inside one parallel region: every thread of the team calls es_run_thread (network.c), which calls kernels one after the
 * other with es_barrier between those that depend on each other. Nothing here is global: all that changes belongs to a handle
 * (struct es_model), and several handles run at once without knowing of each other.
 */
#ifndef ESPALIER_RUNTIME_H
#define ESPALIER_RUNTIME_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(__i386__)
#define es_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define es_pause() __asm__ __volatile__("isb" ::: "memory") /* what yield should be: it waits about as long as pause does on x86 */
#else
#define es_pause() atomic_signal_fence(memory_order_seq_cst)
#endif

#define ES_LINE 128      /* bytes that two threads should not share: a cache line and the one fetched with it */
#define ES_MAX_ROUNDS 10 /* of the barrier, hence up to 1024 threads */
#define ES_MAX_THREADS (1 << ES_MAX_ROUNDS)

/* One flag to a line: written by one thread, watched by one other. */
struct es_flag {
    _Alignas(ES_LINE) atomic_uint value;
};

/* What one thread of the team brings to the barrier. */
struct es_seat {
    struct es_flag told[ES_MAX_ROUNDS]; /* by round: how many barriers the thread that reports to this one has reached */
    unsigned barriers;                  /* how many this one has reached; nobody else's concern */
};

struct es_team {
    int threads;
    int rounds;     /* log2(threads), rounded up */
    unsigned spins; /* how often a thread looks before it naps; few where threads outnumber CPUs */
    struct es_seat *seats;
};

/* What es_run_thread works on. */
struct es_context {
    float *arena;                 /* activations, 64-byte aligned; zero when es_load_zero gets it */
    const unsigned char *weights; /* the blob, 64-byte aligned; only read */
    const float *const *inputs;   /* dense, row-major, at any float's address */
    float *const *outputs;
    struct es_team *team;
    int threads;
    float *scratch;         /* of all threads, 64-byte aligned: thread tid has scratch + tid * scratch_floats, and nobody else reads it */
    int64_t scratch_floats; /* of one thread, a multiple of 16 */
};

/* Called between two looks at a flag: pauses, and naps once team->spins are used up, so that others run. */
void es_wait_longer(struct es_team *team, unsigned *looks);

/* Nobody goes on before all have come; what was written before it is seen behind it. Rounds of doubling distance (dissemination): in
 * round k each thread tells the one 2^k seats on, so that two threads wait for one cache line each. Flags count, hence are never reset. */
static inline __attribute__((unused)) void es_barrier(struct es_team *team, int tid) {
    if (team->threads == 1) return;
    struct es_seat *own = &team->seats[tid];
    const unsigned number = ++own->barriers;
    for (int round = 0; round < team->rounds; ++round) {
        const int next = (tid + (1 << round)) % team->threads;
        atomic_store_explicit(&team->seats[next].told[round].value, number, memory_order_release);
        unsigned looks = 0;
        while ((int)(atomic_load_explicit(&own->told[round].value, memory_order_acquire) - number) < 0) es_wait_longer(team, &looks);
    }
}

/* Thread tid's share of n equal tasks, [*begin, *end): contiguous, sizes differ by one at most, the same in every layer. */
static inline __attribute__((unused)) void es_split(int64_t n, int tid, int threads, int64_t *begin, int64_t *end) {
    const int64_t each = n / threads, more = n % threads;
    *begin = tid * each + (tid < more ? tid : more);
    *end = *begin + each + (tid < more);
}

/* Thread tid's part of a map: a band of its rows, the same band in every layer, so that what a thread reads is what it wrote; a part of its
 * lines of channels where there are too few rows. */
static inline __attribute__((unused)) void es_split_map(
    int64_t lines, int64_t rows, int tid, int threads, int64_t *first_line, int64_t *last_line, int64_t *first_row, int64_t *last_row) {
    const int64_t most_rows = (rows + threads - 1) / threads, most_lines = (lines + threads - 1) / threads;
    *first_line = *first_row = 0;
    *last_line = lines;
    *last_row = rows;
    if (rows >= 4 * threads || most_rows * lines < most_lines * rows) es_split(rows, tid, threads, first_row, last_row);
    else es_split(lines, tid, threads, first_line, last_line);
}

/* ---- Emitted, in network.c. */

void es_load_zero(float *arena);
void es_run_thread(const struct es_context *context, int tid);

/* ---- The library's functions. */

#define ES_API __attribute__((visibility("default")))

enum es_status {
    ES_OK = 0,
    ES_BUSY = 1,    /* another thread is inside es_run or es_fork_join_ns of this handle */
    ES_FORKED = 2,  /* this process is a fork of the one that opened the handle: its threads stayed behind */
    ES_THREADS = 3, /* OpenMP gave fewer threads than asked for */
};

struct es_model; /* a handle */

/* Return a handle, or NULL with the reason in `error`.
 *
 * blob: the weights behind their file's header, `bytes` of them, 64-byte aligned; used in place, so they must outlive the handle.
 * threads: how many run the network, the caller's among them.
 * cpus: where each runs; NULL takes one CPU a core of those this process may use. Where there are too few, none is pinned.
 */
ES_API struct es_model *es_open(const void *blob, size_t bytes, int threads, const int *cpus, char *error, size_t error_bytes);

/* Run the network once; return an es_status. A caller that runs elsewhere is moved to its CPU meanwhile. */
ES_API int es_run(struct es_model *model, const float *const *inputs, float *const *outputs);

/* End the threads and free everything but the blob. Nobody may be inside es_run. In a fork of the process it frees only memory. */
ES_API void es_close(struct es_model *model);

ES_API const char *es_info(void);                   /* JSON, what network.h says of the network */
ES_API const char *es_status_text(int status);      /* in words */
ES_API double es_fork_join_ns(struct es_model *model, int repeats); /* median time of a region that does nothing; negative: -es_status */

#endif
