/* float16 and bfloat16 to and from float. Every instruction set gives the same bits, but for those
 * of a NaN. */
#ifndef FASTLOSS_HALF_H
#define FASTLOSS_HALF_H

#include "vector/real.h"

#include <string.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

/* Memory need not be aligned, hence memcpy (it compiles to a load). */
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

static INLINE float as_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static INLINE uint32_t as_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* IEEE binary16: the exponent is moved into place and rebased by a multiplication, which also
 * grades subnormals. */
static INLINE float from_f16(uint16_t h)
{
    uint32_t magnitude = h & 0x7fffu;
    float f = as_float(magnitude << 13) * 0x1p112f;
    uint32_t bits = as_bits(f) | (magnitude >= 0x7c00u ? 0x7f800000u : 0u);
    return as_float(bits | (uint32_t)(h & 0x8000u) << 16);
}

/* Round to nearest even. Adding 2^k aligns the mantissa so that the hardware rounds at binary16's
 * last place. */
static INLINE uint16_t to_f16(float f)
{
    uint32_t bits = as_bits(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t exponent = magnitude >> 23;
    uint32_t anchor = ((exponent < 113 ? 113u : exponent > 142 ? 142u : exponent) + 13u) << 23;
    uint32_t rounded =
        as_bits(as_float(magnitude) + as_float(anchor)) - anchor; /* in units of the last place */
    uint32_t normal =
        (exponent < 113 ? 0u : (exponent > 142 ? 30u : exponent - 113u) << 10) + rounded;
    uint32_t h = magnitude > 0x7f800000u ? 0x7e00u : magnitude >= 0x477ff000u ? 0x7c00u : normal;
    return (uint16_t)(h | sign);
}

static INLINE float from_bf16(uint16_t h) { return as_float((uint32_t)h << 16); }

static INLINE uint16_t to_bf16(float f)
{
    uint32_t bits = as_bits(f);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

/* To float by rounding to odd, so that a second rounding to a half type rounds once in effect. */
static INLINE float to_float_odd(real x)
{
#if REAL_IS_DOUBLE
    float f = (float)x;
    double back = f, magnitude = __builtin_fabs(x), got = __builtin_fabs(back);
    uint32_t bits = as_bits(f);
    uint32_t down =
        (uint32_t)(got > magnitude); /* rounded away from zero: one back, also from inf */
    return got == magnitude || x != x ? f : as_float((bits - down) | 1u);
#else
    return x;
#endif
}

/* n entries of float16, one after the other: the instruction is three to five times as fast as the
 * loop that a compiler makes of from_f16() and to_f16(). */
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
        to[i] = from_f16(READ(uint16_t, from + 2 * i));
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
        WRITE(uint16_t, to + 2 * i, to_f16(from[i]));
}

#endif
