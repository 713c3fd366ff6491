/* The block loader: storage in, storage out. Kernels see tiles of `real` and know nothing else
 * about arrays.
 *
 * Entries are named by their flat index in C order of the (broadcast) shape. */
#ifndef FASTLOSS_LOADER_H
#define FASTLOSS_LOADER_H

#include "fastloss.h"
#include "real.h"

#define fl_load SUFFIXED(fl_load)
#define fl_load_double SUFFIXED(fl_load_double)
#define fl_load_index SUFFIXED(fl_load_index)
#define fl_target SUFFIXED(fl_target)
#define fl_store SUFFIXED(fl_store)
#define fl_load_columns SUFFIXED(fl_load_columns)
#define fl_look_ahead SUFFIXED(fl_look_ahead)
#define fl_store_columns SUFFIXED(fl_store_columns)
#define fl_pick SUFFIXED(fl_pick)
#define fl_put SUFFIXED(fl_put)
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
real *fl_target(const fl_array *array, int64_t first, int64_t n, real *scratch);
void fl_store(const fl_array *array, int64_t first, int64_t n, const void *from); /* reals */

/* Rows of `size` entries, transposed: entries [from, to) of rows [first, first + n), entry j of row
 * i at table[(j - from) * wide + i - first]. Columns without a row are filled with 0. */
typedef struct {
    int64_t first, n, from, to, wide;
} fl_columns;

enum { TABLE = 4 * TILE }; /* entries of a table, at most */

void fl_load_columns(const fl_array *array, int64_t size, fl_columns at, real *table);
void fl_store_columns(const fl_array *array, int64_t size, fl_columns at, const real *table);

/* What is read after these entries, for prefetching: line i of the rows from the r-th on, a line
 * being LANES entries, is at + r row + i line. */
typedef struct {
    const char *at;
    int64_t row, line;
} fl_ahead;

fl_ahead fl_look_ahead(const fl_array *array, int64_t size, fl_columns at);

/* Of each row from `first` on the entry of this number; none where it is negative. */
void fl_pick(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
             real *out);

/* The same entries written, and rows filled with 0. */
void fl_put(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
            const real *from);
void fl_clear_rows(const fl_array *array, int64_t size, int64_t first, int64_t n);

#endif
