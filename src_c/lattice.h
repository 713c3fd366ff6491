/* The lattice of connectionist temporal classification: numbers of unlimited range, and the sums
 * over paths on them. In double, whatever the real; knows no arrays.
 *
 * A number is m 2^e, both double, e a whole number or -inf; so no path is too improbable, and no
 * cell needs exp or log. Mantissas are brought back to [1, 2) only now and then: a frame multiplies
 * them by 4.3 at most and by 0.7 at least. A zero has m = 0 and the lowest e, so that it never
 * decides which exponent a sum has.
 *
 * States stand in two groups, each contiguous: with labels l_0 ... l_(S-1), the blanks B_0 ... B_S
 * around them, and L_i at place i + 1, behind a zero at place 0. */
#ifndef FASTLOSS_LATTICE_H
#define FASTLOSS_LATTICE_H

#include "real.h"

#include <float.h>

typedef struct {
    double m, e;
} wide;

/* m and e of B_0 ... B_S, then those of L_(-1) ... L_S, of which the first and the last are none.
 */
enum { ROW_PARTS = 4 };
typedef struct {
    double *blank, *blank_e, *label, *label_e;
} lattice_row;

/* Frames between two normalisations. */
enum { NORMALISE_EVERY = 64 };

/* Independent sums and maxima: a fixed number, so that no result depends on the vectors' width. */
enum { WIDE_LANES = 8 };

static INLINE int64_t row_places(int64_t S) { return S + 2; }

static INLINE lattice_row row_at(double *data, int64_t S)
{
    int64_t n = row_places(S);
    return (lattice_row){data, data + n, data + 2 * n, data + 3 * n};
}

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

/* 2^n for a whole n <= 1023, 0 below -1022. */
static INLINE double power_of_2(double n)
{
    double power = double_from_bits(double_bits(n + (0x1.8p52 + 1023)) << 52);
    return n < -1022 ? 0 : power;
}

/* The exponent of a sum: finite, so that a difference from it is never inf - inf. */
static INLINE double common_exponent(double a, double b) { return larger(larger(a, b), -DBL_MAX); }

/* The sums over paths one frame further: with b = p_blank B and l_i = p(l_i) L_i,
 *     B'_i = b_i + l_(i-1),  L'_i = l_i + b_i + l_(i-1) if l_i != l_(i-1).
 * label, label_e hold p(l_i) at place i + 1 and zeros at places 0 and S + 1; repeat_e[i] is -inf
 * where l_(i-1) may not lead to l_i, else 0. Place S + 1 of the result is never used. */
static void lattice_step(int64_t S, lattice_row from, wide blank, const double *label,
                         const double *label_e, const double *repeat_e, lattice_row to)
{
    const double *restrict B = from.blank, *restrict B_e = from.blank_e, *restrict L = from.label,
                           *restrict L_e = from.label_e;
    double *restrict B_to = to.blank, *restrict B_to_e = to.blank_e, *restrict L_to = to.label + 1,
                     *restrict L_to_e = to.label_e + 1;
#pragma omp simd
    for (int64_t i = 0; i <= S; i++) {
        double b = B[i] * blank.m, b_e = B_e[i] + blank.e;
        double l = L[i] * label[i], l_e = L_e[i] + label_e[i];
        double k = L[i + 1] * label[i + 1], k_e = L_e[i + 1] + label_e[i + 1];
        double e = common_exponent(b_e, l_e);
        B_to[i] = b * power_of_2(b_e - e) + l * power_of_2(l_e - e);
        B_to_e[i] = e;
        l_e += repeat_e[i];
        e = larger(common_exponent(b_e, l_e), k_e);
        L_to[i] = k * power_of_2(k_e - e) + (b * power_of_2(b_e - e) + l * power_of_2(l_e - e));
        L_to_e[i] = e;
    }
    to.label[0] = 0;
    to.label_e[0] = -DBL_MAX;
}

/* Mantissas back to [1, 2). */
static void normalise(double *restrict m, double *restrict e, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = double_bits(m[i]);
        double exponent = double_from_bits((bits >> 52) | double_bits(0x1p52)) - (0x1p52 + 1023);
        double one = double_from_bits((bits & 0xfffffffffffffu) | double_bits(1));
        e[i] += m[i] > 0 ? exponent : 0;
        m[i] = m[i] > 0 ? one : 0;
    }
}

static void normalise_row(int64_t S, lattice_row row)
{
    normalise(row.blank, row.blank_e, S + 1);
    normalise(row.label + 1, row.label_e + 1, S);
}

/* No path yet but those that are about to begin, in B_0 or L_0. */
static void lattice_start(int64_t S, lattice_row row)
{
    for (int64_t i = 0; i < row_places(S); i++) {
        row.blank[i] = row.label[i] = 0;
        row.blank_e[i] = row.label_e[i] = -DBL_MAX;
    }
    row.blank[0] = 1;
    row.blank_e[0] = 0;
    if (S > 0) {
        row.label[1] = 1;
        row.label_e[1] = 0;
    }
}

/* The paths through each state of a frame: a of those that come to it, p of its class there, b of
 * those that go on from it, which stands in the order of the reversed labels. a p b = m 2^top,
 * first of the blanks B_0 ... B_S, then of L_(-1) ... L_(S-1); e is scratch. Returns top. */
static double lattice_join(int64_t S, lattice_row a, wide blank, const double *label,
                           const double *label_e, lattice_row b, double *restrict m,
                           double *restrict e)
{
    double lane[WIDE_LANES], top = -DBL_MAX;
    int64_t n = 2 * (S + 1), i = 0;
    for (int64_t j = 0; j <= S; j++) {
        m[j] = a.blank[j] * blank.m * b.blank[S - j];
        e[j] = a.blank_e[j] + blank.e + b.blank_e[S - j];
    }
    for (int64_t j = 0; j <= S; j++) {
        m[S + 1 + j] = a.label[j] * label[j] * b.label[S + 1 - j];
        e[S + 1 + j] = a.label_e[j] + label_e[j] + b.label_e[S + 1 - j];
    }
    for (int k = 0; k < WIDE_LANES; k++)
        lane[k] = top;
    for (; i + WIDE_LANES <= n; i += WIDE_LANES)
#pragma omp simd
        for (int k = 0; k < WIDE_LANES; k++)
            lane[k] = larger(lane[k], e[i + k]);
    for (; i < n; i++)
        top = larger(top, e[i]);
    for (int k = 0; k < WIDE_LANES; k++)
        top = larger(top, lane[k]);
    for (i = 0; i < n; i++) {
        /* In two factors: mantissas may be far above 1, and 2^e[i] far below where doubles end. */
        double down = e[i] - top, near = larger(down, -1000);
        m[i] = m[i] * power_of_2(near) * power_of_2(down - near);
    }
    return top;
}

static double sum_states(const double *m, int64_t n)
{
    double lane[WIDE_LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + WIDE_LANES <= n; i += WIDE_LANES)
#pragma omp simd
        for (int k = 0; k < WIDE_LANES; k++)
            lane[k] += m[i + k];
    for (; i < n; i++)
        sum += m[i];
    for (int k = 0; k < WIDE_LANES; k++)
        sum += lane[k];
    return sum;
}

#endif
