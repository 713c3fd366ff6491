/* Distances between rows of features, once per (instruction set, real).
 *
 * A unit is a row in each of two or three arrays. All is computed in double, where squares of
 * floats neither over- nor underflow; rows of doubles whose squares would are divided by a power of
 * two.
 *
 * cosine_embedding, ε = 1e-12 (as a float, like torch):
 *     n_i = Σ x_i² + ε,  c = x_1·x_2 / (√n_1 √n_2),
 *     l = 1 - c where y = 1, max(0, c - margin) where y = -1,
 *     dc/dx_1 = x_2 / (√n_1 √n_2) - c x_1 / n_1, dc/dx_2 likewise.
 *
 * triplet_margin, anchor a, positive p, negative n:
 *     δ(u, v) = ‖e‖_p with e = u - v + ε,
 *     l = max(0, margin + δ(a, p) - δ_n), δ_n = δ(a, n), with swap min(δ(a, n), δ(p, n)),
 *     dδ/du = -dδ/dv = sign(e) (|e| / δ)^(p-1), 0 where e = 0; at p = inf the largest |e| share 1.
 *
 * Hinges are active at 0; equal distances share the gradient of their minimum. */
#include "vector/loader.h"
#include "vector/row_span.h"
#include "vector/lanes.h"
#include "vector/domain_check.h"
#include "vector/unit_outputs.h"

#include <math.h>
#include <string.h>

static const double COSINE_EPSILON = 1e-12f;

/* Sums of squares between these are safe: no large term overflowed, none underflowed that matters,
 * and their roots are far from subnormal. */
static const double LARGE = 0x1p600, SMALL = 0x1p-600;

/* A unit of small vectors that ε can be divided by twice. */
static const double SMALL_COSINE = 0x1p-500;

/* Below this p sums of powers of numbers below 2 have room in a double. */
static const double LARGE_P = 512;

/* How many bytes ahead of their use entries are asked for. */
enum { AHEAD = 4096 };

/* What is the same for all rows of a block. */
typedef struct {
    const fl_call *call;
    int cosine, swap, operands, norms;
    double margin, p, epsilon;
} setting;

/* A distance, or the length of a vector. */
typedef struct {
    double unit;          /* what entries are divided by */
    fl_dd sum;            /* Σ |e/unit|^p */
    double max, ties;     /* max |e|, and how many entries have it */
    double size;          /* ‖e‖ */
    double scale, factor; /* e scale factor is e/‖e‖ at p = 2; other p have a factor alone, */
    double tiny_factor;   /* and one for entries far below the unit */
    double weight;        /* what the minimum leaves of the gradient: 1, 1/2 or 0 */
} norm;

enum { AP, AN, PN, NORMS };

/* What is known of a row. */
typedef struct {
    double loss;
    double active;    /* dl/dc or dl/dδ(a, p): 1, -1, 0 beyond the hinge, NaN if the loss is */
    norm norm[NORMS]; /* √n_1, √n_2; or δ(a, p), δ(a, n), δ(p, n) */
    fl_dd dot;        /* x_1·x_2, each divided by its unit */
    double cosine;    /* c */
} row;

static void load_operands(const setting *s, row_span at, real (*tile)[TILE], const real **x)
{
    for (int k = 0; k < s->operands; k++)
        x[k] =
            fl_load(&s->call->operand[k], first_element(s->call, at), element_count(at), tile[k]);
}

/* --- sums along a row --- */

/* Asks for the line of the rows to come: processors do not see streams that take turns by short
 * rows. */
static INLINE void prefetch(const real *x) { __builtin_prefetch((const char *)x + AHEAD); }

/* Floats leave lo alone. */
static INLINE void start_lanes(lane_sum *sum)
{
    for (int k = 0; k < LANES; k++) {
        sum->hi[k] = 0;
        if (REAL_IS_DOUBLE)
            sum->lo[k] = 0;
    }
}

/* The sum of n terms, which went to one lane where they are few. As reduce_lanes() but by halves:
 * rows are many and short. */
