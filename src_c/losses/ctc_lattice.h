/* The lattice of CTC: rows of α and β, one step of the forward recursion, and the product α y β.
 * Equation numbers refer to Graves et al. (2006), see ctc_tmpl.c. Everything is in double for
 * either real; nothing here accesses the arrays of a call.
 *
 * States. The extended target l' has 2 S + 1 states: a blank before, between and after the labels
 * l_0 ... l_(S-1). A row stores them in two contiguous arrays, so that a step runs in vectors:
 * blank[i] is state 2 i, label[i] is state 2 i + 1.
 *
 * Forward recursion. A row holds α without the probability of its own frame,
 *     a_t(s) = α_t(s) / y_t(l'_s),
 * the sum over the paths that reach state s at frame t of their probability up to frame t - 1.
 * With B_i = a_t(2 i) and L_i = a_t(2 i + 1), and B'_i and L'_i of frame t + 1, (6) and (7) become
 *     B'_i = y_t(blank) B_i + y_t(l_(i-1)) L_(i-1)
 *     L'_i = y_t(l_i) L_i + y_t(blank) B_i + y_t(l_(i-1)) L_(i-1) [l_i != l_(i-1)].
 * Each product is formed once and used in both lines. The term α_t(s) β_t(s) / y_t(l'_s) of (14) is
 * a_t(s) y_t(l'_s) b_t(s), with b_t from β_t as a_t from α_t: nothing is divided by a probability,
 * which may be 0.
 *
 * Backward recursion. β is α of the reversed frames and the reversed target, which turns (10) and
 * (11) into (6) and (7). Both passes therefore run the same step.
 *
 * Scaling. Values are scaled doubles. In most rows B_i and L_i share an exponent, and the following
 * rows inherit it for as long as no mantissa can leave the range of a double; a step is then a few
 * multiplications. If the probabilities of a frame or neighbouring states differ by too many powers
 * of two, the step computes an exponent for each state. Both steps give the same mantissas up to
 * powers of two. */
#ifndef FASTLOSS_CTC_LATTICE_H
#define FASTLOSS_CTC_LATTICE_H

#include "losses/ctc_scaled_double.h"
#include "vector/lanes.h"

#include <string.h>

/* Length of an array of states with the entries 0 ... S: rounded up to whole vectors, and also with
 * a vector of zeros before and after it. */
static INLINE int64_t ctc_padded_states(int64_t S) { return (S / CTC_LANES + 1) * CTC_LANES; }
static INLINE int64_t ctc_row_stride(int64_t S) { return ctc_padded_states(S) + 2 * CTC_LANES; }

/* One row of α or β. Its four arrays are consecutive in memory, but the exponents may point to the
 * arrays of an earlier row. */
enum { CTC_ROW_ARRAYS = 4 };
typedef struct {
    double *blank, *label;     /* (S + 1), (S) mantissas; label[S] is not used */
    double *blank_e, *label_e; /* (S + 1), (S) exponents */
    int64_t exponent_set;      /* equal in rows with the same exponents */
} ctc_row;

/* Probabilities of one frame. */
typedef struct {
    scaled_double blank;
    double *label, *label_e; /* (S) of l_i, between zeros */
    double exponent_range;   /* log2(largest / smallest); up to CTC_FRAME_RANGE all have e = 0 */
} ctc_frame;

/* The state of a recursion, apart from its rows. */
typedef struct {
    int64_t S;
    double *skip_allowed; /* (S + 1) 1 if l_i may follow l_(i-1) without a blank, else 0 */

    /* Rows with shared exponents e_i of B_i and L_i. */
    double *shift_scale;      /* (S + 1) 2^(e_(i-1) - e_i) */
    double *skip_scale;       /* (S + 1) shift_scale skip_allowed */
    double exponent_headroom; /* powers of two by which mantissas may change with these exponents */
    double growth_per_step;   /* powers of two by which a step may enlarge them, at most */
    int64_t exponent_sets;    /* created so far */

    /* 2^(exponent of a y b - top), as a product of two factors: [0] [1] (S + 1) of the blanks,
     * [2] [3] (S) of the labels. */
    double *joint_scale[4];
    int64_t joint_sets[2]; /* the exponent sets of the two rows that it belongs to */
} ctc_lattice;

