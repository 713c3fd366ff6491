/* The online softmax (Milakov & Gimelshein 2018; also in FlashAttention), LANES columns at a time.
 *
 * Rows pass through memory once, class tile by class tile. A softmax_state holds, for the classes
 * read so far, the running maximum m and the sums under it, with the gaps a_c = m - x_c >= 0:
 *
 *     exp sum       Σ exp(-a_c), the terms that equal 1 being counted apart, so that the exact
 *                   R = Σ exp(-a_c) - 1 (all but one maximal entry) is known however small it is
 *     target terms  Q = Σ q_c and Σ q_c a_c if SOFT, Σ w_c and Σ w_c a_c if SMOOTHED
 *
 * Order for each tile: softmax_update_candidate_max, softmax_rescale_to_max, softmax_exp_shifted,
 * softmax_accumulate_exp, softmax_accumulate_*_terms. Order at the end: softmax_reduce_lanes for a
 * single row, softmax_combine_part for each further part, softmax_finish. */
#ifndef FASTLOSS_SOFTMAX_ONLINE_H
#define FASTLOSS_SOFTMAX_ONLINE_H

#include "losses/class_tile.h"
#include "vector/vector_math.h"
#include "vector/vector_math_tmpl.h"

#include <string.h>

/* The state of LANES rows. That of a single row is spread over the lanes, and the same in all of
 * them once they are reduced. */
typedef struct {
    real running_max[LANES];   /* m, the maximum that the sums refer to */
    real candidate_max[LANES]; /* the maximum including the tile at hand */
    real one_count[LANES];     /* number of entries with exp(-a) = 1 */
    lane_sum exp_sum_rest;     /* Σ exp(-a) over the other entries */
    double R[LANES];           /* exp_sum_rest + one_count - 1 */
    lane_sum weight_sum;       /* SOFT: Q; SMOOTHED: Σ w_c */
    lane_sum weighted_gap_sum; /* SOFT: Σ q_c a_c; SMOOTHED: Σ w_c a_c */
    /* for the gradients: */
    real log1p_R[LANES];
    real active[LANES];
    double grad_scale[LANES];
    double grad_scale_over_S[LANES];     /* S = 1 + R; HARD: times w_y */
    double smoothed_label_weight[LANES]; /* (1 - ε) w_y */
} softmax_state;

/* --- a lane block --- */

/* Work on a lane block. `columns` is LANES, or fewer for the incomplete last vector of a single
 * row; `weighted` says whether there are class weights. Both are constants after inlining. */
typedef void lane_block_fn(const softmax_config *s, lane_block b, softmax_state *state,
                           const int columns, const int weighted);

static INLINE void class_tile_apply(const softmax_config *s, class_tile *t, softmax_state *states,
                                    lane_block_fn f, const int weighted)
{
    int64_t classes = t->at.to - t->at.from, vectors = classes / LANES, left = classes % LANES;
    if (s->single_row) {
        f(s, class_tile_lane_block(s, t, 0, LANES, vectors), states, LANES, weighted);
        if (left > 0)
            f(s, class_tile_lane_block(s, t, vectors * LANES, LANES, 1), states, (int)left,
              weighted);
        return;
    }
    for (int64_t start = 0; start < t->at.ld; start += LANES)
        f(s, class_tile_lane_block(s, t, start, t->at.ld, classes), &states[start / LANES], LANES,
          weighted);
}

/* Applies f in a version with or without class weights. */
static INLINE void class_tile_apply_weighted(const softmax_config *s, class_tile *t,
                                             softmax_state *states, lane_block_fn f)
{
    if (s->class_weight)
        class_tile_apply(s, t, states, f, 1);
    else
        class_tile_apply(s, t, states, f, 0);
}

/* Two independent chains hide the latency of the comparison. A NaN may be missed here: it reappears
 * in R. */
static INLINE void softmax_update_candidate_max(const softmax_config *s, lane_block b,
                                                softmax_state *state, const int columns,
                                                const int weighted)
{
    real even_max[LANES], odd_max[LANES];
    int64_t i = 0;
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        even_max[k] = odd_max[k] = state->candidate_max[k];
    for (; i + 2 <= b.vectors; i += 2) {
        const real *even = b.x + i * b.stride, *odd = even + b.stride;
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            even_max[k] = even_max[k] < even[k] ? even[k] : even_max[k];
            odd_max[k] = odd_max[k] < odd[k] ? odd[k] : odd_max[k];
        }
    }
    for (; i < b.vectors; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            real x = b.x[i * b.stride + k];
            even_max[k] = even_max[k] < x ? x : even_max[k];
        }
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        state->candidate_max[k] = even_max[k] < odd_max[k] ? odd_max[k] : even_max[k];
}

