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
 * where Q - q_j and S - exp(-a_j) = R + (1 - exp(-a_j)) are sums of the other classes.
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

enum { SHORT = 256, TABLE = 4 * TILE, UNITS = 128, GROUPS = UNITS / LANES };

/* Which probabilities q a row is compared with. */
typedef enum { HARD, SMOOTHED, SOFT } targets;

/* What is the same for all rows of a block. */
typedef struct {
    const fl_call *call;
    int64_t C;
    const double *weight; /* w (C), or NULL for ones */
    double keep, each;    /* 1 - ε, ε/C */
    targets targets;
    int folded;    /* a table is one long row */
    int64_t units; /* rows of a table */
    int64_t width; /* classes of a piece */
} setting;

/* Rows. One that is not kept adds nothing, whatever it holds. */
typedef struct {
    int64_t first, n;
    int64_t label[UNITS]; /* y, or -1 */
    real kept[UNITS];     /* 1 or 0 */
    double weight[UNITS]; /* w_y */
    double sample[UNITS]; /* sample weight */
    double scale[UNITS];  /* upstream factor of the gradients */
    real target[UNITS];   /* x_y */
    real max[UNITS];      /* m */
    double rest[UNITS];   /* R */
    fl_dd total[UNITS];   /* SOFT: Q; SMOOTHED: Σ w_c */
    double spread[UNITS]; /* SOFT: Σ q_c a_c; SMOOTHED: Σ w_c a_c */
    real dx_y[UNITS];     /* dl/dx_y, unless SOFT */
} rows;

/* LANES columns of a table. Those of a long row all say the same once they are joined. */
typedef struct {
    real max[LANES];
    real ones[LANES]; /* entries equal to m, which are not in `rest` */
    lanes rest;       /* exp(-a) of the others */
    double R[LANES];
    lanes total;  /* Q; SMOOTHED: Σ w_c */
    lanes spread; /* Σ q_c a_c; SMOOTHED: Σ w_c a_c */
    real log1p[LANES];
    real kept[LANES];
    double scale[LANES];
    double slope[LANES];   /* scale/S; HARD: times w_y */
    double label_q[LANES]; /* SMOOTHED: (1 - ε) w_y */
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
 * A stripe is LANES columns, or fewer where a long row ends: line i is at i * step. */
typedef struct {
    const real *x, *y;
    real *e, *dx, *dy;
    const double *w; /* of the first line; NULL for ones */
    int64_t step, lines;
} stripe;

typedef void columns_fn(const setting *s, stripe at, group *g, const int columns,
                        const int weighted);

static INLINE stripe stripe_of(const setting *s, const table *t, int64_t start, int64_t step,
                               int64_t lines)
{
    return (stripe){.x = t->x + start,
                    .y = t->y + start,
                    .e = (real *)t->e + start,
                    .dx = t->dx + start,
                    .dy = t->dy + start,
                    .w = s->weight ? s->weight + t->at.from + (s->folded ? start : 0) : 0,
                    .step = step,
                    .lines = lines};
}

static INLINE void each_stripe_of(const setting *s, table *t, group *groups, columns_fn f,
                                  const int weighted)
{
    int64_t classes = t->at.to - t->at.from, lines = classes / LANES, left = classes % LANES;
    if (s->folded) {
        f(s, stripe_of(s, t, 0, LANES, lines), groups, LANES, weighted);
        if (left > 0)
            f(s, stripe_of(s, t, lines * LANES, LANES, 1), groups, (int)left, weighted);
        return;
    }
    for (int64_t start = 0; start < t->at.wide; start += LANES)
        f(s, stripe_of(s, t, start, t->at.wide, classes), &groups[start / LANES], LANES, weighted);
}

/* Weights of 1 cost nothing where f asks for them. */
static INLINE void each_stripe(const setting *s, table *t, group *groups, columns_fn f)
{
    if (s->weight)
        each_stripe_of(s, t, groups, f, 1);
    else
        each_stripe_of(s, t, groups, f, 0);
}

/* max(m, max x), in two chains; a NaN does not matter here, it reappears in R. */
static INLINE void max_columns(const setting *s, stripe at, group *g, const int columns,
                               const int weighted)
{
    real m[LANES], odd[LANES];
    int64_t i = 0;
    for (int k = 0; k < columns; k++)
        m[k] = odd[k] = g->max[k];
    for (; i + 2 <= at.lines; i += 2) {
        const real *even_line = at.x + i * at.step, *odd_line = even_line + at.step;
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            m[k] = m[k] < even_line[k] ? even_line[k] : m[k];
            odd[k] = odd[k] < odd_line[k] ? odd_line[k] : odd[k];
        }
    }
    for (; i < at.lines; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            real v = at.x[i * at.step + k];
            m[k] = m[k] < v ? v : m[k];
        }
    for (int k = 0; k < columns; k++)
        g->max[k] = m[k] < odd[k] ? odd[k] : m[k];
}

