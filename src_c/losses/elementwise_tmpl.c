/* The elementwise losses: applies a formula to up to three arrays. Compiled once per (instruction
 * set, real).
 *
 * A unit is an element. A block is processed tile by tile: load, apply the formula and check
 * domains in one pass, multiply by weights, sum, store. */
#include "losses/elementwise_extended.h"
#include "losses/elementwise_formulas.h"
#include "vector/loader.h"
#include "vector/lanes.h"
#include "vector/domain_check.h"
#include "vector/unit_outputs.h"

#include <string.h>

/* Outputs of a formula, a set of bits; DX << k is the derivative with respect to operand k. */
enum { VALUE = 1, DX = 2, DY = 4, DZ = 8 };

/* Elements to compute between stores of gradients that are streamed (non-temporal), so that memory
 * reads and writes overlap. */
enum { STREAM_CHUNK = 8 * LANES };

/* The results of a formula that may be infinite or NaN where the exact result is finite or has a
 * limit: these are computed again by fl_elementwise_extended(). Infinite values show in the sum
 * that is formed anyway; derivatives take a test of their own, so they have it only where needed.
 */
typedef enum { NO_RESULT, THE_VALUE, ALL_RESULTS } overflow_scope;

static INLINE overflow_scope formula_overflow(fl_formula f)
{
    switch (f) {
    case FL_FORMULA_smooth_l1:
    case FL_FORMULA_huber:
    case FL_FORMULA_pinball:
    case FL_FORMULA_margin_ranking:
    case FL_FORMULA_poisson_nll:
    case FL_FORMULA_poisson_nll_full:
        return THE_VALUE;
    case FL_FORMULA_poisson_nll_log_input:
    case FL_FORMULA_poisson_nll_log_input_full:
    case FL_FORMULA_gaussian_nll:
    case FL_FORMULA_gaussian_nll_full:
    case FL_FORMULA_kl_div_log_target:
    case FL_FORMULA_gamma_nll:
    case FL_FORMULA_gamma_nll_log_input:
    case FL_FORMULA_tweedie_deviance_poisson:
    case FL_FORMULA_tweedie_deviance_gamma:
    case FL_FORMULA_tweedie_deviance_negative:
    case FL_FORMULA_tweedie_deviance_compound:
    case FL_FORMULA_tweedie_deviance_positive:
        return ALL_RESULTS;
    default:
        return NO_RESULT;
    }
}

/* A row of losses.def as constants. */
typedef struct {
    formula f;
    overflow_scope overflow;
    int operands;
    fl_domain domain[FL_OPERANDS];
} formula_spec;

/* The arguments of a formula for a tile: x, y and z, where to write l and the derivatives, and the
 * factor of the derivatives. */
typedef struct {
    const real *operand[FL_OPERANDS];
    real *result[1 + FL_OPERANDS];
    real scale, params[FORMULA_PARAMS];
} formula_args;

/* Accumulated by each lane in the same pass; a separate pass would cost as much as a short
 * formula. */
typedef struct {
    lane_sum sum;                 /* Σ l */
    uint_real domain_flag[LANES]; /* sign bit set: an element may be invalid */
    real derivative_nan;          /* NaN: a derivative is infinite or NaN (ALL_RESULTS); else 0 */
} lane_state;

static INLINE void clear_lane_state(lane_state *state)
{
    clear_lane_sum(&state->sum);
    memset(state->domain_flag, 0, sizeof state->domain_flag);
    state->derivative_nan = 0;
}

static INLINE void copy_lane_state(lane_state *to, const lane_state *from)
{
    copy_lane_sum(&to->sum, &from->sum);
    for (int k = 0; k < LANES; k++)
        to->domain_flag[k] = from->domain_flag[k];
    to->derivative_nan = from->derivative_nan;
}

/* NaN if one of these derivatives is infinite or NaN, else `nan`. */
static INLINE real nan_if_overflows(const int outputs, result r, real nan)
{
    nan = outputs & DX ? FMA(r.dx, 0, nan) : nan;
    nan = outputs & DY ? FMA(r.dy, 0, nan) : nan;
    return outputs & DZ ? FMA(r.dz, 0, nan) : nan;
}