/* The shift before exp: m, or 0 if m is infinite, so that inf - inf never occurs. */
static INLINE real softmax_shift(real m) { return m - m == 0 ? m : 0; }

/* Rescales the sums to maxima that are no lower than the running ones. The entries at a maximum
 * that has been exceeded join the other terms of the exp sum; `gaps` says whether gaps are summed
 * too, each of which grows by the change of the maximum. */
static void softmax_rescale_to_max(softmax_state *state, const real *max, const int gaps)
{
    double factor[LANES], change[LANES];
    int same = 1;
#pragma omp simd reduction(& : same)
    for (int k = 0; k < LANES; k++)
        same &= state->running_max[k] == max[k];
    if (same)
        return;
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        double gap = (double)state->running_max[k] - (double)max[k];
        factor[k] = state->running_max[k] == max[k] ? 0 : gap;
        change[k] = (double)softmax_shift(max[k]) - (double)softmax_shift(state->running_max[k]);
    }
    vector_math_double(MATH_EXP, LANES, factor, factor);
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        const int is_same = state->running_max[k] == max[k];
        add_to_lane(&state->exp_sum_rest, k, is_same ? 0 : (double)state->one_count[k]);
        state->exp_sum_rest.hi[k] *= factor[k];
        state->exp_sum_rest.lo[k] *= factor[k];
        state->one_count[k] = is_same ? state->one_count[k] : 0;
        state->running_max[k] = max[k];
    }
    if (!gaps)
        return;
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        double weight_sum = state->weight_sum.hi[k];
        add_to_lane(&state->weighted_gap_sum, k, weight_sum == 0 ? 0 : change[k] * weight_sum);
    }
}

static INLINE void softmax_exp_vector(const real *x, real *e, const real *m)
{
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        e[k] = EXP_NEGATIVE(x[k] - m[k]);
}

/* e = exp(-a) = exp(x - m), exactly 1 for a maximum. An incomplete vector is padded with -inf,
 * whose exp adds nothing. */
static INLINE void softmax_exp_shifted(const softmax_config *s, lane_block b, softmax_state *state,
                                       const int columns, const int weighted)
{
    real m[LANES], padded[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        m[k] = softmax_shift(state->running_max[k]);
        padded[k] = -REAL_INFINITY;
    }
    for (int k = 0; columns < LANES && k < columns; k++)
        padded[k] = b.x[k];
    if (columns < LANES)
        softmax_exp_vector(padded, b.e, m);
    for (int64_t i = 0; columns == LANES && i < b.vectors; i++) {
        __builtin_prefetch(b.x_next + i * b.x_next_stride);
        softmax_exp_vector(b.x + i * b.stride, b.e + i * b.stride, m);
    }
}

/* Adds exp(-a) to the sums, entries equal to 1 to their count. A loop of its own: fused with exp()
 * it would have more instructions than the reorder buffer holds. */
static INLINE void softmax_accumulate_exp(const softmax_config *s, lane_block b,
                                          softmax_state *state, const int columns,
                                          const int weighted)
{
    lane_sum rest;
    copy_lane_sum(&rest, &state->exp_sum_rest);
    real one_count[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        one_count[k] = state->one_count[k];
    for (int64_t i = 0; i < b.vectors; i++)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            real e = b.e[i * b.stride + k], one = e == 1 ? REAL_C(1.0) : REAL_C(0.0);
            one_count[k] += one;
            add_to_lane(&rest, k, (double)(e - one));
        }
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        state->one_count[k] = one_count[k];
    copy_lane_sum(&state->exp_sum_rest, &rest);
}

/* w of the classes of vector i. */
static INLINE void lane_block_class_weights(const softmax_config *s, lane_block b, int64_t i,
                                            double *w, const int columns, const int weighted)
{
#pragma omp simd
    for (int k = 0; k < columns; k++)
        w[k] = !weighted ? 1 : s->single_row ? b.class_weight[i * LANES + k] : b.class_weight[i];
}

/* Adds q and q a if `soft`, w and w a if not. A q or w that is exactly 0 removes its class,
 * whatever x holds; a product that underflows to 0 does not. */
