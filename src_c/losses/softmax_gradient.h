/* Gradients of cross entropy, first of the lane blocks of a class tile, then of whole rows.
 *
 * f is the factor of a row's gradients (sample weight, grad_output, divisor of a mean), S = 1 + R
 * and L = log1p(R):
 *
 *     dl/dx_j = f/S (exp(-a_j) (Q - q_j) - q_j (R + 1 - exp(-a_j)))
 *     dl/dy_j = f (1 - ε) w_j (a_j + L)
 *
 * where Q - q_j and R + 1 - exp(-a_j) are sums over the other classes. If y is a class index, the
 * loops treat every class as if it were not the label; dl/dx_y then overwrites its entry. */
#ifndef FASTLOSS_SOFTMAX_GRADIENT_H
#define FASTLOSS_SOFTMAX_GRADIENT_H

#include "losses/softmax_online.h"

/* dl/dx_j for q = q_j and q_sum_excl = Q - q_j. */
static INLINE double softmax_grad_class(double grad_scale_over_S, double e, double R, double q,
                                        double q_sum_excl)
{
    return grad_scale_over_S * (e * q_sum_excl - q * (R + (1 - e)));
}

/* HARD: q_j = 0 and Q = w_y. */
static INLINE void softmax_grad_hard(const softmax_config *s, lane_block b, softmax_state *state,
                                     const int columns, const int weighted)
{
    real scale[LANES];
#pragma omp simd
    for (int k = 0; k < columns; k++)
        scale[k] = (real)(state->grad_scale_over_S[k] * b.exp_rescale);
    for (int64_t i = 0; i < b.vectors; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++)
            b.dx[i * b.stride + k] = state->active[k] == 0 ? 0 : b.e[i * b.stride + k] * scale[k];
}

/* SMOOTHED: q_j = ε/C w_j. */
static INLINE void softmax_grad_smoothed(const softmax_config *s, lane_block b,
                                         softmax_state *state, const int columns,
                                         const int weighted)
{
    for (int64_t i = 0; i < b.vectors; i++) {
        double w[LANES];
        lane_block_class_weights(s, b, i, w, columns, weighted);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            double w_sum_excl = (state->weight_sum.hi[k] - w[k]) + state->weight_sum.lo[k];
            double dx = softmax_grad_class(
                state->grad_scale_over_S[k], (double)b.e[i * b.stride + k] * b.exp_rescale,
                state->R[k], s->eps_over_C * w[k],
                s->eps_over_C * w_sum_excl + state->smoothed_label_weight[k]);
            b.dx[i * b.stride + k] = state->active[k] == 0 ? 0 : (real)dx;
        }
    }
}

/* SOFT: dl/dx, and dl/dy if `with_dy`. With out=input, dx is x and dy is y: both are read first. */
static INLINE void softmax_grad_soft(const softmax_config *s, lane_block b, softmax_state *state,
                                     const int columns, const int weighted, const int with_dy)
{
    for (int64_t i = 0; i < b.vectors; i++) {
        double w[LANES];
        lane_block_class_weights(s, b, i, w, columns, weighted);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            int64_t j = i * b.stride + k;
            double q = w[k] * (s->one_minus_eps * (double)b.y[j] + s->eps_over_C);
            double dq_dy = s->one_minus_eps * w[k];
            double a = (double)state->running_max[k] - (double)b.x[j];
            double q_sum_excl = (state->weight_sum.hi[k] - q) + state->weight_sum.lo[k];
            double e = (double)b.e[j] * b.exp_rescale;
            double dx =
                softmax_grad_class(state->grad_scale_over_S[k], e, state->R[k], q, q_sum_excl);
            double dy =
                dq_dy == 0 ? 0 : state->grad_scale[k] * (dq_dy * (a + (double)state->log1p_R[k]));
            double nan = state->weight_sum.hi[k] + state->R[k]; /* NaN if x or y holds one */
            b.dx[j] = state->active[k] == 0 ? 0 : (real)dx;
            if (with_dy)
                b.dy[j] = state->active[k] == 0 ? 0 : (real)(nan == nan ? dy : nan);
        }
    }
}

