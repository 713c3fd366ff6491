/* The part of an OpenMP runtime that the library calls, on POSIX threads, in place of libgomp, by
 * LD_PRELOAD: ThreadSanitizer understands its synchronisation, unlike libgomp's.
 *
 * It is as unhelpful as OpenMP allows: a team that shrinks ends threads, and the threads of a team
 * have other numbers in each region. The caller changes its processor often, and the process is
 * aborted unless exactly its own workers are then kept off that processor. For Linux. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_WORKERS = 64, CALLS_PER_PROCESSOR = 3 };

typedef struct pool pool;

typedef struct {
    pthread_t thread;
    pid_t tid;
    pool *pool;
    int index, moved;
} worker;

/* The workers of a calling thread. All but the first two members are guarded by the mutex. */
struct pool {
    int workers; /* that exist */
    unsigned regions;
    pthread_mutex_t mutex;
    pthread_cond_t begin, end;
    unsigned region; /* changes when one begins */
    int size;        /* workers of the region; those beyond it end */
    int running;
    unsigned rotation;
    void (*function)(void *);
    void *data;
    worker worker[MAX_WORKERS];
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local int number, team_size = 1, in_region, is_worker;

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    abort();
}

static void run(pool *p, int own_number)
{
    number = own_number;
    team_size = p->size + 1;
    in_region = 1;
    p->function(p->data);
    number = in_region = 0;
    team_size = 1;
}

static void *work(void *argument)
{
    worker *self = argument;
    pool *p = self->pool;
    unsigned seen = p->region; /* set before the thread was created */
    is_worker = 1;
    pthread_mutex_lock(&p->mutex);
    self->tid = (pid_t)syscall(SYS_gettid);
    p->running--;
    pthread_cond_signal(&p->end);
    for (;;) {
        while (p->region == seen)
            pthread_cond_wait(&p->begin, &p->mutex);
        seen = p->region;
        if (self->index >= p->size)
            break;
        const int own_number = 1 + (int)(((unsigned)self->index + p->rotation) % (unsigned)p->size);
        pthread_mutex_unlock(&p->mutex);
        run(p, own_number);
        pthread_mutex_lock(&p->mutex);
        p->running--;
        pthread_cond_signal(&p->end);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* Runs a region on the first workers; the others end. */
static void begin_region(pool *p, int workers, void (*function)(void *), void *data)
{
    pthread_mutex_lock(&p->mutex);
    p->size = p->running = workers;
    p->rotation = p->regions++;
    p->function = function;
    p->data = data;
    p->region++;
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->mutex);
}

static void end_region(pool *p)
{
    pthread_mutex_lock(&p->mutex);
    while (p->running > 0)
        pthread_cond_wait(&p->end, &p->mutex);
    pthread_mutex_unlock(&p->mutex);
}

static void nothing(void *data) { (void)data; }

static void resize(pool *p, int workers)
{
    if (p->workers > workers) {
        begin_region(p, workers, nothing, NULL);
        end_region(p);
        while (p->workers > workers)
            pthread_join(p->worker[--p->workers].thread, NULL);
    }
    for (; p->workers < workers; p->workers++) {
        worker *w = &p->worker[p->workers];
        *w = (worker){.pool = p, .index = p->workers};
        pthread_mutex_lock(&p->mutex);
        p->running = 1;
        pthread_mutex_unlock(&p->mutex);
        if (pthread_create(&w->thread, NULL, work, w) != 0)
            fail("no thread\n");
        end_region(p);
    }
}

static void end_pool(void *argument)
{
    pool *p = argument;
    resize(p, 0);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->begin);
    pthread_cond_destroy(&p->end);
    free(p);
}

static void create_key(void) { pthread_key_create(&key, end_pool); }

static pool *own_pool(int create)
{
    pthread_once(&once, create_key);
    pool *p = pthread_getspecific(key);
    if (!p && create) {
        p = calloc(1, sizeof *p);
        if (!p)
            fail("no memory\n");
        pthread_mutex_init(&p->mutex, NULL);
        pthread_cond_init(&p->begin, NULL);
        pthread_cond_init(&p->end, NULL);
        pthread_setspecific(key, p);
    }
    return p;
}

/* ---- The caller's processor and its workers --- */

int sched_getcpu(void)
{
    static _Thread_local unsigned calls;
    return (int)(calls++ / CALLS_PER_PROCESSOR % 2);
}

int sched_setaffinity(pid_t tid, size_t size, const cpu_set_t *set)
{
    if (tid == 0 && !is_worker)
        fail("the affinity of the calling thread is changed\n");
    if (tid != 0) {
        pool *p = own_pool(0);
        int i = 0;
        while (p && i < p->workers && p->worker[i].tid != tid)
            i++;
        if (!p || i == p->workers)
            fail("the affinity of a thread that is no worker of the caller is changed\n");
        p->worker[i].moved = 1;
    }
    return (int)syscall(SYS_sched_setaffinity, tid, size, set);
}

/* If the affinity of any worker was changed since the last region, all must have been. */
static void check_moves(pool *p)
{
    int moved = 0;
    for (int i = 0; i < p->workers; i++)
        moved += p->worker[i].moved;
    if (moved != 0 && moved != p->workers)
        fail("%d of %d workers are kept off the caller's processor\n", moved, p->workers);
    for (int i = 0; i < p->workers; i++)
        p->worker[i].moved = 0;
}

/* ---- OpenMP --- */

void GOMP_parallel(void (*function)(void *), void *data, unsigned threads, unsigned flags)
{
    (void)flags;
    if (in_region || threads == 1) {
        const int outer = number, outer_size = team_size, was_in_region = in_region;
        number = 0, team_size = 1, in_region = 1;
        function(data);
        number = outer, team_size = outer_size, in_region = was_in_region;
        return;
    }
    pool *p = own_pool(1);
    check_moves(p);
    const int workers = (int)threads - 1 < MAX_WORKERS ? (int)threads - 1 : MAX_WORKERS;
    resize(p, workers);
    begin_region(p, workers, function, data);
    run(p, 0);
    end_region(p);
}

int omp_pause_resource_all(int kind)
{
    (void)kind;
    pool *p = own_pool(0);
    if (p)
        resize(p, 0);
    return 0;
}

int omp_get_thread_num(void) { return number; }
int omp_get_num_threads(void) { return team_size; }
int omp_in_parallel(void) { return in_region && team_size > 1; }
int omp_get_num_procs(void) { return MAX_WORKERS; }
int omp_get_max_threads(void) { return MAX_WORKERS; }
int omp_get_thread_limit(void) { return MAX_WORKERS; }
int omp_get_num_places(void) { return 0; }
int omp_get_place_num_procs(int place) { return (void)place, 0; }
