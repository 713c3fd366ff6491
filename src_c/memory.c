/* Memory of a unit in flight. A few pieces that are given back are kept for the next: the C library
 * hands large ones back to the system, and every call would pay for fresh pages. */
#include "fastloss.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { PIECES = 16, CACHE_LINE = 64 };

/* Larger ones are not kept. */
static const size_t LARGEST = 1 << 20;

/* What stands in the cache line before a piece. */
typedef struct {
    size_t bytes;
} head;

static _Atomic(head *) spare[PIECES];

void *fl_take(size_t bytes)
{
    bytes = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    for (int i = 0; i < PIECES; i++) {
        head *h = atomic_load(&spare[i]) ? atomic_exchange(&spare[i], NULL) : NULL;
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

void fl_give(void *memory)
{
    if (!memory)
        return;
    head *h = (head *)((char *)memory - CACHE_LINE), *none = NULL;
    for (int i = 0; i < PIECES && h->bytes <= LARGEST; i++, none = NULL)
        if (!atomic_load(&spare[i]) && atomic_compare_exchange_strong(&spare[i], &none, h))
            return;
    free(h);
}
