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
#ifndef FASTLOSS_LATTICE_H
#define FASTLOSS_LATTICE_H

#include "vector/real.h"

#include <float.h>
#include <string.h>

typedef struct {
    double m, e;
} wide;

/* States at a time: a fixed number, so that no result depends on the vectors' width. */
enum { VECTOR = 8 };

/* A group has the places 0 ... S, filled up to whole vectors, and one vector more before and after
 * them. */
static INLINE int64_t row_places(int64_t S) { return (S / VECTOR + 1) * VECTOR; }
static INLINE int64_t row_stride(int64_t S) { return row_places(S) + 2 * VECTOR; }

/* blank[i] is B_i, label[i] is L_i, label[S] is of no use; around them are zeros. Exponents may be
 * those of an earlier row; a row's own stand behind its mantissas. */
enum { ROW_PARTS = 4 };
typedef struct {
    double *blank, *label, *blank_e, *label_e;
    int64_t exponents; /* which set of them */
} lattice_row;

/* The probabilities of a frame: of the blank and of the labels, around which are zeros. */
typedef struct {
    wide blank;
    double *label, *label_e;
    double spread; /* powers of two between them; up to FRAME_SPREAD all have e = 0 */
} lattice_frame;

/* What does not change with every frame. */
typedef struct {
    int64_t S;
    double *follows;      /* 1 where l_(i-1) may lead to l_i, else 0 */
    double *shift, *jump; /* of level rows: 2^(e_(i-1) - e_i), and that times follows */
    double room, slope;   /* by what powers of two mantissas may still change, and grow in a step */
    int64_t exponents;    /* sets of them so far */
    double *joint[4];     /* of two rows that are joined, 2^e in two factors: blanks, labels */
    int64_t joint_of[2];  /* the rows' sets */
} lattice;

/* In powers of two: between the states of a row when it is made level, and the greatest fall from
 * one to the next; within a frame; what mantissas may then change by. */
enum { ROW_SPREAD = 150, STEEPEST = 100, FRAME_SPREAD = 250, ROOM = 300 };

