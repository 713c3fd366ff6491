/* The one page between the binding, the driver and the kernels.
 *
 * The binding fills an fl_call and hands it to fl_run(). The driver cuts the units of the loss into
 * blocks, runs the kernel of this (kind, instruction set, real) over them on several threads, phase
 * by phase, and adds the blocks' partials in block order. A unit is what has one unreduced loss: an
 * element, a row of classes, a sample. */
#ifndef FASTLOSS_H
#define FASTLOSS_H

#include <stddef.h>
#include <stdint.h>

enum { FL_MAX_DIMS = 64, FL_OPERANDS = 3, FL_PARAMS = 3 };

/* Storage types. Kernels compute in float or double; the loader converts. */
typedef enum {
    FL_F32,
    FL_F64,
    FL_F16,
    FL_BF16,
    FL_BOOL,
    FL_I8,
    FL_I16,
    FL_I32,
    FL_I64,
    FL_U8,
    FL_U16,
    FL_U32,
    FL_U64,
    FL_DTYPES
} fl_dtype;

/* An array as a sequence of entries in C order of its (broadcast) shape. Neighbouring axes are
 * merged where the strides allow it; `run` entries at a time, from each multiple of `run` on, lie
 * one after the other in memory. */
typedef struct {
    char *data; /* NULL: absent */
    fl_dtype dtype;
    int swapped;      /* not in native byte order */
    int is_direct;    /* native, aligned and of the compute type: usable in place */
    int non_temporal; /* a result that goes past the caches; set by the driver */
    int ndim;
    int64_t contiguous_run;
    int64_t shape[FL_MAX_DIMS], stride[FL_MAX_DIMS]; /* strides in bytes, 0 where broadcast */
} fl_array;

typedef enum {
    FL_FAMILY_elementwise,   /* a unit is an element */
    FL_FAMILY_cross_entropy, /* a row of classes: likelihoods */
    FL_FAMILY_margin,        /* a row of classes: margins and independent labels */
    FL_FAMILY_embedding,     /* two or three rows of features */
    FL_FAMILY_ctc,           /* frames of classes, aligned with labels */
    FL_FAMILIES
} fl_family_id;

/* Where an operand has its entries: nowhere, one for each unit, or a row of them. */
typedef enum { FL_ABSENT, FL_PER_UNIT, FL_PER_ENTRY } fl_extent;

/* Which values an operand may hold (NaN always passes). */
typedef enum {
    FL_ANY,
    FL_UNIT_INTERVAL,
    FL_NONNEGATIVE,
    FL_POSITIVE,
    FL_SIGN,
    FL_SCORE, /* any, but floating: integers would be indices in the wrong place */
    FL_INDEX, /* 0 .. C - 1, or ignore_index */
    FL_LABELS /* 0 .. C - 1, or -1, which ends a row of them */
} fl_domain;

typedef struct {
    fl_extent extent;
    fl_domain domain;
} fl_operand_spec;

/* Which axis of the arrays is the row. */
typedef enum { FL_NO_ROW, FL_SECOND_AXIS, FL_LAST_AXIS } fl_row_axis;

/* A number for each row of the table. */
typedef enum {
#define ELEMENTWISE(name, ...) FL_FORMULA_##name,
#define ROWS(family, name, ...) FL_FORMULA_##name,
#include "losses.def"
#undef ELEMENTWISE
#undef ROWS
    FL_FORMULAS
} fl_formula;

/* A row of the table. */
typedef struct {
    const char *name;
    fl_family_id family;
    fl_row_axis axis;
    fl_operand_spec spec[FL_OPERANDS];
} fl_loss;

/* What a call wants, a set of bits. The sum is always formed when FL_SUM or FL_VALUES is set. */
enum { FL_SUM = 1, FL_VALUES = 2, FL_GRAD = 4 /* << operand */ };

/* What a mean divides by: Σ d over the units, d being ... */
typedef enum {
    FL_BY_SAMPLE_WEIGHT, /* the sample weight, 1 without one */
    FL_BY_ALL_WEIGHTS    /* sample weight times the loss's own weight */
} fl_mean_divisor;

