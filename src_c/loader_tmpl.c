/* The block loader, once per (instruction set, real). See loader.h. */
#include "loader.h"
#include "half.h"

#include <string.h>

/* --- one entry, the dtype being a constant in every use --- */

static const uint8_t item_size[FL_DTYPES] = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 2, 4, 8};

#define EACH_DTYPE(X) \
    X(FL_F32) \
    X(FL_F64) \
    X(FL_F16) \
    X(FL_BF16) \
    X(FL_BOOL) X(FL_I8) X(FL_I16) X(FL_I32) X(FL_I64) X(FL_U8) X(FL_U16) X(FL_U32) X(FL_U64)

static INLINE real read_real(const char *from, fl_dtype dtype)
{
    switch (dtype) {
    case FL_F32:
        return (real)READ(float, from);
    case FL_F64:
        return (real)READ(double, from);
    case FL_F16:
        return (real)from_f16(READ(uint16_t, from));
    case FL_BF16:
        return (real)from_bf16(READ(uint16_t, from));
    case FL_BOOL:
        return (real)(READ(uint8_t, from) != 0);
    case FL_I8:
        return (real)READ(int8_t, from);
    case FL_I16:
        return (real)READ(int16_t, from);
    case FL_I32:
        return (real)READ(int32_t, from);
    case FL_I64:
        return (real)READ(int64_t, from);
    case FL_U8:
        return (real)READ(uint8_t, from);
    case FL_U16:
        return (real)READ(uint16_t, from);
    case FL_U32:
        return (real)READ(uint32_t, from);
    case FL_U64:
        return (real)READ(uint64_t, from);
    default:
        return 0;
    }
}

static INLINE int64_t read_index(const char *from, fl_dtype dtype)
{
    switch (dtype) {
    case FL_BOOL:
    case FL_U8:
        return READ(uint8_t, from);
    case FL_I8:
        return READ(int8_t, from);
    case FL_I16:
        return READ(int16_t, from);
    case FL_I32:
        return READ(int32_t, from);
    case FL_I64:
        return READ(int64_t, from);
    case FL_U16:
        return READ(uint16_t, from);
    case FL_U32:
        return READ(uint32_t, from);
    case FL_U64:
        return READ(uint64_t, from) > INT64_MAX ? INT64_MIN : (int64_t)READ(uint64_t, from);
    default:
        return INT64_MAX;
    }
}

static INLINE void write_real(char *to, fl_dtype dtype, real x)
{
    switch (dtype) {
    case FL_F32:
        WRITE(float, to, (float)x);
        break;
    case FL_F64:
        WRITE(double, to, (double)x);
        break;
    case FL_F16:
        WRITE(uint16_t, to, to_f16(to_float_odd(x)));
        break;
    case FL_BF16:
        WRITE(uint16_t, to, to_bf16(to_float_odd(x)));
        break;
    default:
        break;
    }
}

/* The entry at `from` with its bytes in the other order. */
typedef struct {
    char bytes[8];
} swapped_entry;

static inline swapped_entry swap_entry(const char *from, fl_dtype dtype)
{
    swapped_entry e = {{0}};
    for (int size = item_size[dtype], k = 0; k < size && k < 8; k++)
        e.bytes[k] = from[size - 1 - k];
    return e;
}

/* The entry at `from` in native byte order: itself, or what is put into `swapped`. */
static INLINE const char *native_entry(const fl_array *array, const char *from,
                                       swapped_entry *swapped)
{
    if (!array->swapped)
        return from;
    *swapped = swap_entry(from, array->dtype);
    return swapped->bytes;
}

/* --- a run of equally spaced entries --- */

typedef void (*run_fn)(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile);

static INLINE void read_run(const char *at, int64_t stride, int64_t n, real *out, fl_dtype dtype)
{
    if (stride == item_size[dtype])
        for (int64_t i = 0; i < n; i++)
            out[i] = read_real(at + i * item_size[dtype], dtype);
    else if (stride == 0)
        for (int64_t i = 0; i < n; i++)
            out[i] = read_real(at, dtype);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = read_real(at + i * stride, dtype);
}

/* Rare: byte order is undone entry by entry. */
static void read_swapped(const fl_array *array, char *at, int64_t stride, int64_t n, real *out)
{
    for (int64_t i = 0; i < n; i++) {
        swapped_entry native = swap_entry(at + i * stride, array->dtype);
        out[i] = read_real(native.bytes, array->dtype);
    }
}

