/* How far losses lie apart, about a pivot near their mean: no cancellation of large squares. */
#ifndef FASTLOSS_SPREAD_H
#define FASTLOSS_SPREAD_H

#include "fastloss.h"

static inline double moments_residual(const fl_moments *spread, double term, double share)
{
    return share == 0 ? term : term - spread->pivot * share;
}

static inline void moments_add(fl_moments *spread, double term, double share)
{
    if (spread->dd == 0 && share != 0)
        spread->pivot = term / share;
    double r = moments_residual(spread, term, share);
    spread->rr += r * r;
    spread->rd += r * share;
    spread->dd += share * share;
}

/* `from` about the pivot of `to`: with r = l - p d and e = q - p, l - q d = r - e d. */
static inline void moments_merge(fl_moments *to, const fl_moments *from)
{
    double e = to->pivot - from->pivot;
    if (from->dd == 0 || to->dd == 0) { /* a side without shares has no pivot yet */
        double rr = to->rr + from->rr;
        if (to->dd == 0)
            *to = *from;
        to->rr = rr;
        return;
    }
    to->rr += e == 0 ? from->rr : from->rr - e * (2 * from->rd - e * from->dd);
    to->rd += e == 0 ? from->rd : from->rd - e * from->dd;
    to->dd += from->dd;
}

#endif
