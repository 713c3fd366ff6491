/* Sizes of memory that follow from the shapes of arrays. An axis of a broadcast array can have any
 * length, so that a product may exceed 2^64. These functions then return SIZE_MAX, which no further
 * sum or product makes smaller, and which fl_scratch_alloc() refuses. */
#ifndef FASTLOSS_CHECKED_SIZE_H
#define FASTLOSS_CHECKED_SIZE_H

#include <stddef.h>
#include <stdint.h>

static inline size_t size_add(size_t a, size_t b)
{
    size_t sum;
    return __builtin_add_overflow(a, b, &sum) ? SIZE_MAX : sum;
}

static inline size_t size_multiply(size_t a, size_t b)
{
    size_t product;
    return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;
}

/* The size of an array of rows x length entries; SIZE_MAX if a count is negative. */
static inline size_t size_of_array(size_t entry, int64_t rows, int64_t length)
{
    if (rows < 0 || length < 0)
        return SIZE_MAX;
    return size_multiply(size_multiply(entry, (size_t)rows), (size_t)length);
}

#endif
