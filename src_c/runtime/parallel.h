/* Threads: the only interface to OpenMP. */
#ifndef FASTLOSS_PARALLEL_H
#define FASTLOSS_PARALLEL_H

#include <stdint.h>

/* Handles the blocks [first, last) of a range. */
typedef void (*fl_blocks_fn)(void *context, int64_t first, int64_t last);

/* Runs function over the blocks [first, last) on at most `threads` threads, the caller included.
 * Pieces are contiguous and handed out as threads become free, so which thread gets which block
 * is left to chance: every block must write only what is its own. On one thread this is a plain
 * call. All threads compute in the default floating-point environment. */
void fl_parallel(int64_t first, int64_t last, fl_blocks_fn function, void *context, int threads);

/* The most threads that a region started by the calling thread may have now. */
int fl_parallel_limit(void);

/* "libgomp (OpenMP 4.5)", or "none" in a build without OpenMP. */
const char *fl_openmp_runtime(void);

/* The number of threads of the process, and the calling thread's own (0: none), which goes first.
 * Numbers below 1 (below 0 for the override) and beyond FL_MAX_THREADS are brought into range. */
#define FL_MAX_THREADS 1024
void fl_set_process_threads(int threads);
int fl_process_threads(void);
int fl_set_thread_override(int threads); /* returns the previous one */
int fl_thread_override(void);

/* The override or the number of the process, within fl_parallel_limit(). */
int fl_effective_threads(void);

#endif
