/* Cross entropy of classes, x (N, C) against indices y (N) or probabilities y (N, C), and nll.
 * Compiled once per (instruction set, real).
 *
 * A unit is a row. With m = max x, the gaps a_c = m - x_c >= 0, R = Σ exp(-a_c) without one maximal
 * entry, S = 1 + R and L = log1p(R), the log-probability of class c is -(a_c + L), where no term
 * cancels.
 *
 * cross_entropy (an index is the probability 1 of one class) and cross_entropy_probabilities:
 *     q_c = w_c ((1 - ε) y_c + ε/C),  Q = Σ q_c,  l = Σ q_c (a_c + L),
 *     dl/dx_j = Q exp(-a_j)/S - q_j = (exp(-a_j) (Q - q_j) - q_j (S - exp(-a_j)))/S,
 *     dl/dy_j = (1 - ε) w_j (a_j + L),
 * where Q - q_j and S - exp(-a_j) = R + (1 - exp(-a_j)) are sums over the other classes.
 *
 * nll:
 *     l = -w_y x_y
 *
 * A call passes through
 *     class_rows.h        labels, weights, Σ d and count of up to FL_ROW_BATCH rows,
 *     class_tile.h        the rows as columns of a tile,
 *     softmax_online.h    m, R and target terms, tile by tile,
 *     softmax_gradient.h  dl/dx and dl/dy, tile by tile,
 * and ends here with the unreduced losses of the batch. With fewer long rows than threads, the
 * parts of a row run on several threads: see cross_entropy_run_part. */
#include "losses/cross_entropy_split.h"
#include "losses/softmax_gradient.h"
#include "runtime/plan.h"

static int cross_entropy_wants_gradients(const fl_call *call) { return wants_gradients(call); }

/* Memory for `bytes` and the exp cache of so many classes, or NULL. */
static void *exp_cache_alloc(size_t bytes, int64_t classes)
{
    int64_t tiles = (classes + TILE_2D - 1) / TILE_2D;
    bytes += (size_t)(tiles * EXP_CACHE_TILE) * sizeof(real);
    return fl_scratch_alloc(bytes);
}

/* The unreduced losses of all rows, times their sample weights. */
static void cross_entropy_values(const softmax_config *s, const row_batch *r, real *l)
{
    real L[FL_ROW_BATCH];
    for (int64_t p = 0; p < r->n; p++)
        L[p] = LOG1P((real)r->R[p]);
    for (int64_t p = 0; p < r->n; p++) {
        double w = r->label_weight[p], a = (double)r->max[p] - (double)r->x_label[p];
        double value = w * (a + (double)L[p]);
        if (s->mode == SMOOTHED)
            value = (s->one_minus_eps * w == 0 ? 0 : s->one_minus_eps * value) +
                    s->eps_over_C * (r->weighted_gap_sum[p] + r->weight_sum[p].hi * (double)L[p]);
        if (s->mode == SOFT)
            value = r->weighted_gap_sum[p] + r->weight_sum[p].hi * (double)L[p];
        l[p] = r->active[p] == 0 ? 0 : (real)(r->sample_weight[p] * value);
    }
}

static void cross_entropy(const softmax_config *s, fl_phase phase, row_batch *r, real *l,
                          fl_partial *partial)
{
    softmax_state states[MAX_LANE_BLOCKS];
    class_tile t;
    for (int64_t p = 0; p < r->n; p += t.at.n) {
        class_tile_init(s, r, p, &t);
        if (phase == FL_PREPARE) {
            class_tile_check_classes(s, r, p, &t, 0, s->C, partial);
            continue;
        }
        if (s->caches_exp && !(t.exp_cache = exp_cache_alloc(0, s->C))) {
            record_error(partial, r->first + p, FL_NO_MEMORY, 0);
            return;
        }
        softmax_rows(s, r, p, states, &t, partial);
        if (cross_entropy_wants_gradients(s->call)) {
            softmax_grad_prepare(s, r, p, t.at.n, states);
            softmax_grad_write(s, r, p, states, &t, 0, s->C);
        }
        fl_scratch_free(t.exp_cache);
    }
    if (phase != FL_PREPARE)
        cross_entropy_values(s, r, l);
}

/* --- nll --- */

static void nll(const softmax_config *s, row_batch *r, real *l)
{
    const fl_call *call = s->call;
    for (int64_t p = 0; p < r->n; p++)
        r->x_label[p] = 0;
    fl_gather(&call->operand[0], s->C, r->first, r->n, r->label, r->x_label);
    for (int64_t p = 0; p < r->n; p++) {
        double value = -r->label_weight[p] * (double)r->x_label[p],
               dx = -r->grad_scale[p] * r->label_weight[p];
        l[p] = r->active[p] == 0 ? 0 : (real)(r->sample_weight[p] * value);
        r->dx_label[p] = r->active[p] == 0                ? 0
                         : r->x_label[p] == r->x_label[p] ? (real)dx
                                                          : r->x_label[p];
    }
    if (!call->output[FL_GRADIENT])
        return;
    fl_clear_rows(call->output[FL_GRADIENT], s->C, r->first, r->n);
    fl_scatter(call->output[FL_GRADIENT], s->C, r->first, r->n, r->label, r->dx_label);
}

/* --- the kernel --- */

