/* Error-free sums of two doubles, and double-double sums. */
#ifndef FASTLOSS_DOUBLE_DOUBLE_H
#define FASTLOSS_DOUBLE_DOUBLE_H

#include "fastloss.h"
#include "runtime/inline.h"

/* hi = a + b, rounded, and its rounding error lo, exact (Knuth's two-sum). If hi is infinite or
 * NaN, lo is NaN. */
static INLINE fl_dd two_sum(double a, double b)
{
    double hi = a + b, v = hi - a;
    return (fl_dd){hi, (a - (hi - v)) + (b - v)};
}

/* The same for |a| >= |b| or a = 0 (Dekker's fast two-sum). */
static INLINE fl_dd fast_two_sum(double a, double b)
{
    double hi = a + b;
    return (fl_dd){hi, b - (hi - a)};
}

static INLINE int is_finite(double v) { return v - v == 0; }

/* The rounding error `lo` of a sum, or 0 in place of inf and NaN, which would turn an infinite sum
 * into NaN. */
static INLINE double finite_or_zero(double lo) { return is_finite(lo) ? lo : 0; }

static inline fl_dd dd_add_double(fl_dd a, double b)
{
    fl_dd sum = two_sum(a.hi, b);
    if (!is_finite(sum.hi)) /* inf and NaN have no rounding error */
        return (fl_dd){sum.hi, 0};
    return fast_two_sum(sum.hi, sum.lo + a.lo);
}

static inline fl_dd dd_add(fl_dd a, fl_dd b)
{
    fl_dd s = dd_add_double(a, b.hi);
    return dd_add_double(s, b.lo);
}

#endif
