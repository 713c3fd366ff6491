/* The contributions of units to the results of a call: terms of Σ l, Σ d, the count and the moments
 * of the losses, values, and factors of gradients. */
#ifndef FASTLOSS_UNIT_OUTPUTS_H
#define FASTLOSS_UNIT_OUTPUTS_H

#include "fastloss.h"
#include "runtime/double_double.h"
#include "runtime/moments.h"
#include "vector/lanes.h"
#include "vector/loader.h"
#include "vector/real.h"

/* --- Sums over units --- */

/* Adds n units to Σ d; divisor (n) may be NULL for ones. */
static inline void add_divisors(const double *divisor, int64_t n, fl_partial *partial)
{
    partial->divisor_sum = divisor ? dd_add(partial->divisor_sum, sum_doubles(divisor, n))
                                   : dd_add_double(partial->divisor_sum, (double)n);
}

/* Counts the units that are not removed by active = 0; active (n) may be NULL for ones. */
static inline void add_count(const double *active, int64_t n, fl_partial *partial)
{
    partial->count += n;
    for (int64_t i = 0; active && i < n; i++)
        partial->count -= active[i] == 0;
}

/* Adds n units to the moments. In lanes: a chain of dependent additions would take as long as the
 * formula. Parameters as in emit_losses(). */
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

/* Whether the losses of the units are needed. */
static inline int wants_losses(const fl_call *call)
{
    return call->wants_sum || call->output[FL_LOSSES];
}

/* Whether any gradient is requested. */
static inline int wants_gradients(const fl_call *call)
{
    int wanted = 0;
    for (int k = 0; k < FL_OPERANDS; k++)
        wanted |= call->output[FL_GRADIENT + k] != NULL;
    return wanted;
}

/* Whether the divisor and active of each unit are needed, see emit_losses(). */
static inline int wants_unit_terms(const fl_call *call)
{
    return call->wants_moments || call->weighted_loss;
}

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

/* Emits the losses of units [first, first + n), if wants_losses(): adds `sum` to Σ l, stores the
 * values, and emits the terms of each unit. l (n) includes the weights, and is divided by
 * target_length everywhere but in the values; `sum` = Σ l / target_length. The units add
 * divisor (n) to Σ d; those with active (n) = 0 are removed. Both may be NULL for ones, and are not
 * read unless wants_unit_terms(). */
static inline void emit_losses(const fl_call *call, int64_t first, int64_t n, const real *l,
                               fl_dd sum, double target_length, const double *divisor,
                               const double *active, fl_partial *partial)
{
    partial->sum = dd_add(partial->sum, sum);
    fl_store(call->output[FL_LOSSES], first, n, l);
    if (wants_unit_terms(call))
        emit_unit_terms(call, first, n, l, target_length, divisor, active, partial);
}

/* --- Factors of gradients --- */

/* grad_output of units [first, first + n), NULL if the call has one scalar for all of them. */
static inline const double *load_grad_output(const fl_call *call, int64_t first, int64_t n,
                                             double *scratch)
{
    return call->grad_output_array.data
               ? fl_load_double(&call->grad_output_array, first, n, scratch)
               : 0;
}

/* scale[i] := grad_scale sample_weight[i] grad_output[i], the factor of the gradients of unit
 * first + i, i < n. sample_weight (n) may be NULL for ones. */
static inline void load_gradient_scale(const fl_call *call, int64_t first, int64_t n,
                                       const double *sample_weight, double *scale)
{
    const double *grad_output = load_grad_output(call, first, n, scale);
    for (int64_t i = 0; i < n; i++)
        scale[i] = call->grad_scale * (sample_weight ? sample_weight[i] : 1) *
                   (grad_output ? grad_output[i] : 1);
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
