/* The contract between the binding, the driver and the kernels.
 *
 * The binding fills an fl_call and passes it to fl_run(). The driver (runtime/run.c) cuts the units
 * of the loss into blocks, runs the kernel of this (family, instruction set, type) over them on
 * several threads, phase by phase, and adds the blocks' partials in block order. A unit is the
 * part of the input that has one unreduced loss: an element, a row of classes or features, a
 * sequence. */
#ifndef FASTLOSS_H
#define FASTLOSS_H

#include <stddef.h>
#include <stdint.h>

enum { FL_MAX_DIMS = 64, FL_OPERANDS = 3, FL_STATISTICS = 8, FL_PARAMS = 3 };

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

/* An array as a sequence of entries in C order of its (broadcast) shape. Adjacent axes are merged
 * where the strides allow it; from each multiple of `contiguous_run` on, that many entries are
 * contiguous in memory. */
typedef struct {
    char *data; /* NULL: absent */
    fl_dtype dtype;
    int swapped;      /* not in native byte order */
    int is_direct;    /* native, aligned and of the compute type: usable in place */
    int non_temporal; /* an output written with non-temporal stores; set by the driver */
    int ndim;
    int64_t contiguous_run;
    int64_t shape[FL_MAX_DIMS], stride[FL_MAX_DIMS]; /* strides in bytes, 0 where broadcast */
} fl_array;

/* The loss families, in the order of families.def. */
typedef enum {
#define FAMILY(name, ...) FL_FAMILY_##name,
#include "families.def"
#undef FAMILY
    FL_FAMILIES
} fl_family_id;

/* How many entries an operand has: none, one for each unit, one for each entry of the unit's row,
 * or a row of its own that all units share. */
typedef enum { FL_ABSENT, FL_PER_UNIT, FL_PER_ENTRY, FL_SHARED } fl_extent;

/* The values that an operand may hold (NaN always passes). */
typedef enum {
    FL_ANY,
    FL_UNIT_INTERVAL,
    FL_NONNEGATIVE,
    FL_POSITIVE,
    FL_SIGN,
    FL_SCORE, /* any floating value: integers would be indices in the wrong argument */
    FL_INDEX, /* 0 .. C - 1, or ignore_index */
    FL_LABELS /* 0 .. C - 1; -1 ends a row of labels */
} fl_domain;

typedef struct {
    fl_extent extent;
    fl_domain domain;
} fl_operand_spec;

/* How units follow from the shapes of the arrays. */
typedef enum {
    FL_SHAPES_EQUAL,       /* all arrays have one shape, and a unit is an element */
    FL_SHAPES_SECOND_AXIS, /* a unit is a row along the second axis (the only one of a vector) */
    FL_SHAPES_LAST_AXIS,   /* a unit is a row along the last axis */
    FL_SHAPES_SEQUENCES    /* a unit is a sequence of frames, with lengths */
} fl_shapes;

/* The rows of losses.def. */
typedef enum {
#define ELEMENTWISE(name, ...) FL_FORMULA_##name,
#define ROWS(family, name, ...) FL_FORMULA_##name,
#define SEQUENCES(family, name, ...) FL_FORMULA_##name,
#include "losses.def"
#undef ELEMENTWISE
#undef ROWS
#undef SEQUENCES
    FL_FORMULAS
} fl_formula;

typedef struct {
    const char *name;
    fl_family_id family;
    fl_shapes shapes;
    fl_operand_spec spec[FL_OPERANDS];
} fl_loss;

/* The outputs of a call, each an array. Kernels write losses and gradients. Second derivatives and
 * statistics of a unit have reserved numbers, so that a family can add them without a change to
 * this interface. The gradient of a shared operand is summed over all units. */
enum {
    FL_LOSSES,                                         /* (units) unreduced */
    FL_GRADIENT,                                       /* + k: dl/d operand k, like operand k */
    FL_SECOND_DERIVATIVE = FL_GRADIENT + FL_OPERANDS,  /* + k: its diagonal, like operand k */
    FL_STATISTIC = FL_SECOND_DERIVATIVE + FL_OPERANDS, /* + i: (units) */
    FL_OUTPUTS = FL_STATISTIC + FL_STATISTICS
};

/* The divisor d of a unit: a mean divides by Σ d. */
typedef enum {
    FL_BY_SAMPLE_WEIGHT, /* the sample weight, 1 without one */
    FL_BY_ALL_WEIGHTS    /* sample weight times the loss's own weight */
} fl_mean_divisor;

/* FL_PREPARE validates operands and sums the divisor that the gradient of a weighted mean needs
 * before anything is written. FL_MAIN computes losses and gradients. With fewer units than threads,
 * a unit that can be split runs in other phases instead: FL_SPLIT_PARTIAL, with one work item for
 * each part, reduces the parts; FL_SPLIT_COMBINE, with one work item for each unit, combines the
 * parts of the unit in order; FL_SPLIT_FINISH, with one work item for each part, uses the result.
 * The parts of a unit are combined once: if each part combined them for itself, the work would grow
 * with the square of their number. Families with a fixed number of parts have no FL_SPLIT_COMBINE.
 */
