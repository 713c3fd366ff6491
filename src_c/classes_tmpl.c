/* Likelihoods of classes, x (N, C) against indices y (N) or probabilities y (N, C), once per
 * (instruction set, real).
 *
 * A unit is a row. With m = max x, a_c = m - x_c >= 0, R = Σ exp(-a_c) without one maximal entry,
 * S = 1 + R and L = log1p(R), the log-probability of class c is -(a_c + L) and no term cancels.
 *
 * cross_entropy (an index is the probability 1 of one class) and cross_entropy_probabilities:
 *     q_c = w_c ((1 - ε) y_c + ε/C),  Q = Σ q_c,  l = Σ q_c (a_c + L),
 *     dl/dx_j = Q exp(-a_j)/S - q_j = (exp(-a_j) (Q - q_j) - q_j (S - exp(-a_j)))/S,
 *     dl/dy_j = (1 - ε) w_j (a_j + L),
 * where Q - q_j and S - exp(-a_j) are sums of the other classes.
 *
 * nll:
 *     l = -w_y x_y
 *
 * Several short rows, or rows whose entries of one class are neighbours, are the columns of a
 * table: all runs over full vectors of rows. A long row is a table by itself, laid in lines of
 * LANES columns, which are joined at the end. The shape decides, so the bits of a row depend on it
 * alone. What does not fit into a table goes through it in pieces. */
#include "loader.h"
#include "scalar_math.h"
#include "tile.h"

#include <string.h>

enum { SHORT = 64, TABLE = 4 * TILE, MAX_UNITS = 128, GROUPS = MAX_UNITS / LANES };

/* What is the same for all rows of a block. */
typedef struct {
    const fl_call *call;
    int64_t C;
    const double *weight; /* w (C), or NULL for ones */
    double keep, each;    /* 1 - ε, ε/C */
    int probabilities;    /* y is (N, C) */
    int soft;             /* q is not that of one class alone */
    int nll;
    int folded;    /* a table is one long row */
    int64_t units; /* rows of a table */
    int64_t width; /* classes of a piece */
} setting;

/* A row. One that is not kept adds nothing, whatever it holds. */
typedef struct {
    int kept;
    int64_t label; /* y, or -1 */
    double weight; /* w_y */
    double sample; /* sample weight */
    double scale;  /* upstream factor of the gradients */
    real target;   /* x_y */
    real dx_y;     /* of hard targets the gradient at the label */
} unit;

/* LANES columns of a table. Those of a long row all say the same once they are joined. */
typedef struct {
    real max[LANES];     /* m */
    real skipped[LANES]; /* 1: an exp(-a) of 1 was not added to R */
    lanes rest;          /* R */
    lanes total;         /* Q */
    lanes spread;        /* Σ q_c a_c */
    real log1p[LANES];   /* L */
    real kept[LANES];
    double scale[LANES];
    double slope[LANES]; /* scale/S, with w_y unless soft */
} group;

/* A piece of the rows: class c of the p-th stands at [(c - at.from) * at.wide + p]. */
typedef struct {
    fl_columns at;
    const real *x, *y;
    real *dx, *dy;
    real x_tile[TABLE], y_tile[TABLE];
    real e[TABLE]; /* exp(-a) */
} table;

/* --- columns of a table ---
 *
 * A stripe is LANES columns, or fewer where a long row ends: line i is at start + i * step. */
typedef struct {
    int64_t start, step, lines;
} stripe;

typedef void columns_fn(const setting *s, table *t, group *g, stripe at, const int columns);

static INLINE void each_stripe(const setting *s, table *t, group *groups, columns_fn f)
{
    int64_t classes = t->at.to - t->at.from, lines = classes / LANES, left = classes % LANES;
    if (s->folded) {
        f(s, t, groups, (stripe){0, LANES, lines}, LANES);
        if (left > 0)
            f(s, t, groups, (stripe){lines * LANES, LANES, 1}, (int)left);
        return;
    }
    for (int64_t start = 0; start < t->at.wide; start += LANES)
        f(s, t, &groups[start / LANES], (stripe){start, t->at.wide, classes}, LANES);
}

