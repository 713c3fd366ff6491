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
 * alone. What does not fit into a table goes through it in pieces, once: sums under a maximum are
 * put under a higher one when it comes. A very long row is cut into parts that are added up one by
 * one, so that threads can share it. */
#include "losses/softmax_online.h"
#include "vector/domain_check.h"
#include "vector/unit_outputs.h"

#include <string.h>

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

/* --- pieces of rows --- */

static const real *load_piece(const setting *s, int k, fl_tile2d at, real *tile)
{
    const fl_array *array = &s->call->operand[k];
    if (s->folded)
        return fl_load(array, at.first * s->C + at.from, at.to - at.from, tile);
    fl_load_transposed(array, s->C, at, tile);
    return tile;
}

/* Where to write a gradient. */
static real *piece_target(const setting *s, int k, fl_tile2d at, real *tile)
{
    return s->folded ? fl_output_buffer(&s->call->grad[k], at.first * s->C + at.from,
                                        at.to - at.from, tile)
                     : tile;
}

static void store_piece(const setting *s, int k, fl_tile2d at, const real *from)
{
    const fl_array *array = &s->call->grad[k];
    if (s->folded)
        fl_store(array, at.first * s->C + at.from, at.to - at.from, from);
    else
        fl_store_transposed(array, s->C, at, from);
}

static int64_t place(const table *t, int64_t c, int64_t p)
{
    return (c - t->at.from) * t->at.ld + p;
}

/* Whether the label of row p is in the piece. */
static int has_label(const table *t, const rows *r, int64_t p)
{
    return r->label[p] >= t->at.from && r->label[p] < t->at.to;
}

static void go_to(const setting *s, table *t, int64_t from, int64_t width)
{
    t->at.from = from;
    t->at.to = from + width < s->C ? from + width : s->C;
}

/* So many classes from this one on, unless they are there already. */
static void read_piece(const setting *s, table *t, int64_t from, int64_t width)
{
    if (t->is_read && t->at.from == from && s->width >= s->C)
        return;
    go_to(s, t, from, width);
    t->is_read = 1;
    t->x = load_piece(s, 0, t->at, t->x_tile);
    t->y = s->targets == SOFT ? load_piece(s, 1, t->at, t->y_tile) : t->y_tile;
    t->x_ahead = t->y_ahead = fl_next_tile(&s->call->operand[0], s->C, t->at);
    if (s->targets == SOFT)
        t->y_ahead = fl_next_tile(&s->call->operand[1], s->C, t->at);
}

/* No probability may be negative; which one is, is found row by row. */
static void check_piece(const setting *s, const rows *r, int64_t p, const table *t,
                        fl_partial *partial)
{
    real row_tile[TILE];
    if (count_invalid(t->y, place(t, t->at.to, 0), FL_NONNEGATIVE) == 0)
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
            record_error(partial, first + p, 1, 0);
            break;
        }

    const int weighted = labelled && call->class_weight;
    for (int64_t p = 0; p < n; p++)
        r->weight[p] = 1;
    for (int64_t p = 0; weighted && p < n; p++)
        if (r->label[p] >= 0)
            r->weight[p] = fl_class_weight(call, r->label[p]);
    double divisor[UNITS];
    for (int64_t p = 0; p < n; p++) {
        double product = r->sample[p] * r->weight[p];
        divisor[p] = r->kept[p] == 0 ? 0 : product;
    }
    partial->divisor_sum = dd_add(partial->divisor_sum, sum_doubles(divisor, n));
    for (int64_t p = 0; weighted && s->targets == HARD && p < n; p++)
        r->kept[p] = r->weight[p] == 0 ? 0 : r->kept[p];
    for (int64_t p = 0; p < n; p++)
        partial->count += r->kept[p] != 0;

    const double *upstream = load_grad_output(call, first, n, tile);
    for (int64_t p = 0; p < n; p++)
        r->scale[p] = call->grad_scale * r->sample[p] * (upstream ? upstream[p] : 1);
}

static int wants_gradients(const fl_call *call)
{
    return (call->requested & (FL_GRAD | FL_GRAD << 1)) != 0;
}

