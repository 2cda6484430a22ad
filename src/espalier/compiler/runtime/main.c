/* Checks the network against a stored sample, times it on random input and prints a measurement's record:
 *     make && ./network [THREADS [RUNS]] > record.json && espalier measure --import record.json RUN */
#include <stdlib.h>

#include "espalier_record.h"

int main(int count, char **words) {
    const int warmup = 20;
    int threads, runs, status;
    struct es_session session;
    double *times_ms = NULL;
    if (!es_words(count, words, &threads, &runs, &status)) return status;
    if (es_begin(&session, words[0], threads) && es_check(&session)) times_ms = es_time(&session, warmup, runs);
    const int done = times_ms != NULL && es_print_record(&session, times_ms, warmup, runs);
    es_end(&session);
    free(times_ms);
    return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