static INLINE void softmax_accumulate_target_terms(const softmax_config *s, lane_block b,
                                                   softmax_state *state, const int columns,
                                                   const int weighted, const int soft)
{
    lane_sum weight_sum, gap_sum;
    copy_lane_sum(&weight_sum, &state->weight_sum);
    copy_lane_sum(&gap_sum, &state->weighted_gap_sum);
    for (int k = 0; !weighted && !soft && k < columns; k++)
        add_to_lane(&weight_sum, k, (double)b.vectors);
    for (int64_t i = 0; i < b.vectors; i++) {
        double w[LANES];
        lane_block_class_weights(s, b, i, w, columns, weighted);
        if (soft)
            __builtin_prefetch(b.y_next + i * b.y_next_stride);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            double p = soft ? s->one_minus_eps * (double)b.y[i * b.stride + k] + s->eps_over_C : 1;
            double a = (double)softmax_shift(state->running_max[k]) - (double)b.x[i * b.stride + k];
            double pa = !soft ? a : p == 0 ? 0 : p * a;
            if (weighted)
                pa = w[k] == 0 ? 0 : w[k] * pa;
            if (weighted || soft)
                add_to_lane(&weight_sum, k, weighted ? w[k] * p : p);
            add_to_lane(&gap_sum, k, pa);
        }
    }
    copy_lane_sum(&state->weight_sum, &weight_sum);
    copy_lane_sum(&state->weighted_gap_sum, &gap_sum);
}

static INLINE void softmax_accumulate_smoothed_terms(const softmax_config *s, lane_block b,
                                                     softmax_state *state, const int columns,
                                                     const int weighted)
{
    softmax_accumulate_target_terms(s, b, state, columns, weighted, 0);
}

static INLINE void softmax_accumulate_soft_terms(const softmax_config *s, lane_block b,
                                                 softmax_state *state, const int columns,
                                                 const int weighted)
{
    softmax_accumulate_target_terms(s, b, state, columns, weighted, 1);
}

/* --- reductions --- */

static INLINE void lane_sum_broadcast(lane_sum *sum, fl_dd total)
{
    for (int k = 0; k < LANES; k++) {
        sum->hi[k] = total.hi;
        sum->lo[k] = total.lo;
    }
}

/* Renormalises each lane, so that hi is the rounded sum and lo its residual. */
static INLINE void lane_sum_renormalise(lane_sum *sum)
{
#if REAL_IS_DOUBLE
    for (int k = 0; k < LANES; k++) {
        double hi = sum->hi[k] + sum->lo[k], lo = sum->lo[k] - (hi - sum->hi[k]);
        int finite = hi - hi == 0; /* inf and NaN have no residual */
        sum->hi[k] = finite ? hi : sum->hi[k];
        sum->lo[k] = finite ? lo : 0;
    }
#endif
}

static INLINE void lane_sum_add(lane_sum *sum, const lane_sum *other)
{
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        add_to_lane(sum, k, other->hi[k]);
        sum->lo[k] += other->lo[k];
    }
}

/* Reduces v[LANES] in a tree to its maximum or its sum, which replaces every entry. */
static INLINE void lanes_allreduce(real *v, const int maximum)
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

static INLINE void softmax_reset(const softmax_config *s, softmax_state *state)
{
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        state->running_max[k] = state->candidate_max[k] = -REAL_INFINITY;
        state->one_count[k] = 0;
    }
    lane_sum_broadcast(&state->exp_sum_rest, (fl_dd){0, 0});
    if (s->mode != HARD) {
        lane_sum_broadcast(&state->weight_sum, (fl_dd){0, 0});
        lane_sum_broadcast(&state->weighted_gap_sum, (fl_dd){0, 0});
    }
}

/* Combines the lanes of a single row, whose running maxima are equal; each lane then holds the sums
 * of the row. */
static void softmax_reduce_lanes(const softmax_config *s, softmax_state *state)
{
    lane_sum_broadcast(&state->exp_sum_rest, reduce_lanes(&state->exp_sum_rest));
    lanes_allreduce(state->one_count, 0);
    if (s->mode != HARD) {
        lane_sum_broadcast(&state->weight_sum, reduce_lanes(&state->weight_sum));
        lane_sum_broadcast(&state->weighted_gap_sum, reduce_lanes(&state->weighted_gap_sum));
    }
}

