/* The columns of a table: what is computed of rows of classes, over full vectors of rows.
 *
 * A table holds class c of the p-th of its rows at [(c - from) * wide + p]. A long row is a table
 * by itself, laid in lines of LANES columns ("folded"), which are joined at the end. */
#ifndef FASTLOSS_COLUMNS_H
#define FASTLOSS_COLUMNS_H

#include "vector/vector_math_tmpl.h"
#include "vector/loader.h"
#include "vector/vector_math.h"
#include "vector/lanes.h"

enum { SHORT = 256, UNITS = FL_ROW_BATCH, GROUPS = UNITS / LANES };

/* Rows of up to so many classes, which the second cache holds twice, keep their exp(-a) for the
 * gradient; longer ones compute them again. */
enum { KEEP = (1 << 19) / sizeof(real) };

/* Which probabilities q a row is compared with. */
typedef enum { HARD, SMOOTHED, SOFT } targets;

/* What is the same for all rows of a block. */
typedef struct {
    const fl_call *call;
    int64_t C;
    const double *weight; /* unless HARD, w (C), or NULL for ones */
    double keep, each;    /* 1 - ε, ε/C */
    targets targets;
    int folded;    /* a table is one long row */
    int64_t units; /* rows of a table */
    int64_t width; /* classes of a piece that is read */
    int64_t part;  /* classes of a part */
    int keeps;     /* pieces of a long row are kept for its gradient */
} setting;

/* LANES columns of a table. Those of a long row all say the same once they are joined. */
typedef struct {
    real max[LANES];  /* m of what has been added up */
    real top[LANES];  /* m of what has been looked at */
    real ones[LANES]; /* entries whose exp(-a) is 1 */
    lane_sum rest;    /* exp(-a) of the others */
    double R[LANES];
    lane_sum total;  /* Q; SMOOTHED: Σ w_c */
    lane_sum spread; /* Σ q_c a_c; SMOOTHED: Σ w_c a_c */
    real log1p[LANES];
    real kept[LANES];
    double scale[LANES];
    double slope[LANES];   /* scale/S; HARD: times w_y */
    double label_q[LANES]; /* SMOOTHED: (1 - ε) w_y */
} group;

/* A piece of the rows: class c of the p-th stands at [(c - at.from) * at.ld + p]. */
typedef struct {
    fl_tile2d at;
    const real *x, *y;
    fl_prefetch x_ahead, y_ahead;
    int is_read; /* x and y are those of `at` */
    real *dx, *dy;
    real *e;     /* exp(-a), times ... */
    double lift; /* ... this */
    real *kept;  /* NULL, or where the pieces of a part are kept, those of its first class first */
    real x_tile[TILE_2D], y_tile[TILE_2D], e_tile[TILE_2D];
} table;

/* A kept piece: the maximum it is under, then exp(-a). */
enum { KEPT_MAX = LANES, KEPT_PIECE = KEPT_MAX + TILE_2D };

/* --- columns of a table ---
 *
 * A stripe is LANES columns, or fewer where a long row ends: line i is at i * step. */
typedef struct {
    const real *x, *y;
    const char *x_ahead, *y_ahead; /* what is read after the table ... */
    int64_t x_line, y_line;        /* ... by line */
    real *e, *dx, *dy;
    const double *w; /* of the first line; NULL for ones */
    double lift;
    int64_t step, lines;
} stripe;

typedef void columns_fn(const setting *s, stripe at, group *g, const int columns,
                        const int weighted);

