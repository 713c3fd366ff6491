/* multi_margin, the hinge loss of Weston & Watkins 1999: scores x (N, C), class indices y (N).
 *
 *     l = w_y/C Σ_{j≠y} max(0, z_j)^p,  z_j = m - x_y + x_j,
 *     dl/dx_j = w_y/C p z_j^(p-1) where z_j > 0, else 0,  dl/dx_y = -Σ_{j≠y} dl/dx_j
 *
 * Defined as torch.nn.functional.multi_margin_loss, except that NaN propagates: PyTorch skips it.
 */
#ifndef FASTLOSS_MULTI_MARGIN_H
#define FASTLOSS_MULTI_MARGIN_H

#include "losses/margin_rows.h"
#include "vector/row_span.h"

/* Reads and checks the class indices, and looks up their weights. */
static void multi_margin_load_labels(const fl_call *call, int64_t first, int64_t n,
                                     margin_row *rows, fl_partial *partial)
{
    int64_t label_tile[FL_ROW_BATCH];
    const int64_t *label = fl_load_index(&call->operand[1], first, n, label_tile);
    for (int64_t i = 0; i < n; i++) {
        margin_row *row = &rows[i];
        row->label = label[i];
        if (row->active && (row->label < 0 || row->label >= call->unit_size)) {
            record_error(partial, first + i, 1, 0);
            row->active = 0;
        }
        row->class_weight = row->active ? fl_class_weight(call, row->label) : 1;
        row->active &= row->class_weight != 0;
        double w_y = row->class_weight;
        const int is_extreme = call->grad_exponent != 0 || has_extreme_weight(&w_y, 1);
        if (is_extreme || !is_finite(row->grad_scale)) {
            const fl_scaled w = fl_scaled_of_weight(w_y, 0);
            w_y = w.m;
            load_gradient_scale(call, first + i, 1, &row->sample_weight, &w.e, &row->grad_scale,
                                partial);
            row->grad_scale /= (double)call->unit_size;
            if (is_extreme) {
                row->class_weight = w.m;
                row->exponent = w.e;
            }
        }
        row->grad_scale *= w_y;
    }
}

/* z[i * width + j] = max(0, z_j) of each row, 0 at its class; x has the same shape (rows, width).
 */
static void multi_margin_hinges(const margin_row *rows, const real *x, row_span at, double *z)
{
    int64_t width = at.to - at.from;
    for (int64_t i = 0; i < at.n; i++)
        for (int64_t j = 0; j < width; j++)
            z[i * width + j] = hinge(rows[i].gap, (double)x[i * width + j]);
    for (int64_t i = 0; i < at.n; i++)
        if (rows[i].active && rows[i].label >= at.from && rows[i].label < at.to)
            z[i * width + rows[i].label - at.from] = 0;
}

/* Replaces n hinges z by p z^(p-1). */
static void multi_margin_slopes(int squared, int64_t n, double *z)
{
    for (int64_t i = 0; i < n; i++)
        z[i] = squared ? 2 * z[i] : z[i] > 0;
}

/* --- rows of doubles whose sums overflow, though the loss or a gradient may not --- */

/* max(0, z_j), 0 at the class of the row; x is x_j */
static long double multi_margin_extended_hinge(const margin_row *row, double margin, int64_t j,
                                               real x)
{
    long double z = margin + ((long double)x - row->x_y);
    return j == row->label || z <= 0 ? 0 : z;
}

/* p z^(p-1) */
static long double multi_margin_extended_slope(int squared, long double z)
{
    return squared ? 2 * z : z > 0;
}

static void multi_margin_extended_sums(const fl_call *call, int64_t unit, double margin,
                                       int squared, margin_row *row)
{
    const int64_t C = call->unit_size;
    ALIGNED real tile[TILE];
    row->is_extended = 1;
    row->x_y = (double)*fl_load(&call->operand[0], unit * C + row->label, 1, tile);
    for (int64_t from = 0, n; from < C; from += n) {
        n = C - from < TILE ? C - from : TILE;
        const real *x = fl_load(&call->operand[0], unit * C + from, n, tile);
        for (int64_t j = 0; j < n; j++) {
            long double z = multi_margin_extended_hinge(row, margin, from + j, x[j]);
            row->extended_sum += squared ? z * z : z;
            row->extended_slope_sum += multi_margin_extended_slope(squared, z);
        }
    }
}

