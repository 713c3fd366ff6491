/* Negative log-likelihood of class indices y (N), from log-probabilities x (N, C). Compiled once
 * per (instruction set, real).
 *
 * A unit is a row:
 *     l = -w_y x_y,  dl/dx_y = -w_y, and 0 for every other class.
 * A NaN in x_y gives NaN for both.
 *
 * The label's entry of each row is gathered, and gradients are scattered into rows of zeros; labels
 * and weights are the business of class_rows.h. */
#include "losses/class_rows.h"

static void nll_run_batch(const fl_call *call, fl_phase phase, row_batch *r, fl_partial *partial)
{
    const int64_t C = call->unit_size;
    class_rows_load(call, HARD, r, partial);
    if (phase == FL_PREPARE)
        return;
    const int is_weighted = class_rows_are_weighted(call),
              stores_weighted = is_weighted && call->output[FL_LOSSES];
    real x[FL_ROW_BATCH], dx[FL_ROW_BATCH]; /* of the labels */
    real value_tile[FL_ROW_BATCH], unweighted_tile[FL_ROW_BATCH],
        *l = fl_output_buffer(call->output[FL_LOSSES], r->first, r->n, value_tile),
        *unweighted = is_weighted ? unweighted_tile : l;
    fl_gather(&call->operand[0], C, r->first, r->n, r->label, x);
    for (int64_t p = 0; p < r->n; p++)
        unweighted[p] = r->active[p] == 0 ? 0 : -x[p];
    for (int64_t p = 0; stores_weighted && p < r->n; p++)
        l[p] = r->active[p] == 0
                   ? 0
                   : (real)(r->sample_weight[p] * (-r->label_weight[p] * (double)x[p]));
    if (call->output[FL_GRADIENT]) {
        for (int64_t p = 0; p < r->n; p++) {
            const real slope = (real)(-r->grad_scale[p] * r->label_weight[p]),
                       slope_or_nan = x[p] == x[p] ? slope : x[p];
            dx[p] = r->active[p] == 0 ? 0 : slope_or_nan;
        }
        fl_clear_rows(call->output[FL_GRADIENT], C, r->first, r->n);
        fl_scatter(call->output[FL_GRADIENT], C, r->first, r->n, r->label, dx);
    }
    class_rows_emit_losses(call, HARD, r, NULL, unweighted, NULL, l, partial);
}

void SUFFIXED(fl_nll)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                      fl_partial *partial)
{
    const int64_t batch_rows = class_rows_per_batch(call->unit_size);
    row_batch r;
    for (; first < last; first += r.n) {
        r.first = first;
        r.n = last - first < batch_rows ? last - first : batch_rows;
        nll_run_batch(call, phase, &r, partial);
    }
}
