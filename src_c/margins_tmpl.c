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
#include "formulas.h"
#include "loader.h"
#include "rows.h"
#include "tile.h"

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
    double sample_tile[MAX_ROWS], upstream_tile[MAX_ROWS];
    const double *sample = load_sample_weight(call, first, n, sample_tile, partial), *upstream = 0;
    if (call->upstream_each.data)
        upstream = fl_load_double(&call->upstream_each, first, n, upstream_tile);
    for (int64_t i = 0; i < n; i++) {
        double s = sample ? sample[i] : 1;
        rows[i] = (row){.kept = s != 0,
                        .sample = s,
                        .scale = call->scale * s * (upstream ? upstream[i] : 1) /
                                 (double)call->unit_size};
    }
    partial->weight = sample ? dd_add(partial->weight, sum_doubles(sample, n))
                             : dd_add_double(partial->weight, (double)n);
}

static void store_values(const fl_call *call, int64_t first, int64_t n, const row *rows,
                         fl_partial *partial)
{
    real value_tile[MAX_ROWS];
    for (int64_t i = 0; i < n; i++)
        partial->count += rows[i].kept;
    if (!(call->products & (FL_SUM | FL_VALUES)))
        return;
    real *l = fl_target(&call->values, first, n, value_tile);
    for (int64_t i = 0; i < n; i++)
        l[i] = rows[i].kept ? (real)(rows[i].sample * rows[i].value) : 0;
    partial->sum = dd_add(partial->sum, sum_tile(l, n));
    fl_store(&call->values, first, n, l);
}

/* m - x in two parts: scores may be too far from m, or too close to a kink, for one double. */
static INLINE fl_dd gap_of(double m, real x) { return dd_add_double((fl_dd){m, 0}, -(double)x); }

/* max(0, gap + x), rounded but at its end; NaN stays. */
static INLINE double excess(fl_dd gap, double x)
{
    double z = gap.hi + x, v = z - gap.hi, tail = (gap.hi - (z - v)) + (x - v) + gap.lo;
    z = z - z == 0 ? z + tail : z; /* inf and NaN have no remainder */
    return z <= 0 ? 0 : z;
}

/* Σ v. Short rows have no time for lanes. */
static fl_dd sum_row(const double *v, int64_t n)
{
    if (n > 2 * LANES)
        return sum_doubles(v, n);
    lanes sum;
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
    int64_t label_tile[MAX_ROWS];
    const int64_t *label = fl_load_index(&call->operand[1], first, n, label_tile);
    for (int64_t i = 0; i < n; i++) {
        row *r = &rows[i];
        r->label = label[i];
        if (r->kept && (r->label < 0 || r->label >= call->unit_size)) {
            note_bad(partial, first + i, 1, 0);
            r->kept = 0;
        }
        r->weight = r->kept && call->by_class ? call->by_class[r->label] : 1;
        r->kept &= r->weight != 0;
    }
}

/* max(0, z) of each row, 0 at its class. */
static void excess_rows(const row *rows, const real *x, piece at, double *z)
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
    const int squared = call->params[0] == 2, one_piece = C > 0 && piece_width(call) == C;
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
    for (piece at = {.first = first, .n = n}; next_piece(call, &at);) {
        int64_t columns = at.to - at.from;
        const real *x =
            all ? all : fl_load(&call->operand[0], entry(call, at), entries(at), x_tile);
        excess_rows(rows, x, at, z);
        for (int64_t i = 0; squared && i < entries(at); i++)
            square[i] = z[i] * z[i];
        for (int64_t i = 0; i < n; i++)
            rows[i].sum =
                dd_add(rows[i].sum, sum_row((squared ? square : z) + i * columns, columns));
        if (!(call->products & FL_GRAD))
            continue;
        slope_tile(squared, entries(at), z);
        for (int64_t i = 0; i < n; i++)
            rows[i].slopes = dd_add(rows[i].slopes, sum_row(z + i * columns, columns));
    }
    for (int64_t i = 0; i < n; i++)
        rows[i].value = rows[i].weight * (rows[i].sum.hi / (double)call->unit_size);
    store_values(call, first, n, rows, partial);

    if (!(call->products & FL_GRAD))
        return;
    for (piece at = {.first = first, .n = n}; next_piece(call, &at);) {
        int64_t columns = at.to - at.from;
        if (!one_piece) {
            excess_rows(rows, fl_load(&call->operand[0], entry(call, at), entries(at), x_tile), at,
                        z);
            slope_tile(squared, entries(at), z);
        }
        real *g = fl_target(&call->grad[0], entry(call, at), entries(at), g_tile);
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
        fl_store(&call->grad[0], entry(call, at), entries(at), g);
    }
}

