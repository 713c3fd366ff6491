/* Sums over a fixed number of lanes.
 *
 * A sum of an array depends on its terms and their order alone: term i is added to lane i modulo
 * LANES, whatever the width of the vector registers, and the lanes are then reduced in a fixed
 * order. */
#ifndef FASTLOSS_LANES_H
#define FASTLOSS_LANES_H

#include "runtime/double_double.h"
#include "vector/real.h"

#include <string.h>

/* LANES partial sums. Floats are summed in double, which is exact enough. The rounding errors of
 * sums of doubles, up to half an ULP per term, are summed separately in `lo`; for floats `lo` is
 * unused. */
typedef struct {
    double hi[LANES], lo[LANES];
} lane_sum;

/* sum->hi[k] + sum->lo[k] += v, by two-sum for doubles. */
static INLINE void add_to_lane(lane_sum *sum, int k, double v)
{
#if REAL_IS_DOUBLE
    fl_dd s = two_sum(sum->hi[k], v);
    sum->hi[k] = s.hi;
    sum->lo[k] += s.lo;
#else
    sum->hi[k] += v;
#endif
}

static INLINE void clear_lane_sum(lane_sum *sum)
{
    memset(sum->hi, 0, sizeof sum->hi);
    if (REAL_IS_DOUBLE)
        memset(sum->lo, 0, sizeof sum->lo);
}

/* Copies lane by lane, so that a local copy stays in registers; an assignment of the struct would
 * put it in memory. */
static INLINE void copy_lane_sum(lane_sum *to, const lane_sum *from)
{
    for (int k = 0; k < LANES; k++) {
        to->hi[k] = from->hi[k];
        if (REAL_IS_DOUBLE)
            to->lo[k] = from->lo[k];
    }
}

/* Adds a b. For floats the product is exact, and one rounding remains where the target has a fused
 * multiply-add. */
static INLINE void add_product_to_lane(lane_sum *sum, int k, double a, double b)
{
#if REAL_IS_DOUBLE
    add_to_lane(sum, k, a * b);
#else
    sum->hi[k] = FMA_DOUBLE(a, b, sum->hi[k]);
#endif
}

/* Reductions of v (n) by a binary tree, n a power of two: the order does not depend on the width of
 * the vector registers. v is overwritten. */
static INLINE double reduce_sum(double *v, int n)
{
#pragma GCC unroll 8
    for (int half = n / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            v[k] += v[k + half];
    return v[0];
}

/* A NaN may be lost. */
static INLINE real reduce_real_max(real *v, int n)
{
#pragma GCC unroll 8
    for (int half = n / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            v[k] = v[k] < v[k + half] ? v[k + half] : v[k];
    return v[0];
}

/* The sum of all lanes: lane after lane in double-double for doubles, by a tree for floats. */
static inline fl_dd reduce_lanes(lane_sum *sum)
{
#if REAL_IS_DOUBLE
    fl_dd total = {0, 0};
    for (int k = 0; k < LANES; k++)
        total = dd_add(total, (fl_dd){sum->hi[k], finite_or_zero(sum->lo[k])});
    return total;
#else
    return (fl_dd){reduce_sum(sum->hi, LANES), 0};
#endif
}

static INLINE double real_at(const void *v, int64_t i) { return (double)((const real *)v)[i]; }
static INLINE double double_at(const void *v, int64_t i) { return ((const double *)v)[i]; }

/* Σ at(v, i) for i = 0 ... n - 1. */
static INLINE fl_dd sum_entries(double (*at)(const void *, int64_t), const void *v, int64_t n)
{
    lane_sum sum;
    clear_lane_sum(&sum);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++)
            add_to_lane(&sum, k, at(v, i + k));
    for (int k = 0; i + k < n; k++)
        add_to_lane(&sum, k, at(v, i + k));
    return reduce_lanes(&sum);
}

static inline fl_dd sum_tile(const real *v, int64_t n) { return sum_entries(real_at, v, n); }
static inline fl_dd sum_doubles(const double *v, int64_t n) { return sum_entries(double_at, v, n); }

#endif
