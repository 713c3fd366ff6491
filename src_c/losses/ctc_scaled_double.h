/* Scaled doubles: m 2^e, with m and e both double and e a whole number.
 *
 * Their range far exceeds the range of a double. The probability of a path never underflows, and
 * the recursion of ctc_lattice.h needs neither exp nor log. Zero is m = 0 with e = -DBL_MAX. */
#ifndef FASTLOSS_CTC_SCALED_DOUBLE_H
#define FASTLOSS_CTC_SCALED_DOUBLE_H

#include "vector/real.h"

#include <float.h>
#include <stdint.h>

typedef struct {
    double m, e;
} scaled_double;

/* Doubles per vector operation and per sum: fixed, so that no result depends on the width of the
 * registers. */
enum { CTC_LANES = 8 };

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

/* 2^n for a whole n <= 1023; 0 for n < -1022. */
static INLINE double ctc_exp2(double n)
{
    double power = ctc_double_from_bits(ctc_double_bits(n + (0x1.8p52 + 1023)) << 52);
    return n < -1022 ? 0 : power;
}

/* 2^e as a product of two factors, e clamped to [-2000, 2000]: it multiplies mantissas that may be
 * far above 1, so 2^e itself may be far below the smallest double. */
static INLINE void ctc_split_exp2(double e, double *first, double *second)
{
    double n = ctc_max(e < 2000 ? e : 2000, -2000), half = (n * 0.5 + 0x1.8p52) - 0x1.8p52;
    *first = ctc_exp2(half);
    *second = ctc_exp2(n - half);
}

/* floor(log2(m)) of a normal m > 0; -DBL_MAX for 0. */
static INLINE double ctc_exponent(double m)
{
    double e = ctc_double_from_bits((ctc_double_bits(m) >> 52) | ctc_double_bits(0x1p52)) -
               (0x1p52 + 1023);
    return m > 0 ? e : -DBL_MAX;
}

/* The exponent of a sum of two terms. It is finite even if both are -inf, so that subtracting it
 * never gives inf - inf. */
static INLINE double ctc_sum_exponent(double a, double b)
{
    return ctc_max(ctc_max(a, b), -DBL_MAX);
}

static void ctc_clear(double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = 0;
}

/* Brings the mantissas m[0 ... n - 1] to [1, 2), sets m[n ... padded - 1] to 0, and writes the
 * exponents of all `padded` entries to normalised_e, which may be e. */
static void ctc_normalise(double *restrict m, const double *e, double *normalised_e, int64_t n,
                          int64_t padded)
{
    ctc_clear(m + n, padded - n);
#pragma omp simd
    for (int64_t i = 0; i < padded; i++) {
        double change = ctc_exponent(m[i]);
        double fraction =
            ctc_double_from_bits((ctc_double_bits(m[i]) & 0xfffffffffffffu) | ctc_double_bits(1));
        normalised_e[i] = m[i] > 0 ? e[i] + change : -DBL_MAX;
        m[i] = m[i] > 0 ? fraction : 0;
    }
}

#endif
