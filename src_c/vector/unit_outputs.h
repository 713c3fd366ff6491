/* What each unit contributes: its terms of Σ l, Σ d, the count and the moments of the losses, and
 * the factors of its gradients. */
#ifndef FASTLOSS_UNIT_OUTPUTS_H
#define FASTLOSS_UNIT_OUTPUTS_H

#include "fastloss.h"
#include "runtime/moments.h"
#include "vector/loader.h"
#include "vector/real.h"

/* Adds n units to the moments. In lanes: a chain of dependent additions would take as long as the
 * formula. Parameters as in emit_unit_terms(). */
static inline void accumulate_moments(fl_moments *moments, int64_t n, const real *l,
                                      const double *divisor, double target_length)
{
    double rr[LANES] = {0}, rd[LANES] = {0}, dd[LANES] = {0};
    int64_t i = 0;
    for (; i < n && moments->dd == 0; i++)
        moments_add(moments, (double)l[i] / target_length, divisor ? divisor[i] : 1);
    const fl_moments start = *moments;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double d = divisor ? divisor[i + k] : 1;
            double r = moments_residual(&start, (double)l[i + k] / target_length, d);
            rr[k] += r * r;
            rd[k] += r * d;
            dd[k] += d * d;
        }
    for (int k = 0; k < LANES; k++) {
        moments->rr += rr[k];
        moments->rd += rd[k];
        moments->dd += dd[k];
    }
    for (; i < n; i++)
        moments_add(moments, (double)l[i] / target_length, divisor ? divisor[i] : 1);
}

static inline int wants_unit_terms(const fl_call *call)
{
    return call->wants_moments || call->weighted_loss;
}

/* Emits what units [first, first + n) add to the sums: l / target_length to Σ l and divisor to Σ d.
 * A unit with active = 0 is not counted. divisor (n) and active (n) may be NULL for ones. */
static inline void emit_unit_terms(const fl_call *call, int64_t first, int64_t n, const real *l,
                                   double target_length, const double *divisor,
                                   const double *active, fl_partial *partial)
{
    if (call->wants_moments)
        accumulate_moments(&partial->moments, n, l, divisor, target_length);
    for (int64_t i = 0; call->weighted_loss && i < n; i++) {
        call->weighted_loss[first + i] = (double)l[i] / target_length;
        call->unit_divisor[first + i] = divisor ? divisor[i] : 1;
        call->unit_counted[first + i] = !active || active[i] != 0;
    }
}

/* grad_output of units [first, first + n), NULL if the call has one scalar for all of them. */
static inline const double *load_grad_output(const fl_call *call, int64_t first, int64_t n,
                                             double *scratch)
{
    return call->grad_output_array.data
               ? fl_load_double(&call->grad_output_array, first, n, scratch)
               : 0;
}

/* v := scale weight grad_output v, exactly 0 where weight = 0 removes the entry. weight (n) and
 * grad_output (n) may be NULL for ones. The product is formed in double: it then overflows only if
 * the result does. */
static inline void scale_tile(real *v, const double *weight, const double *grad_output,
                              double scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double factor = (weight ? weight[i] : 1) * scale * (grad_output ? grad_output[i] : 1);
        v[i] = weight && weight[i] == 0 ? 0 : (real)(factor * (double)v[i]);
    }
}

#endif
