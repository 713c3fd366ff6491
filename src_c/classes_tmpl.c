/* Losses of class indices, x (N, C) against y (N), once per (instruction set, real).
 *
 * A unit is a row. Short rows go many at a time, so that exp and log run over full vectors; a row
 * longer than a tile goes in pieces. With m = max x, a_c = m - x_c >= 0, R = Σ exp(-a_c) without
 * one maximal entry, S = 1 + R and L = log1p(R), the log-probability of class c is -(a_c + L) and
 * no term cancels.
 *
 * cross_entropy:
 *     l = (1 - ε) w_y (a_y + L) + ε/C (Σ w_c a_c + L Σ w_c),  Q = (1 - ε) w_y + ε/C Σ w_c,
 *     dl/dx_j = Q exp(-a_j)/S - ε/C w_j - (1 - ε) w_y [j = y],
 * where at j = y the terms with 1 - ε join to -(1 - ε) w_y (S - exp(-a_y))/S, the sum of the
 * others.
 *
 * nll:
 *     l = -w_y x_y */
#include "loader.h"
#include "scalar_math.h"
#include "tile.h"

#include <string.h>

enum { MAX_ROWS = 256 };

/* What is the same for all rows of a block. */
typedef struct {
    const fl_call *call;
    int64_t C;
    const double *weight; /* w (C), or NULL for ones */
    double weight_sum;    /* Σ w_c */
    double smoothing;     /* ε */
} setting;

/* What is known of a row; a removed one is not kept and adds nothing, whatever it holds. */
typedef struct {
    int kept;
    int64_t label;    /* y */
    double weight;    /* w_y */
    double sample;    /* its sample weight */
    real target, max; /* x_y, m */
    fl_dd rest;       /* R */
    double log1p;     /* L */
    int64_t ones;     /* how many exp(-a_c) are exactly 1 */
    fl_dd spread;     /* ε/C Σ w_c a_c, with smoothing only */
} row;

/* Columns [from, to) of the n rows from `first` on; either whole rows or a piece of one. */
typedef struct {
    int64_t first, n, from, to;
} piece;

static double class_weight(const setting *s, int64_t c) { return s->weight ? s->weight[c] : 1; }

static int64_t entry(const setting *s, piece at) { return at.first * s->C + at.from; }
static int64_t entries(piece at) { return at.n * (at.to - at.from); }

/* max(m, max x); a NaN does not matter here, it reappears in R. */
static real max_tile(const real *x, int64_t n, real m)
{
    real lane[LANES];
    int64_t i = 0;
    for (int k = 0; k < LANES; k++)
        lane[k] = m;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++)
            lane[k] = lane[k] < x[i + k] ? x[i + k] : lane[k];
    if (i > 0)
        for (int k = 0; k < LANES; k++)
            m = m < lane[k] ? lane[k] : m;
    for (; i < n; i++)
        m = m < x[i] ? x[i] : m;
    return m;
}

/* Σ of the entries that are not 1, and the number of ones. */
static fl_dd sum_exp_tile(const real *e, int64_t n, int64_t *ones)
{
    lanes sum = {{0}, {0}};
    real count[LANES] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            real one = e[i + k] == 1;
            add_to_lane(&sum, k, (double)(e[i + k] - one));
            count[k] += one;
        }
    for (int k = 0; i + k < n; k++) {
        real one = e[i + k] == 1;
        add_to_lane(&sum, k, (double)(e[i + k] - one));
        count[k] += one;
    }
    for (int k = 0; k < LANES; k++)
        total += count[k];
    *ones += (int64_t)total;
    return sum_lanes(&sum);
}

/* Σ each w (m - x), a weight of 0 removing its class. */
static fl_dd spread_tile(const real *x, const double *w, real m, double each, int64_t n)
{
    lanes sum = {{0}, {0}};
    for (int64_t i = 0; i < n; i++) {
        double a = each * ((double)m - (double)x[i]);
        add_to_lane(&sum, (int)(i % LANES), !w ? a : w[i] == 0 ? 0 : w[i] * a);
    }
    return sum_lanes(&sum);
}

/* exp(x - m) of each row. */
static void exp_rows(const row *rows, const real *x, piece at, real *e)
{
    int64_t width = at.to - at.from, n = entries(at);
    for (int64_t i = 0; i < at.n; i++)
        for (int64_t j = 0; j < width; j++)
            e[i * width + j] = x[i * width + j] - rows[i].max;
    for (int64_t i = 0; i < n; i++)
        e[i] = EXP(e[i]);
}