static INLINE void softmax_grad_soft_x(const softmax_config *s, lane_block b, softmax_state *state,
                                       const int columns, const int weighted)
{
    softmax_grad_soft(s, b, state, columns, weighted, 0);
}

static INLINE void softmax_grad_soft_xy(const softmax_config *s, lane_block b, softmax_state *state,
                                        const int columns, const int weighted)
{
    softmax_grad_soft(s, b, state, columns, weighted, 1);
}

/* Whether softmax_grad_row() applies to a single row of floats without class weights: its factors
 * are so close to 1 that a product leaves the range of floats only where dl/dx does. */
static int softmax_grad_is_ordinary(const softmax_config *s, const softmax_state *state)
{
    const double scale = __builtin_fabs(state->grad_scale_over_S[0]), Q = state->weight_sum.hi[0];
    if (REAL_IS_DOUBLE || !s->single_row || s->class_weight || state->active[0] == 0)
        return 0;
    return scale <= 1 && scale >= 0x1p-100 &&
           (s->mode == SMOOTHED || (s->eps_over_C == 0 && Q >= 0.5 && Q <= 2));
}

/* dl/dx of a single row, SMOOTHED or, if `soft`, SOFT without smoothing, in real. Q - y_j is exact
 * but for its last rounding: Q is in two parts. */
static INLINE void softmax_grad_row(const softmax_config *s, lane_block b, softmax_state *state,
                                    const int columns, const int soft)
{
    const double Q = state->weight_sum.hi[0],
                 q_sum_excl = s->eps_over_C * (Q - 1) + state->smoothed_label_weight[0];
    const real scale = (real)state->grad_scale_over_S[0], R = (real)state->R[0],
               rescale = (real)b.exp_rescale, Q_hi = (real)Q, Q_lo = (real)(Q - (double)Q_hi);
    for (int64_t i = 0; i < b.vectors; i++)
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            const int64_t j = i * b.stride + k;
            const real e = b.e[j] * rescale, q = soft ? b.y[j] : (real)s->eps_over_C;
            const real others = soft ? (Q_hi - q) + Q_lo : (real)q_sum_excl;
            b.dx[j] = scale * FMA(e, others, -(q * (R + (1 - e))));
        }
}

static INLINE void softmax_grad_smoothed_row(const softmax_config *s, lane_block b,
                                             softmax_state *state, const int columns,
                                             const int weighted)
{
    softmax_grad_row(s, b, state, columns, 0);
}

static INLINE void softmax_grad_soft_row(const softmax_config *s, lane_block b,
                                         softmax_state *state, const int columns,
                                         const int weighted)
{
    softmax_grad_row(s, b, state, columns, 1);
}

/* Fills in what the gradients need of each lane, and computes dl/dx_y of each row. Lanes after the
 * last row are ignored. */
static void softmax_grad_prepare(const softmax_config *s, const row_batch *r, const class_tile *t,
                                 softmax_state *states, softmax_results *results)
{
    const int columns = s->single_row ? 1 : LANES;
    for (int64_t i = 0; i < t->at.n; i += LANES) {
        const int64_t row = t->first_row + i;
        softmax_state *state = &states[i / LANES];
        real e_label[LANES];
#pragma omp simd
        for (int k = 0; k < columns; k++)
            e_label[k] = EXP_NEGATIVE(results->x_label[row + k] - results->max[row + k]);
#pragma omp simd
        for (int k = 0; k < columns; k++) {
            const double R = results->R[row + k], w = r->label_weight[row + k];
            const double grad_scale_over_S = r->grad_scale[row + k] / (1 + R);
            double q = w, q_sum_excl = 0;
            state->active[k] = r->active[row + k];
            state->grad_scale[k] = r->grad_scale[row + k];
            state->smoothed_label_weight[k] = s->one_minus_eps * w;
            state->grad_scale_over_S[k] = grad_scale_over_S * (s->mode == HARD ? w : 1);
            if (s->mode != HARD) {
                const fl_dd w_sum = results->weight_sum[row + k];
                q = (s->one_minus_eps + s->eps_over_C) * w;
                q_sum_excl = s->eps_over_C * ((w_sum.hi - w) + w_sum.lo);
            }
            double dx = softmax_grad_class(grad_scale_over_S, (double)e_label[k], R, q, q_sum_excl);
            results->dx_label[row + k] = r->active[row + k] == 0 ? 0 : (real)dx;
        }
    }
    if (s->single_row)
        for (int k = 1; k < LANES; k++) {
            states->active[k] = states->active[0];
            states->grad_scale[k] = states->grad_scale[0];
            states->grad_scale_over_S[k] = states->grad_scale_over_S[0];
            states->smoothed_label_weight[k] = states->smoothed_label_weight[0];
        }
}