static INLINE fl_dd fold_lanes(lane_sum *sum, int64_t n)
{
    if (n >= LANES)
#pragma GCC unroll 4
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int k = 0; k < half; k++) {
                add_to_lane(sum, k, sum->hi[k + half]);
                if (REAL_IS_DOUBLE)
                    sum->lo[k] += sum->lo[k + half];
            }
    return (fl_dd){sum->hi[0], REAL_IS_DOUBLE ? sum->lo[0] : 0};
}

/* Adds the sum of a row_span of a row; the first one starts the total. */
static INLINE void add_piece(fl_dd *total, int64_t from, fl_dd sum)
{
    if (sum.lo - sum.lo != 0) /* inf and NaN have no remainder */
        sum.lo = 0;
    *total = from == 0 ? sum : dd_add(*total, sum);
}

static INLINE double difference(real u, real v, double epsilon)
{
    return (double)u - (double)v + epsilon;
}

/* e times a power of two; floats need none. */
static INLINE double scaled(double e, double scale) { return REAL_IS_DOUBLE ? e * scale : e; }

typedef void (*term)(lane_sum *sum, int k, double e, double unit, double p);

static INLINE void absolute(lane_sum *sum, int k, double e, double unit, double p)
{
    add_to_lane(sum, k, fabs(e));
}

static INLINE void square(lane_sum *sum, int k, double e, double unit, double p)
{
    e = scaled(e, 1 / unit);
    add_product_to_lane(sum, k, e, e);
}

static INLINE void power(lane_sum *sum, int k, double e, double unit, double p)
{
    add_to_lane(sum, k, pow(fabs(e) / unit, p));
}

/* Σ f(e), e = u - v + ε */
static INLINE fl_dd sum_terms(term f, const real *u, const real *v, int64_t n, double epsilon,
                              double unit, double p)
{
    lane_sum sum = {{0}, {0}};
    int64_t i = 0;
    if (n < LANES) {
        for (; i < n; i++)
            f(&sum, 0, difference(u[i], v[i], epsilon), unit, p);
    } else {
        for (; i + LANES <= n; i += LANES) {
            prefetch(u + i);
            prefetch(v + i);
#pragma omp simd
            for (int k = 0; k < LANES; k++)
                f(&sum, k, difference(u[i + k], v[i + k], epsilon), unit, p);
        }
        for (int k = 0; i + k < n; k++)
            f(&sum, k, difference(u[i + k], v[i + k], epsilon), unit, p);
    }
    return fold_lanes(&sum, n);
}

/* Adds `count` entries of magnitude e to the largest and their number; a NaN stays the largest. */
static INLINE void join_max(double *max, double *ties, double e, double count)
{
    int beyond = (e > *max) | (e != e);
    *ties = beyond ? count : *ties + (e == *max ? count : 0);
    *max = beyond ? e : *max;
}

static void find_max(norm *d, const real *u, const real *v, int64_t n, double epsilon)
{
    double max[LANES] = {0}, ties[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++)
            join_max(&max[k], &ties[k], fabs(difference(u[i + k], v[i + k], epsilon)), 1);
    for (int k = 0; i > 0 && k < LANES; k++)
        join_max(&d->max, &d->ties, max[k], ties[k]);
    for (; i < n; i++)
        join_max(&d->max, &d->ties, fabs(difference(u[i], v[i], epsilon)), 1);
}

/* Whether the sum is to be taken again in another unit, as its squares over- or underflowed. */
static int change_unit(norm *d, double small)
{
    double sum = d->sum.hi;
    d->unit = sum > LARGE ? LARGE : sum < SMALL ? small : 1;
    return d->unit != 1;
}

/* ‖e‖, and its inverse in two factors where it might not be a normal number. */
static void set_size(norm *d, double root)
{
    d->size = d->unit * root;
    int plain = d->size > 0x1p-1000 && d->size < 0x1p1000;
    d->scale = plain ? 1 : 1 / d->unit;
    d->factor = root == 0 ? 0 : 1 / (plain ? d->size : root);
}

/* --- cosine --- */

/* Σ x², Σ y², Σ x y */
typedef struct {
    lane_sum xx, yy, xy;
} products;

