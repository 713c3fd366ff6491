/* The online softmax: Milakov & Gimelshein 2018 (arXiv:1805.02867), also the core of FlashAttention
 * (Dao et al. 2022, arXiv:2205.14135).
 *
 * Rows are read once, class tile by class tile. A softmax_state holds the running maximum m of the
 * classes read so far, and sums that refer to it by the gaps a_c = m - x_c >= 0:
 *
 *     R              Σ exp(-a_c) - 1, the sum without one maximal entry
 *     target terms   SOFT: Q = Σ q_c and Σ q_c a_c; SMOOTHED: Σ w_c and Σ w_c a_c
 *
 * Entries with exp(-a_c) = 1 are counted, not summed, so R keeps full relative accuracy, however
 * small it is.
 *
 * For each tile (softmax_accumulate_part):
 *     softmax_update_candidate_max   maximum including this tile
 *     softmax_rescale_to_max         sums rescaled from the running to the candidate maximum
 *     softmax_exp_shifted            e = exp(x - m)
 *     softmax_accumulate_exp         Σ e
 *     softmax_accumulate_*_terms     target terms
 * At the end:
 *     softmax_reduce_lanes           lanes of a single row combined
 *     softmax_combine_part           parts of a single row combined
 *     softmax_finish                 results stored by row */
#ifndef FASTLOSS_SOFTMAX_ONLINE_H
#define FASTLOSS_SOFTMAX_ONLINE_H

#include "losses/class_tile.h"
#include "vector/vector_math.h"
#include "vector/vector_math_tmpl.h"

#include <string.h>

/* The state of LANES rows, or of a single row. For a single row each lane holds the sums of its own
 * classes until softmax_reduce_lanes() replaces them by the sums of the row. */
typedef struct {
    real running_max[LANES];   /* m, the maximum that the sums refer to */
    real candidate_max[LANES]; /* the maximum including the current tile */
    double one_count[LANES];   /* number of entries with exp(-a) = 1; a float ends at 2^24 */
    lane_sum exp_sum_rest;     /* Σ exp(-a) over all other entries */
    double R[LANES];           /* exp_sum_rest + one_count - 1 */
    lane_sum weight_sum;       /* SOFT: Q; SMOOTHED: Σ w_c */
    lane_sum weighted_gap_sum; /* SOFT: Σ q_c a_c; SMOOTHED: Σ w_c a_c */
    /* for softmax_gradient.h: */
    real log1p_R[LANES];
    real active[LANES];
    double grad_scale[LANES];
    double grad_scale_over_S[LANES];     /* S = 1 + R; HARD: times w_y */
    double smoothed_label_weight[LANES]; /* (1 - ε) w_y */
} softmax_state;

/* The results, by row of the batch. */
typedef struct {
    real x_label[FL_ROW_BATCH];            /* x_y; not if SOFT */
    real max[FL_ROW_BATCH];                /* m */
    double R[FL_ROW_BATCH];                /* Σ exp(-a) - 1 */
    fl_dd weight_sum[FL_ROW_BATCH];        /* SOFT: Q; SMOOTHED: Σ w_c */
    double weighted_gap_sum[FL_ROW_BATCH]; /* SOFT: Σ q_c a_c; SMOOTHED: Σ w_c a_c */
    double extended_gap_sum[FL_ROW_BATCH]; /* Σ q_c a_c where weighted_gap_sum overflows; SMOOTHED:
                                              ε/C Σ w_c a_c */
    real dx_label[FL_ROW_BATCH];           /* dl/dx_y; not if SOFT */
} softmax_results;

/* --- a lane block --- */

/* A loop over a lane block. `columns` is LANES, a constant after inlining, or less for the
 * incomplete last vector of a single row. `weighted`, a constant, is 1 with class weights. */
typedef void lane_block_fn(const softmax_config *s, lane_block b, softmax_state *state,
                           const int columns, const int weighted);

/* Applies f to each lane block of a tile; `states` has an entry for each. */
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

/* Applies f, specialised to whether there are class weights. */
static INLINE void class_tile_apply_weighted(const softmax_config *s, class_tile *t,
                                             softmax_state *states, lane_block_fn f)
{
    if (s->class_weight)
        class_tile_apply(s, t, states, f, 1);
    else
        class_tile_apply(s, t, states, f, 0);
}

