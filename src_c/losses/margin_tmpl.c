/* Margins of class scores and independent labels, x (N, C), once per (instruction set, real).
 *
 * A unit is a row. l, its sum over a row and its margins are formed in double.
 *
 * multi_margin, y (N) the class that is meant:
 *     l = w_y/C Σ_{j≠y} max(0, z_j)^p,  z_j = m - x_y + x_j,
 *     dl/dx_j = w_y/C p z_j^(p-1) where z_j > 0, else 0,  dl/dx_y = -Σ_{j≠y} dl/dx_j
 *
 * multilabel_margin, y (N, C) with T the list of labels before the first -1:
 *     l = 1/C Σ_{j∈T} Σ_{k∉T} max(0, 1 - x_j + x_k),
 * a label that stands twice counting twice; each term that is not 0 adds 1/C to dl/dx_k and -1/C to
 * dl/dx_j
 *
 * multilabel_soft_margin, y (N, C) in [0, 1]:
 *     l = 1/C Σ w_c ((1 - y_c) softplus(x_c) + y_c softplus(-x_c)), as in formulas.h
 *
 * Crammer & Singer 2001; Weston & Watkins 1999. The definitions are torch.nn.functional's, but for
 * NaN: torch drops it from margins. */
#include "losses/elementwise_formulas.h"
#include "vector/loader.h"
#include "vector/row_span.h"
#include "vector/lanes.h"
#include "vector/domain_check.h"
#include "vector/unit_outputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is known of a row; a removed one is not kept and adds nothing, whatever it holds. */
typedef struct {
    int kept;
    double sample; /* its sample weight */
    double value;  /* l, but for the sample weight */
    double scale;  /* what multiplies its gradient, but for the loss's own weight */
    /* multi_margin */
    int64_t label;     /* y */
    double weight;     /* w_y */
    fl_dd gap;         /* m - x_y, in two parts */
    fl_dd sum, slopes; /* Σ z^p, Σ p z^(p-1) over the positive z */
} row;

/* Sample weights and the divisor's Σ d. */
static void read_rows(const fl_call *call, int64_t first, int64_t n, row *rows, fl_partial *partial)
{
    double sample_tile[FL_ROW_BATCH], upstream_tile[FL_ROW_BATCH];
    const double *sample = load_sample_weight(call, first, n, sample_tile, partial);
    const double *upstream = load_grad_output(call, first, n, upstream_tile);
    for (int64_t i = 0; i < n; i++) {
        double s = sample ? sample[i] : 1;
        rows[i] = (row){.kept = s != 0,
                        .sample = s,
                        .scale = call->grad_scale * s * (upstream ? upstream[i] : 1) /
                                 (double)call->unit_size};
    }
    partial->divisor_sum = sample ? dd_add(partial->divisor_sum, sum_doubles(sample, n))
                                  : dd_add_double(partial->divisor_sum, (double)n);
}

static void store_values(const fl_call *call, int64_t first, int64_t n, const row *rows,
                         fl_partial *partial)
{
    real value_tile[FL_ROW_BATCH];
    for (int64_t i = 0; i < n; i++)
        partial->count += rows[i].kept;
    if (!(call->requested & (FL_SUM | FL_VALUES)))
        return;
    real *l = fl_output_buffer(&call->values, first, n, value_tile);
    for (int64_t i = 0; i < n; i++)
        l[i] = rows[i].kept ? (real)(rows[i].sample * rows[i].value) : 0;
    partial->sum = dd_add(partial->sum, sum_tile(l, n));
    fl_store(&call->values, first, n, l);
    if (!wants_unit_terms(call))
        return;
    double share[FL_ROW_BATCH], kept[FL_ROW_BATCH];
    for (int64_t i = 0; i < n; i++) {
        share[i] = rows[i].sample;
        kept[i] = rows[i].kept;
    }
    emit_unit_terms(call, first, n, l, 1, share, kept, partial);
}

/* m - x in two parts: scores may be too far from m, or too close to a kink, for one double. */
static INLINE fl_dd gap_of(double m, real x)
{
    fl_dd gap = dd_add_double((fl_dd){m, 0}, -(double)x);
    gap.lo = gap.lo - gap.lo == 0 ? gap.lo : 0; /* inf and NaN have no remainder */
    return gap;
}

