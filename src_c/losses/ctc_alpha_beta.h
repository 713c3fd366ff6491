/* The forward (alpha) and the backward (beta) pass, and the total probability where they meet.
 *
 * ctc_run_to_midpoint() runs either pass over its half of the frames. The gradient needs the rows
 * of that half when the opposite pass reaches their frames. If they are few they stay resident;
 * else about every √(T/2)-th row is stored as a checkpoint, and ctc_recompute_row() recomputes the
 * rows from there to the next checkpoint. */
#ifndef FASTLOSS_CTC_ALPHA_BETA_H
#define FASTLOSS_CTC_ALPHA_BETA_H

#include "losses/ctc_frames.h"

/* A pass before its first frame. Returns NULL if a label is invalid or there is no memory, which is
 * recorded. More labels than frames have no alignment, P = 0: the pass then has no labels and the
 * log scale -inf. */
static ctc_pass *ctc_new_pass(const fl_call *call, int64_t n, ctc_direction direction,
                              int recomputes, fl_partial *partial)
{
    const int64_t labels = call->sequences.labels[n];
    const int is_feasible = labels <= call->sequences.frames[n];
    if (!is_feasible && !ctc_load_labels(call, n, NULL, partial))
        return NULL;
    const ctc_geometry g =
        ctc_pass_geometry(call, n, is_feasible ? labels : 0, direction, recomputes);
    ctc_pass *pass = ctc_alloc_pass(call, n, direction, &g, partial);
    if (!pass)
        return NULL;
    if (is_feasible && !ctc_load_labels(call, n, pass->label_slot, partial)) {
        fl_scratch_free(pass);
        return NULL;
    }
    if (!is_feasible)
        pass->log_scale[0] = -__builtin_inf();
    ctc_set_target(pass);
    for (int64_t k = 0; k < pass->batch_frames * pass->padded_classes; k++)
        pass->scores[k] = -__builtin_inf(); /* remains in the padding */
    return pass;
}

/* The row at frame j: α_j(s) without the factor y_j, so it depends on frames 0 ... j - 1. */
static ctc_row *ctc_row_at_frame(const ctc_pass *pass, int64_t j)
{
    if (j < pass->resident_rows)
        return &pass->row[j];
    return &pass->row[pass->resident_rows + (j - pass->resident_rows) % pass->ring_rows];
}

/* One step of the recursion, from the row at frame j, the current frame, to the next row. */
static void ctc_step(ctc_pass *pass, int64_t j)
{
    ctc_alpha_step(&pass->lattice, j, ctc_row_at_frame(pass, j), &pass->frame,
                   ctc_row_at_frame(pass, j + 1));
}

static int ctc_is_checkpoint(const ctc_pass *pass, int64_t j)
{
    return pass->checkpoint_period > 1 && j % pass->checkpoint_period == 0;
}

/* The row of the opposite pass at its frame j < midpoint. If it is not resident, `recompute`, a
 * pass in the direction of the opposite one, computes it again; else `recompute` is NULL. Rows must
 * be requested in decreasing order of j, from midpoint - 1. */
static ctc_row ctc_recompute_row(ctc_pass *recompute, const ctc_pass *opposite, int64_t j)
{
    if (!recompute)
        return *ctc_row_at_frame(opposite, j);
    int64_t start = j - j % recompute->checkpoint_period;
    if (j == opposite->midpoint - 1 ||
        j % recompute->checkpoint_period == recompute->checkpoint_period - 1) {
        ctc_row first = ctc_row_at(recompute->row[0].blank - CTC_LANES, recompute->S);
        ctc_copy_row(recompute->S, opposite->checkpoint[start / recompute->checkpoint_period],
                     first);
        first.exponent_set = ++recompute->lattice.exponent_sets;
        recompute->row[0] = first;
        recompute->lattice.exponent_headroom = 0;
        recompute->end = j;
        for (int64_t i = start; i < j; i++) {
            ctc_set_frame(recompute, i);
            ctc_step(recompute, i);
        }
    }
    return *ctc_row_at_frame(recompute, j);
}

/* Runs the alpha pass forward over frames 0 ... T/2 - 1, or the beta pass backward over frames
 * T - 1 ... T/2. Returns NULL if the sample is removed, or on an error. */
static ctc_pass *ctc_run_to_midpoint(const fl_call *call, int64_t n, ctc_direction direction,
                                     fl_partial *partial)
{
    double weight;
    if (ctc_is_removed(call, n, &weight, partial))
        return NULL;
    ctc_pass *pass = ctc_new_pass(call, n, direction, 0, partial);
    if (!pass)
        return NULL;
    ctc_init_row(&pass->lattice, *ctc_row_at_frame(pass, 0));
    for (int64_t j = 0; j < pass->midpoint; j++) {
        if (ctc_is_checkpoint(pass, j)) /* new exponents, as when rows are recomputed from here */
            pass->lattice.exponent_headroom = 0;
        if (ctc_is_checkpoint(pass, j) && pass->saves_rows)
            ctc_copy_row(pass->S, *ctc_row_at_frame(pass, j),
                         pass->checkpoint[j / pass->checkpoint_period]);
        if (j == pass->batch_end) {
            ctc_load_frames(pass, j, partial);
            ctc_frame_normalisers(pass, partial);
        }
        ctc_set_frame(pass, j);
        ctc_step(pass, j);
    }
    return pass;
}

