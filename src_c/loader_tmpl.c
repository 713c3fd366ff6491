/* The block loader, once per (instruction set, real). See loader.h. */
#include "loader.h"

#include <string.h>

/* --- half types --- */

static INLINE float as_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static INLINE uint32_t as_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* IEEE binary16: the exponent is moved into place and rebased by a multiplication, which also
 * grades subnormals. */
static INLINE float from_f16(uint16_t h)
{
    uint32_t magnitude = h & 0x7fffu;
    float f = as_float(magnitude << 13) * 0x1p112f;
    uint32_t bits = as_bits(f) | (magnitude >= 0x7c00u ? 0x7f800000u : 0u);
    return as_float(bits | (uint32_t)(h & 0x8000u) << 16);
}

/* Round to nearest even. Adding 2^k aligns the mantissa so that the hardware rounds at binary16's
 * last place. */
static INLINE uint16_t to_f16(float f)
{
    uint32_t bits = as_bits(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t exponent = magnitude >> 23;
    uint32_t anchor = ((exponent < 113 ? 113u : exponent > 142 ? 142u : exponent) + 13u) << 23;
    uint32_t rounded =
        as_bits(as_float(magnitude) + as_float(anchor)) - anchor; /* in units of the last place */
    uint32_t normal =
        (exponent < 113 ? 0u : (exponent > 142 ? 30u : exponent - 113u) << 10) + rounded;
    uint32_t h = magnitude > 0x7f800000u ? 0x7e00u : magnitude >= 0x477ff000u ? 0x7c00u : normal;
    return (uint16_t)(h | sign);
}

static INLINE float from_bf16(uint16_t h) { return as_float((uint32_t)h << 16); }

static INLINE uint16_t to_bf16(float f)
{
    uint32_t bits = as_bits(f);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

/* To float by rounding to odd, so that a second rounding to a half type rounds once in effect. */
static INLINE float to_float_odd(real x)
{
#if REAL_IS_DOUBLE
    float f = (float)x;
    double back = f, magnitude = __builtin_fabs(x), got = __builtin_fabs(back);
    uint32_t bits = as_bits(f);
    uint32_t down =
        (uint32_t)(got > magnitude); /* rounded away from zero: one back, also from inf */
    return got == magnitude || x != x ? f : as_float((bits - down) | 1u);
#else
    return x;
#endif
}

/* --- one entry, the dtype being a constant in every use --- */

static const uint8_t item_size[FL_DTYPES] = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 2, 4, 8};

/* Memory need not be aligned, hence memcpy (it compiles to a load). */
#define READ(type, from) \
    ({ \
        type value; \
        memcpy(&value, from, sizeof value); \
        value; \
    })
#define WRITE(type, to, x) \
    do { \
        type value = (x); \
        memcpy(to, &value, sizeof value); \
    } while (0)

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
    switch (array->dtype) {
    case FL_F32:
        read_run(at, stride, n, out, FL_F32);
        break;
    case FL_F64:
        read_run(at, stride, n, out, FL_F64);
        break;
    case FL_F16:
        read_run(at, stride, n, out, FL_F16);
        break;
    case FL_BF16:
        read_run(at, stride, n, out, FL_BF16);
        break;
    case FL_BOOL:
        read_run(at, stride, n, out, FL_BOOL);
        break;
    case FL_I8:
        read_run(at, stride, n, out, FL_I8);
        break;
    case FL_I16:
        read_run(at, stride, n, out, FL_I16);
        break;
    case FL_I32:
        read_run(at, stride, n, out, FL_I32);
        break;
    case FL_I64:
        read_run(at, stride, n, out, FL_I64);
        break;
    case FL_U8:
        read_run(at, stride, n, out, FL_U8);
        break;
    case FL_U16:
        read_run(at, stride, n, out, FL_U16);
        break;
    case FL_U32:
        read_run(at, stride, n, out, FL_U32);
        break;
    case FL_U64:
        read_run(at, stride, n, out, FL_U64);
        break;
    default:
        break;
    }
}

static void load_double_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    double *out = tile;
    for (int64_t i = 0; i < n; i++) {
        swapped_entry swapped;
        const char *from = native_entry(array, at + i * stride, &swapped);
        out[i] =
            array->dtype == FL_F64 ? READ(double, from) : (double)read_real(from, array->dtype);
    }
}

static void load_index_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    int64_t *out = tile;
    for (int64_t i = 0; i < n; i++) {
        swapped_entry swapped;
        const char *from = native_entry(array, at + i * stride, &swapped);
        out[i] = read_index(from, array->dtype);
    }
}

static void store_run(const fl_array *array, char *at, int64_t stride, int64_t n, void *tile)
{
    const real *from = tile;
    for (int64_t i = 0; i < n; i++) {
        char *to = at + i * stride;
        write_real(to, array->dtype, from[i]);
        if (array->swapped) {
            swapped_entry native = swap_entry(to, array->dtype);
            memcpy(to, native.bytes, item_size[array->dtype]);
        }
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
