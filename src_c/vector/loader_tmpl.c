/* The block loader, compiled once per (instruction set, real). See loader.h. */
#include "vector/loader.h"
#include "vector/half.h"

#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

/* --- One entry; the dtype is a constant at every call --- */

static const uint8_t item_size[FL_DTYPES] = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 2, 4, 8};

#define FOR_EACH_DTYPE(X) \
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
        return (real)float_from_f16(READ(uint16_t, from));
    case FL_BF16:
        return (real)float_from_bf16(READ(uint16_t, from));
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
        WRITE(uint16_t, to, f16_from_float(round_to_odd(x)));
        break;
    case FL_BF16:
        WRITE(uint16_t, to, bf16_from_float(round_to_odd(x)));
        break;
    default:
        break;
    }
}

/* The bytes of an entry in reverse order. */
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

/* A pointer to the entry at `from` in native byte order: `from` itself, or *swapped, to which it is
 * then copied. */
static INLINE const char *native_entry(const fl_array *array, const char *from,
                                       swapped_entry *swapped)
{
    if (!array->swapped)
        return from;
    *swapped = swap_entry(from, array->dtype);
    return swapped->bytes;
}

/* --- A run of equally spaced entries --- */

typedef void run_fn(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile);

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

/* Rare, hence entry by entry. */
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
        FOR_EACH_DTYPE(CASE)
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
    if (array->swapped) {
        for (int64_t i = 0; i < n; i++) {
            swapped_entry native = swap_entry(at + i * stride, array->dtype);
            out[i] = read_index(native.bytes, array->dtype);
        }
    } else if (array->dtype == FL_I64 && stride == 8)
        memcpy(out, at, (size_t)n * 8);
    else if (array->dtype == FL_I32 && stride == 4)
        for (int64_t i = 0; i < n; i++)
            out[i] = READ(int32_t, at + i * 4);
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = read_index(at + i * stride, array->dtype);
}

#if defined(__x86_64__) || defined(_M_X64)
static void stream_words(char *to, const char *from, int64_t bytes)
{
    int word;
    /* Half types at odd multiples of 2 bytes. A cache line gets either kind of store, not both. */
    if (((intptr_t)to | bytes) % 4 != 0) {
        memcpy(to, from, (size_t)bytes);
        return;
    }
    for (int64_t at = 0; at < bytes; at += 4) {
        memcpy(&word, from + at, sizeof word);
        _mm_stream_si32((int *)(void *)(to + at), word);
    }
}

static INLINE void stream_cache_line(char *to, const char *from)
{
#if defined(__AVX512F__)
    _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
#elif defined(__AVX__)
    for (int k = 0; k < 64; k += 32)
        _mm256_stream_si256((void *)(to + k), _mm256_loadu_si256((const void *)(from + k)));
#else
    for (int k = 0; k < 64; k += 16)
        _mm_stream_si128((void *)(to + k), _mm_loadu_si128((const void *)(from + k)));
#endif
}

/* Copies with non-temporal stores: no cache line is read before it is written, not even a partial
 * one that the next copy completes. */
static void stream_bytes(char *to, const char *from, int64_t bytes)
{
    int64_t at = -(intptr_t)to & 63;
    at = at < bytes ? at : bytes;
    stream_words(to, from, at);
    for (; at + 64 <= bytes; at += 64)
        stream_cache_line(to + at, from + at);
    stream_words(to + at, from + at, bytes - at);
}
#else
static void stream_bytes(char *to, const char *from, int64_t bytes)
{
    memcpy(to, from, (size_t)bytes);
}
#endif

static INLINE void write_run(char *at, int64_t stride, int64_t n, const real *from, fl_dtype dtype)
{
    if (stride == item_size[dtype])
        for (int64_t i = 0; i < n; i++)
            write_real(at + i * item_size[dtype], dtype, from[i]);
    else
        for (int64_t i = 0; i < n; i++)
            write_real(at + i * stride, dtype, from[i]);
}