/* Adds the state of a further part of the row: both are rescaled to the larger maximum. */
static void softmax_combine_part(const softmax_config *s, softmax_state *state, softmax_state part)
{
    real max[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        max[k] = state->running_max[k] < part.running_max[k] ? part.running_max[k]
                                                             : state->running_max[k];
    softmax_rescale_to_max(state, max, s->mode != HARD);
    softmax_rescale_to_max(&part, max, s->mode != HARD);
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        state->one_count[k] += part.one_count[k];
    lane_sum_add(&state->exp_sum_rest, &part.exp_sum_rest);
    if (s->mode != HARD) {
        lane_sum_add(&state->weight_sum, &part.weight_sum);
        lane_sum_add(&state->weighted_gap_sum, &part.weighted_gap_sum);
    }
}

/* --- rows --- */

/* Accumulates one part of the classes of a tile's rows, which are rows p, p + 1, ... of the batch:
 * the states of the tile's lane blocks, and x_y where the label is in this part. With an exp cache,
 * e is kept there. */
static void softmax_accumulate_part(const softmax_config *s, row_batch *r, int64_t p,
                                    softmax_state *states, class_tile *t, int64_t part,
                                    fl_partial *partial)
{
    const int n = class_tile_lane_blocks(s, t);
    const int64_t first = part * s->classes_per_part;
    const int64_t last = first + s->classes_per_part < s->C ? first + s->classes_per_part : s->C;
    for (int i = 0; i < n; i++)
        softmax_reset(s, &states[i]);
    for (int64_t from = first; from < last; from = t->at.to) {
        class_tile_load(s, t, from, s->classes_per_tile);
        if (s->mode == SOFT)
            class_tile_check_probabilities(s, r, p, t, partial);
        class_tile_apply(s, t, states, softmax_update_candidate_max, 0);
        for (int64_t i = 0; i < t->at.n; i++)
            if (class_tile_has_label(t, r, p + i))
                r->x_label[p + i] = t->x[class_tile_index(t, r->label[p + i], i)];
        if (s->single_row)
            lanes_allreduce(states->candidate_max, 1);
        for (int i = 0; i < n; i++)
            if (from == first)
                memcpy(states[i].running_max, states[i].candidate_max,
                       sizeof states[i].running_max);
            else
                softmax_rescale_to_max(&states[i], states[i].candidate_max, s->mode != HARD);
        if (t->exp_cache) {
            real *cached = exp_cache_at(t->exp_cache, from - first);
            cached[0] = states->running_max[0];
            t->e = cached + EXP_CACHE_E;
        }
        class_tile_apply(s, t, states, softmax_exp_shifted, 0);
        class_tile_apply(s, t, states, softmax_accumulate_exp, 0);
        if (s->mode == SMOOTHED)
            class_tile_apply_weighted(s, t, states, softmax_accumulate_smoothed_terms);
        if (s->mode == SOFT)
            class_tile_apply_weighted(s, t, states, softmax_accumulate_soft_terms);
    }
    if (s->single_row)
        softmax_reduce_lanes(s, states);
}

/* The results of n rows from p on: m, R, and unless HARD the target terms. R is 0 without classes,
 * and NaN if the maximum is infinite, since the loss is then undefined. */
static void softmax_finish(const softmax_config *s, row_batch *r, int64_t p, int64_t n,
                           softmax_state *states)
{
    for (int64_t i = 0; i < n; i += LANES) {
        softmax_state *state = &states[i / LANES];
        lane_sum_renormalise(&state->exp_sum_rest);
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double R = state->exp_sum_rest.hi[k] + ((double)state->one_count[k] - 1);
            R = state->running_max[k] - state->running_max[k] == 0 ? R : (double)REAL_NAN;
            state->R[k] = s->C == 0 ? 0 : R;
        }
        const int columns = s->single_row ? 1 : LANES; /* entries after the last row are not used */
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            r->max[p + i + k] = state->running_max[k];
            r->R[p + i + k] = state->R[k];
        }
        if (s->mode == HARD)
            continue;
        lane_sum_renormalise(&state->weight_sum);
        lane_sum_renormalise(&state->weighted_gap_sum);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            r->weight_sum[p + i + k] = (fl_dd){state->weight_sum.hi[k], state->weight_sum.lo[k]};
            r->weighted_gap_sum[p + i + k] = state->weighted_gap_sum.hi[k];
        }
    }
}

/* All parts of a tile's rows, then their results. */
static void softmax_rows(const softmax_config *s, row_batch *r, int64_t p, softmax_state *states,
                         class_tile *t, fl_partial *partial)
{
    real *exp_cache = t->exp_cache;
    softmax_accumulate_part(s, r, p, states, t, 0, partial);
    for (int64_t part = 1; part * s->classes_per_part < s->C; part++) {
        softmax_state part_state;
        t->exp_cache = exp_cache ? exp_cache_at(exp_cache, part * s->classes_per_part) : 0;
        softmax_accumulate_part(s, r, p, &part_state, t, part, partial);
        softmax_combine_part(s, states, part_state);
    }
    t->exp_cache = exp_cache;
    softmax_finish(s, r, p, t->at.n, states);
}

#endif
