/* Second moments of the losses, for standard errors: sums over units of r = l - pivot d, where l is
 * the loss and d the divisor term of a unit. The pivot is the loss of a heavy unit, and so usually
 * of the size of the mean, which avoids the cancellation of large squares. */
#ifndef FASTLOSS_MOMENTS_H
#define FASTLOSS_MOMENTS_H

#include "fastloss.h"
#include "runtime/scaled.h"

/* Whether a square, or a sum of squares, needs no exponent. */
static inline int is_ordinary_square(double v)
{
    return v == 0 || (v >= FL_SUM_MIN && v <= FL_SUM_MAX);
}

/* The moments about pivot - shift, where r is r + shift d; each with its exponent. */
fl_moments fl_shifted_moments(const fl_moments *moments, fl_scaled shift);

void fl_add_to_moments(fl_moments *moments, double l, double d); /* a unit */
void fl_merge_moments(fl_moments *to, const fl_moments *other);

#endif