static INLINE void write_halves(fl_dtype dtype, const real *from, int64_t n, char *at)
{
#if !REAL_IS_DOUBLE
    if (dtype == FL_F16) {
        narrow_f16(from, n, at);
        return;
    }
#endif
    if (dtype == FL_F16)
        write_run(at, 2, n, from, FL_F16);
    else
        write_run(at, 2, n, from, FL_BF16);
}

/* Writes a run with non-temporal stores, after conversion if the array is of a half type. */
static void stream_run(const fl_array *array, char *at, int64_t n, const real *from)
{
    char half[2 * TILE];
    if (array->is_direct) {
        stream_bytes(at, (const char *)from, n * (int64_t)sizeof(real));
        return;
    }
    for (int64_t i = 0; i < n; i += TILE) {
        const int64_t count = n - i < TILE ? n - i : TILE;
        write_halves(array->dtype, from + i, count, half);
        stream_bytes(at + 2 * i, half, 2 * count);
    }
}

static void store_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    const real *from = tile;
    if (array->non_temporal && stride == item_size[array->dtype]) {
        stream_run(array, at, n, from);
        return;
    }
    if (item_size[array->dtype] == 2 && stride == 2 && !array->swapped) {
        write_halves(array->dtype, from, n, at);
        return;
    }
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

/* --- Runs of an array --- */

/* Calls run() for entries [first, first + n), once for each stretch of them along the last axis.
 * `size` is the number of bytes of an entry in the tile. */
static void for_each_run(const fl_array *array, int64_t first, int64_t n, run_fn *run, void *tile,
                         int size)
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
        int64_t count = array->shape[last] - index[last];
        count = count < n - done ? count : n - done;
        run(array, at, array->stride[last], count, (char *)tile + done * size);
        done += count;
        index[last] += count;
        at += count * array->stride[last];
        for (int axis = last; axis > 0 && index[axis] == array->shape[axis]; axis--) {
            at += array->stride[axis - 1] - array->shape[axis] * array->stride[axis];
            index[axis] = 0;
            index[axis - 1]++;
        }
    }
}

/* The address of entries [first, first + n) if they are contiguous, else NULL. */
static char *contiguous_address(const fl_array *array, int64_t first, int64_t n)
{
    int64_t offset = 0, size = item_size[array->dtype];
    if (array->ndim == 1 && array->contiguous_run > 1)
        return array->data + first * size;
    int64_t within = first % array->contiguous_run, run = first / array->contiguous_run;
    if (within + n > array->contiguous_run)
        return NULL;
    int axis = array->ndim - 1;
    if (array->contiguous_run > 1)
        axis--;
    for (; axis >= 0; axis--) {
        offset += run % array->shape[axis] * array->stride[axis];
        run /= array->shape[axis];
    }
    return array->data + offset + within * size;
}

const real *fl_load(const fl_array *array, int64_t first, int64_t n, real *scratch)
{
    char *address = array->is_direct ? contiguous_address(array, first, n) : NULL;
    if (address)
        return (const real *)address;
    for_each_run(array, first, n, load_run, scratch, sizeof *scratch);
    return scratch;
}

const double *fl_load_double(const fl_array *array, int64_t first, int64_t n, double *scratch)
{
    for_each_run(array, first, n, load_double_run, scratch, sizeof *scratch);
    return scratch;
}

const int64_t *fl_load_index(const fl_array *array, int64_t first, int64_t n, int64_t *scratch)
{
    for_each_run(array, first, n, load_index_run, scratch, sizeof *scratch);
    return scratch;
}

real *fl_output_buffer(const fl_array *array, int64_t first, int64_t n, real *scratch)
{
    if (!array || array->non_temporal)
        return scratch;
    char *address = array->data && array->is_direct ? contiguous_address(array, first, n) : NULL;
    return address ? (real *)address : scratch;
}

