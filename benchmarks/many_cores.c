/* The additions that runtime/run.c makes for the partials of a batch, in the order of its blocks. */
#include "runtime/double_double.h"
#include "runtime/moments.h"

#include <stdlib.h>

enum { BLOCKS = 2048 };

/* Adds the partials of a batch this many times; returns a part of the total, or -1 without memory. */
double add_partials(int64_t times)
{
    fl_partial *partial = calloc(BLOCKS, sizeof *partial);
    if (!partial)
        return -1;
    for (int64_t i = 0; i < BLOCKS; i++)
        partial[i] = (fl_partial){.sum = {1.5 + (double)i, 1e-20},
                                  .divisor_sum = {1, 0},
                                  .moments = {.pivot = (double)i, .rr = 2, .rd = 1, .dd = 1},
                                  .error_unit = FL_NOWHERE};
    fl_totals totals = {0};
    for (int64_t n = 0; n < times * BLOCKS; n++) {
        const fl_partial *p = &partial[n % BLOCKS];
        totals.sum = dd_add(totals.sum, p->sum);
        totals.divisor_sum = dd_add(totals.divisor_sum, p->divisor_sum);
        totals.count += p->count;
        moments_merge(&totals.moments, &p->moments);
    }
    free(partial);
    return totals.sum.hi + totals.divisor_sum.hi + totals.moments.rr;
}
