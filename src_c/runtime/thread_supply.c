/* Whether threads can be created. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* SYS_tgkill */
#endif
#include "runtime/thread_supply.h"

#if defined(_OPENMP) && !defined(_WIN32)

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

typedef struct {
    pthread_t thread;
    pid_t tid;
    pthread_mutex_t *gate; /* held until all threads exist */
} probe_thread;

static void *wait_at_gate(void *argument)
{
    probe_thread *self = argument;
#ifdef __linux__
    self->tid = (pid_t)syscall(SYS_gettid);
#endif
    pthread_mutex_lock(self->gate);
    pthread_mutex_unlock(self->gate);
    return NULL;
}

/* pthread_join returns before the kernel has ceased to count the thread. */
static void wait_until_uncounted(pid_t tid)
{
#ifdef __linux__
    enum { ATTEMPTS = 10000 };
    for (int i = 0; i < ATTEMPTS && syscall(SYS_tgkill, getpid(), tid, 0) == 0; i++)
        sched_yield();
#else
    (void)tid;
#endif
}

int fl_creatable_threads(int wanted, size_t stack_bytes)
{
    pthread_attr_t attributes;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    probe_thread *threads = calloc((size_t)wanted, sizeof *threads);
    if (!threads || pthread_attr_init(&attributes) != 0) {
        free(threads);
        return 0;
    }
    if (stack_bytes > 0)
        pthread_attr_setstacksize(&attributes, stack_bytes);
    pthread_mutex_lock(&gate);
    int created = 0;
    for (; created < wanted; created++) {
        threads[created].gate = &gate;
        if (pthread_create(&threads[created].thread, &attributes, wait_at_gate,
                           &threads[created]) != 0)
            break;
    }
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < created; i++) {
        pthread_join(threads[i].thread, NULL);
        wait_until_uncounted(threads[i].tid);
    }
    pthread_attr_destroy(&attributes);
    free(threads);
    return created;
}

#else

int fl_creatable_threads(int wanted, size_t stack_bytes)
{
    (void)stack_bytes;
    return wanted;
}

#endif
