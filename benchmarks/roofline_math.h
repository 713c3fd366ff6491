/* exp and log of a `real` (float or double), of which roofline.c measures the throughput.
 *
 * A frozen copy of EXP and LOG of src_c/vector/vector_math.h, which explains them. It must not
 * follow the library: the limit of the machine would move when the library's log does, a faster log
 * would lower every share of the limit, and shares of two commits could not be compared. A share
 * above 1 means that the library has become faster than this copy. Without fused multiply-add it
 * rounds differently from the library; only its speed matters. */
#ifndef ROOFLINE_MATH_H
#define ROOFLINE_MATH_H

#include <stdint.h>

#define INLINE inline __attribute__((always_inline))

#if REAL_IS_DOUBLE
typedef double real;
typedef uint64_t uint_real;
#define C(constant) constant
#define MANTISSA_BITS 52
#define BIAS 1023
#define REAL_MIN 0x1p-1022
#define ROUND_MAGIC 0x1.8p+52
#define FIELD_MAGIC 0x1p+52
#define LN2_HI 0x1.62e42fefa38p-1
#define LN2_LO 0x1.ef35793c7673p-45
#define EXP_LOWEST -746.0
#define EXP_HIGHEST 710.0
#define FMA_OF __builtin_fma
#else
typedef float real;
typedef uint32_t uint_real;
#define C(constant) constant##f
#define MANTISSA_BITS 23
#define BIAS 127
#define REAL_MIN 0x1p-126f
#define ROUND_MAGIC 0x1.8p+23f
#define FIELD_MAGIC 0x1p+23f
#define LN2_HI 0x1.62e4p-1f
#define LN2_LO 0x1.7f7d1cp-20f
#define EXP_LOWEST -105.0f
#define EXP_HIGHEST 89.0f
#define FMA_OF __builtin_fmaf
#endif
#define LOG2_E C(0x1.71547652b82fep+0)
#define EXPONENT_FIELD ((uint_real)(2 * BIAS + 1) << MANTISSA_BITS)
#define MANTISSA_FIELD (((uint_real)1 << MANTISSA_BITS) - 1)
#define LANES ((int)(64 / sizeof(real)))

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define FMA(a, b, c) FMA_OF(a, b, c)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

static INLINE uint_real bits_of(real x)
{
    uint_real bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

static INLINE real from_bits(uint_real bits)
{
    real x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

static INLINE real exp_polynomial(real r)
{
#if REAL_IS_DOUBLE
    real r2 = r * r, even = 0x1.28a2066d063fcp-22, odd = 0x1.ae6bbdc879e98p-26;
    even = FMA(even, r2, 0x1.a019a74a90719p-16);
    odd = FMA(odd, r2, 0x1.71de8819c518dp-19);
    even = FMA(even, r2, 0x1.6c16c17ee7214p-10);
    odd = FMA(odd, r2, 0x1.a01a0174fff97p-13);
    even = FMA(even, r2, 0x1.555555555228ep-5);
    odd = FMA(odd, r2, 0x1.1111111119003p-7);
    even = FMA(even, r2, 0x1.0000000000005p-1);
    odd = FMA(odd, r2, 0x1.5555555555539p-3);
    return FMA(odd, r, even);
#else
    real q = 0x1.6ab6b2p-10f;
    q = FMA(q, r, 0x1.122c96p-7f);
    q = FMA(q, r, 0x1.55579ap-5f);
    q = FMA(q, r, 0x1.5554aap-3f);
    return FMA(q, r, 0x1.fffffep-2f);
#endif
}

static INLINE real exp_of(real x)
{
    const real magic = ROUND_MAGIC + (real)(2 * BIAS);
    real exponent = FMA(x, LOG2_E, magic), n = exponent - magic;
    real r = FMA(n, -LN2_LO, FMA(n, -LN2_HI, x));
    real power = FMA(r, FMA(r, exp_polynomial(r), C(1.0)), C(1.0));
    uint_real bits = bits_of(exponent);
    uint_real first = (bits << (MANTISSA_BITS - 1)) & EXPONENT_FIELD;
    uint_real second = (bits << MANTISSA_BITS) - first;
    real y = power * from_bits(first) * from_bits(second);
    y = x > EXP_HIGHEST ? (real)__builtin_inf() : y;
    return x < EXP_LOWEST ? C(0.0) : y;
}

static INLINE real log_polynomial(real f, real f2)
{
#if REAL_IS_DOUBLE
    real even = 0x1.08798a83eff80p-7, odd = -0x1.e05e52c498760p-6;
    even = FMA(even, f2, 0x1.9e92e25aebdb3p-5);
    odd = FMA(odd, f2, -0x1.e887263df2d2cp-5);
    even = FMA(even, f2, 0x1.f24f6d9b258d4p-5);
    odd = FMA(odd, f2, -0x1.0006d9a569efep-4);
    even = FMA(even, f2, 0x1.101f2b7971986p-4);
    odd = FMA(odd, f2, -0x1.246522890554fp-4);
    even = FMA(even, f2, 0x1.3b1eccf81b321p-4);
    odd = FMA(odd, f2, -0x1.555938876d635p-4);
    even = FMA(even, f2, 0x1.745ceda6691f1p-4);
    odd = FMA(odd, f2, -0x1.999972c57579cp-4);
    even = FMA(even, f2, 0x1.c71c70dcec26cp-4);
    odd = FMA(odd, f2, -0x1.00000064e7776p-3);
    even = FMA(even, f2, 0x1.249249297058dp-3);
    odd = FMA(odd, f2, -0x1.555555545218dp-3);
    even = FMA(even, f2, 0x1.999999998c5c6p-3);
    odd = FMA(odd, f2, -0x1.00000000007bap-2);
    even = FMA(even, f2, 0x1.55555555555a1p-2);
#else
    real even = 0x1.accfbcp-4f, odd = -0x1.716c9cp-5f;
    even = FMA(even, f2, 0x1.28874ep-3f);
    odd = FMA(odd, f2, -0x1.0da0aep-3f);
    even = FMA(even, f2, 0x1.99694ep-3f);
    odd = FMA(odd, f2, -0x1.54ee2ap-3f);
    even = FMA(even, f2, 0x1.5555a4p-2f);
    odd = FMA(odd, f2, -0x1.000044p-2f);
#endif
    return FMA(odd, f, even);
}

static INLINE real log_of(real x)
{
    const real bias = FIELD_MAGIC + BIAS;
    real normal =
        x < REAL_MIN ? x * from_bits((uint_real)(BIAS + MANTISSA_BITS + 1) << MANTISSA_BITS) : x;
    real offset = x < REAL_MIN ? bias + (MANTISSA_BITS + 1) : bias;
    uint_real bits = bits_of(normal) + (bits_of(C(1.0)) - bits_of(C(0.75)));
    real e = from_bits((bits >> MANTISSA_BITS) | bits_of(FIELD_MAGIC)) - offset;
    real f = from_bits((bits & MANTISSA_FIELD) + bits_of(C(0.75))) - C(1.0), f2 = f * f;
    real small = f2 * FMA(f, log_polynomial(f, f2), C(-0.5));
    real head = FMA(e, LN2_HI, f), tail = f - FMA(e, -LN2_HI, head);
    real y = head + (tail + FMA(e, LN2_LO, small));
    y = x < (real)__builtin_inf() ? y : x;
    return x > C(0.0) ? y : (x == C(0.0) ? -(real)__builtin_inf() : (real)__builtin_nan(""));
}

#endif