/* States on a path through frame j: blanks [first, last_blank), labels [first, last_label). Label i
 * has i labels before it, in j frames, and needs S - i frames from frame j on. */
typedef struct {
    int64_t first, last_blank, last_label;
} ctc_state_range;

static ctc_state_range ctc_joint_range(const ctc_pass *pass, int64_t j)
{
    const int64_t S = pass->S, first = S - (pass->T - j);
    return (ctc_state_range){.first = first > 0 ? first : 0,
                             .last_blank = j < S ? j + 1 : S + 1,
                             .last_label = j < S ? j + 1 : S};
}

/* Sums a y b 2^-top at frame j over the states of each class into `posterior`. Returns the sum over
 * all states: by (14) it is P 2^-top, up to the scale of the frames, and normalises γ. */
static double ctc_combine_frame(ctc_pass *pass, int64_t j, ctc_row opposite_row, double top)
{
    const ctc_state_range at = ctc_joint_range(pass, j);
    double *posterior = pass->posterior;
    double blank = ctc_combine_alpha_beta(&pass->lattice, *ctc_row_at_frame(pass, j), &pass->frame,
                                          opposite_row, top, at.first / CTC_LANES * CTC_LANES,
                                          at.last_label / CTC_LANES * CTC_LANES + CTC_LANES,
                                          pass->label_posterior);
    ctc_clear(posterior, pass->padded_classes);
    posterior[pass->blank_slot] = blank;
    for (int64_t i = at.first; i < at.last_label; i++)
        posterior[pass->label_slot[i]] += pass->label_posterior[i];
    return blank + sum_doubles(pass->label_posterior + at.first, at.last_label - at.first).hi;
}

/* Whether the pass can reuse p of the opposite pass: the buffers hold all of them, and none has to
 * be scaled, which takes the scores as well. */
static int ctc_can_reuse_frames(const ctc_pass *pass, const ctc_pass *opposite)
{
    return pass->resident_rows > 0 && opposite->resident_rows > 0 && !pass->has_scaled_frame &&
           !opposite->has_scaled_frame;
}

/* Exponents up to this are exact, with the sums of all states and frames. */
static const double CTC_EXACT_EXPONENT = 0x1p40;

/* The exponent that the terms of frame j are relative to: the exponent of P, which is exact unless
 * scores differ by 10^12 or more. Rounded exponents of P at two frames differ by many powers of
 * two, and γ would over- or underflow; the frame's own largest exponent then takes its place. */
static double ctc_frame_top(const ctc_pass *pass, int64_t j, ctc_row opposite_row, double top)
{
    if (top > -CTC_EXACT_EXPONENT)
        return top;
    const ctc_state_range at = ctc_joint_range(pass, j);
    return ctc_max_joint_exponent(&pass->lattice, *ctc_row_at_frame(pass, j), &pass->frame,
                                  opposite_row, at.first, at.last_blank, at.last_label);
}

/* P up to the scale of the frames, by (14) at the midpoint of the pass, which becomes the current
 * frame. Its exponent is the `top` of all later frames of the pass. */
static scaled_double ctc_total_probability(ctc_pass *pass, const ctc_pass *opposite,
                                           ctc_pass *recompute)
{
    ctc_row opposite_row = ctc_recompute_row(recompute, opposite, pass->T - 1 - pass->midpoint);
    pass->end = pass->call->output[FL_GRADIENT] ? pass->T : pass->midpoint + 1;
    pass->frame_source = ctc_can_reuse_frames(pass, opposite) ? opposite : NULL;
    ctc_set_frame(pass, pass->midpoint);
    ctc_state_range at = ctc_joint_range(pass, pass->midpoint);
    double top =
        ctc_max_joint_exponent(&pass->lattice, *ctc_row_at_frame(pass, pass->midpoint),
                               &pass->frame, opposite_row, at.first, at.last_blank, at.last_label);
    return (scaled_double){ctc_combine_frame(pass, pass->midpoint, opposite_row, top), top};
}

/* Σ log p_scale over the frames before the midpoint. */
static fl_dd ctc_log_scale_sum(const ctc_pass *pass)
{
    fl_dd sum = {0, 0};
    for (int i = 0; i < CTC_LANES; i++)
        sum = dd_add(sum, (fl_dd){pass->log_scale[i], finite_or_zero(pass->log_scale_lo[i])});
    return sum;
}

/* -log P = -(log total + log_scale of both passes). */
static double ctc_neg_log_likelihood(const ctc_pass *pass, const ctc_pass *opposite,
                                     scaled_double total)
{
    fl_dd log_scale = dd_add(ctc_log_scale_sum(pass), ctc_log_scale_sum(opposite));
    int in_range = total.e > -500 && total.e < 500;
    double log, m = in_range ? total.m * ctc_exp2(total.e) : total.m, e = in_range ? 0 : total.e;
    vector_math_double(MATH_LOG, 1, &m, &log);
    return 0 - (log_scale.hi + (e * 0x1.62e42fefa39efp-1 + (log + log_scale.lo)));
}

#endif
