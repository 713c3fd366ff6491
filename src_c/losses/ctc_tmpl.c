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

/* Value and gradient of a sample from the midpoint on: each pass writes the gradient of the frames
 * of its second half, the alpha pass also the value. A sample without passes is removed. */
static void ctc_finish_pass(const fl_call *call, int64_t n, int is_beta, ctc_pass *const *passes,
                            fl_partial *partial)
{
    ctc_pass *pass = passes[is_beta], *recompute = NULL;
    const ctc_pass *opposite = passes[!is_beta];
    const int wants_gradient = (call->requested & FL_GRAD) != 0;
    const double labels = call->per_label && call->labels[n] > 1 ? (double)call->labels[n] : 1;
    double weight, loss = 0;
    int removed = ctc_is_removed(call, n, &weight, partial) || !pass || !opposite, finite = 0;
    scaled_double total = {1, 0};
    if (!removed && wants_gradient && opposite->checkpoint_period > 1) {
        recompute = ctc_new_pass(call, n, !is_beta, 1, partial);
        if (!recompute)
            return;
    }
    if (!removed) {
        if (pass->midpoint < pass->T)
            total = ctc_total_probability(pass, opposite, recompute);
        loss = ctc_loss_of(pass, opposite, total);
        finite = loss - loss == 0;
        if (loss == __builtin_inf() && call->zero_infinity)
            loss = 0;
    }
    if (!is_beta) {
        partial->divisor_sum = dd_add_double(partial->divisor_sum, removed ? 0 : weight);
        partial->count += !removed;
        if (call->requested & (FL_SUM | FL_VALUES))
            ctc_write_value(call, n, loss, removed ? 0 : weight, labels, partial);
        if (wants_gradient)
            ctc_fill_frames(call, n, removed ? 0 : pass->T, call->T, 0);
    }
    const int64_t meeting = pass ? pass->T / 2 : 0, from = is_beta ? 0 : meeting,
                  to = is_beta ? meeting : call->frames[n];
    if (wants_gradient && finite) {
        ctc_write_gradient(pass, opposite, recompute, total,
                           ctc_gradient_scale(call, n, weight, labels), partial);
    } else if (wants_gradient && !removed) {
        ctc_fill_frames(call, n, from, to, (real)(loss == 0 ? 0 : REAL_NAN));
        if (call->formula == FL_FORMULA_ctc && ctc_gradient_is_separate(call))
            ctc_check_frame_sums(call, n, from, to, partial);
    }
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
    if (call->requested & FL_GRAD && call->formula == FL_FORMULA_ctc &&
        !ctc_gradient_is_separate(call))
        ctc_check_frame_sums(call, n, 0, call->frames[n], partial);
    ctc_load_labels(call, n, NULL, partial);
}

/* A unit is a sample; in the split phases an item is one pass of a sample. The beta pass, which
 * finishes over the first frames, is finished first: of several invalid positions the lowest is
 * reported. */
void SUFFIXED(fl_ctc)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                      fl_partial *partial)
{
    for (int64_t i = first; i < last; i++) {
        int64_t n = i / 2;
        if (phase == FL_PREPARE) {
            ctc_prepare(call, i, partial);
        } else if (phase == FL_SPLIT_PARTIAL) {
            call->split_state[i] = ctc_run_to_midpoint(call, n, (int)(i % 2), partial);
        } else if (phase == FL_SPLIT_FINISH) {
            ctc_finish_pass(call, n, 1 - (int)(i % 2), (ctc_pass *const *)&call->split_state[2 * n],
                            partial);
        } else {
            ctc_pass *passes[] = {ctc_run_to_midpoint(call, i, 0, partial),
                                  ctc_run_to_midpoint(call, i, 1, partial)};
            for (int is_beta = 1; partial->error_unit == FL_NOWHERE && is_beta >= 0; is_beta--)
                ctc_finish_pass(call, i, is_beta, passes, partial);
            fl_scratch_free(passes[0]);
            fl_scratch_free(passes[1]);
        }
    }
}
