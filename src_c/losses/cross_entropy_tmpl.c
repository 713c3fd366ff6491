/* Cross entropy of logits x (N, C) with class indices y (N) or probabilities y (N, C). Compiled
 * once per (instruction set, real).
 *
 * A unit is a row. With m = max x, the gaps a_c = m - x_c >= 0, R = Σ exp(-a_c) - 1 (without one
 * maximal entry), S = 1 + R and L = log1p(R), the log-probability of class c is -(a_c + L): no term
 * cancels.
 *
 * cross_entropy (an index y is the probability 1 of class y) and cross_entropy_probabilities:
 *     q_c = w_c ((1 - ε) y_c + ε/C),  Q = Σ q_c,  l = Σ q_c (a_c + L),
 *     dl/dx_j = Q exp(-a_j)/S - q_j = (exp(-a_j) (Q - q_j) - q_j (S - exp(-a_j)))/S,
 *     dl/dy_j = (1 - ε) w_j (a_j + L),
 * where Q - q_j and S - exp(-a_j) = R + (1 - exp(-a_j)) are sums over the other classes.
 *
 * A batch of up to FL_ROW_BATCH rows passes through
 *     class_rows.h         labels, weights, Σ d and count,
 *     class_tile.h         rows as columns of a tile,
 *     softmax_online.h     m, R and target terms, tile by tile,
 *     softmax_gradient.h   dl/dx and dl/dy, tile by tile,
 * and returns here for its unreduced losses. */
#include "losses/cross_entropy_split.h"
#include "losses/softmax_gradient.h"
#include "runtime/plan.h"

_Static_assert(FL_CLASSES_PER_PART % TILE_2D == 0, "a part is cut into whole tiles");

/* The losses of all rows: l with all weights; if `weighted`, in l_double without sample weights,
 * HARD also without w_y. HARD: label_weight is w_y times the power of two that l_double is divided
 * by, and the result is whether there is one other than 1. */
static INLINE int cross_entropy_losses(const softmax_config *s, const target_mode mode,
                                       const int weighted, const row_batch *r,
                                       const softmax_results *results, real *l, double *l_double,
                                       double *label_weight)
{
    real L[FL_ROW_BATCH];
    int any_overflows = 0;
    for (int64_t p = 0; p < r->n; p++)
        L[p] = LOG1P((real)results->R[p]);
    for (int64_t p = 0; p < r->n; p++) {
        const double w = weighted ? r->label_weight[p] : 1;
        const double max = results->max[p], x = results->x_label[p];
        const int overflows = REAL_IS_DOUBLE && max - x == __builtin_inf();
        const double scale = overflows ? 0.25 : 1, unscale = overflows ? 16 : 1;
        const double label_loss = (max * scale - x * scale) + (double)L[p] * scale;
        double value = w * scale * label_loss;
        if (mode == HARD) {
            value *= unscale;
        } else {
            const double factor = mode == SOFT ? 1 : s->eps_over_C;
            const double gap_sum = results->weighted_gap_sum[p], w_sum = results->weight_sum[p].hi;
            double terms = gap_sum + w_sum * (double)L[p];
            terms *= factor;
            if (REAL_IS_DOUBLE && terms == __builtin_inf())
                terms =
                    (gap_sum == __builtin_inf() ? results->extended_gap_sum[p] : gap_sum * factor) +
                    w_sum * factor * (double)L[p];
            if (mode == SOFT)
                value = terms;
            else
                value =
                    (s->one_minus_eps * w == 0 ? 0 : s->one_minus_eps * value * unscale) + terms;
        }
        const double sample_weight = weighted ? r->sample_weight[p] : 1;
        l[p] = r->active[p] == 0 ? 0 : (real)(sample_weight * value);
        if (weighted)
            l_double[p] = mode == HARD ? label_loss : value;
        if (weighted || REAL_IS_DOUBLE)
            label_weight[p] = overflows ? 4 * w : w;
        any_overflows |= overflows;
    }
    return any_overflows;
}

/* Emits the unreduced losses of all rows. */
static void cross_entropy_emit(const softmax_config *s, const row_batch *r,
                               const softmax_results *results, fl_partial *partial)
{
    const fl_call *call = s->call;
    const int is_weighted = class_rows_are_weighted(call),
              sums_weights = s->mode != HARD && s->class_weight;
    real value_tile[FL_ROW_BATCH], unweighted[FL_ROW_BATCH],
        *l = fl_output_buffer(call->output[FL_LOSSES], r->first, r->n, value_tile);
    double l_double[FL_ROW_BATCH], label_weight[FL_ROW_BATCH];
    int any_overflows;
    if (s->mode == HARD && !is_weighted)
        any_overflows = cross_entropy_losses(s, HARD, 0, r, results, l, l_double, label_weight);
    else if (s->mode == HARD)
        any_overflows = cross_entropy_losses(s, HARD, 1, r, results, l, l_double, label_weight);
    else if (s->mode == SMOOTHED)
        any_overflows = cross_entropy_losses(s, SMOOTHED, 1, r, results, l, l_double, label_weight);
    else
        any_overflows = cross_entropy_losses(s, SOFT, 1, r, results, l, l_double, label_weight);
    for (int64_t p = 0; is_weighted && p < r->n; p++) {
        unweighted[p] = r->active[p] == 0 ? 0 : (real)l_double[p];
        if (sums_weights)
            l_double[p] = r->active[p] == 0 ? 0 : round_to_real_precision(l_double[p]);
    }
    class_rows_emit_losses(call, s->mode, r, any_overflows ? label_weight : NULL,
                           is_weighted ? unweighted : l, sums_weights ? l_double : NULL, l,
                           partial);
}