/* Even and odd vectors form two independent chains, which hides the latency of the comparison. A
 * NaN may be skipped here, since it reappears in R. */
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

/* Rescales the running sums to maxima that are no smaller than the running ones. Where the maximum
 * grows, entries with exp(-a) = 1 become part of exp_sum_rest, which is multiplied by
 * exp(m_old - m_new), and if `gaps` are summed, each grows by m_new - m_old. */
static void softmax_rescale_to_max(softmax_state *state, const real *max, const int gaps)
{
    double factor[LANES], change[LANES];
    int_real same = 1; /* as wide as the maxima, so that whole registers are compared */
#pragma omp simd reduction(& : same)
    for (int k = 0; k < LANES; k++)
        same &= (int_real)(state->running_max[k] == max[k]);
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
        add_to_lane(&state->exp_sum_rest, k, is_same ? 0 : state->one_count[k]);
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

/* e = exp(-a) = exp(x - m), exactly 1 for a maximum. An incomplete vector is padded with -inf, for
 * which e = 0. */
static INLINE void softmax_exp_shifted(const softmax_config *s, lane_block b, softmax_state *state,
                                       const int columns, const int weighted)
{
    real m[LANES], padded[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++) {
        m[k] = softmax_shift(state->running_max[k]);
        padded[k] = -REAL_INFINITY;
    }
    if (columns < LANES) {
        for (int k = 0; k < columns; k++)
            padded[k] = b.x[k];
        softmax_exp_vector(padded, b.e, m);
        return;
    }
    for (int64_t i = 0; i < b.vectors; i++) {
        __builtin_prefetch(b.x_next + i * b.x_next_stride);
        softmax_exp_vector(b.x + i * b.stride, b.e + i * b.stride, m);
    }
}

/* Returns e, or 0 if e = 1, which adds 1 to the counter. Floats take one instruction less by masks;
 * SSE2 has none for doubles. */
#if REAL_IS_DOUBLE
typedef real one_counter;
static INLINE real remove_one(real e, one_counter *count)
{
    const real one = e == 1 ? 1 : 0;
    *count += one;
    return e - one;
}
#else
typedef int_real one_counter;
static INLINE real remove_one(real e, one_counter *count)
{
    const uint_real mask = e == 1 ? ~(uint_real)0 : 0;
    *count -= (int_real)mask; /* -1 or 0 */
    return real_from_bits(real_bits(e) & ~mask);
}
#endif

/* Adds e to exp_sum_rest, or counts it if it equals 1. This is not fused with softmax_exp_shifted:
 * the loop would have more instructions than a reorder buffer holds. */
static INLINE void softmax_accumulate_exp(const softmax_config *s, lane_block b,
                                          softmax_state *state, const int columns,
                                          const int weighted)
{
    lane_sum rest;
    copy_lane_sum(&rest, &state->exp_sum_rest);
    one_counter one_count[LANES]; /* of this tile */
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        one_count[k] = 0;
    for (int64_t i = 0; i < b.vectors; i++)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            const real e = b.e[i * b.stride + k];
            add_to_lane(&rest, k, (double)remove_one(e, &one_count[k]));
        }
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        state->one_count[k] += (double)one_count[k];
    copy_lane_sum(&state->exp_sum_rest, &rest);
}

/* w[k] is the class weight of lane k of vector i. */
static INLINE void lane_block_class_weights(const softmax_config *s, lane_block b, int64_t i,
                                            double *w, const int columns, const int weighted)
{
    if (!weighted) {
#pragma omp simd
        for (int k = 0; k < columns; k++)
            w[k] = 1;
        return;
    }
#pragma omp simd
    for (int k = 0; k < columns; k++)
        w[k] = s->single_row ? b.class_weight[i * LANES + k] : b.class_weight[i];
}

/* Adds q and q a if `soft`, else w and w a. A factor of exactly 0 removes the class, whatever x
 * holds; a product that underflows to 0 does not. Floats: a may overflow, which
 * softmax_mend_gap_sum() mends. */