/* Applies the formula to elements [i, n), a multiple of LANES, and writes the requested outputs. */
static INLINE void apply_formula(const formula_spec spec, const int outputs,
                                 const formula_args *args, int64_t i, int64_t n, lane_state *state)
{
    const int checks_derivatives = spec.overflow == ALL_RESULTS && outputs != VALUE;
    lane_state local; /* in registers */
    real derivative_nan[LANES] = {0};
    copy_lane_state(&local, state);
    for (; i < n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            real x = args->operand[0][i + k], y = args->operand[1][i + k],
                 z = args->operand[2][i + k];
            result r = spec.f(x, y, z, args->params);
            local.domain_flag[k] |= domain_flag(x, spec.domain[0]) |
                                    domain_flag(y, spec.domain[1]) | domain_flag(z, spec.domain[2]);
            if (outputs & VALUE)
                args->result[0][i + k] = r.l;
            if (outputs & VALUE)
                add_to_lane(&local.sum, k, (double)r.l);
            if (checks_derivatives)
                derivative_nan[k] = nan_if_overflows(outputs, r, derivative_nan[k]);
            if (outputs & DX)
                args->result[1][i + k] = r.dx * args->scale;
            if (outputs & DY)
                args->result[2][i + k] = r.dy * args->scale;
            if (outputs & DZ)
                args->result[3][i + k] = r.dz * args->scale;
        }
    for (int k = 0; checks_derivatives && k < LANES; k++)
        local.derivative_nan += derivative_nan[k];
    copy_lane_state(state, &local);
}

/* The common combinations of outputs have specialised loops; the others share a loop that writes
 * all outputs, those not requested to scratch. */
static INLINE void apply_outputs(const formula_spec spec, int outputs, const formula_args *args,
                                 int64_t i, int64_t n, lane_state *state)
{
    const int all = spec.operands == 3 ? VALUE | DX | DY | DZ : VALUE | DX | DY;
    switch (outputs) {
    case VALUE:
        apply_formula(spec, VALUE, args, i, n, state);
        break;
    case DX:
        apply_formula(spec, DX, args, i, n, state);
        break;
    case VALUE | DX:
        apply_formula(spec, VALUE | DX, args, i, n, state);
        break;
    default:
        apply_formula(spec, all, args, i, n, state);
        break;
    }
}