/* Limits, in powers of two, for shared exponents: on the range of mantissas when exponents are set;
 * on the decrease of the exponent from one pair of states to the next; on the range of the
 * probabilities of a frame; on the change of mantissas until exponents are set again. */
enum { CTC_ROW_RANGE = 150, CTC_MAX_FALL = 100, CTC_FRAME_RANGE = 250, CTC_HEADROOM = 300 };

/* --- rows --- */

/* The row at `data`, with its own exponents. */
static INLINE ctc_row ctc_row_at(double *data, int64_t S)
{
    int64_t n = ctc_row_stride(S);
    data += CTC_LANES;
    return (ctc_row){data, data + n, data + 2 * n, data + 3 * n, 0};
}

static void ctc_copy_row(int64_t S, ctc_row from, ctc_row to)
{
    const double *source[] = {from.blank, from.label, from.blank_e, from.label_e};
    double *copy[] = {to.blank, to.label, to.blank_e, to.label_e};
    for (int k = 0; k < CTC_ROW_ARRAYS; k++)
        memcpy(copy[k] - CTC_LANES, source[k] - CTC_LANES,
               (size_t)ctc_row_stride(S) * sizeof(double));
}

/* The row at the first frame: paths begin in the first blank or in the first label. */
static void ctc_init_row(ctc_lattice *lattice, ctc_row row)
{
    memset(row.blank - CTC_LANES, 0,
           (size_t)(CTC_ROW_ARRAYS * ctc_row_stride(lattice->S)) * sizeof *row.blank);
    row.blank[0] = 1;
    row.label[0] = lattice->S > 0;
    lattice->exponent_headroom = 0;
}

/* Normalises the mantissas of the first n states of both arrays to [1, 2). The exponents are then
 * in the row's own arrays. */
static void ctc_normalise_row(ctc_lattice *lattice, ctc_row *row, int64_t n)
{
    const int64_t padded = ctc_padded_states(lattice->S);
    ctc_row normalised = ctc_row_at(row->blank - CTC_LANES, lattice->S);
    ctc_normalise(row->blank, row->blank_e, normalised.blank_e, n, padded);
    ctc_normalise(row->label, row->label_e, normalised.label_e, n, padded);
    normalised.label_e[-1] = -DBL_MAX;
    *row = normalised;
    row->exponent_set = ++lattice->exponent_sets;
}

/* Makes B_i and L_i of a normalised row share their exponent. Returns 0 and leaves the row
 * unchanged if a mantissa would be too small. */
static int ctc_share_exponents(ctc_lattice *lattice, ctc_row row)
{
    const int64_t n = ctc_padded_states(lattice->S);
    double *restrict shift_scale = lattice->shift_scale, *restrict skip_scale = lattice->skip_scale,
                     *shared_e = skip_scale;
    double e = -DBL_MAX, lowest = 0, growth = 0;
    shared_e[-1] = e;
    for (int64_t i = 0; i < n; i++) {
        double highest = ctc_max(row.blank_e[i], row.label_e[i]);
        e = highest > -DBL_MAX ? ctc_max(highest, e - CTC_MAX_FALL) : e;
        shared_e[i] = e;
    }
#pragma omp simd reduction(min : lowest) reduction(max : growth)
    for (int64_t i = 0; i < n; i++) {
        double fall = shared_e[i - 1] - shared_e[i];
        double b = row.blank[i] > 0 ? row.blank_e[i] - shared_e[i] : 0;
        double l = row.label[i] > 0 ? row.label_e[i] - shared_e[i] : 0;
        lowest = ctc_min(lowest, ctc_min(b, l));
        growth = ctc_max(growth, fall);
        shift_scale[i] = ctc_exp2(fall);
    }
    if (lowest < -CTC_ROW_RANGE)
        return 0;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        row.blank[i] *= ctc_exp2(row.blank_e[i] - shared_e[i]);
        row.label[i] *= ctc_exp2(row.label_e[i] - shared_e[i]);
        row.blank_e[i] = row.label_e[i] = shared_e[i];
        skip_scale[i] = shift_scale[i] * lattice->skip_allowed[i];
    }
    lattice->exponent_headroom = CTC_HEADROOM;
    lattice->growth_per_step = growth;
    return 1;
}

/* --- the recursion --- */