/* Memory for so many bytes and kept classes, or NULL. */
static void *make(size_t bytes, int64_t classes)
{
    int64_t pieces = (classes + TILE_2D - 1) / TILE_2D;
    bytes += (size_t)(pieces * KEPT_PIECE) * sizeof(real);
    return fl_scratch_alloc(bytes);
}

/* All that is added up of the rows of a table, p and those after it, over a part of their classes.
 */
static void read_part(const setting *s, rows *r, int64_t p, group *groups, table *t, int64_t part,
                      fl_partial *partial)
{
    const int n = groups_of(s, t);
    const int64_t first = part * s->part, last = first + s->part < s->C ? first + s->part : s->C;
    for (int i = 0; i < n; i++)
        clear(s, &groups[i]);
    for (int64_t from = first; from < last; from = t->at.to) {
        read_piece(s, t, from, s->width);
        if (s->targets == SOFT)
            check_piece(s, r, p, t, partial);
        each_stripe_of(s, t, groups, max_columns, 0);
        for (int64_t i = 0; i < t->at.n; i++)
            if (has_label(t, r, p + i))
                r->target[p + i] = t->x[place(t, r->label[p + i], i)];
        if (s->folded)
            join_reals(groups->top, 1);
        for (int i = 0; i < n; i++)
            if (from == first)
                memcpy(groups[i].max, groups[i].top, sizeof groups[i].max);
            else
                raise_to(&groups[i], groups[i].top, s->targets != HARD);
        if (t->kept) {
            real *piece = kept_piece(t->kept, from - first);
            piece[0] = groups->max[0];
            t->e = piece + KEPT_MAX;
        }
        each_stripe_of(s, t, groups, exp_columns, 0);
        each_stripe_of(s, t, groups, add_exp, 0);
        if (s->targets == SMOOTHED)
            each_stripe(s, t, groups, smooth_columns);
        if (s->targets == SOFT)
            each_stripe(s, t, groups, soft_columns);
    }
    if (s->folded)
        join_columns(s, groups);
}

/* m, R, and unless HARD Q and Σ q a, of n rows from p on. R lacks one maximum, and is 0 without
 * classes. An infinite maximum leaves nothing that has a value. */
static void finish_rows(const setting *s, rows *r, int64_t p, int64_t n, group *groups)
{
    for (int64_t i = 0; i < n; i += LANES) {
        group *g = &groups[i / LANES];
        normalise(&g->rest);
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double R = g->rest.hi[k] + ((double)g->ones[k] - 1);
            R = g->max[k] - g->max[k] == 0 ? R : (double)REAL_NAN;
            g->R[k] = s->C == 0 ? 0 : R;
        }
        const int columns = s->folded ? 1 : LANES; /* what follows the last row is not used */
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            r->max[p + i + k] = g->max[k];
            r->rest[p + i + k] = g->R[k];
        }
        if (s->targets == HARD)
            continue;
        normalise(&g->total);
        normalise(&g->spread);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            r->total[p + i + k] = (fl_dd){g->total.hi[k], g->total.lo[k]};
            r->spread[p + i + k] = g->spread.hi[k];
        }
    }
}