/* FL_PREPARE checks, and sums the divisor where a mean's gradient needs it before anything is
 * written. FL_MAIN computes. With fewer sequences or long rows of classes than threads it comes in
 * two phases, each of which has an item for each side of a unit. */
typedef enum { FL_PREPARE, FL_MAIN, FL_SPLIT_PARTIAL, FL_SPLIT_FINISH } fl_phase;

/* Rows that a kernel takes at a time at most; classes of one side of a row. */
enum { FL_ROW_BATCH = 128, FL_PART = 16384 };

/* Where an error can be; the operands come first. */
enum { FL_AT_SAMPLE_WEIGHT = FL_OPERANDS, FL_NO_MEMORY, FL_NOWHERE = -1 };

/* How the units of a call are cut into blocks: each holds whole entries of the leading axis
 * ("rows"), or a piece of one. It depends on the kind, the trailing shape and the compute type,
 * never on the number of rows. */
typedef struct {
    int64_t blocks, row_units, rows_per_block, segments, segment_units;
} fl_grid;

typedef struct {
    fl_family_id family;
    fl_formula formula;
    int is_double; /* the compute type */
    int requested;
    int prepare; /* run FL_PREPARE first */
    int mean;    /* gradients are divided by the divisor */
    fl_mean_divisor mean_divisor;
    double divisor_scale; /* batchmean: Σ d counts elements, this is their number in a batch entry;
                              else 1 */
    double grad_output;   /* a number multiplying every gradient */
    double grad_scale;    /* upstream / divisor, set by the driver before FL_MAIN */
    double params[FL_PARAMS]; /* numeric options in the order of the signature */

    int64_t units, row_units; /* all units; those of one entry of the leading axis */
    int64_t unit_size;        /* elements of input in a unit: C, D, or T C */
    int64_t inner_size;       /* consecutive units whose entries of one class are neighbours in a
                            C-ordered input: d1...dK of (N, C, d1, ..., dK) */

    fl_grid grid; /* set by the driver */

    /* Entries of a row lie one after the other in the order of entries: entry j of unit i is
     * i unit_size + j. Those of sequences are (N, T, C). */
    fl_array operand[FL_OPERANDS]; /* x, y, z */
    fl_operand_spec spec[FL_OPERANDS];
    fl_array weight;                           /* of elements (entries like operand 0) */
    const void *class_weight;                  /* weights of classes (C), or NULL */
    int class_weight_is_float;                 /* they are floats, else doubles */
    fl_array sample_weight, grad_output_array; /* of units */
    fl_array values, grad[FL_OPERANDS];
    int64_t broadcast_period[FL_OPERANDS]; /* so many consecutive units share one entry of the
                                    gradient; 0: each its own */

    int64_t ignore_index; /* classes */

    /* sequences: sample n has frames[n] <= T frames and the labels first_label[n] ... in operand 1,
     * which is read as a flat sequence of entries */
    int64_t T, C, blank;
    const int64_t *frames, *labels, *first_label;
    int zero_infinity;
    int per_label;        /* each loss is divided by max(labels[n], 1) where it is summed or
                             differentiated, not in values */
    double sum_tolerance; /* how far from 1 the probabilities of a frame may add up */
    int wants_moments;    /* whether the spread of the losses is wanted */
    double *weighted_loss,
        *unit_divisor;           /* NULL, or of each unit what it adds to Σ l and to Σ d, ... */
    unsigned char *unit_counted; /* ... and to the count */
    void **split_state; /* NULL unless FL_MAIN comes in halves: of each item of FL_SPLIT_PARTIAL,
                     what it leaves for FL_SPLIT_FINISH, made by the kernel with fl_scratch_alloc();
                     the driver's */
} fl_call;

/* A double-double: hi + lo, |lo| <= ulp(hi) / 2. */
typedef struct {
    double hi, lo;
} fl_dd;