/* max(m, max x); a NaN does not matter here, it reappears in R. */
static INLINE void max_columns(const setting *s, table *t, group *g, stripe at, const int columns)
{
    const real *x = t->x + at.start;
    real m[LANES];
    for (int k = 0; k < columns; k++)
        m[k] = g->max[k];
    for (int64_t i = 0; i < at.lines; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            real v = x[i * at.step + k];
            m[k] = m[k] < v ? v : m[k];
        }
    for (int k = 0; k < columns; k++)
        g->max[k] = m[k];
}

static INLINE void exp_columns(const setting *s, table *t, group *g, stripe at, const int columns)
{
    const real *x = t->x + at.start;
    real *e = t->e + at.start;
    for (int64_t i = 0; i < at.lines; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++)
            e[i * at.step + k] = EXP(x[i * at.step + k] - g->max[k]);
}

/* R, without the first 1 of each column. */
static INLINE void sum_columns(const setting *s, table *t, group *g, stripe at, const int columns)
{
    const real *e = t->e + at.start;
    lanes rest = g->rest;
    real skipped[LANES];
    for (int k = 0; k < columns; k++)
        skipped[k] = g->skipped[k];
    for (int64_t i = 0; i < at.lines; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            real v = e[i * at.step + k], skip = v == 1 ? 1 - skipped[k] : 0;
            add_to_lane(&rest, k, (double)(v - skip));
            skipped[k] += skip;
        }
    for (int k = 0; k < columns; k++)
        g->skipped[k] = skipped[k];
    g->rest = rest;
}

/* w of the classes of a line. */
static INLINE void line_weights(const setting *s, const table *t, stripe at, int64_t i, double *w,
                                const int columns)
{
    int64_t c = t->at.from + (s->folded ? at.start + i * at.step : i);
    for (int k = 0; k < columns; k++)
        w[k] = !s->weight ? 1 : s->folded ? s->weight[c + k] : s->weight[c];
}

/* Q and Σ q a; a q of 0 removes its class, one that underflows does not. */
static INLINE void weigh_columns(const setting *s, table *t, group *g, stripe at, const int columns)
{
    const real *x = t->x + at.start, *y = t->y + at.start;
    lanes total = g->total, spread = g->spread;
    for (int64_t i = 0; i < at.lines; i++) {
        double w[LANES];
        line_weights(s, t, at, i, w, columns);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            double p = s->keep * (double)y[i * at.step + k] + s->each;
            double a = (double)g->max[k] - (double)x[i * at.step + k];
            add_to_lane(&total, k, w[k] * p);
            add_to_lane(&spread, k, p == 0 || w[k] == 0 ? 0 : w[k] * (p * a));
        }
    }
    g->total = total;
    g->spread = spread;
}

/* dl/dx where no class but the label has a q; the label's own comes later. */
static INLINE void hard_gradient(const setting *s, table *t, group *g, stripe at, const int columns)
{
    const real *e = t->e + at.start;
    real *dx = t->dx + at.start, slope[LANES];
    for (int k = 0; k < columns; k++)
        slope[k] = (real)g->slope[k];
    for (int64_t i = 0; i < at.lines; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++)
            dx[i * at.step + k] = g->kept[k] == 0 ? 0 : e[i * at.step + k] * slope[k];
}