static INLINE void exp_line(const real *x, real *e, const real *m, real *ones, lanes *rest)
{
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        real v = EXP_NEGATIVE(x[k] - m[k]);
        int top = x[k] == m[k];
        e[k] = v;
        ones[k] += top ? R(1.0) : R(0.0);
        add_to_lane(rest, k, (double)(top ? R(0.0) : v));
    }
}

/* exp(-a) and R, maxima counted apart. The end of a long row is filled with what adds nothing. */
static INLINE void exp_columns(const setting *s, stripe at, group *g, const int columns,
                               const int weighted)
{
    lanes rest = g->rest;
    real m[LANES], ones[LANES], last[LANES];
    for (int k = 0; k < LANES; k++) {
        m[k] = g->max[k];
        ones[k] = g->ones[k];
        last[k] = -REAL_INFINITY;
    }
    if (columns < LANES) {
        for (int k = 0; k < columns; k++)
            last[k] = at.x[k];
        exp_line(last, at.e, m, ones, &rest);
    } else
        for (int64_t i = 0; i < at.lines; i++) {
            if (s->folded) /* the next row comes while this one is computed */
                __builtin_prefetch(at.x + s->C + i * LANES);
            exp_line(at.x + i * at.step, at.e + i * at.step, m, ones, &rest);
        }
    for (int k = 0; k < LANES; k++)
        g->ones[k] = ones[k];
    g->rest = rest;
}

/* w of the classes of line i. */
static INLINE void line_weights(const setting *s, stripe at, int64_t i, double *w,
                                const int columns, const int weighted)
{
    for (int k = 0; k < columns; k++)
        w[k] = !weighted ? 1 : s->folded ? at.w[i * LANES + k] : at.w[i];
}

/* Σ w_c and Σ w_c a_c; a w of 0 removes its class. */
static INLINE void smooth_columns(const setting *s, stripe at, group *g, const int columns,
                                  const int weighted)
{
    lanes total = g->total, spread = g->spread;
    for (int64_t i = 0; i < at.lines; i++) {
        double w[LANES];
        line_weights(s, at, i, w, columns, weighted);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            double a = (double)g->max[k] - (double)at.x[i * at.step + k];
            if (weighted) {
                add_to_lane(&total, k, w[k]);
                a = w[k] == 0 ? 0 : w[k] * a;
            }
            add_to_lane(&spread, k, a);
        }
    }
    g->total = total;
    g->spread = spread;
}

/* Q and Σ q a; a q of 0 removes its class, one that underflows does not. */
static INLINE void soft_columns(const setting *s, stripe at, group *g, const int columns,
                                const int weighted)
{
    lanes total = g->total, spread = g->spread;
    for (int64_t i = 0; i < at.lines; i++) {
        double w[LANES];
        line_weights(s, at, i, w, columns, weighted);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            double p = s->keep * (double)at.y[i * at.step + k] + s->each;
            double a = (double)g->max[k] - (double)at.x[i * at.step + k];
            double pa = p == 0 ? 0 : p * a;
            if (weighted)
                pa = w[k] == 0 ? 0 : w[k] * pa;
            add_to_lane(&total, k, weighted ? w[k] * p : p);
            add_to_lane(&spread, k, pa);
        }
    }
    g->total = total;
    g->spread = spread;
}

