/* EXP, LOG, LOG1P, EXPM1, POW, LOG_RATIO and related functions of a `real`, for the loops of the
 * kernels.
 *
 * Plain C without branches, tables or calls: a loop over any of them vectorises under SSE2, AVX2,
 * AVX-512 and NEON, and its tail is bitwise identical to its body. The functions require rounding
 * to nearest, subnormals that are not flushed to zero, and -ffp-contract=off. They may raise any
 * floating-point exception flag, and which NaN they return is unspecified.
 *
 * Each block states the largest error found, in units in the last place (ULP) of the exact result,
 * with and without FMA: over all 2^32 inputs for float, over samples that are dense where errors
 * peak for double. Coefficients are minimax (Remez exchange, at 240 bits), rounded to `real`.
 *
 * Techniques
 *   - A real is rounded to an integer by adding 1.5 * 2^(mantissa bits); the low bits of the sum
 *     then hold the integer. Baseline x86-64 has no rounding instruction, and no x86-64 below
 *     AVX-512 converts 64-bit integers or shifts them arithmetically; this needs neither.
 *   - Bit patterns are unsigned integers, so that no overflow and no shift is undefined. Bits that
 *     are computed from an argument out of range are meaningless but harmless: a selection replaces
 *     the result.
 *   - Results for arguments out of range are selected at the end, instead of clamping the argument
 *     first: gcc threads two clamps in a row into branches, and without -ffinite-math-only makes no
 *     minimum instruction of them.
 */
#ifndef FASTLOSS_VECTOR_MATH_H
#define FASTLOSS_VECTOR_MATH_H

#include "vector/real.h"

#if REAL_IS_DOUBLE
#define ROUND_MAGIC 0x1.8p+52     /* adding it rounds to an integer */
#define FIELD_MAGIC 0x1p+52       /* or-ing an integer below 2^52 into its bits adds the integer */
#define LN2_HI 0x1.62e42fefa38p-1 /* has trailing zeros, so that n * LN2_HI is exact */
#define LN2_LO 0x1.ef35793c7673p-45
#define EXP_LOWEST -746.0  /* EXP rounds to 0 below, */
#define EXP_HIGHEST 710.0  /* and to inf above */
#define EXPM1_LOWEST -40.0 /* EXPM1 rounds to -1 below */
#else
#define ROUND_MAGIC 0x1.8p+23f
#define FIELD_MAGIC 0x1p+23f
#define LN2_HI 0x1.62e4p-1f
#define LN2_LO 0x1.7f7d1cp-20f
#define EXP_LOWEST -105.0f
#define EXP_HIGHEST 89.0f
#define EXPM1_LOWEST -18.0f
#endif
#define LOG2_E REAL_C(0x1.71547652b82fep+0)
#define LN2 REAL_C(0x1.62e42fefa39efp-1)
#define EXPONENT_FIELD ((uint_real)(2 * REAL_EXPONENT_BIAS + 1) << REAL_MANTISSA_BITS)
#define MANTISSA_FIELD (((uint_real)1 << REAL_MANTISSA_BITS) - 1)

/* Q such that exp(r) = 1 + r + r^2 Q(r) for |r| <= ln(2) / 2, with an error of 2^-26.1 (double:
 * 2^-54.7) relative to exp(r) - 1. In double, Horner's rule in r^2 runs over the even and the odd
 * coefficients in parallel (the first step of Estrin's scheme), which halves the chain of dependent
 * operations; the float polynomial is too short to gain from it.
 */