static INLINE uint64_t double_bits(double x)
{
    uint64_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

static INLINE double double_from_bits(uint64_t bits)
{
    double x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

static INLINE double larger(double a, double b) { return a > b ? a : b; }
static INLINE double smaller(double a, double b) { return a < b ? a : b; }

/* 2^n for a whole n <= 1023, 0 below -1022. */
static INLINE double power_of_2(double n)
{
    double power = double_from_bits(double_bits(n + (0x1.8p52 + 1023)) << 52);
    return n < -1022 ? 0 : power;
}

/* That of m, which is normal or 0. */
static INLINE double exponent_of(double m)
{
    double e = double_from_bits((double_bits(m) >> 52) | double_bits(0x1p52)) - (0x1p52 + 1023);
    return m > 0 ? e : -DBL_MAX;
}

/* The exponent of a sum: finite, so that a difference from it is never inf - inf. */
static INLINE double common_exponent(double a, double b) { return larger(larger(a, b), -DBL_MAX); }

/* --- rows --- */

static INLINE lattice_row row_at(double *data, int64_t S)
{
    int64_t n = row_stride(S);
    data += VECTOR;
    return (lattice_row){data, data + n, data + 2 * n, data + 3 * n, 0};
}

static void copy_row(int64_t S, lattice_row from, lattice_row to)
{
    const double *part[] = {from.blank, from.label, from.blank_e, from.label_e};
    double *copy[] = {to.blank, to.label, to.blank_e, to.label_e};
    for (int k = 0; k < ROW_PARTS; k++)
        memcpy(copy[k] - VECTOR, part[k] - VECTOR, (size_t)row_stride(S) * sizeof(double));
}

/* No path yet but those that are about to begin, in B_0 or L_0. */
static void lattice_start(lattice *lattice, lattice_row row)
{
    memset(row.blank - VECTOR, 0, (size_t)(ROW_PARTS * row_stride(lattice->S)) * sizeof *row.blank);
    row.blank[0] = 1;
    row.label[0] = lattice->S > 0;
    lattice->room = 0;
}

static void clear(double *places, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        places[i] = 0;
}

/* Mantissas of [0, n) to [1, 2), zeros from there on. */
static void normalise(double *restrict m, const double *e, double *to, int64_t n, int64_t all)
{
    clear(m + n, all - n);
#pragma omp simd
    for (int64_t i = 0; i < all; i++) {
        double change = exponent_of(m[i]);
        double one = double_from_bits((double_bits(m[i]) & 0xfffffffffffffu) | double_bits(1));
        to[i] = m[i] > 0 ? e[i] + change : -DBL_MAX;
        m[i] = m[i] > 0 ? one : 0;
    }
}

static void normalise_row(lattice *lattice, lattice_row *row, int64_t n)
{
    const int64_t all = row_places(lattice->S);
    lattice_row own = row_at(row->blank - VECTOR, lattice->S);
    normalise(row->blank, row->blank_e, own.blank_e, n, all);
    normalise(row->label, row->label_e, own.label_e, n, all);
    own.label_e[-1] = -DBL_MAX;
    *row = own;
    row->exponents = ++lattice->exponents;
}

/* Makes a normalised row level, where B_i and L_i have one exponent, if the states allow it. */
static int level_row(lattice *lattice, lattice_row row)
{
    const int64_t n = row_places(lattice->S);
    double *restrict shift = lattice->shift, *restrict jump = lattice->jump, *level = jump;
    double e = -DBL_MAX, lowest = 0, slope = 0;
    level[-1] = e;
    for (int64_t i = 0; i < n; i++) {
        double highest = larger(row.blank_e[i], row.label_e[i]);
        e = highest > -DBL_MAX ? larger(highest, e - STEEPEST) : e;
        level[i] = e;
    }
#pragma omp simd reduction(min : lowest) reduction(max : slope)
    for (int64_t i = 0; i < n; i++) {
        double fall = level[i - 1] - level[i];
        double b = row.blank[i] > 0 ? row.blank_e[i] - level[i] : 0;
        double l = row.label[i] > 0 ? row.label_e[i] - level[i] : 0;
        lowest = smaller(lowest, smaller(b, l));
        slope = larger(slope, fall);
        shift[i] = power_of_2(fall);
    }
    if (lowest < -ROW_SPREAD)
        return 0;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        row.blank[i] *= power_of_2(row.blank_e[i] - level[i]);
        row.label[i] *= power_of_2(row.label_e[i] - level[i]);
        row.blank_e[i] = row.label_e[i] = level[i];
        jump[i] = shift[i] * lattice->follows[i];
    }
    lattice->room = ROOM;
    lattice->slope = slope;
    return 1;
}

/* --- steps --- */

/* The sums over paths one frame further: with b_i = p_blank B_i and l_i = p(l_i) L_i,
 *     B'_i = b_i + l_(i-1),  L'_i = l_i + b_i + l_(i-1) if l_i != l_(i-1). */
static void level_step(const lattice *lattice, lattice_row from, const lattice_frame *frame,
                       lattice_row to, int64_t n)
{
    const double *restrict B = from.blank, *restrict L = from.label, *restrict p = frame->label,
                           *restrict shift = lattice->shift, *restrict jump = lattice->jump;
    double *restrict B_to = to.blank, *restrict L_to = to.label;
    const double blank = frame->blank.m;
    for (int64_t i = 0; i < n; i += VECTOR)
#pragma omp simd
        for (int64_t k = i; k < i + VECTOR; k++) {
            double b = B[k] * blank, l = L[k - 1] * p[k - 1];
            B_to[k] = b + l * shift[k];
            L_to[k] = L[k] * p[k] + (b + l * jump[k]);
        }
}

static void wide_step(const lattice *lattice, lattice_row from, const lattice_frame *frame,
                      lattice_row to)
{
    const double *restrict B = from.blank, *restrict B_e = from.blank_e, *restrict L = from.label,
                           *restrict L_e = from.label_e, *restrict p = frame->label,
                           *restrict p_e = frame->label_e, *restrict follows = lattice->follows;
    double *restrict B_to = to.blank, *restrict B_to_e = to.blank_e, *restrict L_to = to.label,
                     *restrict L_to_e = to.label_e;
    const double none = -__builtin_inf(); /* so that no zero decides an exponent */
    const wide blank = {frame->blank.m, frame->blank.m > 0 ? frame->blank.e : none};
#pragma omp simd
    for (int64_t i = 0; i <= lattice->S; i++) {
        double b = B[i] * blank.m, b_e = B_e[i] + blank.e;
        double l = L[i - 1] * p[i - 1], l_e = p[i - 1] > 0 ? L_e[i - 1] + p_e[i - 1] : none;
        double k = L[i] * p[i], k_e = p[i] > 0 ? L_e[i] + p_e[i] : none;
        double e = common_exponent(b_e, l_e);
        B_to[i] = b * power_of_2(b_e - e) + l * power_of_2(l_e - e);
        B_to_e[i] = e;
        l_e = follows[i] > 0 ? l_e : none;
        e = larger(common_exponent(b_e, l_e), k_e);
        L_to[i] = k * power_of_2(k_e - e) + (b * power_of_2(b_e - e) + l * power_of_2(l_e - e));
        L_to_e[i] = e;
    }
}

/* From row j, where paths have come to place j at most, to the next. */
static void lattice_step(lattice *lattice, int64_t j, lattice_row *from, const lattice_frame *frame,
                         lattice_row *to)
{
    const int64_t S = lattice->S, all = row_places(S);
    int64_t n = j < S ? row_places(j + 1) : all;
    double change = larger(frame->spread, lattice->slope) + 2; /* 2: there are three terms */
    int level = frame->spread <= FRAME_SPREAD;
    if (!level || lattice->room < change) {
        normalise_row(lattice, from, n);
        lattice->room = 0;
        level = level && level_row(lattice, *from);
    }
    *to = row_at(to->blank - VECTOR, S);
    if (level) {
        level_step(lattice, *from, frame, *to, n);
        lattice->room -= larger(frame->spread, lattice->slope) + 2;
        to->blank_e = from->blank_e;
        to->label_e = from->label_e;
        to->exponents = from->exponents;
    } else {
        n = all;
        clear(to->blank + S, n - S);
        clear(to->label + S, n - S);
        wide_step(lattice, *from, frame, *to);
        to->exponents = ++lattice->exponents;
    }
    clear(to->blank - VECTOR, VECTOR);
    clear(to->label - VECTOR, VECTOR);
    clear(to->blank + n, VECTOR);
    clear(to->label + n, VECTOR);
}

/* --- where two rows meet --- */

/* The paths through a state are a p b: a of those that come to it, p of its class, b of those that
 * go on from it, which stands in the order of the reversed labels. The largest exponent of those in
 * [first, last); beyond, a row need not have been written. */
static double highest_joint(const lattice *lattice, lattice_row a, const lattice_frame *p,
                            lattice_row b, int64_t first, int64_t last_blank, int64_t last_label)
{
    const int64_t S = lattice->S;
    double top = -DBL_MAX, blank = p->blank.e + exponent_of(p->blank.m);
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last_blank; i++)
        top = larger(top, exponent_of(a.blank[i]) + exponent_of(b.blank[S - i]) + blank +
                              (a.blank_e[i] + b.blank_e[S - i]));
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last_label; i++)
        top = larger(top, exponent_of(a.label[i]) + exponent_of(b.label[S - 1 - i]) +
                              exponent_of(p->label[i]) + p->label_e[i] +
                              (a.label_e[i] + b.label_e[S - 1 - i]));
    return top;
}