static INLINE void softmax_accumulate_target_terms(const softmax_config *s, lane_block b,
                                                   softmax_state *state, const int columns,
                                                   const int weighted, const int soft,
                                                   const int smoothed)
{
    lane_sum weight_sum, gap_sum;
    real shift[LANES];
    copy_lane_sum(&weight_sum, &state->weight_sum);
    copy_lane_sum(&gap_sum, &state->weighted_gap_sum);
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        shift[k] = softmax_shift(state->running_max[k]);
    if (!weighted && !soft)
        for (int k = 0; k < columns; k++)
            add_to_lane(&weight_sum, k, (double)b.vectors);
    for (int64_t i = 0; i < b.vectors; i++) {
        double w[LANES];
        lane_block_class_weights(s, b, i, w, columns, weighted);
        if (soft)
            __builtin_prefetch(b.y_next + i * b.y_next_stride);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            const int64_t j = i * b.stride + k;
            real a = shift[k] - b.x[j];
            if (soft && !smoothed)
                a = b.y[j] == 0 ? 0 : a;
            double q = 1;
            if (soft)
                q = smoothed ? s->one_minus_eps * (double)b.y[j] + s->eps_over_C : (double)b.y[j];
            if (weighted) {
                a = w[k] == 0 ? 0 : a;
                add_to_lane(&gap_sum, k, w[k] * (q * (double)a));
                q *= w[k];
            } else if (soft)
                add_product_to_lane(&gap_sum, k, q, (double)a);
            else
                add_to_lane(&gap_sum, k, (double)a);
            if (weighted || soft)
                add_to_lane(&weight_sum, k, q);
        }
    }
    copy_lane_sum(&state->weight_sum, &weight_sum);
    copy_lane_sum(&state->weighted_gap_sum, &gap_sum);
}

static INLINE void softmax_accumulate_smoothed_terms(const softmax_config *s, lane_block b,
                                                     softmax_state *state, const int columns,
                                                     const int weighted)
{
    softmax_accumulate_target_terms(s, b, state, columns, weighted, 0, 1);
}

static INLINE void softmax_accumulate_soft_terms(const softmax_config *s, lane_block b,
                                                 softmax_state *state, const int columns,
                                                 const int weighted)
{
    softmax_accumulate_target_terms(s, b, state, columns, weighted, 1, 0);
}

static INLINE void softmax_accumulate_smoothed_soft_terms(const softmax_config *s, lane_block b,
                                                          softmax_state *state, const int columns,
                                                          const int weighted)
{
    softmax_accumulate_target_terms(s, b, state, columns, weighted, 1, 1);
}

/* --- reductions --- */

static INLINE void lanes_broadcast(real *v, real value)
{
    for (int k = 0; k < LANES; k++)
        v[k] = value;
}

static INLINE void doubles_broadcast(double *v, double value)
{
    for (int k = 0; k < LANES; k++)
        v[k] = value;
}

static INLINE void lane_sum_broadcast(lane_sum *sum, fl_dd total)
{
    for (int k = 0; k < LANES; k++) {
        sum->hi[k] = total.hi;
        sum->lo[k] = total.lo;
    }
}

