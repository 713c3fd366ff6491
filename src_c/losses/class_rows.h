/* Rows of classes: labels, weights, divisor and unreduced losses of a batch of rows.
 *
 * A unit is a row of C scores; the loader finds its classes, whatever their stride:
 *
 *     x  operand[0]     (units, C)   scores: logits or log-probabilities
 *     y  operand[1]     (units)      class indices, or
 *                       (units, C)   probabilities (SOFT)
 *     w  operand[2]     (C)          class weights, absent for ones
 *     s  sample_weight  (units)      sample weights, absent for ones
 *
 * A kernel calls class_rows_load(), computes the losses, and calls class_rows_emit_losses(). */
#ifndef FASTLOSS_CLASS_ROWS_H
#define FASTLOSS_CLASS_ROWS_H

#include "vector/loader.h"
#include "vector/domain_check.h"
#include "vector/lanes.h"
#include "vector/unit_outputs.h"

/* The weight q_c of class c in the loss of a row:
 *     HARD      w_y for c = y, else 0
 *     SMOOTHED  w_c ((1 - ε) [c = y] + ε/C)
 *     SOFT      w_c ((1 - ε) y_c + ε/C) */
typedef enum { HARD, SMOOTHED, SOFT } target_mode;

/* A batch of up to FL_ROW_BATCH rows. */
typedef struct {
    int64_t first, n;                   /* units [first, first + n) */
    int64_t label[FL_ROW_BATCH];        /* y; -1 if SOFT or if the row is inactive */
    real active[FL_ROW_BATCH];          /* 1, or 0 to remove the row, whatever it holds */
    double label_weight[FL_ROW_BATCH];  /* w_y; SOFT: 1 */
    double sample_weight[FL_ROW_BATCH]; /* 0 if the row is removed */
    double divisor[FL_ROW_BATCH];       /* s w_y */
    double grad_scale[FL_ROW_BATCH];    /* factor of the row's gradients */
    int has_exponents;
    int64_t exponent[FL_ROW_BATCH]; /* if has_exponents: of the weights of classes, which are the
                                       weights in the formula times 2^exponent */
} row_batch;

/* Rows in a transposed tile of C classes: a multiple of LANES that fits, at most FL_ROW_BATCH. If
 * fewer than LANES whole rows fit, FL_ROW_BATCH rows pass through several tiles. */
static int64_t class_rows_per_tile(int64_t C)
{
    int64_t rows = C > 0 ? TILE_2D / C / LANES * LANES : FL_ROW_BATCH;
    return rows < LANES || rows > FL_ROW_BATCH ? FL_ROW_BATCH : rows;
}

/* Rows in a batch: whole tiles. Sums and moments are accumulated batch by batch, so their last bits
 * depend on it. */
static int64_t class_rows_per_batch(int64_t C)
{
    int64_t rows = class_rows_per_tile(C);
    return FL_ROW_BATCH / rows * rows;
}

/* Reports the first active row whose label is not a class. */
static __attribute__((noinline, cold)) void
class_rows_record_bad_label(const fl_call *call, const row_batch *r, const int64_t *label,
                            const double *sample_weight, fl_partial *partial)
{
    for (int64_t p = 0; p < r->n; p++)
        if (weight_at(sample_weight, p) != 0 && label[p] != call->ignore_index &&
            r->active[p] == 0) {
            record_error(partial, r->first + p, 1, 0);
            break;
        }
}

static int class_rows_are_weighted(const fl_call *call)
{
    return call->sample_weight.data || call->operand[2].data;
}

/* Adds the rows to Σ d. With probabilities, the weights of classes do not divide. */
static void class_rows_add_divisors(const fl_call *call, target_mode mode, const row_batch *r,
                                    fl_partial *partial)
{
    int64_t exponent[FL_ROW_BATCH];
    unit_weights w = {.product = r->divisor, .sample_weight = r->sample_weight};
    if (mode != SOFT && call->operand[2].data)
        w.loss_weight = r->label_weight;
    if (mode != SOFT && call->class_weight_exponent != 0) {
        for (int64_t p = 0; p < r->n; p++)
            exponent[p] = call->class_weight_exponent;
        w.exponent = exponent;
    }
    add_divisors(&w, r->n, partial);
}

/* If the scale of the weights is extreme: moves their exponents from the weights, which losses and
 * gradients multiply by, to r->exponent. */
static __attribute__((noinline, cold)) void class_rows_set_exponents(const fl_call *call,
                                                                     target_mode mode, row_batch *r)
{
    for (int64_t p = 0; p < r->n; p++) {
        r->exponent[p] = call->class_weight_exponent;
        if (mode == HARD) {
            fl_scaled w = fl_scaled_of_weight(r->label_weight[p], r->exponent[p]);
            r->label_weight[p] = w.m;
            r->exponent[p] = w.e;
        }
    }
}

/* Sets label, active and sample_weight of the rows. Returns the number of active rows, and in *bad
 * the number of invalid labels. label (n) is NULL if SOFT, sample_weight (n) for ones. */
static INLINE int64_t class_rows_activate(const fl_call *call, row_batch *r, const int64_t *label,
                                          const double *sample_weight, int64_t *bad)
{
    const int is_soft = label == NULL;
    int64_t wanted_rows = 0, active_rows = 0;
    for (int64_t p = 0; p < r->n; p++) {
        const int64_t y = label ? label[p] : -1;
        const double s = sample_weight ? sample_weight[p] : 1;
        const int64_t wanted = (s != 0) & (is_soft | (y != call->ignore_index)),
                      active = wanted & (is_soft | ((y >= 0) & (y < call->unit_size)));
        wanted_rows += wanted;
        active_rows += active;
        r->label[p] = active ? y : -1;
        r->sample_weight[p] = active ? s : 0;
        r->active[p] = active ? 1 : 0;
    }
    *bad = wanted_rows - active_rows;
    return active_rows;
}