static INLINE real exp_polynomial(real r)
{
#if REAL_IS_DOUBLE
    real r2 = r * r;
    real even = REAL_C(0x1.28a2066d063fcp-22);
    real odd = REAL_C(0x1.ae6bbdc879e98p-26);
    even = FMA(even, r2, REAL_C(0x1.a019a74a90719p-16));
    odd = FMA(odd, r2, REAL_C(0x1.71de8819c518dp-19));
    even = FMA(even, r2, REAL_C(0x1.6c16c17ee7214p-10));
    odd = FMA(odd, r2, REAL_C(0x1.a01a0174fff97p-13));
    even = FMA(even, r2, REAL_C(0x1.555555555228ep-5));
    odd = FMA(odd, r2, REAL_C(0x1.1111111119003p-7));
    even = FMA(even, r2, REAL_C(0x1.0000000000005p-1));
    odd = FMA(odd, r2, REAL_C(0x1.5555555555539p-3));
    return FMA(odd, r, even);
#else
    real q = REAL_C(0x1.6ab6b2p-10);
    q = FMA(q, r, REAL_C(0x1.122c96p-7));
    q = FMA(q, r, REAL_C(0x1.55579ap-5));
    q = FMA(q, r, REAL_C(0x1.5554aap-3));
    return FMA(q, r, REAL_C(0x1.fffffep-2));
#endif
}

/* P such that log(1 + f) = f - f^2 / 2 + f^3 P(f) for -1/4 <= f <= 1/2, with an error of 2^-27.5
 * (double: 2^-56.2) relative to log(1 + f). Evaluated as exp_polynomial() in double.
 */
static INLINE real log_polynomial(real f, real f2)
{
#if REAL_IS_DOUBLE
    real even = REAL_C(0x1.08798a83eff80p-7);
    real odd = REAL_C(-0x1.e05e52c498760p-6);
    even = FMA(even, f2, REAL_C(0x1.9e92e25aebdb3p-5));
    odd = FMA(odd, f2, REAL_C(-0x1.e887263df2d2cp-5));
    even = FMA(even, f2, REAL_C(0x1.f24f6d9b258d4p-5));
    odd = FMA(odd, f2, REAL_C(-0x1.0006d9a569efep-4));
    even = FMA(even, f2, REAL_C(0x1.101f2b7971986p-4));
    odd = FMA(odd, f2, REAL_C(-0x1.246522890554fp-4));
    even = FMA(even, f2, REAL_C(0x1.3b1eccf81b321p-4));
    odd = FMA(odd, f2, REAL_C(-0x1.555938876d635p-4));
    even = FMA(even, f2, REAL_C(0x1.745ceda6691f1p-4));
    odd = FMA(odd, f2, REAL_C(-0x1.999972c57579cp-4));
    even = FMA(even, f2, REAL_C(0x1.c71c70dcec26cp-4));
    odd = FMA(odd, f2, REAL_C(-0x1.00000064e7776p-3));
    even = FMA(even, f2, REAL_C(0x1.249249297058dp-3));
    odd = FMA(odd, f2, REAL_C(-0x1.555555545218dp-3));
    even = FMA(even, f2, REAL_C(0x1.999999998c5c6p-3));
    odd = FMA(odd, f2, REAL_C(-0x1.00000000007bap-2));
    even = FMA(even, f2, REAL_C(0x1.55555555555a1p-2));
#else
    real even = REAL_C(0x1.accfbcp-4);
    real odd = REAL_C(-0x1.716c9cp-5);
    even = FMA(even, f2, REAL_C(0x1.28874ep-3));
    odd = FMA(odd, f2, REAL_C(-0x1.0da0aep-3));
    even = FMA(even, f2, REAL_C(0x1.99694ep-3));
    odd = FMA(odd, f2, REAL_C(-0x1.54ee2ap-3));
    even = FMA(even, f2, REAL_C(0x1.5555a4p-2));
    odd = FMA(odd, f2, REAL_C(-0x1.000044p-2));
#endif
    return FMA(odd, f, even);
}

/* Cody-Waite reduction: returns P such that e^(x - c) = 2^n P, for a correction c that is small
 * relative to an ULP of 1 or of x; c = 0 costs nothing. *exponent is ROUND_MAGIC + bias + n, whose
 * low bits hold n + bias, which is positive.
 */