void fl_store(const fl_array *array, int64_t first, int64_t n, const void *from)
{
    if (!array)
        return;
    char *address = array->is_direct ? contiguous_address(array, first, n) : NULL;
    if (address == (const char *)from)
        return;
    if (address && array->non_temporal)
        stream_run(array, address, n, from);
    else
        for_each_run(array, first, n, store_run, (void *)from, sizeof(real));
}

/* --- Rows --- */

/* Equally spaced rows. Strides are in bytes. */
typedef struct {
    char *at;
    int64_t rows, row_stride, entry_stride;
} strided_rows;

/* The longest such sequence from row `first` on. The binding may have merged the axis of the rows
 * with the axis of their entries. */
static strided_rows strided_rows_from(const fl_array *array, int64_t size, int64_t first)
{
    int last = array->ndim - 1;
    int64_t index = first * size;
    strided_rows s = {.at = array->data, .rows = INT64_MAX};
    for (int axis = last; axis >= 0; axis--) {
        int64_t within = index % array->shape[axis], step = array->stride[axis];
        index /= array->shape[axis];
        s.at += within * step;
        if (axis == last)
            s.entry_stride = step;
        if (s.rows == INT64_MAX && (axis < last || array->shape[axis] > size)) {
            int64_t entries = axis == last ? size : 1;
            s.rows = (array->shape[axis] - within) / entries;
            s.row_stride = step * entries;
        }
    }
    return s;
}

/* A matrix of reals; the stride between lines is in bytes. */
typedef struct {
    char *at;
    int64_t stride;
} strided_lines;

typedef real quad __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real))));
typedef int_real quad_index __attribute__((vector_size(4 * sizeof(real))));

#ifdef __clang__
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (quad_index){i, j, k, l})
#endif

/* Transposes 4 x 4 entries. A strided copy would take four times as long. */
static INLINE void transpose_4x4(strided_lines from, strided_lines to)
{
    quad a = READ(quad, from.at), b = READ(quad, from.at + from.stride);
    quad c = READ(quad, from.at + 2 * from.stride), d = READ(quad, from.at + 3 * from.stride);
    quad ac = SHUFFLE4(a, c, 0, 4, 1, 5), AC = SHUFFLE4(a, c, 2, 6, 3, 7);
    quad bd = SHUFFLE4(b, d, 0, 4, 1, 5), BD = SHUFFLE4(b, d, 2, 6, 3, 7);
    WRITE(quad, to.at, SHUFFLE4(ac, bd, 0, 4, 1, 5));
    WRITE(quad, to.at + to.stride, SHUFFLE4(ac, bd, 2, 6, 3, 7));
    WRITE(quad, to.at + 2 * to.stride, SHUFFLE4(AC, BD, 0, 4, 1, 5));
    WRITE(quad, to.at + 3 * to.stride, SHUFFLE4(AC, BD, 2, 6, 3, 7));
}

#if defined(__AVX2__) && !REAL_IS_DOUBLE
/* In each half of the registers: column k of rows 0 to 3 replaces row k. */
static INLINE void transpose_halves(__m256 row[4])
{
    __m256 ac = _mm256_unpacklo_ps(row[0], row[2]), AC = _mm256_unpackhi_ps(row[0], row[2]);
    __m256 bd = _mm256_unpacklo_ps(row[1], row[3]), BD = _mm256_unpackhi_ps(row[1], row[3]);
    row[0] = _mm256_unpacklo_ps(ac, bd);
    row[1] = _mm256_unpackhi_ps(ac, bd);
    row[2] = _mm256_unpacklo_ps(AC, BD);
    row[3] = _mm256_unpackhi_ps(AC, BD);
}

/* Transposes 8 lines x 4 columns. */
static INLINE void transpose_8x4(strided_lines from, strided_lines to)
{
    __m256 row[4];
    for (int k = 0; k < 4; k++) {
        const float *upper = (const float *)(const void *)(from.at + k * from.stride),
                    *lower = (const float *)(const void *)(from.at + (k + 4) * from.stride);
        row[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(upper)),
                                      _mm_loadu_ps(lower), 1);
    }
    transpose_halves(row);
    for (int k = 0; k < 4; k++)
        _mm256_storeu_ps((float *)(void *)(to.at + k * to.stride), row[k]);
}

