/* Connectionist temporal classification (CTC), compiled once per instruction set and real.
 *
 *     Graves, Fernández, Gomez and Schmidhuber, "Connectionist temporal classification: labelling
 *     unsegmented sequence data with recurrent neural networks", ICML 2006.
 *
 * Numbers in parentheses are the equations of this paper. A sample has T frames with the class
 * probabilities y_t(c), and a target of labels l_0 ... l_(S-1). An alignment assigns a class to
 * each frame, such that merging repeated classes and then dropping blanks gives the target.
 *
 *     P = p(l|x) = Σ over alignments of Π_t y_t(class of t),  loss = -log P
 *     γ_t(c) = posterior probability, given the target, that frame t has class c
 *
 *     ctc              x = log y         gradient exp(x) - γ, with respect to logits whose
 *                                        log_softmax is x
 *     ctc_with_logits  y = softmax(x)    gradient softmax(x) - γ  (16)
 *     ctc_posteriors   x = log y         returns γ as its gradient
 *
 * Design
 *
 * a) Recursions. The target with blanks around its labels is the extended target l', whose entries
 *    are the states s. Forward: α_t(s) is the sum over the paths through frames 0 ... t that end in
 *    state s (6, 7). Backward: β_t(s) is the sum over the paths through frames t ... T - 1 that
 *    begin in state s (10, 11). At any frame t, P = Σ_s α_t(s) β_t(s) / y_t(l'_s) (14), and the
 *    terms of the states with class c sum to P γ_t(c).
 * b) Two passes that meet in the middle. The alpha pass runs forward over the first half of the
 *    frames, the beta pass backward over the second half; where they meet, (14) gives P. Each pass
 *    then continues over the half of the opposite pass, and combines its row at each frame with the
 *    row that the opposite pass has stored: the result is γ and the gradient of the frame. The two
 *    passes are independent of each other before and after the midpoint, so two threads can share a
 *    sample: FL_SPLIT_PARTIAL runs a pass to the midpoint, FL_SPLIT_FINISH continues it.
 * c) One code for both directions. β is α of the reversed frames and the reversed target.
 * d) Checkpoints. If the rows of a pass take more than 2^16 doubles, only one in about √(T/2) rows
 *    is stored, and the rows in between are recomputed from it when they are needed. Memory is
 *    O(√T S) instead of O(T S), at the cost of one more recursion over the frames.
 * e) Scaling. Rows hold mantissas and exponents, so no path underflows and the recursion needs
 *    neither exp nor log. The scale that all probabilities of a frame have in common is factored
 *    out first, and its logarithms are summed: P near 1 keeps full relative accuracy.
 * f) Memory. A pass and all of its arrays are one block of scratch memory.
 *
 * Files; each header includes the one above it
 *
 *     ctc_scaled_double.h  mantissa and exponent
 *     ctc_lattice.h        rows of α and β, one step of the recursion, the product α β
 *     ctc_pass.h           the state of a pass and its memory
 *     ctc_targets.h        labels, the extended target, the classes in use
 *     ctc_frames.h         probabilities of frames, softmax normalisers
 *     ctc_alpha_beta.h     the forward and the backward pass, checkpoints, P
 *     ctc_gradient.h       γ, gradients and values
 *     ctc_tmpl.c           the phases of a call
 *     ctc_plan.c           work and order of the samples, for the threads */
#include "losses/ctc_gradient.h"

/* The value and the gradient of a removed sample are 0, and it is not counted. */
static void ctc_write_removed(const fl_call *call, int64_t n, fl_partial *partial)
{
    if (wants_losses(call))
        ctc_write_value(call, n, 0, 0, partial);
    if (call->output[FL_GRADIENT])
        ctc_fill_frames(call, n, 0, call->sequences.T, 0);
}

static void ctc_count_sample(const fl_call *call, double weight, fl_partial *partial)
{
    const double *product = call->sample_weight.data ? &weight : NULL;
    const unit_weights w = sample_weights_only(product);
    add_divisors(&w, 1, partial);
    partial->count++;
}

/* Counts a sample and writes its value, and the gradient of its padding frames, which is 0. */
static void ctc_write_sample(const fl_call *call, int64_t n, double loss, double weight,
                             fl_partial *partial)
{
    ctc_count_sample(call, weight, partial);
    if (wants_losses(call))
        ctc_write_value(call, n, loss, weight, partial);
    if (call->output[FL_GRADIENT])
        ctc_fill_frames(call, n, call->sequences.frames[n], call->sequences.T, 0);
}

/* Continues a pass from the midpoint: it writes the gradient of the frames of its second half. The
 * alpha pass also writes the value. A sample without passes is removed. */
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
    scaled_double total = {1, 0}; /* of no frames */
    if (pass->midpoint < pass->T)
        total = ctc_total_probability(pass, opposite, recompute);
    double loss = ctc_neg_log_likelihood(pass, opposite, total);
    const int has_posteriors = is_finite(loss);
    if (loss == __builtin_inf() && call->sequences.zero_infinity)
        loss = 0;
    if (direction == CTC_ALPHA)
        ctc_write_sample(call, n, loss, weight, partial);
    if (wants_gradient && has_posteriors)
        ctc_write_gradient(pass, opposite, recompute, total,
                           ctc_gradient_scale(call, n, weight, partial), partial);
    else if (wants_gradient)
        ctc_write_undefined_gradient(pass, loss, partial);
    fl_scratch_free(recompute);
}

/* Checks a sample and adds its weight to the divisor, before anything is written. */
static void ctc_prepare(const fl_call *call, int64_t n, fl_partial *partial)
{
    double weight;
    if (ctc_is_removed(call, n, &weight, partial))
        return;
    ctc_count_sample(call, weight, partial);
    if (call->output[FL_GRADIENT] && call->formula == FL_FORMULA_ctc &&
        !ctc_gradient_is_separate(call))
        ctc_check_frames(call, n, 0, call->sequences.frames[n], partial);
    if (call->output[FL_GRADIENT])
        ctc_gradient_scale(call, n, weight, partial);
    ctc_load_labels(call, n, NULL, partial);
}

/* A unit is a sample; in the split phases an item is one pass of a sample. Items 2 n and 2 n + 1
 * run the alpha and the beta pass of sample n to the midpoint. They finish in the reverse order,
 * which is the order of the frames: the error that is reported is the first one of the sample. */
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
