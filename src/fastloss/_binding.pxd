"""The C side: src_c/fastloss.h and src_c/runtime/parallel.h."""

from libc.stdint cimport int64_t

cdef extern from "fastloss.h" nogil:
    enum: FL_OPERANDS
    enum: FL_PARAMS
    enum: FL_AT_SAMPLE_WEIGHT
    enum: FL_NO_MEMORY
    enum: FL_GRADIENT_FACTOR
    enum: FL_LOSSES
    enum: FL_GRADIENT
    enum: FL_SECOND_DERIVATIVE
    enum: FL_OUTPUTS
    ctypedef enum fl_dtype:
        FL_F32, FL_F64, FL_F16, FL_BF16, FL_BOOL
        FL_I8, FL_I16, FL_I32, FL_I64, FL_U8, FL_U16, FL_U32, FL_U64
    ctypedef int fl_family_id
    ctypedef enum fl_extent:
        FL_ABSENT, FL_PER_UNIT, FL_PER_ENTRY, FL_SHARED
    ctypedef enum fl_domain:
        FL_ANY, FL_UNIT_INTERVAL, FL_NONNEGATIVE, FL_POSITIVE, FL_SIGN
        FL_SCORE, FL_INDEX, FL_LABELS
    ctypedef struct fl_operand_spec:
        fl_extent extent
        fl_domain domain
    ctypedef enum fl_shapes:
        FL_SHAPES_EQUAL, FL_SHAPES_SECOND_AXIS, FL_SHAPES_LAST_AXIS, FL_SHAPES_SEQUENCES
    ctypedef int fl_formula
    ctypedef struct fl_loss:
        fl_family_id family
        fl_shapes shapes
        fl_operand_spec spec[3]
    ctypedef enum fl_mean_divisor:
        FL_BY_SAMPLE_WEIGHT, FL_BY_ALL_WEIGHTS
    ctypedef struct fl_array:
        char *data
        fl_dtype dtype
        int swapped, is_direct, non_temporal, ndim
        int64_t contiguous_run
        int64_t shape[64]
        int64_t stride[64]
    ctypedef struct fl_dd:
        double hi, lo
    ctypedef struct fl_grid:
        int64_t blocks, row_units, rows_per_block, segments, segment_units
    ctypedef struct fl_sequences:
        int64_t T, C, blank
        const int64_t *frames
        const int64_t *labels
        const int64_t *first_label
        int zero_infinity, per_label
        double sum_tolerance
    ctypedef struct fl_call:
        fl_family_id family
        fl_formula formula
        int is_double, wants_sum, prepare, mean
        fl_mean_divisor mean_divisor
        double divisor_scale, grad_output
        double params[3]
        int64_t units, row_units, unit_size, inner_size
        fl_array operand[3]
        fl_operand_spec spec[3]
        fl_array weight
        int64_t class_weight_exponent
        fl_array sample_weight, grad_output_array
        fl_array *output[FL_OUTPUTS]
        int64_t broadcast_period[3]
        int64_t ignore_index
        fl_sequences sequences
        int wants_moments
        double *weighted_loss
        double *unit_divisor
        unsigned char *unit_counted
    ctypedef struct fl_scaled:
        double m
        int64_t e
    ctypedef struct fl_moments:
        double pivot
        fl_scaled rr, rd, dd
    ctypedef struct fl_totals:
        fl_dd sum, divisor_sum
        int64_t count
        fl_moments moments
        int bad_terms
    ctypedef struct fl_partial:
        int64_t error_unit, error_entry
        int error_argument
    ctypedef enum fl_status:
        FL_OK, FL_BAD_VALUE, FL_INTERRUPTED
    ctypedef int (*fl_interrupted)() noexcept
    ctypedef void fl_vector_math_fn(int function, int64_t n, const void *x, void *out) noexcept
    ctypedef struct fl_services:
        fl_vector_math_fn *math[2]
    int fl_find_formula(const char *name, fl_loss *loss)
    fl_grid fl_grid_of(const fl_call *call)
    enum: FL_SUM_OUT_OF_RANGE, FL_DIVISOR_OUT_OF_RANGE
    enum: FL_TERM_OVERFLOWS
    int fl_settle_totals(fl_totals *totals)
    int fl_mean(const fl_totals *totals, double divide, int64_t rows, int rounds_to_zero,
                double *mean)
    double fl_standard_error(const fl_totals *totals, double divisor)
    int fl_add_totals(fl_totals *to, const fl_totals *other)
    int fl_add_unit_terms(fl_totals *groups, int64_t n, const int64_t *group,
                          const double *weighted_loss, const double *unit_divisor,
                          const unsigned char *unit_counted, int bad_terms)
    int64_t fl_class_weight_exponent(const double *weight, int64_t n)
    double fl_ratio(double a, double b)
    fl_status fl_run(fl_call *call, fl_totals *totals, fl_interrupted interrupted, fl_partial *bad)
    double fl_work(const fl_call *call)
    int fl_isa_built_count()
    int fl_isa_count()
    const char *fl_isa_name(int index)
    void fl_isa_select(int index)
    int fl_isa_selected()
    const fl_services *fl_selected_services()

cdef extern from "vector/vector_math_list.h" nogil:
    enum: MATH_FUNCTIONS
    const char *vector_math_name(int function)

cdef extern from "runtime/parallel.h" nogil:
    enum: FL_MAX_THREADS
    const char *fl_openmp_runtime()
    int fl_openmp_processors()
    ctypedef struct fl_thread_setting:
        int threads, fixed
    void fl_set_process_threads(fl_thread_setting setting)
    fl_thread_setting fl_set_thread_override(fl_thread_setting setting)
    fl_thread_setting fl_process_threads()
    fl_thread_setting fl_thread_override()
    fl_thread_setting fl_effective_setting()
    void fl_set_available_processors(int count)
    enum: FL_TEAM_CLASSES
    int64_t fl_team_class(int i, fl_team_control *control)

cdef extern from "runtime/idle_processors.h" nogil:
    double fl_parse_idle(const char *text)

cdef extern from "runtime/stack.h" nogil:
    enum: FL_STACK_BYTES
    size_t fl_stack_left()

cdef extern from "runtime/team_size.h" nogil:
    ctypedef struct fl_region:
        int threads, allowed
        int64_t blocks, caller_blocks, first_blocks
        double first, caller, total
    ctypedef struct fl_team_control:
        int size, rising, hinted, measured_size
        double measured_total, measured_work, balance, gained, computed, patience, idle_wait
        int64_t reductions, probes
    void fl_team_control_init(fl_team_control *c)
    int fl_team_size(fl_team_control *c, int allowed, double idle)
    void fl_team_observe(fl_team_control *c, const fl_region *region)

cdef extern from "runtime/worker_affinity.h" nogil:
    ctypedef struct fl_team:
        pass
    fl_team *fl_place_team()
    void fl_join_team(fl_team *team, int number)
    int fl_team_worker(const fl_team *team, int number)