/* dl/dx and dl/dy; where they are written may be where x and y are read. */
static INLINE void soft_gradient(const setting *s, table *t, group *g, stripe at, const int columns,
                                 const int with_dy)
{
    const real *x = t->x + at.start, *y = t->y + at.start, *e = t->e + at.start;
    real *dx = t->dx + at.start, *dy = t->dy + at.start;
    for (int64_t i = 0; i < at.lines; i++) {
        double w[LANES];
        line_weights(s, t, at, i, w, columns);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            int64_t j = i * at.step + k;
            double q = w[k] * (s->keep * (double)y[j] + s->each), factor = s->keep * w[k];
            double a = (double)g->max[k] - (double)x[j], e_j = (double)e[j], R = g->rest.hi[k];
            double other_e = e_j == 1 ? R : 1 + (R - e_j);
            double other_q = (g->total.hi[k] - q) + g->total.lo[k];
            double gx = g->slope[k] * (e_j * other_q - q * other_e);
            double gy = factor == 0 ? 0 : g->scale[k] * (factor * (a + (double)g->log1p[k]));
            double nan = g->total.hi[k] + R; /* if x or y has one */
            dx[j] = g->kept[k] == 0 ? 0 : (real)gx;
            if (with_dy)
                dy[j] = g->kept[k] == 0 ? 0 : (real)(nan == nan ? gy : nan);
        }
    }
}

static INLINE void soft_gradient_x(const setting *s, table *t, group *g, stripe at,
                                   const int columns)
{
    soft_gradient(s, t, g, at, columns, 0);
}

static INLINE void soft_gradient_xy(const setting *s, table *t, group *g, stripe at,
                                    const int columns)
{
    soft_gradient(s, t, g, at, columns, 1);
}

/* --- pieces of rows --- */

static const real *load_piece(const setting *s, int k, fl_columns at, real *tile)
{
    const fl_array *array = &s->call->operand[k];
    if (s->folded)
        return fl_load(array, at.first * s->C + at.from, at.to - at.from, tile);
    fl_load_columns(array, s->C, at, tile);
    return tile;
}

/* Where to write a gradient. */
static real *piece_target(const setting *s, int k, fl_columns at, real *tile)
{
    return s->folded
               ? fl_target(&s->call->grad[k], at.first * s->C + at.from, at.to - at.from, tile)
               : tile;
}

static void store_piece(const setting *s, int k, fl_columns at, const real *from)
{
    const fl_array *array = &s->call->grad[k];
    if (s->folded)
        fl_store(array, at.first * s->C + at.from, at.to - at.from, from);
    else
        fl_store_columns(array, s->C, at, from);
}

static void go_to(const setting *s, table *t, int64_t from)
{
    t->at.from = from;
    t->at.to = from + s->width < s->C ? from + s->width : s->C;
}

static int64_t place(const table *t, int64_t c, int64_t p)
{
    return (c - t->at.from) * t->at.wide + p;
}

static int has_label(const table *t, const unit *u)
{
    return u->label >= t->at.from && u->label < t->at.to;
}

/* The piece from this class on, unless it is there already. */
static void read_piece(const setting *s, const unit *u, table *t, int64_t from)
{
    if (t->x && t->at.from == from)
        return;
    go_to(s, t, from);
    t->x = load_piece(s, 0, t->at, t->x_tile);
    if (s->probabilities)
        t->y = load_piece(s, 1, t->at, t->y_tile);
    else if (s->soft) {
        t->y = memset(t->y_tile, 0, (size_t)place(t, t->at.to, 0) * sizeof *t->y_tile);
        for (int64_t p = 0; p < t->at.n; p++)
            if (has_label(t, &u[p]))
                t->y_tile[place(t, u[p].label, p)] = 1;
    }
}

/* No probability may be negative; which one is, is found row by row. */
static void check_piece(const setting *s, const unit *u, const table *t, fl_partial *partial)
{
    real row_tile[TILE];
    if (count_bad(t->y, place(t, t->at.to, 0), FL_NONNEGATIVE) == 0)
        return;
    for (int64_t p = 0; p < t->at.n; p++)
        for (int64_t c = t->at.from, n; c < t->at.to; c += n) {
            int64_t entry = (t->at.first + p) * s->C + c;
            n = t->at.to - c < TILE ? t->at.to - c : TILE;
            check_tile(fl_load(&s->call->operand[1], entry, n, row_tile), n, FL_NONNEGATIVE,
                       &u[p].sample, 1, entry, s->C, partial);
        }
}