/* --- multilabel_margin --- */

/* Room for the entries of whole rows, and for what is known of the classes of one row: on the stack
 * for rows that fit into a tile, on the heap for a longer one. */
typedef struct {
    double *times; /* how often a class is a label */
    double *rest;  /* x of the classes that are no labels, one after the other ... */
    double *hits;  /* ... and how many terms each is in that are not 0 */
    double *slope; /* C dl/dx */
    int64_t *label;
    real *x, *g;
} workspace;

enum { CLASS_BYTES = 4 * sizeof(double) + sizeof(int64_t) + 2 * sizeof(real) };

static workspace divide_memory(double *memory, int64_t size)
{
    double *label = memory + 4 * size, *reals = label + size;
    return (workspace){.times = memory,
                       .rest = memory + size,
                       .hits = memory + 2 * size,
                       .slope = memory + 3 * size,
                       .label = (int64_t *)label,
                       .x = (real *)reals,
                       .g = (real *)reals + size};
}

/* Labels of n whole rows, each entry checked; a row with a bad one is not kept. */
static void read_labels(const fl_call *call, int64_t first, int64_t n, row *rows, int64_t *label,
                        fl_partial *partial)
{
    int64_t C = call->unit_size;
    for (int64_t done = 0, size; done < n * C; done += size) {
        size = n * C - done < TILE ? n * C - done : TILE;
        const int64_t *from =
            fl_load_index(&call->operand[1], first * C + done, size, label + done);
        if (from != label + done)
            memcpy(label + done, from, (size_t)size * sizeof *label);
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; rows[i].kept && j < C; j++)
            if (label[i * C + j] < -1 || label[i * C + j] >= C) {
                note_bad(partial, first + i, 1, j);
                rows[i].kept = 0;
            }
}

/* x of n whole rows; where they are read, so that a gradient may take their place. */
static void read_scores(const fl_call *call, int64_t first, int64_t n, real *x)
{
    int64_t C = call->unit_size;
    for (int64_t done = 0, size; done < n * C; done += size) {
        size = n * C - done < TILE ? n * C - done : TILE;
        const real *from = fl_load(&call->operand[0], first * C + done, size, x + done);
        if (from != x + done)
            memcpy(x + done, from, (size_t)size * sizeof *x);
    }
}

/* The terms of a label that stands `times` times; returns how many classes they are not 0 for. */
static double add_label(fl_dd gap, double times, const double *rest, int64_t n, fl_dd *sum,
                        double *hits)
{
    double z[TILE], active = 0;
    for (int64_t done = 0, size; done < n; done += size) {
        size = n - done < TILE ? n - done : TILE;
        for (int64_t k = 0; k < size; k++)
            z[k] = excess(gap, rest[done + k]);
#pragma omp simd reduction(+ : active) /* whole numbers: exact in any order */
        for (int64_t k = 0; k < size; k++) {
            hits[done + k] += z[k] > 0 ? times : 0;
            active += z[k] > 0;
        }
        *sum = dd_add_double(*sum, times * sum_row(z, size).hi);
    }
    return active;
}

