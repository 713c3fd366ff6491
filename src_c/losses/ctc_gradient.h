/* Posteriors, gradients and values. A pass computes the gradient of the frames after its midpoint:
 *
 *     γ_t(c) = Σ_{s: l'_s = c} α_t(s) β_t(s) / (y_t(c) P),
 *     gradient = y_t(c) - γ_t(c), equation (16), or γ_t(c) itself. */
#ifndef FASTLOSS_CTC_GRADIENT_H
#define FASTLOSS_CTC_GRADIENT_H

#include "losses/ctc_alpha_beta.h"
#include "vector/unit_outputs.h"

/* Sets the gradient of frames [from, to) of a sample to v. */
static void ctc_fill_frames(const fl_call *call, int64_t n, int64_t from, int64_t to, real v)
{
    ALIGNED real tile[TILE];
    int64_t entry = ctc_frame_entry(call, n, from), end = ctc_frame_entry(call, n, to);
    for (; entry < end; entry += TILE) {
        int64_t m = end - entry < TILE ? end - entry : TILE;
        real *g = fl_output_buffer(call->output[FL_GRADIENT], entry, m, tile);
        for (int64_t i = 0; i < m; i++)
            g[i] = v;
        fl_store(call->output[FL_GRADIENT], entry, m, g);
    }
}

/* Whether input and gradient are different arrays. If so, frames are checked while their gradient
 * is computed; else all are checked before anything is written. */
static int ctc_gradient_is_separate(const fl_call *call)
{
    return call->output[FL_GRADIENT]->data != call->operand[0].data;
}

/* posterior := p_factor p + posterior_factor posterior, (K); without p for ctc_posteriors. */
static void ctc_frame_gradient(const ctc_pass *pass, double p_factor, double posterior_factor)
{
    const double *restrict p = ctc_frame_p(pass);
    double *restrict gradient = pass->posterior;
    const int posterior_only = pass->call->formula == FL_FORMULA_ctc_posteriors;
#pragma omp simd
    for (int64_t k = 0; k < pass->padded_classes; k++)
        gradient[k] = gradient[k] * posterior_factor + (posterior_only ? 0 : p[k] * p_factor);
}

/* Writes the gradient of a frame if all classes are loaded. */
static void ctc_write_all_classes(const ctc_pass *pass, int64_t entry)
{
    ALIGNED real tile[TILE];
    const int64_t C = pass->call->sequences.C;
    const fl_array *gradient = pass->call->output[FL_GRADIENT];
    real *g = fl_output_buffer(gradient, entry, C, tile);
    ctc_from_double(C, pass->posterior, g);
    fl_store(gradient, entry, C, g);
}

/* Writes the gradient of a frame if only the classes in use are loaded. γ of the others is 0, and
 * their gradient is factor exp(x - shift). Returns Σ_c exp(x_c) for log-probabilities. */
static double ctc_write_used_classes(const ctc_pass *pass, int64_t entry, real shift, real factor)
{
    const fl_call *call = pass->call;
    const int64_t C = call->sequences.C;
    ALIGNED real x_tile[TILE], e[TILE], g_tile[TILE];
    fl_dd sum = {0, 0};
    for (int64_t from = 0, k = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        real *g = fl_output_buffer(call->output[FL_GRADIENT], entry + from, n, g_tile);
        if (call->formula == FL_FORMULA_ctc_posteriors) {
            memset(g, 0, (size_t)n * sizeof *g);
        } else {
            const real *x = fl_load(&call->operand[0], entry + from, n, x_tile);
            for (int64_t c = 0; c < n; c++)
                e[c] = EXP(x[c] - shift);
            for (int64_t c = 0; c < n; c++)
                g[c] = e[c] * factor;
            if (call->formula == FL_FORMULA_ctc)
                sum = dd_add(sum, sum_tile(e, n));
        }
        for (; k < pass->class_count && pass->class_index[k] < from + n; k++)
            g[pass->class_index[k] - from] = (real)pass->posterior[k];
        fl_store(call->output[FL_GRADIENT], entry + from, n, g);
    }
    return sum.hi;
}

