/* What every kind of loss does with a tile: check its domain, weigh it, add it up. */
#ifndef FASTLOSS_TILE_H
#define FASTLOSS_TILE_H

#include "dd.h"
#include "fastloss.h"
#include "real.h"

/* Sums run in double over a fixed number of lanes, so that a sum depends on its terms alone,
 * whatever the width of the vectors, and are added up in this order. */
static inline double sum_lanes(double lane[LANES])
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

static inline double sum_tile(const real *v, int64_t n)
{
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += (double)v[i + k];
    for (int k = 0; i + k < n; k++)
        lane[k] += (double)v[i + k];
    return sum_lanes(lane);
}

static INLINE int is_allowed(real v, fl_domain domain)
{
    switch (domain) {
    case FL_UNIT_INTERVAL:
        return !(v < 0) & !(v > 1);
    case FL_NONNEGATIVE:
        return !(v < 0);
    case FL_SIGN:
        return (v == 1) | (v == -1) | (v != v);
    default:
        return 1;
    }
}

static INLINE int64_t count_bad(const real *v, int64_t n, fl_domain domain)
{
    int bad = 0;
    for (int64_t i = 0; i < n; i++)
        bad += !is_allowed(v[i], domain);
    return bad;
}

/* Notes the first entry that is not allowed, unless its factor of 0 removes it. */
static inline void check_tile(const real *v, int64_t n, fl_domain domain, const real *factor,
                              int argument, int64_t first, fl_partial *partial)
{
    int64_t bad = domain == FL_UNIT_INTERVAL ? count_bad(v, n, FL_UNIT_INTERVAL)
                  : domain == FL_NONNEGATIVE ? count_bad(v, n, FL_NONNEGATIVE)
                  : domain == FL_SIGN        ? count_bad(v, n, FL_SIGN)
                                             : 0;
    for (int64_t i = 0; bad > 0 && i < n; i++) {
        if (is_allowed(v[i], domain))
            continue;
        bad--;
        if (factor && factor[i] == 0)
            continue;
        note_bad(partial, first + i, argument);
        return;
    }
}

/* v := f u v, exactly 0 where f = 0 removes the entry; u may be NULL. */
static INLINE void weigh_tile(real *v, const real *f, const real *u, int64_t n)
{
    if (f && u)
        for (int64_t i = 0; i < n; i++)
            v[i] = f[i] == 0 ? 0 : f[i] * u[i] * v[i];
    else if (f)
        for (int64_t i = 0; i < n; i++)
            v[i] = f[i] == 0 ? 0 : f[i] * v[i];
    else if (u)
        for (int64_t i = 0; i < n; i++)
            v[i] *= u[i];
}

static INLINE int64_t count_nonzero(const real *f, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += f[i] != 0;
    return count;
}

#endif