/* l and C dl/dx of a row: each label against all classes that are none. */
static double multilabel_row(int64_t C, const real *x, const int64_t *label, const workspace *w)
{
    fl_dd sum = {0, 0};
    int64_t n = 0;
    real nan = 0;
    memset(w->times, 0, (size_t)C * sizeof *w->times);
    for (int64_t j = 0; j < C && label[j] >= 0; j++)
        w->times[label[j]]++;
    for (int64_t c = 0; c < C; c++) {
        nan = x[c] == x[c] ? nan : x[c];
        w->rest[n] = (double)x[c];
        w->hits[n] = 0;
        n += w->times[c] == 0;
    }
    for (int64_t c = 0; c < C; c++)
        if (w->times[c] > 0)
            w->slope[c] =
                -w->times[c] * add_label(gap_of(1, x[c]), w->times[c], w->rest, n, &sum, w->hits);
    double total = sum.hi + (double)nan;
    n = 0;
    for (int64_t c = 0; c < C; c++)
        if (w->times[c] == 0)
            w->slope[c] = w->hits[n++];
    for (int64_t c = 0; total != total && c < C; c++)
        w->slope[c] = total;
    return total / (double)C;
}

static void multilabel_margin(const fl_call *call, fl_phase phase, int64_t first, int64_t n,
                              row *rows, fl_partial *partial)
{
    const int64_t C = call->unit_size, size = n * C;
    double stack[CLASS_BYTES / sizeof(double) * TILE];
    double *memory = size <= TILE ? stack : calloc((size_t)size, CLASS_BYTES);
    if (!memory) {
        note_bad(partial, first, FL_NO_MEMORY, 0);
        return;
    }
    workspace w = divide_memory(memory, size);
    read_labels(call, first, n, rows, w.label, partial);
    if (phase == FL_MAIN) {
        real *g = w.g;
        if (call->products & FL_GRAD && C > 0)
            g = fl_target(&call->grad[0], first * C, size, w.g);
        read_scores(call, first, n, w.x);
        for (int64_t i = 0; i < n; i++) {
            row *r = &rows[i];
            if (r->kept)
                r->value = multilabel_row(C, w.x + i * C, w.label + i * C, &w);
            for (int64_t c = 0; call->products & FL_GRAD && c < C; c++)
                g[i * C + c] = r->kept ? (real)(r->scale * w.slope[c]) : 0;
        }
        if (call->products & FL_GRAD && C > 0)
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
    const int value = call->products & (FL_SUM | FL_VALUES), slopes = call->products >= FL_GRAD;
    real x_tile[TILE], y_tile[TILE], l[TILE], g_tile[2][TILE];
    double weight_tile[TILE], sample_tile[MAX_ROWS], term[TILE];
    for (int64_t i = 0; i < n; i++)
        sample_tile[i] = rows[i].sample;

    for (piece at = {.first = first, .n = n}; next_piece(call, &at);) {
        int64_t start = entry(call, at), size = entries(at), columns = at.to - at.from;
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
            g[k] = call->products & FL_GRAD << k ? fl_target(&call->grad[k], start, size, g_tile[k])
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
                    weigh_tile(g[k] + at_row, w ? w + at_row : 0, 0, rows[i].scale, columns);
                else
                    memset(g[k] + at_row, 0, (size_t)columns * sizeof *g[k]);
        }
        for (int k = 0; k < 2; k++)
            if (call->products & FL_GRAD << k)
                fl_store(&call->grad[k], start, size, g[k]);
    }
    if (phase == FL_PREPARE)
        return;
    for (int64_t i = 0; i < n; i++)
        rows[i].value = rows[i].sum.hi / (double)call->unit_size;
    store_values(call, first, n, rows, partial);
}

void SUFFIXED(fl_margins)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                          fl_partial *partial)
{
    row rows[MAX_ROWS];
    for (int64_t n; first < last; first += n) {
        n = rows_together(call, last - first);
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