/* The only place where the rows of losses.def become code: a function of each formula. */
#define ELEMENTWISE(name, operands, ...) \
    static NOINLINE void apply_##name(int outputs, const formula_args *args, int64_t i, int64_t n, \
                                      lane_state *state) \
    { \
        apply_outputs( \
            (formula_spec){name, formula_overflow(FL_FORMULA_##name), operands, {__VA_ARGS__}}, \
            outputs, args, i, n, state); \
    }
#define ROWS(...)
#define SEQUENCES(...)
#include "losses.def"
#undef ELEMENTWISE

/* binary_cross_entropy if y is 0 or 1, as it mostly is: the same bits from one logarithm. */
static INLINE result binary_cross_entropy_of_labels(real x, real y, real z, const real *p)
{
    result r = binary_cross_entropy(x, y, z, p);
    r.l = FABS(maximum(LOG_BERNOULLI(x, y), -100));
    return r;
}

static NOINLINE void apply_binary_cross_entropy_of_labels(int outputs, const formula_args *args,
                                                          int64_t i, int64_t n, lane_state *state)
{
    const formula_spec spec = {
        binary_cross_entropy_of_labels, NO_RESULT, 2, {FL_UNIT_INTERVAL, FL_UNIT_INTERVAL, FL_ANY}};
    apply_outputs(spec, outputs, args, i, n, state);
}

/* Whether elements [i, n) are 0 or 1: where y² - y is 0. */
static int are_labels(const real *y, int64_t i, int64_t n)
{
    uint_real any = 0;
    for (; i < n; i++)
        any |= real_bits(FMA(y[i], y[i], -y[i])) & ~SIGN_BIT;
    return any == 0;
}

static void dispatch_formula(fl_formula formula, int outputs, const formula_args *args, int64_t i,
                             int64_t n, lane_state *state)
{
    if (REAL_HAS_FMA && formula == FL_FORMULA_binary_cross_entropy && outputs & VALUE &&
        are_labels(args->operand[1], i, n)) {
        apply_binary_cross_entropy_of_labels(outputs, args, i, n, state);
        return;
    }
    switch (formula) {
#define ELEMENTWISE(name, ...) \
    case FL_FORMULA_##name: \
        apply_##name(outputs, args, i, n, state); \
        break;
#include "losses.def"
#undef ELEMENTWISE
#undef ROWS
#undef SEQUENCES
    default:
        break;
    }
}

/* The remaining n < LANES elements from i on, padded to LANES by copies of the last one, which are
 * not summed. */
static void apply_tail(fl_formula formula, int outputs, const formula_args *args, int64_t i,
                       int64_t n, lane_state *state)
{
    real operand[FL_OPERANDS][LANES], result[1 + FL_OPERANDS][LANES];
    formula_args padded = *args;
    lane_state padded_state;
    clear_lane_state(&padded_state);
    for (int k = 0; k < FL_OPERANDS; k++) {
        for (int64_t j = 0; j < LANES; j++)
            operand[k][j] = args->operand[k][i + (j < n ? j : n - 1)];
        padded.operand[k] = operand[k];
    }
    for (int k = 0; k <= FL_OPERANDS; k++)
        padded.result[k] = result[k];
    dispatch_formula(formula, outputs, &padded, 0, LANES, &padded_state);
    for (int k = 0; k <= FL_OPERANDS; k++)
        if (outputs & VALUE << k)
            memcpy(args->result[k] + i, result[k], (size_t)n * sizeof(real));
    for (int k = 0; outputs & VALUE && k < n; k++)
        add_to_lane(&state->sum, k, (double)result[0][k]);
    for (int k = 0; k < LANES; k++)
        state->domain_flag[k] |= padded_state.domain_flag[k];
    state->derivative_nan += padded_state.derivative_nan;
}

/* --- Elements that overflow --- */

/* Whether a value may be infinite or NaN, or a derivative that was tested. */
static int lane_state_overflows(const lane_state *state)
{
    double nan[LANES]; /* or 0 */
#pragma omp simd
    for (int k = 0; k < LANES; k++)
        nan[k] = state->sum.hi[k] - state->sum.hi[k];
    return reduce_sum(nan, LANES) + (double)state->derivative_nan != 0;
}

/* Whether the formula can return a wrong result that is finite, because of its options (FL_PARAMS):
 * - smooth_l1 with an infinite β, as |d| is not less than β if it overflows;
 * - poisson_nll with a large ε, as x + ε may overflow;
 * - sigmoid_focal with a large γ, which multiplies the relative error of q;
 * - a formula of reals if one of its options leaves the range of real. */
static int formula_needs_extended(fl_formula f, const double *option)
{
    switch (f) {
    case FL_FORMULA_sigmoid_focal:
        return option_leaves_range(option[0]) || option_leaves_range(option[1]) ||
               option[1] > FOCAL_LARGE_GAMMA;
    case FL_FORMULA_smooth_l1:
        return option_leaves_range(option[0]) || option[0] == (double)REAL_INFINITY;
    case FL_FORMULA_sigmoid_focal_squared:
    case FL_FORMULA_huber:
    case FL_FORMULA_pinball:
    case FL_FORMULA_hinge_embedding:
    case FL_FORMULA_margin_ranking:
    case FL_FORMULA_gaussian_nll:
    case FL_FORMULA_gaussian_nll_full:
        return option_leaves_range(option[0]);
    case FL_FORMULA_poisson_nll:
    case FL_FORMULA_poisson_nll_full:
        return option_leaves_range(option[0]) || option[0] >= REAL_LARGEST_ULP / 2;
    default:
        return 0;
    }
}

/* Decisions that hold for all tiles of a block. */
typedef struct {
    real params[FORMULA_PARAMS];
    overflow_scope overflow;
    int needs_extended;
    int outputs;     /* the wanted results: a set of VALUE, DX, ... */
    int streams;     /* the gradients that are streamed while the formula is applied, not stored at
                        the end: a set of DX, ... */
    int scale_later; /* than in the formula's loop */
    double scale;    /* of the gradients */
    int may_be_extreme; /* unless all results are floats that a factor below 1 multiplies, weights
                           can take a product of factors out of the range of double */
} block_plan;

static block_plan plan_block(const fl_call *call)
{
    block_plan plan = {
        .overflow = formula_overflow(call->formula),
        .needs_extended = formula_needs_extended(call->formula, call->params),
        .outputs = wants_losses(call) ? VALUE : 0,
    };
    set_formula_params(call->formula, call->params, plan.params);
    /* The scale is applied by the formula's loop or, if there are weights or a real might not hold
     * it, later in double. It is rounded to real in either case, so that weights of 1 change
     * nothing. */
    const double magnitude = __builtin_fabs(call->grad_scale);
    const int fits_real = magnitude == 0 || (magnitude > 1e-30 && magnitude < 1e30);
    plan.scale = fits_real ? (double)(real)call->grad_scale : call->grad_scale;
    plan.scale_later = call->sample_weight.data || call->weight.data ||
                       call->grad_output_array.data || !fits_real || call->grad_exponent != 0;
    plan.may_be_extreme = REAL_IS_DOUBLE || call->grad_output_array.data || magnitude > 1;
    for (int k = 0; k < FL_OPERANDS; k++) {
        const fl_array *gradient = call->output[FL_GRADIENT + k];
        plan.outputs |= gradient ? DX << k : 0;
        plan.streams |= gradient && gradient->non_temporal && !plan.scale_later ? DX << k : 0;
    }
    return plan;
}

/* Computes those results of elements [i, n) again that are infinite or NaN although no operand is
 * NaN; all results if formula_needs_extended(). The other results of these elements stay, as
 * their bits must not depend on what else is wanted. Returns whether a value changed. */
static __attribute__((noinline, cold)) int apply_extended(const fl_call *call,
                                                          const block_plan *plan,
                                                          const formula_args *args, int64_t i,
                                                          int64_t n)
{
    const int all = plan->needs_extended,
              outputs = plan->outputs & (all || plan->overflow == ALL_RESULTS ? ~0 : VALUE);
    double option[FL_PARAMS];
    int changed = 0;
    for (int k = 0; k < FL_PARAMS; k++)
        option[k] =
            options_are_rounded(call->formula) ? round_option(call->params[k]) : call->params[k];
    for (; i < n; i++) {
        double operand[FL_OPERANDS], nan = 0;
        int nonfinite = 0; /* a set of results, as `outputs` */
        for (int k = 0; k <= FL_OPERANDS; k++)
            if (outputs & VALUE << k && (all || args->result[k][i] - args->result[k][i] != 0))
                nonfinite |= VALUE << k;
        for (int k = 0; nonfinite && k < FL_OPERANDS; k++) {
            operand[k] = (double)args->operand[k][i];
            nan += operand[k] == operand[k] ? 0 : 1;
        }
        fl_extended r;
        if (!nonfinite || nan > 0 ||
            !fl_elementwise_extended(call->formula, option, operand[0], operand[1], operand[2], &r))
            continue;
        const real result[] = {(real)r.l, (real)r.dx, (real)r.dy, (real)r.dz};
        if (nonfinite & VALUE)
            args->result[0][i] = result[0];
        for (int k = 1; k <= FL_OPERANDS; k++)
            if (nonfinite & VALUE << k)
                args->result[k][i] = result[k] * args->scale;
        changed |= nonfinite & VALUE;
    }
    return changed;
}

/* Copies operands that the results of a tile overwrite: apply_extended() reads them again. */
static __attribute__((noinline)) void save_operands(formula_args *args, int outputs, int64_t n,
                                                    const real **operand, real (*tile)[TILE])
{
    for (int k = 0; k < FL_OPERANDS; k++) {
        for (int i = 0; operand[k] && operand[k] != tile[k] && i <= FL_OPERANDS; i++)
            if (outputs & VALUE << i && args->result[i] < operand[k] + n &&
                operand[k] < args->result[i] + n) {
                memcpy(tile[k], operand[k], (size_t)n * sizeof(real));
                operand[k] = tile[k];
            }
        args->operand[k] = operand[k] ? operand[k] : operand[0];
    }
}

/* Sums the gradient d (n) of operand k where `period` consecutive units share one entry. The sums
 * continue from tile to tile; complete entries are stored. */
static void reduce_broadcast_grad(const fl_call *call, int k, const real *d, int64_t first,
                                  int64_t n, fl_partial *partial)
{
    const int64_t period = call->broadcast_period[k];
    for (int64_t done = 0; done < n;) {
        int64_t remaining = period - (first + done) % period;
        int64_t count = remaining < n - done ? remaining : n - done;
        partial->broadcast_grad[k] = dd_add(partial->broadcast_grad[k], sum_tile(d + done, count));
        done += count;
        if (count == remaining && fl_gradient_sums_in_block(call, k)) {
            real entry = (real)partial->broadcast_grad[k].hi;
            fl_store(call->output[FL_GRADIENT + k], (first + done) / period - 1, 1, &entry);
            partial->broadcast_grad[k] = (fl_dd){0, 0};
        }
    }
}

static void check_operands(const fl_call *call, const real *const *operand, int64_t first,
                           int64_t n, const double *weight, fl_partial *partial)
{
    for (int k = 0; k < FL_OPERANDS; k++)
        if (operand[k])
            check_tile(operand[k], n, call->spec[k].domain, weight, k, first, 1, partial);
}

/* The weights of the units and their products. A product is 0 only if one of the factors is: one
 * that underflows would remove the unit. Returns whether a product of finite factors overflows or
 * underflows; it is then inexact. */
static int load_unit_weights(const fl_call *call, int64_t first, int64_t n,
                             const double *sample_weight, double *loss_weight, double *product,
                             unit_weights *w)
{
    int64_t inexact = 0;
    w->product = w->sample_weight = sample_weight; /* not by a copy, which would stall */
    w->loss_weight = NULL;
    w->exponent = NULL;
    if (!call->weight.data)
        return 0;
    w->loss_weight = fl_load_double(&call->weight, first, n, loss_weight);
    w->product = sample_weight ? product : w->loss_weight;
    for (int64_t i = 0; sample_weight && i < n; i++) {
        double value = loss_weight[i] * sample_weight[i];
        int removed = (loss_weight[i] == 0) | (sample_weight[i] == 0);
        inexact += (removed == 0) & is_extreme_product(value);
        product[i] = removed ? 0 : value == 0 ? 0x1p-1022 : value;
    }
    return inexact > 0;
}

/* Applies the formula to the tile, and streams gradients. */
static void apply_tile(const fl_call *call, const block_plan *plan, const formula_args *args,
                       int64_t first, int64_t n, lane_state *state)
{
    const int64_t whole = n - n % LANES;
    const int streams = plan->streams != 0;
    int values_changed = 0;
    for (int64_t i = 0, next; i < n; i = next) {
        next = streams && i + STREAM_CHUNK < whole ? i + STREAM_CHUNK : i < whole ? whole : n;
        if (i < whole)
            dispatch_formula(call->formula, plan->outputs, args, i, next, state);
        else
            apply_tail(call->formula, plan->outputs, args, i, next - i, state);
        if (!streams && next < n)
            continue;
        if (plan->needs_extended || (plan->overflow != NO_RESULT && lane_state_overflows(state)))
            values_changed |= apply_extended(call, plan, args, streams ? i : 0, next);
        for (int k = 0; streams && k < FL_OPERANDS; k++)
            if (plan->streams & DX << k)
                fl_store(call->output[FL_GRADIENT + k], first + i, next - i,
                         args->result[1 + k] + i);
    }
    if (!values_changed)
        return;
    clear_lane_sum(&state->sum);
    for (int64_t i = 0; i < n; i++)
        add_to_lane(&state->sum, (int)(i % LANES), (double)args->result[0][i]);
}

static void run_tile(const fl_call *call, const block_plan *plan, fl_phase phase, int64_t first,
                     int64_t n, fl_partial *partial)
{
    ALIGNED real operand_tile[FL_OPERANDS][TILE], grad_tile[FL_OPERANDS][TILE], value_tile[TILE];
    ALIGNED double sample_weight_tile[TILE], loss_weight_tile[TILE], weight_tile[TILE],
        grad_output_tile[TILE];
    const real *operand[FL_OPERANDS];
    formula_args args;

    const double *sample_weight = load_sample_weight(call, first, n, sample_weight_tile, partial);
    unit_weights weights;
    const int inexact_weights =
        load_unit_weights(call, first, n, sample_weight, loss_weight_tile, weight_tile, &weights);
    const double *weight = weights.product;
    const unit_weights sample_weights = sample_weights_only(sample_weight),
                       *divisor =
                           call->mean_divisor == FL_BY_ALL_WEIGHTS ? &weights : &sample_weights;
    add_divisors(divisor, n, partial);
    add_count(weight, n, partial);
    for (int k = 0; k < FL_OPERANDS; k++) {
        const int needed = phase != FL_PREPARE || call->spec[k].domain != FL_ANY;
        operand[k] = needed && call->operand[k].data
                         ? fl_load(&call->operand[k], first, n, operand_tile[k])
                         : 0;
        args.operand[k] = operand[k] ? operand[k] : operand[0];
    }
    if (phase == FL_PREPARE) {
        check_operands(call, operand, first, n, weight, partial);
        return;
    }

    const double *grad_output = load_grad_output(call, first, n, grad_output_tile);
    const int outputs = plan->outputs;
    real *l = fl_output_buffer(call->output[FL_LOSSES], first, n, value_tile), *grad[FL_OPERANDS];
    for (int k = 0; k < FL_OPERANDS; k++) {
        int per_unit = call->output[FL_GRADIENT + k] && !call->broadcast_period[k];
        grad[k] = per_unit ? fl_output_buffer(call->output[FL_GRADIENT + k], first, n, grad_tile[k])
                           : grad_tile[k];
    }
    for (int k = 0; k <= FL_OPERANDS; k++)
        args.result[k] = k == 0 ? l : grad[k - 1];
    args.scale = plan->scale_later ? 1 : (real)plan->scale;
    if (outputs != VALUE && (plan->overflow != NO_RESULT || plan->needs_extended))
        save_operands(&args, outputs, n, operand, operand_tile);
    memcpy(args.params, plan->params, sizeof args.params);
    lane_state state;
    clear_lane_state(&state);
    apply_tile(call, plan, &args, first, n, &state);
    uint_real flags = 0;
    for (int k = 0; k < LANES; k++)
        flags |= state.domain_flag[k];
    /* After FL_PREPARE the tile is known to be valid, and outputs may have overwritten it. */
    if (flags >= SIGN_BIT && !call->prepare)
        check_operands(call, operand, first, n, weight, partial);

    int extreme = inexact_weights || call->grad_exponent != 0;
    if (outputs != VALUE && plan->scale_later && plan->may_be_extreme)
        extreme |= has_extreme_factor(weight, grad_output, plan->scale, n);
    if (outputs & VALUE) {
        const unit_losses losses = {.weight = &weights, .l = l, .target_length = 1};
        const fl_dd sum = weight ? sum_unit_losses(&losses, n) : reduce_lanes(&state.sum);
        emit_losses(call, first, n, &losses, sum, divisor, weight, partial);
        if (weight && call->output[FL_LOSSES]) {
            if (inexact_weights)
                scale_extreme_tile(l, &weights, 0, 1, 0, n);
            else
                scale_tile(l, weight, 0, 1, n);
        }
        fl_store(call->output[FL_LOSSES], first, n, l);
    }
    for (int k = 0; k < FL_OPERANDS; k++) {
        if (!(outputs & DX << k) || plan->streams & DX << k)
            continue;
        if (extreme)
            scale_extreme_tile(grad[k], &weights, grad_output, plan->scale, call->grad_exponent, n);
        else if (plan->scale_later)
            scale_tile(grad[k], weight, grad_output, plan->scale, n);
        if (call->broadcast_period[k])
            reduce_broadcast_grad(call, k, grad[k], first, n, partial);
        else
            fl_store(call->output[FL_GRADIENT + k], first, n, grad[k]);
    }
}

/* The number of units in the tile that starts at `first`. If units share a gradient entry, a tile
 * holds the units of whole entries, or part of the units of one at a fixed offset: the sum of an
 * entry then does not depend on its position. */
static int64_t tile_units(const fl_call *call, int64_t first, int64_t last)
{
    int64_t n = last - first < TILE ? last - first : TILE;
    for (int k = 0; k < FL_OPERANDS; k++) {
        int64_t period = call->broadcast_period[k];
        if (period == 0 || period >= call->units)
            continue;
        int64_t remaining = period - first % period;
        n = period > TILE ? (n < remaining ? n : remaining) : n < period ? n : n / period * period;
    }
    return n;
}

void SUFFIXED(fl_elementwise)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                              fl_partial *partial)
{
    const block_plan plan = plan_block(call);
    for (int64_t n; first < last; first += n) {
        n = tile_units(call, first, last);
        run_tile(call, &plan, phase, first, n, partial);
    }
}