static void cross_entropy_run_batch(const softmax_config *s, fl_phase phase, row_batch *r,
                                    fl_partial *partial)
{
    const fl_call *call = s->call;
    real value_tile[FL_ROW_BATCH];
    class_rows_load(s, r, partial);
    if (phase == FL_PREPARE && s->mode != SOFT)
        return;
    real *l = fl_output_buffer(call->output[FL_LOSSES], r->first, r->n, value_tile);
    if (call->formula == FL_FORMULA_nll)
        nll(s, r, l);
    else
        cross_entropy(s, phase, r, l, partial);
    if (phase != FL_PREPARE)
        class_rows_emit_losses(s, r, l, partial);
}

/* What FL_SPLIT_PARTIAL leaves of a part for FL_SPLIT_FINISH. */
typedef struct {
    softmax_state state;
    real x_label; /* x_y if the label is in this part. Saved, because with out=input another part
                     may have overwritten it by then. */
    _Alignas(64) real exp_cache[];
} row_part;

/* One part of a row that several threads work on. */
static void cross_entropy_run_part(const softmax_config *s, fl_phase phase, row_batch *r,
                                   int64_t item, fl_partial *partial)
{
    const fl_call *call = s->call;
    const int64_t n_parts = fl_cross_entropy_parts(call), part = item % n_parts;
    const int64_t first = part * s->classes_per_part;
    const int64_t last = first + s->classes_per_part < s->C ? first + s->classes_per_part : s->C;
    class_tile t;
    softmax_state state;
    r->first = item / n_parts;
    r->n = 1;
    class_rows_load(s, r, partial);
    if (part > 0 || phase == FL_SPLIT_PARTIAL) { /* the row counts once */
        partial->divisor_sum = (fl_dd){0, 0};
        partial->count = 0;
    }
    class_tile_init(s, r, 0, &t);
    if (phase == FL_PREPARE && s->mode == SOFT)
        class_tile_check_classes(s, r, 0, &t, first, last, partial);
    if (phase == FL_SPLIT_PARTIAL) {
        row_part *saved = call->split_state[item] =
            exp_cache_alloc(sizeof *saved, s->caches_exp ? last - first : 0);
        if (!saved) {
            record_error(partial, r->first, FL_NO_MEMORY, 0);
            return;
        }
        t.exp_cache = s->caches_exp ? saved->exp_cache : 0;
        r->x_label[0] = 0;
        softmax_accumulate_part(s, r, 0, &saved->state, &t, part, partial);
        saved->x_label = r->x_label[0];
    }
    if (phase != FL_SPLIT_FINISH)
        return;
    row_part *const *parts = (row_part *const *)&call->split_state[item - part];
    state = parts[0]->state;
    for (int64_t i = 1; i < n_parts; i++)
        softmax_combine_part(s, &state, parts[i]->state);
    t.exp_cache = s->caches_exp ? parts[part]->exp_cache : 0;
    softmax_finish(s, r, 0, 1, &state);
    r->x_label[0] = r->label[0] < 0 ? 0 : parts[r->label[0] / s->classes_per_part]->x_label;
    if (part == 0) {
        real value, *l = fl_output_buffer(call->output[FL_LOSSES], r->first, 1, &value);
        cross_entropy_values(s, r, l);
        class_rows_emit_losses(s, r, l, partial);
    }
    if (cross_entropy_wants_gradients(call)) {
        softmax_grad_prepare(s, r, 0, 1, &state);
        softmax_grad_write(s, r, 0, &state, &t, first, last);
    }
}

static target_mode target_mode_of(const fl_call *call)
{
    if (call->formula == FL_FORMULA_cross_entropy_probabilities)
        return SOFT;
    return call->formula == FL_FORMULA_cross_entropy && call->params[0] > 0 ? SMOOTHED : HARD;
}

void SUFFIXED(fl_cross_entropy)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                                fl_partial *partial)
{
    const int64_t C = call->unit_size;
    const int caches_exp = cross_entropy_wants_gradients(call) && C <= MAX_CACHED_CLASSES;
    const double eps = call->formula == FL_FORMULA_nll ? 0 : call->params[0];
    softmax_config s = {
        .call = call,
        .C = C,
        .class_weight = target_mode_of(call) == HARD ? NULL : (const double *)call->operand[2].data,
        .classes_per_part = C,
        .one_minus_eps = 1 - eps,
        .eps_over_C = eps / (double)C,
        .mode = target_mode_of(call),
        .single_row = C > MAX_SHORT_ROW && call->inner_size < LANES};
    s.rows_per_tile = C > 0 ? TILE_2D / C / LANES * LANES : FL_ROW_BATCH;
    if (s.rows_per_tile < LANES || s.rows_per_tile > FL_ROW_BATCH)
        s.rows_per_tile = FL_ROW_BATCH; /* few classes, or more than fit into one tile */
    s.classes_per_tile = TILE_2D / s.rows_per_tile;
    if (s.single_row) {
        s.rows_per_tile = 1;
        s.classes_per_tile = TILE_2D;
        s.classes_per_part = FL_CLASSES_PER_PART;
        s.caches_exp = caches_exp && C > TILE_2D;
    }
    const int64_t batch_rows = FL_ROW_BATCH / s.rows_per_tile * s.rows_per_tile;
    row_batch r;
    if (fl_items_are_parts(call, phase)) {
        cross_entropy_run_part(&s, phase, &r, first, partial);
        return;
    }
    for (; first < last; first += r.n) {
        r.first = first;
        r.n = last - first < batch_rows ? last - first : batch_rows;
        cross_entropy_run_batch(&s, phase, &r, partial);
    }
}
