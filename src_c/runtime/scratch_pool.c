/* Memory of a unit in flight. A few pieces that are given back are kept for the next: the C library
 * hands large ones back to the system, and every call would pay for fresh pages. */
#include "fastloss.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { PIECES = 64, PER_THREAD = 2, CACHE_LINE = 64 };

/* Larger ones are not kept. */
static const size_t LARGEST = 1 << 20;

/* What stands in the cache line before a piece. */
typedef struct {
    size_t bytes;
} head;

static _Atomic(head *) spare[PIECES];

/* Where a thread looks first: what it gave back is in its cache. */
static int home(void)
{
    static atomic_uint threads;
    static _Thread_local unsigned number;
    if (number == 0)
        number = 1 + atomic_fetch_add(&threads, 1) % (PIECES / PER_THREAD);
    return (int)(number - 1) * PER_THREAD;
}

void *fl_scratch_alloc(size_t bytes)
{
    const int start = home();
    bytes = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    for (int i = start; i < start + PIECES && bytes <= LARGEST; i++) {
        _Atomic(head *) *place = &spare[i % PIECES];
        head *h = atomic_load(place) ? atomic_exchange(place, NULL) : NULL;
        if (h && h->bytes >= bytes)
            return (char *)h + CACHE_LINE;
        free(h);
    }
    head *h = aligned_alloc(CACHE_LINE, CACHE_LINE + bytes);
    if (!h)
        return NULL;
    h->bytes = bytes;
    return (char *)h + CACHE_LINE;
}

void fl_scratch_free(void *memory)
{
    if (!memory)
        return;
    const int start = home();
    head *h = (head *)((char *)memory - CACHE_LINE);
    for (int i = start; i < start + PIECES && h->bytes <= LARGEST; i++) {
        _Atomic(head *) *place = &spare[i % PIECES];
        head *none = NULL;
        if (!atomic_load(place) && atomic_compare_exchange_strong(place, &none, h))
            return;
    }
    free(h);
}
