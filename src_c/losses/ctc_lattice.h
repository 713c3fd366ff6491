/* The lattice of connectionist temporal classification: numbers of unlimited range, and the sums
 * over paths on them. In double, whatever the real; knows no arrays.
 *
 * A number is m 2^e, both double, e a whole number or -DBL_MAX with m = 0; so no path is too
 * improbable, and no cell needs exp or log. States stand in two groups, each contiguous: with
 * labels l_0 ... l_(S-1), the blanks B_0 ... B_S around them, and L_0 ... L_(S-1).
 *
 * Most rows are level: B_i and L_i have one exponent, which the rows that follow keep for as long
 * as mantissas cannot leave the range of a double. A step then is a few multiplications. What
 * spreads too far for that, within a frame's probabilities or between neighbours, takes a step with
 * an exponent for each state. Both give the same mantissas but for powers of two. */
#ifndef FASTLOSS_CTC_LATTICE_H
#define FASTLOSS_CTC_LATTICE_H

#include "vector/real.h"

#include <float.h>
#include <string.h>

typedef struct {
    double m, e;
} scaled_double;

/* States at a time: a fixed number, so that no result depends on the vectors' width. */
enum { CTC_LANES = 8 };

/* A group has the places 0 ... S, filled up to whole vectors, and one vector more before and after
 * them. */
static INLINE int64_t ctc_padded_states(int64_t S) { return (S / CTC_LANES + 1) * CTC_LANES; }
static INLINE int64_t ctc_row_stride(int64_t S) { return ctc_padded_states(S) + 2 * CTC_LANES; }

/* blank[i] is B_i, label[i] is L_i, label[S] is of no use; around them are zeros. Exponents may be
 * those of an earlier row; a row's own stand behind its mantissas. */
enum { CTC_ROW_ARRAYS = 4 };
typedef struct {
    double *blank, *label, *blank_e, *label_e;
    int64_t exponent_set; /* which set of them */
} ctc_row;

/* The probabilities of a frame: of the blank and of the labels, around which are zeros. */
typedef struct {
    scaled_double blank;
    double *label, *label_e;
    double exponent_range; /* powers of two between them; up to FRAME_SPREAD all have e = 0 */
} ctc_frame;

/* What does not change with every frame. */
typedef struct {
    int64_t S;
    double *skip_allowed;             /* 1 where l_(i-1) may lead to l_i, else 0 */
    double *shift_scale, *skip_scale; /* of level rows: 2^(e_(i-1) - e_i), and that times follows */
    double exponent_headroom,
        growth_per_step; /* by what powers of two mantissas may still change, and grow in a step */
    int64_t exponent_sets;  /* sets of them so far */
    double *joint_scale[4]; /* of two rows that are joined, 2^e in two factors: blanks, labels */
    int64_t joint_sets[2];  /* the rows' sets */
} ctc_lattice;

/* In powers of two: between the states of a row when it is made level, and the greatest fall from
 * one to the next; within a frame; what mantissas may then change by. */
enum { CTC_ROW_RANGE = 150, CTC_MAX_FALL = 100, CTC_FRAME_RANGE = 250, CTC_HEADROOM = 300 };

