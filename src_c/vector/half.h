/* Conversion between float and the half types, float16 and bfloat16. Results are bitwise identical
 * on every instruction set, except for the payload of a NaN. */
#ifndef FASTLOSS_HALF_H
#define FASTLOSS_HALF_H

#include "vector/real.h"

#include <string.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

/* Load and store at any alignment: memcpy compiles to one instruction. */
#define READ(type, from) \
    ({ \
        type value; \
        memcpy(&value, from, sizeof value); \
        value; \
    })
#define WRITE(type, to, x) \
    do { \
        type value = (x); \
        memcpy(to, &value, sizeof value); \
    } while (0)

static INLINE float float_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static INLINE uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* IEEE binary16. The exponent and mantissa are shifted to the fields of a float; a multiplication
 * corrects the exponent's bias and normalises subnormals. */
static INLINE float float_from_f16(uint16_t h)
{
    uint32_t magnitude = h & 0x7fffu;
    float f = float_from_bits(magnitude << 13) * 0x1p112f;
    uint32_t bits = float_bits(f) | (magnitude >= 0x7c00u ? 0x7f800000u : 0u);
    return float_from_bits(bits | (uint32_t)(h & 0x8000u) << 16);
}

/* Rounds to nearest even. Adding a power of two aligns the mantissa so that the hardware rounds in
 * the last place of binary16. */
static INLINE uint16_t f16_from_float(float f)
{
    uint32_t bits = float_bits(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t exponent = magnitude >> 23;
    uint32_t aligner = ((exponent < 113 ? 113u : exponent > 142 ? 142u : exponent) + 13u) << 23;
    /* in units of the last place of the result */
    uint32_t rounded = float_bits(float_from_bits(magnitude) + float_from_bits(aligner)) - aligner;
    uint32_t normal =
        (exponent < 113 ? 0u : (exponent > 142 ? 30u : exponent - 113u) << 10) + rounded;
    uint32_t h = magnitude > 0x7f800000u ? 0x7e00u : magnitude >= 0x477ff000u ? 0x7c00u : normal;
    return (uint16_t)(h | sign);
}

static INLINE float float_from_bf16(uint16_t h) { return float_from_bits((uint32_t)h << 16); }

static INLINE uint16_t bf16_from_float(float f)
{
    uint32_t bits = float_bits(f);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

/* Rounds to odd: a subsequent rounding to a half type then gives the correctly rounded result,
 * without double rounding (Boldo & Melquiond 2008). */
static INLINE float round_to_odd(real x)
{
#if REAL_IS_DOUBLE
    float f = (float)x;
    double y = f, magnitude = __builtin_fabs(x), rounded = __builtin_fabs(y);
    uint32_t bits = float_bits(f);
    uint32_t ulp = rounded > magnitude; /* to undo rounding away from zero, also to inf */
    return rounded == magnitude || x != x ? f : float_from_bits((bits - ulp) | 1u);
#else
    return x;
#endif
}

/* n contiguous entries. The conversion instructions are three to five times as fast as the
 * vectorised loop over float_from_f16() or f16_from_float(). */
static inline void widen_f16(const char *from, int64_t n, float *to)
{
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(from + 2 * i))));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + 2 * i))));
#endif
    for (; i < n; i++)
        to[i] = float_from_f16(READ(uint16_t, from + 2 * i));
}

static inline void narrow_f16(const float *from, int64_t n, char *to)
{
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(to + 2 * i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(to + 2 * i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        WRITE(uint16_t, to + 2 * i, f16_from_float(from[i]));
}

#endif