typedef enum { FL_PREPARE, FL_MAIN, FL_SPLIT_PARTIAL, FL_SPLIT_COMBINE, FL_SPLIT_FINISH } fl_phase;

/* The most rows that a kernel processes together. */
enum { FL_ROW_BATCH = 128 };

enum { FL_CACHE_LINE = 64 }; /* bytes */

/* The argument that an error is in: the number of an operand, or one of these. */
enum { FL_AT_SAMPLE_WEIGHT = FL_OPERANDS, FL_NO_MEMORY, FL_GRADIENT_FACTOR, FL_NOWHERE = -1 };

/* How the units of a call are cut into blocks: each holds whole rows, that is entries of the
 * leading axis, or a segment of one. It depends on the family, the trailing shape and the compute
 * type, never on the number of rows. */
typedef struct {
    int64_t blocks, row_units, rows_per_block, segments, segment_units;
} fl_grid;

/* Sample n has frames[n] <= T frames of C classes, and its labels are the entries from
 * first_label[n] on of operand 1, a flat sequence. */
typedef struct {
    int64_t T, C, blank;
    const int64_t *frames, *labels, *first_label;
    int zero_infinity;
    int per_label;        /* a loss is divided by max(labels[n], 1) where it is summed or
                             differentiated, not in values */
    double sum_tolerance; /* of the sum of a frame's probabilities, about 1 */
} fl_sequences;

typedef struct {
    fl_family_id family;
    fl_formula formula;
    int is_double; /* the compute type */
    int wants_sum;
    int prepare; /* run FL_PREPARE first */
    int mean;    /* gradients are divided by the divisor */
    fl_mean_divisor mean_divisor;
    double
        divisor_scale;  /* batchmean: Σ d counts elements, and this is how many a row has; else 1 */
    double grad_output; /* a scalar that multiplies every gradient */
    double
        grad_scale; /* grad_output / divisor 2^-grad_exponent, set by the driver before FL_MAIN */
    int64_t grad_exponent;    /* 0 unless the divisor or the quotient is extreme */
    double params[FL_PARAMS]; /* numeric options in the order of the signature */

    int64_t units, row_units; /* all units; the units of one row */
    int64_t unit_size;        /* elements of input in a unit: C, D, or T C */
    int64_t inner_size;       /* consecutive units whose entries of one class are adjacent in a
                                 C-ordered input: d1...dK of (N, C, d1, ..., dK) */

    fl_grid grid; /* set by the driver */

    /* The entries of a row are consecutive: entry j of unit i has the index i unit_size + j.
     * Sequences are (N, T, C). */
    fl_array operand[FL_OPERANDS]; /* x, y, z */
    fl_operand_spec spec[FL_OPERANDS];
    fl_array weight;               /* of entries, like operand 0 */
    int64_t class_weight_exponent; /* the weights of classes are operand 2 times 2^this; 0 unless
                                      their scale is extreme and a loss adds several of them */
    fl_array sample_weight, grad_output_array; /* of units */
    fl_array *output[FL_OUTPUTS];              /* NULL: not requested */
    int64_t broadcast_period[FL_OPERANDS];     /* consecutive units that share one entry of the
                                                  gradient; 0: each unit has its own */

    int64_t ignore_index; /* classes */

    fl_sequences sequences; /* FL_SHAPES_SEQUENCES */

    int wants_moments;                    /* sum the moments of the losses too */
    double *weighted_loss, *unit_divisor; /* NULL, or (units): what each unit adds to Σ l and Σ d */
    unsigned char *unit_counted;          /* ... and to the count */

    void **split_state; /* NULL unless units are split: for each part of each unit, what
                           FL_SPLIT_PARTIAL leaves to the phases after it, from fl_scratch_alloc();
                           the driver frees it */
} fl_call;

/* A double-double: hi + lo, |lo| <= ulp(hi) / 2. */
typedef struct {
    double hi, lo;
} fl_dd;

/* A product of finite factors in the terms of a unit that overflows, or that underflows: to 0,
 * which is then stored as ±0x1p-1074, or to a subnormal. */
enum { FL_TERM_OVERFLOWS = 1, FL_TERM_UNDERFLOWS = 2 };

/* A sum of terms that a double does not hold, or of products whose factors' products it does not
 * hold: sum 2^exponent. The absolute values sum to magnitude 2^exponent, 0 if there are none. */
typedef struct {
    fl_dd sum;
    double magnitude;
    int64_t exponent;
} fl_scaled_sum;

/* m 2^e: 0.5 <= |m| < 1, or m is 0, infinite or NaN. Functions that return others say so. */
typedef struct {
    double m;
    int64_t e;
} fl_scaled;

/* Moments of the losses about a pivot of their size: r = l - pivot d. e = 0 and any m where neither
 * the sums nor their products overflow or underflow. */
typedef struct {
    double pivot;         /* l/d of a unit with d != 0 */
    fl_scaled rr, rd, dd; /* Σ r², Σ r d, Σ d² */
} fl_moments;