static INLINE stripe stripe_of(const setting *s, const table *t, int64_t start, int64_t step,
                               int64_t lines)
{
    return (stripe){.x = t->x + start,
                    .y = t->y + start,
                    .x_ahead = t->x_ahead.at + start * t->x_ahead.row,
                    .y_ahead = t->y_ahead.at + start * t->y_ahead.row,
                    .x_line = t->x_ahead.line,
                    .y_line = t->y_ahead.line,
                    .e = t->e + start,
                    .dx = t->dx + start,
                    .dy = t->dy + start,
                    .lift = t->lift,
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
    for (int64_t start = 0; start < t->at.ld; start += LANES)
        f(s, stripe_of(s, t, start, t->at.ld, classes), &groups[start / LANES], LANES, weighted);
}

/* Weights of 1 cost nothing where f asks for them. */
static INLINE void each_stripe(const setting *s, table *t, group *groups, columns_fn f)
{
    if (s->weight)
        each_stripe_of(s, t, groups, f, 1);
    else
        each_stripe_of(s, t, groups, f, 0);
}

/* The largest entries, in two chains; a NaN does not matter here, it reappears in R. */
static INLINE void max_columns(const setting *s, stripe at, group *g, const int columns,
                               const int weighted)
{
    real m[LANES], odd[LANES];
    int64_t i = 0;
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        m[k] = odd[k] = g->top[k];
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
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        g->top[k] = m[k] < odd[k] ? odd[k] : m[k];
}

/* What a and its like are taken from: m, but where it is infinite 0, so that none is inf - inf. */
static INLINE real reference(real m) { return m - m == 0 ? m : 0; }

static INLINE void exp_line(const real *x, real *e, const real *m)
{
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        e[k] = EXP_NEGATIVE(x[k] - m[k]);
}

/* exp(-a), which is 1 for a maximum. The end of a long row is filled with what adds nothing. */
static INLINE void exp_columns(const setting *s, stripe at, group *g, const int columns,
                               const int weighted)
{
    real m[LANES], last[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        m[k] = reference(g->max[k]);
        last[k] = -REAL_INFINITY;
    }
    for (int k = 0; columns < LANES && k < columns; k++)
        last[k] = at.x[k];
    if (columns < LANES)
        exp_line(last, at.e, m);
    for (int64_t i = 0; columns == LANES && i < at.lines; i++) {
        __builtin_prefetch(at.x_ahead + i * at.x_line);
        exp_line(at.x + i * at.step, at.e + i * at.step, m);
    }
}

/* The sums of exp(-a), the ones counted apart. In a loop of its own: with exp() it would have more
 * instructions than a processor looks ahead. */
static INLINE void add_exp(const setting *s, stripe at, group *g, const int columns,
                           const int weighted)
{
    lane_sum rest;
    copy_lane_sum(&rest, &g->rest);
    real ones[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        ones[k] = g->ones[k];
    for (int64_t i = 0; i < at.lines; i++)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            real e = at.e[i * at.step + k], one = e == 1 ? REAL_C(1.0) : REAL_C(0.0);
            ones[k] += one;
            add_to_lane(&rest, k, (double)(e - one));
        }
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        g->ones[k] = ones[k];
    copy_lane_sum(&g->rest, &rest);
}

/* w of the classes of line i. */
static INLINE void line_weights(const setting *s, stripe at, int64_t i, double *w,
                                const int columns, const int weighted)
{
#pragma omp simd
    for (int k = 0; k < columns; k++)
        w[k] = !weighted ? 1 : s->folded ? at.w[i * LANES + k] : at.w[i];
}

/* SOFT: Q and Σ q a; a q of 0 removes its class, one that underflows does not. SMOOTHED: Σ w_c and
 * Σ w_c a_c. */
static INLINE void add_shares(const setting *s, stripe at, group *g, const int columns,
                              const int weighted, const int soft)
{
    lane_sum total, spread;
    copy_lane_sum(&total, &g->total);
    copy_lane_sum(&spread, &g->spread);
    for (int k = 0; !weighted && !soft && k < columns; k++)
        add_to_lane(&total, k, (double)at.lines);
    for (int64_t i = 0; i < at.lines; i++) {
        double w[LANES];
        line_weights(s, at, i, w, columns, weighted);
        if (soft)
            __builtin_prefetch(at.y_ahead + i * at.y_line);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            double p = soft ? s->keep * (double)at.y[i * at.step + k] + s->each : 1;
            double a = (double)reference(g->max[k]) - (double)at.x[i * at.step + k];
            double pa = !soft ? a : p == 0 ? 0 : p * a;
            if (weighted)
                pa = w[k] == 0 ? 0 : w[k] * pa;
            if (weighted || soft)
                add_to_lane(&total, k, weighted ? w[k] * p : p);
            add_to_lane(&spread, k, pa);
        }
    }
    copy_lane_sum(&g->total, &total);
    copy_lane_sum(&g->spread, &spread);
}

