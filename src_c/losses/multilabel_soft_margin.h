/* multilabel_soft_margin: logits x (N, C), targets y (N, C) in [0, 1], weights w (C) or (N, C).
 *
 *     l = 1/C Σ w_c ((1 - y_c) softplus(x_c) + y_c softplus(-x_c))
 *
 * The terms are binary_cross_entropy_with_logits() of elementwise_formulas.h. Defined as
 * torch.nn.functional.multilabel_soft_margin_loss. */
#ifndef FASTLOSS_MULTILABEL_SOFT_MARGIN_H
#define FASTLOSS_MULTILABEL_SOFT_MARGIN_H

#include "losses/elementwise_formulas.h"
#include "losses/margin_rows.h"
#include "vector/domain_check.h"
#include "vector/row_span.h"
#include "vector/unit_outputs.h"

#include <string.h>

/* Copies v (n) to tile with 0 for the entries that a weight of 0 removes; returns v itself if there
 * are no weights. */
static const real *multilabel_soft_margin_mask(const real *v, const double *w, int64_t n,
                                               real *tile)
{
    if (!w)
        return v;
    for (int64_t i = 0; i < n; i++)
        tile[i] = w[i] == 0 ? 0 : v[i];
    return tile;
}

/* The unweighted term of each of n entries and its derivatives. */
static INLINE void multilabel_soft_margin_terms(const int with_loss, const int with_grad, int64_t n,
                                                const real *x, const real *y, real *l, real *dx,
                                                real *dy)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        result r = binary_cross_entropy_with_logits(x[i], y[i], 0, NULL);
        if (with_loss)
            l[i] = r.l;
        if (with_grad) {
            dx[i] = r.dx;
            dy[i] = r.dy;
        }
    }
}

/* Adds the n terms w l of a row to its sum, if some of them or the sum may not be doubles. w (n)
 * may be NULL for ones. */
static __attribute__((noinline, cold)) void
multilabel_soft_margin_add_extreme(int64_t n, const double *w, const real *l, fl_dd *sum,
                                   fl_scaled_sum *beyond)
{
    for (int64_t i = 0; i < n; i++)
        fl_add_scaled_term(sum, beyond, 1, weight_at(w, i), (double)l[i], 0);
}

static NOINLINE void multilabel_soft_margin(const fl_call *call, fl_phase phase, int64_t first,
                                            int64_t n, margin_row *rows, fl_partial *partial)
{
    const int with_loss = wants_losses(call);
    const int with_grad = wants_gradients(call);
    ALIGNED real x_tile[TILE], y_tile[TILE], l[TILE], g_tile[2][TILE];
    ALIGNED double weight_tile[TILE], term[TILE];
    double sample_weight[FL_ROW_BATCH];
    fl_scaled_sum beyond[FL_ROW_BATCH]; /* of the rows' sums; not set unless has_beyond */
    int has_beyond = 0;
    for (int64_t i = 0; i < n; i++)
        sample_weight[i] = rows[i].sample_weight;

    for (row_span at = {.first = first, .n = n}; next_span(call, &at);) {
        int64_t start = first_element(call, at), size = element_count(at);
        int64_t columns = at.to - at.from;
        const double *w =
            call->weight.data ? fl_load_double(&call->weight, start, size, weight_tile) : NULL;
        const real *y = fl_load(&call->operand[1], start, size, y_tile);
        y = multilabel_soft_margin_mask(y, w, size, y_tile);
        check_tile(y, size, FL_UNIT_INTERVAL, sample_weight, 1, start, call->unit_size, partial);
        if (phase == FL_PREPARE)
            continue;
        const real *x = fl_load(&call->operand[0], start, size, x_tile);
        x = multilabel_soft_margin_mask(x, w, size, x_tile);

        real *g[2];
        for (int k = 0; k < 2; k++)
            g[k] = call->output[FL_GRADIENT + k]
                       ? fl_output_buffer(call->output[FL_GRADIENT + k], start, size, g_tile[k])
                       : g_tile[k];
        if (with_loss && with_grad)
            multilabel_soft_margin_terms(1, 1, size, x, y, l, g[0], g[1]);
        else if (with_grad)
            multilabel_soft_margin_terms(0, 1, size, x, y, l, g[0], g[1]);
        else
            multilabel_soft_margin_terms(1, 0, size, x, y, l, g[0], g[1]);

        if (with_loss) {
            for (int64_t i = 0; i < size; i++)
                term[i] = !w ? (double)l[i] : w[i] == 0 ? 0 : w[i] * (double)l[i];
            for (int64_t i = 0; i < n; i++) {
                const fl_dd sum = row_sum(term + i * columns, columns);
                const double magnitude = __builtin_fabs(sum.hi);
                if (magnitude <= FL_SUM_MAX && (!w || magnitude >= FL_SUM_MIN)) {
                    rows[i].sum = dd_add(rows[i].sum, sum);
                    continue;
                }
                if (!has_beyond)
                    memset(beyond, 0, sizeof beyond);
                has_beyond = 1;
                multilabel_soft_margin_add_extreme(columns, w ? w + i * columns : NULL,
                                                   l + i * columns, &rows[i].sum, &beyond[i]);
            }
        }
        if (!with_grad)
            continue;
        for (int64_t i = 0; i < n; i++) {
            int64_t offset = i * columns;
            for (int k = 0; k < 2; k++)
                if (!rows[i].active)
                    memset(g[k] + offset, 0, (size_t)columns * sizeof *g[k]);
                else if (w && has_extreme_factor(w + offset, 0, rows[i].grad_scale, columns))
                    scale_extreme_tile(g[k] + offset, &(unit_weights){.loss_weight = w + offset}, 0,
                                       rows[i].grad_scale, 0, columns);
                else if (w)
                    scale_tile(g[k] + offset, w + offset, 0, rows[i].grad_scale, columns);
                else
                    scale_tile(g[k] + offset, 0, 0, rows[i].grad_scale, columns);
        }
        for (int k = 0; k < 2; k++)
            if (call->output[FL_GRADIENT + k])
                fl_store(call->output[FL_GRADIENT + k], start, size, g[k]);
    }
    if (phase == FL_PREPARE)
        return;
    for (int64_t i = 0; i < n; i++) {
        rows[i].loss = rows[i].sum.hi / (double)call->unit_size;
        if (has_beyond && beyond[i].magnitude != 0) {
            const fl_scaled total = fl_scaled_total(rows[i].sum, &beyond[i]);
            rows[i].exponent = call->weight.data ? total.e : 0;
            rows[i].loss = fl_unscaled(
                (fl_scaled){total.m / (double)call->unit_size, total.e - rows[i].exponent});
        }
    }
    margin_rows_emit(call, first, n, rows, partial);
}

#endif
