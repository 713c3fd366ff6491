/* Workers kept off the caller's processor. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getcpu, cpu_set_t */
#endif
#include "runtime/worker_affinity.h"

#if defined(_OPENMP) && defined(__linux__)

#include "runtime/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHECK_SECONDS 1 /* how soon a new affinity of the caller is noticed */

struct fl_team {
    atomic_int references; /* the caller's and one per worker that recorded itself */
    int cpu;               /* where the caller was; -1: not known */
    int cpus;              /* how many it may use */
    time_t checked;        /* when its affinity was last read */
    bool placed;           /* workers have the affinity below, not the inherited one */
    cpu_set_t allowed;     /* the caller's affinity */
    cpu_set_t workers;
    _Atomic pid_t tids[FL_MAX_THREADS]; /* by number in the team; 0: no such worker */
};

static bool user_binds_threads;
static pthread_key_t exit_key;
static bool have_exit_key;

static _Thread_local struct {
    fl_team *own;    /* as a caller */
    fl_team *joined; /* as a worker */
    int number;      /* its number there */
    pid_t tid;
} self;

static void release(fl_team *team)
{
    if (team && atomic_fetch_sub(&team->references, 1) == 1)
        free(team);
}

/* The runtime ends threads when teams shrink and callers end; it may also lend them to another
 * caller. A thread that is no longer ours must leave the table: its number may come back as that
 * of another thread, even of another process. */
static void leave_team(void)
{
    if (!self.joined)
        return;
    pid_t mine = self.tid;
    atomic_compare_exchange_strong(&self.joined->tids[self.number], &mine, 0);
    release(self.joined);
    self.joined = NULL;
}

static void thread_exits(void *unused)
{
    (void)unused;
    leave_team();
    release(self.own);
    self.own = NULL;
}

void fl_join_team(fl_team *team, int number)
{
    if (self.joined == team && self.number == number)
        return;
    leave_team();
    if (pthread_setspecific(exit_key, &self) != 0)
        return;
    self.tid = (pid_t)syscall(SYS_gettid);
    self.number = number;
    self.joined = team;
    atomic_fetch_add(&team->references, 1);
    atomic_store(&team->tids[number], self.tid);
    if (team->placed)
        sched_setaffinity(0, sizeof team->workers, &team->workers);
}

fl_team *fl_place_team(void)
{
    fl_team *team = self.own;
    if (!team) {
        if (user_binds_threads || !have_exit_key)
            return NULL;
        team = calloc(1, sizeof *team);
        if (!team || pthread_setspecific(exit_key, &self) != 0) {
            free(team);
            return NULL;
        }
        atomic_init(&team->references, 1);
        team->cpu = -1;
        self.own = team;
    }

    int cpu = sched_getcpu();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    if (cpu == team->cpu && now.tv_sec - team->checked < CHECK_SECONDS)
        return team;

    cpu_set_t allowed;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return NULL;
    team->checked = now.tv_sec;
    if (cpu == team->cpu && CPU_EQUAL(&allowed, &team->allowed))
        return team;
    team->cpu = cpu;
    team->cpus = CPU_COUNT(&allowed);
    team->allowed = allowed;
    team->workers = allowed;
    if (team->cpus >= 2)
        CPU_CLR((size_t)cpu, &team->workers);
    else if (!team->placed)
        return team;
    team->placed = true;
    for (int i = 1; i < FL_MAX_THREADS; i++) {
        pid_t tid = atomic_load_explicit(&team->tids[i], memory_order_relaxed);
        if (tid)
            sched_setaffinity(tid, sizeof team->workers, &team->workers);
    }
    return team;
}

int fl_spare_threads(const fl_team *team, int threads)
{
    return team && threads == team->cpus && threads < FL_MAX_THREADS &&
           atomic_load_explicit(&team->tids[threads - 1], memory_order_relaxed) == 0;
}

int fl_team_worker(const fl_team *team, int number) { return atomic_load(&team->tids[number]); }

void fl_affinity_initialise(void)
{
    static const char *const binding[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY",
                                          "KMP_AFFINITY"};
    for (size_t i = 0; i < sizeof binding / sizeof *binding; i++)
        user_binds_threads |= getenv(binding[i]) != NULL;
    have_exit_key = pthread_key_create(&exit_key, thread_exits) == 0;
}

#else

void fl_affinity_initialise(void) {}
void fl_join_team(fl_team *team, int number) { (void)team, (void)number; }
fl_team *fl_place_team(void) { return 0; }

int fl_spare_threads(const fl_team *team, int threads)
{
    (void)team, (void)threads;
    return 0;
}

int fl_team_worker(const fl_team *team, int number)
{
    (void)team, (void)number;
    return 0;
}

#endif