static void read_rows(const setting *s, rows *r, int64_t p, group *groups, table *t,
                      fl_partial *partial)
{
    real *kept = t->kept;
    read_part(s, r, p, groups, t, 0, partial);
    for (int64_t part = 1; part * s->part < s->C; part++) {
        group more;
        t->kept = kept ? kept_piece(kept, part * s->part) : 0;
        read_part(s, r, p, &more, t, part, partial);
        add_part(s, groups, more);
    }
    t->kept = kept;
    finish_rows(s, r, p, t->at.n, groups);
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

/* The gradients of these classes. */
static void write_gradients(const setting *s, const rows *r, int64_t p, group *groups, table *t,
                            int64_t first, int64_t last)
{
    const int want_x = s->call->requested & FL_GRAD, want_y = s->call->requested & FL_GRAD << 1;
    const int again = s->width < s->C && !t->kept;
    const int64_t width = s->folded && again ? TILE : s->width;
    for (int i = 0; want_y && i < groups_of(s, t); i++)
        for (int k = 0; k < LANES; k++)
            groups[i].log1p[k] = LOG1P((real)groups[i].R[k]);
    for (int64_t from = first; from < last; from = t->at.to) {
        if (again || s->targets == SOFT)
            read_piece(s, t, from, width);
        else
            go_to(s, t, from, width);
        if (t->kept) {
            real *piece = kept_piece(t->kept, from - first);
            t->lift = (double)piece[0] - (double)groups->max[0];
            vector_math_double(MATH_EXP, 1, &t->lift, &t->lift);
            t->e = piece + KEPT_MAX;
        }
        t->dx = want_x ? piece_target(s, 0, t->at, t->e_tile) : t->e_tile;
        t->dy = want_y ? piece_target(s, 1, t->at, t->y_tile) : t->y_tile;
        if (again)
            each_stripe_of(s, t, groups, exp_columns, 0);
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

static void check_classes(const setting *s, const rows *r, int64_t p, table *t, int64_t first,
                          int64_t last, fl_partial *partial)
{
    for (int64_t from = first; from < last; from = t->at.to) {
        go_to(s, t, from, s->width);
        t->y = load_piece(s, 1, t->at, t->y_tile);
        check_piece(s, r, p, t, partial);
    }
}

static void start_table(const setting *s, const rows *r, int64_t p, table *t)
{
    int64_t n = r->n - p < s->units ? r->n - p : s->units;
    t->at = (fl_tile2d){
        .first = r->first + p, .n = n, .ld = s->folded ? 1 : (n + LANES - 1) / LANES * LANES};
    t->x = t->x_tile;
    t->y = t->y_tile;
    t->x_ahead = t->y_ahead = (fl_prefetch){0};
    t->is_read = 0;
    t->e = t->e_tile;
    t->lift = 1;
    t->kept = 0;
    t->dx = t->e; /* until there is a gradient to write */
    t->dy = t->y_tile;
}

static void cross_entropy(const setting *s, fl_phase phase, rows *r, real *l, fl_partial *partial)
{
    group groups[GROUPS];
    table t;
    for (int64_t p = 0; p < r->n; p += t.at.n) {
        start_table(s, r, p, &t);
        if (phase == FL_PREPARE) {
            check_classes(s, r, p, &t, 0, s->C, partial);
            continue;
        }
        if (s->keeps && !(t.kept = make(0, s->C))) {
            record_error(partial, r->first + p, FL_NO_MEMORY, 0);
            return;
        }
        read_rows(s, r, p, groups, &t, partial);
        if (wants_gradients(s->call)) {
            start_gradient(s, r, p, t.at.n, groups);
            write_gradients(s, r, p, groups, &t, 0, s->C);
        }
        fl_scratch_free(t.kept);
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
    fl_gather(&call->operand[0], s->C, r->first, r->n, r->label, r->target);
    for (int64_t p = 0; p < r->n; p++) {
        double value = -r->weight[p] * (double)r->target[p], slope = -r->scale[p] * r->weight[p];
        l[p] = r->kept[p] == 0 ? 0 : (real)(r->sample[p] * value);
        r->dx_y[p] = r->kept[p] == 0                ? 0
                     : r->target[p] == r->target[p] ? (real)slope
                                                    : r->target[p];
    }
    if (!(call->requested & FL_GRAD))
        return;
    fl_clear_rows(&call->grad[0], s->C, r->first, r->n);
    fl_scatter(&call->grad[0], s->C, r->first, r->n, r->label, r->dx_y);
}

/* --- the kernel --- */

static void add_values(const setting *s, const rows *r, const real *l, fl_partial *partial)
{
    if (!(s->call->requested & (FL_SUM | FL_VALUES)))
        return;
    partial->sum = dd_add(partial->sum, sum_tile(l, r->n));
    fl_store(&s->call->values, r->first, r->n, l);
    if (!wants_unit_terms(s->call))
        return;
    double share[UNITS], kept[UNITS];
    for (int64_t p = 0; p < r->n; p++) {
        kept[p] = r->kept[p];
        share[p] = r->kept[p] == 0 ? 0 : r->sample[p] * r->weight[p];
    }
    emit_unit_terms(s->call, r->first, r->n, l, 1, share, kept, partial);
}

static void run_units(const setting *s, fl_phase phase, rows *r, fl_partial *partial)
{
    const fl_call *call = s->call;
    real value_tile[UNITS];
    read_units(s, r, partial);
    if (phase == FL_PREPARE && s->targets != SOFT)
        return;
    real *l = fl_output_buffer(&call->values, r->first, r->n, value_tile);
    if (call->formula == FL_FORMULA_nll)
        nll(s, r, l);
    else
        cross_entropy(s, phase, r, l, partial);
    if (phase != FL_PREPARE)
        add_values(s, r, l, partial);
}

/* What the first half leaves of a part. */
typedef struct {
    group sums;
    real target; /* x_y if it is in the part: in place, the second half of another part may have
                    written there */
    _Alignas(64) real kept[];
} side;

/* One part of a row that several threads share. */
static void run_side(const setting *s, fl_phase phase, rows *r, int64_t item, fl_partial *partial)
{
    const fl_call *call = s->call;
    const int64_t sides = fl_split_parts(call), part = item % sides, first = part * s->part;
    const int64_t last = first + s->part < s->C ? first + s->part : s->C;
    table t;
    group g;
    r->first = item / sides;
    r->n = 1;
    read_units(s, r, partial);
    if (part > 0 || phase == FL_SPLIT_PARTIAL) { /* the row counts once */
        partial->divisor_sum = (fl_dd){0, 0};
        partial->count = 0;
    }
    start_table(s, r, 0, &t);
    if (phase == FL_PREPARE && s->targets == SOFT)
        check_classes(s, r, 0, &t, first, last, partial);
    if (phase == FL_SPLIT_PARTIAL) {
        side *made = call->split_state[item] = make(sizeof *made, s->keeps ? last - first : 0);
        if (!made) {
            record_error(partial, r->first, FL_NO_MEMORY, 0);
            return;
        }
        t.kept = s->keeps ? made->kept : 0;
        r->target[0] = 0;
        read_part(s, r, 0, &made->sums, &t, part, partial);
        made->target = r->target[0];
    }
    if (phase != FL_SPLIT_FINISH)
        return;
    side *const *parts = (side *const *)&call->split_state[item - part];
    g = parts[0]->sums;
    for (int64_t i = 1; i < sides; i++)
        add_part(s, &g, parts[i]->sums);
    t.kept = s->keeps ? parts[part]->kept : 0;
    finish_rows(s, r, 0, 1, &g);
    r->target[0] = r->label[0] < 0 ? 0 : parts[r->label[0] / s->part]->target;
    if (part == 0) {
        real value, *l = fl_output_buffer(&call->values, r->first, 1, &value);
        cross_entropy_values(s, r, l);
        add_values(s, r, l, partial);
    }
    if (wants_gradients(call)) {
        start_gradient(s, r, 0, 1, &g);
        write_gradients(s, r, 0, &g, &t, first, last);
    }
}

static targets targets_of(const fl_call *call)
{
    if (call->formula == FL_FORMULA_cross_entropy_probabilities)
        return SOFT;
    return call->formula == FL_FORMULA_cross_entropy && call->params[0] > 0 ? SMOOTHED : HARD;
}

void SUFFIXED(fl_cross_entropy)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                                fl_partial *partial)
{
    const int64_t C = call->unit_size;
    const int keeps = wants_gradients(call) && C <= KEEP;
    const double smoothing = call->formula == FL_FORMULA_nll ? 0 : call->params[0];
    setting s = {.call = call,
                 .C = C,
                 .weight = targets_of(call) == HARD ? NULL : call->class_weight,
                 .part = C,
                 .keep = 1 - smoothing,
                 .each = smoothing / (double)C,
                 .targets = targets_of(call),
                 .folded = C > SHORT && call->inner_size < LANES};
    s.units = C > 0 ? TILE_2D / C / LANES * LANES : UNITS;
    if (s.units < LANES || s.units > UNITS)
        s.units = UNITS; /* few classes, or so many that they go in pieces */
    s.width = TILE_2D / s.units;
    if (s.folded) {
        s.units = 1;
        s.width = TILE_2D;
        s.part = FL_PART;
        s.keeps = keeps && C > TILE_2D;
    }
    const int64_t together = UNITS / s.units * s.units;
    rows r;
    if (fl_items_are_parts(call, phase)) {
        run_side(&s, phase, &r, first, partial);
        return;
    }
    for (; first < last; first += r.n) {
        r.first = first;
        r.n = last - first < together ? last - first : together;
        run_units(&s, phase, &r, partial);
    }
}