/* Transposes 4 lines x 8 columns. */
static INLINE void transpose_4x8(strided_lines from, strided_lines to)
{
    __m256 row[4];
    for (int k = 0; k < 4; k++)
        row[k] = _mm256_loadu_ps((const float *)(const void *)(from.at + k * from.stride));
    transpose_halves(row);
    for (int k = 0; k < 4; k++) {
        _mm_storeu_ps((float *)(void *)(to.at + k * to.stride), _mm256_castps256_ps128(row[k]));
        _mm_storeu_ps((float *)(void *)(to.at + (k + 4) * to.stride),
                      _mm256_extractf128_ps(row[k], 1));
    }
}
#endif

typedef void transpose_fn(strided_lines from, strided_lines to);

/* Transposes lines x columns entries, by blocks of at most that size; the last blocks overlap. */
static INLINE void transpose_by(transpose_fn transpose_block, int block_lines, int block_columns,
                                strided_lines from, int64_t lines, strided_lines to,
                                int64_t columns)
{
    const int64_t size = sizeof(real);
    for (int64_t line = 0; line < lines; line += block_lines)
        for (int64_t column = 0; column < columns; column += block_columns) {
            int64_t i = line + block_lines < lines ? line : lines - block_lines;
            int64_t j = column + block_columns < columns ? column : columns - block_columns;
            transpose_block((strided_lines){from.at + i * from.stride + j * size, from.stride},
                            (strided_lines){to.at + j * to.stride + i * size, to.stride});
        }
}

/* Transposes lines x columns entries, each at least 4. */
static void transpose(strided_lines from, int64_t lines, strided_lines to, int64_t columns)
{
#if defined(__AVX2__) && !REAL_IS_DOUBLE
    if (lines >= 8 && lines >= columns) {
        transpose_by(transpose_8x4, 8, 4, from, lines, to, columns);
        return;
    }
    if (columns >= 8) {
        transpose_by(transpose_4x8, 4, 8, from, lines, to, columns);
        return;
    }
#endif
    transpose_by(transpose_4x4, 4, 4, from, lines, to, columns);
}

typedef enum { ARRAY_TO_TILE, TILE_TO_ARRAY } direction;

static void copy_transposed(const fl_array *array, int64_t size, fl_tile2d at, direction direction,
                            real *tile)
{
    const int64_t entries = at.to - at.from;
    for (int64_t i = 0, n; i < at.n; i += n) {
        strided_rows s = strided_rows_from(array, size, at.first + i);
        n = s.rows < at.n - i ? s.rows : at.n - i;
        if (array->is_direct && s.entry_stride == sizeof(real) && n >= 4 && entries >= 4) {
            strided_lines rows = {s.at + at.from * s.entry_stride, s.row_stride};
            strided_lines columns = {(char *)(tile + i), at.ld * (int64_t)sizeof(real)};
            if (direction == ARRAY_TO_TILE)
                transpose(rows, n, columns, entries);
            else if (array->non_temporal && s.row_stride == entries * s.entry_stride) {
                ALIGNED real buffer[TILE_2D];
                transpose(columns, entries, (strided_lines){(char *)buffer, s.row_stride}, n);
                stream_bytes(rows.at, (const char *)buffer, n * s.row_stride);
            } else
                transpose(columns, entries, rows, n);
            continue;
        }
        run_fn *run = direction == ARRAY_TO_TILE ? load_run : store_run;
        for (int64_t j = at.from; j < at.to; j++)
            run(array, s.at + j * s.entry_stride, s.row_stride, n,
                tile + (j - at.from) * at.ld + i);
    }
}

fl_prefetch fl_next_tile(const fl_array *array, int64_t size, fl_tile2d at)
{
    const int last = at.to == size;
    strided_rows s = strided_rows_from(array, size, at.first + (last ? at.n : 0));
    return (fl_prefetch){.at = s.at + (last ? 0 : at.to) * s.entry_stride,
                         .row = s.row_stride,
                         .line = s.entry_stride < s.row_stride ? LANES * s.entry_stride
                                                               : s.entry_stride};
}