/* gap + x, rounded but at its end. Where a float cancels gap.hi their sum is exact, and elsewhere
 * its rounding is far below a float's. */
static INLINE double distance(fl_dd gap, double x)
{
    double z = gap.hi + x;
#if REAL_IS_DOUBLE
    double v = z - gap.hi, tail = (gap.hi - (z - v)) + (x - v) + gap.lo;
    return z - z == 0 ? z + tail : z;
#else
    return z + gap.lo;
#endif
}

/* max(0, gap + x); NaN stays. */
static INLINE double excess(fl_dd gap, double x)
{
    double z = distance(gap, x);
    return z <= 0 ? 0 : z;
}

/* Σ v. Short rows have no time for lane_sum. */
static fl_dd sum_row(const double *v, int64_t n)
{
    if (n > 2 * LANES)
        return sum_doubles(v, n);
    lane_sum sum;
    sum.hi[0] = sum.lo[0] = 0;
    for (int64_t i = 0; i < n; i++)
        add_to_lane(&sum, 0, v[i]);
    double remainder = sum.lo[0] - sum.lo[0] == 0 ? sum.lo[0] : 0; /* inf and NaN have none */
    return dd_add_double((fl_dd){sum.hi[0], 0}, remainder);
}

/* --- multi_margin --- */

/* Class indices and their weights. */
static void read_classes(const fl_call *call, int64_t first, int64_t n, row *rows,
                         fl_partial *partial)
{
    int64_t label_tile[FL_ROW_BATCH];
    const int64_t *label = fl_load_index(&call->operand[1], first, n, label_tile);
    for (int64_t i = 0; i < n; i++) {
        row *r = &rows[i];
        r->label = label[i];
        if (r->kept && (r->label < 0 || r->label >= call->unit_size)) {
            record_error(partial, first + i, 1, 0);
            r->kept = 0;
        }
        r->weight = r->kept ? fl_class_weight(call, r->label) : 1;
        r->kept &= r->weight != 0;
    }
}

/* max(0, z) of each row, 0 at its class. */
static void excess_rows(const row *rows, const real *x, row_span at, double *z)
{
    int64_t width = at.to - at.from;
    for (int64_t i = 0; i < at.n; i++)
        for (int64_t j = 0; j < width; j++)
            z[i * width + j] = excess(rows[i].gap, (double)x[i * width + j]);
    for (int64_t i = 0; i < at.n; i++)
        if (rows[i].kept && rows[i].label >= at.from && rows[i].label < at.to)
            z[i * width + rows[i].label - at.from] = 0;
}

/* p z^(p-1) in place of z. */
static void slope_tile(int squared, int64_t n, double *z)
{
    for (int64_t i = 0; i < n; i++)
        z[i] = squared ? 2 * z[i] : z[i] > 0;
}

