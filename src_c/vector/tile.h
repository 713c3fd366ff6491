/* What every kind of loss does with a tile: check its domain, weigh it, add it up. */
#ifndef FASTLOSS_TILE_H
#define FASTLOSS_TILE_H

#include "runtime/double_double.h"
#include "fastloss.h"
#include "vector/loader.h"
#include "vector/real.h"
#include "runtime/moments.h"

/* Sums run in double over a fixed number of lane_sum, so that a sum depends on its terms alone,
 * whatever the width of the vectors. Doubles need a double-double in each lane: added one by one
 * they would be off by up to half an ULP per term. */
typedef struct {
    double hi[LANES], lo[LANES];
} lane_sum;

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

/* Entry by entry, so that the copy stays in registers: as a whole it would stay in memory. */
static INLINE void copy_lane_sum(lane_sum *to, const lane_sum *from)
{
    for (int k = 0; k < LANES; k++) {
        to->hi[k] = from->hi[k];
        if (REAL_IS_DOUBLE)
            to->lo[k] = from->lo[k];
    }
}

/* Adds a b, in one rounding where the target fuses; of two floats the product is exact. */
static INLINE void add_product_to_lane(lane_sum *sum, int k, double a, double b)
{
#if REAL_IS_DOUBLE
    add_to_lane(sum, k, a * b);
#else
    sum->hi[k] = FMA_DOUBLE(a, b, sum->hi[k]);
#endif
}

static inline fl_dd reduce_lanes(lane_sum *sum)
{
#if REAL_IS_DOUBLE
    fl_dd total = {0, 0};
    for (int k = 0; k < LANES; k++) {
        total = dd_add_double(total, sum->hi[k]);
        if (sum->lo[k] - sum->lo[k] == 0) /* inf and NaN have no remainder */
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

static INLINE int in_domain(real v, fl_domain domain)
{
    switch (domain) {
    case FL_UNIT_INTERVAL:
        return !(v < 0) & !(v > 1);
    case FL_NONNEGATIVE:
        return !(v < 0);
    case FL_POSITIVE:
        return !(v <= 0);
    case FL_SIGN:
        return (v == 1) | (v == -1) | (v != v);
    default:
        return 1;
    }
}

/* Has its sign bit where v is not allowed, or is -0 or NaN; cheaper than a comparison. */
static INLINE uint_real domain_flag(real v, fl_domain domain)
{
    uint_real bits = real_bits(v), one = real_bits(1);
    switch (domain) {
    case FL_UNIT_INTERVAL:
        return bits | (one - bits);
    case FL_NONNEGATIVE:
        return bits;
    case FL_POSITIVE:
        return bits | (bits - 1);
    case FL_SIGN:
        return 0 - ((bits ^ one) & ~SIGN_BIT);
    default:
        return 0;
    }
}

static INLINE int64_t count_invalid(const real *v, int64_t n, fl_domain domain)
{
    int bad = 0;
    for (int64_t i = 0; i < n; i++)
        bad += !in_domain(v[i], domain);
    return bad;
}

/* Notes the first entry that is not allowed, unless the factor 0 of its unit removes it. `first`
 * and n count entries, of which a unit has `width`; factor[0] is that of the unit of `first`. */
static inline void check_tile(const real *v, int64_t n, fl_domain domain, const double *factor,
                              int argument, int64_t first, int64_t width, fl_partial *partial)
{
    int64_t bad = domain == FL_UNIT_INTERVAL ? count_invalid(v, n, FL_UNIT_INTERVAL)
                  : domain == FL_NONNEGATIVE ? count_invalid(v, n, FL_NONNEGATIVE)
                  : domain == FL_POSITIVE    ? count_invalid(v, n, FL_POSITIVE)
                  : domain == FL_SIGN        ? count_invalid(v, n, FL_SIGN)
                                             : 0;
    for (int64_t i = 0; bad > 0 && i < n; i++) {
        if (in_domain(v[i], domain))
            continue;
        bad--;
        int64_t unit = (first + i) / width;
        if (factor && factor[unit - first / width] == 0)
            continue;
        record_error(partial, unit, argument, (first + i) % width);
        return;
    }
}

/* Sample weights; none may be negative. */
static inline const double *load_sample_weight(const fl_call *call, int64_t first, int64_t n,
                                               double *scratch, fl_partial *partial)
{
    if (!call->sample_weight.data)
        return 0;
    const double *s = fl_load_double(&call->sample_weight, first, n, scratch);
    for (int64_t i = 0; i < n; i++)
        if (s[i] < 0) {
            record_error(partial, first + i, FL_AT_SAMPLE_WEIGHT, 0);
            break;
        }
    return s;
}

/* --- what each unit adds, where it is wanted --- */

/* In lane_sum, as one sum after the other takes as long as the formula. */
static inline void accumulate_moments(fl_moments *spread, int64_t n, const real *l,
                                      const double *share, double divide)
{
    double rr[LANES] = {0}, rd[LANES] = {0}, dd[LANES] = {0};
    int64_t i = 0;
    for (; i < n && spread->dd == 0; i++)
        moments_add(spread, (double)l[i] / divide, share ? share[i] : 1);
    const fl_moments about = *spread;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double d = share ? share[i + k] : 1;
            double r = moments_residual(&about, (double)l[i + k] / divide, d);
            rr[k] += r * r;
            rd[k] += r * d;
            dd[k] += d * d;
        }
    for (int k = 0; k < LANES; k++) {
        spread->rr += rr[k];
        spread->rd += rd[k];
        spread->dd += dd[k];
    }
    for (; i < n; i++)
        moments_add(spread, (double)l[i] / divide, share ? share[i] : 1);
}

static inline int wants_unit_terms(const fl_call *call)
{
    return call->wants_moments || call->weighted_loss;
}

/* l/divide is added to Σ l and share to Σ d; share may be NULL for ones, and so may factor, which
 * is 0 where a unit does not count. */
static inline void emit_unit_terms(const fl_call *call, int64_t first, int64_t n, const real *l,
                                   double divide, const double *share, const double *factor,
                                   fl_partial *partial)
{
    if (call->wants_moments)
        accumulate_moments(&partial->moments, n, l, share, divide);
    for (int64_t i = 0; call->weighted_loss && i < n; i++) {
        call->weighted_loss[first + i] = (double)l[i] / divide;
        call->unit_divisor[first + i] = share ? share[i] : 1;
        call->unit_counted[first + i] = !factor || factor[i] != 0;
    }
}

/* The factor of each unit's gradients, NULL for ones. */
static inline const double *load_grad_output(const fl_call *call, int64_t first, int64_t n,
                                             double *scratch)
{
    return call->grad_output_array.data
               ? fl_load_double(&call->grad_output_array, first, n, scratch)
               : 0;
}

/* v := scale f u v, exactly 0 where f = 0 removes the entry; f and u may be NULL. In double, where
 * no product of weights overflows that the result does not. */
static inline void scale_tile(real *v, const double *f, const double *u, double scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double factor = (f ? f[i] : 1) * scale * (u ? u[i] : 1);
        v[i] = f && f[i] == 0 ? 0 : (real)(factor * (double)v[i]);
    }
}

#endif