static void load_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    real *out = tile;
    if (array->swapped) {
        read_swapped(array, at, stride, n, out);
        return;
    }
#if !REAL_IS_DOUBLE
    if (array->dtype == FL_F16 && stride == 2) {
        widen_f16(at, n, out);
        return;
    }
#endif
    switch (array->dtype) {
#define CASE(dtype) \
    case dtype: \
        read_run(at, stride, n, out, dtype); \
        break;
        EACH_DTYPE(CASE)
#undef CASE
    default:
        break;
    }
}

static INLINE double read_double(const char *from, fl_dtype dtype)
{
    return dtype == FL_F64 ? READ(double, from) : (double)read_real(from, dtype);
}

static void load_double_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    double *out = tile;
    if (!array->swapped && (array->dtype == FL_F32 || array->dtype == FL_F64)) {
        for (int64_t i = 0; array->dtype == FL_F32 && i < n; i++)
            out[i] = READ(float, at + i * stride);
        for (int64_t i = 0; array->dtype == FL_F64 && i < n; i++)
            out[i] = READ(double, at + i * stride);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        swapped_entry swapped;
        out[i] = read_double(native_entry(array, at + i * stride, &swapped), array->dtype);
    }
}

static void load_index_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    int64_t *out = tile;
    if (!array->swapped && (array->dtype == FL_I32 || array->dtype == FL_I64)) {
        for (int64_t i = 0; array->dtype == FL_I32 && i < n; i++)
            out[i] = READ(int32_t, at + i * stride);
        for (int64_t i = 0; array->dtype == FL_I64 && i < n; i++)
            out[i] = READ(int64_t, at + i * stride);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        swapped_entry swapped;
        out[i] = read_index(native_entry(array, at + i * stride, &swapped), array->dtype);
    }
}

static INLINE void write_run(char *at, int64_t stride, int64_t n, const real *from, fl_dtype dtype)
{
    if (stride == item_size[dtype])
        for (int64_t i = 0; i < n; i++)
            write_real(at + i * item_size[dtype], dtype, from[i]);
    else
        for (int64_t i = 0; i < n; i++)
            write_real(at + i * stride, dtype, from[i]);
}

static void store_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    const real *from = tile;
#if !REAL_IS_DOUBLE
    if (array->dtype == FL_F16 && stride == 2 && !array->swapped) {
        narrow_f16(from, n, at);
        return;
    }
#endif
    switch (array->dtype) {
#define CASE(dtype) \
    case dtype: \
        write_run(at, stride, n, from, dtype); \
        break;
        CASE(FL_F32)
        CASE(FL_F64)
        CASE(FL_F16)
        CASE(FL_BF16)
#undef CASE
    default:
        break;
    }
    for (int64_t i = 0; array->swapped && i < n; i++) {
        char *to = at + i * stride;
        swapped_entry native = swap_entry(to, array->dtype);
        memcpy(to, native.bytes, item_size[array->dtype]);
    }
}

/* --- walking an array --- */

/* Calls run() on each piece of [first, first + n) along the last axis; `size` is that of a tile's
 * entry. */
static void walk(const fl_array *array, int64_t first, int64_t n, run_fn run, void *tile, int size)
{
    int last = array->ndim - 1;
    int64_t index[FL_MAX_DIMS];
    char *at = array->data;
    if (last < 0) {
        run(array, at, 0, n, tile);
        return;
    }
    for (int axis = last; axis >= 0; axis--) {
        index[axis] = first % array->shape[axis];
        first /= array->shape[axis];
        at += index[axis] * array->stride[axis];
    }
    for (int64_t done = 0; done < n;) {
        int64_t piece = array->shape[last] - index[last];
        piece = piece < n - done ? piece : n - done;
        run(array, at, array->stride[last], piece, (char *)tile + done * size);
        done += piece;
        index[last] += piece;
        at += piece * array->stride[last];
        for (int axis = last; axis > 0 && index[axis] == array->shape[axis]; axis--) {
            at += array->stride[axis - 1] - array->shape[axis] * array->stride[axis];
            index[axis] = 0;
            index[axis - 1]++;
        }
    }
}

