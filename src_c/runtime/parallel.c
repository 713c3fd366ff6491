/* Threads: the only file that calls OpenMP and handles fork. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr */
#endif
#include "runtime/fp_env.h"
#include "runtime/idle_processors.h"
#include "runtime/parallel.h"
#include "runtime/stack.h"
#include "runtime/team_size.h"
#include "runtime/thread_supply.h"
#include "runtime/worker_affinity.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifndef _WIN32
#include <dlfcn.h>
#include <pthread.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* ---- Numbers of threads ------------------------------------------------------------------- */

/* threads * 2 + fixed, so that both change at once */
static atomic_int process_setting = 2;
static _Thread_local int thread_setting;

static int within(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

static int pack(fl_thread_setting setting)
{
    return within(setting.threads, 1, FL_MAX_THREADS) * 2 + (setting.fixed != 0);
}

static fl_thread_setting unpack(int packed)
{
    return (fl_thread_setting){.threads = packed / 2, .fixed = packed % 2};
}

void fl_set_process_threads(fl_thread_setting setting)
{
    atomic_store(&process_setting, pack(setting));
}

fl_thread_setting fl_process_threads(void) { return unpack(atomic_load(&process_setting)); }

fl_thread_setting fl_set_thread_override(fl_thread_setting setting)
{
    fl_thread_setting previous = unpack(thread_setting);
    thread_setting = setting.threads > 0 ? pack(setting) : 0;
    return previous;
}

fl_thread_setting fl_thread_override(void) { return unpack(thread_setting); }

static fl_thread_setting current_setting(void)
{
    return thread_setting ? unpack(thread_setting) : fl_process_threads();
}

static int threads_are_fixed(void) { return current_setting().fixed; }

fl_thread_setting fl_effective_setting(void)
{
    fl_thread_setting setting = current_setting();
    if (setting.threads > 1)
        setting.threads = within(setting.threads, 1, fl_parallel_limit());
    return setting;
}

int fl_effective_threads(void) { return fl_effective_setting().threads; }

/* ---- The OpenMP runtime ------------------------------------------------------------------- */

static void initialise_classes(void);

#ifdef _OPENMP

static int starting_max_threads = 1;
static char runtime[80];
static atomic_bool team_started; /* some region of this process had more than one thread */
static atomic_bool orphaned;     /* forked from a process with a team: its threads are not here */
static bool is_libgomp;
static size_t worker_stack_bytes;

static _Thread_local struct {
    int size;             /* of the calling thread's last team, the caller included */
    double no_more_until; /* a thread could not be created: ask again then */
} pool = {.size = 1};

#ifndef _WIN32
/* libgomp's threads are gone in a child, which would wait for them; another library may have
 * started them. If no team was started before the fork, the child has lost nothing. */
static void before_fork(void)
{
#if _OPENMP >= 201811 || (__GNUC__ >= 9 && !defined(__clang__))
    if (is_libgomp && !atomic_load(&orphaned) && !omp_in_parallel() &&
        omp_pause_resource_all(omp_pause_soft) == 0)
        pool.size = 1;
#endif
}

static void in_forked_child(void)
{
    initialise_classes(); /* a thread that is not here may have held one */
    fl_idle_restart();
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
    worker_stack_bytes = fl_worker_stack_bytes();
    initialise_classes();
    name_runtime();
    is_libgomp = strncmp(runtime, "libgomp", 7) == 0;
#ifndef _WIN32
    pthread_atfork(before_fork, NULL, in_forked_child);
#endif
    fl_affinity_initialise();
}

/* With OMP_PROC_BIND, OMP_PLACES or GOMP_CPU_AFFINITY the runtime binds the thread that loads it to
 * one place, and hides the other processors from sched_getaffinity. */
int fl_openmp_processors(void)
{
    int processors = omp_get_num_procs(), places = omp_get_num_places(), sum = 0;
    for (int i = 0; i < places; i++)
        sum += omp_get_place_num_procs(i);
    return places > 0 && sum < processors ? sum : processors;
}

int fl_parallel_limit(void)
{
    /* A runtime whose threads were lost in a fork must not be called. */
    if (atomic_load_explicit(&orphaned, memory_order_relaxed))
        return 1;
    if (worker_stack_bytes < FL_STACK_BYTES) /* a block would overrun it */
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
int fl_openmp_processors(void) { return 0; }

#endif

/* ---- The region --------------------------------------------------------------------------- */

/* Blocks that a thread takes at a time. If it loses its processor, the caller waits for them. */
enum { GRAINS_PER_THREAD = 8, MAX_GRAIN = 16 };

static void run_here(int64_t first, int64_t last, fl_blocks_fn function, void *context)
{
    fp_mode saved = fp_enter();
    function(context, first, last);
    fp_leave(saved);
}

#ifdef _OPENMP

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Each thread begins with a stretch of its own, the same blocks in every call of a size, which its
 * cache may hold still; then it helps with the others. Threads beyond MAX_STRETCHES share. */
enum { MAX_STRETCHES = 64 };

struct stretch {
    _Alignas(64) atomic_int_least64_t next; /* the first block that nobody has taken */
    int64_t last;
};

struct job {
    fl_blocks_fn function;
    void *context;
    int64_t first, blocks, grain;
    _Alignas(64) atomic_int finished; /* workers; also a futex */
    atomic_bool caller_sleeps;
    int stretches;
    struct stretch stretch[MAX_STRETCHES]; /* only these are initialised */
};

static int64_t evenly(int64_t blocks, int64_t part, int64_t parts)
{
    return blocks / parts * part + blocks % parts * part / parts;
}

/* The first grain is the caller's, however late it begins: its time is the measure of the work. */
static void share_out(struct job *job, int threads)
{
    int64_t grains = (int64_t)threads * GRAINS_PER_THREAD;
    job->grain = job->blocks / grains + (job->blocks % grains != 0);
    if (job->grain > MAX_GRAIN)
        job->grain = MAX_GRAIN;
    job->stretches = threads < MAX_STRETCHES ? threads : MAX_STRETCHES;
    for (int i = 0; i < job->stretches; i++) {
        const int64_t first = job->first + evenly(job->blocks, i, job->stretches);
        job->stretch[i].last = job->first + evenly(job->blocks, i + 1, job->stretches);
        atomic_init(&job->stretch[i].next, i == 0 ? first + job->grain : first);
    }
}

/* The number of blocks of the grain that begins at `first`; 0 if the stretch ends before. */
static int64_t run_grain(struct job *job, const struct stretch *stretch, int64_t first)
{
    int64_t left = stretch->last - first, taken = left < job->grain ? left : job->grain;
    if (taken <= 0)
        return 0;
    job->function(job->context, first, first + taken);
    return taken;
}

static int64_t take_grain(struct job *job, struct stretch *stretch)
{
    if (atomic_load_explicit(&stretch->next, memory_order_relaxed) >= stretch->last)
        return 0;
    return run_grain(job, stretch,
                     atomic_fetch_add_explicit(&stretch->next, job->grain, memory_order_relaxed));
}

/* Runs the grains that are left of the thread's own stretch, then of the others; returns the
 * number of blocks run. */
static int64_t run_stretches(struct job *job, int thread)
{
    int64_t all = 0, taken;
    for (int i = 0; i < job->stretches; i++)
        while ((taken = take_grain(job, &job->stretch[(thread + i) % job->stretches])) > 0)
            all += taken;
    return all;
}

static void run_worker(struct job *job, int number)
{
    fp_mode saved = fp_enter();
    run_stretches(job, number);
    fp_leave(saved);
}

static void run_caller(struct job *job, fl_region *region)
{
    double begin = now();
    fp_mode saved = fp_enter();
    region->first_blocks = run_grain(job, &job->stretch[0], job->first);
    double first = now();
    region->caller_blocks = region->first_blocks + run_stretches(job, 0);
    fp_leave(saved);
    region->first = first - begin;
    region->caller = now() - begin;
}

/* ---- Waiting for the workers --- */

/* A worker that has a processor finishes within a grain. A late one waits for a processor, perhaps
 * the one on which the caller spins: after a while the caller sleeps. */
static const double SPIN_SECONDS = 50e-6;
enum { PAUSES = 32 };

/* musl has no linux/futex.h, and 32-bit systems with 64-bit times have another system call. */
enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129 };
#if defined(__linux__) && !defined(SYS_futex)
#define SYS_futex SYS_futex_time64
#endif

static void pause_briefly(void)
{
    for (int i = 0; i < PAUSES; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
    }
}

static int all_finished(struct job *job, int workers)
{
    return atomic_load_explicit(&job->finished, memory_order_acquire) >= workers;
}

static void wait_for_workers(struct job *job, int workers)
{
    if (all_finished(job, workers))
        return;
    const double begin = now();
    do {
        pause_briefly();
        if (all_finished(job, workers))
            return;
    } while (now() - begin < SPIN_SECONDS);
#ifdef __linux__
    atomic_store(&job->caller_sleeps, true);
    for (;;) {
        int finished = atomic_load(&job->finished);
        if (finished >= workers)
            return;
        syscall(SYS_futex, &job->finished, FUTEX_WAIT_PRIVATE, finished, NULL, NULL, 0);
    }
#endif
}

static void finish_worker(struct job *job, int workers)
{
    int is_last = atomic_fetch_add(&job->finished, 1) + 1 == workers;
#ifdef __linux__
    if (is_last && atomic_load(&job->caller_sleeps))
        syscall(SYS_futex, &job->finished, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
#else
    (void)is_last;
#endif
}

/* ---- The size of the team --- */

/* Elements of work. Batches of run.c, 2^24 elements, are not on a limit. */
enum { SMALLEST_CLASS = 3 << 14 };

static struct team_class {
    atomic_flag busy;
    atomic_int size;   /* control.size */
    double last_probe; /* when one began; guarded, as is the controller, by busy */
    fl_team_control control;
} classes[FL_TEAM_CLASSES];

static atomic_int callers; /* in fl_parallel, with work for a team */

static void initialise_classes(void)
{
    for (int i = 0; i < FL_TEAM_CLASSES; i++) {
        atomic_flag_clear(&classes[i].busy);
        atomic_init(&classes[i].size, 0);
        classes[i].last_probe = 0;
        fl_team_control_init(&classes[i].control);
    }
    atomic_init(&callers, 0);
}

static int available = 1; /* processors that this process may use */
static bool all_available;

void fl_set_available_processors(int count)
{
    available = within(count, 1, FL_MAX_THREADS);
#ifdef _SC_NPROCESSORS_ONLN
    all_available = count >= sysconf(_SC_NPROCESSORS_ONLN);
#endif
}

static struct team_class *class_of(double elements)
{
    int i = 0;
    for (; i < FL_TEAM_CLASSES - 1 && elements >= SMALLEST_CLASS; i++)
        elements /= 4;
    return &classes[i];
}

/* If another thread holds the class, the region uses the last size and is not observed. */
static int lock_class(struct team_class *class)
{
    return !atomic_flag_test_and_set_explicit(&class->busy, memory_order_acquire);
}

static void unlock_class(struct team_class *class)
{
    atomic_store_explicit(&class->size, class->control.size, memory_order_relaxed);
    atomic_flag_clear_explicit(&class->busy, memory_order_release);
}

static int choose_threads(struct team_class *class, int allowed)
{
    int size = atomic_load_explicit(&class->size, memory_order_relaxed);
    if (size == 0 || size >= allowed)
        return allowed;
    if (!lock_class(class))
        return size;
    fl_team_control *control = &class->control;
    const int probe = fl_team_probe_size(control, allowed);
    double time = now(), idle = 0;
    if (all_available) /* of which the kernel knows the idle time */
        idle = fl_idle_seconds(probe, control->size, control->computed);
    if (idle > time - class->last_probe)
        idle = time - class->last_probe;
    const int64_t probes = control->probes;
    size = fl_team_size(control, allowed, idle);
    if (control->probes > probes)
        class->last_probe = time;
    unlock_class(class);
    return size;
}

int64_t fl_team_class(int i, fl_team_control *control)
{
    struct team_class *class = &classes[i];
    while (!lock_class(class))
        pause_briefly();
    *control = class->control;
    unlock_class(class);
    return i == 0 ? 0 : (int64_t)SMALLEST_CLASS << 2 * (i - 1);
}

static void observe(struct team_class *class, const fl_region *region)
{
    if (lock_class(class)) {
        fl_team_observe(&class->control, region);
        unlock_class(class);
    }
}

/* ---- A region --- */

static const double RETRY_SECONDS = 1;

/* The threads of a team that can be had, if it is larger than the last one. */
static int possible_team(int wanted)
{
    if (wanted <= pool.size)
        return wanted;
    if (pool.no_more_until > 0 && now() < pool.no_more_until)
        return pool.size;
    const int possible = pool.size + fl_creatable_threads(wanted - pool.size, worker_stack_bytes);
    pool.no_more_until = possible < wanted ? now() + RETRY_SECONDS : 0;
    return possible;
}

static void run_team(struct job *job, fl_region *region)
{
    fl_team *team = fl_place_team();
    int spare = is_libgomp ? fl_spare_threads(team, region->threads) : 0;
    const int possible = possible_team(region->threads + spare);
    const int threads = possible < region->threads ? possible : region->threads;
    spare = possible - threads; /* is left out first */
    region->threads = threads;
    pool.size = threads + spare;
    if (threads == 1) {
        run_caller(job, region);
        return;
    }
    if (!atomic_load_explicit(&team_started, memory_order_relaxed))
        atomic_store(&team_started, true);
#pragma omp parallel num_threads(threads + spare)
    {
        int number = omp_get_thread_num(), size = omp_get_num_threads();
        int workers = (size < threads ? size : threads) - 1;
        if (number == 0) {
            run_caller(job, region);
            wait_for_workers(job, workers);
        } else if (number <= workers) {
            if (team)
                fl_join_team(team, number);
            run_worker(job, number);
            finish_worker(job, workers);
        }
    }
}

static void run_region(struct job *job, int threads, double elements, int fixed)
{
    struct team_class *class = class_of(elements);
    fl_region region = {.blocks = job->blocks, .allowed = threads, .threads = threads};
    if (!fixed)
        region.threads = choose_threads(class, threads);
    share_out(job, region.threads);
    double begin = now();
    if (region.threads == 1)
        run_caller(job, &region);
    else
        run_team(job, &region);
    if (!fixed) {
        region.total = now() - begin;
        observe(class, &region);
    }
}

void fl_parallel(int64_t first, int64_t last, fl_blocks_fn function, void *context, int threads,
                 double elements)
{
    if (first >= last)
        return;
    if (last - first < threads)
        threads = (int)(last - first);
    if (threads > 1)
        threads = within(threads, 1, fl_parallel_limit());
    if (threads <= 1) {
        run_here(first, last, function, context);
        return;
    }
    struct job job; /* most of it stays uninitialised */
    job.function = function;
    job.context = context;
    job.first = first;
    job.blocks = last - first;
    atomic_init(&job.finished, 0);
    atomic_init(&job.caller_sleeps, false);
    const int fixed = threads_are_fixed();
    /* Callers that compute at the same time divide the processors. */
    int concurrent = atomic_fetch_add_explicit(&callers, 1, memory_order_relaxed) + 1;
    if (concurrent > 1 && !fixed)
        threads = within(available / concurrent, 1, threads);
    if (threads == 1)
        run_here(first, last, function, context);
    else
        run_region(&job, threads, elements, fixed);
    atomic_fetch_sub_explicit(&callers, 1, memory_order_relaxed);
}

const char *fl_openmp_runtime(void) { return runtime; }

#else

void fl_parallel(int64_t first, int64_t last, fl_blocks_fn function, void *context, int threads,
                 double elements)
{
    (void)threads, (void)elements;
    if (first < last)
        run_here(first, last, function, context);
}

static void initialise_classes(void) {}
void fl_set_available_processors(int count) { (void)count; }

int64_t fl_team_class(int i, fl_team_control *control)
{
    (void)i;
    fl_team_control_init(control);
    return 0;
}

const char *fl_openmp_runtime(void) { return "none"; }

#endif
