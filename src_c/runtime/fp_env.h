/* The floating-point mode in which all is computed, whatever the caller's. */
#ifndef FASTLOSS_FPMODE_H
#define FASTLOSS_FPMODE_H

#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <fenv.h>
#endif

/* Other libraries leave flush-to-zero or another rounding set in some threads and not in others.
 * Writing the register is slow, so it happens only where it changes something. */

#if defined(__x86_64__) || defined(_M_X64)

#define MXCSR_FLAGS 0x3fu /* sticky exception flags: not a mode */
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