/* dl/dx where no class but the label has a q; the label's own comes later. */
static INLINE void hard_gradient(const setting *s, stripe at, group *g, const int columns,
                                 const int weighted)
{
    real slope[LANES];
    for (int k = 0; k < columns; k++)
        slope[k] = (real)g->slope[k];
    for (int64_t i = 0; i < at.lines; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++)
            at.dx[i * at.step + k] = g->kept[k] == 0 ? 0 : at.e[i * at.step + k] * slope[k];
}

/* dl/dx of a class with this q, the others having other_q. */
static INLINE double class_slope(double slope, double e, double R, double q, double other_q)
{
    return slope * (e * other_q - q * (R + (1 - e)));
}

/* dl/dx as if no class were the label; its own comes later. */
static INLINE void smooth_gradient(const setting *s, stripe at, group *g, const int columns,
                                   const int weighted)
{
    for (int64_t i = 0; i < at.lines; i++) {
        double w[LANES];
        line_weights(s, at, i, w, columns, weighted);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            double other_w = (g->total.hi[k] - w[k]) + g->total.lo[k];
            double gx = class_slope(g->slope[k], (double)at.e[i * at.step + k], g->R[k],
                                    s->each * w[k], s->each * other_w + g->label_q[k]);
            at.dx[i * at.step + k] = g->kept[k] == 0 ? 0 : (real)gx;
        }
    }
}

/* dl/dx and dl/dy; where they are written may be where x and y are read. */
static INLINE void soft_gradient(const setting *s, stripe at, group *g, const int columns,
                                 const int weighted, const int with_dy)
{
    for (int64_t i = 0; i < at.lines; i++) {
        double w[LANES];
        line_weights(s, at, i, w, columns, weighted);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            int64_t j = i * at.step + k;
            double q = w[k] * (s->keep * (double)at.y[j] + s->each), factor = s->keep * w[k];
            double a = (double)g->max[k] - (double)at.x[j];
            double other_q = (g->total.hi[k] - q) + g->total.lo[k];
            double gx = class_slope(g->slope[k], (double)at.e[j], g->R[k], q, other_q);
            double gy = factor == 0 ? 0 : g->scale[k] * (factor * (a + (double)g->log1p[k]));
            double nan = g->total.hi[k] + g->R[k]; /* if x or y has one */
            at.dx[j] = g->kept[k] == 0 ? 0 : (real)gx;
            if (with_dy)
                at.dy[j] = g->kept[k] == 0 ? 0 : (real)(nan == nan ? gy : nan);
        }
    }
}

static INLINE void soft_gradient_x(const setting *s, stripe at, group *g, const int columns,
                                   const int weighted)
{
    soft_gradient(s, at, g, columns, weighted, 0);
}