static INLINE void smooth_columns(const setting *s, stripe at, group *g, const int columns,
                                  const int weighted)
{
    add_shares(s, at, g, columns, weighted, 0);
}

static INLINE void soft_columns(const setting *s, stripe at, group *g, const int columns,
                                const int weighted)
{
    add_shares(s, at, g, columns, weighted, 1);
}

/* Puts the sums under maxima that are no lower. */
static void raise_to(group *g, const real *max, const int sums)
{
    double factor[LANES], change[LANES];
    int same = 1;
#pragma omp simd reduction(& : same)
    for (int k = 0; k < LANES; k++)
        same &= g->max[k] == max[k];
    if (same)
        return;
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        double lower = (double)g->max[k] - (double)max[k];
        factor[k] = g->max[k] == max[k] ? 0 : lower;
        change[k] = (double)reference(max[k]) - (double)reference(g->max[k]);
    }
    vector_math_double(MATH_EXP, LANES, factor, factor);
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        const int is_same = g->max[k] == max[k];
        add_to_lane(&g->rest, k, is_same ? 0 : (double)g->ones[k]);
        g->rest.hi[k] *= factor[k];
        g->rest.lo[k] *= factor[k];
        g->ones[k] = is_same ? g->ones[k] : 0;
        g->max[k] = max[k];
    }
    if (!sums)
        return;
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        double total = g->total.hi[k];
        add_to_lane(&g->spread, k, total == 0 ? 0 : change[k] * total);
    }
}

/* dl/dx where no class but the label has a q; the label's own comes later. */
static INLINE void hard_gradient(const setting *s, stripe at, group *g, const int columns,
                                 const int weighted)
{
    real slope[LANES];
#pragma omp simd
    for (int k = 0; k < columns; k++)
        slope[k] = (real)(g->slope[k] * at.lift);
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
            double gx = class_slope(g->slope[k], (double)at.e[i * at.step + k] * at.lift, g->R[k],
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
            double e = (double)at.e[j] * at.lift;
            double gx = class_slope(g->slope[k], e, g->R[k], q, other_q);
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

/* --- sums of columns --- */

static INLINE void spread_lane(lane_sum *sum, fl_dd all)
{
    for (int k = 0; k < LANES; k++) {
        sum->hi[k] = all.hi;
        sum->lo[k] = all.lo;
    }
}

/* Each column's sum as hi + lo. */
static INLINE void normalise(lane_sum *sum)
{
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

static INLINE void clear(const setting *s, group *g)
{
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        g->max[k] = g->top[k] = -REAL_INFINITY;
        g->ones[k] = 0;
    }
    spread_lane(&g->rest, (fl_dd){0, 0});
    if (s->targets != HARD) {
        spread_lane(&g->total, (fl_dd){0, 0});
        spread_lane(&g->spread, (fl_dd){0, 0});
    }
}

/* Of a long row the sums of all columns, in each. */
static void join_columns(const setting *s, group *g)
{
    spread_lane(&g->rest, reduce_lanes(&g->rest));
    join_reals(g->ones, 0);
    if (s->targets != HARD) {
        spread_lane(&g->total, reduce_lanes(&g->total));
        spread_lane(&g->spread, reduce_lanes(&g->spread));
    }
}

static INLINE void add_lane_sum(lane_sum *sum, const lane_sum *more)
{
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        add_to_lane(sum, k, more->hi[k]);
        sum->lo[k] += more->lo[k];
    }
}

/* Adds a part of the row. */
static void add_part(const setting *s, group *g, group part)
{
    real max[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        max[k] = g->max[k] < part.max[k] ? part.max[k] : g->max[k];
    raise_to(g, max, s->targets != HARD);
    raise_to(&part, max, s->targets != HARD);
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        g->ones[k] += part.ones[k];
    add_lane_sum(&g->rest, &part.rest);
    if (s->targets != HARD) {
        add_lane_sum(&g->total, &part.total);
        add_lane_sum(&g->spread, &part.spread);
    }
}

static int groups_of(const setting *s, const table *t)
{
    return s->folded ? 1 : (int)(t->at.ld / LANES);
}

static real *kept_piece(real *kept, int64_t from) { return kept + from / TILE_2D * KEPT_PIECE; }

#endif
