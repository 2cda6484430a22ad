/* The thread pool: which CPUs it takes, how a region is begun and ended, how its threads wait.
 *
 * A region begins when the caller counts `regions` up, which workers watch; it ends with the team's barrier. A worker that finds nothing to
 * do for ES_SPIN_NS sleeps on a condition variable: the next region then begins later by a wake-up (tens of microseconds).
 * With -DES_OPENMP the threads are OpenMP's; team and barrier stay the same.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "espalier_pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef ES_OPENMP
#include <omp.h>
#endif

#define ES_SPIN_NS 200000      /* a worker's patience: longer than a caller takes between two runs */
#define ES_LOOKS_A_CLOCK 64    /* looks at a flag between two at the clock */
#define ES_SPINS (1u << 14)    /* looks of a thread in a barrier before it naps; about 0.5 ms */
#define ES_SPINS_CROWDED 64u   /* the same where threads outnumber CPUs */
#define ES_NAP_NS 10000        /* of each nap; sched_yield instead gives every other thread a time slice, ten times as long on busy CPUs */

struct es_pool {
    struct es_team team;
    int *cpus;               /* of each thread; NULL where none is pinned */
    pid_t process;           /* the only one in which the workers exist */
    pthread_t *workers;
    int started;             /* workers to join */
    es_work *work;           /* the region's; NULL ends the workers. Written before `regions` is */
    const void *argument;
    struct es_flag regions;  /* begun so far */
    struct es_flag sleepers; /* workers to wake */
    pthread_mutex_t mutex;   /* around sleep alone */
    pthread_cond_t begun;
};

struct es_worker { /* what a worker is started with */
    struct es_pool *pool;
    int tid;
};

__attribute__((format(printf, 3, 4))) static void *refused(char *error, size_t bytes, const char *format, ...) {
    va_list facts;
    va_start(facts, format);
    vsnprintf(error, bytes, format, facts);
    va_end(facts);
    return NULL;
}

void es_wait_longer(struct es_team *team, unsigned *looks) {
    if (++*looks < team->spins) {
        es_pause();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = ES_NAP_NS}, NULL);
    }
}

/* ---- CPUs. */

#ifdef __linux__
/* Whether `cpu` is the first hardware thread of its core among those allowed. */
static int leads_its_core(int cpu, const cpu_set_t *allowed) {
    char path[96];
    int first = cpu;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%d", &first) != 1) first = cpu;
        fclose(file);
    }
    return first == cpu || first < 0 || first >= CPU_SETSIZE || !CPU_ISSET(first, allowed);
}

/* Fill cpus with one CPU a core, from the caller's own on (others who pin may have taken the first ones), then with second hardware
 * threads; return whether there are enough. */
static int choose_cpus(int *cpus, int threads) {
    cpu_set_t allowed;
    if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < threads) return 0;
    const int here = sched_getcpu();
    int found = 0;
    for (int leading = 1; leading >= 0; --leading) {
        for (int step = 0; step < CPU_SETSIZE && found < threads; ++step) {
            const int cpu = ((here < 0 ? 0 : here) + step) % CPU_SETSIZE;
            if (CPU_ISSET(cpu, &allowed) && leads_its_core(cpu, &allowed) == leading) cpus[found++] = cpu;
        }
    }
    return found == threads;
}

static int pin(int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return pthread_setaffinity_np(pthread_self(), sizeof one, &one) == 0;
}
#endif

/* Give each thread a CPU of its own, or none any. */
static void place(struct es_pool *pool, const int *cpus) {
#ifdef __linux__
    const int threads = pool->team.threads;
    pool->cpus = malloc((size_t)threads * sizeof *pool->cpus);
    if (pool->cpus == NULL) return;
    if (cpus != NULL) {
        memcpy(pool->cpus, cpus, (size_t)threads * sizeof *cpus);
    } else if (!choose_cpus(pool->cpus, threads)) {
        free(pool->cpus);
        pool->cpus = NULL;
        pool->team.spins = ES_SPINS_CROWDED;
    }
#ifdef ES_OPENMP /* its threads would inherit the caller's single CPU: OMP_PROC_BIND and OMP_PLACES say where they run */
    free(pool->cpus);
    pool->cpus = NULL;
#endif
#else
    (void)pool, (void)cpus;
#endif
}

/* ---- Workers. */