/* --- rows --- */

/* Labels and sample weights, the divisor's Σ d and the count. */
static void read_units(const setting *s, int64_t first, int64_t n, unit *u, fl_partial *partial)
{
    const fl_call *call = s->call;
    int64_t label_tile[MAX_UNITS], count = 0;
    double sample_tile[MAX_UNITS], upstream_tile[MAX_UNITS];
    const int64_t *label =
        s->probabilities ? 0 : fl_load_index(&call->operand[1], first, n, label_tile);
    const double *sample = load_sample_weight(call, first, n, sample_tile, partial);
    const double *upstream = call->upstream_each.data
                                 ? fl_load_double(&call->upstream_each, first, n, upstream_tile)
                                 : 0;
    const double *weight = label ? s->weight : 0;
    for (int64_t p = 0; p < n; p++) {
        int64_t y = label ? label[p] : -1;
        double f = sample ? sample[p] : 1, w = 1;
        int kept = f != 0 && (!label || y != call->ignore_index);
        if (kept && label && (y < 0 || y >= s->C)) {
            note_bad(partial, first + p, 1, 0);
            kept = 0;
        }
        if (kept && weight)
            w = weight[y];
        if (kept && (sample || weight))
            partial->weight = dd_add_double(partial->weight, f * w);
        kept = kept && (w != 0 || s->soft);
        count += kept;
        u[p] = (unit){.kept = kept,
                      .label = kept ? y : -1,
                      .weight = w,
                      .sample = f,
                      .scale = call->scale * f * (upstream ? upstream[p] : 1)};
    }
    if (!sample && !weight)
        partial->weight = dd_add_double(partial->weight, (double)count);
    partial->count += count;
}

/* Of LANES columns each one's sum, as hi + lo; of a long row that of all, in each. */
static void join(const setting *s, lanes *sum)
{
    fl_dd all = {0, 0};
    if (s->folded)
        all = sum_lanes(sum);
    for (int k = 0; k < LANES; k++) {
        double hi = sum->hi[k] + sum->lo[k], lo = sum->lo[k] - (hi - sum->hi[k]);
        int finite = hi - hi == 0; /* inf and NaN have no remainder */
        sum->hi[k] = s->folded ? all.hi : finite ? hi : sum->hi[k];
        sum->lo[k] = s->folded ? all.lo : finite ? lo : 0;
    }
}

/* The maximum of a long row; each column but one has a 1 to give back to R. */
static void join_max(group *g)
{
    for (int k = 1; k < LANES; k++)
        g->max[0] = g->max[0] < g->max[k] ? g->max[k] : g->max[0];
    for (int k = 1; k < LANES; k++)
        g->max[k] = g->max[0];
}

static void join_sums(const setting *s, group *g)
{
    real rest[LANES], skipped = -1;
    join(s, &g->rest);
    if (s->soft) {
        join(s, &g->total);
        join(s, &g->spread);
    }
    if (s->folded)
        for (int k = 0; k < LANES; k++)
            skipped += g->skipped[k];
    for (int k = 0; k < LANES; k++) {
        if (s->folded && skipped > 0)
            g->rest.hi[k] += (double)skipped;
        rest[k] = (real)g->rest.hi[k];
    }
    for (int k = 0; k < LANES; k++)
        g->log1p[k] = LOG1P(rest[k]);
}

