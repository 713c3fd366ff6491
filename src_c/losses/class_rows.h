/* Rows of classes: labels, weights, divisor and unreduced losses of a batch of rows.
 *
 * A unit is a row. Row i holds the C scores of unit i, however its classes are strided in memory
 * ((N, C) or (N, C, d1, ..., dK)):
 *
 *     x  operand[0]     units x C    scores: logits or log-probabilities
 *     y  operand[1]     units        class indices, or
 *                       units x C    probabilities (SOFT)
 *     w  class_weight   C            weights of classes; NULL for ones
 *     s  sample_weight  units        sample weights; absent for ones
 *
 * A kernel calls class_rows_load(), fills in what it computes of each row, and ends with
 * class_rows_emit_losses(). */
#ifndef FASTLOSS_CLASS_ROWS_H
#define FASTLOSS_CLASS_ROWS_H

#include "vector/loader.h"
#include "vector/domain_check.h"
#include "vector/lanes.h"
#include "vector/unit_outputs.h"

/* The weights q of a row's classes:
 *     HARD      q_y = w_y and 0 elsewhere,
 *     SMOOTHED  q_c = w_c ((1 - ε) [c = y] + ε/C),
 *     SOFT      q_c = w_c ((1 - ε) y_c + ε/C). */
typedef enum { HARD, SMOOTHED, SOFT } target_mode;

/* What is constant during a call. */
typedef struct {
    const fl_call *call;
    int64_t C;
    const double *class_weight; /* w (C), NULL for ones; not if HARD */
    double one_minus_eps, eps_over_C;
    target_mode mode;
    int single_row;
    int64_t rows_per_tile, classes_per_tile, classes_per_part;
    int caches_exp; /* single rows of several tiles: the forward pass fills an exp cache */
} softmax_config;

/* A batch of up to FL_ROW_BATCH rows. */
typedef struct {
    int64_t first, n;                  /* units [first, first + n) */
    int64_t label[FL_ROW_BATCH];       /* y; -1 if SOFT or if the row is inactive */
    real active[FL_ROW_BATCH];         /* 1; 0 removes the row, whatever it holds */
    double label_weight[FL_ROW_BATCH]; /* w_y; SOFT: 1 */
    double sample_weight[FL_ROW_BATCH];
    double grad_scale[FL_ROW_BATCH]; /* factor of the row's gradients */
    real x_label[FL_ROW_BATCH];      /* x_y */
    /* of the softmax: */
    real max[FL_ROW_BATCH];                /* m */
    double R[FL_ROW_BATCH];                /* R */
    fl_dd weight_sum[FL_ROW_BATCH];        /* SOFT: Q; SMOOTHED: Σ w_c */
    double weighted_gap_sum[FL_ROW_BATCH]; /* SOFT: Σ q_c a_c; SMOOTHED: Σ w_c a_c */
    real dx_label[FL_ROW_BATCH];           /* dl/dx_y; not if SOFT */
} row_batch;

/* Reports the first active row whose label is not a class. */
static INLINE void class_rows_record_bad_label(const fl_call *call, const row_batch *r,
                                               const int64_t *label, fl_partial *partial)
{
    for (int64_t p = 0; p < r->n; p++)
        if (r->sample_weight[p] != 0 && label[p] != call->ignore_index && r->active[p] == 0) {
            record_error(partial, r->first + p, 1, 0);
            break;
        }
}

/* Loads labels and weights of rows [first, first + n), checks the labels, and adds the rows to Σ d
 * and to the count. A row is inactive if its sample weight is 0 or its label is ignore_index; with
 * HARD targets a label of weight 0 removes it too. */
static void class_rows_load(const softmax_config *s, row_batch *r, fl_partial *partial)
{
    const fl_call *call = s->call;
    const int64_t first = r->first, n = r->n;
    int64_t label_tile[FL_ROW_BATCH], bad = 0;
    double tile[FL_ROW_BATCH];
    const int labelled = s->mode != SOFT, unlabelled = !labelled;
    const int64_t *label = labelled ? fl_load_index(&call->operand[1], first, n, label_tile) : 0;
    const double *sample_weight = load_sample_weight(call, first, n, tile, partial);
    for (int64_t p = 0; p < n; p++)
        r->sample_weight[p] = sample_weight ? sample_weight[p] : 1;
    for (int64_t p = 0; p < n; p++) {
        int64_t y = labelled ? label[p] : 0;
        int active = (r->sample_weight[p] != 0) & (unlabelled | (y != call->ignore_index));
        int is_class = unlabelled | ((y >= 0) & (y < s->C));
        bad += active & (1 - is_class);
        active &= is_class;
        r->active[p] = (real)active;
        r->label[p] = labelled && active ? y : -1;
    }
    for (int64_t p = 0; bad > 0 && p < n; p++)
        if (r->sample_weight[p] != 0 && label[p] != call->ignore_index && r->active[p] == 0) {
            record_error(partial, first + p, 1, 0);
            break;
        }

    const int weighted = labelled && call->operand[2].data;
    for (int64_t p = 0; p < n; p++)
        r->label_weight[p] = 1;
    for (int64_t p = 0; weighted && p < n; p++)
        if (r->label[p] >= 0)
            r->label_weight[p] = fl_class_weight(call, r->label[p]);
    double divisor[FL_ROW_BATCH];
    for (int64_t p = 0; p < n; p++) {
        double product = r->sample_weight[p] * r->label_weight[p];
        divisor[p] = r->active[p] == 0 ? 0 : product;
    }
    partial->divisor_sum = dd_add(partial->divisor_sum, sum_doubles(divisor, n));
    for (int64_t p = 0; weighted && s->mode == HARD && p < n; p++)
        r->active[p] = r->label_weight[p] == 0 ? 0 : r->active[p];
    for (int64_t p = 0; p < n; p++)
        partial->count += r->active[p] != 0;

    const double *grad_output = load_grad_output(call, first, n, tile);
    for (int64_t p = 0; p < n; p++)
        r->grad_scale[p] =
            call->grad_scale * r->sample_weight[p] * (grad_output ? grad_output[p] : 1);
}

/* Stores the unreduced losses l[n], adds them to Σ l and emits the terms of each unit. */
static void class_rows_emit_losses(const softmax_config *s, const row_batch *r, const real *l,
                                   fl_partial *partial)
{
    if (!wants_losses(s->call))
        return;
    partial->sum = dd_add(partial->sum, sum_tile(l, r->n));
    fl_store(s->call->output[FL_LOSSES], r->first, r->n, l);
    if (!wants_unit_terms(s->call))
        return;
    double divisor[FL_ROW_BATCH], active[FL_ROW_BATCH];
    for (int64_t p = 0; p < r->n; p++) {
        active[p] = r->active[p];
        divisor[p] = r->active[p] == 0 ? 0 : r->sample_weight[p] * r->label_weight[p];
    }
    emit_unit_terms(s->call, r->first, r->n, l, 1, divisor, active, partial);
}

#endif
