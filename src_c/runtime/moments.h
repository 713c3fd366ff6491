/* Second moments of the losses, for standard errors: sums over units of r = l - pivot d, where l is
 * the loss and d the divisor term of a unit. The pivot is one of the losses, and so usually of
 * the size of the mean, which avoids the cancellation of large squares. */
#ifndef FASTLOSS_MOMENTS_H
#define FASTLOSS_MOMENTS_H

#include "fastloss.h"

/* Between these bounds, neither squares nor sums of squares overflow or underflow. */
#define MOMENT_MIN 0x1p-300
#define MOMENT_MAX 0x1p300

/* Whether a term of this size asks for another exponent: its square would overflow, or underflow
 * although no term so far is larger. */
static inline int moments_need_exponent(double size, double sum_of_squares)
{
    return (size >= MOMENT_MAX && size < __builtin_inf()) ||
           (size > 0 && size <= MOMENT_MIN && sum_of_squares == 0);
}

static inline double moments_residual(const fl_moments *moments, double l, double d)
{
    return d == 0 ? l : l - moments->pivot * d;
}

/* 2^-exponent, by which r or d is multiplied. */
double fl_moments_unit(int exponent);

/* Adds a unit. The first one with d != 0 sets the pivot. */
void fl_add_to_moments(fl_moments *moments, double l, double d);

/* Adds the units of `other`. */
void fl_merge_moments(fl_moments *to, const fl_moments *other);

#endif