static void multi_margin(const fl_call *call, fl_phase phase, int64_t first, int64_t n, row *rows,
                         fl_partial *partial)
{
    const int64_t C = call->unit_size;
    const int squared = call->params[0] == 2, one_piece = C > 0 && span_width(call) == C;
    const double margin = (double)(real)call->params[1];
    real x_tile[TILE], g_tile[TILE];
    double z[TILE], square[TILE];

    read_classes(call, first, n, rows, partial);
    if (phase == FL_PREPARE)
        return;
    const real *all = one_piece ? fl_load(&call->operand[0], first * C, n * C, x_tile) : NULL;
    for (int64_t i = 0; i < n; i++)
        if (rows[i].kept) {
            real x_y =
                all ? all[i * C + rows[i].label]
                    : *fl_load(&call->operand[0], (first + i) * C + rows[i].label, 1, x_tile);
            rows[i].gap = gap_of(margin, x_y);
            rows[i].sum.hi = x_y == x_y ? 0 : (double)x_y;
        }
    for (row_span at = {.first = first, .n = n}; next_span(call, &at);) {
        int64_t columns = at.to - at.from;
        const real *x =
            all ? all
                : fl_load(&call->operand[0], first_element(call, at), element_count(at), x_tile);
        excess_rows(rows, x, at, z);
        for (int64_t i = 0; squared && i < element_count(at); i++)
            square[i] = z[i] * z[i];
        for (int64_t i = 0; i < n; i++)
            rows[i].sum =
                dd_add(rows[i].sum, sum_row((squared ? square : z) + i * columns, columns));
        if (!(call->requested & FL_GRAD))
            continue;
        slope_tile(squared, element_count(at), z);
        for (int64_t i = 0; i < n; i++)
            rows[i].slopes = dd_add(rows[i].slopes, sum_row(z + i * columns, columns));
    }
    for (int64_t i = 0; i < n; i++)
        rows[i].value = rows[i].weight * (rows[i].sum.hi / (double)call->unit_size);
    store_values(call, first, n, rows, partial);

    if (!(call->requested & FL_GRAD))
        return;
    for (row_span at = {.first = first, .n = n}; next_span(call, &at);) {
        int64_t columns = at.to - at.from;
        if (!one_piece) {
            excess_rows(
                rows,
                fl_load(&call->operand[0], first_element(call, at), element_count(at), x_tile), at,
                z);
            slope_tile(squared, element_count(at), z);
        }
        real *g =
            fl_output_buffer(&call->grad[0], first_element(call, at), element_count(at), g_tile);
        for (int64_t i = 0; i < n; i++) {
            const row *r = &rows[i];
            double scale = r->kept ? r->scale * r->weight : 0;
            double nan = r->sum.hi == r->sum.hi || !r->kept ? 0 : r->sum.hi;
            real *g_row = g + i * columns;
            for (int64_t j = 0; j < columns; j++)
                g_row[j] = r->kept ? (real)(scale * z[i * columns + j] + nan) : 0;
            if (r->kept && r->label >= at.from && r->label < at.to)
                g_row[r->label - at.from] = (real)(-scale * r->slopes.hi + nan);
        }
        fl_store(&call->grad[0], first_element(call, at), element_count(at), g);
    }
}

/* --- multilabel_margin --- */

/* What is known of the classes of whole rows, each of whole lane_sum; on the stack for rows that
 * fit into a tile, on the heap for a longer one. */
typedef struct {
    int64_t width;    /* of a row */
    double *x;        /* 0 beyond the row */
    double *is_label; /* 0 or 1; 1 beyond the row */
    double *slope;    /* C dl/dx of one row */
    int64_t *label;   /* C of each row, and so is g */
    real *g;
} workspace;

static workspace divide_memory(double *memory, int64_t width, int64_t n, int64_t C)
{
    double *slope = memory + 2 * n * width, *label = slope + width;
    return (workspace){.width = width,
                       .x = memory,
                       .is_label = memory + n * width,
                       .slope = slope,
                       .label = (int64_t *)label,
                       .g = (real *)(label + n * C)};
}

static int64_t memory_size(int64_t width, int64_t n, int64_t C)
{
    return 2 * n * width + width + 2 * n * C;
}

/* That of rows that fit into a tile; a row has fewer than LANES places more than classes. */
enum { STACK = 5 * TILE + 2 * FL_ROW_BATCH * LANES };

/* Labels of n whole rows, each entry checked; a row with a bad one is not kept. */
static void read_labels(const fl_call *call, int64_t first, int64_t n, row *rows, int64_t *label,
                        fl_partial *partial)
{
    int64_t C = call->unit_size, bad = 0;
    for (int64_t done = 0, size; done < n * C; done += size) {
        size = n * C - done < TILE ? n * C - done : TILE;
        const int64_t *from =
            fl_load_index(&call->operand[1], first * C + done, size, label + done);
        if (from != label + done)
            memcpy(label + done, from, (size_t)size * sizeof *label);
    }
    for (int64_t j = 0; j < n * C; j++)
        bad += (label[j] < -1) | (label[j] >= C);
    for (int64_t i = 0; bad > 0 && i < n; i++)
        for (int64_t j = 0; rows[i].kept && j < C; j++)
            if (label[i * C + j] < -1 || label[i * C + j] >= C) {
                record_error(partial, first + i, 1, j);
                rows[i].kept = 0;
            }
}