/* Sets label_weight to the weight of each row's class, from floats or doubles, or to 1 without
 * either and for rows without label. No branch: labels are as good as random. */
static INLINE void class_rows_gather_weights(row_batch *r, const float *floats,
                                             const double *doubles)
{
    for (int64_t p = 0; p < r->n; p++) {
        const int64_t y = r->label[p], c = y < 0 ? 0 : y;
        const double w = floats ? (double)floats[c] : doubles ? doubles[c] : 1;
        r->label_weight[p] = y < 0 ? 1 : w;
    }
}

/* Loads labels and weights of rows [first, first + n), checks them, and adds the rows to Σ d and to
 * the count. A sample weight of 0 or the label ignore_index removes a row; so does, if HARD, a
 * label whose class weight is 0. */
static void class_rows_load(const fl_call *call, target_mode mode, row_batch *r,
                            fl_partial *partial)
{
    const int64_t first = r->first, n = r->n;
    int64_t label_tile[FL_ROW_BATCH], active, bad;
    double tile[FL_ROW_BATCH];
    const int labelled = mode != SOFT,
              weighted = labelled && call->operand[2].data && call->unit_size > 0;
    const int64_t *label = labelled ? fl_load_index(&call->operand[1], first, n, label_tile) : 0;
    const double *sample_weight = load_sample_weight(call, first, n, tile, partial);
    if (labelled && !sample_weight)
        active = class_rows_activate(call, r, label, 0, &bad);
    else if (labelled)
        active = class_rows_activate(call, r, label, sample_weight, &bad);
    else
        active = class_rows_activate(call, r, 0, sample_weight, &bad);
    if (bad > 0)
        class_rows_record_bad_label(call, r, label, sample_weight, partial);

    if (weighted && call->operand[2].dtype == FL_F32)
        class_rows_gather_weights(r, (const float *)call->operand[2].data, 0);
    else
        class_rows_gather_weights(r, 0, weighted ? (const double *)call->operand[2].data : 0);
    for (int64_t p = 0; p < n; p++)
        r->divisor[p] = r->sample_weight[p] * r->label_weight[p];
    if (class_rows_are_weighted(call))
        class_rows_add_divisors(call, mode, r, partial);
    else
        partial->divisor_sum = dd_add(partial->divisor_sum, (fl_dd){(double)active, 0});
    for (int64_t p = 0; weighted && mode == HARD && p < n; p++) {
        const int is_removed = (r->active[p] != 0) & (r->label_weight[p] == 0);
        r->active[p] = is_removed ? 0 : r->active[p];
        active -= is_removed;
    }
    partial->count += active;
    r->has_exponents = call->operand[2].data && call->class_weight_exponent != 0;
    if (weighted && mode == HARD) /* products of two extreme weights need not be extreme */
        r->has_exponents = call->grad_exponent != 0 || has_extreme_weight(r->label_weight, n);
    if (r->has_exponents)
        class_rows_set_exponents(call, mode, r);
    if (wants_gradients(call))
        load_gradient_scale(call, first, n, r->sample_weight, r->has_exponents ? r->exponent : NULL,
                            r->grad_scale, partial);
}

/* Emits the unreduced losses (n): v without weights, or if `v_double`, with the weights of classes
 * but without sample weights. HARD: label_weight (n) is w_y times the factor that v is divided by,
 * NULL if that is 1. Stores the values l, which include all weights. */
static void class_rows_emit_losses(const fl_call *call, target_mode mode, const row_batch *r,
                                   const double *label_weight, const real *v,
                                   const double *v_double, real *l, fl_partial *partial)
{
    double product[FL_ROW_BATCH], active[FL_ROW_BATCH];
    unit_weights weight = {0};
    if (!wants_losses(call))
        return;
    if (class_rows_are_weighted(call)) {
        weight = sample_weights_only(r->sample_weight);
        if (mode == HARD && (call->operand[2].data || label_weight)) {
            for (int64_t p = 0; label_weight && p < r->n; p++)
                product[p] = r->sample_weight[p] * label_weight[p];
            weight.product = label_weight ? product : r->divisor;
            weight.loss_weight = label_weight ? label_weight : r->label_weight;
        }
        weight.exponent = r->has_exponents ? r->exponent : NULL;
    }
    unit_weights divisor = {.product = r->divisor};
    if (wants_unit_terms(call)) {
        for (int64_t p = 0; p < r->n; p++)
            active[p] = r->active[p];
        divisor.sample_weight = weight.sample_weight;
        if (mode != SOFT && call->operand[2].data) {
            divisor.loss_weight = r->label_weight;
            divisor.exponent = weight.exponent;
        }
    }
    const unit_losses losses = {
        .weight = &weight, .l = v, .l_double = v_double, .target_length = 1};
    emit_losses(call, r->first, r->n, &losses, sum_unit_losses(&losses, r->n), &divisor, active,
                partial);
    for (int64_t p = 0; weight.exponent && p < r->n; p++)
        l[p] = (real)scaled_weight(&weight, p, unit_loss(&losses, p));
    fl_store(call->output[FL_LOSSES], r->first, r->n, l);
}

#endif
