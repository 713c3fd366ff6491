/* The limits of the machine, for limits.py: memory in one and two streams, with and without
 * streaming stores, and the kernels' own exp and log on numbers in L1. Compiled when it is needed,
 * for the processor at hand. Each function returns how many bytes or calls it did.
 *
 * Sums of bytes read are of integers, which the compiler may reorder. */
#include "vector/vector_math.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Where sums go, so that they are needed. */
static volatile double sink;

int64_t read_one(int threads, int64_t n, const uint64_t *x, uint64_t *y)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    sink = (double)sum;
    return n * (int64_t)sizeof *x;
}

int64_t read_two(int threads, int64_t n, const uint64_t *x, uint64_t *y)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] ^ y[i];
    sink = (double)sum;
    return 2 * n * (int64_t)sizeof *x;
}

/* Past the caches, where the instruction set has such stores; y is aligned and n a multiple of 8.
 */
static INLINE void stream(uint64_t *y, uint64_t a, uint64_t b)
{
#ifdef __SSE2__
    _mm_stream_si128((__m128i *)y, _mm_set_epi64x((int64_t)b, (int64_t)a));
#else
    y[0] = a;
    y[1] = b;
#endif
}

int64_t copy(int threads, int64_t n, const uint64_t *x, uint64_t *y)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < n; i += 8)
        for (int k = 0; k < 8; k += 2)
            stream(y + i + k, x[i + k], x[i + k + 1]);
    return 2 * n * (int64_t)sizeof *x;
}

int64_t write(int threads, int64_t n, const uint64_t *x, uint64_t *y)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < n; i += 8)
        for (int k = 0; k < 8; k += 2)
            stream(y + i + k, (uint64_t)i, (uint64_t)i);
    return n * (int64_t)sizeof *y;
}

/* --- from L1 --- */

enum { L1_NUMBERS = 8192 / sizeof(real), REPEATS = 200 };

typedef real function(real x);

/* Σ f(x) over numbers in [low, low + 1), repeatedly. */
static INLINE real repeated(real low, function f)
{
    real x[L1_NUMBERS], total = 0;
    for (int i = 0; i < L1_NUMBERS; i++)
        x[i] = low + (real)i / L1_NUMBERS;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        real lane[LANES] = {0};
        __asm__ volatile("" : : "r"(x) : "memory"); /* x may have changed */
        for (int i = 0; i < L1_NUMBERS; i += LANES)
#pragma omp simd
            for (int k = 0; k < LANES; k++)
                lane[k] += f(x[i + k]);
        for (int k = 0; k < LANES; k++)
            total += lane[k];
    }
    return total;
}

int64_t exp_calls(int threads, int64_t n, const uint64_t *x, uint64_t *y)
{
    real sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    sum += repeated(-1, EXP);
    sink = sum;
    return (int64_t)threads * REPEATS * L1_NUMBERS;
}

int64_t log_calls(int threads, int64_t n, const uint64_t *x, uint64_t *y)
{
    real sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    sum += repeated((real)0.5, LOG);
    sink = sum;
    return (int64_t)threads * REPEATS * L1_NUMBERS;
}