typedef struct {
    fl_dd sum, divisor_sum; /* Σ l, Σ d, without ... */
    fl_scaled_sum sum_beyond, divisor_beyond;
    int bad_terms; /* products in weighted_loss and unit_divisor: FL_TERM_... */
    int64_t count; /* units that were not removed */
    fl_moments moments;
    fl_dd broadcast_grad[FL_OPERANDS]; /* a gradient entry that this block shares with others */
    int64_t error_unit;                /* the lowest unit with an invalid value, or FL_NOWHERE */
    int64_t error_entry;               /* its index in the unit: class, feature, frame, label */
    int error_argument;
} fl_partial;

/* Running totals: consecutive calls continue the same sums. */
typedef struct {
    fl_dd sum, divisor_sum;
    int64_t count;
    fl_moments moments;
    fl_scaled_sum sum_beyond, divisor_beyond; /* of one call: a stream has none between calls */
    int sum_overflows, divisor_overflows;     /* finite terms have an infinite sum */
    int bad_terms;
} fl_totals;

typedef void fl_kernel(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                       fl_partial *partial);
typedef void fl_store_fn(const fl_array *array, int64_t first, int64_t n, const void *from);
/* A function of vector/vector_math_list.h over an array of reals. */
typedef void fl_vector_math_fn(int function, int64_t n, const void *x, void *out);

/* The services of one instruction set to the driver and the binding, by is_double. */
typedef struct {
    const char *isa;
    fl_store_fn *store[2];
    fl_vector_math_fn *math[2];
} fl_services;

/* runtime/dispatch.c */
int fl_isa_built_count(void); /* instruction sets of this build, weakest first */
int fl_isa_count(void);       /* the leading ones, which this processor runs */
const char *fl_isa_name(int index);
void fl_isa_select(int index);
int fl_isa_selected(void);
const fl_services *fl_selected_services(void);
fl_kernel *fl_selected_kernel(const fl_call *call);
int fl_find_formula(const char *name, fl_loss *loss); /* the row of losses.def, or -1 */

/* runtime/scratch_pool.c: memory aligned to cache lines for a unit in flight, or NULL. A size that
 * depends on shapes is computed by runtime/checked_size.h. */
void *fl_scratch_alloc(size_t bytes);
void fl_scratch_free(void *memory);

/* runtime/plan.c */
fl_grid fl_grid_of(const fl_call *call);

/* Whether a block holds whole runs of units that share an entry of gradient k. */
static inline int fl_gradient_sums_in_block(const fl_call *call, int k)
{
    return call->broadcast_period[k] <= call->grid.segment_units;
}

/* The weight of a class. The weights of all classes are a shared operand, z: floats or doubles. */
static inline double fl_class_weight(const fl_call *call, int64_t c)
{
    const fl_array *weight = &call->operand[2];
    if (!weight->data)
        return 1;
    return weight->dtype == FL_F32 ? (double)((const float *)weight->data)[c]
                                   : ((const double *)weight->data)[c];
}

/* runtime/totals.c */

/* The mean a / b, in the floating-point mode of the kernels. NaN for b = 0, whatever a is: there is
 * nothing to divide by. */
double fl_ratio(double a, double b);

void fl_add_partial(fl_totals *totals, const fl_partial *partial);

/* The others return what is out of range, a set of bits. */
enum { FL_SUM_OUT_OF_RANGE = 1, FL_DIVISOR_OUT_OF_RANGE = 2 };

/* Adds what is beyond the range of a double to the sums: out of range is a sum of finite terms that
 * overflows, and one whose terms' absolute values sum to less than the smallest normal double, but
 * not to 0. */
int fl_settle_totals(fl_totals *totals);

/* The mean Σ l / (Σ d / divide), or Σ l / rows if divide is 0. `rounds_to_zero`: a mean below the
 * smallest normal double is out of range. */
int fl_mean(const fl_totals *totals, double divide, int64_t rows, int rounds_to_zero, double *mean);

/* The standard error of Σ l / divisor, for independent losses; NaN if it is undefined. */
double fl_standard_error(const fl_totals *totals, double divisor);

int fl_add_totals(fl_totals *to, const fl_totals *from);

/* Adds n units; unit i goes to groups[group[i]], which is not read if the unit has neither divisor
 * nor count. `bad_terms` is the member of the call's totals. */
int fl_add_unit_terms(fl_totals *groups, int64_t n, const int64_t *group,
                      const double *weighted_loss, const double *unit_divisor,
                      const unsigned char *unit_counted, int bad_terms);

/* runtime/run.c */
typedef enum { FL_OK, FL_BAD_VALUE, FL_INTERRUPTED } fl_status;
typedef int (*fl_interrupted)(void); /* nonzero: stop; NULL: never ask */

fl_status fl_run(fl_call *call, fl_totals *totals, fl_interrupted interrupted, fl_partial *bad);

/* The work of a call, in elements. */
double fl_work(const fl_call *call);

/* The exponent by which weights of classes are divided before they are added: 0 unless the largest
 * is far from 1. */
int64_t fl_class_weight_exponent(const double *weight, int64_t n);

#endif
