/* Measures the roofline of the machine: memory bandwidth of loops that read and write, and the
 * throughput of exp and log on data in the L1 cache. with_roofline.py compiles this file for the
 * local processor when it is needed. Each function returns the number of bytes it moved or of calls
 * it made.
 *
 * x, y and z hold n integers, a multiple of 8, and begin at a cache line. Reads sum integers, which
 * lets the compiler reorder the additions. */
#include "roofline_math.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

/* Receives the sums, so that they are not optimised away. */
volatile double sink;

int64_t read_one(int threads, int64_t n, const uint64_t *x, const uint64_t *y, uint64_t *z)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    sink = (double)sum;
    return n * (int64_t)sizeof *x;
}

int64_t read_two(int threads, int64_t n, const uint64_t *x, const uint64_t *y, uint64_t *z)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] ^ y[i];
    sink = (double)sum;
    return 2 * n * (int64_t)sizeof *x;
}

/* Stores a cache line, non-temporally and as a whole if the instruction set can. */
static INLINE void stream(uint64_t *to, const uint64_t from[8])
{
#if defined(__AVX512F__)
    _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
#elif defined(__AVX__)
    for (int k = 0; k < 8; k += 4)
        _mm256_stream_si256((void *)(to + k), _mm256_loadu_si256((const void *)(from + k)));
#elif defined(__SSE2__)
    for (int k = 0; k < 8; k += 2)
        _mm_stream_si128((void *)(to + k), _mm_loadu_si128((const void *)(from + k)));
#else
    __builtin_memcpy(to, from, 64);
#endif
}

int64_t triad(int threads, int64_t n, const uint64_t *x, const uint64_t *y, uint64_t *z)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < n; i += 8) {
        uint64_t line[8];
        for (int k = 0; k < 8; k++)
            line[k] = x[i + k] ^ y[i + k];
        stream(z + i, line);
    }
    return 3 * n * (int64_t)sizeof *x;
}

int64_t copy(int threads, int64_t n, const uint64_t *x, const uint64_t *y, uint64_t *z)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < n; i += 8)
        stream(z + i, x + i);
    return 2 * n * (int64_t)sizeof *x;
}

int64_t write(int threads, int64_t n, const uint64_t *x, const uint64_t *y, uint64_t *z)
{
    static const uint64_t zeros[8];
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < n; i += 8)
        stream(z + i, zeros);
    return n * (int64_t)sizeof *z;
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

int64_t exp_calls(int threads, int64_t n, const uint64_t *x, const uint64_t *y, uint64_t *z)
{
    real sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    sum += sum_repeatedly(-1, exp_of);
    sink = sum;
    return (int64_t)threads * REPEATS * L1_ELEMENTS;
}

int64_t log_calls(int threads, int64_t n, const uint64_t *x, const uint64_t *y, uint64_t *z)
{
    real sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    sum += sum_repeatedly((real)0.5, log_of);
    sink = sum;
    return (int64_t)threads * REPEATS * L1_ELEMENTS;
}