static INLINE real exp_parts(real x, real c, int bias, real *exponent)
{
    const real magic = ROUND_MAGIC + (real)bias;
    *exponent = FMA(x, LOG2_E, magic);
    real n = *exponent - magic;
    real high = FMA(n, -LN2_HI, x); /* exact */
#if REAL_HAS_FMA
    real r = FMA(n, -LN2_LO, high) - c;
    return FMA(r, FMA(r, exp_polynomial(r), REAL_C(1.0)), REAL_C(1.0));
#else
    /* Adds the two parts of r separately, so that the rounding error of r does not reach the large
     * term. */
    real low = n * -LN2_LO - c;
    real r = high + low;
    return REAL_C(1.0) + (high + (r * (r * exp_polynomial(r)) + low));
#endif
}

/* v 2^n for v near 1. 2^n is applied as two factors of about 2^(n/2), which are normal even if 2^n
 * is subnormal or overflows; only the last product rounds. The low bits of `exponent` hold
 * n + 2 REAL_EXPONENT_BIAS.
 */
static INLINE real scale_by_power_of_2(real v, real exponent)
{
    uint_real bits = real_bits(exponent);
    uint_real first = (bits << (REAL_MANTISSA_BITS - 1)) & EXPONENT_FIELD;
    uint_real second = (bits << REAL_MANTISSA_BITS) - first;
    return v * real_from_bits(first) * real_from_bits(second);
}

/* e^(x - c) with c as in exp_parts(). */
static INLINE real exp_corrected(real x, real c)
{
    real exponent, power = exp_parts(x, c, 2 * REAL_EXPONENT_BIAS, &exponent);
    real y = scale_by_power_of_2(power, exponent);
    y = x > EXP_HIGHEST ? REAL_INFINITY : y;
    return x < EXP_LOWEST ? REAL_C(0.0) : y;
}

/* e^x.
 *   Error   float 0.92 ULP (0.93 without FMA), double 0.98 (1.00), subnormal results included
 *   Values  overflow and +inf give +inf, underflow and -inf give 0, NaN gives NaN
 *   Method  Cody-Waite reduction, x = n ln 2 + r with ln 2 in two parts (Software Manual for the
 *           Elementary Functions, 1980), then 2^n times a polynomial in r
 */
static INLINE real EXP(real x) { return exp_corrected(x, REAL_C(0.0)); }

/* e^x for x <= 0.
 *   Error   as EXP
 *   Values  -inf gives 0, NaN gives NaN; meaningless for x > 0
 *   Method  as EXP, but with one factor 2^(n + 64), which is normal although 2^n may be subnormal;
 *           nothing overflows
 */
static INLINE real EXP_NEGATIVE(real x)
{
    real exponent, power = exp_parts(x, REAL_C(0.0), REAL_EXPONENT_BIAS + 64, &exponent);
    real y = power * real_from_bits(real_bits(exponent) << REAL_MANTISSA_BITS) * REAL_C(0x1p-64);
    return x < EXP_LOWEST ? REAL_C(0.0) : y;
}

/* e^x - 1.
 *   Error   float 1.08 ULP (1.09 without FMA; above 1 for 3500 of the 2^32), double 1.28 (1.28)
 *   Values  tiny x give x, -0 gives -0; x far below 0 and -inf give -1, overflow and +inf give
 *           +inf, NaN gives NaN
 *   Method  as EXP; 2^n (1 - 2^-n + r + ...), whose first terms are summed exactly
 */