/* x_y, m, R, L, and of soft targets Q and Σ q a. */
static void read_rows(const setting *s, unit *u, group *groups, table *t, fl_partial *partial)
{
    const int n = s->folded ? 1 : (int)(t->at.wide / LANES);
    for (int i = 0; i < n; i++)
        groups[i] = (group){.max = {0}};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < LANES; k++)
            groups[i].max[k] = -REAL_INFINITY;
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        read_piece(s, u, t, from);
        if (s->probabilities)
            check_piece(s, u, t, partial);
        for (int64_t p = 0; p < t->at.n; p++)
            if (has_label(t, &u[p]))
                u[p].target = t->x[place(t, u[p].label, p)];
        each_stripe(s, t, groups, max_columns);
    }
    if (s->folded)
        join_max(groups);
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        read_piece(s, u, t, from);
        each_stripe(s, t, groups, exp_columns);
        each_stripe(s, t, groups, sum_columns);
        if (s->soft)
            each_stripe(s, t, groups, weigh_columns);
    }
    for (int i = 0; i < n; i++)
        join_sums(s, &groups[i]);
}

/* The unreduced loss of row p of a table. */
static double cross_entropy_value(const setting *s, const unit *u, const group *groups, int64_t p)
{
    const group *g = &groups[p / LANES];
    int64_t k = p % LANES;
    double L = (double)g->log1p[k];
    return s->soft ? g->spread.hi[k] + g->total.hi[k] * L
                   : u[p].weight * ((double)g->max[k] - (double)u[p].target + L);
}

/* What the columns need for their gradients, and of hard targets dl/dx_y. */
static void start_gradient(const setting *s, unit *u, group *groups, int64_t n)
{
    real e_y[MAX_UNITS];
    for (int64_t p = 0; p < n; p++)
        e_y[p] = u[p].target - groups[p / LANES].max[p % LANES];
    for (int64_t p = 0; p < n; p++)
        e_y[p] = EXP(e_y[p]);
    for (int64_t p = 0; p < n; p++) {
        group *g = &groups[p / LANES];
        int64_t k = p % LANES;
        double e = (double)e_y[p], R = g->rest.hi[k];
        g->kept[k] = (real)u[p].kept;
        g->scale[k] = u[p].scale;
        g->slope[k] = u[p].scale * (s->soft ? 1 : u[p].weight) / (1 + R);
        u[p].dx_y = (real)(-g->slope[k] * (e == 1 ? R : 1 + (R - e)));
    }
    for (int k = 1; s->folded && k < LANES; k++) {
        groups->kept[k] = groups->kept[0];
        groups->scale[k] = groups->scale[0];
        groups->slope[k] = groups->slope[0];
    }
}

static double nll_value(const unit *u) { return -u->weight * (double)u->target; }

static real nll_gradient(const unit *u)
{
    return u->target == u->target ? (real)(-u->scale * u->weight) : u->target;
}

static void write_gradients(const setting *s, const unit *u, group *groups, table *t)
{
    const int want_x = s->call->products & FL_GRAD, want_y = s->call->products & FL_GRAD << 1;
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        if (s->nll)
            go_to(s, t, from);
        else
            read_piece(s, u, t, from);
        if (!s->nll && s->width < s->C)
            each_stripe(s, t, groups, exp_columns);
        t->dx = want_x ? piece_target(s, 0, t->at, t->e) : t->e;
        t->dy = want_y ? piece_target(s, 1, t->at, t->y_tile) : t->y_tile;
        if (s->nll)
            memset(t->dx, 0, (size_t)place(t, t->at.to, 0) * sizeof *t->dx);
        else if (want_y)
            each_stripe(s, t, groups, soft_gradient_xy);
        else if (s->soft)
            each_stripe(s, t, groups, soft_gradient_x);
        else
            each_stripe(s, t, groups, hard_gradient);
        for (int64_t p = 0; p < t->at.n && !s->soft; p++)
            if (has_label(t, &u[p]))
                t->dx[place(t, u[p].label, p)] = u[p].dx_y;
        if (want_x)
            store_piece(s, 0, t->at, t->dx);
        if (want_y)
            store_piece(s, 1, t->at, t->dy);
    }
}