/* Labels and sample weights, the divisor's Σ d and the count. */
static void read_labels(const setting *s, int64_t first, int64_t n, row *rows, fl_partial *partial)
{
    const fl_call *call = s->call;
    int64_t label_tile[MAX_ROWS];
    double sample_tile[MAX_ROWS];
    const int64_t *label = fl_load_index(&call->operand[1], first, n, label_tile);
    const double *sample = load_sample_weight(call, first, n, sample_tile, partial);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        row r = {.label = label[i], .sample = sample ? sample[i] : 1, .max = -REAL_INFINITY};
        if (r.label != call->ignore_index && r.sample != 0) {
            r.kept = r.label >= 0 && r.label < s->C;
            if (!r.kept)
                note_bad(partial, first + i, 1);
        }
        if (r.kept) {
            r.weight = class_weight(s, r.label);
            if (sample || s->weight)
                partial->weight = dd_add_double(partial->weight, r.sample * r.weight);
            r.kept = r.weight != 0 || s->smoothing > 0;
            kept += r.kept;
        }
        rows[i] = r;
    }
    partial->count += kept;
    if (!sample && !s->weight)
        partial->weight = dd_add_double(partial->weight, (double)kept);
}

/* m, R, L and what else the value needs; of a single piece e keeps exp(x - m) for the gradient. */
static void read_classes(const setting *s, piece at, int64_t width, row *rows, real *x_tile,
                         real *e)
{
    const fl_array *input = &s->call->operand[0];
    real rest[MAX_ROWS];
    for (int64_t i = 0; i < at.n; i++)
        if (rows[i].kept)
            rows[i].target = *fl_load(input, (at.first + i) * s->C + rows[i].label, 1, x_tile);
    for (at.from = 0; at.from < s->C; at.from = at.to) {
        at.to = at.from + width < s->C ? at.from + width : s->C;
        const real *x = fl_load(input, entry(s, at), entries(at), x_tile);
        for (int64_t i = 0; i < at.n; i++)
            rows[i].max = max_tile(x + i * (at.to - at.from), at.to - at.from, rows[i].max);
    }
    for (at.from = 0; at.from < s->C; at.from = at.to) {
        at.to = at.from + width < s->C ? at.from + width : s->C;
        const real *x = fl_load(input, entry(s, at), entries(at), x_tile);
        exp_rows(rows, x, at, e);
        for (int64_t i = 0; i < at.n; i++) {
            int64_t start = i * (at.to - at.from), n = at.to - at.from;
            rows[i].rest = dd_add(rows[i].rest, sum_exp_tile(e + start, n, &rows[i].ones));
            if (s->smoothing > 0)
                rows[i].spread = dd_add(rows[i].spread,
                                        spread_tile(x + start, s->weight ? s->weight + at.from : 0,
                                                    rows[i].max, s->smoothing / (double)s->C, n));
        }
    }
    for (int64_t i = 0; i < at.n; i++) {
        rows[i].rest = dd_add_double(rows[i].rest, (double)(rows[i].ones - 1));
        rest[i] = (real)rows[i].rest.hi;
    }
    for (int64_t i = 0; i < at.n; i++)
        rest[i] = LOG1P(rest[i]);
    for (int64_t i = 0; i < at.n; i++)
        rows[i].log1p = (double)rest[i];
}

/* The unreduced loss of a row. */
static real cross_entropy_value(const setting *s, const row *r)
{
    double hard = r->weight * ((double)r->max - (double)r->target + r->log1p), smooth = 0;
    if (r->weight == 0 || s->smoothing == 1)
        hard = 0;
    if (s->smoothing > 0)
        smooth = r->spread.hi + s->smoothing / (double)s->C * s->weight_sum * r->log1p;
    return (real)(r->sample * ((1 - s->smoothing) * hard + smooth));
}