static INLINE void soft_gradient_xy(const setting *s, stripe at, group *g, const int columns,
                                    const int weighted)
{
    soft_gradient(s, at, g, columns, weighted, 1);
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

static int64_t place(const table *t, int64_t c, int64_t p)
{
    return (c - t->at.from) * t->at.wide + p;
}

/* Whether the label of row p is in the piece. */
static int has_label(const table *t, const rows *r, int64_t p)
{
    return r->label[p] >= t->at.from && r->label[p] < t->at.to;
}

static void go_to(const setting *s, table *t, int64_t from)
{
    t->at.from = from;
    t->at.to = from + s->width < s->C ? from + s->width : s->C;
}

/* The piece from this class on, unless it is there already. */
static void read_piece(const setting *s, table *t, int64_t from)
{
    if (t->x && t->at.from == from)
        return;
    go_to(s, t, from);
    t->x = load_piece(s, 0, t->at, t->x_tile);
    t->y = s->targets == SOFT ? load_piece(s, 1, t->at, t->y_tile) : t->y_tile;
}

/* No probability may be negative; which one is, is found row by row. */
static void check_piece(const setting *s, const rows *r, int64_t p, const table *t,
                        fl_partial *partial)
{
    real row_tile[TILE];
    if (count_bad(t->y, place(t, t->at.to, 0), FL_NONNEGATIVE) == 0)
        return;
    for (int64_t i = 0; i < t->at.n; i++)
        for (int64_t c = t->at.from, n; c < t->at.to; c += n) {
            int64_t entry = (t->at.first + i) * s->C + c;
            n = t->at.to - c < TILE ? t->at.to - c : TILE;
            check_tile(fl_load(&s->call->operand[1], entry, n, row_tile), n, FL_NONNEGATIVE,
                       &r->sample[p + i], 1, entry, s->C, partial);
        }
}

/* --- rows --- */

/* Labels and sample weights, the divisor's Σ d and the count. */
static void read_units(const setting *s, rows *r, fl_partial *partial)
{
    const fl_call *call = s->call;
    const int64_t first = r->first, n = r->n;
    int64_t label_tile[UNITS], bad = 0;
    double tile[UNITS];
    const int labelled = s->targets != SOFT, unlabelled = !labelled;
    const int64_t *label = labelled ? fl_load_index(&call->operand[1], first, n, label_tile) : 0;
    const double *sample = load_sample_weight(call, first, n, tile, partial);
    for (int64_t p = 0; p < n; p++)
        r->sample[p] = sample ? sample[p] : 1;
    for (int64_t p = 0; p < n; p++) {
        int64_t y = labelled ? label[p] : 0;
        int kept = (r->sample[p] != 0) & (unlabelled | (y != call->ignore_index));
        int inside = unlabelled | ((y >= 0) & (y < s->C));
        bad += kept & (1 - inside);
        kept &= inside;
        r->kept[p] = (real)kept;
        r->label[p] = labelled && kept ? y : -1;
    }
    for (int64_t p = 0; bad > 0 && p < n; p++)
        if (r->sample[p] != 0 && label[p] != call->ignore_index && r->kept[p] == 0) {
            note_bad(partial, first + p, 1, 0);
            break;
        }

    const int weighted = labelled && s->weight;
    for (int64_t p = 0; p < n; p++)
        r->weight[p] = 1;
    for (int64_t p = 0; weighted && p < n; p++)
        if (r->label[p] >= 0)
            r->weight[p] = s->weight[r->label[p]];
    double divisor[UNITS];
    for (int64_t p = 0; p < n; p++) {
        double product = r->sample[p] * r->weight[p];
        divisor[p] = r->kept[p] == 0 ? 0 : product;
    }
    partial->weight = dd_add(partial->weight, sum_doubles(divisor, n));
    for (int64_t p = 0; weighted && s->targets == HARD && p < n; p++)
        r->kept[p] = r->weight[p] == 0 ? 0 : r->kept[p];
    for (int64_t p = 0; p < n; p++)
        partial->count += r->kept[p] != 0;

    const double *upstream = load_upstream(call, first, n, tile);
    for (int64_t p = 0; p < n; p++)
        r->scale[p] = call->scale * r->sample[p] * (upstream ? upstream[p] : 1);
}

static INLINE void spread_lane(lanes *sum, fl_dd all)
{
    for (int k = 0; k < LANES; k++) {
        sum->hi[k] = all.hi;
        sum->lo[k] = all.lo;
    }
}

/* Of LANES columns each one's sum, as hi + lo; of a long row that of all, in each. */
static void join(const setting *s, lanes *sum)
{
    if (s->folded) {
        spread_lane(sum, sum_lanes(sum));
        return;
    }
#if REAL_IS_DOUBLE
    for (int k = 0; k < LANES; k++) {
        double hi = sum->hi[k] + sum->lo[k], lo = sum->lo[k] - (hi - sum->hi[k]);
        int finite = hi - hi == 0; /* inf and NaN have no remainder */
        sum->hi[k] = finite ? hi : sum->hi[k];
        sum->lo[k] = finite ? lo : 0;
    }
#endif
}

/* Halves a tree of LANES numbers: the sum, or the maximum, of all is in each. */
static INLINE void join_reals(real *v, const int maximum)
{
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            real a = v[k], b = v[k + half];
            v[k] = !maximum ? a + b : a < b ? b : a;
        }
    for (int k = 1; k < LANES; k++)
        v[k] = v[0];
}