/* Writes the gradient of frame j: scale (p_scale p - posterior / total), or posterior / total for
 * ctc_posteriors. total = Σ posterior; the opposite pass has stored p_scale. */
static void ctc_write_frame(ctc_pass *pass, const ctc_pass *opposite, int64_t j, double total,
                            double scale, fl_partial *partial)
{
    const fl_call *call = pass->call;
    const int64_t t = ctc_frame_index(pass, j), opposite_j = pass->T - 1 - j,
                  entry = ctc_frame_entry(call, pass->sample, t);
    const double p_scale = opposite->p_scale[opposite_j], R = opposite->sum_minus_one[opposite_j];
    double probability_sum = p_scale * (1 + R);
    ctc_frame_gradient(pass, p_scale * scale,
                       call->formula == FL_FORMULA_ctc_posteriors ? 1 / total : -scale / total);
    if (pass->uses_all_classes)
        ctc_write_all_classes(pass, entry);
    else
        probability_sum = ctc_write_used_classes(
            pass, entry, (real)opposite->softmax_max[opposite_j], (real)(scale / (1 + R)));
    if (call->formula == FL_FORMULA_ctc && ctc_gradient_is_separate(call))
        ctc_check_frame_sum(call, pass->sample, t, probability_sum, partial);
}

/* The divisor of a sample's loss where it is summed or differentiated. */
static double ctc_target_length(const fl_call *call, int64_t n)
{
    const int64_t S = call->sequences.labels[n];
    return call->sequences.per_label && S > 1 ? (double)S : 1;
}

/* The factor of a sample's gradients. */
static double ctc_gradient_scale(const fl_call *call, int64_t n, double weight, fl_partial *partial)
{
    if (call->formula == FL_FORMULA_ctc_posteriors)
        return 1;
    double scale;
    load_gradient_scale(call, n, 1, &weight, NULL, &scale, partial);
    return scale / ctc_target_length(call, n);
}

/* Writes the value of a sample and adds it to the sums. */
static void ctc_write_value(const fl_call *call, int64_t n, double loss, double weight,
                            fl_partial *partial)
{
    const double *product = call->sample_weight.data ? &weight : NULL;
    const unit_weights w = sample_weights_only(product);
    real unweighted = (real)loss, l = (real)(loss * weight);
    const unit_losses losses = {
        .weight = &w, .l = &unweighted, .target_length = ctc_target_length(call, n)};
    emit_losses(call, n, 1, &losses, sum_unit_losses(&losses, 1), &w, &weight, partial);
    fl_store(call->output[FL_LOSSES], n, 1, &l);
}

/* Continues a pass from its midpoint to its last frame. Combines each of its rows with the row of
 * the opposite pass at the same frame, and writes the gradient of the frame. */
static void ctc_write_gradient(ctc_pass *pass, const ctc_pass *opposite, ctc_pass *recompute,
                               scaled_double at_midpoint, double scale, fl_partial *partial)
{
    double total = at_midpoint.m;
    for (int64_t j = pass->midpoint; j < pass->T; j++) {
        if (j > pass->midpoint) {
            ctc_set_frame(pass, j);
            ctc_row opposite_row = ctc_recompute_row(recompute, opposite, pass->T - 1 - j);
            double top = ctc_frame_top(pass, j, opposite_row, at_midpoint.e);
            total = ctc_combine_frame(pass, j, opposite_row, top);
        }
        ctc_write_frame(pass, opposite, j, total, scale, partial);
        ctc_step(pass, j);
    }
}

/* Writes the gradient of the same frames if the loss is not finite, so that there are no
 * posteriors: NaN, or 0 if zero_infinity has replaced the loss by 0. */
static void ctc_write_undefined_gradient(const ctc_pass *pass, double loss, fl_partial *partial)
{
    const fl_call *call = pass->call;
    const int64_t from = pass->direction == CTC_BETA ? 0 : pass->T / 2,
                  to = pass->direction == CTC_BETA ? pass->T / 2 : pass->T;
    ctc_fill_frames(call, pass->sample, from, to, loss == 0 ? 0 : REAL_NAN);
    if (call->formula == FL_FORMULA_ctc && ctc_gradient_is_separate(call))
        ctc_check_frames(call, pass->sample, from, to, partial);
}

#endif
