/* Threads: the only file that calls OpenMP and handles fork. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr */
#endif
#include "runtime/fp_env.h"
#include "runtime/parallel.h"
#include "runtime/worker_affinity.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifndef _WIN32
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#endif

/* ---- Numbers of threads ------------------------------------------------------------------- */

static atomic_int process_threads = 1;
static _Thread_local int thread_override;

static int within(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

void fl_set_process_threads(int threads)
{
    atomic_store(&process_threads, within(threads, 1, FL_MAX_THREADS));
}

int fl_process_threads(void) { return atomic_load(&process_threads); }

int fl_set_thread_override(int threads)
{
    int previous = thread_override;
    thread_override = within(threads, 0, FL_MAX_THREADS);
    return previous;
}

int fl_thread_override(void) { return thread_override; }

int fl_effective_threads(void)
{
    int threads = thread_override ? thread_override : fl_process_threads();
    return threads == 1 ? 1 : within(threads, 1, fl_parallel_limit());
}

/* ---- The OpenMP runtime ------------------------------------------------------------------- */

#ifdef _OPENMP

static int starting_max_threads = 1;
static char runtime[80];
static atomic_bool team_started; /* some region of this process had more than one thread */
static atomic_bool orphaned;     /* forked from a process with a team: its threads are not here */
static bool is_libgomp;

#ifndef _WIN32
/* libgomp's threads are gone in a child, which would wait for them; another library may have
 * started them. If no team was started before the fork, the child has lost nothing. */
static void before_fork(void)
{
#if _OPENMP >= 201811 || (__GNUC__ >= 9 && !defined(__clang__))
    if (is_libgomp && !atomic_load(&orphaned) && !omp_in_parallel())
        omp_pause_resource_all(omp_pause_soft);
#endif
}

static void in_forked_child(void)
{
    if (atomic_load(&team_started))
        atomic_store(&orphaned, true);
}
#endif

/* The runtime in use need not be the compiler's: an environment may put libomp in the place of
 * libgomp. The name of its shared library identifies it. */
static void name_runtime(void)
{
    static const char *const names[] = {"libgomp", "libomp", "libiomp5"};
    const char *name = "unknown runtime";
#ifndef _WIN32
    Dl_info where;
    if (dladdr((void *)(uintptr_t)omp_get_max_threads, &where) != 0 && where.dli_fname) {
        char *file = realpath(where.dli_fname, NULL);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (strstr(file ? file : where.dli_fname, names[i]))
                name = names[i];
        free(file);
    }
#endif
    const char *version = _OPENMP >= 202111   ? "5.2"
                          : _OPENMP >= 202011 ? "5.1"
                          : _OPENMP >= 201811 ? "5.0"
                          : _OPENMP >= 201511 ? "4.5"
                                              : "4.0 or older";
    snprintf(runtime, sizeof runtime, "%s (OpenMP %s)", name, version);
}

__attribute__((constructor)) static void initialise(void)
{
    /* A limit on this thread may already be in force at import. */
    starting_max_threads = omp_get_max_threads();
    if (!getenv("OMP_NUM_THREADS") && omp_get_num_procs() > starting_max_threads)
        starting_max_threads = omp_get_num_procs();
    name_runtime();
    is_libgomp = strncmp(runtime, "libgomp", 7) == 0;
#ifndef _WIN32
    pthread_atfork(before_fork, NULL, in_forked_child);
#endif
    fl_affinity_initialise();
}

int fl_parallel_limit(void)
{
    /* A runtime whose threads were lost in a fork must not be called. */
    if (atomic_load_explicit(&orphaned, memory_order_relaxed))
        return 1;
    if (omp_in_parallel())
        return 1;
    int limit = omp_get_thread_limit();
    /* omp_set_num_threads acts on the calling thread; so does threadpoolctl, which calls it.
     * Below the starting value it is a limit; otherwise no limit was requested. */
    int now = omp_get_max_threads();
    if (now < starting_max_threads && now < limit)
        limit = now;
    return within(limit, 1, FL_MAX_THREADS);
}

#else

int fl_parallel_limit(void) { return 1; }

#endif

/* ---- The region --------------------------------------------------------------------------- */

#define GRAINS_PER_THREAD 8 /* so that a thread delayed by another process does not hold all up */

static void run_here(int64_t first, int64_t last, fl_blocks_fn function, void *context)
{
    fp_mode saved = fp_enter();
    function(context, first, last);
    fp_leave(saved);
}

#ifdef _OPENMP

struct job {
    fl_blocks_fn function;
    void *context;
    int64_t first, blocks, grain;
    _Alignas(64) atomic_int_least64_t next; /* blocks handed out so far */
    atomic_int finished;                    /* workers */
};

static void take_blocks(struct job *job)
{
    fp_mode saved = fp_enter();
    for (;;) {
        int64_t done = atomic_fetch_add_explicit(&job->next, job->grain, memory_order_relaxed);
        int64_t left = job->blocks - done;
        if (left <= 0)
            break;
        int64_t first = job->first + done;
        job->function(job->context, first, first + (left < job->grain ? left : job->grain));
    }
    fp_leave(saved);
}

#define YIELDS 1000 /* below a millisecond if no other thread is runnable */

/* Before the runtime spins for its workers, yield to the threads that occupy their processors: a
 * worker that is queued on the caller's processor, or another process. */
static void let_workers_finish(struct job *job, int workers)
{
#ifndef _WIN32
    for (int i = 0; i < YIELDS; i++) {
        if (atomic_load_explicit(&job->finished, memory_order_acquire) >= workers)
            return;
        sched_yield();
    }
#else
    (void)job, (void)workers;
#endif
}

void fl_parallel(int64_t first, int64_t last, fl_blocks_fn function, void *context, int threads)
{
    if (first >= last)
        return;
    int64_t blocks = last - first;
    if (blocks < threads)
        threads = (int)blocks;
    if (threads > 1)
        threads = within(threads, 1, fl_parallel_limit());
    if (threads <= 1) {
        run_here(first, last, function, context);
        return;
    }
    struct job job = {.function = function, .context = context, .first = first, .blocks = blocks};
    int64_t grains = (int64_t)threads * GRAINS_PER_THREAD;
    job.grain = blocks / grains + (blocks % grains != 0);
    atomic_init(&job.next, 0);
    atomic_init(&job.finished, 0);
    if (!atomic_load_explicit(&team_started, memory_order_relaxed))
        atomic_store(&team_started, true);
    fl_team *team = fl_place_team();
    int spare = is_libgomp ? fl_spare_threads(team, threads) : 0;
#pragma omp parallel num_threads(threads + spare)
    {
        int number = omp_get_thread_num(), size = omp_get_num_threads();
        if (number == 0) {
            take_blocks(&job);
            let_workers_finish(&job, (size < threads ? size : threads) - 1);
        } else if (number < threads) {
            if (team)
                fl_join_team(team, number);
            take_blocks(&job);
            atomic_fetch_add_explicit(&job.finished, 1, memory_order_release);
        }
    }
}

const char *fl_openmp_runtime(void) { return runtime; }

#else

void fl_parallel(int64_t first, int64_t last, fl_blocks_fn function, void *context, int threads)
{
    (void)threads;
    if (first < last)
        run_here(first, last, function, context);
}

const char *fl_openmp_runtime(void) { return "none"; }

#endif