/* x and the labels of a row, before a gradient takes the place of x. */
static void read_row(const fl_call *call, int64_t unit, const int64_t *label, const workspace *w,
                     double *x, double *is_label)
{
    const int64_t C = call->unit_size;
    real tile[TILE];
    for (int64_t from = 0, size; from < C; from += size) {
        size = C - from < TILE ? C - from : TILE;
        const real *part = fl_load(&call->operand[0], unit * C + from, size, tile);
        for (int64_t c = 0; c < size; c++)
            x[from + c] = (double)part[c];
    }
    for (int64_t c = C; c < w->width; c++)
        x[c] = 0;
    for (int64_t c = 0; c < w->width; c++)
        is_label[c] = c >= C;
    for (int64_t j = 0; j < C && label[j] >= 0; j++)
        is_label[label[j]] = 1;
}

/* The terms of one label: into the lane_sum of the sum and, where slopes are wanted, into them. */
static INLINE void add_label(const int slopes, const int plain, int64_t label, int64_t width,
                             const double *x, const double *is_label, lane_sum *sum, double *slope)
{
    const fl_dd gap = gap_of(1, (real)x[label]);
    double active[LANES] = {0};
    for (int64_t i = 0; i < width; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double z = plain ? gap.hi + x[i + k] : distance(gap, x[i + k]);
            int counts = !(z <= 0) & (is_label[i + k] == 0);
            double hit = counts ? 1 : 0;
            add_to_lane(sum, k, counts ? z : 0);
            if (slopes) {
                slope[i + k] += hit;
                active[k] += hit;
            }
        }
    for (int half = LANES / 2; slopes && half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            active[k] += active[k + half]; /* whole numbers */
    if (slopes)
        slope[label] -= active[0];
}

/* l and C dl/dx of a row: each label against all classes that are none. */
static INLINE double multilabel_row(const int slopes, int64_t C, const int64_t *label,
                                    int64_t width, const double *x, const double *is_label,
                                    double *slope)
{
    lane_sum sum = {{0}, {0}};
    int nan = 0, uneven = REAL_IS_DOUBLE;
    for (int64_t c = 0; c < width; c++) {
        double size = fabs(x[c]);
        nan |= x[c] != x[c];
        uneven |= !((size == 0) | ((size >= 0x1p-22) & (size <= 0x1p6)));
    }
    for (int64_t c = 0; slopes && c < width; c++)
        slope[c] = 0;
    for (int64_t j = 0; j < C && label[j] >= 0; j++)
        if (uneven)
            add_label(slopes, 0, label[j], width, x, is_label, &sum, slope);
        else /* 1 - x_j + x_k is exact */
            add_label(slopes, 1, label[j], width, x, is_label, &sum, slope);
    double total = nan ? NAN : reduce_lanes(&sum).hi;
    for (int64_t c = 0; slopes && total != total && c < C; c++)
        slope[c] = total;
    return total / (double)C;
}

static void multilabel_margin(const fl_call *call, fl_phase phase, int64_t first, int64_t n,
                              row *rows, fl_partial *partial)
{
    const int slopes = (call->requested & FL_GRAD) != 0;
    const int64_t C = call->unit_size, size = n * C, width = (C + LANES - 1) / LANES * LANES;
    double stack[STACK];
    double *memory = stack;
    if (size > TILE)
        memory = malloc((size_t)memory_size(width, n, C) * sizeof *memory);
    if (!memory) {
        record_error(partial, first, FL_NO_MEMORY, 0);
        return;
    }
    const workspace w = divide_memory(memory, width, n, C);
    read_labels(call, first, n, rows, w.label, partial);
    if (phase == FL_MAIN) {
        for (int64_t i = 0; i < n; i++)
            if (rows[i].kept)
                read_row(call, first + i, w.label + i * C, &w, w.x + i * width,
                         w.is_label + i * width);
        real *g = slopes && C > 0 ? fl_output_buffer(&call->grad[0], first * C, size, w.g) : w.g;
        for (int64_t i = 0; i < n; i++) {
            row *r = &rows[i];
            const int64_t *label = w.label + i * C;
            const double *x = w.x + i * width, *is_label = w.is_label + i * width;
            if (r->kept)
                r->value = slopes ? multilabel_row(1, C, label, width, x, is_label, w.slope)
                                  : multilabel_row(0, C, label, width, x, is_label, w.slope);
            for (int64_t c = 0; slopes && c < C; c++)
                g[i * C + c] = r->kept ? (real)(r->scale * w.slope[c]) : 0;
        }
        if (slopes && C > 0)
            fl_store(&call->grad[0], first * C, size, g);
        store_values(call, first, n, rows, partial);
    }
    if (memory != stack)
        free(memory);
}

/* --- multilabel_soft_margin --- */

/* Removed elements become harmless. */
static const real *without_removed(const real *v, const double *w, int64_t n, real *tile)
{
    if (!w)
        return v;
    for (int64_t i = 0; i < n; i++)
        tile[i] = w[i] == 0 ? 0 : v[i];
    return tile;
}

static INLINE void map(const int value, const int slopes, int64_t n, const real *x, const real *y,
                       real *l, real *dx, real *dy)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        result r = binary_cross_entropy_with_logits(x[i], y[i], 0, NULL);
        if (value)
            l[i] = r.l;
        if (slopes) {
            dx[i] = r.dx;
            dy[i] = r.dy;
        }
    }
}

