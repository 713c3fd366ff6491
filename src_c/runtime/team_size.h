/* The controller of team sizes: how many threads the next region gets, from measurements of earlier
 * regions.
 *
 * A region ends when its last worker arrives. A worker whose processor runs another program arrives
 * when the scheduler grants it a slice, milliseconds later, even if the caller has already done all
 * the work. The controller therefore compares the time of each region with an estimate of the time
 * on half as many threads, and sums the differences. When a size has lost more than it gained, it
 * is halved. Probes try the larger size again: after 16 times the time that was lost, four times as
 * late after each further failure, or as soon as enough processors have been idle for a while.
 *
 * The functions are pure: they read no clock and call no system function. parallel.c measures. */
#ifndef FASTLOSS_TEAM_SIZE_H
#define FASTLOSS_TEAM_SIZE_H

#include <stdint.h>

/* A region that has ended; durations in seconds. */
typedef struct {
    int threads;           /* of the region */
    int allowed;           /* threads without the controller */
    int64_t blocks;        /* of all threads */
    int64_t caller_blocks; /* of the caller */
    int64_t first_blocks;  /* of the caller's first grain */
    double first;          /* from the caller's start to the end of its first grain */
    double caller;         /* from the caller's start until no block remained */
    double total;          /* of the whole region, with its start and the wait for workers */
} fl_region;

typedef struct {
    int size;          /* threads of the next region; 0: as many as are allowed */
    int rising;        /* the last change of size was a probe */
    int hinted;        /* ... because processors were idle */
    int measured_size; /* of the regions below */
    double measured_total, measured_work; /* seconds of regions of that size, and of their work */
    double balance;     /* seconds gained at this size and a credit, bounded above */
    double gained;      /* seconds gained at this size */
    double computed;    /* seconds of computing at this size */
    double patience;    /* seconds of computing until the next probe */
    double idle_wait;   /* seconds for which processors must have been idle before a probe */
    int64_t reductions; /* how often the size was halved */
    int64_t probes;
} fl_team_control;

void fl_team_control_init(fl_team_control *c);

/* The number of threads of the next region, at most `allowed`; it may begin a probe. `idle` is the
 * number of seconds for which the processors of the next larger size have been idle, 0 if unknown.
 */
int fl_team_size(fl_team_control *c, int allowed, double idle);

/* The size that a probe would try. */
int fl_team_probe_size(const fl_team_control *c, int allowed);

/* Learns from a region. Regions whose durations are impossible are ignored. */
void fl_team_observe(fl_team_control *c, const fl_region *region);

/* Seconds of undisturbed computing that all blocks of a region take; NaN for impossible durations.
 */
double fl_region_work(const fl_region *region);

#endif
