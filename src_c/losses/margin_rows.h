/* Rows of class scores x (N, C), a batch at a time: weights, losses, and the hinge of a margin. A
 * unit is a row; its loss, sums and margins are computed in double. */
#ifndef FASTLOSS_MARGIN_ROWS_H
#define FASTLOSS_MARGIN_ROWS_H

#include "fastloss.h"
#include "runtime/double_double.h"
#include "vector/domain_check.h"
#include "vector/lanes.h"
#include "vector/loader.h"
#include "vector/unit_outputs.h"

typedef struct {
    int active; /* 0 if a weight of 0 or an invalid label removes the row, whatever it holds */
    double sample_weight;
    double loss;         /* l 2^-exponent, before the sample weight and w_y */
    double grad_scale;   /* factor of dl/dx */
    int64_t label;       /* multi_margin: y */
    double class_weight; /* multi_margin: w_y 2^-exponent; else 1 */
    int64_t exponent;    /* 0 unless a weight is extreme */
    fl_dd gap;           /* multi_margin: m - x_y, in two parts */
    fl_dd sum;           /* of the terms of l: Σ z^p, or Σ w_c l_c */
    fl_dd slope_sum;     /* multi_margin: Σ p z^(p-1) over the positive z */
    int is_extended;     /* multi_margin: a sum of doubles overflows, a loss or gradient may not */
    long double extended_sum, extended_slope_sum;
    double x_y; /* if is_extended */
} margin_row;

/* Initialises rows [first, first + n) by their sample weights, which are added to Σ d. */
static void margin_rows_init(const fl_call *call, int64_t first, int64_t n, margin_row *rows,
                             fl_partial *partial)
{
    double weight_tile[FL_ROW_BATCH], scale[FL_ROW_BATCH];
    const double *weight = load_sample_weight(call, first, n, weight_tile, partial);
    /* w_y may bring an infinite factor back into range. */
    load_gradient_scale(call, first, n, weight, NULL, scale,
                        call->operand[2].data ? NULL : partial);
    for (int64_t i = 0; i < n; i++) {
        double s = weight ? weight[i] : 1;
        rows[i] = (margin_row){.active = s != 0,
                               .sample_weight = s,
                               .class_weight = 1,
                               .grad_scale = scale[i] / (double)call->unit_size};
    }
    const unit_weights w = sample_weights_only(weight);
    add_divisors(&w, n, partial);
}

/* Whether any loss of the rows has weights, or is a sum with weights. */
static int margin_rows_are_weighted(const fl_call *call)
{
    return call->sample_weight.data || call->weight.data || call->operand[2].data;
}

/* The weighted losses of the rows as values. */
static void margin_rows_store_values(const fl_call *call, int64_t first, int64_t n,
                                     const margin_row *rows)
{
    real value_tile[FL_ROW_BATCH],
        *l = fl_output_buffer(call->output[FL_LOSSES], first, n, value_tile);
    for (int64_t i = 0; i < n; i++) {
        const margin_row *row = &rows[i];
        l[i] = row->active ? (real)(row->sample_weight * (row->class_weight * row->loss)) : 0;
        if (row->active && row->exponent != 0) {
            const double factors[] = {row->sample_weight, row->class_weight, row->loss};
            l[i] = (real)fl_scaled_product(factors, 3, row->exponent);
        }
    }
    fl_store(call->output[FL_LOSSES], first, n, l);
}

/* Counts the active rows and emits their losses. */
static void margin_rows_emit(const fl_call *call, int64_t first, int64_t n, const margin_row *rows,
                             fl_partial *partial)
{
    real l[FL_ROW_BATCH];
    double l_double[FL_ROW_BATCH], sample[FL_ROW_BATCH], class_weight[FL_ROW_BATCH],
        product[FL_ROW_BATCH], divisor[FL_ROW_BATCH], active[FL_ROW_BATCH];
    int64_t exponent[FL_ROW_BATCH], any_exponent = 0;
    unit_weights weight = {0}, by = {0};
    unit_losses losses = {.weight = &weight, .l = l, .target_length = 1};
    for (int64_t i = 0; i < n; i++)
        partial->count += rows[i].active;
    if (!wants_losses(call))
        return;
    for (int64_t i = 0; i < n; i++)
        l[i] = rows[i].active ? (real)rows[i].loss : 0;
    if (margin_rows_are_weighted(call)) {
        for (int64_t i = 0; i < n; i++) {
            sample[i] = rows[i].active ? rows[i].sample_weight : 0;
            class_weight[i] = rows[i].class_weight;
            product[i] = rows[i].active ? sample[i] * class_weight[i] : 0;
            exponent[i] = rows[i].exponent;
            any_exponent |= exponent[i];
        }
        weight = (unit_weights){.product = product,
                                .sample_weight = sample,
                                .loss_weight = class_weight,
                                .exponent = any_exponent ? exponent : NULL};
    }
    if (call->weight.data) { /* l is a sum with weights of any scale */
        for (int64_t i = 0; i < n; i++)
            l_double[i] = rows[i].active ? round_to_real_precision(rows[i].loss) : 0;
        losses.l_double = l_double;
    }
    if (wants_unit_terms(call)) {
        for (int64_t i = 0; i < n; i++) {
            divisor[i] = rows[i].sample_weight;
            active[i] = rows[i].active;
        }
        if (call->sample_weight.data)
            by = sample_weights_only(divisor);
    }
    emit_losses(call, first, n, &losses, sum_unit_losses(&losses, n), &by, active, partial);
    if (call->output[FL_LOSSES])
        margin_rows_store_values(call, first, n, rows);
}

/* m - x as the unevaluated sum hi + lo: a single double would lose digits of scores far from m, and
 * of a z close to its kink. */
static INLINE fl_dd margin_gap(double m, real x)
{
    fl_dd gap = two_sum(m, -(double)x);
    return (fl_dd){gap.hi, finite_or_zero(gap.lo)};
}

/* z = gap + x, rounded once, at its end. For a float x, gap.hi + x is exact where the two cancel,
 * and elsewhere its error is far below the precision of a float. For a double x, a two-sum recovers
 * the error. */
static INLINE double margin_at(fl_dd gap, double x)
{
#if REAL_IS_DOUBLE
    fl_dd z = two_sum(gap.hi, x);
    return z.hi - z.hi == 0 ? z.hi + (z.lo + gap.lo) : z.hi;
#else
    return gap.hi + x + gap.lo;
#endif
}

/* max(0, gap + x); NaN propagates. */
static INLINE double hinge(fl_dd gap, double x)
{
    double z = margin_at(gap, x);
    return z <= 0 ? 0 : z;
}

enum { FEW_CLASSES = 2 * LANES };

/* Σ v over n entries. A short row is summed in a single lane: to reduce all lanes would take longer
 * than to sum it. */
static fl_dd row_sum(const double *v, int64_t n)
{
    if (n > FEW_CLASSES)
        return sum_doubles(v, n);
    lane_sum sum;
    sum.hi[0] = sum.lo[0] = 0;
    for (int64_t i = 0; i < n; i++)
        add_to_lane(&sum, 0, v[i]);
    return dd_add_double((fl_dd){sum.hi[0], 0}, finite_or_zero(sum.lo[0]));
}

#endif