/* R, from which one maximum stays out; 0 without classes. An infinite maximum leaves nothing that
 * has a value. */
static void join_rest(const setting *s, group *g)
{
    join(s, &g->rest);
    if (s->folded)
        join_reals(g->ones, 0);
    for (int k = 0; k < LANES; k++) {
        double R = g->rest.hi[k] + ((double)g->ones[k] - 1);
        g->R[k] = s->C == 0 ? 0 : g->max[k] - g->max[k] == 0 ? R : (double)REAL_NAN;
    }
}

static INLINE void clear(const setting *s, group *g)
{
    for (int k = 0; k < LANES; k++) {
        g->max[k] = -REAL_INFINITY;
        g->ones[k] = 0;
    }
    spread_lane(&g->rest, (fl_dd){0, 0});
    if (s->targets != HARD) {
        spread_lane(&g->total, (fl_dd){0, 0});
        spread_lane(&g->spread, (fl_dd){0, 0});
    }
}

/* What n columns say of rows p and those after it. */
static void keep_group(const setting *s, rows *r, int64_t p, const group *g, int n)
{
    for (int k = 0; k < n; k++) {
        r->max[p + k] = g->max[k];
        r->rest[p + k] = g->R[k];
    }
    for (int k = 0; s->targets != HARD && k < n; k++) {
        r->total[p + k] = (fl_dd){g->total.hi[k], g->total.lo[k]};
        r->spread[p + k] = g->spread.hi[k];
    }
}

/* m, R, x_y, and unless HARD Q and Σ q a, of the rows of a table: p and those after it. */
static void read_rows(const setting *s, rows *r, int64_t p, group *groups, table *t,
                      fl_partial *partial)
{
    const int n = s->folded ? 1 : (int)(t->at.wide / LANES);
    for (int i = 0; i < n; i++)
        clear(s, &groups[i]);
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        read_piece(s, t, from);
        if (s->targets == SOFT)
            check_piece(s, r, p, t, partial);
        each_stripe_of(s, t, groups, max_columns, 0);
        for (int64_t i = 0; i < t->at.n; i++)
            if (has_label(t, r, p + i))
                r->target[p + i] = t->x[place(t, r->label[p + i], i)];
    }
    if (s->folded)
        join_reals(groups->max, 1);
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        read_piece(s, t, from);
        each_stripe_of(s, t, groups, exp_columns, 0);
        if (s->targets == SMOOTHED)
            each_stripe(s, t, groups, smooth_columns);
        if (s->targets == SOFT)
            each_stripe(s, t, groups, soft_columns);
    }
    for (int i = 0; i < n; i++) {
        join_rest(s, &groups[i]);
        if (s->targets != HARD) {
            join(s, &groups[i].total);
            join(s, &groups[i].spread);
        }
        for (int k = 0; s->targets == SMOOTHED && !s->weight && k < LANES; k++)
            groups[i].total.hi[k] = (double)s->C;
    }
    for (int64_t i = 0; i < t->at.n; i += LANES)
        keep_group(s, r, p + i, &groups[i / LANES],
                   t->at.n - i < LANES ? (int)(t->at.n - i) : LANES);
}

