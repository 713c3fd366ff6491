/* Connectionist temporal classification (CTC), once per (instruction set, real).
 *
 *     Graves, Fernández, Gomez and Schmidhuber, "Connectionist temporal classification: labelling
 *     unsegmented sequence data with recurrent neural networks", ICML 2006.
 *
 * Numbers in parentheses are the equations of this paper. For a sample with T frames, class
 * probabilities y_t(c) and a target of labels l_0 ... l_(S-1), an alignment gives each frame a
 * class, such that merging repeated classes and then dropping blanks leaves the target.
 *
 *     P = p(l|x) = Σ over alignments of Π_t y_t(class at t),  loss = -log P
 *     γ_t(c) = the probability, given the target, that frame t has class c
 *     ctc              x = log y          gradient exp(x) - γ, of the logits with log_softmax x
 *     ctc_with_logits  y = softmax(x)     gradient softmax(x) - γ  (16)
 *     ctc_posteriors   x = log y          γ itself
 *
 * Design
 *
 * a) Forward recursion: α_t(s) sums the paths over frames 0 ... t that end in state s of the
 *    extended target l', the labels with blanks around them (6, 7). Backward recursion: β_t(s) sums
 *    the paths over frames t ... T - 1 that begin in s (10, 11). At any frame t,
 *    P = Σ_s α_t(s) β_t(s) / y_t(l'_s) (14); the terms of the states with class c give γ_t(c).
 * b) The passes meet in the middle. The alpha pass runs over the first half of the frames, the beta
 *    pass over the second half, backward. There P is known. Then each continues over the other
 *    half, and combines its row at each frame with the stored row of the opposite pass into γ and
 *    the gradient. In either half the passes do not depend on each other, so two threads can share
 *    a sample: FL_SPLIT_PARTIAL runs to the midpoint, FL_SPLIT_FINISH from there.
 * c) Both directions are the same code: β is α of the reversed frames and the reversed target.
 * d) Checkpoints. Rows are stored for the opposite pass. If they are more than 2^16 doubles, only
 *    about √(T/2) of them are, and the ones in between are computed once more from there: memory
 *    grows with √T S, for at most one more forward recursion.
 * e) Scaling. Rows hold mantissas and exponents of their own, so no path underflows, and the
 *    recursion needs neither exp nor log. The scale that all probabilities of a frame have in
 *    common is taken out before and summed as a logarithm, so that P near 1 keeps full accuracy.
 * f) Memory. A pass is one block of scratch memory.
 *
 * Files: ctc_scaled_double.h mantissa and exponent; ctc_lattice.h the recursion; ctc_pass.h the
 * state of a pass; ctc_targets.h labels; ctc_frames.h probabilities; ctc_alpha_beta.h the passes;
 * ctc_gradient.h posteriors and gradients; here the phases of a call. */
#include "losses/ctc_gradient.h"

/* A removed sample has the value 0, the gradient 0, and is not counted. */
static void ctc_write_removed(const fl_call *call, int64_t n, fl_partial *partial)
{
    if (wants_losses(call))
        ctc_write_value(call, n, 0, 0, partial);
    if (call->output[FL_GRADIENT])
        ctc_fill_frames(call, n, 0, call->sequences.T, 0);
}

/* The value of a sample, and the gradient 0 of its padding frames. */
static void ctc_write_sample(const fl_call *call, int64_t n, double loss, double weight,
                             fl_partial *partial)
{
    partial->divisor_sum = dd_add_double(partial->divisor_sum, weight);
    partial->count++;
    if (wants_losses(call))
        ctc_write_value(call, n, loss, weight, partial);
    if (call->output[FL_GRADIENT])
        ctc_fill_frames(call, n, call->sequences.frames[n], call->sequences.T, 0);
}

/* Finishes a sample from the midpoint on: each pass writes the gradient of the frames of its second
 * half, the alpha pass also the value. Without passes the sample is removed. */
static void ctc_finish_pass(const fl_call *call, int64_t n, ctc_direction direction,
                            ctc_pass *const *passes, fl_partial *partial)
{
    ctc_pass *pass = passes[direction], *recompute = NULL;
    const ctc_pass *opposite = passes[!direction];
    const int wants_gradient = call->output[FL_GRADIENT] != NULL;
    double weight;
    if (ctc_is_removed(call, n, &weight, partial) || !pass || !opposite) {
        if (direction == CTC_ALPHA)
            ctc_write_removed(call, n, partial);
        return;
    }
    if (wants_gradient && opposite->checkpoint_period > 1) {
        recompute = ctc_new_pass(call, n, opposite->direction, 1, partial);
        if (!recompute)
            return;
    }
    scaled_double total = {1, 0};
    if (pass->midpoint < pass->T)
        total = ctc_total_probability(pass, opposite, recompute);
    double loss = ctc_loss_of(pass, opposite, total);
    const int is_finite = loss - loss == 0;
    if (loss == __builtin_inf() && call->sequences.zero_infinity)
        loss = 0;
    if (direction == CTC_ALPHA)
        ctc_write_sample(call, n, loss, weight, partial);
    if (wants_gradient && is_finite)
        ctc_write_gradient(pass, opposite, recompute, total, ctc_gradient_scale(call, n, weight),
                           partial);
    else if (wants_gradient)
        ctc_write_undefined_gradient(pass, loss, partial);
    fl_scratch_free(recompute);
}

/* Checks a sample and sums the divisor, before anything is written. */
static void ctc_prepare(const fl_call *call, int64_t n, fl_partial *partial)
{
    double weight;
    if (ctc_is_removed(call, n, &weight, partial))
        return;
    partial->divisor_sum = dd_add_double(partial->divisor_sum, weight);
    partial->count++;
    if (call->output[FL_GRADIENT] && call->formula == FL_FORMULA_ctc &&
        !ctc_gradient_is_separate(call))
        ctc_check_frame_sums(call, n, 0, call->sequences.frames[n], partial);
    ctc_load_labels(call, n, NULL, partial);
}

/* A unit is a sample. In the split phases an item is one pass of a sample: items 2 n and 2 n + 1
 * run the alpha and the beta pass to the midpoint, and finish the beta and the alpha pass, as the
 * beta pass then writes the first frames: of several invalid positions the lowest is reported. */
void SUFFIXED(fl_ctc)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                      fl_partial *partial)
{
    for (int64_t i = first; i < last; i++) {
        int64_t n = i / 2;
        if (phase == FL_PREPARE) {
            ctc_prepare(call, i, partial);
        } else if (phase == FL_SPLIT_PARTIAL) {
            ctc_direction direction = i % 2 == 0 ? CTC_ALPHA : CTC_BETA;
            call->split_state[i] = ctc_run_to_midpoint(call, n, direction, partial);
        } else if (phase == FL_SPLIT_FINISH) {
            ctc_direction direction = i % 2 == 0 ? CTC_BETA : CTC_ALPHA;
            ctc_pass *const *passes = (ctc_pass *const *)&call->split_state[2 * n];
            ctc_finish_pass(call, n, direction, passes, partial);
        } else {
            ctc_pass *passes[] = {ctc_run_to_midpoint(call, i, CTC_ALPHA, partial),
                                  ctc_run_to_midpoint(call, i, CTC_BETA, partial)};
            if (partial->error_unit == FL_NOWHERE)
                ctc_finish_pass(call, i, CTC_BETA, passes, partial);
            if (partial->error_unit == FL_NOWHERE)
                ctc_finish_pass(call, i, CTC_ALPHA, passes, partial);
            fl_scratch_free(passes[CTC_ALPHA]);
            fl_scratch_free(passes[CTC_BETA]);
        }
    }
}