static INLINE uint64_t ctc_double_bits(double x)
{
    uint64_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

static INLINE double ctc_double_from_bits(uint64_t bits)
{
    double x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

static INLINE double ctc_max(double a, double b) { return a > b ? a : b; }
static INLINE double ctc_min(double a, double b) { return a < b ? a : b; }

/* 2^n for a whole n <= 1023, 0 below -1022. */
static INLINE double ctc_exp2(double n)
{
    double power = ctc_double_from_bits(ctc_double_bits(n + (0x1.8p52 + 1023)) << 52);
    return n < -1022 ? 0 : power;
}

/* That of m, which is normal or 0. */
static INLINE double ctc_exponent(double m)
{
    double e = ctc_double_from_bits((ctc_double_bits(m) >> 52) | ctc_double_bits(0x1p52)) -
               (0x1p52 + 1023);
    return m > 0 ? e : -DBL_MAX;
}

/* The exponent of a sum: finite, so that a difference from it is never inf - inf. */
static INLINE double ctc_max_exponent(double a, double b)
{
    return ctc_max(ctc_max(a, b), -DBL_MAX);
}

/* --- rows --- */

static INLINE ctc_row ctc_row_at(double *data, int64_t S)
{
    int64_t n = ctc_row_stride(S);
    data += CTC_LANES;
    return (ctc_row){data, data + n, data + 2 * n, data + 3 * n, 0};
}

static void ctc_copy_row(int64_t S, ctc_row from, ctc_row to)
{
    const double *part[] = {from.blank, from.label, from.blank_e, from.label_e};
    double *copy[] = {to.blank, to.label, to.blank_e, to.label_e};
    for (int k = 0; k < CTC_ROW_ARRAYS; k++)
        memcpy(copy[k] - CTC_LANES, part[k] - CTC_LANES,
               (size_t)ctc_row_stride(S) * sizeof(double));
}

/* No path yet but those that are about to begin, in B_0 or L_0. */
static void ctc_init_row(ctc_lattice *lattice, ctc_row row)
{
    memset(row.blank - CTC_LANES, 0,
           (size_t)(CTC_ROW_ARRAYS * ctc_row_stride(lattice->S)) * sizeof *row.blank);
    row.blank[0] = 1;
    row.label[0] = lattice->S > 0;
    lattice->exponent_headroom = 0;
}

static void ctc_clear(double *places, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        places[i] = 0;
}

/* Mantissas of [0, n) to [1, 2), zeros from there on. */
static void ctc_normalise(double *restrict m, const double *e, double *to, int64_t n, int64_t all)
{
    ctc_clear(m + n, all - n);
#pragma omp simd
    for (int64_t i = 0; i < all; i++) {
        double change = ctc_exponent(m[i]);
        double one =
            ctc_double_from_bits((ctc_double_bits(m[i]) & 0xfffffffffffffu) | ctc_double_bits(1));
        to[i] = m[i] > 0 ? e[i] + change : -DBL_MAX;
        m[i] = m[i] > 0 ? one : 0;
    }
}

static void ctc_normalise_row(ctc_lattice *lattice, ctc_row *row, int64_t n)
{
    const int64_t all = ctc_padded_states(lattice->S);
    ctc_row own = ctc_row_at(row->blank - CTC_LANES, lattice->S);
    ctc_normalise(row->blank, row->blank_e, own.blank_e, n, all);
    ctc_normalise(row->label, row->label_e, own.label_e, n, all);
    own.label_e[-1] = -DBL_MAX;
    *row = own;
    row->exponent_set = ++lattice->exponent_sets;
}

/* Makes a normalised row level, where B_i and L_i have one exponent, if the states allow it. */
static int ctc_share_exponents(ctc_lattice *lattice, ctc_row row)
{
    const int64_t n = ctc_padded_states(lattice->S);
    double *restrict shift_scale = lattice->shift_scale, *restrict skip_scale = lattice->skip_scale,
                     *level = skip_scale;
    double e = -DBL_MAX, lowest = 0, growth_per_step = 0;
    level[-1] = e;
    for (int64_t i = 0; i < n; i++) {
        double highest = ctc_max(row.blank_e[i], row.label_e[i]);
        e = highest > -DBL_MAX ? ctc_max(highest, e - CTC_MAX_FALL) : e;
        level[i] = e;
    }
#pragma omp simd reduction(min : lowest) reduction(max : growth_per_step)
    for (int64_t i = 0; i < n; i++) {
        double fall = level[i - 1] - level[i];
        double b = row.blank[i] > 0 ? row.blank_e[i] - level[i] : 0;
        double l = row.label[i] > 0 ? row.label_e[i] - level[i] : 0;
        lowest = ctc_min(lowest, ctc_min(b, l));
        growth_per_step = ctc_max(growth_per_step, fall);
        shift_scale[i] = ctc_exp2(fall);
    }
    if (lowest < -CTC_ROW_RANGE)
        return 0;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        row.blank[i] *= ctc_exp2(row.blank_e[i] - level[i]);
        row.label[i] *= ctc_exp2(row.label_e[i] - level[i]);
        row.blank_e[i] = row.label_e[i] = level[i];
        skip_scale[i] = shift_scale[i] * lattice->skip_allowed[i];
    }
    lattice->exponent_headroom = CTC_HEADROOM;
    lattice->growth_per_step = growth_per_step;
    return 1;
}

/* --- steps --- */

/* The sums over paths one frame further: with b_i = p_blank B_i and l_i = p(l_i) L_i,
 *     B'_i = b_i + l_(i-1),  L'_i = l_i + b_i + l_(i-1) if l_i != l_(i-1). */
static void ctc_step_shared_exponent(const ctc_lattice *lattice, ctc_row from,
                                     const ctc_frame *frame, ctc_row to, int64_t n)
{
    const double *restrict B = from.blank, *restrict L = from.label, *restrict p = frame->label,
                           *restrict shift_scale = lattice->shift_scale,
                           *restrict skip_scale = lattice->skip_scale;
    double *restrict B_to = to.blank, *restrict L_to = to.label;
    const double blank = frame->blank.m;
    for (int64_t i = 0; i < n; i += CTC_LANES)
#pragma omp simd
        for (int64_t k = i; k < i + CTC_LANES; k++) {
            double b = B[k] * blank, l = L[k - 1] * p[k - 1];
            B_to[k] = b + l * shift_scale[k];
            L_to[k] = L[k] * p[k] + (b + l * skip_scale[k]);
        }
}

static void ctc_step_per_state_exponent(const ctc_lattice *lattice, ctc_row from,
                                        const ctc_frame *frame, ctc_row to)
{
    const double *restrict B = from.blank, *restrict B_e = from.blank_e, *restrict L = from.label,
                           *restrict L_e = from.label_e, *restrict p = frame->label,
                           *restrict p_e = frame->label_e,
                           *restrict skip_allowed = lattice->skip_allowed;
    double *restrict B_to = to.blank, *restrict B_to_e = to.blank_e, *restrict L_to = to.label,
                     *restrict L_to_e = to.label_e;
    const double none = -__builtin_inf(); /* so that no zero decides an exponent */
    const scaled_double blank = {frame->blank.m, frame->blank.m > 0 ? frame->blank.e : none};
#pragma omp simd
    for (int64_t i = 0; i <= lattice->S; i++) {
        double b = B[i] * blank.m, b_e = B_e[i] + blank.e;
        double l = L[i - 1] * p[i - 1], l_e = p[i - 1] > 0 ? L_e[i - 1] + p_e[i - 1] : none;
        double k = L[i] * p[i], k_e = p[i] > 0 ? L_e[i] + p_e[i] : none;
        double e = ctc_max_exponent(b_e, l_e);
        B_to[i] = b * ctc_exp2(b_e - e) + l * ctc_exp2(l_e - e);
        B_to_e[i] = e;
        l_e = skip_allowed[i] > 0 ? l_e : none;
        e = ctc_max(ctc_max_exponent(b_e, l_e), k_e);
        L_to[i] = k * ctc_exp2(k_e - e) + (b * ctc_exp2(b_e - e) + l * ctc_exp2(l_e - e));
        L_to_e[i] = e;
    }
}

/* From row j, where paths have come to place j at most, to the next. */
static void ctc_alpha_step(ctc_lattice *lattice, int64_t j, ctc_row *from, const ctc_frame *frame,
                           ctc_row *to)
{
    const int64_t S = lattice->S, all = ctc_padded_states(S);
    int64_t n = j < S ? ctc_padded_states(j + 1) : all;
    double change =
        ctc_max(frame->exponent_range, lattice->growth_per_step) + 2; /* 2: there are three terms */
    int level = frame->exponent_range <= CTC_FRAME_RANGE;
    if (!level || lattice->exponent_headroom < change) {
        ctc_normalise_row(lattice, from, n);
        lattice->exponent_headroom = 0;
        level = level && ctc_share_exponents(lattice, *from);
    }
    *to = ctc_row_at(to->blank - CTC_LANES, S);
    if (level) {
        ctc_step_shared_exponent(lattice, *from, frame, *to, n);
        lattice->exponent_headroom -= ctc_max(frame->exponent_range, lattice->growth_per_step) + 2;
        to->blank_e = from->blank_e;
        to->label_e = from->label_e;
        to->exponent_set = from->exponent_set;
    } else {
        n = all;
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

/* --- where two rows meet --- */

/* The paths through a state are a p b: a of those that come to it, p of its class, b of those that
 * go on from it, which stands in the order of the reversed labels. The largest exponent of those in
 * [first, last); beyond, a row need not have been written. */
static double ctc_max_joint_exponent(const ctc_lattice *lattice, ctc_row a, const ctc_frame *p,
                                     ctc_row b, int64_t first, int64_t last_blank,
                                     int64_t last_label)
{
    const int64_t S = lattice->S;
    double top = -DBL_MAX, blank = p->blank.e + ctc_exponent(p->blank.m);
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last_blank; i++)
        top = ctc_max(top, ctc_exponent(a.blank[i]) + ctc_exponent(b.blank[S - i]) + blank +
                               (a.blank_e[i] + b.blank_e[S - i]));
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last_label; i++)
        top = ctc_max(top, ctc_exponent(a.label[i]) + ctc_exponent(b.label[S - 1 - i]) +
                               ctc_exponent(p->label[i]) + p->label_e[i] +
                               (a.label_e[i] + b.label_e[S - 1 - i]));
    return top;
}

/* 2^e in two factors: mantissas may be far above 1, and 2^e far below where doubles end. */
static INLINE void ctc_split_exp2(double e, double *first, double *second)
{
    double n = ctc_max(e < 2000 ? e : 2000, -2000), half = (n * 0.5 + 0x1.8p52) - 0x1.8p52;
    *first = ctc_exp2(half);
    *second = ctc_exp2(n - half);
}

/* Rare, and apart from the loops that want the registers. */
static __attribute__((noinline)) void
ctc_update_joint_scale(ctc_lattice *lattice, ctc_row a, const ctc_frame *p, ctc_row b, double top)
{
    const int64_t S = lattice->S;
    double *const *joint = lattice->joint_scale;
#pragma omp simd
    for (int64_t i = 0; i <= S; i++)
        ctc_split_exp2(a.blank_e[i] + b.blank_e[S - i] + p->blank.e - top, &joint[0][i],
                       &joint[1][i]);
#pragma omp simd
    for (int64_t i = 0; i < S; i++)
        ctc_split_exp2(a.label_e[i] + b.label_e[S - 1 - i] + p->label_e[i] - top, &joint[2][i],
                       &joint[3][i]);
}

/* a p b 2^-top of the labels of [first, last), whole vectors of places. Returns the sum of those of
 * the blanks. */
static double ctc_combine_alpha_beta(ctc_lattice *lattice, ctc_row a, const ctc_frame *p, ctc_row b,
                                     double top, int64_t first, int64_t last,
                                     double *restrict label)
{
    const int64_t S = lattice->S, of[] = {a.exponent_set, b.exponent_set};
    int is_near = p->exponent_range <= CTC_FRAME_RANGE;
    if (!is_near || of[0] != lattice->joint_sets[0] || of[1] != lattice->joint_sets[1])
        ctc_update_joint_scale(lattice, a, p, b, top);
    lattice->joint_sets[0] = is_near ? of[0] : -1;
    lattice->joint_sets[1] = of[1];
    const double *restrict f = lattice->joint_scale[0], *restrict g = lattice->joint_scale[1],
                           *restrict f_label = lattice->joint_scale[2],
                           *restrict g_label = lattice->joint_scale[3];
    const double *restrict p_label = p->label, *b_blank = b.blank + S, *b_label = b.label + S - 1;
    const double blank = p->blank.m;
    double lane[CTC_LANES] = {0};
    for (int64_t i = first; i < last; i += CTC_LANES) {
#pragma omp simd
        for (int64_t k = 0; k < CTC_LANES; k++)
            lane[k] += a.blank[i + k] * blank * f[i + k] * (b_blank[-i - k] * g[i + k]);
#pragma omp simd
        for (int64_t k = i; k < i + CTC_LANES; k++)
            label[k] = a.label[k] * p_label[k] * f_label[k] * (b_label[-k] * g_label[k]);
    }
    for (int half = CTC_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

#endif