static INLINE void add_products(products *sum, int k, double x, double y)
{
    add_product_to_lane(&sum->xx, k, x, x);
    add_product_to_lane(&sum->yy, k, y, y);
    add_product_to_lane(&sum->xy, k, x, y);
}

static void sum_products(row *r, int64_t from, const real *x, const real *y, int64_t n)
{
    const double x_scale = 1 / r->norm[0].unit, y_scale = 1 / r->norm[1].unit;
    products sum;
    start_lanes(&sum.xx);
    start_lanes(&sum.yy);
    start_lanes(&sum.xy);
    int64_t i = 0;
    if (n < LANES) {
        for (; i < n; i++)
            add_products(&sum, 0, scaled((double)x[i], x_scale), scaled((double)y[i], y_scale));
    } else {
        for (; i + LANES <= n; i += LANES) {
            prefetch(x + i);
            prefetch(y + i);
#pragma omp simd
            for (int k = 0; k < LANES; k++)
                add_products(&sum, k, scaled((double)x[i + k], x_scale),
                             scaled((double)y[i + k], y_scale));
        }
        for (int k = 0; i + k < n; k++)
            add_products(&sum, k, scaled((double)x[i + k], x_scale),
                         scaled((double)y[i + k], y_scale));
    }
    add_piece(&r->norm[0].sum, from, fold_lanes(&sum.xx, n));
    add_piece(&r->norm[1].sum, from, fold_lanes(&sum.yy, n));
    add_piece(&r->dot, from, fold_lanes(&sum.xy, n));
}

static void visit_cosine(const setting *s, row_span at, row *rows, real (*tile)[TILE])
{
    const real *x[FL_OPERANDS];
    for (at.to = 0; next_span(s->call, &at);) {
        load_operands(s, at, tile, x);
        int64_t n = at.to - at.from;
        for (int64_t i = 0; i < at.n; i++)
            sum_products(&rows[i], at.from, x[0] + i * n, x[1] + i * n, n);
    }
}

static void measure_cosine(const setting *s, row_span at, row *rows, real (*tile)[TILE])
{
    visit_cosine(s, at, rows, tile);
    for (int64_t i = 0; REAL_IS_DOUBLE && i < at.n; i++) {
        int x = change_unit(&rows[i].norm[0], SMALL_COSINE);
        int y = change_unit(&rows[i].norm[1], SMALL_COSINE);
        if (x || y)
            visit_cosine(s, (row_span){.first = at.first + i, .n = 1}, &rows[i], tile);
    }
}

static double epsilon_in(double unit)
{
    return REAL_IS_DOUBLE ? COSINE_EPSILON / unit / unit : COSINE_EPSILON;
}

static void finish_cosine(const setting *s, row *r, double y)
{
    norm *a = &r->norm[0], *b = &r->norm[1];
    double a_root = sqrt(a->sum.hi + a->sum.lo + epsilon_in(a->unit));
    double b_root = sqrt(b->sum.hi + b->sum.lo + epsilon_in(b->unit));
    double c = (r->dot.hi + r->dot.lo) / (a_root * b_root);
    c = c > 1 ? 1 : c < -1 ? -1 : c;
    set_size(a, a_root);
    set_size(b, b_root);
    double gap = c - s->margin;
    r->cosine = c;
    r->loss = y == 1 ? 1 - c : gap < 0 ? 0 : gap;
    r->active = y == 1 ? -1 : gap < 0 ? 0 : 1;
    if (c != c || y != y)
        r->loss = r->active = NAN;
}

/* With u = x_1/√n_1 and v = x_2/√n_2 the derivatives of c are (v - c u)/√n_1 and (u - c v)/√n_2. */
static void cosine_gradient(const row *r, double k, int64_t n, const real *x, const real *y,
                            real *gx, real *gy)
{
    const double c = r->cosine, x_scale = r->norm[0].scale, y_scale = r->norm[1].scale;
    const double x_factor = r->norm[0].factor, y_factor = r->norm[1].factor;
    const double kx = k * (x_scale * x_factor), ky = k * (y_scale * y_factor);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double u = scaled((double)x[i], x_scale) * x_factor;
        double v = scaled((double)y[i], y_scale) * y_factor;
        gx[i] = (real)(kx * (v - c * u));
        gy[i] = (real)(ky * (u - c * v));
    }
}