/* FL_PREPARE: all that is left to check are probabilities. */
static void cross_entropy_check_batch(const softmax_config *s, const row_batch *r,
                                      fl_partial *partial)
{
    class_tile t;
    for (int64_t p = 0; p < r->n; p += t.at.n) {
        class_tile_init(s, r, p, &t);
        class_tile_check_classes(s, &t, 0, s->C, partial);
    }
}

static void cross_entropy_run_batch(const softmax_config *s, fl_phase phase, row_batch *r,
                                    fl_partial *partial)
{
    const fl_call *call = s->call;
    class_rows_load(call, s->mode, r, partial);
    if (phase == FL_PREPARE) {
        if (s->mode == SOFT)
            cross_entropy_check_batch(s, r, partial);
        return;
    }
    softmax_results results;
    softmax_state states[MAX_LANE_BLOCKS];
    class_tile t;
    for (int64_t p = 0; p < r->n; p += t.at.n) {
        class_tile_init(s, r, p, &t);
        t.exp_cache = s->caches_exp ? fl_scratch_alloc(exp_cache_bytes(s->C)) : NULL;
        if (s->caches_exp && !t.exp_cache) {
            record_error(partial, r->first + p, FL_NO_MEMORY, 0);
            return;
        }
        softmax_rows(s, &t, states, &results, partial);
        if (wants_gradients(call)) {
            softmax_grad_prepare(s, r, &t, states, &results);
            softmax_grad_write(s, &t, states, &results, 0, s->C);
        }
        fl_scratch_free(t.exp_cache);
    }
    cross_entropy_emit(s, r, &results, partial);
}

/* --- a single row split over threads ---
 *
 * With fewer rows than threads, each part of a row is a work item of its own, and phase by phase
 *     FL_PREPARE         checks the probabilities of the part,
 *     FL_SPLIT_PARTIAL   accumulates the sums of the part,
 *     FL_SPLIT_COMBINE   combines the sums of the row's parts, in order, into the first part,
 *     FL_SPLIT_FINISH    writes the gradients of the part; the first part also emits the loss. */

/* A part after FL_SPLIT_PARTIAL, the first part also after FL_SPLIT_COMBINE: the sums of a
 * softmax_state, whose lanes are all equal. A state itself takes 1 to 2 KB, a tenth of the part's
 * logits. */
typedef struct {
    fl_dd exp_sum_rest, weight_sum, weighted_gap_sum;
    double one_count, extended_gap_sum;
    real running_max;
    real x_label; /* x_y if the label is in this part (FL_SPLIT_COMBINE: in any part), else 0. With
                     out=input, another part may have overwritten it before it is needed. */
    _Alignas(64) exp_cache_tile exp_cache[];
} row_part;

static fl_dd lane_sum_first(const lane_sum *sum)
{
    return (fl_dd){sum->hi[0], REAL_IS_DOUBLE ? sum->lo[0] : 0};
}

static void row_part_store_state(const softmax_config *s, row_part *to, const softmax_state *state)
{
    to->running_max = state->running_max[0];
    to->one_count = state->one_count[0];
    to->exp_sum_rest = lane_sum_first(&state->exp_sum_rest);
    if (s->mode != HARD) {
        to->weight_sum = lane_sum_first(&state->weight_sum);
        to->weighted_gap_sum = lane_sum_first(&state->weighted_gap_sum);
    }
}

static void row_part_load_state(const softmax_config *s, softmax_state *state, const row_part *from)
{
    lanes_broadcast(state->running_max, from->running_max);
    doubles_broadcast(state->one_count, from->one_count);
    lane_sum_broadcast(&state->exp_sum_rest, from->exp_sum_rest);
    if (s->mode != HARD) {
        lane_sum_broadcast(&state->weight_sum, from->weight_sum);
        lane_sum_broadcast(&state->weighted_gap_sum, from->weighted_gap_sum);
    }
}

static row_part *row_part_accumulate(const softmax_config *s, class_tile *t, int64_t part,
                                     fl_partial *partial)
{
    const int64_t cached_classes = s->caches_exp ? s->classes_per_part : 0;
    row_part *result = fl_scratch_alloc(size_add(sizeof *result, exp_cache_bytes(cached_classes)));
    if (!result) {
        record_error(partial, t->at.first, FL_NO_MEMORY, 0);
        return NULL;
    }
    softmax_state state;
    softmax_results results;
    results.x_label[0] = 0;
    t->exp_cache = s->caches_exp ? result->exp_cache : NULL;
    softmax_accumulate_part(s, t, &state, &results, part, partial);
    row_part_store_state(s, result, &state);
    result->x_label = results.x_label[0];
    return result;
}