void fl_load_transposed(const fl_array *array, int64_t size, fl_tile2d at, real *tile)
{
    for (int64_t j = 0; j < at.to - at.from; j++)
        for (int64_t i = at.n; i < at.ld; i++)
            tile[j * at.ld + i] = 0;
    copy_transposed(array, size, at, ARRAY_TO_TILE, tile);
}

void fl_store_transposed(const fl_array *array, int64_t size, fl_tile2d at, const real *tile)
{
    copy_transposed(array, size, at, TILE_TO_ARRAY, (real *)tile);
}

/* How many bytes ahead short rows are prefetched: more than a batch of them, so that they arrive
 * while the batch before is summed. */
enum { GATHER_AHEAD = 8192 };

/* Gathers from rows of reals. */
static INLINE void gather_rows(const strided_rows *s, int64_t n, const int prefetches,
                               const int64_t *entry, real *out)
{
    for (int64_t i = 0; i < n; i++) {
        const char *row = s->at + i * s->row_stride;
        if (prefetches)
            __builtin_prefetch(row + GATHER_AHEAD);
        out[i] = READ(real, row + (entry[i] < 0 ? 0 : entry[i]) * s->entry_stride);
    }
}

void fl_gather(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
               real *out)
{
    for (int64_t i = 0; size == 0 && i < n; i++)
        out[i] = 0; /* rows without entries have negative indices only */
    for (int64_t i = 0, rows; size > 0 && i < n; i += rows) {
        const strided_rows s = strided_rows_from(array, size, first + i);
        rows = s.rows < n - i ? s.rows : n - i;
        const int share_lines =
            0 < s.entry_stride && s.entry_stride < s.row_stride && s.row_stride <= FL_CACHE_LINE;
        if (array->is_direct) {
            if (share_lines)
                gather_rows(&s, rows, 1, entry + i, out + i);
            else
                gather_rows(&s, rows, 0, entry + i, out + i);
            continue;
        }
        for (int64_t k = i; k < i + rows; k++) {
            const char *at = s.at + (k - i) * s.row_stride + entry[k] * s.entry_stride;
            swapped_entry swapped;
            out[k] = entry[k] < 0 ? 0 : read_real(native_entry(array, at, &swapped), array->dtype);
        }
    }
}

void fl_scatter(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
                const real *from)
{
    for (int64_t i = 0, rows; size > 0 && i < n; i += rows) {
        const strided_rows s = strided_rows_from(array, size, first + i);
        rows = s.rows < n - i ? s.rows : n - i;
        for (int64_t k = i; k < i + rows; k++) {
            char *at = s.at + (k - i) * s.row_stride + entry[k] * s.entry_stride;
            if (entry[k] >= 0 && array->is_direct)
                memcpy(at, &from[k], sizeof(real));
            else if (entry[k] >= 0)
                store_run(array, at, 0, 1, (void *)&from[k]);
        }
    }
}

void fl_clear_rows(const fl_array *array, int64_t size, int64_t first, int64_t n)
{
    const int64_t item = item_size[array->dtype];
    ALIGNED real zeros[TILE] = {0};
    for (int64_t i = 0, rows; size > 0 && i < n; i += rows) {
        strided_rows s = strided_rows_from(array, size, first + i);
        rows = s.rows < n - i ? s.rows : n - i;
        if (s.entry_stride == item && (s.row_stride == size * item || rows == 1)) {
            memset(s.at, 0, (size_t)(rows * size * item));
            continue;
        }
        for (int64_t j = 0; j < size; j++)
            for (int64_t k = 0, count; k < rows; k += count) {
                count = rows - k < TILE ? rows - k : TILE;
                store_run(array, s.at + j * s.entry_stride + k * s.row_stride, s.row_stride, count,
                          zeros);
            }
    }
}
