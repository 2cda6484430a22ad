/* See espalier_record.h. weights.bin is a header of 64 bytes and the blob; reference.bin is all inputs and then all outputs, as floats. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "espalier_record.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "espalier_facts.h"

#define HEADER_BYTES 64
#define FORK_JOIN_SAMPLES 200
#define LINE_BYTES 512

static const size_t input_floats[] = ES_INPUT_FLOATS, output_floats[] = ES_OUTPUT_FLOATS;

static int failed(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    return 0;
}

/* Open a file that lies beside the program. */
static FILE *beside(const char *program, const char *name) {
    char path[4096];
    const char *slash = strrchr(program, '/');
    snprintf(path, sizeof path, "%.*s%s", slash == NULL ? 0 : (int)(slash - program + 1), program, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) failed(path, strerror(errno));
    return file;
}

/* ---- The weights. */

struct header {
    char magic[8];
    uint32_t version, reserved;
    uint64_t bytes, checksum;
    char zeros[32];
};

/* The sum of 8-byte words, the k-th times 2k + 1, modulo 2^64. */
static uint64_t checksum(const unsigned char *blob, size_t bytes) {
    uint64_t sum = 0;
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, blob + at, bytes - at < 8 ? bytes - at : 8);
        sum += word * (2 * (at / 8) + 1);
    }
    return sum;
}

static void *read_weights(const char *program, size_t *bytes) {
    struct header header;
    void *blob = NULL;
    FILE *file = beside(program, "weights.bin");
    if (file == NULL) return NULL;
    if (fread(&header, 1, sizeof header, file) != HEADER_BYTES || memcmp(header.magic, "ESPALIER", 8) != 0 || header.version != 1) {
        failed("weights.bin", "no weights file of a compiled network");
    } else if (posix_memalign(&blob, HEADER_BYTES, header.bytes + 1) != 0) {
        failed("weights.bin", "out of memory");
    } else if (fread(blob, 1, header.bytes + 1, file) != header.bytes || checksum(blob, header.bytes) != header.checksum) {
        failed("weights.bin", "damaged; copy it anew");
        free(blob);
        blob = NULL;
    }
    fclose(file);
    *bytes = header.bytes;
    return blob;
}

/* ---- The session. */

static int allocate(float **arrays, const size_t *floats, int count) {
    int found = 1;
    for (int i = 0; i < count; ++i) {
        arrays[i] = calloc(floats[i], sizeof(float));
        found &= arrays[i] != NULL;
    }
    return found;
}

int es_begin(struct es_session *session, const char *program, int threads) {
    char error[256] = "";
    size_t bytes = 0;
    memset(session, 0, sizeof *session);
    session->program = program;
    session->threads = threads;
    session->blob = read_weights(program, &bytes);
    if (session->blob == NULL) return 0;
    session->model = es_open(session->blob, bytes, threads, NULL, error, sizeof error);
    if (session->model == NULL) return failed("the network cannot be opened", error);
    if (!allocate(session->inputs, input_floats, ES_NUM_INPUTS) || !allocate(session->outputs, output_floats, ES_NUM_OUTPUTS))
        return failed("inputs and outputs", "out of memory");
    return 1;
}

void es_end(struct es_session *session) {
    es_close(session->model);
    for (int i = 0; i < ES_NUM_INPUTS; ++i) free(session->inputs[i]);
    for (int i = 0; i < ES_NUM_OUTPUTS; ++i) free(session->outputs[i]);
    free(session->blob);
}

static int run(struct es_session *session) {
    const int status = es_run(session->model, (const float *const *)session->inputs, session->outputs);
    return status == ES_OK || failed("the network did not run", es_status_text(status));
}

static int compare(struct es_session *session, FILE *reference) {
    double largest = 0.0, difference = 0.0;
    for (int i = 0; i < ES_NUM_INPUTS; ++i) {
        const size_t count = input_floats[i];
        if (fread(session->inputs[i], sizeof(float), count, reference) != count) return failed("reference.bin", "too short");
    }
    if (!run(session)) return 0;
    for (int i = 0; i < ES_NUM_OUTPUTS; ++i) {
        for (size_t at = 0; at < output_floats[i]; ++at) {
            float wanted;
            if (fread(&wanted, sizeof wanted, 1, reference) != 1) return failed("reference.bin", "too short");
            const double off = fabs((double)session->outputs[i][at] - wanted);
            if (!(off <= difference)) difference = off; /* a NaN counts, and stays */
            if (fabs((double)wanted) > largest) largest = fabs((double)wanted);
        }
    }
    session->max_rel_error = difference / (largest > 0.0 ? largest : 1.0);
    if (session->max_rel_error < ES_TOLERANCE) return 1;
    fprintf(stderr, "the outputs are off by %g of the largest stored one; at most %g is right.\n", session->max_rel_error, ES_TOLERANCE);
    return 0;
}