/* Renormalises each lane: hi becomes the rounded sum and lo its residual. */
static INLINE void lane_sum_renormalise(lane_sum *sum)
{
#if REAL_IS_DOUBLE
    for (int k = 0; k < LANES; k++) {
        fl_dd s = fast_two_sum(sum->hi[k], sum->lo[k]);
        int finite = s.hi - s.hi == 0; /* inf and NaN have no residual */
        sum->hi[k] = finite ? s.hi : sum->hi[k];
        sum->lo[k] = finite ? s.lo : 0;
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

/* Combines the lanes of a single row, which share one running maximum. */
static void softmax_reduce_lanes(const softmax_config *s, softmax_state *state)
{
    lane_sum_broadcast(&state->exp_sum_rest, reduce_lanes(&state->exp_sum_rest));
    doubles_broadcast(state->one_count, reduce_sum(state->one_count, LANES));
    if (s->mode != HARD) {
        lane_sum_broadcast(&state->weight_sum, reduce_lanes(&state->weight_sum));
        lane_sum_broadcast(&state->weighted_gap_sum, reduce_lanes(&state->weighted_gap_sum));
    }
}

/* Adds the state of other classes of the same rows: both are rescaled to the larger maximum, then
 * summed. */
static void softmax_combine_part(const softmax_config *s, softmax_state *state, softmax_state *part)
{
    real max[LANES];
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        max[k] = state->running_max[k] < part->running_max[k] ? part->running_max[k]
                                                              : state->running_max[k];
    softmax_rescale_to_max(state, max, s->mode != HARD);
    softmax_rescale_to_max(part, max, s->mode != HARD);
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        state->one_count[k] += part->one_count[k];
    lane_sum_add(&state->exp_sum_rest, &part->exp_sum_rest);
    if (s->mode != HARD) {
        lane_sum_add(&state->weight_sum, &part->weight_sum);
        lane_sum_add(&state->weighted_gap_sum, &part->weighted_gap_sum);
    }
}

/* --- rows --- */

/* Stores x_y of the rows whose label is in the tile. The value for a row without label is not
 * used. */
static INLINE void softmax_store_labelled(const softmax_config *s, const class_tile *t,
                                          softmax_results *results)
{
    if (s->mode == SOFT)
        return;
    const int whole_rows = t->at.from == 0 && t->at.to == s->C;
    for (int64_t i = 0; whole_rows && i < t->at.n; i++) {
        const int64_t label = t->label[i] < 0 ? 0 : t->label[i];
        results->x_label[t->first_row + i] = t->x[class_tile_index(t, label, i)];
    }
    for (int64_t i = 0; !whole_rows && i < t->at.n; i++)
        if (class_tile_has_label(t, i))
            results->x_label[t->first_row + i] = t->x[class_tile_index(t, t->label[i], i)];
}

/* Accumulates one part of the classes of a tile's rows into the states of the tile's lane blocks,
 * and stores x_y of the rows whose label is in this part. Fills the exp cache, if there is one. */
static void softmax_accumulate_part(const softmax_config *s, class_tile *t, softmax_state *states,
                                    softmax_results *results, int64_t part, fl_partial *partial)
{
    const int n = class_tile_lane_blocks(s, t);
    const int64_t first = part * s->classes_per_part, last = softmax_part_end(s, part);
    for (int i = 0; i < n; i++)
        softmax_reset(s, &states[i]);
    for (int64_t from = first; from < last; from = t->at.to) {
        class_tile_load(s, t, from, s->classes_per_tile);
        if (s->mode == SOFT)
            class_tile_check_probabilities(s, t, partial);
        class_tile_apply(s, t, states, softmax_update_candidate_max, 0);
        softmax_store_labelled(s, t, results);
        if (s->single_row)
            lanes_broadcast(states->candidate_max, reduce_real_max(states->candidate_max, LANES));
        for (int i = 0; i < n; i++)
            if (from == first)
                memcpy(states[i].running_max, states[i].candidate_max,
                       sizeof states[i].running_max);
            else
                softmax_rescale_to_max(&states[i], states[i].candidate_max, s->mode != HARD);
        if (t->exp_cache) {
            exp_cache_tile *cached = &t->exp_cache[(from - first) / TILE_2D];
            cached->running_max = states->running_max[0];
            t->e = cached->e;
        }
        class_tile_apply(s, t, states, softmax_exp_shifted, 0);
        class_tile_apply(s, t, states, softmax_accumulate_exp, 0);
        if (s->mode == SMOOTHED)
            class_tile_apply_weighted(s, t, states, softmax_accumulate_smoothed_terms);
        if (s->mode == SOFT && s->eps_over_C == 0)
            class_tile_apply_weighted(s, t, states, softmax_accumulate_soft_terms);
        else if (s->mode == SOFT)
            class_tile_apply_weighted(s, t, states, softmax_accumulate_smoothed_soft_terms);
    }
    if (s->single_row)
        softmax_reduce_lanes(s, states);
}

/* Stores the results of a tile's rows: m, R and, unless HARD, the target terms. R is 0 if there are
 * no classes, and NaN if the maximum is infinite, because the loss is then undefined. */
static void softmax_finish(const softmax_config *s, const class_tile *t, softmax_state *states,
                           softmax_results *results)
{
    const int columns = s->single_row ? 1 : LANES; /* columns after the last row are ignored */
    for (int64_t i = 0; i < t->at.n; i += LANES) {
        softmax_state *state = &states[i / LANES];
        const int64_t row = t->first_row + i;
        lane_sum_renormalise(&state->exp_sum_rest);
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double R = state->exp_sum_rest.hi[k] + (state->one_count[k] - 1);
            R = state->running_max[k] - state->running_max[k] == 0 ? R : (double)REAL_NAN;
            state->R[k] = s->C == 0 ? 0 : R;
        }
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            results->max[row + k] = state->running_max[k];
            results->R[row + k] = state->R[k];
        }
        if (s->mode == HARD)
            continue;
        lane_sum_renormalise(&state->weight_sum);
        lane_sum_renormalise(&state->weighted_gap_sum);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            results->weight_sum[row + k] =
                (fl_dd){state->weight_sum.hi[k], state->weight_sum.lo[k]};
            results->weighted_gap_sum[row + k] = state->weighted_gap_sum.hi[k];
        }
    }
}