/* The gradient with respect to entries [from, from + n) of a row; g may be x. */
static void multi_margin_extended_gradient(const margin_row *row, double margin, int squared,
                                           double scale, int64_t from, int64_t n, const real *x,
                                           real *g)
{
    /* A NaN in the row makes its whole gradient NaN. */
    const long double nan = row->extended_sum == row->extended_sum ? 0 : row->extended_sum;
    for (int64_t j = 0; j < n; j++) {
        long double z = multi_margin_extended_hinge(row, margin, from + j, x[j]);
        long double slope = from + j == row->label ? -row->extended_slope_sum
                                                   : multi_margin_extended_slope(squared, z);
        g[j] = (real)(scale * slope + nan);
    }
}

static NOINLINE void multi_margin(const fl_call *call, fl_phase phase, int64_t first, int64_t n,
                                  margin_row *rows, fl_partial *partial)
{
    const int64_t C = call->unit_size;
    const int squared = call->params[0] == 2, single_span = C > 0 && span_width(call) == C;
    const double margin = round_option(call->params[1]);
    ALIGNED real x_tile[TILE], g_tile[TILE];
    ALIGNED double z[TILE], square[TILE];

    multi_margin_load_labels(call, first, n, rows, partial);
    if (phase == FL_PREPARE)
        return;
    const real *x_rows = single_span ? fl_load(&call->operand[0], first * C, n * C, x_tile) : NULL;
    for (int64_t i = 0; i < n; i++)
        if (rows[i].active) {
            real x_y =
                x_rows ? x_rows[i * C + rows[i].label]
                       : *fl_load(&call->operand[0], (first + i) * C + rows[i].label, 1, x_tile);
            rows[i].gap = margin_gap(margin, x_y);
            rows[i].sum.hi = x_y == x_y ? 0 : (double)x_y;
        }
    for (row_span at = {.first = first, .n = n}; next_span(call, &at);) {
        int64_t start = first_element(call, at), size = element_count(at);
        int64_t columns = at.to - at.from;
        const real *x = x_rows ? x_rows : fl_load(&call->operand[0], start, size, x_tile);
        multi_margin_hinges(rows, x, at, z);
        if (squared)
            for (int64_t i = 0; i < size; i++)
                square[i] = z[i] * z[i];
        for (int64_t i = 0; i < n; i++)
            rows[i].sum =
                dd_add(rows[i].sum, row_sum((squared ? square : z) + i * columns, columns));
        if (!call->output[FL_GRADIENT])
            continue;
        multi_margin_slopes(squared, size, z);
        for (int64_t i = 0; i < n; i++)
            rows[i].slope_sum = dd_add(rows[i].slope_sum, row_sum(z + i * columns, columns));
    }
    for (int64_t i = 0; i < n; i++) {
        margin_row *row = &rows[i];
        row->loss = row->sum.hi / (double)call->unit_size;
        /* m - x_y may overflow, and then be added to an infinity of the other sign. */
        if (REAL_IS_DOUBLE && row->active && row->sum.hi - row->sum.hi != 0 &&
            (row->sum.hi == __builtin_inf() || row->gap.hi - row->gap.hi != 0)) {
            multi_margin_extended_sums(call, first + i, margin, squared, row);
            const long double mean = row->extended_sum / call->unit_size;
            const int is_weighted = margin_rows_are_weighted(call);
            row->loss = (double)(is_weighted ? mean * 0x1p-1100L : mean);
            row->exponent += is_weighted ? 1100 : 0;
        }
    }
    margin_rows_emit(call, first, n, rows, partial);

    if (!call->output[FL_GRADIENT])
        return;
    for (row_span at = {.first = first, .n = n}; next_span(call, &at);) {
        int64_t start = first_element(call, at), size = element_count(at);
        int64_t columns = at.to - at.from;
        if (!single_span) {
            multi_margin_hinges(rows, fl_load(&call->operand[0], start, size, x_tile), at, z);
            multi_margin_slopes(squared, size, z);
        }
        real *g = fl_output_buffer(call->output[FL_GRADIENT], start, size, g_tile);
        for (int64_t i = 0; i < n; i++) {
            const margin_row *row = &rows[i];
            double scale = row->active ? row->grad_scale : 0;
            /* A NaN in the row makes its whole gradient NaN. */
            double nan = row->sum.hi == row->sum.hi || !row->active ? 0 : row->sum.hi;
            real *g_row = g + i * columns;
            if (row->is_extended) {
                const real *x = fl_load(&call->operand[0], start + i * columns, columns, x_tile);
                multi_margin_extended_gradient(row, margin, squared, scale, at.from, columns, x,
                                               g_row);
                continue;
            }
            for (int64_t j = 0; j < columns; j++)
                g_row[j] = row->active ? (real)(scale * z[i * columns + j] + nan) : 0;
            if (row->active && row->label >= at.from && row->label < at.to)
                g_row[row->label - at.from] = (real)(-scale * row->slope_sum.hi + nan);
        }
        fl_store(call->output[FL_GRADIENT], start, size, g);
    }
}

#endif