/* --- triplet --- */

/* One pass over the differences: their maximum, or the sum of their powers. */
static void measure_norm(const setting *s, int max, norm *d, int64_t from, const real *u,
                         const real *v, int64_t n)
{
    if (max)
        find_max(d, u, v, n, s->epsilon);
    else if (s->p == 1)
        add_piece(&d->sum, from, sum_terms(absolute, u, v, n, s->epsilon, 1, 1));
    else if (s->p == 2)
        add_piece(&d->sum, from, sum_terms(square, u, v, n, s->epsilon, d->unit, 2));
    else
        add_piece(&d->sum, from, sum_terms(power, u, v, n, s->epsilon, d->unit, s->p));
}

static void visit_triplet(const setting *s, int max, row_span at, row *rows, real (*tile)[TILE])
{
    const real *x[FL_OPERANDS];
    for (at.to = 0; next_span(s->call, &at);) {
        load_operands(s, at, tile, x);
        int64_t n = at.to - at.from;
        for (int64_t i = 0; i < at.n; i++) {
            const real *a = x[0] + i * n, *p = x[1] + i * n, *neg = x[2] + i * n;
            measure_norm(s, max, &rows[i].norm[AP], at.from, a, p, n);
            measure_norm(s, max, &rows[i].norm[AN], at.from, a, neg, n);
            if (s->swap)
                measure_norm(s, max, &rows[i].norm[PN], at.from, p, neg, n);
        }
    }
}

/* The unit of powers, by the largest entry. Roots need none; a power of two divides exactly; only
 * powers far beyond need all entries to be 1 at most. */
static double unit_of_powers(double max, double p)
{
    int exponent;
    if (p < 1 || max == 0 || max - max != 0)
        return 1;
    frexp(max, &exponent);
    return p < LARGE_P ? ldexp(1, exponent - 1) : max;
}

static void measure_triplet(const setting *s, row_span at, row *rows, real (*tile)[TILE])
{
    const int powers = s->p != 1 && s->p != 2;
    visit_triplet(s, powers, at, rows, tile);
    if (powers && s->p != INFINITY) {
        for (int64_t i = 0; i < at.n; i++)
            for (int k = 0; k < s->norms; k++)
                rows[i].norm[k].unit = unit_of_powers(rows[i].norm[k].max, s->p);
        visit_triplet(s, 0, at, rows, tile);
    }
    for (int64_t i = 0; REAL_IS_DOUBLE && s->p == 2 && i < at.n; i++) {
        int changed = 0;
        for (int k = 0; k < s->norms; k++)
            changed |= change_unit(&rows[i].norm[k], SMALL);
        if (changed)
            visit_triplet(s, 0, (row_span){.first = at.first + i, .n = 1}, &rows[i], tile);
    }
}

static void finish_norm(const setting *s, norm *d)
{
    double sum = d->sum.hi + d->sum.lo;
    if (s->p == 1) {
        d->size = sum;
    } else if (s->p == 2) {
        set_size(d, sqrt(sum));
    } else if (s->p == INFINITY) {
        d->size = d->max;
        d->factor = 1 / d->ties;
    } else {
        double root = pow(sum, 1 / s->p);
        d->size = d->unit * root;
        d->factor = sum == INFINITY ? 0 : root / sum; /* (unit / size)^(p-1) */
        d->tiny_factor = d->factor * pow(d->unit, 1 - s->p);
    }
}

static void finish_triplet(const setting *s, row *r)
{
    for (int k = 0; k < s->norms; k++)
        finish_norm(s, &r->norm[k]);
    double an = r->norm[AN].size, pn = r->norm[PN].size;
    double swapped = !s->swap || !(pn <= an) ? 0 : pn < an ? 1 : 0.5;
    r->norm[AN].weight = 1 - swapped;
    r->norm[PN].weight = swapped;
    double gap = s->margin + (r->norm[AP].size - (swapped == 1 ? pn : an));
    r->loss = gap < 0 ? 0 : gap;
    r->active = gap < 0 ? 0 : gap == gap ? 1 : gap;
}