/* The unreduced losses of all rows, weighed. */
static void cross_entropy_values(const setting *s, const rows *r, real *l)
{
    real L[UNITS];
    for (int64_t p = 0; p < r->n; p++)
        L[p] = LOG1P((real)r->rest[p]);
    for (int64_t p = 0; p < r->n; p++) {
        double w = r->weight[p], a = (double)r->max[p] - (double)r->target[p];
        double value = w * (a + (double)L[p]);
        if (s->targets == SMOOTHED)
            value = (s->keep * w == 0 ? 0 : s->keep * value) +
                    s->each * (r->spread[p] + r->total[p].hi * (double)L[p]);
        if (s->targets == SOFT)
            value = r->spread[p] + r->total[p].hi * (double)L[p];
        l[p] = r->kept[p] == 0 ? 0 : (real)(r->sample[p] * value);
    }
}

/* What the columns need for their gradients, and of labels dl/dx_y. */
static void start_gradient(const setting *s, rows *r, int64_t p, int64_t n, group *groups)
{
    real e_y[UNITS];
    for (int64_t i = 0; i < n; i++)
        e_y[i] = EXP_NEGATIVE(r->target[p + i] - r->max[p + i]);
    for (int64_t i = 0; i < n; i++) {
        const int64_t u = p + i, k = i % LANES;
        const double slope = r->scale[u] / (1 + r->rest[u]), w = r->weight[u];
        const fl_dd total = r->total[u];
        group *g = &groups[i / LANES];
        g->kept[k] = r->kept[u];
        g->scale[k] = r->scale[u];
        g->slope[k] = s->targets == HARD ? slope * w : slope;
        g->label_q[k] = s->keep * w;
        const double q = s->targets == HARD ? w : (s->keep + s->each) * w;
        const double other_q = s->targets == HARD ? 0 : s->each * ((total.hi - w) + total.lo);
        double dx_y = class_slope(slope, (double)e_y[i], r->rest[u], q, other_q);
        r->dx_y[u] = r->kept[u] == 0 ? 0 : (real)dx_y;
    }
    for (int k = 1; s->folded && k < LANES; k++) {
        groups->kept[k] = groups->kept[0];
        groups->scale[k] = groups->scale[0];
        groups->slope[k] = groups->slope[0];
        groups->label_q[k] = groups->label_q[0];
    }
}

static void write_gradients(const setting *s, const rows *r, int64_t p, group *groups, table *t)
{
    const int want_x = s->call->products & FL_GRAD, want_y = s->call->products & FL_GRAD << 1;
    for (int i = 0; want_y && i < (s->folded ? 1 : t->at.wide / LANES); i++)
        for (int k = 0; k < LANES; k++)
            groups[i].log1p[k] = LOG1P((real)groups[i].R[k]);
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        read_piece(s, t, from);
        if (s->width < s->C)
            each_stripe_of(s, t, groups, exp_columns, 0);
        t->dx = want_x ? piece_target(s, 0, t->at, t->e) : t->e;
        t->dy = want_y ? piece_target(s, 1, t->at, t->y_tile) : t->y_tile;
        if (want_y)
            each_stripe(s, t, groups, soft_gradient_xy);
        else if (s->targets == SOFT)
            each_stripe(s, t, groups, soft_gradient_x);
        else if (s->targets == SMOOTHED)
            each_stripe(s, t, groups, smooth_gradient);
        else
            each_stripe_of(s, t, groups, hard_gradient, 0);
        for (int64_t i = 0; i < t->at.n; i++)
            if (has_label(t, r, p + i))
                t->dx[place(t, r->label[p + i], i)] = r->dx_y[p + i];
        if (want_x)
            store_piece(s, 0, t->at, t->dx);
        if (want_y)
            store_piece(s, 1, t->at, t->dy);
    }
}

static void check_table(const setting *s, const rows *r, int64_t p, table *t, fl_partial *partial)
{
    for (int64_t from = 0; from < s->C; from = t->at.to) {
        go_to(s, t, from);
        t->y = load_piece(s, 1, t->at, t->y_tile);
        check_piece(s, r, p, t, partial);
    }
}