/* Σ q_c a_c of a row in extended precision; SMOOTHED: Σ w_c a_c, for doubles ε/C Σ w_c a_c. */
static double softmax_extended_gap_sum(const softmax_config *s, int64_t unit, real max)
{
    ALIGNED real x_tile[TILE], y_tile[TILE];
    long double sum = 0;
    for (int64_t from = 0, n; from < s->C; from += n) {
        n = s->C - from < TILE ? s->C - from : TILE;
        const real *x = fl_load(&s->call->operand[0], unit * s->C + from, n, x_tile);
        const real *y =
            s->mode == SOFT ? fl_load(&s->call->operand[1], unit * s->C + from, n, y_tile) : x;
        for (int64_t c = 0; c < n; c++) {
            double factor = s->mode == SMOOTHED && !REAL_IS_DOUBLE ? 1 : s->eps_over_C;
            factor += s->mode == SOFT ? s->one_minus_eps * (double)y[c] : 0;
            factor *= s->class_weight ? s->class_weight[from + c] : 1;
            sum += factor == 0 ? 0 : factor * ((long double)max - (long double)x[c]);
        }
    }
    return (double)sum;
}

/* Mends the gap sum of a row if it is infinite: a sum of doubles may have overflowed though the
 * loss does not, and a gap of floats though the sum does not. */
static void softmax_mend_gap_sum(const softmax_config *s, int64_t unit, real max, double *gap_sum,
                                 double *extended_gap_sum)
{
    if (*gap_sum != __builtin_inf())
        return;
    *extended_gap_sum = softmax_extended_gap_sum(s, unit, max);
    if (!REAL_IS_DOUBLE)
        *gap_sum = *extended_gap_sum;
}

/* Accumulates all parts of a tile's rows, combines them in order and stores the results. */
static void softmax_rows(const softmax_config *s, class_tile *t, softmax_state *states,
                         softmax_results *results, fl_partial *partial)
{
    exp_cache_tile *exp_cache = t->exp_cache;
    softmax_accumulate_part(s, t, states, results, 0, partial);
    for (int64_t part = 1; part * s->classes_per_part < s->C; part++) {
        softmax_state part_state;
        t->exp_cache = exp_cache ? &exp_cache[part * s->classes_per_part / TILE_2D] : NULL;
        softmax_accumulate_part(s, t, &part_state, results, part, partial);
        softmax_combine_part(s, states, &part_state);
    }
    t->exp_cache = exp_cache;
    softmax_finish(s, t, states, results);
    int64_t infinite = 0;
    for (int64_t row = t->first_row; s->mode != HARD && row < t->first_row + t->at.n; row++)
        infinite += results->weighted_gap_sum[row] == __builtin_inf();
    for (int64_t i = 0; infinite > 0 && i < t->at.n; i++) {
        const int64_t row = t->first_row + i;
        softmax_mend_gap_sum(s, t->at.first + i, results->max[row], &results->weighted_gap_sum[row],
                             &results->extended_gap_sum[row]);
    }
}

#endif
