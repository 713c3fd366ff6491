/* Measures the roofline of the machine: memory bandwidth of one and two streams, with and without
 * non-temporal stores, and the throughput of the kernels' exp and log on data in the L1 cache.
 * with_roofline.py compiles this file for the local processor when it is needed. Each function
 * returns the number of bytes it moved or of calls it made.
 *
 * Reads sum integers, which lets the compiler reorder the additions. */
#include "vector/vector_math.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Receives the sums, so that they are not optimised away. */
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

/* Stores a and b, non-temporally if the instruction set can. y is aligned to 16 bytes. */
static INLINE void stream(uint64_t *y, uint64_t a, uint64_t b)
{
#ifdef __SSE2__
    _mm_stream_si128((__m128i *)y, _mm_set_epi64x((int64_t)b, (int64_t)a));
#else
    y[0] = a;
    y[1] = b;
#endif
}

/* n is a multiple of 8 here and in write(). */
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

/* --- Data in the L1 cache --- */

enum { L1_ELEMENTS = 8192 / sizeof(real), REPEATS = 200 };

typedef real function(real x);

/* Σ f(x) over L1_ELEMENTS values of x in [low, low + 1), REPEATS times. */
static INLINE real sum_repeatedly(real low, function f)
{
    real x[L1_ELEMENTS], total = 0;
    for (int i = 0; i < L1_ELEMENTS; i++)
        x[i] = low + (real)i / L1_ELEMENTS;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        real lane[LANES] = {0};
        __asm__ volatile("" : : "r"(x) : "memory"); /* x may have changed */
        for (int i = 0; i < L1_ELEMENTS; i += LANES)
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
    sum += sum_repeatedly(-1, EXP);
    sink = sum;
    return (int64_t)threads * REPEATS * L1_ELEMENTS;
}

int64_t log_calls(int threads, int64_t n, const uint64_t *x, uint64_t *y)
{
    real sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    sum += sum_repeatedly((real)0.5, LOG);
    sink = sum;
    return (int64_t)threads * REPEATS * L1_ELEMENTS;
}
