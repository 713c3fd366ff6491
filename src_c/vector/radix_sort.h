/* Sorting of reals, in time proportional to their number, whatever they are. */
#ifndef FASTLOSS_RADIX_SORT_H
#define FASTLOSS_RADIX_SORT_H

#include "runtime/interrupt.h"
#include "vector/real.h"

#include <string.h>

/* Digit `shift / 8` of a number that orders the reals, -0 before 0. */
static INLINE int sort_digit(real x, int shift)
{
    const uint_real bits = real_bits(x),
                    negative = (uint_real)((int_real)bits >> (8 * sizeof(real) - 1));
    return (int)((bits ^ (negative | SIGN_BIT)) >> shift & 255);
}

/* Sorts x (n), which holds no NaN, unless interrupted; spare (n) is overwritten. */
static void radix_sort(int64_t n, real *x, real *spare)
{
    real *from = x, *to = spare;
    for (int shift = 0; shift < 8 * (int)sizeof(real); shift += 8) {
        if (n > FL_ASK_AFTER && fl_is_interrupted())
            break;
        int64_t next[256] = {0}, sum = 0; /* how many, then where the next one goes */
        for (int64_t i = 0; i < n; i++)
            next[sort_digit(from[i], shift)]++;
        if (n == 0 || next[sort_digit(from[0], shift)] == n)
            continue;
        for (int digit = 0; digit < 256; digit++) {
            const int64_t size = next[digit];
            next[digit] = sum;
            sum += size;
        }
        for (int64_t i = 0; i < n; i++)
            to[next[sort_digit(from[i], shift)]++] = from[i];
        real *swap = from;
        from = to;
        to = swap;
    }
    if (from != x)
        memcpy(x, from, (size_t)n * sizeof *x);
}

#endif