int es_check(struct es_session *session) {
    FILE *reference = beside(session->program, "reference.bin");
    if (reference == NULL) return 0;
    const int agrees = compare(session, reference);
    fclose(reference);
    return agrees;
}

/* ---- The clock. */

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int ascending(const void *one, const void *other) {
    const double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

double *es_time(struct es_session *session, int warmup, int runs) {
    if (runs < 2 || warmup < 0) return failed("runs", "at least 2 are timed"), NULL;
    uint64_t state = 88172645463325252u; /* xorshift; uniform in [-1, 1) */
    for (int i = 0; i < ES_NUM_INPUTS; ++i) {
        for (size_t at = 0; at < input_floats[i]; ++at) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            session->inputs[i][at] = (float)(state >> 40) * 0x1p-23f - 1.0f;
        }
    }
    double *times = malloc(sizeof *times * (size_t)runs);
    const double before = es_fork_join_ns(session->model, FORK_JOIN_SAMPLES);
    for (int pass = -warmup; times != NULL && pass < runs; ++pass) {
        const double begun = now_ms();
        if (!run(session)) return free(times), NULL;
        if (pass >= 0) times[pass] = now_ms() - begun;
    }
    const double after = es_fork_join_ns(session->model, FORK_JOIN_SAMPLES);
    session->fork_join_ns = before > after ? before : after;
    if (times != NULL) qsort(times, (size_t)runs, sizeof *times, ascending);
    return times;
}

/* The k-th tenth of two ascending times or more, as Python's statistics.quantiles(times, n=10, method="inclusive") has it. */
static double tenth(const double *times, int count, int k) {
    const int below = k * (count - 1) / 10;
    const double rest = (double)(k * (count - 1) - 10 * below);
    return (times[below] * (10.0 - rest) + times[below + 1] * rest) / 10.0;
}

/* ---- The record. */

/* Copy what /proc/cpuinfo says behind `key`; leave `value` as it is where it says nothing. */
static void cpu_fact(const char *key, char *value) {
    char line[LINE_BYTES];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        const size_t length = strlen(key);
        if (colon == NULL || strncmp(line, key, length) != 0 || line[length + strspn(line + length, " \t")] != ':') continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(value, LINE_BYTES, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (file != NULL) fclose(file);
}

static void print_text(const char *text) {
    putchar('"');
    for (; *text != '\0'; ++text) {
        if (*text == '"' || *text == '\\') putchar('\\');
        if ((unsigned char)*text >= ' ') putchar(*text);
    }
    putchar('"');
}

/* The CPU by the name that espalier gives it: the model, and family and model numbers, because hypervisors hide names. */
static void print_device(void) {
    char name[LINE_BYTES] = "", family[LINE_BYTES] = "", model[LINE_BYTES] = "?", text[3 * LINE_BYTES];
    struct utsname system;
    cpu_fact("model name", name);
    cpu_fact("cpu family", family);
    cpu_fact("model", model);
    if (name[0] == '\0' && uname(&system) == 0) snprintf(name, sizeof name, "%s", system.machine);
    snprintf(text, sizeof text, family[0] == '\0' ? "%s" : "%s family %s model %s", name, family, model);
    print_text(text);
}

int es_print_record(const struct es_session *session, const double *times_ms, int warmup, int runs) {
    char started[40];
    const time_t now = time(NULL);
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%S+00:00", gmtime(&now));
    printf("{\"checkpoint\": \"%s\", \"weights\": \"%s\", ", ES_CHECKPOINT, ES_WEIGHTS_KIND);
    printf("\"frame\": \"compiled_cpu\", \"kind\": \"measured\", \"engine\": \"%s\", \"device\": ", ES_ENGINE);
    print_device();
    printf(", \"precision\": \"fp32\", \"batch_size\": %d, \"num_threads\": %d, ", ES_BATCH_SIZE, session->threads);
    printf("\"num_warmup\": %d, \"num_runs\": %d, \"metrics\": {", warmup, runs);
    printf("\"latency_ms_p10\": %.9g, ", tenth(times_ms, runs, 1));
    printf("\"latency_ms_p50\": %.9g, ", 0.5 * (times_ms[(runs - 1) / 2] + times_ms[runs / 2]));
    printf("\"latency_ms_p90\": %.9g, ", tenth(times_ms, runs, 9));
    printf("\"fork_join_ns\": %.9g, \"max_rel_error\": %.9g}, ", session->fork_join_ns, session->max_rel_error);
    printf("\"versions\": {\"espalier\": \"%s\", \"cc\": ", ES_VERSION);
    print_text(__VERSION__);
    printf("}, \"started\": \"%s\"}\n", started);
    if (fflush(stdout) == 0 && !ferror(stdout)) return 1;
    perror("the record cannot be written");
    return 0;
}