static INLINE real EXPM1(real x)
{
    const real magic = ROUND_MAGIC + (REAL_EXPONENT_BIAS - 1);
    real shifted = FMA(x, LOG2_E, magic); /* its low bits hold n - 1 + bias */
    real n = shifted - magic;
    real high = FMA(n, -LN2_HI, x); /* exact */
    real low = n * -LN2_LO;
    real r = high + low;
    real small = FMA(r * r, exp_polynomial(r), low);
    /* 2^(n-1) and 2^(1-n): neither is subnormal for n in range (the latter may be 0). */
    uint_real field = real_bits(shifted) << REAL_MANTISSA_BITS;
    real scale = real_from_bits(field);
    uint_real field_of_product = (uint_real)(2 * REAL_EXPONENT_BIAS) << REAL_MANTISSA_BITS;
    real inverse = real_from_bits(field_of_product - field);
    real one = FMA(inverse, REAL_C(-0.5), REAL_C(1.0)); /* 1 - 2^-n: 0, or no smaller than r */
    real head = one + high;
    real tail = high - (head - one);
    real y = (head + (tail + small)) * REAL_C(2.0) * scale;
    y = real_from_bits(real_bits(y) | (real_bits(x) & SIGN_BIT)); /* -0 for -0 */
    y = x > EXP_HIGHEST ? REAL_INFINITY : y;
    return x < EXPM1_LOWEST ? REAL_C(-1.0) : y;
}

/* log(2^e (1 + f)) for an integer e and -1/4 <= f <= 1/2. e LN2_HI is exact, and so is its sum with
 * f as head + tail, by Dekker's fast two-sum (|e ln 2| > |f| or e = 0).
 */
static INLINE real log_from_parts(real e, real f)
{
    real f2 = f * f;
    real small = f2 * FMA(f, log_polynomial(f, f2), REAL_C(-0.5));
    real head = FMA(e, LN2_HI, f);
    real tail = f - FMA(e, -LN2_HI, head);
    return head + (tail + FMA(e, LN2_LO, small));
}

/* Returns f, and sets e, such that x = 2^e (1 + f) and -1/4 <= f < 1/2, for 0 < x < inf: e = 0
 * around x = 1, and f is exact.
 */
static INLINE real split_exponent(real x, real *e)
{
    const real bias = FIELD_MAGIC + REAL_EXPONENT_BIAS;
    real normal = x < REAL_MIN ? x * (REAL_C(2.0) / REAL_EPSILON) : x;
    real offset = x < REAL_MIN ? bias + (REAL_MANTISSA_BITS + 1) : bias;
    /* Adds 1 - 3/4 as bits: the mantissa carries into the exponent if it is 3/2 or more. */
    uint_real bits = real_bits(normal) + (real_bits(REAL_C(1.0)) - real_bits(REAL_C(0.75)));
    *e = real_from_bits((bits >> REAL_MANTISSA_BITS) | real_bits(FIELD_MAGIC)) - offset;
    return real_from_bits((bits & MANTISSA_FIELD) + real_bits(REAL_C(0.75))) - REAL_C(1.0);
}

/* The natural logarithm.
 *   Error   float 0.99 ULP (0.99 without FMA), double 1.04 (1.07), subnormal arguments included
 *   Values  +-0 give -inf, x < 0 gives NaN, +inf gives +inf, NaN gives NaN
 *   Method  x = 2^e (1 + f), then a polynomial in f. Most libraries divide, for a polynomial of
 *           lower degree; the division costs more than the additional terms
 */
static INLINE real LOG(real x)
{
    real e, f = split_exponent(x, &e), y = log_from_parts(e, f);
    y = x < REAL_INFINITY ? y : x;
    return x > REAL_C(0.0) ? y : (x == REAL_C(0.0) ? -REAL_INFINITY : REAL_NAN);
}

/* split_exponent() of 1 + x, for -1 < x < inf. */
static INLINE real split_exponent_of_1p(real x, real *e)
{
    const real bias = FIELD_MAGIC + REAL_EXPONENT_BIAS;
    uint_real shifted =
        real_bits(REAL_C(1.0) + x) + (real_bits(REAL_C(1.0)) - real_bits(REAL_C(0.75)));
    uint_real field = shifted >> REAL_MANTISSA_BITS;
    *e = real_from_bits(field | real_bits(FIELD_MAGIC)) - bias;
    /* 2^(2-e) is normal for every e; 2^-e is not. */
    real scale =
        real_from_bits(((uint_real)(2 * REAL_EXPONENT_BIAS + 2) - field) << REAL_MANTISSA_BITS);
    return FMA(x * scale, REAL_C(0.25), FMA(scale, REAL_C(0.25), REAL_C(-1.0)));
}