/* How far losses lie apart: sums over units of r = l - pivot d. */
typedef struct {
    double pivot, rr, rd, dd; /* l/d of the first unit that has d; Σ r², Σ r d, Σ d² */
} fl_moments;

typedef struct {
    fl_dd sum, divisor_sum; /* Σ l, Σ d */
    int64_t count;          /* units that were not removed */
    fl_moments moments;
    fl_dd broadcast_grad[FL_OPERANDS]; /* a gradient entry that this block shares with its
                                          neighbours */
    int64_t error_unit;  /* the lowest unit with a value that is not allowed, or FL_NOWHERE */
    int64_t error_entry; /* its place in the unit: class, feature, frame, label */
    int error_argument;
} fl_partial;

/* Running totals; several calls one after the other continue the same sums (streams). */
typedef struct {
    fl_dd sum, divisor_sum;
    int64_t count;
    fl_moments moments;
} fl_totals;

typedef void fl_kernel(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                       fl_partial *partial);
typedef void fl_store_fn(const fl_array *array, int64_t first, int64_t n, const void *from);
/* A function of vector/vector_math_list.h over an array of reals. */
typedef void fl_vector_math_fn(int function, int64_t n, const void *x, void *out);

/* One entry of the dispatch table: the kernels of one instruction set. */
typedef struct {
    const char *isa;
    fl_kernel *kernel[2][FL_FAMILIES]; /* [is_double] */
    fl_store_fn *store[2];
    fl_vector_math_fn *math[2];
} fl_kernels;

/* dispatch.c */
int fl_isa_count(void); /* instruction sets of this build that this processor runs, best last */
const char *fl_isa_name(int index);
void fl_isa_select(int index);
int fl_isa_selected(void);
const fl_kernels *fl_kernels_selected(void);

/* The row of losses.h with this name: its number, -1 if there is none. */
int fl_find_formula(const char *name, fl_loss *loss);

/* memory.c: cache lines for a unit in flight, or NULL; fl_scratch_free() takes them back. */
void *fl_scratch_alloc(size_t bytes);
void fl_scratch_free(void *memory);

/* driver.c */
typedef enum { FL_OK, FL_BAD_VALUE, FL_INTERRUPTED } fl_status;
typedef int (*fl_interrupted)(void); /* nonzero: stop; NULL: never ask */

fl_grid fl_grid_of(const fl_call *call);

/* Whether a block holds whole runs of units that share an entry of gradient k. */
static inline int fl_gradient_sums_in_block(const fl_call *call, int k)
{
    return call->broadcast_period[k] <= call->grid.segment_units;
}

/* The weight of a class. */
static inline double fl_class_weight(const fl_call *call, int64_t c)
{
    if (!call->class_weight)
        return 1;
    return call->class_weight_is_float ? (double)((const float *)call->class_weight)[c]
                                       : ((const double *)call->class_weight)[c];
}

/* How many sides a unit has: a sequence two, a long row of classes one for each part. */
static inline int64_t fl_split_parts(const fl_call *call)
{
    if (call->family == FL_FAMILY_ctc)
        return 2;
    int long_rows = call->family == FL_FAMILY_cross_entropy && call->formula != FL_FORMULA_nll &&
                    call->inner_size == 1;
    return long_rows && call->unit_size > FL_PART ? (call->unit_size - 1) / FL_PART + 1 : 1;
}

/* Whether the items of a phase are sides, not units. */
static inline int fl_items_are_parts(const fl_call *call, fl_phase phase)
{
    return call->split_state && (phase != FL_PREPARE || call->family == FL_FAMILY_cross_entropy);
}

/* totals.c */
void fl_add_totals(fl_totals *to, const fl_totals *from);
/* n units more: groups[group[i]] is that of unit i, which tells nothing without d and count. */
void fl_add_unit_terms(fl_totals *const *groups, int64_t n, const int64_t *group,
                       const double *term, const double *share, const unsigned char *counted);

/* a / b, in the mode of the kernels. */
double fl_ratio(double a, double b);

fl_status fl_run(fl_call *call, fl_totals *totals, fl_interrupted interrupted, fl_partial *bad);

#endif