/* 2^e in two factors: mantissas may be far above 1, and 2^e far below where doubles end. */
static INLINE void split_power(double e, double *first, double *second)
{
    double n = larger(e < 2000 ? e : 2000, -2000), half = (n * 0.5 + 0x1.8p52) - 0x1.8p52;
    *first = power_of_2(half);
    *second = power_of_2(n - half);
}

/* Rare, and apart from the loops that want the registers. */
static __attribute__((noinline)) void
prepare_joint(lattice *lattice, lattice_row a, const lattice_frame *p, lattice_row b, double top)
{
    const int64_t S = lattice->S;
    double *const *joint = lattice->joint;
#pragma omp simd
    for (int64_t i = 0; i <= S; i++)
        split_power(a.blank_e[i] + b.blank_e[S - i] + p->blank.e - top, &joint[0][i], &joint[1][i]);
#pragma omp simd
    for (int64_t i = 0; i < S; i++)
        split_power(a.label_e[i] + b.label_e[S - 1 - i] + p->label_e[i] - top, &joint[2][i],
                    &joint[3][i]);
}

/* a p b 2^-top of the labels of [first, last), whole vectors of places. Returns the sum of those of
 * the blanks. */
static double lattice_join(lattice *lattice, lattice_row a, const lattice_frame *p, lattice_row b,
                           double top, int64_t first, int64_t last, double *restrict label)
{
    const int64_t S = lattice->S, of[] = {a.exponents, b.exponents};
    int is_near = p->spread <= FRAME_SPREAD;
    if (!is_near || of[0] != lattice->joint_of[0] || of[1] != lattice->joint_of[1])
        prepare_joint(lattice, a, p, b, top);
    lattice->joint_of[0] = is_near ? of[0] : -1;
    lattice->joint_of[1] = of[1];
    const double *restrict f = lattice->joint[0], *restrict g = lattice->joint[1],
                           *restrict f_label = lattice->joint[2],
                           *restrict g_label = lattice->joint[3];
    const double *restrict p_label = p->label, *b_blank = b.blank + S, *b_label = b.label + S - 1;
    const double blank = p->blank.m;
    double lane[VECTOR] = {0};
    for (int64_t i = first; i < last; i += VECTOR) {
#pragma omp simd
        for (int64_t k = 0; k < VECTOR; k++)
            lane[k] += a.blank[i + k] * blank * f[i + k] * (b_blank[-i - k] * g[i + k]);
#pragma omp simd
        for (int64_t k = i; k < i + VECTOR; k++)
            label[k] = a.label[k] * p_label[k] * f_label[k] * (b_label[-k] * g_label[k]);
    }
    for (int half = VECTOR / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

#endif
