/* The block loader, once per (instruction set, real). See loader.h. */
#include "vector/loader.h"
#include "vector/half.h"

#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

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

#if defined(__x86_64__) || defined(_M_X64)
static void stream_words(char *to, const char *from, int64_t bytes)
{
    int word;
    if (((intptr_t)to | bytes) % 4 != 0) { /* halves in odd places: not both ways in one line */
        memcpy(to, from, (size_t)bytes);
        return;
    }
    for (int64_t at = 0; at < bytes; at += 4) {
        memcpy(&word, from + at, sizeof word);
        _mm_stream_si32((int *)(void *)(to + at), word);
    }
}

static INLINE void stream_line(char *to, const char *from)
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

/* A copy past the caches: lines are not read first, also those whose rest the next copy writes. */
static void stream(char *to, const char *from, int64_t bytes)
{
    int64_t at = -(intptr_t)to & 63;
    at = at < bytes ? at : bytes;
    stream_words(to, from, at);
    for (; at + 64 <= bytes; at += 64)
        stream_line(to + at, from + at);
    stream_words(to + at, from + at, bytes - at);
}
#else
static void stream(char *to, const char *from, int64_t bytes) { memcpy(to, from, (size_t)bytes); }
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

/* A run past the caches, narrowed on its way where it is of a half type. */
static void stream_run(const fl_array *array, char *at, int64_t n, const real *from)
{
    char half[2 * TILE];
    if (array->is_direct) {
        stream(at, (const char *)from, n * (int64_t)sizeof(real));
        return;
    }
    for (int64_t i = 0; i < n; i += TILE) {
        const int64_t piece = n - i < TILE ? n - i : TILE;
        write_halves(array->dtype, from + i, piece, half);
        stream(at + 2 * i, half, 2 * piece);
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

/* --- walking an array --- */

/* Calls run() on each piece of [first, first + n) along the last axis; `size` is that of a tile's
 * entry. */
static void walk(const fl_array *array, int64_t first, int64_t n, run_fn *run, void *tile, int size)
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
    if (array->ndim == 1 && array->contiguous_run > 1)
        return array->data + first * size;
    int64_t within = first % array->contiguous_run, rest = first / array->contiguous_run;
    if (within + n > array->contiguous_run)
        return NULL;
    int axis = array->ndim - 1;
    if (array->contiguous_run > 1)
        axis--;
    for (; axis >= 0; axis--) {
        offset += rest % array->shape[axis] * array->stride[axis];
        rest /= array->shape[axis];
    }
    return array->data + offset + within * size;
}

const real *fl_load(const fl_array *array, int64_t first, int64_t n, real *scratch)
{
    char *place = array->is_direct ? in_place(array, first, n) : NULL;
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

real *fl_output_buffer(const fl_array *array, int64_t first, int64_t n, real *scratch)
{
    if (array->non_temporal)
        return scratch;
    char *place = array->data && array->is_direct ? in_place(array, first, n) : NULL;
    return place ? (real *)place : scratch;
}

void fl_store(const fl_array *array, int64_t first, int64_t n, const void *from)
{
    if (!array->data)
        return;
    char *place = array->is_direct ? in_place(array, first, n) : NULL;
    if (place == (const char *)from)
        return;
    if (place && array->non_temporal)
        stream_run(array, place, n, from);
    else
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

/* Reals that lie in lines of this many bytes. */
typedef struct {
    char *at;
    int64_t step;
} lines;

typedef real quad __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real))));
typedef int_real quad_index __attribute__((vector_size(4 * sizeof(real))));

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (quad_index){i, j, k, l})
#endif

/* Four entries of each of four lines; a strided copy would take four times as long. */
static INLINE void transpose_square(lines from, lines to)
{
    quad a = READ(quad, from.at), b = READ(quad, from.at + from.step);
    quad c = READ(quad, from.at + 2 * from.step), d = READ(quad, from.at + 3 * from.step);
    quad ac = PICK(a, c, 0, 4, 1, 5), AC = PICK(a, c, 2, 6, 3, 7);
    quad bd = PICK(b, d, 0, 4, 1, 5), BD = PICK(b, d, 2, 6, 3, 7);
    WRITE(quad, to.at, PICK(ac, bd, 0, 4, 1, 5));
    WRITE(quad, to.at + to.step, PICK(ac, bd, 2, 6, 3, 7));
    WRITE(quad, to.at + 2 * to.step, PICK(AC, BD, 0, 4, 1, 5));
    WRITE(quad, to.at + 3 * to.step, PICK(AC, BD, 2, 6, 3, 7));
}

