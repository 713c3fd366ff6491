/* Processors without work. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_CLOEXEC */
#endif
#include "runtime/idle_processors.h"

/* Digits, a point and two digits, whatever the locale. */
static const char *parse_hundredths(const char *text, double *seconds)
{
    *seconds = 0;
    if (*text < '0' || *text > '9')
        return 0;
    for (; *text >= '0' && *text <= '9'; text++)
        *seconds = 10 * *seconds + (*text - '0');
    if (*text++ != '.')
        return 0;
    for (double unit = 0.1; *text >= '0' && *text <= '9'; text++, unit /= 10)
        *seconds += unit * (*text - '0');
    return text;
}

double fl_parse_idle(const char *text)
{
    double uptime, idle;
    text = parse_hundredths(text, &uptime);
    if (!text || *text != ' ' || !parse_hundredths(text + 1, &idle))
        return -1;
    return idle;
}

#ifdef __linux__

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

/* Seconds. The kernel counts idle time in hundredths; a reading takes up to 50 µs. */
static const double WINDOW = 20e-3, STALE = 2, MIN_COMPUTED = 2e-3;

/* Interrupts and small daemons use a little of every processor. */
static const double TOLERANCE = 0.35;

static _Thread_local struct {
    double at, idle, used; /* the clock, idle time, and processor time of this thread */
    double computed;
    double streak; /* seconds during which `threads` processors were idle */
    int threads;
} last;

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : 0;
}

/* Idle time of all processors together; negative if it cannot be read. */
static double read_idle(void)
{
    char text[64];
    const int file = open("/proc/uptime", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    const ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    text[size > 0 ? size : 0] = 0;
    return fl_parse_idle(text);
}

double fl_idle_seconds(int threads, int team, double computed)
{
    const int same = threads <= last.threads;
    if (same && computed >= last.computed && computed < last.computed + MIN_COMPUTED)
        return last.streak;
    const double now = clock_seconds(CLOCK_MONOTONIC), elapsed = now - last.at;
    if (same && elapsed >= 0 && elapsed < WINDOW)
        return last.streak;
    const double idle = read_idle(), used = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    const double usable = idle - last.idle + team * (used - last.used);
    const int enough = same && idle >= 0 && last.idle >= 0 && elapsed > 0 && elapsed < STALE &&
                       usable >= (threads - TOLERANCE) * elapsed;
    last.streak = enough ? last.streak + elapsed : 0;
    last.at = now;
    last.idle = idle;
    last.used = used;
    last.computed = computed;
    last.threads = threads;
    return last.streak;
}

void fl_idle_restart(void) { last.streak = 0; }

#else

double fl_idle_seconds(int threads, int team, double computed)
{
    (void)threads, (void)team, (void)computed;
    return 0;
}

void fl_idle_restart(void) {}

#endif
