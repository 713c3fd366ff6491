/* p-norms along a row, in double: ‖e‖_p = s (Σ |e/s|^p)^(1/p).
 *
 * The scale s keeps the sum from over- and underflow; it is 1 or a power of two, which divides
 * exactly, except for very large p. Squares of floats neither over- nor underflow in double, so
 * rows of floats are never rescaled at p = 2. */
#ifndef FASTLOSS_SCALED_NORM_H
#define FASTLOSS_SCALED_NORM_H

#include "runtime/double_double.h"
#include "vector/lanes.h"

#include <math.h>

/* Sums of squares between these are safe: no large term overflowed, none underflowed that matters,
 * and their roots are far from subnormal. */
static const double LARGE_SUM = 0x1p600, SMALL_SUM = 0x1p-600;

/* Sums of p-th powers of numbers below 2 fit into a double for p below this. */
static const double LARGE_P = 512;

/* How far ahead of their use entries are prefetched, in bytes. */
enum { PREFETCH_DISTANCE = 4096 };

/* |d‖e‖/de| of an entry e is
 *     p = 2:    |e| inv_scale grad_factor
 *     p = inf:  grad_factor = 1/ties where |e| = max, else 0
 *     other p:  |e/scale|^(p-1) grad_factor, or where |e/scale| is tiny
 *               |e|^(p-1) unscaled_grad_factor */
typedef struct {
    double scale;     /* divides the entries */
    fl_dd sum;        /* Σ |e/scale|^p */
    double max, ties; /* max |e|, and the number of entries that attain it */
    double length;    /* ‖e‖ */
    double inv_scale, grad_factor, unscaled_grad_factor;
    double min_weight; /* factor of its gradient in min(δ(a, n), δ(p, n)): 1, 1/2 or 0 */
} scaled_norm;

/* --- sums along a row --- */

/* Prefetches the rows to come: hardware prefetchers do not detect streams that alternate row by row
 * if the rows are short. */
static INLINE void row_prefetch(const real *x)
{
    __builtin_prefetch((const char *)x + PREFETCH_DISTANCE);
}

/* Sets all lanes to 0. Floats do not use lo. */
static INLINE void lane_sum_clear(lane_sum *sum)
{
    for (int k = 0; k < LANES; k++) {
        sum->hi[k] = 0;
        if (REAL_IS_DOUBLE)
            sum->lo[k] = 0;
    }
}

/* Reduces the lanes of a sum of n terms; fewer than LANES terms are all in lane 0. A tree, unlike
 * reduce_lanes(), since it runs once per row and rows may be many and short. */
static INLINE fl_dd lane_sum_fold(lane_sum *sum, int64_t n)
{
    if (n >= LANES)
#pragma GCC unroll 4
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int k = 0; k < half; k++) {
                add_to_lane(sum, k, sum->hi[k + half]);
                if (REAL_IS_DOUBLE)
                    sum->lo[k] += sum->lo[k + half];
            }
    return (fl_dd){sum->hi[0], REAL_IS_DOUBLE ? sum->lo[0] : 0};
}

/* Adds the sum over the span of a row that starts at column `from`; the first span starts the
 * total. */
static INLINE void row_total_add(fl_dd *total, int64_t from, fl_dd sum)
{
    sum.lo = finite_or_zero(sum.lo);
    *total = from == 0 ? sum : dd_add(*total, sum);
}

static INLINE double entry_difference(real u, real v, double epsilon)
{
    return (double)u - (double)v + epsilon;
}

/* e times a power of two, which is 1 for rows of floats. */
static INLINE double entry_scaled(double e, double factor)
{
    return REAL_IS_DOUBLE ? e * factor : e;
}

/* Adds the term of an entry e to lane k. */
typedef void (*norm_term)(lane_sum *sum, int k, double e, double scale, double p);

static INLINE void norm_term_l1(lane_sum *sum, int k, double e, double scale, double p)
{
    add_to_lane(sum, k, fabs(e));
}

static INLINE void norm_term_l2(lane_sum *sum, int k, double e, double scale, double p)
{
    e = entry_scaled(e, 1 / scale);
    add_product_to_lane(sum, k, e, e);
}

static INLINE void norm_term_lp(lane_sum *sum, int k, double e, double scale, double p)
{
    add_to_lane(sum, k, pow(fabs(e) / scale, p));
}

/* The sum of the terms of n entries e = u - v + ε. */
static INLINE fl_dd norm_sum(norm_term term, const real *u, const real *v, int64_t n,
                             double epsilon, double scale, double p)
{
    int64_t i = 0;
    lane_sum sum;
    clear_lane_sum(&sum);
    if (n < LANES) {
        for (; i < n; i++)
            term(&sum, 0, entry_difference(u[i], v[i], epsilon), scale, p);
    } else {
        for (; i + LANES <= n; i += LANES) {
            row_prefetch(u + i);
            row_prefetch(v + i);
#pragma omp simd
            for (int k = 0; k < LANES; k++)
                term(&sum, k, entry_difference(u[i + k], v[i + k], epsilon), scale, p);
        }
        for (int k = 0; i + k < n; k++)
            term(&sum, k, entry_difference(u[i + k], v[i + k], epsilon), scale, p);
    }
    return lane_sum_fold(&sum, n);
}

