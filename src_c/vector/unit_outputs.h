/* The contributions of units to the results of a call: terms of Σ l, Σ d, the count and the moments
 * of the losses, values, and factors of gradients. */
#ifndef FASTLOSS_UNIT_OUTPUTS_H
#define FASTLOSS_UNIT_OUTPUTS_H

#include "fastloss.h"
#include "runtime/double_double.h"
#include "runtime/moments.h"
#include "runtime/scaled.h"
#include "vector/lanes.h"
#include "vector/loader.h"
#include "vector/real.h"

/* --- Sums over units --- */

/* The weights of n units. In the sums, the weight of unit i is
 *     product[i] 2^exponent[i],  product[i] = sample_weight[i] loss_weight[i].
 * A weight of 0 removes the unit, also where the product has underflowed. */
typedef struct {
    const double *product;                     /* NULL: all weights are 1 */
    const double *sample_weight, *loss_weight; /* NULL for ones */
    const int64_t *exponent;                   /* NULL for zeros */
} unit_weights;

/* Sample weights alone; NULL for ones. */
static inline unit_weights sample_weights_only(const double *sample_weight)
{
    return (unit_weights){.product = sample_weight, .sample_weight = sample_weight};
}

/* Whether the sum over a tile can be added as it is: neither it nor the sum of many like it
 * overflows. A weighted one must not be so small that products have underflowed. */
static inline int is_ordinary_sum(double sum, const unit_weights *w)
{
    const double size = __builtin_fabs(sum);
    return size <= FL_SUM_MAX && (!w->product || (size >= FL_SUM_MIN && !w->exponent));
}

static inline double weight_at(const double *weight, int64_t i) { return weight ? weight[i] : 1; }

static inline int64_t weight_exponent(const unit_weights *w, int64_t i)
{
    return w->exponent ? w->exponent[i] : 0;
}

/* Whether a product of finite, nonzero factors is not a normal number. */
static inline int is_extreme_product(double product)
{
    const double size = __builtin_fabs(product);
    return (size < 0x1p-1022) | (size > 0x1.fffffffffffffp1023);
}

/* Whether any of n weights is so large or small that its product with a factor of a gradient may be
 * out of the range of double, though the gradient is not. */
static inline int has_extreme_weight(const double *weight, int64_t n)
{
    int64_t extreme = 0;
    for (int64_t i = 0; i < n; i++) {
        const double size = __builtin_fabs(weight[i]);
        extreme += (size > 0x1p500) | ((size < 0x1p-500) & (size != 0));
    }
    return extreme > 0;
}

/* Adds n units to Σ d term by term, each a product of any size. Out of line, so that the common
 * case stays short. */
static __attribute__((noinline, cold)) void add_extreme_divisors(const unit_weights *w, int64_t n,
                                                                 fl_partial *partial)
{
    int64_t weighted = 0;
    for (int64_t i = 0; i < n; i++)
        weighted += (weight_at(w->sample_weight, i) != 0) & (weight_at(w->loss_weight, i) != 0);
    for (int64_t i = 0; weighted > 0 && i < n; i++)
        fl_add_scaled_term(&partial->divisor_sum, &partial->divisor_beyond,
                           weight_at(w->sample_weight, i), weight_at(w->loss_weight, i), 1,
                           weight_exponent(w, i));
}

/* Adds the weights of n units to Σ d. */
static inline void add_divisors(const unit_weights *w, int64_t n, fl_partial *partial)
{
    fl_dd sum = w->product ? sum_doubles(w->product, n) : (fl_dd){(double)n, 0};
    if (is_ordinary_sum(sum.hi, w))
        partial->divisor_sum = dd_add(partial->divisor_sum, sum);
    else
        add_extreme_divisors(w, n, partial);
}

/* Counts the units that are not removed by active = 0; active (n) may be NULL for ones. */
static inline void add_count(const double *active, int64_t n, fl_partial *partial)
{
    partial->count += n;
    for (int64_t i = 0; active && i < n; i++)
        partial->count -= active[i] == 0;
}

/* The unreduced losses of n units and their weights. In the sums, the loss of unit i is
 *     product[i] v 2^exponent[i] / target_length,
 * formed in double from v = l[i], the loss without its weights. */
typedef struct {
    const unit_weights *weight;
    const real *l;
    const double *l_double; /* instead of l, for losses that are sums with weights of any scale:
                           rounded to the precision of real, but not to its range */
    double target_length;
} unit_losses;

/* v of unit i. */
static INLINE double unit_loss(const unit_losses *t, int64_t i)
{
    return t->l_double ? t->l_double[i] : (double)t->l[i];
}

