/* The words behind the program's name; see espalier_record.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifdef __linux__
#include <sched.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "espalier_record.h"

#define LEAST_RUNS 2 /* percentiles lie between two times */
#define MOST_RUNS 1000000
#define MAX_DIGITS 9 /* of a word that is read as a number */

#ifdef __has_feature /* clang's word for a build with checks; gcc's is a macro */
#if __has_feature(address_sanitizer)
#define ES_CHECKED 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define ES_CHECKED 1
#endif

/* The CPUs that this process may use: the bound of threads that spin. A build with checks is not timed, and takes any number. */
static long most_threads(void) {
#ifdef ES_CHECKED
    return ES_MAX_THREADS;
#else
    long found = -1;
#ifdef __linux__
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) found = CPU_COUNT(&allowed);
#endif
    if (found < 1) found = sysconf(_SC_NPROCESSORS_ONLN);
    return found < 1 ? 1 : found < ES_MAX_THREADS ? found : ES_MAX_THREADS;
#endif
}

static void print_usage(FILE *file, const char *program) {
    fprintf(file, "usage: %s [THREADS [RUNS]]\n", program);
    fputs("Checks the network against a stored sample, times it on random input and prints a measurement's record, one JSON object.\n", file);
    fprintf(file, "  THREADS  that run it: 1 to %ld, the CPUs that this process may use; %d if left out\n", most_threads(), ES_THREADS_GIVEN);
    fprintf(file, "  RUNS     timed passes: %d to %d; %d if left out\n", LEAST_RUNS, MOST_RUNS, ES_RUNS_GIVEN);
}

/* Read a whole number from least to most; return whether the word is one, else say what it should be. */
static int read_number(const char *word, const char *name, long least, long most, const char *why, int *number) {
    const size_t digits = strspn(word, "0123456789");
    const long found = digits > 0 && digits <= MAX_DIGITS && word[digits] == '\0' ? atol(word) : -1;
    if (found < least || found > most) {
        fprintf(stderr, "%s=%s: %s; give a whole number from %ld to %ld.\n", name, word, why, least, most);
        return 0;
    }
    *number = (int)found;
    return 1;
}

static int read_words(int count, char **words, int *threads, int *runs) {
    char why[80];
    const long most = most_threads();
    if (count > 3) return fprintf(stderr, "%s: one word too many; THREADS and RUNS are all.\n", words[3]), 0;
    snprintf(why, sizeof why, "this process may use %ld CPU%s", most, most == 1 ? "" : "s");
    if (count > 1 && !read_number(words[1], "THREADS", 1, most, why, threads)) return 0;
    snprintf(why, sizeof why, "percentiles need %d timed passes or more", LEAST_RUNS);
    return count <= 2 || read_number(words[2], "RUNS", LEAST_RUNS, MOST_RUNS, why, runs);
}

int es_words(int count, char **words, int *threads, int *runs, int *status) {
    *threads = ES_THREADS_GIVEN;
    *runs = ES_RUNS_GIVEN;
    *status = 2;
    for (int i = 1; i < count; ++i) {
        if (strcmp(words[i], "--help") != 0 && strcmp(words[i], "-h") != 0) continue;
        print_usage(stdout, words[0]);
        *status = 0;
        return 0;
    }
    if (read_words(count, words, threads, runs)) return 1;
    print_usage(stderr, words[0]);
    return 0;
}