/* The derivative of the norm by one entry. */
typedef double (*derivative)(double e, const norm *d, double p);

static INLINE double by_absolute(double e, const norm *d, double p)
{
    return e > 0 ? 1 : e < 0 ? -1 : e;
}

static INLINE double by_square(double e, const norm *d, double p)
{
    return scaled(e, d->scale) * d->factor;
}

static INLINE double by_max(double e, const norm *d, double p)
{
    double share = fabs(e) == d->max ? d->factor : 0;
    return e > 0 ? share : e < 0 ? -share : e;
}

static INLINE double by_power(double e, const norm *d, double p)
{
    double size = fabs(e), part = size / d->unit;
    double slope =
        part < 0x1p-1000 ? pow(size, p - 1) * d->tiny_factor : pow(part, p - 1) * d->factor;
    return e == 0 ? e : copysign(slope, e);
}

static INLINE void map_gradient(derivative f, const int swap, const setting *s, const row *r,
                                double k, int64_t start, int64_t n, const real *const *x,
                                real *const *g)
{
    const real *a = x[0] + start, *p = x[1] + start, *neg = x[2] + start;
    real *ga = g[0] + start, *gp = g[1] + start, *gn = g[2] + start;
    const norm d_ap = r->norm[AP], d_an = r->norm[AN], d_pn = r->norm[PN];
    const double epsilon = s->epsilon, order = s->p;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double ap = f(difference(a[i], p[i], epsilon), &d_ap, order);
        double an = f(difference(a[i], neg[i], epsilon), &d_an, order), pn = 0;
        if (swap) {
            pn = f(difference(p[i], neg[i], epsilon), &d_pn, order);
            an = d_an.weight == 0 ? 0 : an * d_an.weight; /* whatever it is */
            pn = d_pn.weight == 0 ? 0 : pn * d_pn.weight;
        }
        ga[i] = (real)(k * (ap - an));
        gp[i] = (real)(-k * (ap + pn));
        gn[i] = (real)(k * (an + pn));
    }
}

static INLINE void map_swap(derivative f, const setting *s, const row *r, double k, int64_t start,
                            int64_t n, const real *const *x, real *const *g)
{
    if (s->swap)
        map_gradient(f, 1, s, r, k, start, n, x, g);
    else
        map_gradient(f, 0, s, r, k, start, n, x, g);
}

static void triplet_gradient(const setting *s, const row *r, double k, int64_t start, int64_t n,
                             const real *const *x, real *const *g)
{
    if (s->p == 1)
        map_swap(by_absolute, s, r, k, start, n, x, g);
    else if (s->p == 2)
        map_swap(by_square, s, r, k, start, n, x, g);
    else if (s->p == INFINITY)
        map_swap(by_max, s, r, k, start, n, x, g);
    else
        map_swap(by_power, s, r, k, start, n, x, g);
}

/* --- rows --- */

static void measure(const setting *s, row_span at, row *rows, real (*tile)[TILE])
{
    if (s->cosine)
        measure_cosine(s, at, rows, tile);
    else
        measure_triplet(s, at, rows, tile);
}

/* The gradients of rows that go together; scale is that of each row. */
static void write_gradients(const setting *s, row_span at, const row *rows, const double *scale,
                            real (*x_tile)[TILE], real (*g_tile)[TILE])
{
    const fl_call *call = s->call;
    while (next_span(call, &at)) {
        const real *x[FL_OPERANDS];
        real *g[FL_OPERANDS];
        int64_t columns = at.to - at.from;
        load_operands(s, at, x_tile, x);
        for (int k = 0; k < s->operands; k++) /* what nobody wants goes to scratch */
            g[k] = call->requested & FL_GRAD << k
                       ? fl_output_buffer(&call->grad[k], first_element(call, at),
                                          element_count(at), g_tile[k])
                       : g_tile[k];
        for (int64_t i = 0; i < at.n; i++) {
            int64_t start = i * columns;
            if (rows[i].active == 0)
                for (int k = 0; k < s->operands; k++)
                    memset(g[k] + start, 0, (size_t)columns * sizeof *g[k]);
            else if (s->cosine)
                cosine_gradient(&rows[i], scale[i] * rows[i].active, columns, x[0] + start,
                                x[1] + start, g[0] + start, g[1] + start);
            else
                triplet_gradient(s, &rows[i], scale[i] * rows[i].active, start, columns, x, g);
        }
        for (int k = 0; k < s->operands; k++)
            if (call->requested & FL_GRAD << k)
                fl_store(&call->grad[k], first_element(call, at), element_count(at), g[k]);
    }
}

