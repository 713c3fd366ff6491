/* Double-double sums, by Knuth's two-sum. */
#ifndef FASTLOSS_DOUBLE_DOUBLE_H
#define FASTLOSS_DOUBLE_DOUBLE_H

#include "fastloss.h"

static inline fl_dd dd_add_double(fl_dd a, double b)
{
    double s = a.hi + b;
    if (s - s != 0) /* inf and NaN have no rounding error */
        return (fl_dd){s, 0};
    double v = s - a.hi, e = (a.hi - (s - v)) + (b - v) + a.lo, hi = s + e;
    return (fl_dd){hi, e - (hi - s)};
}

static inline fl_dd dd_add(fl_dd a, fl_dd b)
{
    fl_dd s = dd_add_double(a, b.hi);
    return dd_add_double(s, b.lo);
}

/* Records an invalid value. Of all that are recorded the partial retains the first, in the order of
 * unit, argument and entry. */
static inline void record_error(fl_partial *partial, int64_t unit, int argument, int64_t entry)
{
    int64_t error[] = {unit, argument, entry};
    int64_t recorded[] = {partial->error_unit, partial->error_argument, partial->error_entry};
    int k = 0;
    while (k < 2 && error[k] == recorded[k])
        k++;
    if (partial->error_unit == FL_NOWHERE || error[k] < recorded[k]) {
        partial->error_unit = unit;
        partial->error_argument = argument;
        partial->error_entry = entry;
    }
}

#endif