/* parts[0], parts[1], ... are all parts of the row. */
static void row_parts_combine(const softmax_config *s, const row_batch *r, void *const *parts)
{
    row_part *first = parts[0];
    softmax_state state, part_state;
    row_part_load_state(s, &state, first);
    for (int64_t i = 1; i < fl_cross_entropy_parts(s->call); i++) {
        row_part_load_state(s, &part_state, parts[i]);
        softmax_combine_part(s, &state, &part_state);
    }
    row_part_store_state(s, first, &state);
    if (s->mode != HARD)
        softmax_mend_gap_sum(s, r->first, first->running_max, &first->weighted_gap_sum.hi,
                             &first->extended_gap_sum);
    if (r->label[0] >= 0) {
        const row_part *labelled = parts[r->label[0] / s->classes_per_part];
        first->x_label = labelled->x_label;
    }
}

static void row_part_finish(const softmax_config *s, const row_batch *r, class_tile *t,
                            void *const *parts, int64_t part, fl_partial *partial)
{
    const fl_call *call = s->call;
    const row_part *combined = parts[0];
    row_part *own = parts[part];
    softmax_results results;
    softmax_state state;
    row_part_load_state(s, &state, combined);
    softmax_finish(s, t, &state, &results);
    results.x_label[0] = combined->x_label;
    results.extended_gap_sum[0] = combined->extended_gap_sum;
    if (part == 0)
        cross_entropy_emit(s, r, &results, partial);
    if (wants_gradients(call)) {
        t->exp_cache = s->caches_exp ? own->exp_cache : NULL;
        softmax_grad_prepare(s, r, t, &state, &results);
        softmax_grad_write(s, t, &state, &results, part * s->classes_per_part,
                           softmax_part_end(s, part));
    }
}

/* Runs a phase of a work item: item i is part i % n_parts of row i / n_parts, or row i. */
static void row_part_run(const softmax_config *s, fl_phase phase, int64_t item, fl_partial *partial)
{
    const fl_call *call = s->call;
    const int64_t n_parts = phase == FL_SPLIT_COMBINE ? 1 : fl_cross_entropy_parts(call),
                  part = item % n_parts;
    row_batch r;
    class_tile t;
    r.first = item / n_parts;
    r.n = 1;
    void **parts = &call->split_state[r.first * fl_cross_entropy_parts(call)];
    class_rows_load(call, s->mode, &r, partial);
    if (part > 0 || (phase != FL_PREPARE && phase != FL_SPLIT_FINISH)) { /* the row counts once */
        partial->divisor_sum = (fl_dd){0, 0};
        partial->divisor_beyond = (fl_scaled_sum){{0, 0}, 0, 0};
        partial->count = 0;
    }
    class_tile_init(s, &r, 0, &t);
    if (phase == FL_PREPARE && s->mode == SOFT)
        class_tile_check_classes(s, &t, part * s->classes_per_part, softmax_part_end(s, part),
                                 partial);
    if (phase == FL_SPLIT_PARTIAL)
        parts[part] = row_part_accumulate(s, &t, part, partial);
    if (phase == FL_SPLIT_COMBINE)
        row_parts_combine(s, &r, parts);
    if (phase == FL_SPLIT_FINISH)
        row_part_finish(s, &r, &t, parts, part, partial);
}

/* --- the kernel --- */

static softmax_config softmax_config_of(const fl_call *call)
{
    const int64_t C = call->unit_size;
    const double eps = call->params[0];
    softmax_config s = {
        .call = call, .C = C, .one_minus_eps = 1 - eps, .eps_over_C = eps / (double)C};
    if (call->formula == FL_FORMULA_cross_entropy_probabilities)
        s.mode = SOFT;
    else
        s.mode = eps > 0 ? SMOOTHED : HARD;
    s.class_weight = s.mode == HARD ? NULL : (const double *)call->operand[2].data;
    s.single_row = C > MAX_SHORT_ROW && call->inner_size < LANES;
    if (s.single_row) {
        s.rows_per_tile = 1;
        s.classes_per_tile = TILE_2D;
        s.classes_per_part = FL_CLASSES_PER_PART;
        s.caches_exp = wants_gradients(call) && C > TILE_2D && C <= MAX_CACHED_CLASSES;
        return s;
    }
    s.rows_per_tile = class_rows_per_tile(C);
    s.classes_per_tile = TILE_2D / s.rows_per_tile;
    s.classes_per_part = C;
    return s;
}

void SUFFIXED(fl_cross_entropy)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                                fl_partial *partial)
{
    const softmax_config s = softmax_config_of(call);
    if (phase == FL_SPLIT_COMBINE || fl_items_are_parts(call, phase)) {
        row_part_run(&s, phase, first, partial);
        return;
    }
    const int64_t batch_rows = class_rows_per_batch(s.C);
    row_batch r;
    for (; first < last; first += r.n) {
        r.first = first;
        r.n = last - first < batch_rows ? last - first : batch_rows;
        cross_entropy_run_batch(&s, phase, &r, partial);
    }
}