/* The next row of α, (6) and (7), from the first n states of a row with shared exponents. */
static void ctc_step_shared_exponent(const ctc_lattice *lattice, ctc_row from,
                                     const ctc_frame *frame, ctc_row to, int64_t n)
{
    const double *restrict B = from.blank, *restrict L = from.label, *restrict y = frame->label,
                           *restrict shift_scale = lattice->shift_scale,
                           *restrict skip_scale = lattice->skip_scale;
    double *restrict next_B = to.blank, *restrict next_L = to.label;
    const double y_blank = frame->blank.m;
    for (int64_t i = 0; i < n; i += CTC_LANES)
#pragma omp simd
        for (int64_t k = i; k < i + CTC_LANES; k++) {
            double b = B[k] * y_blank, l = L[k - 1] * y[k - 1];
            next_B[k] = b + l * shift_scale[k];
            next_L[k] = L[k] * y[k] + (b + l * skip_scale[k]);
        }
}

/* The next row of α, from any row, with a new exponent for each state. */
static void ctc_step_per_state_exponent(const ctc_lattice *lattice, ctc_row from,
                                        const ctc_frame *frame, ctc_row to)
{
    const double *restrict B = from.blank, *restrict B_e = from.blank_e, *restrict L = from.label,
                           *restrict L_e = from.label_e, *restrict y = frame->label,
                           *restrict y_e = frame->label_e,
                           *restrict skip_allowed = lattice->skip_allowed;
    double *restrict next_B = to.blank, *restrict next_B_e = to.blank_e,
                     *restrict next_L = to.label, *restrict next_L_e = to.label_e;
    const double zero_e =
        -__builtin_inf(); /* of a 0, so that it does not determine the exponent of a sum */
    const scaled_double y_blank = {frame->blank.m, frame->blank.m > 0 ? frame->blank.e : zero_e};
#pragma omp simd
    for (int64_t i = 0; i <= lattice->S; i++) {
        double b = B[i] * y_blank.m, b_e = B_e[i] + y_blank.e;
        double l = L[i - 1] * y[i - 1], l_e = y[i - 1] > 0 ? L_e[i - 1] + y_e[i - 1] : zero_e;
        double k = L[i] * y[i], k_e = y[i] > 0 ? L_e[i] + y_e[i] : zero_e;
        double e = ctc_sum_exponent(b_e, l_e);
        next_B[i] = b * ctc_exp2(b_e - e) + l * ctc_exp2(l_e - e);
        next_B_e[i] = e;
        l_e = skip_allowed[i] > 0 ? l_e : zero_e;
        e = ctc_max(ctc_sum_exponent(b_e, l_e), k_e);
        next_L[i] = k * ctc_exp2(k_e - e) + (b * ctc_exp2(b_e - e) + l * ctc_exp2(l_e - e));
        next_L_e[i] = e;
    }
}

/* One step of the forward recursion: computes row j + 1 of α from row j. The beta pass calls it
 * too, with reversed frames and target. Only entries 0 ... j + 1 of row j + 1 can be reached, so
 * the others need not be computed. */
static void ctc_alpha_step(ctc_lattice *lattice, int64_t j, ctc_row *from, const ctc_frame *frame,
                           ctc_row *to)
{
    const int64_t S = lattice->S, padded = ctc_padded_states(S);
    int64_t n = j < S ? ctc_padded_states(j + 1) : padded;
    double change =
        ctc_max(frame->exponent_range, lattice->growth_per_step) + 2; /* 2: there are three terms */
    int is_shared = frame->exponent_range <= CTC_FRAME_RANGE;
    if (!is_shared || lattice->exponent_headroom < change) {
        ctc_normalise_row(lattice, from, n);
        lattice->exponent_headroom = 0;
        is_shared = is_shared && ctc_share_exponents(lattice, *from);
    }
    *to = ctc_row_at(to->blank - CTC_LANES, S);
    if (is_shared) {
        ctc_step_shared_exponent(lattice, *from, frame, *to, n);
        lattice->exponent_headroom -= ctc_max(frame->exponent_range, lattice->growth_per_step) + 2;
        to->blank_e = from->blank_e;
        to->label_e = from->label_e;
        to->exponent_set = from->exponent_set;
    } else {
        n = padded;
        ctc_clear(to->blank + S, n - S);
        ctc_clear(to->label + S, n - S);
        ctc_step_per_state_exponent(lattice, *from, frame, *to);
        to->exponent_set = ++lattice->exponent_sets;
    }
    ctc_clear(to->blank - CTC_LANES, CTC_LANES);
    ctc_clear(to->label - CTC_LANES, CTC_LANES);
    ctc_clear(to->blank + n, CTC_LANES);
    ctc_clear(to->label + n, CTC_LANES);
}

