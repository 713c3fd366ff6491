/* The controller of team sizes: how many threads the next region gets, given how earlier ones
 * fared.
 *
 * A region ends when its last worker arrives. A worker whose processor runs another program arrives
 * when the scheduler grants it a slice, milliseconds later, even if the caller has already done all
 * the work. The controller therefore compares the time of each region with an estimate of the time
 * on half as many threads, and sums the differences. When a size has lost more than it gained,
 * regions run on half of it. Now and then one region probes the larger size: after some time of
 * computing, which doubles with each failure, or soon after enough processors become idle.
 *
 * The functions are pure: they read no clock and call no system function. parallel.c measures. */
#ifndef FASTLOSS_TEAM_SIZE_H
#define FASTLOSS_TEAM_SIZE_H

#include <stdint.h>

/* A region that has ended; durations in seconds. */
typedef struct {
    int threads;           /* that it had */
    int allowed;           /* that it would have had without the controller */
    int64_t blocks;        /* of all threads */
    int64_t caller_blocks; /* of the caller */
    int64_t first_blocks;  /* of the caller's first grain */
    double first;          /* from when the caller began to compute to the end of its first grain */
    double caller;         /* ... until it found no more blocks */
    double total;          /* of the whole region, its start and the wait for workers included */
} fl_region;

typedef struct {
    int size;          /* threads of the next region; 0: as many as are allowed */
    double balance;    /* seconds gained at this size and a credit, bounded above */
    double gained;     /* seconds gained at this size */
    double computed;   /* seconds of computing at this size */
    double patience;   /* seconds of computing between probes */
    double idle_wait;  /* seconds for which processors must have been idle before a probe */
    int rising;        /* the last change of size was a probe */
    int hinted;        /* ... because processors were idle */
    int measured_size; /* of the regions whose time and work these are */
    double measured_total, measured_work;
    int64_t retreats, probes;
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