/* Entry j of line i becomes entry i of line j; of each at least 4. The last squares overlap. */
static void transpose(lines from, int64_t i_end, lines to, int64_t j_end)
{
    const int64_t size = sizeof(real);
    for (int64_t block = 0; block < i_end; block += 4)
        for (int64_t column = 0; column < j_end; column += 4) {
            int64_t i = block + 4 < i_end ? block : i_end - 4;
            int64_t j = column + 4 < j_end ? column : j_end - 4;
            transpose_square((lines){from.at + i * from.step + j * size, from.step},
                             (lines){to.at + j * to.step + i * size, to.step});
        }
}

typedef enum { TO_TABLE, FROM_TABLE } direction;

static void walk_columns(const fl_array *array, int64_t size, fl_tile2d at, direction way,
                         real *table)
{
    const int64_t entries = at.to - at.from;
    for (int64_t i = 0, n; i < at.n; i += n) {
        stretch s = stretch_from(array, size, at.first + i);
        n = s.rows < at.n - i ? s.rows : at.n - i;
        if (array->is_direct && s.entry == sizeof(real) && n >= 4 && entries >= 4) {
            lines rows = {s.at + at.from * s.entry, s.row};
            lines columns = {(char *)(table + i), at.ld * (int64_t)sizeof(real)};
            if (way == TO_TABLE)
                transpose(rows, n, columns, entries);
            else if (array->non_temporal && s.row == entries * s.entry) {
                real whole[TILE_2D];
                transpose(columns, entries, (lines){(char *)whole, s.row}, n);
                stream(rows.at, (const char *)whole, n * s.row);
            } else
                transpose(columns, entries, rows, n);
            continue;
        }
        run_fn *run = way == TO_TABLE ? load_run : store_run;
        for (int64_t j = at.from; j < at.to; j++)
            run(array, s.at + j * s.entry, s.row, n, table + (j - at.from) * at.ld + i);
    }
}

fl_prefetch fl_next_tile(const fl_array *array, int64_t size, fl_tile2d at)
{
    const int last = at.to == size;
    stretch s = stretch_from(array, size, at.first + (last ? at.n : 0));
    return (fl_prefetch){.at = s.at + (last ? 0 : at.to) * s.entry,
                         .row = s.row,
                         .line = s.entry < s.row ? LANES * s.entry : s.entry};
}

void fl_load_transposed(const fl_array *array, int64_t size, fl_tile2d at, real *table)
{
    for (int64_t j = 0; j < at.to - at.from; j++)
        for (int64_t i = at.n; i < at.ld; i++)
            table[j * at.ld + i] = 0;
    walk_columns(array, size, at, TO_TABLE, table);
}

void fl_store_transposed(const fl_array *array, int64_t size, fl_tile2d at, const real *table)
{
    walk_columns(array, size, at, FROM_TABLE, (real *)table);
}

void fl_gather(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
               real *out)
{
    for (int64_t i = 0, rows; size > 0 && i < n; i += rows) {
        stretch s = stretch_from(array, size, first + i);
        rows = s.rows < n - i ? s.rows : n - i;
        for (int64_t k = i; k < i + rows; k++) {
            const char *at = s.at + (k - i) * s.row + entry[k] * s.entry;
            swapped_entry swapped;
            if (entry[k] >= 0)
                out[k] = array->is_direct
                             ? READ(real, at)
                             : read_real(native_entry(array, at, &swapped), array->dtype);
        }
    }
}

void fl_scatter(const fl_array *array, int64_t size, int64_t first, int64_t n, const int64_t *entry,
                const real *from)
{
    for (int64_t i = 0, rows; size > 0 && i < n; i += rows) {
        stretch s = stretch_from(array, size, first + i);
        rows = s.rows < n - i ? s.rows : n - i;
        for (int64_t k = i; k < i + rows; k++)
            if (entry[k] >= 0)
                store_run(array, s.at + (k - i) * s.row + entry[k] * s.entry, 0, 1,
                          (void *)&from[k]);
    }
}

void fl_clear_rows(const fl_array *array, int64_t size, int64_t first, int64_t n)
{
    const int64_t item = item_size[array->dtype];
    real zeros[TILE] = {0};
    for (int64_t i = 0, rows; size > 0 && i < n; i += rows) {
        stretch s = stretch_from(array, size, first + i);
        rows = s.rows < n - i ? s.rows : n - i;
        if (s.entry == item && (s.row == size * item || rows == 1)) {
            memset(s.at, 0, (size_t)(rows * size * item));
            continue;
        }
        for (int64_t j = 0; j < size; j++)
            for (int64_t k = 0, piece; k < rows; k += piece) {
                piece = rows - k < TILE ? rows - k : TILE;
                store_run(array, s.at + j * s.entry + k * s.row, s.row, piece, zeros);
            }
    }
}