/* v of unit i times its weights. */
static INLINE double weighted_unit_loss(const unit_losses *t, int64_t i)
{
    const double *w = t->weight->product;
    return !w ? unit_loss(t, i) : w[i] == 0 ? 0 : w[i] * unit_loss(t, i);
}

static INLINE double weighted_real_at(const void *t, int64_t i)
{
    const unit_losses *losses = t;
    const double w = losses->weight->product[i], v = (double)losses->l[i];
    return w == 0 ? 0 : w * v;
}

static INLINE double weighted_double_at(const void *t, int64_t i)
{
    const unit_losses *losses = t;
    const double w = losses->weight->product[i], v = losses->l_double[i];
    return w == 0 ? 0 : w * v;
}

/* Σ over n units, without exponents and target_length. */
static inline fl_dd sum_unit_losses(const unit_losses *t, int64_t n)
{
    if (!t->weight->product)
        return t->l_double ? sum_doubles(t->l_double, n) : sum_tile(t->l, n);
    return t->l_double ? sum_entries(weighted_double_at, t, n)
                       : sum_entries(weighted_real_at, t, n);
}

/* Adds n units, of losses at(v, i) / target_length, to the moments. In lanes: a chain of dependent
 * additions would take as long as the formula. */
static INLINE void accumulate_moments(fl_moments *moments, int64_t n,
                                      double (*at)(const void *, int64_t), const void *v,
                                      const double *divisor, double target_length)
{
    const int64_t whole = n - n % LANES;
    double heaviest[LANES] = {0}, l_heaviest[LANES] = {0}, most = 0, pivot = 0;
    for (int64_t i = 0; i < (divisor ? whole : whole > 0 ? LANES : 0); i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double l = at(v, i + k) / target_length, d = divisor ? divisor[i + k] : 1;
            l_heaviest[k] = d > heaviest[k] ? l : l_heaviest[k];
            heaviest[k] = d > heaviest[k] ? d : heaviest[k];
        }
    for (int k = 0; k < LANES; k++)
        if (heaviest[k] > most) {
            most = heaviest[k];
            pivot = l_heaviest[k] / most;
        }
    double rr[LANES] = {0}, rd[LANES] = {0}, dd[LANES] = {0}, size[LANES] = {0};
    for (int64_t i = 0; i < whole; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double l = at(v, i + k) / target_length, d = divisor ? divisor[i + k] : 1;
            double r = d == 0 ? l : l - pivot * d;
            rr[k] += r * r;
            rd[k] += r * d;
            dd[k] += d * d;
            size[k] += __builtin_fabs(r);
        }
    const fl_moments tile = {.pivot = pivot,
                             .rr.m = reduce_sum(rr, LANES),
                             .rd.m = reduce_sum(rd, LANES),
                             .dd.m = reduce_sum(dd, LANES)};
    const int is_plain = is_ordinary_square(tile.rr.m) && is_ordinary_square(tile.dd.m) &&
                         (tile.rr.m != 0 || reduce_sum(size, LANES) == 0) &&
                         (tile.dd.m != 0 || most == 0);
    if (is_plain)
        fl_merge_moments(moments, &tile);
    for (int64_t i = is_plain ? whole : 0; i < n; i++)
        fl_add_to_moments(moments, at(v, i) / target_length, divisor ? divisor[i] : 1);
}

/* v times the weights of unit i, with their exponent. */
static inline double scaled_weight(const unit_weights *w, int64_t i, double v)
{
    const double factors[] = {weight_at(w->sample_weight, i), weight_at(w->loss_weight, i), v};
    return factors[0] == 0 || factors[1] == 0
               ? 0
               : fl_scaled_product(factors, 3, weight_exponent(w, i));
}

/* Adds n units, whose weights have exponents, to the moments. */
static __attribute__((noinline, cold)) void emit_extreme_moments(int64_t n, const unit_losses *t,
                                                                 const unit_weights *divisor,
                                                                 fl_partial *partial)
{
    for (int64_t i = 0; i < n; i++)
        fl_add_to_moments(&partial->moments,
                          scaled_weight(t->weight, i, unit_loss(t, i)) / t->target_length,
                          divisor->product ? scaled_weight(divisor, i, 1) : 1);
}