/* log(1 + x).
 *   Error   float 0.99 ULP (1.00 without FMA), double 1.06 (1.09)
 *   Values  tiny x give x, -0 gives -0; -1 gives -inf, x < -1 gives NaN, +inf gives +inf, NaN gives
 *           NaN
 *   Method  as LOG, with e from the rounded 1 + x but f from x: f = x 2^-e - (1 - 2^-e) is exact
 *           unless x is so large that 1 + x rounds to x; no correction term and no division
 */
static INLINE real LOG1P(real x)
{
    real e, f = split_exponent_of_1p(x, &e), y = log_from_parts(e, f);
    y = real_from_bits(real_bits(y) | (real_bits(x) & SIGN_BIT)); /* -0 for -0 */
    y = x < REAL_INFINITY ? y : x;
    return x > REAL_C(-1.0) ? y : (x == REAL_C(-1.0) ? -REAL_INFINITY : REAL_NAN);
}

/* The log-probability of y = 1 or 0 with probabilities x and 1 - x, 0 <= x <= 1: LOG(x) or
 * LOG1P(-x), bit for bit but for the sign of 0. The selection precedes the polynomial.
 *   Values  a probability of 0 gives -inf, x = NaN gives NaN
 */
static INLINE real LOG_BERNOULLI(real x, real y)
{
    real e_x, f_x = split_exponent(x, &e_x), e_1p, f_1p = split_exponent_of_1p(-x, &e_1p);
    /* By bits: gcc does not vectorise selections that skip so much. */
    const uint_real is_one = -(uint_real)(y == REAL_C(1.0));
    real e = real_from_bits((real_bits(e_x) & is_one) | (real_bits(e_1p) & ~is_one));
    real f = real_from_bits((real_bits(f_x) & is_one) | (real_bits(f_1p) & ~is_one));
    real log = log_from_parts(e, f), probability = REAL_C(1.0) - y - x; /* minus it if y = 1 */
    log = probability == REAL_C(0.0) ? -REAL_INFINITY : log;
    return x == x ? log : x;
}

/* log(1 + x) for 0 <= x <= 1.
 *   Error   float 0.91 ULP (0.99 without FMA), double 1.29 (1.26)
 *   Values  NaN gives NaN
 *   Method  as LOG1P, with e = 0 or 1
 */
static INLINE real LOG1P_UNIT(real x)
{
    int upper = x > REAL_C(0.5);
    real f = upper ? FMA(x, REAL_C(0.5), REAL_C(-0.5)) : x, f2 = f * f;
    real y = FMA(f2, FMA(f, log_polynomial(f, f2), REAL_C(-0.5)), f);
    return y + (upper ? LN2 : REAL_C(0.0));
}

/* log(a / b) for a, b >= 0, not both 0 or infinite.
 *   Error   float 1.53 ULP (1.52 without FMA), double 1.54 (1.62), also for a close to b
 *   Values  a = 0 gives -inf, b = 0 gives +inf, NaN gives NaN
 *   Method  +-log1p((large - small) / small), where the difference of close arguments is exact; a
 *           difference of logarithms if the quotient overflows
 */
static INLINE real LOG_RATIO(real a, real b)
{
    real small = (a < b ? a : b) + REAL_C(0.0), large = a < b ? b : a; /* -0 is 0 */
    real ratio = (large - small) / small;
    real y = ratio == REAL_INFINITY ? LOG(large) - LOG(small) : LOG1P(ratio);
    return a < b ? -y : y;
}

/* The rounding error a b - p of p = a * b: two-product, by FMA or Dekker's splitting. */
static INLINE real product_error(real a, real b, real p)
{
#if REAL_HAS_FMA
    return FMA(a, b, -p);
#else
    /* Products of the halves are exact. */
    const uint_real mask = ~(((uint_real)1 << (REAL_MANTISSA_BITS / 2 + 1)) - 1);
    real a_high = real_from_bits(real_bits(a) & mask), a_low = a - a_high;
    real b_high = real_from_bits(real_bits(b) & mask), b_low = b - b_high;
    return ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low;
#endif
}

