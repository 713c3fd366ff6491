/* Sums over a fixed number of lanes.
 *
 * A sum of an array depends on its terms and their order alone: term i is added to lane i modulo
 * LANES, whatever the width of the vector registers, and the lanes are then reduced in a fixed
 * order. */
#ifndef FASTLOSS_LANES_H
#define FASTLOSS_LANES_H

#include "runtime/double_double.h"
#include "vector/real.h"

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
    double a = sum->hi[k], s = a + v, b = s - a;
    sum->lo[k] += (a - (s - b)) + (v - b);
    sum->hi[k] = s;
#else
    sum->hi[k] += v;
#endif
}

/* Copies lane by lane: a local copy then lives in registers, which assignment of the struct would
 * put in memory. */
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

/* The sum of all lanes: in double-double, lane after lane, for doubles; by a tree for floats. */
static inline fl_dd reduce_lanes(lane_sum *sum)
{
#if REAL_IS_DOUBLE
    fl_dd total = {0, 0};
    for (int k = 0; k < LANES; k++) {
        total = dd_add_double(total, sum->hi[k]);
        if (sum->lo[k] - sum->lo[k] == 0) /* inf and NaN have no rounding error */
            total = dd_add_double(total, sum->lo[k]);
    }
    return total;
#else
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            sum->hi[k] += sum->hi[k + half];
    return (fl_dd){sum->hi[0], 0};
#endif
}

static inline fl_dd sum_tile(const real *v, int64_t n)
{
    lane_sum sum = {{0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++)
            add_to_lane(&sum, k, (double)v[i + k]);
    for (int k = 0; i + k < n; k++)
        add_to_lane(&sum, k, (double)v[i + k]);
    return reduce_lanes(&sum);
}

static inline fl_dd sum_doubles(const double *v, int64_t n)
{
    lane_sum sum = {{0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++)
            add_to_lane(&sum, k, v[i + k]);
    for (int k = 0; i + k < n; k++)
        add_to_lane(&sum, k, v[i + k]);
    return reduce_lanes(&sum);
}

#endif