/* Adds n units to the moments. */
static inline void emit_moments(int64_t n, const unit_losses *t, const unit_weights *divisor,
                                fl_partial *partial)
{
    const double *d = divisor->product;
    fl_moments *moments = &partial->moments;
    if (t->weight->exponent || divisor->exponent)
        emit_extreme_moments(n, t, divisor, partial);
    else if (t->weight->product && t->l_double)
        accumulate_moments(moments, n, weighted_double_at, t, d, t->target_length);
    else if (t->weight->product)
        accumulate_moments(moments, n, weighted_real_at, t, d, t->target_length);
    else if (t->l_double)
        accumulate_moments(moments, n, double_at, t->l_double, d, t->target_length);
    else
        accumulate_moments(moments, n, real_at, t->l, d, t->target_length);
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

/* A product as a term of a unit; an underflow or overflow of finite, nonzero factors is noted. */
static inline double unit_term(double product, const unit_losses *t, const unit_weights *w,
                               int64_t i, fl_partial *partial)
{
    const double v = t ? unit_loss(t, i) : 1, s = weight_at(w->sample_weight, i),
                 c = weight_at(w->loss_weight, i);
    if (w->exponent)
        product = scaled_weight(w, i, v);
    if (!w->product || !is_extreme_product(product) || s == 0 || c == 0 || v == 0 ||
        (s - s) + (c - c) + (v - v) != 0)
        return product;
    const double size = __builtin_fabs(product);
    if (size > 1)
        partial->bad_terms |= FL_TERM_OVERFLOWS;
    else
        partial->bad_terms |= FL_TERM_UNDERFLOWS;
    return size == 0 ? (v < 0 ? -0x1p-1074 : 0x1p-1074) : product;
}

/* The divisor d of unit i is the product of weights in `divisor`; those with active (n) = 0 are
 * removed. NULL for ones. */
static __attribute__((noinline)) void emit_unit_terms(const fl_call *call, int64_t first, int64_t n,
                                                      const unit_losses *t,
                                                      const unit_weights *divisor,
                                                      const double *active, fl_partial *partial)
{
    if (call->wants_moments)
        emit_moments(n, t, divisor, partial);
    for (int64_t i = 0; call->weighted_loss && i < n; i++) {
        const int is_active = !active || active[i] != 0;
        double loss = is_active ? weighted_unit_loss(t, i) : 0,
               d = divisor->product ? divisor->product[i] : 1;
        if (is_active) {
            loss = unit_term(loss, t, t->weight, i, partial);
            d = unit_term(d, NULL, divisor, i, partial);
        }
        call->weighted_loss[first + i] = loss / t->target_length;
        call->unit_divisor[first + i] = d;
        call->unit_counted[first + i] = is_active;
    }
}

/* Adds n units to Σ l term by term, if a term may have overflowed or underflowed. */
static __attribute__((noinline, cold)) void add_extreme_losses(int64_t n, const unit_losses *t,
                                                               fl_dd sum, fl_partial *partial)
{
    const unit_weights *w = t->weight;
    int64_t tiny = 0;
    for (int64_t i = 0; i < n; i++)
        tiny += (weight_at(w->sample_weight, i) != 0) & (weight_at(w->loss_weight, i) != 0) &
                (unit_loss(t, i) != 0) & (__builtin_fabs(weighted_unit_loss(t, i)) < FL_SUM_MIN);
    if (__builtin_fabs(sum.hi) < FL_SUM_MIN && !w->exponent && tiny == 0) {
        partial->sum = dd_add(partial->sum, sum); /* terms of 0, or terms that cancel */
        return;
    }
    for (int64_t i = 0; i < n; i++)
        fl_add_scaled_term(&partial->sum, &partial->sum_beyond, weight_at(w->sample_weight, i),
                           weight_at(w->loss_weight, i), unit_loss(t, i) / t->target_length,
                           weight_exponent(w, i));
}

/* Emits the losses of units [first, first + n), if wants_losses(): adds them to Σ l and emits the
 * terms of each unit. `sum` is sum_unit_losses(t, n). The units add `divisor` to Σ d; those with
 * active (n) = 0, which may be NULL for ones, are removed. `active` is not read unless
 * wants_unit_terms(). */
static inline void emit_losses(const fl_call *call, int64_t first, int64_t n, const unit_losses *t,
                               fl_dd sum, const unit_weights *divisor, const double *active,
                               fl_partial *partial)
{
    if (n == 1 && t->target_length != 1) /* a sequence */
        sum = (fl_dd){sum.hi / t->target_length, 0};
    if (is_ordinary_sum(sum.hi, t->weight))
        partial->sum = dd_add(partial->sum, sum);
    else
        add_extreme_losses(n, t, sum, partial);
    if (wants_unit_terms(call))
        emit_unit_terms(call, first, n, t, divisor, active, partial);
}

/* v rounded to the precision of real, but not to its range. */
static inline double round_to_real_precision(double v)
{
#if REAL_IS_DOUBLE
    return v;
#else
    const double size = __builtin_fabs(v);
    return v == 0 || (size >= 0x1p-126 && size < 0x1p127) ? (double)(real)v
                                                          : fl_round_to_float_precision(v);
#endif
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

/* The factors of gradients if a double may not hold their products with the exponents. */
static __attribute__((noinline, cold)) void
load_extreme_gradient_scale(const fl_call *call, int64_t n, const double *sample_weight,
                            const double *grad_output, const int64_t *exponent, double *scale)
{
    for (int64_t i = 0; i < n; i++) {
        const double factors[] = {call->grad_scale, weight_at(sample_weight, i),
                                  weight_at(grad_output, i)};
        scale[i] =
            fl_scaled_product(factors, 3, call->grad_exponent + (exponent ? exponent[i] : 0));
    }
}

/* Records the first of units [first, first + n) whose gradients have an infinite factor although
 * its own factors are finite: times a derivative of 0 it would be NaN. */
static __attribute__((noinline, cold)) void
record_infinite_factor(const fl_call *call, int64_t first, int64_t n, const double *sample_weight,
                       const double *scale, fl_partial *partial)
{
    if (!wants_gradients(call) || !is_finite(call->grad_scale))
        return;
    for (int64_t i = 0; i < n; i++) {
        double element;
        const double *grad_output = load_grad_output(call, first + i, 1, &element);
        if (!is_finite(scale[i]) && is_finite(weight_at(sample_weight, i)) &&
            is_finite(weight_at(grad_output, 0)))
            record_error(partial, first + i, FL_GRADIENT_FACTOR, 0);
    }
}

/* scale[i] := grad_scale sample_weight[i] grad_output[i] 2^exponent[i], the factor of the gradients
 * of unit first + i, i < n. sample_weight (n) may be NULL for ones, exponent (n) for zeros.
 * An infinite factor is recorded unless `partial` is NULL. */
static inline void load_gradient_scale(const fl_call *call, int64_t first, int64_t n,
                                       const double *sample_weight, const int64_t *exponent,
                                       double *scale, fl_partial *partial)
{
    const double *grad_output = load_grad_output(call, first, n, scale);
    int64_t infinite = 0;
    if (call->grad_exponent != 0 || exponent)
        load_extreme_gradient_scale(call, n, sample_weight, grad_output, exponent, scale);
    else
        for (int64_t i = 0; i < n; i++)
            scale[i] = call->grad_scale * (sample_weight ? sample_weight[i] : 1) *
                       (grad_output ? grad_output[i] : 1);
    for (int64_t i = 0; i < n; i++)
        infinite += !is_finite(scale[i]);
    if (infinite > 0 && partial)
        record_infinite_factor(call, first, n, sample_weight, scale, partial);
}

/* Whether a factor of scale_tile() may overflow or underflow although a result does not. */
static inline int has_extreme_factor(const double *weight, const double *grad_output, double scale,
                                     int64_t n)
{
    int64_t extreme = 0;
    for (int64_t i = 0; i < n; i++) {
        const double w = weight ? weight[i] : 1, g = grad_output ? grad_output[i] : 1;
        extreme += (is_extreme_product(w * scale) | is_extreme_product(w * scale * g)) & (w != 0) &
                   (g != 0);
    }
    return extreme > 0 && scale != 0;
}

/* v := scale weight grad_output v, exactly 0 where weight = 0 removes the entry. weight (n) and
 * grad_output (n) may be NULL for ones. */
static inline void scale_tile(real *v, const double *weight, const double *grad_output,
                              double scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double factor = (weight ? weight[i] : 1) * scale * (grad_output ? grad_output[i] : 1);
        v[i] = weight && weight[i] == 0 ? 0 : (real)(factor * (double)v[i]);
    }
}

/* scale_tile() with the factor 2^exponent, where products of some of the factors may overflow or
 * underflow though the result does not. */
static __attribute__((noinline, cold, unused)) void
scale_extreme_tile(real *v, const unit_weights *w, const double *grad_output, double scale,
                   int64_t exponent, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double factors[] = {(double)v[i], weight_at(w->sample_weight, i),
                                  weight_at(w->loss_weight, i), scale, weight_at(grad_output, i)};
        v[i] =
            factors[1] == 0 || factors[2] == 0 ? 0 : (real)fl_scaled_product(factors, 5, exponent);
    }
}

#endif