/* --- α y β --- */

/* a y b is the probability of all paths through a state; `beta` is in the order of the reversed
 * target. Returns the largest exponent of a y b over the blanks [first, last_blank) and the labels
 * [first, last_label); other states are not read. */
static double ctc_max_joint_exponent(const ctc_lattice *lattice, ctc_row alpha, const ctc_frame *y,
                                     ctc_row beta, int64_t first, int64_t last_blank,
                                     int64_t last_label)
{
    const int64_t S = lattice->S;
    double top = -DBL_MAX, y_blank = y->blank.e + ctc_exponent(y->blank.m);
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last_blank; i++)
        top = ctc_max(top, ctc_exponent(alpha.blank[i]) + ctc_exponent(beta.blank[S - i]) +
                               y_blank + (alpha.blank_e[i] + beta.blank_e[S - i]));
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last_label; i++)
        top = ctc_max(top, ctc_exponent(alpha.label[i]) + ctc_exponent(beta.label[S - 1 - i]) +
                               ctc_exponent(y->label[i]) + y->label_e[i] +
                               (alpha.label_e[i] + beta.label_e[S - 1 - i]));
    return top;
}

/* Sets joint_scale. Rarely needed, and not inlined, so that the loops of the caller have all
 * registers. */
static __attribute__((noinline)) void ctc_update_joint_scale(ctc_lattice *lattice, ctc_row alpha,
                                                             const ctc_frame *y, ctc_row beta,
                                                             double top)
{
    const int64_t S = lattice->S;
    double *const *scale = lattice->joint_scale;
#pragma omp simd
    for (int64_t i = 0; i <= S; i++)
        ctc_split_exp2(alpha.blank_e[i] + beta.blank_e[S - i] + y->blank.e - top, &scale[0][i],
                       &scale[1][i]);
#pragma omp simd
    for (int64_t i = 0; i < S; i++)
        ctc_split_exp2(alpha.label_e[i] + beta.label_e[S - 1 - i] + y->label_e[i] - top,
                       &scale[2][i], &scale[3][i]);
}

/* label[i] := a y b 2^-top of label i in [first, last), both multiples of CTC_LANES. Returns the
 * sum of a y b 2^-top over the blanks [first, last). */
static double ctc_combine_alpha_beta(ctc_lattice *lattice, ctc_row alpha, const ctc_frame *y,
                                     ctc_row beta, double top, int64_t first, int64_t last,
                                     double *restrict label)
{
    const int64_t S = lattice->S, sets[] = {alpha.exponent_set, beta.exponent_set};
    int is_reusable = y->exponent_range <= CTC_FRAME_RANGE; /* y has no exponents */
    if (!is_reusable || sets[0] != lattice->joint_sets[0] || sets[1] != lattice->joint_sets[1])
        ctc_update_joint_scale(lattice, alpha, y, beta, top);
    lattice->joint_sets[0] = is_reusable ? sets[0] : -1;
    lattice->joint_sets[1] = sets[1];
    const double *restrict f = lattice->joint_scale[0], *restrict g = lattice->joint_scale[1],
                           *restrict f_label = lattice->joint_scale[2],
                           *restrict g_label = lattice->joint_scale[3];
    const double *restrict y_label = y->label, *beta_blank = beta.blank + S,
                           *beta_label = beta.label + S - 1;
    const double y_blank = y->blank.m;
    double lane[CTC_LANES] = {0};
    for (int64_t i = first; i < last; i += CTC_LANES) {
#pragma omp simd
        for (int64_t k = 0; k < CTC_LANES; k++)
            lane[k] += alpha.blank[i + k] * y_blank * f[i + k] * (beta_blank[-i - k] * g[i + k]);
#pragma omp simd
        for (int64_t k = i; k < i + CTC_LANES; k++)
            label[k] = alpha.label[k] * y_label[k] * f_label[k] * (beta_label[-k] * g_label[k]);
    }
    return reduce_sum(lane, CTC_LANES);
}

#endif
