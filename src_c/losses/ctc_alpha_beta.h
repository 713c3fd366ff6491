/* The forward (alpha) and backward (beta) passes, and the total probability where they meet.
 *
 * ctc_run_to_midpoint() runs either pass over its half of the frames. The rows of a pass are stored
 * for the gradient, which needs them when the other pass arrives at their frames: all of them if
 * they are few, else a checkpoint every √(T/2) rows, from which ctc_recompute_row() computes the
 * rows in between once more. */
#ifndef FASTLOSS_CTC_ALPHA_BETA_H
#define FASTLOSS_CTC_ALPHA_BETA_H

#include "losses/ctc_arena.h"
#include "losses/ctc_frames.h"

/* The row at frame j: α without the probability of frame j, so it depends on frames 0 ... j - 1. */
static ctc_row *ctc_row_at_frame(const ctc_pass *pass, int64_t j)
{
    return &pass->row[j < pass->resident_rows
                          ? j
                          : pass->resident_rows + (j - pass->resident_rows) % pass->ring_rows];
}

/* From the row at frame j, the current one, to the next. */
static void ctc_step(ctc_pass *pass, int64_t j)
{
    ctc_alpha_step(&pass->lattice, j, ctc_row_at_frame(pass, j), &pass->frame,
                   ctc_row_at_frame(pass, j + 1));
}

static int ctc_is_checkpoint(const ctc_pass *pass, int64_t j)
{
    return pass->checkpoint_period > 1 && j % pass->checkpoint_period == 0;
}

/* The row at frame j < midpoint of the opposite pass. Without `recompute`, a pass in the same
 * direction, the row is resident. Rows must be requested from the last one to the first. */
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

/* The alpha pass over frames 0 ... T/2 - 1, or the beta pass over the others, from the last one
 * back. NULL if the sample is removed, or after an error. */
static ctc_pass *ctc_run_to_midpoint(const fl_call *call, int64_t n, int is_beta,
                                     fl_partial *partial)
{
    double weight;
    ctc_pass *pass = ctc_is_removed(call, n, &weight, partial)
                         ? NULL
                         : ctc_new_pass(call, n, is_beta, 0, partial);
    if (!pass)
        return NULL;
    ctc_init_row(&pass->lattice, *ctc_row_at_frame(pass, 0));
    for (int64_t j = 0; j < pass->midpoint; j++) {
        if (ctc_is_checkpoint(pass, j)) /* renews exponents, as the recomputation will */
            pass->lattice.exponent_headroom = 0;
        if (ctc_is_checkpoint(pass, j) && pass->saves_rows)
            ctc_copy_row(pass->S, *ctc_row_at_frame(pass, j),
                         pass->checkpoint[j / pass->checkpoint_period]);
        if (j == pass->batch_end) {
            ctc_load_frames(pass, j);
            ctc_frame_normalisers(pass);
        }
        ctc_set_frame(pass, j);
        ctc_step(pass, j);
    }
    return pass;
}

/* States that both passes reach at frame j: blanks [first, last_blank), labels [first, last_label).
 * After j frames no more than j labels can be complete, and at least S - (T - j) must be. */
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

/* The sum over the states of each class of a y b 2^-top at frame j, to `posterior`: γ times their
 * total, P 2^-top by (14), which is returned. */
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

/* Σ log p_scale over the frames before the midpoint. */
static fl_dd ctc_log_scale_sum(const ctc_pass *pass)
{
    fl_dd sum = {0, 0};
    for (int i = 0; i < CTC_LANES; i++) {
        sum = dd_add_double(sum, pass->log_scale[i]);
        if (pass->log_scale_lo[i] - pass->log_scale_lo[i] == 0) /* inf and NaN have no remainder */
            sum = dd_add_double(sum, pass->log_scale_lo[i]);
    }
    return sum;
}

/* -log P, from the sum over paths of the product of p, and the log scales of both passes. */
static double ctc_loss_of(const ctc_pass *pass, const ctc_pass *opposite, scaled_double total)
{
    fl_dd log_scale = dd_add(ctc_log_scale_sum(pass), ctc_log_scale_sum(opposite));
    int in_range = total.e > -500 && total.e < 500;
    double log, m = in_range ? total.m * ctc_exp2(total.e) : total.m, e = in_range ? 0 : total.e;
    vector_math_double(MATH_LOG, 1, &m, &log);
    return 0 - (log_scale.hi + (e * 0x1.62e42fefa39efp-1 + (log + log_scale.lo)));
}

#endif
