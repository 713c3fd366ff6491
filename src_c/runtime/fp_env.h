/* The floating-point environment of all computations, independent of the caller's: round to
 * nearest, no flush to zero, exceptions masked.
 *
 * Other libraries set flush-to-zero or another rounding mode in some threads and not in others.
 * Writing the control register is slow, so it is written only if that changes the mode. */
#ifndef FASTLOSS_FP_ENV_H
#define FASTLOSS_FP_ENV_H

#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <fenv.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)

#define MXCSR_FLAGS 0x3fu /* sticky exception flags, not part of the mode */
#define MXCSR_DEFAULT 0x1f80u
typedef unsigned int fp_mode;

static inline fp_mode fp_enter(void)
{
    fp_mode saved = _mm_getcsr();
    if ((saved & ~MXCSR_FLAGS) != MXCSR_DEFAULT)
        _mm_setcsr(MXCSR_DEFAULT);
    return saved;
}

static inline void fp_leave(fp_mode saved)
{
    if ((saved & ~MXCSR_FLAGS) != MXCSR_DEFAULT)
        _mm_setcsr(saved);
}

#elif defined(__aarch64__)

typedef uint64_t fp_mode;

static inline fp_mode fp_enter(void)
{
    fp_mode saved;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved));
    if (saved != 0)
        __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return saved;
}

static inline void fp_leave(fp_mode saved)
{
    if (saved != 0)
        __asm__ __volatile__("msr fpcr, %0" : : "r"(saved) : "memory");
}

#else

typedef fenv_t fp_mode;

static inline fp_mode fp_enter(void)
{
    fp_mode saved;
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    return saved;
}

static inline void fp_leave(fp_mode saved) { fesetenv(&saved); }

#endif

#endif