/* Values and gradients of the rows of a table. */
static void run_table(const setting *s, unit *u, table *t, real *l, fl_partial *partial)
{
    group groups[GROUPS];
    const int gradients = (s->call->products & (FL_GRAD | FL_GRAD << 1)) != 0;
    if (!s->nll)
        read_rows(s, u, groups, t, partial);
    for (int64_t p = 0; p < t->at.n; p++) {
        double value = s->nll ? nll_value(&u[p]) : cross_entropy_value(s, u, groups, p);
        l[p] = u[p].kept ? (real)(u[p].sample * value) : 0;
    }
    if (!gradients)
        return;
    if (!s->nll)
        start_gradient(s, u, groups, t->at.n);
    for (int64_t p = 0; p < t->at.n && s->nll; p++)
        u[p].dx_y = nll_gradient(&u[p]);
    write_gradients(s, u, groups, t);
}

/* x_y alone. */
static void pick_targets(const setting *s, int64_t first, int64_t n, unit *u)
{
    int64_t label[MAX_UNITS];
    real target[MAX_UNITS];
    for (int64_t p = 0; p < n; p++) {
        label[p] = u[p].label;
        target[p] = 0;
    }
    fl_pick(&s->call->operand[0], s->C, first, n, label, target);
    for (int64_t p = 0; p < n; p++)
        u[p].target = target[p];
}

static void check_table(const setting *s, const unit *u, table *t, fl_partial *partial)
{
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        go_to(s, t, from);
        t->y = load_piece(s, 1, t->at, t->y_tile);
        check_piece(s, u, t, partial);
    }
}

static void run_units(const setting *s, fl_phase phase, int64_t first, int64_t n,
                      fl_partial *partial)
{
    const fl_call *call = s->call;
    unit u[MAX_UNITS];
    real value_tile[MAX_UNITS];
    table t;
    read_units(s, first, n, u, partial);
    if (phase == FL_PREPARE && !s->probabilities)
        return;
    if (s->nll)
        pick_targets(s, first, n, u);
    real *l = fl_target(&call->values, first, n, value_tile);
    for (int64_t p = 0; p < n; p += t.at.n) {
        int64_t rows = n - p < s->units ? n - p : s->units;
        t.at = (fl_columns){.first = first + p,
                            .n = rows,
                            .wide = s->folded ? 1 : (rows + LANES - 1) / LANES * LANES};
        t.x = 0;
        if (phase == FL_PREPARE)
            check_table(s, u + p, &t, partial);
        else
            run_table(s, u + p, &t, l + p, partial);
    }
    if (phase == FL_MAIN && call->products & (FL_SUM | FL_VALUES)) {
        partial->sum = dd_add(partial->sum, sum_tile(l, n));
        fl_store(&call->values, first, n, l);
    }
}

void SUFFIXED(fl_classes)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                          fl_partial *partial)
{
    const int64_t C = call->unit_size;
    const int nll = call->formula == FL_FORMULA_nll,
              probabilities = call->formula == FL_FORMULA_cross_entropy_probabilities;
    const double smoothing = nll ? 0 : call->params[0];
    setting s = {.call = call,
                 .C = C,
                 .weight = call->by_class,
                 .keep = 1 - smoothing,
                 .each = smoothing / (double)C,
                 .nll = nll,
                 .probabilities = probabilities,
                 .soft = probabilities || smoothing > 0,
                 .folded = C > SHORT && call->inner < LANES};
    s.units = C > 0 ? TABLE / C / LANES * LANES : MAX_UNITS;
    if (s.units < 2 * LANES || s.units > MAX_UNITS)
        s.units = MAX_UNITS; /* few classes, or so many that they go in pieces */
    s.width = TABLE / s.units;
    if (s.folded) {
        s.units = 1;
        s.width = TILE;
    }
    const int64_t together = MAX_UNITS / s.units * s.units;
    for (int64_t n; first < last; first += n) {
        n = last - first < together ? last - first : together;
        run_units(&s, phase, first, n, partial);
    }
}
