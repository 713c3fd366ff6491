/* `real`, the type in which the kernels compute, and the constants that depend on it.
 *
 * Every `*_tmpl.c` is compiled once per instruction set and type, as
 *     cc -DISA=avx2 -DREAL_IS_DOUBLE=0 <flags of that set> -c elementwise_tmpl.c
 * and is ordinary C on `real`. SUFFIXED() gives each exported function a name per variant. */
#ifndef FASTLOSS_REAL_H
#define FASTLOSS_REAL_H

#include "runtime/inline.h"

#include <stdint.h>

#if !defined(ISA) || !defined(REAL_IS_DOUBLE)
#error "compile with -DISA=baseline|avx2|avx512 and -DREAL_IS_DOUBLE=0|1"
#endif

/* SUFFIXED(fl_sum) is fl_sum_avx2_f32 under -DISA=avx2 -DREAL_IS_DOUBLE=0. */
#define FL_PASTE_(name, isa, type) name##_##isa##_##type
#define FL_PASTE(name, isa, type) FL_PASTE_(name, isa, type)

#if REAL_IS_DOUBLE
typedef double real;
typedef int64_t int_real;
typedef uint64_t uint_real;
#define SUFFIXED(name) FL_PASTE(name, ISA, f64)
#define REAL_C(constant) constant /* a literal of type real */
#define REAL_MANTISSA_BITS 52
#define REAL_EXPONENT_BIAS 1023
#define REAL_EPSILON 0x1p-52
#define REAL_MIN 0x1p-1022       /* the smallest normal number */
#define REAL_LARGEST_ULP 0x1p971 /* of the largest number */
#define REAL_INFINITY __builtin_inf()
#define REAL_NAN __builtin_nan("")
#define FABS(x) __builtin_fabs(x)
#define SQRT(x) __builtin_sqrt(x)
#else
typedef float real;
typedef int32_t int_real;
typedef uint32_t uint_real;
#define SUFFIXED(name) FL_PASTE(name, ISA, f32)
#define REAL_C(constant) constant##f
#define REAL_MANTISSA_BITS 23
#define REAL_EXPONENT_BIAS 127
#define REAL_EPSILON 0x1p-23f
#define REAL_MIN 0x1p-126f
#define REAL_LARGEST_ULP 0x1p104f
#define REAL_INFINITY __builtin_inff()
#define REAL_NAN __builtin_nanf("")
#define FABS(x) __builtin_fabsf(x)
#define SQRT(x) __builtin_sqrtf(x)
#endif

#define SIGN_BIT ((uint_real)1 << (8 * sizeof(real) - 1))

/* a * b + c, rounded once if the target has fused multiply-add, else twice. The kernels are
 * compiled with -ffp-contract=off, so no other operation is fused, and the body and the tail of a
 * vectorised loop round alike. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define REAL_HAS_FMA 1
#define FMA_DOUBLE(a, b, c) __builtin_fma(a, b, c)
#if REAL_IS_DOUBLE
#define FMA(a, b, c) __builtin_fma(a, b, c)
#else
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#endif
#else
#define REAL_HAS_FMA 0
#define FMA_DOUBLE(a, b, c) ((a) * (b) + (c))
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

/* Elements that a kernel loads, computes on and stores before it loads the next: 4 KiB of each
 * operand stay in the L1 cache. */
#define TILE ((int)(4096 / sizeof(real)))

/* Begins the declaration of a tile on the stack, so that no vector of it crosses a cache line:
 * multilabel_margin takes 1.2 times as long if every vector does, which the caller's stack pointer
 * decides. */
#define ALIGNED _Alignas(64)

/* Independent partial results of a reduction: the elements of one AVX-512 register, two AVX2 or
 * four SSE2 registers. */
#define LANES ((int)(64 / sizeof(real)))

/* Whether a finite option that is not 0 would be infinite or 0 as a real. */
static inline int option_leaves_range(double option)
{
    const real rounded = (real)option;
    return !REAL_IS_DOUBLE && option - option == 0 &&
           (rounded - rounded != 0 || (rounded == 0 && option != 0));
}

/* An option that is a length, as documented: rounded to real, unless real does not hold it. */
static inline double round_option(double option)
{
    return option_leaves_range(option) ? option : (double)(real)option;
}

/* Reinterpret a real as an integer and back. Both compile to no instruction and vectorise. */
static INLINE uint_real real_bits(real x)
{
    uint_real bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

static INLINE real real_from_bits(uint_real bits)
{
    real x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

#endif