/* At most FL_ROW_BATCH rows: what a row costs besides its entries is shared by many. */
static void run_rows(const setting *s, fl_phase phase, int64_t first, int64_t n,
                     fl_partial *partial)
{
    const fl_call *call = s->call;
    row rows[FL_ROW_BATCH];
    real x_tile[FL_OPERANDS][TILE], g_tile[FL_OPERANDS][TILE], label_tile[FL_ROW_BATCH],
        value_tile[FL_ROW_BATCH];
    double sample_tile[FL_ROW_BATCH], upstream_tile[FL_ROW_BATCH], scale[FL_ROW_BATCH];
    const real *label = 0;

    const double *sample = load_sample_weight(call, first, n, sample_tile, partial);
    partial->divisor_sum = sample ? dd_add(partial->divisor_sum, sum_doubles(sample, n))
                                  : dd_add_double(partial->divisor_sum, (double)n);
    partial->count += n;
    for (int64_t i = 0; sample && i < n; i++)
        partial->count -= sample[i] == 0;
    if (s->cosine) {
        label = fl_load(&call->operand[2], first, n, label_tile);
        check_tile(label, n, call->spec[2].domain, sample, 2, first, 1, partial);
    }
    if (phase == FL_PREPARE)
        return;

    for (int64_t i = 0; i < n; i++)
        rows[i] = (row){.norm = {{.unit = 1}, {.unit = 1}, {.unit = 1}}};
    for (int64_t i = 0, together; i < n; i += together) {
        together = rows_per_tile(call, n - i);
        measure(s, (row_span){.first = first + i, .n = together}, rows + i, x_tile);
    }
    for (int64_t i = 0; i < n; i++) {
        if (s->cosine)
            finish_cosine(s, &rows[i], (double)label[i]);
        else
            finish_triplet(s, &rows[i]);
        if (sample && sample[i] == 0)
            rows[i].loss = rows[i].active = 0;
    }

    if (call->requested & (FL_SUM | FL_VALUES)) {
        real *l = fl_output_buffer(&call->values, first, n, value_tile);
        for (int64_t i = 0; i < n; i++)
            l[i] = (real)((sample ? sample[i] : 1) * rows[i].loss);
        partial->sum = dd_add(partial->sum, sum_tile(l, n));
        fl_store(&call->values, first, n, l);
        if (wants_unit_terms(call))
            emit_unit_terms(call, first, n, l, 1, sample, sample, partial);
    }
    if (!(call->requested & ~(FL_SUM | FL_VALUES)))
        return;

    const double *upstream = load_grad_output(call, first, n, upstream_tile);
    for (int64_t i = 0; i < n; i++)
        scale[i] = call->grad_scale * (sample ? sample[i] : 1) * (upstream ? upstream[i] : 1);
    for (int64_t i = 0, together; i < n; i += together) {
        together = rows_per_tile(call, n - i);
        write_gradients(s, (row_span){.first = first + i, .n = together}, rows + i, scale + i,
                        x_tile, g_tile);
    }
}

void SUFFIXED(fl_embedding)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                            fl_partial *partial)
{
    setting s = {.call = call,
                 .cosine = call->formula == FL_FORMULA_cosine_embedding,
                 .swap = call->formula == FL_FORMULA_triplet_margin_swap,
                 .margin = (double)(real)call->params[0],
                 .p = (double)(real)call->params[1],
                 .epsilon = (double)(real)call->params[2]};
    s.operands = s.cosine ? 2 : 3;
    s.norms = s.swap ? 3 : 2;
    for (int64_t n; first < last; first += n) {
        n = last - first < FL_ROW_BATCH ? last - first : FL_ROW_BATCH;
        run_rows(&s, phase, first, n, partial);
    }
}