/* x = 2^e m with 3/4 <= m < 3/2, and log x = high + low: -inf for 0, +inf for +inf, NaN for NaN. */
typedef struct {
    real e, m, high, low;
} log_parts;

/* For x >= 0. */
static INLINE log_parts log_in_parts(real x)
{
    /* log x = e ln 2 + f - f^2 / 2 + f^3 P(f). All terms but the last are exact in two parts. */
    real e, f = split_exponent(x, &e), f2 = f * f, cube = f * f2 * log_polynomial(f, f2);
    real head = FMA(e, LN2_HI, f), residual = f - FMA(e, -LN2_HI, head);
    real half = REAL_C(-0.5) * f2, sum = head + half;
    residual += half - (sum - head);
    residual += FMA(e, LN2_LO, FMA(REAL_C(-0.5), product_error(f, f, f2), cube));
    real log_x = sum + residual;
    residual -= log_x - sum;
    /* The selections compare x, not the exponent of a power: gcc moves a condition on a loop
     * invariant out of the loop and then does not vectorise it. */
    log_x = x < REAL_INFINITY ? log_x : x;
    log_x = x == REAL_C(0.0) ? -REAL_INFINITY : log_x;
    return (log_parts){.e = e, .m = REAL_C(1.0) + f, .high = log_x, .low = residual};
}

/* x^(a + a_low) for x >= 0 and finite a and a_low, where a_low is less than an ULP of a.
 *   Error   1.1 ULP for |a| <= 2.5, 1.3 for |a| <= 5, 1.5 for |a| <= 10, in either type, with and
 *           without FMA; for larger |a| less than 1 ULP + 0.5 per unit of |a log x|
 *   Values  a = 0 gives 1, but x = NaN gives NaN for every a; 0^a and inf^a are 0 or +inf
 *   Method  exp(a log x) with the logarithm and the product in two parts each, so that the large
 *           argument of exp is not rounded
 */
static INLINE real POW(real x, real a, real a_low)
{
    log_parts log_x = log_in_parts(x);
    real t = a * log_x.high, correction = product_error(a, log_x.high, t) + a * log_x.low;
    correction = FMA(a_low, log_x.high, correction);
    t = t == t ? t : REAL_C(0.0); /* 0^0 and inf^0 are 1 */
    correction = correction == correction ? correction : REAL_C(0.0);
    real y = exp_corrected(t, -correction);
    return x == x ? y : x;
}

/* x^(a + a_low) = 2^n v with v near 1, for products of several powers: add the e of other factors
 * to `exponent`, multiply v by their m, and round once, by round_scaled(). a is not 0. Errors and
 * values of the result as for POW.
 */
typedef struct {
    real v, exponent; /* ROUND_MAGIC + 2 REAL_EXPONENT_BIAS + n */
} power_parts;

static INLINE power_parts power_in_parts(log_parts log_x, real a, real a_low)
{
    power_parts y;
    real t = a * log_x.high, correction = product_error(a, log_x.high, t) + a * log_x.low;
    correction = FMA(a_low, log_x.high, correction);
    y.v = exp_parts(t, -correction, 2 * REAL_EXPONENT_BIAS, &y.exponent);
    return y;
}

/* 2^n v for v > 0, with `exponent` as in power_parts: 0 or +inf if n is outside the range of
 * exponents, so v must be of moderate size.
 */
static INLINE real round_scaled(real v, real exponent)
{
    const real lowest = ROUND_MAGIC + 2, highest = ROUND_MAGIC + 4 * REAL_EXPONENT_BIAS;
    real y = scale_by_power_of_2(v, exponent);
    y = exponent > highest ? REAL_INFINITY : y;
    return exponent < lowest ? REAL_C(0.0) : y;
}

#endif
