/* The stack that is left on a thread. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_getattr_np */
#endif
#include "runtime/stack.h"

#include <ctype.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#ifndef _WIN32
#include <pthread.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#endif

/* ---- The calling thread --- */

#if defined(__linux__) || defined(__APPLE__)

static _Thread_local uintptr_t stack_end; /* the lowest address; 0: not yet known, 1: unknown */

/* The stack of the main thread: to find a thread-local variable takes a shared library 20 ns. The
 * kernel keeps at least MAIN_STACK_MAX free of other memory, such as stacks of other threads. */
enum { MAIN_STACK_MAX = 64 << 20 };
static atomic_uintptr_t main_stack_end;
static atomic_size_t main_stack_bytes; /* 0: not yet known, or not to be used; written last */

/* Returns the lowest address, or 1, and sets the size. */
static uintptr_t find_stack(size_t *bytes)
{
#ifdef __APPLE__
    *bytes = pthread_get_stacksize_np(pthread_self());
    return (uintptr_t)pthread_get_stackaddr_np(pthread_self()) - *bytes;
#else
    pthread_attr_t attributes;
    void *lowest = NULL;
    size_t guard = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return 1;
    if (pthread_attr_getstack(&attributes, &lowest, bytes) != 0 || !lowest)
        lowest = (void *)1;
    else if (pthread_attr_getguardsize(&attributes, &guard) != 0)
        guard = 0; /* glibc before 2.27 counts the guard as stack */
    pthread_attr_destroy(&attributes);
    *bytes -= guard;
    return (uintptr_t)lowest + guard;
#endif
}

static int is_main_thread(void)
{
#ifdef __APPLE__
    return pthread_main_np();
#else
    return syscall(SYS_gettid) == getpid();
#endif
}

size_t fl_stack_left(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    size_t bytes = atomic_load_explicit(&main_stack_bytes, memory_order_acquire);
    size_t left = here - atomic_load_explicit(&main_stack_end, memory_order_relaxed);
    if (left < bytes)
        return left;
    if (stack_end == 0) {
        stack_end = find_stack(&bytes);
        if (stack_end != 1 && bytes <= MAIN_STACK_MAX && is_main_thread()) {
            atomic_store_explicit(&main_stack_end, stack_end, memory_order_relaxed);
            atomic_store_explicit(&main_stack_bytes, bytes, memory_order_release);
        }
    }
    /* A coroutine library may have given the thread another stack. */
    return stack_end == 1 || here < stack_end ? SIZE_MAX : here - stack_end;
}

#else

size_t fl_stack_left(void) { return SIZE_MAX; }

#endif

/* ---- Workers --- */

#ifndef _WIN32

/* A number with an optional unit B, K, M or G; without one, kilobytes. 0 for anything else. */
static size_t parse_stack_size(const char *text)
{
    char *end;
    errno = 0;
    while (isspace((unsigned char)*text))
        text++;
    if (!isdigit((unsigned char)*text))
        return 0;
    unsigned long long size = strtoull(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    int unit = toupper((unsigned char)*end), shift = unit == 'B'   ? 0
                                                     : unit == 'M' ? 20
                                                     : unit == 'G' ? 30
                                                                   : 10;
    if (errno != 0 || size > (~0ULL >> 1) >> shift)
        return 0;
    return (size_t)(size << shift);
}

size_t fl_worker_stack_bytes(void)
{
    static const char *const variables[] = {"OMP_STACKSIZE", "GOMP_STACKSIZE", "KMP_STACKSIZE"};
    pthread_attr_t attributes;
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof variables / sizeof *variables && bytes == 0; i++)
        if (getenv(variables[i]))
            bytes = parse_stack_size(getenv(variables[i]));
    if (pthread_attr_init(&attributes) != 0)
        return bytes;
    /* A size that the system refuses is not used. */
    if (bytes == 0 || pthread_attr_setstacksize(&attributes, bytes) != 0)
        pthread_attr_getstacksize(&attributes, &bytes);
    pthread_attr_destroy(&attributes);
    return bytes;
}

#else

size_t fl_worker_stack_bytes(void) { return SIZE_MAX; }

#endif
