/* The block loader: storage in, storage out. Kernels see tiles of `real` and know nothing else
 * about arrays.
 *
 * Entries are named by their flat index in C order of the (broadcast) shape. */
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

/* Entries [first, first + n) of an array, n <= TILE: in place where they lie there as reals one
 * after the other, else converted into scratch. */
const real *fl_load(const fl_array *array, int64_t first, int64_t n, real *scratch);

/* The same as doubles, whatever the real: weights, of which products must not overflow. */
const double *fl_load_double(const fl_array *array, int64_t first, int64_t n, double *scratch);

/* The same of integers; what int64 cannot hold becomes INT64_MIN. */
const int64_t *fl_load_index(const fl_array *array, int64_t first, int64_t n, int64_t *scratch);

/* Where to write entries [first, first + n): in place or scratch. Pass the pointer to fl_store()
 * when they are there. */
real *fl_output_buffer(const fl_array *array, int64_t first, int64_t n, real *scratch);
void fl_store(const fl_array *array, int64_t first, int64_t n, const void *from); /* reals */

/* Rows of `size` entries, transposed: entries [from, to) of rows [first, first + n), entry j of row
 * i at table[(j - from) * ld + i - first]. Columns without a row are filled with 0. */
typedef struct {
    int64_t first, n, from, to, ld;
} fl_tile2d;

enum { TILE_2D = 4 * TILE }; /* entries of a table, at most */

void fl_load_transposed(const fl_array *array, int64_t size, fl_tile2d at, real *table);
void fl_store_transposed(const fl_array *array, int64_t size, fl_tile2d at, const real *table);

/* What is read after these entries, for prefetching: line i of the rows from the r-th on, a line
 * being LANES entries, is at + r row + i line. */
typedef struct {
    const char *at;
    int64_t row, line;
} fl_prefetch;

fl_prefetch fl_next_tile(const fl_array *array, int64_t size, fl_tile2d at);

/* Of each row from `first` on the entry of this number; none where it is negative. */
void fl_gather(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
               real *out);

/* The same entries written, and rows filled with 0. */
void fl_scatter(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
                const real *from);
void fl_clear_rows(const fl_array *array, int64_t size, int64_t first, int64_t n);

#endif
