/* The block loader: reads arrays of any dtype, strides and byte order as tiles of `real`, and
 * writes tiles back. Kernels know nothing else about the storage of arrays.
 *
 * An entry is addressed by its flat index in C order of the (broadcast) shape. */
#ifndef FASTLOSS_LOADER_H
#define FASTLOSS_LOADER_H

#include "fastloss.h"
#include "vector/real.h"

#define fl_load SUFFIXED(fl_load)
#define fl_load_double SUFFIXED(fl_load_double)
#define fl_load_index SUFFIXED(fl_load_index)
#define fl_output_buffer SUFFIXED(fl_output_buffer)
#define fl_store SUFFIXED(fl_store)
#define fl_load_transposed SUFFIXED(fl_load_transposed)
#define fl_next_tile SUFFIXED(fl_next_tile)
#define fl_store_transposed SUFFIXED(fl_store_transposed)
#define fl_gather SUFFIXED(fl_gather)
#define fl_scatter SUFFIXED(fl_scatter)
#define fl_clear_rows SUFFIXED(fl_clear_rows)

/* Entries [first, first + n) of an array, n <= TILE: a pointer into the array if they are
 * contiguous reals, else to scratch, into which they are converted. */
const real *fl_load(const fl_array *array, int64_t first, int64_t n, real *scratch);

/* The same entries as doubles for either real: products of weights must not overflow. Always in
 * scratch. */
const double *fl_load_double(const fl_array *array, int64_t first, int64_t n, double *scratch);

/* The same entries as integers, always in scratch. A value outside the range of int64 becomes
 * INT64_MIN. */
const int64_t *fl_load_index(const fl_array *array, int64_t first, int64_t n, int64_t *scratch);

/* Where to write entries [first, first + n): into the array if they are contiguous reals there,
 * else into scratch. Pass the pointer to fl_store() when they are complete. An output that is not
 * requested is NULL: its entries stay in scratch. */
real *fl_output_buffer(const fl_array *array, int64_t first, int64_t n, real *scratch);
void fl_store(const fl_array *array, int64_t first, int64_t n, const void *from); /* reals */

/* Entries [from, to) of rows [first, first + n), transposed: entry j of row i is at
 * tile[(j - from) * ld + i - first]. Columns n ... ld - 1 of the tile are 0. */
typedef struct {
    int64_t first, n, from, to, ld;
} fl_tile2d;

enum { TILE_2D = 4 * TILE }; /* elements of a transposed tile, at most */

/* `size` is the number of entries of a row. */
void fl_load_transposed(const fl_array *array, int64_t size, fl_tile2d at, real *tile);
void fl_store_transposed(const fl_array *array, int64_t size, fl_tile2d at, const real *tile);

/* Addresses of the entries that are read after this tile, for prefetching: cache line i (LANES
 * entries) of the rows from the r-th on is at `at + r * row + i * line`. */
typedef struct {
    const char *at;
    int64_t row, line;
} fl_prefetch;

fl_prefetch fl_next_tile(const fl_array *array, int64_t size, fl_tile2d at);

/* Gathers entry[i] of each row from `first` on into out (n); for a negative index, any number. */
void fl_gather(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
               real *out);

/* Scatters from (n) to the same entries; none for a negative index. */
void fl_scatter(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
                const real *from);

/* Fills rows [first, first + n) with 0. */
void fl_clear_rows(const fl_array *array, int64_t size, int64_t first, int64_t n);

#endif
