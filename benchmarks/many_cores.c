/* The additions that runtime/run.c makes for the partials of a batch, in the order of blocks. */
#include "fastloss.h"

#include <stdlib.h>

enum { BLOCKS = 2048 };

/* Adds the partials of a batch this many times; returns a part of the total, -1 without memory. */
double add_partials(int64_t times)
{
    fl_partial *partial = calloc(BLOCKS, sizeof *partial);
    if (!partial)
        return -1;
    for (int64_t i = 0; i < BLOCKS; i++)
        partial[i] = (fl_partial){.sum = {1.5 + (double)i, 1e-20},
                                  .divisor_sum = {1, 0},
                                  .moments = {(double)i, .rr = {2, 0}, .rd = {1, 0}, .dd = {1, 0}},
                                  .error_unit = FL_NOWHERE};
    fl_totals totals = {0};
    for (int64_t n = 0; n < times * BLOCKS; n++)
        fl_add_partial(&totals, &partial[n % BLOCKS]);
    free(partial);
    return totals.sum.hi + totals.moments.rr.m;
}