/* The place of entries [first, first + n) if they lie there one after the other, else NULL. */
static char *in_place(const fl_array *array, int64_t first, int64_t n)
{
    int64_t offset = 0, size = item_size[array->dtype];
    if (array->ndim == 1 && array->run > 1)
        return array->data + first * size;
    int64_t within = first % array->run, rest = first / array->run;
    if (within + n > array->run)
        return NULL;
    int axis = array->ndim - 1;
    if (array->run > 1)
        axis--;
    for (; axis >= 0; axis--) {
        offset += rest % array->shape[axis] * array->stride[axis];
        rest /= array->shape[axis];
    }
    return array->data + offset + within * size;
}

const real *fl_load(const fl_array *array, int64_t first, int64_t n, real *scratch)
{
    char *place = array->plain ? in_place(array, first, n) : NULL;
    if (place)
        return (const real *)place;
    walk(array, first, n, load_run, scratch, sizeof *scratch);
    return scratch;
}

const double *fl_load_double(const fl_array *array, int64_t first, int64_t n, double *scratch)
{
    walk(array, first, n, load_double_run, scratch, sizeof *scratch);
    return scratch;
}

const int64_t *fl_load_index(const fl_array *array, int64_t first, int64_t n, int64_t *scratch)
{
    walk(array, first, n, load_index_run, scratch, sizeof *scratch);
    return scratch;
}

real *fl_target(const fl_array *array, int64_t first, int64_t n, real *scratch)
{
    char *place = array->data && array->plain ? in_place(array, first, n) : NULL;
    return place ? (real *)place : scratch;
}

void fl_store(const fl_array *array, int64_t first, int64_t n, const void *from)
{
    if (!array->data || (array->plain && (const char *)from == in_place(array, first, n)))
        return;
    walk(array, first, n, store_run, (void *)from, sizeof(real));
}

/* --- rows, entry by entry --- */

/* Rows that lie equally spaced: entry j of the k-th is at + k row + j entry. */
typedef struct {
    char *at;
    int64_t rows, row, entry;
} stretch;

/* Those from this row on. Rows that are neighbours in the array may have been merged into one axis
 * with their entries. */
static stretch stretch_from(const fl_array *array, int64_t size, int64_t first)
{
    int last = array->ndim - 1;
    int64_t index = first * size;
    stretch s = {.at = array->data, .rows = INT64_MAX};
    for (int axis = last; axis >= 0; axis--) {
        int64_t within = index % array->shape[axis], step = array->stride[axis];
        index /= array->shape[axis];
        s.at += within * step;
        if (axis == last)
            s.entry = step;
        if (s.rows == INT64_MAX && (axis < last || array->shape[axis] > size)) {
            int64_t entries = axis == last ? size : 1;
            s.rows = (array->shape[axis] - within) / entries;
            s.row = step * entries;
        }
    }
    return s;
}

static void walk_columns(const fl_array *array, int64_t size, fl_columns at, run_fn run,
                         real *table)
{
    for (int64_t i = 0, n; i < at.n; i += n) {
        stretch s = stretch_from(array, size, at.first + i);
        n = s.rows < at.n - i ? s.rows : at.n - i;
        for (int64_t j = at.from; j < at.to; j++)
            run(array, s.at + j * s.entry, s.row, n, table + (j - at.from) * at.wide + i);
    }
}

void fl_load_columns(const fl_array *array, int64_t size, fl_columns at, real *table)
{
    for (int64_t j = 0; j < at.to - at.from; j++)
        for (int64_t i = at.n; i < at.wide; i++)
            table[j * at.wide + i] = 0;
    walk_columns(array, size, at, load_run, table);
}

void fl_store_columns(const fl_array *array, int64_t size, fl_columns at, const real *table)
{
    walk_columns(array, size, at, store_run, (real *)table);
}

void fl_pick(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
             real *out)
{
    for (int64_t i = 0, rows; size > 0 && i < n; i += rows) {
        stretch s = stretch_from(array, size, first + i);
        rows = s.rows < n - i ? s.rows : n - i;
        for (int64_t k = 0; k < rows; k++) {
            swapped_entry swapped;
            if (entry[i + k] >= 0)
                out[i + k] = read_real(
                    native_entry(array, s.at + k * s.row + entry[i + k] * s.entry, &swapped),
                    array->dtype);
        }
    }
}