/* Gradient of a piece of a row: e holds exp(-a), `scale` the upstream factor of the row. */
static void cross_entropy_gradient(const setting *s, const row *r, int64_t from, int64_t n,
                                   const real *e, double scale, real *g)
{
    double R = r->rest.hi, S = 1 + R, hard = (1 - s->smoothing) * r->weight,
           each = s->smoothing / (double)s->C;
    const double *w = s->weight ? s->weight + from : 0;
    real softmax = (real)(scale * (hard + each * s->weight_sum) / S),
         uniform = (real)(scale * each);
    if (s->smoothing == 0)
        for (int64_t j = 0; j < n; j++)
            g[j] = e[j] * softmax;
    else if (!w)
        for (int64_t j = 0; j < n; j++)
            g[j] = e[j] * softmax - uniform;
    else
        for (int64_t j = 0; j < n; j++)
            g[j] = e[j] * softmax - (real)(scale * each * w[j]);
    if (r->label >= from && r->label < from + n) {
        double e_y = (double)EXP(r->target - r->max), others = e_y == 1 ? R : 1 + (R - e_y);
        double smooth = s->smoothing > 0 ? each * (e_y / S * s->weight_sum - r->weight) : 0;
        g[r->label - from] = (real)(scale * (smooth - hard * (others / S)));
    }
}

static real nll_value(const row *r) { return (real)(-r->sample * r->weight * (double)r->target); }

static void nll_gradient(const row *r, int64_t from, int64_t n, double scale, real *g)
{
    for (int64_t j = 0; j < n; j++)
        g[j] = 0;
    if (r->label >= from && r->label < from + n)
        g[r->label - from] = r->target == r->target ? (real)(-scale * r->weight) : r->target;
}

/* n rows: whole ones, or a single one in pieces of `width` classes. */
static void run_rows(const setting *s, fl_phase phase, int64_t first, int64_t n, int64_t width,
                     fl_partial *partial)
{
    const fl_call *call = s->call;
    const int fused = call->formula == FL_FORMULA_cross_entropy;
    row rows[MAX_ROWS];
    real x_tile[TILE], e_tile[TILE], g_tile[TILE], value_tile[MAX_ROWS];
    double upstream_tile[MAX_ROWS];

    read_labels(s, first, n, rows, partial);
    if (phase == FL_PREPARE)
        return;

    piece at = {.first = first, .n = n, .to = s->C};
    if (fused)
        read_classes(s, at, width, rows, x_tile, e_tile);
    else
        for (int64_t i = 0; i < n; i++)
            if (rows[i].kept)
                rows[i].target =
                    *fl_load(&call->operand[0], (first + i) * s->C + rows[i].label, 1, x_tile);

    if (call->products & (FL_SUM | FL_VALUES)) {
        real *l = fl_target(&call->values, first, n, value_tile);
        for (int64_t i = 0; i < n; i++)
            l[i] = !rows[i].kept ? 0
                   : fused       ? cross_entropy_value(s, &rows[i])
                                 : nll_value(&rows[i]);
        partial->sum = dd_add(partial->sum, sum_tile(l, n));
        fl_store(&call->values, first, n, l);
    }
    if (!(call->products & FL_GRAD))
        return;

    const double *upstream = call->upstream_each.data
                                 ? fl_load_double(&call->upstream_each, first, n, upstream_tile)
                                 : 0;
    for (at.from = 0; at.from < s->C; at.from = at.to) {
        at.to = at.from + width < s->C ? at.from + width : s->C;
        int64_t columns = at.to - at.from;
        if (fused && width < s->C)
            exp_rows(rows, fl_load(&call->operand[0], entry(s, at), entries(at), x_tile), at,
                     e_tile);
        real *g = fl_target(&call->grad[0], entry(s, at), entries(at), g_tile);
        for (int64_t i = 0; i < n; i++) {
            double scale = call->scale * rows[i].sample * (upstream ? upstream[i] : 1);
            if (!rows[i].kept)
                memset(g + i * columns, 0, (size_t)columns * sizeof *g);
            else if (fused)
                cross_entropy_gradient(s, &rows[i], at.from, columns, e_tile + i * columns, scale,
                                       g + i * columns);
            else
                nll_gradient(&rows[i], at.from, columns, scale, g + i * columns);
        }
        fl_store(&call->grad[0], entry(s, at), entries(at), g);
    }
}

void SUFFIXED(fl_classes)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                          fl_partial *partial)
{
    setting s = {.call = call,
                 .C = call->unit_size,
                 .weight = (const double *)call->weight.data,
                 .smoothing = call->formula == FL_FORMULA_cross_entropy ? call->params[0] : 0};
    s.weight_sum = (double)s.C;
    if (s.weight && s.smoothing > 0)
        s.weight_sum = sum_doubles(s.weight, s.C).hi;
    int64_t width = s.C < TILE ? s.C : TILE, together = width > 0 ? TILE / width : MAX_ROWS;
    together = together < MAX_ROWS ? together : MAX_ROWS;
    for (; first < last; first += together)
        run_rows(&s, phase, first, last - first < together ? last - first : together, width,
                 partial);
}
