/* What a stand-alone program needs around a network: its words, its files, its clock, and the record that it prints. */
#ifndef ESPALIER_RECORD_H
#define ESPALIER_RECORD_H

#include "espalier_runtime.h"
#include "network.h"

#define ES_TOLERANCE 1e-4 /* of the largest stored output */
#define ES_THREADS_GIVEN 1 /* where the command line names none */
#define ES_RUNS_GIVEN 200

struct es_session {
    const char *program; /* how it was called: its files lie beside it */
    struct es_model *model;
    int threads;
    void *blob;
    float *inputs[ES_NUM_INPUTS];
    float *outputs[ES_NUM_OUTPUTS];
    double max_rel_error; /* against the stored outputs */
    double fork_join_ns;  /* the longer of before and after the timed runs */
};

/* Read THREADS and RUNS from the command line; return whether the program goes on. Where it does not, `status` is its exit: 0 behind
 * --help, 2 behind a word that it cannot take; what it should be is said on stderr, with the usage. */
int es_words(int count, char **words, int *threads, int *runs, int *status);

/* Read weights.bin and open the network; say what is wrong on stderr and return 0 where that fails. */
int es_begin(struct es_session *session, const char *program, int threads);

/* Run the stored inputs of reference.bin and compare with its outputs; return whether they agree to ES_TOLERANCE, else say so. */
int es_check(struct es_session *session);

/* Return the times of `runs` passes over random input in ms, ascending, after `warmup` passes that are not timed; NULL on failure. */
double *es_time(struct es_session *session, int warmup, int runs);

/* Print the measurement's record, one JSON object, as `espalier measure --import FILE RUN` takes it; return whether it was
 * written, else say why not. */
int es_print_record(const struct es_session *session, const double *times_ms, int warmup, int runs);

void es_end(struct es_session *session);

#endif