#ifndef ES_OPENMP
static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Sleepers are counted before the last look at `regions`, which is counted before the look at the sleepers: nobody is forgotten. */
static void sleep_until_begun(struct es_pool *pool, unsigned seen) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers.value, 1);
    while (atomic_load(&pool->regions.value) == seen) pthread_cond_wait(&pool->begun, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers.value, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void await_region(struct es_pool *pool, unsigned seen) {
    uint64_t until = 0;
    for (unsigned looks = 1; atomic_load_explicit(&pool->regions.value, memory_order_acquire) == seen; ++looks) {
        es_pause();
        if (looks % ES_LOOKS_A_CLOCK != 0) continue;
        if (until == 0) until = now_ns() + ES_SPIN_NS;
        if (pool->team.spins == ES_SPINS_CROWDED || now_ns() > until) {
            sleep_until_begun(pool, seen);
            return;
        }
    }
}

static void begin_region(struct es_pool *pool) {
    atomic_fetch_add(&pool->regions.value, 1);
    if (atomic_load(&pool->sleepers.value) != 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->begun);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void *serve(void *started_with) {
    struct es_pool *pool = ((struct es_worker *)started_with)->pool;
    const int tid = ((struct es_worker *)started_with)->tid;
    free(started_with);
#ifdef __linux__
    if (pool->cpus != NULL) (void)pin(pool->cpus[tid]); /* where that is forbidden it runs wherever it is put */
#endif
    for (unsigned seen = 0;; ++seen) {
        await_region(pool, seen);
        if (pool->work == NULL) return NULL;
        pool->work(pool->argument, tid);
        es_barrier(&pool->team, tid);
    }
}

/* Return 0, or an errno. Workers block all signals: those are for the caller's threads to handle. */
static int start_worker(struct es_pool *pool, int tid) {
    struct es_worker *with = malloc(sizeof *with);
    if (with == NULL) return ENOMEM;
    *with = (struct es_worker){pool, tid};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failure = pthread_create(&pool->workers[pool->started], NULL, serve, with);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0) {
        free(with);
        return failure;
    }
    ++pool->started;
    return 0;
}
#endif

/* ---- The pool. */

struct es_team *es_pool_team(struct es_pool *pool) { return &pool->team; }

struct es_pool *es_pool_open(int threads, const int *cpus, char *error, size_t error_bytes) {
    if (threads < 1 || threads > ES_MAX_THREADS)
        return refused(error, error_bytes, "%d threads asked for; a network runs on 1 to %d.", threads, ES_MAX_THREADS);
    struct es_pool *pool = NULL;
    if (posix_memalign((void **)&pool, ES_LINE, sizeof *pool) != 0)
        return refused(error, error_bytes, "out of memory for %d threads.", threads);
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->begun, NULL);
    pool->process = getpid();
    pool->team.threads = threads;
    pool->team.spins = ES_SPINS;
    while ((1 << pool->team.rounds) < threads) ++pool->team.rounds;
    if (threads == 1) return pool; /* the caller, wherever it runs */
    const size_t bytes = (size_t)threads * sizeof *pool->team.seats;
    pool->workers = malloc((size_t)threads * sizeof *pool->workers);
    if (pool->workers == NULL || posix_memalign((void **)&pool->team.seats, ES_LINE, bytes) != 0) {
        pool->team.seats = NULL;
        es_pool_close(pool);
        return refused(error, error_bytes, "out of memory for %d threads.", threads);
    }
    memset(pool->team.seats, 0, bytes);
    place(pool, cpus);
#ifndef ES_OPENMP
    for (int tid = 1; tid < threads; ++tid) {
        const int failure = start_worker(pool, tid);
        if (failure == 0) continue;
        es_pool_close(pool);
        return refused(error, error_bytes, "thread %d of %d does not start: %s.", tid + 1, threads, strerror(failure));
    }
#endif
    return pool;
}

#ifdef ES_OPENMP
static int run_once(struct es_pool *pool, es_work *work, const void *argument) {
    const int threads = pool->team.threads;
    int given = 0;
#pragma omp parallel num_threads(threads)
    {
        if (omp_get_thread_num() == 0) given = omp_get_num_threads();
        if (omp_get_num_threads() == threads) work(argument, omp_get_thread_num());
    }
    return given == threads ? ES_OK : ES_THREADS;
}
#else
static int run_once(struct es_pool *pool, es_work *work, const void *argument) {
    pool->work = work;
    pool->argument = argument;
    begin_region(pool);
    work(argument, 0);
    es_barrier(&pool->team, 0);
    return ES_OK;
}
#endif

int es_pool_run(struct es_pool *pool, es_work *work, const void *argument, int times) {
    int status = ES_OK;
    if (pool->team.threads == 1) {
        for (int time = 0; time < times; ++time) work(argument, 0);
        return status;
    }
    if (getpid() != pool->process) return ES_FORKED;
#ifdef __linux__
    cpu_set_t before;
    const int moved = pool->cpus != NULL && sched_getcpu() != pool->cpus[0] &&
                      pthread_getaffinity_np(pthread_self(), sizeof before, &before) == 0 && pin(pool->cpus[0]);
#endif
    for (int time = 0; time < times && status == ES_OK; ++time) status = run_once(pool, work, argument);
#ifdef __linux__
    if (moved) pthread_setaffinity_np(pthread_self(), sizeof before, &before);
#endif
    return status;
}

void es_pool_close(struct es_pool *pool) {
    if (pool == NULL) return;
    if (getpid() == pool->process) {
#ifndef ES_OPENMP
        pool->work = NULL;
        if (pool->started > 0) begin_region(pool);
        for (int worker = 0; worker < pool->started; ++worker) pthread_join(pool->workers[worker], NULL);
#endif
        pthread_cond_destroy(&pool->begun);
        pthread_mutex_destroy(&pool->mutex);
    }
    free(pool->workers);
    free(pool->team.seats);
    free(pool->cpus);
    free(pool);
}
