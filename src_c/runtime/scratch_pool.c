/* Scratch memory of a unit in flight. A pool keeps a few freed buffers for the next call: the C
 * library returns large ones to the system, and every call would pay for fresh pages.
 */
#include "fastloss.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { SLOTS = 64, SLOTS_PER_THREAD = 2 };

/* Larger buffers are freed. */
static const size_t LARGEST = 1 << 20;

/* In the cache line before a buffer. */
typedef struct {
    size_t bytes;
} header;

static _Atomic(header *) slots[SLOTS];

/* The slot at which a thread starts its search: the buffer that it freed last is in its cache. */
static int home_slot(void)
{
    static atomic_uint threads;
    static _Thread_local unsigned number;
    if (number == 0)
        number = 1 + atomic_fetch_add(&threads, 1) % (SLOTS / SLOTS_PER_THREAD);
    return (int)(number - 1) * SLOTS_PER_THREAD;
}

void *fl_scratch_alloc(size_t bytes)
{
    if (bytes > PTRDIFF_MAX - 2 * FL_CACHE_LINE) /* the sums below must not wrap around */
        return NULL;
    const int start = home_slot();
    bytes = (bytes + FL_CACHE_LINE - 1) / FL_CACHE_LINE * FL_CACHE_LINE;
    for (int i = start; i < start + SLOTS && bytes <= LARGEST; i++) {
        _Atomic(header *) *slot = &slots[i % SLOTS];
        header *h = atomic_load(slot) ? atomic_exchange(slot, NULL) : NULL;
        if (h && h->bytes >= bytes)
            return (char *)h + FL_CACHE_LINE;
        free(h);
    }
    header *h = aligned_alloc(FL_CACHE_LINE, FL_CACHE_LINE + bytes);
    if (!h)
        return NULL;
    h->bytes = bytes;
    return (char *)h + FL_CACHE_LINE;
}

void fl_scratch_free(void *memory)
{
    if (!memory)
        return;
    const int start = home_slot();
    header *h = (header *)((char *)memory - FL_CACHE_LINE);
    for (int i = start; i < start + SLOTS && h->bytes <= LARGEST; i++) {
        _Atomic(header *) *slot = &slots[i % SLOTS];
        header *empty = NULL;
        if (!atomic_load(slot) && atomic_compare_exchange_strong(slot, &empty, h))
            return;
    }
    free(h);
}
