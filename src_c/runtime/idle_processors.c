/* Processors without work. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_CLOEXEC */
#endif
#include "runtime/idle_processors.h"

#ifdef __linux__

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds. The kernel counts idle time in hundredths; a reading takes up to 50 µs. */
static const double WINDOW = 20e-3, STALE = 0.2, MIN_COMPUTED = 2e-3;

/* Interrupts and small daemons use a little of every processor. */
static const double TOLERANCE = 0.35;

static _Thread_local struct {
    double at, idle, used; /* the clock, idle time, and processor time of this thread */
    double computed;
    double streak;
} last;

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : 0;
}

/* The second number of /proc/uptime: idle time of all processors together. */
static int read_idle(double *idle)
{
    char text[64];
    const int file = open("/proc/uptime", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    const ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    if (size <= 0)
        return 0;
    text[size] = 0;
    const char *second = strchr(text, ' ');
    *idle = second ? strtod(second, NULL) : 0;
    return second != NULL;
}

double fl_idle_seconds(int threads, int own, double computed)
{
    if (computed >= last.computed && computed < last.computed + MIN_COMPUTED)
        return last.streak;
    const double now = clock_seconds(CLOCK_MONOTONIC), elapsed = now - last.at;
    if (elapsed >= 0 && elapsed < WINDOW)
        return last.streak;
    double idle, used = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    if (!read_idle(&idle))
        return 0;
    const double usable = idle - last.idle + own * (used - last.used);
    const int enough = elapsed > 0 && elapsed < STALE && usable >= (threads - TOLERANCE) * elapsed;
    last.streak = enough ? last.streak + elapsed : 0;
    last.at = now;
    last.idle = idle;
    last.used = used;
    last.computed = computed;
    return last.streak;
}

void fl_idle_restart(void) { last.streak = 0; }

#else

double fl_idle_seconds(int threads, int own, double computed)
{
    (void)threads, (void)own, (void)computed;
    return 0;
}

void fl_idle_restart(void) {}

#endif
