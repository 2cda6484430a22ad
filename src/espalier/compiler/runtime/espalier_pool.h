/* The threads of one handle. They spin for work for a bounded time and sleep after it; the caller's own thread is number 0 of them. */
#ifndef ESPALIER_POOL_H
#define ESPALIER_POOL_H

#include <stddef.h>

#include "espalier_runtime.h"

typedef void es_work(const void *argument, int tid);

struct es_pool;

/* Start the workers; return NULL with the reason in `error` where that fails. threads and cpus as for es_open. */
struct es_pool *es_pool_open(int threads, const int *cpus, char *error, size_t error_bytes);

/* Run work(argument, tid) on all threads, `times` times, each time waiting for all; return an es_status. Never entered twice at once.
 * A caller that runs elsewhere than on its CPU is moved there, and its affinity given back behind it. */
int es_pool_run(struct es_pool *pool, es_work *work, const void *argument, int times);

struct es_team *es_pool_team(struct es_pool *pool);

/* End the workers and free the pool; in a fork of the process, which has no workers, only free it. NULL is fine. */
void es_pool_close(struct es_pool *pool);

#endif