/* Merges `count` entries of magnitude e into the maximum and its number of ties; NaN is larger than
 * any number. */
static INLINE void norm_merge_max(double *max, double *ties, double e, double count)
{
    int is_larger = (e > *max) | (e != e);
    *ties = is_larger ? count : *ties + (e == *max ? count : 0);
    *max = is_larger ? e : *max;
}

/* Merges n entries e = u - v + ε into the maximum. */
static void norm_find_max(scaled_norm *norm, const real *u, const real *v, int64_t n,
                          double epsilon)
{
    double max[LANES] = {0}, ties[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++)
            norm_merge_max(&max[k], &ties[k], fabs(entry_difference(u[i + k], v[i + k], epsilon)),
                           1);
    if (i > 0)
        for (int k = 0; k < LANES; k++)
            norm_merge_max(&norm->max, &norm->ties, max[k], ties[k]);
    for (; i < n; i++)
        norm_merge_max(&norm->max, &norm->ties, fabs(entry_difference(u[i], v[i], epsilon)), 1);
}

/* Adds n entries e = u - v + ε of a row, from column `from` on: to the maximum if find_max, else to
 * the sum. */
static void norm_accumulate(scaled_norm *norm, int find_max, int64_t from, const real *u,
                            const real *v, int64_t n, double epsilon, double p)
{
    if (find_max)
        norm_find_max(norm, u, v, n, epsilon);
    else if (p == 1)
        row_total_add(&norm->sum, from, norm_sum(norm_term_l1, u, v, n, epsilon, 1, 1));
    else if (p == 2)
        row_total_add(&norm->sum, from, norm_sum(norm_term_l2, u, v, n, epsilon, norm->scale, 2));
    else
        row_total_add(&norm->sum, from, norm_sum(norm_term_lp, u, v, n, epsilon, norm->scale, p));
}

/* --- scales --- */

/* The scale of p-th powers, given the largest entry. Roots (p < 1) need none. A power of two
 * divides exactly and brings all entries below 2; from LARGE_P on they must not exceed 1. */
static double norm_power_scale(double max, double p)
{
    int exponent;
    if (p < 1 || max == 0 || max - max != 0)
        return 1;
    frexp(max, &exponent);
    return p < LARGE_P ? ldexp(1, exponent - 1) : max;
}

/* Chooses another scale if the sum of squares over- or underflowed; returns whether the sum has to
 * be computed again. */
static int norm_rescale_if_needed(scaled_norm *norm, double small_scale)
{
    double sum = norm->sum.hi;
    norm->scale = sum > LARGE_SUM ? LARGE_SUM : sum < SMALL_SUM ? small_scale : 1;
    return norm->scale != 1;
}

/* --- the norm and its gradient --- */

/* Sets ‖e‖_2 and its inverse, in two factors where it might not be a normal number. */
static void norm_set_length(scaled_norm *norm, double root)
{
    norm->length = norm->scale * root;
    int is_normal = norm->length > 0x1p-1000 && norm->length < 0x1p1000;
    norm->inv_scale = is_normal ? 1 : 1 / norm->scale;
    norm->grad_factor = root == 0 ? 0 : 1 / (is_normal ? norm->length : root);
}

/* Sets ‖e‖_p and the factors of its gradient. */
static void norm_finish(scaled_norm *norm, double p)
{
    double sum = norm->sum.hi + norm->sum.lo;
    if (p == 1) {
        norm->length = sum;
    } else if (p == 2) {
        norm_set_length(norm, sqrt(sum));
    } else if (p == INFINITY) {
        norm->length = norm->max;
        norm->grad_factor = 1 / norm->ties;
    } else {
        /* A rounded 1/p changes the root of an unscaled sum (p < 1) by log(sum) half ULPs. */
        int exponent;
        double root = p < 1 && frexp(p, &exponent) != 0.5 ? (double)powl(sum, 1 / (long double)p)
                                                          : pow(sum, 1 / p);
        norm->length = norm->scale * root;
        norm->grad_factor = sum == INFINITY ? 0 : root / sum; /* (scale / length)^(p-1) */
        norm->unscaled_grad_factor = norm->grad_factor * pow(norm->scale, 1 - p);
    }
}

/* d‖e‖_p/de for one entry e. */
typedef double (*norm_grad)(double e, const scaled_norm *norm, double p);

static INLINE double norm_grad_l1(double e, const scaled_norm *norm, double p)
{
    return e > 0 ? 1 : e < 0 ? -1 : e;
}

static INLINE double norm_grad_l2(double e, const scaled_norm *norm, double p)
{
    return entry_scaled(e, norm->inv_scale) * norm->grad_factor;
}

static INLINE double norm_grad_linf(double e, const scaled_norm *norm, double p)
{
    double tie_weight = fabs(e) == norm->max ? norm->grad_factor : 0;
    return e > 0 ? tie_weight : e < 0 ? -tie_weight : e;
}

static INLINE double norm_grad_lp(double e, const scaled_norm *norm, double p)
{
    double size = fabs(e), ratio = size / norm->scale;
    double slope = ratio < 0x1p-1000 && p < 4
                       ? pow(size, p - 1) * norm->unscaled_grad_factor
                       : pow(ratio, p - 1) * norm->grad_factor; /* from p = 4 on, it is 0 */
    return e == 0 ? e : copysign(slope, e);
}

#endif
