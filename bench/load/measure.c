/* What is measured: time, and what the server's processes take. */

#define _GNU_SOURCE
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    _exit(1);
}

static uint64_t read_clock(clockid_t id)
{
    struct timespec time;
    if (clock_gettime(id, &time) != 0)
        die("cannot read a clock: the server is gone");
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

/* The same as utime + stime in /proc/PID/stat, but not in ticks of 10 ms. */
static uint64_t server_cpu_ns(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < options.n_pids; i++) {
        clockid_t id;
        if (clock_getcpuclockid(options.pids[i], &id) != 0)
            die("no process %d", options.pids[i]);
        sum += read_clock(id);
    }
    return sum;
}

static uint64_t sum_of_status(const char *field)
{
    uint64_t sum = 0;
    for (int i = 0; i < options.n_pids; i++) {
        char line[256];
        snprintf(line, sizeof line, "/proc/%d/status", options.pids[i]);
        FILE *file = fopen(line, "r");
        if (!file)
            die("no process %d", options.pids[i]);
        while (fgets(line, sizeof line, file))
            if (strncmp(line, field, strlen(field)) == 0)
                sum += strtoull(line + strlen(field), NULL, 10) * 1024;
        fclose(file);
    }
    return sum;
}

uint64_t server_resident_bytes(void)
{
    return sum_of_status("VmRSS:");
}

uint64_t server_peak_bytes(void)
{
    return sum_of_status("VmHWM:");
}

/* How long processes were ready to run but had to wait for others that used their core. */
static uint64_t waited_ns(const char *path)
{
    FILE *file = fopen(path, "r");
    unsigned long long ran, waited = 0;
    if (file) {
        if (fscanf(file, "%llu %llu", &ran, &waited) != 2)
            waited = 0;
        fclose(file);
    }
    return waited;
}

static uint64_t server_waited_ns(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < options.n_pids; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/schedstat", options.pids[i]);
        sum += waited_ns(path);
    }
    return sum;
}

struct sample sample(void)
{
    return (struct sample){now_ns(), server_cpu_ns(), server_waited_ns(), waited_ns("/proc/self/schedstat")};
}

/* The shares of the time in which the server, and the client, waited. */
void print_waiting(struct sample from, struct sample to)
{
    double ns = (double)(to.at_ns - from.at_ns);
    printf("\"server_waited\":%.4f,\"client_waited\":%.4f", (double)(to.server_waited_ns - from.server_waited_ns) / ns,
           (double)(to.client_waited_ns - from.client_waited_ns) / ns);
}

void add_duration(struct durations *durations, uint64_t ns)
{
    if (durations->count == durations->room) {
        durations->room = durations->room ? durations->room * 2 : 1 << 16;
        durations->us = realloc(durations->us, durations->room * sizeof *durations->us);
        if (!durations->us)
            die("no memory");
    }
    uint64_t us = ns / 1000;
    durations->us[durations->count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void print_durations(const char *name, struct durations *durations)
{
    size_t n = durations->count;
    if (n == 0)
        die("nothing was measured");
    qsort(durations->us, n, sizeof *durations->us, by_size);
    printf("\"%s\":{\"p50\":%u,\"p99\":%u,\"max\":%u}", name, durations->us[(n - 1) / 2],
           durations->us[(n - 1) * 99 / 100], durations->us[n - 1]);
}