static void multilabel_soft_margin(const fl_call *call, fl_phase phase, int64_t first, int64_t n,
                                   row *rows, fl_partial *partial)
{
    const int value = call->requested & (FL_SUM | FL_VALUES), slopes = call->requested >= FL_GRAD;
    real x_tile[TILE], y_tile[TILE], l[TILE], g_tile[2][TILE];
    double weight_tile[TILE], sample_tile[FL_ROW_BATCH], term[TILE];
    for (int64_t i = 0; i < n; i++)
        sample_tile[i] = rows[i].sample;

    for (row_span at = {.first = first, .n = n}; next_span(call, &at);) {
        int64_t start = first_element(call, at), size = element_count(at),
                columns = at.to - at.from;
        const double *w =
            call->weight.data ? fl_load_double(&call->weight, start, size, weight_tile) : NULL;
        const real *y = fl_load(&call->operand[1], start, size, y_tile);
        y = without_removed(y, w, size, y_tile);
        check_tile(y, size, FL_UNIT_INTERVAL, sample_tile, 1, start, call->unit_size, partial);
        if (phase == FL_PREPARE)
            continue;
        const real *x = fl_load(&call->operand[0], start, size, x_tile);
        x = without_removed(x, w, size, x_tile);

        real *g[2];
        for (int k = 0; k < 2; k++)
            g[k] = call->requested & FL_GRAD << k
                       ? fl_output_buffer(&call->grad[k], start, size, g_tile[k])
                       : g_tile[k];
        if (value && slopes)
            map(1, 1, size, x, y, l, g[0], g[1]);
        else if (slopes)
            map(0, 1, size, x, y, l, g[0], g[1]);
        else
            map(1, 0, size, x, y, l, g[0], g[1]);

        for (int64_t i = 0; value && i < size; i++)
            term[i] = !w ? (double)l[i] : w[i] == 0 ? 0 : w[i] * (double)l[i];
        for (int64_t i = 0; i < n; i++) {
            int64_t at_row = i * columns;
            if (value)
                rows[i].sum = dd_add(rows[i].sum, sum_row(term + at_row, columns));
            for (int k = 0; slopes && k < 2; k++)
                if (rows[i].kept)
                    scale_tile(g[k] + at_row, w ? w + at_row : 0, 0, rows[i].scale, columns);
                else
                    memset(g[k] + at_row, 0, (size_t)columns * sizeof *g[k]);
        }
        for (int k = 0; k < 2; k++)
            if (call->requested & FL_GRAD << k)
                fl_store(&call->grad[k], start, size, g[k]);
    }
    if (phase == FL_PREPARE)
        return;
    for (int64_t i = 0; i < n; i++)
        rows[i].value = rows[i].sum.hi / (double)call->unit_size;
    store_values(call, first, n, rows, partial);
}

void SUFFIXED(fl_margin)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                         fl_partial *partial)
{
    row rows[FL_ROW_BATCH];
    for (int64_t n; first < last; first += n) {
        n = rows_per_tile(call, last - first);
        read_rows(call, first, n, rows, partial);
        switch (call->formula) {
        case FL_FORMULA_multi_margin:
            multi_margin(call, phase, first, n, rows, partial);
            break;
        case FL_FORMULA_multilabel_margin:
            multilabel_margin(call, phase, first, n, rows, partial);
            break;
        default:
            multilabel_soft_margin(call, phase, first, n, rows, partial);
        }
    }
}
