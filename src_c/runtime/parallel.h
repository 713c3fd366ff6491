/* Threads: the only interface to OpenMP. */
#ifndef FASTLOSS_PARALLEL_H
#define FASTLOSS_PARALLEL_H

#include "runtime/team_size.h"

#include <stdint.h>

/* Handles the blocks [first, last) of a range. */
typedef void (*fl_blocks_fn)(void *context, int64_t first, int64_t last);

/* Runs function over the blocks [first, last) on at most `threads` threads, the caller included;
 * fewer if several callers compute at the same time or larger teams lost time (team_size.h), which
 * `elements`, the work of the region, selects. Grains of blocks are contiguous and handed out as
 * threads become free, so which thread gets which block is left to chance: every block must write
 * only its own results. On one thread this is a plain call. All threads compute in the default
 * floating-point environment. */
void fl_parallel(int64_t first, int64_t last, fl_blocks_fn function, void *context, int threads,
                 double elements);

/* The most threads that a region started by the calling thread may have now. */
int fl_parallel_limit(void);

/* The processors that OpenMP's threads may use, 0 in a build without OpenMP. */
int fl_openmp_processors(void);

/* "libgomp (OpenMP 4.5)", or "none" in a build without OpenMP. */
const char *fl_openmp_runtime(void);

/* A number of threads, and whether it is fixed: otherwise it is an upper bound, within which
 * regions that lose time by waiting for late workers run on fewer (team_size.h). */
typedef struct {
    int threads, fixed;
} fl_thread_setting;

/* The setting of the process, and the calling thread's own (0 threads: none), which goes first.
 * Numbers below 1 (below 0 for the override) and beyond FL_MAX_THREADS are brought into range. */
#define FL_MAX_THREADS 1024
void fl_set_process_threads(fl_thread_setting setting);
fl_thread_setting fl_process_threads(void);
fl_thread_setting fl_set_thread_override(fl_thread_setting setting); /* returns the previous one */
fl_thread_setting fl_thread_override(void);

/* The processors that this process may use, by affinity and quota; before the first region. */
void fl_set_available_processors(int count);

/* The override or the setting of the process, within fl_parallel_limit(). */
fl_thread_setting fl_effective_setting(void);
int fl_effective_threads(void);

/* Regions of similar work share a controller: the wait for a late worker does not depend on the
 * work, so long regions may gain where short ones lose. Copies the controller of class i and
 * returns the least number of elements of its regions. */
enum { FL_TEAM_CLASSES = 8 };
int64_t fl_team_class(int i, fl_team_control *control);

#endif
