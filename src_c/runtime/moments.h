/* Second moments of the losses, for standard errors: sums over units of r = l - pivot d, where l is
 * the loss and d the divisor term of a unit. The pivot is one of the losses, and so usually of
 * the size of the mean, which avoids the cancellation of large squares. */
#ifndef FASTLOSS_MOMENTS_H
#define FASTLOSS_MOMENTS_H

#include "fastloss.h"

static inline double moments_residual(const fl_moments *moments, double l, double d)
{
    return d == 0 ? l : l - moments->pivot * d;
}

/* Adds a unit. The first one with d != 0 sets the pivot. */
static inline void moments_add(fl_moments *moments, double l, double d)
{
    if (moments->dd == 0 && d != 0)
        moments->pivot = l / d;
    double r = moments_residual(moments, l, d);
    moments->rr += r * r;
    moments->rd += r * d;
    moments->dd += d * d;
}

/* Adds the units of `other`, whose sums are first shifted to the pivot of `to`: with r = l - p d
 * and e = q - p, l - q d = r - e d. */
static inline void moments_merge(fl_moments *to, const fl_moments *other)
{
    double e = to->pivot - other->pivot;
    if (other->dd == 0 || to->dd == 0) { /* without d there is no pivot yet */
        double rr = to->rr + other->rr;
        if (to->dd == 0)
            *to = *other;
        to->rr = rr;
        return;
    }
    to->rr += e == 0 ? other->rr : other->rr - e * (2 * other->rd - e * other->dd);
    to->rd += e == 0 ? other->rd : other->rd - e * other->dd;
    to->dd += other->dd;
}

#endif