static void cross_entropy(const setting *s, fl_phase phase, rows *r, real *l, fl_partial *partial)
{
    const int gradients = (s->call->products & (FL_GRAD | FL_GRAD << 1)) != 0;
    group groups[GROUPS];
    table t;
    for (int64_t p = 0; p < r->n; p += t.at.n) {
        int64_t n = r->n - p < s->units ? r->n - p : s->units;
        t.at = (fl_columns){
            .first = r->first + p, .n = n, .wide = s->folded ? 1 : (n + LANES - 1) / LANES * LANES};
        t.x = 0;
        t.dx = t.e; /* until there is a gradient to write */
        t.dy = t.y_tile;
        if (phase == FL_PREPARE) {
            check_table(s, r, p, &t, partial);
            continue;
        }
        read_rows(s, r, p, groups, &t, partial);
        if (gradients) {
            start_gradient(s, r, p, n, groups);
            write_gradients(s, r, p, groups, &t);
        }
    }
    if (phase != FL_PREPARE)
        cross_entropy_values(s, r, l);
}

/* --- nll --- */

static void nll(const setting *s, rows *r, real *l)
{
    const fl_call *call = s->call;
    for (int64_t p = 0; p < r->n; p++)
        r->target[p] = 0;
    fl_pick(&call->operand[0], s->C, r->first, r->n, r->label, r->target);
    for (int64_t p = 0; p < r->n; p++) {
        double value = -r->weight[p] * (double)r->target[p], slope = -r->scale[p] * r->weight[p];
        l[p] = r->kept[p] == 0 ? 0 : (real)(r->sample[p] * value);
        r->dx_y[p] = r->kept[p] == 0                ? 0
                     : r->target[p] == r->target[p] ? (real)slope
                                                    : r->target[p];
    }
    if (!(call->products & FL_GRAD))
        return;
    fl_clear_rows(&call->grad[0], s->C, r->first, r->n);
    fl_put(&call->grad[0], s->C, r->first, r->n, r->label, r->dx_y);
}

/* --- the kernel --- */

static void run_units(const setting *s, fl_phase phase, rows *r, fl_partial *partial)
{
    const fl_call *call = s->call;
    real value_tile[UNITS];
    read_units(s, r, partial);
    if (phase == FL_PREPARE && s->targets != SOFT)
        return;
    real *l = fl_target(&call->values, r->first, r->n, value_tile);
    if (call->formula == FL_FORMULA_nll)
        nll(s, r, l);
    else
        cross_entropy(s, phase, r, l, partial);
    if (phase != FL_PREPARE && call->products & (FL_SUM | FL_VALUES)) {
        partial->sum = dd_add(partial->sum, sum_tile(l, r->n));
        fl_store(&call->values, r->first, r->n, l);
    }
}

static targets targets_of(const fl_call *call)
{
    if (call->formula == FL_FORMULA_cross_entropy_probabilities)
        return SOFT;
    return call->formula == FL_FORMULA_cross_entropy && call->params[0] > 0 ? SMOOTHED : HARD;
}

void SUFFIXED(fl_classes)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                          fl_partial *partial)
{
    const int64_t C = call->unit_size;
    const double smoothing = call->formula == FL_FORMULA_nll ? 0 : call->params[0];
    setting s = {.call = call,
                 .C = C,
                 .weight = call->by_class,
                 .keep = 1 - smoothing,
                 .each = smoothing / (double)C,
                 .targets = targets_of(call),
                 .folded = C > SHORT && call->inner < LANES};
    s.units = C > 0 ? TABLE / C / LANES * LANES : UNITS;
    if (s.units < LANES || s.units > UNITS)
        s.units = UNITS; /* few classes, or so many that they go in pieces */
    s.width = TABLE / s.units;
    if (s.folded) {
        s.units = 1;
        s.width = TILE;
    }
    const int64_t together = UNITS / s.units * s.units;
    rows r;
    for (; first < last; first += r.n) {
        r.first = first;
        r.n = last - first < together ? last - first : together;
        run_units(&s, phase, &r, partial);
    }
}