/* Writes the gradients of classes [first, last) of a tile's rows. e is recomputed unless the tile
 * or the exp cache still holds it from the forward pass. */
static void softmax_grad_write(const softmax_config *s, class_tile *t, softmax_state *states,
                               const softmax_results *results, int64_t first, int64_t last)
{
    const int wants_x = s->call->output[FL_GRADIENT] != NULL;
    const int wants_y = s->call->output[FL_GRADIENT + 1] != NULL;
    const int recomputes_exp = s->classes_per_tile < s->C && !t->exp_cache;
    const int64_t classes = s->single_row && recomputes_exp ? TILE : s->classes_per_tile;
    const int is_ordinary = softmax_grad_is_ordinary(s, states);
    if (wants_y)
        for (int i = 0; i < class_tile_lane_blocks(s, t); i++)
            for (int k = 0; k < LANES; k++)
                states[i].log1p_R[k] = LOG1P((real)states[i].R[k]);
    for (int64_t from = first; from < last; from = t->at.to) {
        if (recomputes_exp || s->mode == SOFT)
            class_tile_load(s, t, from, classes);
        else
            class_tile_seek(s, t, from, classes);
        if (t->exp_cache) {
            exp_cache_tile *cached = &t->exp_cache[(from - first) / TILE_2D];
            t->exp_rescale = (double)cached->running_max - (double)states->running_max[0];
            vector_math_double(MATH_EXP, 1, &t->exp_rescale, &t->exp_rescale);
            t->e = cached->e;
        }
        t->dx = wants_x ? class_tile_grad_buffer(s, 0, t->at, t->e_tile) : t->e_tile;
        t->dy = wants_y ? class_tile_grad_buffer(s, 1, t->at, t->y_tile) : t->y_tile;
        if (recomputes_exp)
            class_tile_apply(s, t, states, softmax_exp_shifted, 0);
        if (wants_y)
            class_tile_apply_weighted(s, t, states, softmax_grad_soft_xy);
        else if (s->mode == SOFT && is_ordinary)
            class_tile_apply(s, t, states, softmax_grad_soft_row, 0);
        else if (s->mode == SOFT)
            class_tile_apply_weighted(s, t, states, softmax_grad_soft_x);
        else if (s->mode == SMOOTHED && is_ordinary)
            class_tile_apply(s, t, states, softmax_grad_smoothed_row, 0);
        else if (s->mode == SMOOTHED)
            class_tile_apply_weighted(s, t, states, softmax_grad_smoothed);
        else
            class_tile_apply(s, t, states, softmax_grad_hard, 0);
        for (int64_t i = 0; i < t->at.n; i++)
            if (class_tile_has_label(t, i))
                t->dx[class_tile_index(t, t->label[i], i)] = results->dx_label[t->first_row + i];
        if (wants_x)
            class_tile_store_grad(s, 0, t->at, t->dx);
        if (wants_y)
            class_tile_store_grad(s, 1, t->at, t->dy);
    }
}

#endif
