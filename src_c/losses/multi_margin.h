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
    const int scales_rows = call->operand[2].data || call->grad_exponent != 0;
    for (int64_t i = 0; i < n; i++) {
        margin_row *row = &rows[i];
        row->label = label[i];
        if (row->active && (row->label < 0 || row->label >= call->unit_size)) {
            record_error(partial, first + i, 1, 0);
            row->active = 0;
        }
        if (!scales_rows)
            continue;
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

/* p z^(p-1) */
static INLINE double multi_margin_slope(const int squared, double z)
{
    return squared ? 2 * z : z > 0 ? 1 : 0;
}

/* Sums of terms z^p and slopes p z^(p-1) of a row. */
typedef struct {
    lane_sum term, slope;
} multi_margin_sums;

/* Adds the classes [from, to) of a row, a multiple of LANES, to its sums; writes their slopes if
 * with_slopes. Lanes where keep is 0 add nothing; NULL keeps all. */
static INLINE void multi_margin_blocks(const int squared, const int with_slopes, const fl_dd gap,
                                       const real *x, int64_t from, int64_t to, const real *keep,
                                       double *slope, multi_margin_sums *sums)
{
    lane_sum term_sum, slope_sum; /* in registers */
    copy_lane_sum(&term_sum, &sums->term);
    copy_lane_sum(&slope_sum, &sums->slope);
    for (int64_t i = from; i < to; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double z = hinge(gap, (double)x[i + k]);
            z = keep && keep[k] == 0 ? 0 : z;
            add_to_lane(&term_sum, k, squared ? z * z : z);
            if (with_slopes) {
                slope[i + k] = multi_margin_slope(squared, z);
                add_to_lane(&slope_sum, k, slope[i + k]);
            }
        }
    copy_lane_sum(&sums->term, &term_sum);
    copy_lane_sum(&sums->slope, &slope_sum);
}

/* The same for at most LANES classes, of which y adds nothing. */
static INLINE void multi_margin_part(const int squared, const int with_slopes, const fl_dd gap,
                                     const real *x, int64_t n, int64_t y, double *slope,
                                     multi_margin_sums *sums)
{
    real part[LANES] = {0}, keep[LANES];
    double part_slope[LANES];
    memcpy(part, x, (size_t)n * sizeof *x);
    for (int k = 0; k < LANES; k++)
        keep[k] = (k < n) & (k != y);
    multi_margin_blocks(squared, with_slopes, gap, part, 0, LANES, keep, part_slope, sums);
    if (with_slopes)
        memcpy(slope, part_slope, (size_t)n * sizeof *slope);
}

/* Adds the n classes of a span from class `from` on to the row's sums, and writes their slopes if
 * with_slopes. */
static INLINE void multi_margin_add_classes(const int squared, const int with_slopes, const real *x,
                                            int64_t from, int64_t n, double *slope, margin_row *row)
{
    const int64_t whole = n - n % LANES, y = row->label - from;
    const int64_t before = y >= 0 && y < whole ? y - y % LANES : whole;
    multi_margin_sums sums;
    clear_lane_sum(&sums.term);
    clear_lane_sum(&sums.slope);
    multi_margin_blocks(squared, with_slopes, row->gap, x, 0, before, NULL, slope, &sums);
    if (before < whole) {
        const int64_t after = before + LANES;
        multi_margin_part(squared, with_slopes, row->gap, x + before, LANES, y - before,
                          slope + before, &sums);
        multi_margin_blocks(squared, with_slopes, row->gap, x, after, whole, NULL, slope, &sums);
    }
    if (whole < n)
        multi_margin_part(squared, with_slopes, row->gap, x + whole, n - whole, y - whole,
                          slope + whole, &sums);
    row->sum = dd_add(row->sum, reduce_lanes(&sums.term));
    if (with_slopes)
        row->slope_sum = dd_add(row->slope_sum, reduce_lanes(&sums.slope));
}

/* Adds a row of few classes, whose lanes would take longer to reduce than to sum. */
static INLINE void multi_margin_add_few(const int squared, const int with_slopes, const real *x,
                                        int64_t n, double *slope, margin_row *row)
{
    double term[FEW_CLASSES];
    for (int64_t j = 0; j < n; j++) {
        const double z = hinge(row->gap, (double)x[j]);
        term[j] = squared ? z * z : z;
        if (with_slopes)
            slope[j] = multi_margin_slope(squared, z);
    }
    term[row->label] = 0;
    row->sum = dd_add(row->sum, row_sum(term, n));
    if (with_slopes) {
        slope[row->label] = 0;
        row->slope_sum = dd_add(row->slope_sum, row_sum(slope, n));
    }
}

/* Adds a row or its next span by the loop for so many classes. */
static INLINE void multi_margin_add_row(const int squared, const int with_slopes, const real *x,
                                        row_span at, double *slope, margin_row *row)
{
    const int64_t n = at.to - at.from;
    if (n <= FEW_CLASSES && at.from == 0)
        multi_margin_add_few(squared, with_slopes, x, n, slope, row);
    else
        multi_margin_add_classes(squared, with_slopes, x, at.from, n, slope, row);
}

/* Adds the active rows of a span, x and slope (rows, classes). */
static void multi_margin_add_rows(int squared, int with_slopes, const real *x, row_span at,
                                  double *slope, margin_row *rows)
{
    const int64_t n = at.to - at.from;
    for (int64_t i = 0; i < at.n; i++) {
        if (!rows[i].active)
            continue;
        if (with_slopes && squared)
            multi_margin_add_row(1, 1, x + i * n, at, slope + i * n, &rows[i]);
        else if (with_slopes)
            multi_margin_add_row(0, 1, x + i * n, at, slope + i * n, &rows[i]);
        else if (squared)
            multi_margin_add_row(1, 0, x + i * n, at, slope + i * n, &rows[i]);
        else
            multi_margin_add_row(0, 0, x + i * n, at, slope + i * n, &rows[i]);
    }
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
    ALIGNED double slope[TILE];

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
        const real *x = x_rows ? x_rows : fl_load(&call->operand[0], start, size, x_tile);
        multi_margin_add_rows(squared, call->output[FL_GRADIENT] != NULL, x, at, slope, rows);
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
            margin_row summed_again = rows[0]; /* the only row */
            multi_margin_add_rows(squared, 1, fl_load(&call->operand[0], start, size, x_tile), at,
                                  slope, &summed_again);
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
                g_row[j] = row->active ? (real)(scale * slope[i * columns + j] + nan) : 0;
            if (row->active && row->label >= at.from && row->label < at.to)
                g_row[row->label - at.from] = (real)(-scale * row->slope_sum.hi + nan);
        }
        fl_store(call->output[FL_GRADIENT], start, size, g);
    }
}

#endif
