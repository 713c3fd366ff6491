/* The driver: runs the phases of a call over its blocks on several threads and sums the partials.
 *
 * The order of summation is fixed, whatever the number of threads: each block sums its own units,
 * and the blocks' partials are added in block order in double-double. The driver knows no loss and
 * no family: plan.h provides what depends on them. parallel.c handles the threads. */
#include "fastloss.h"
#include "runtime/double_double.h"
#include "runtime/fp_env.h"
#include "runtime/interrupt.h"
#include "runtime/parallel.h"
#include "runtime/plan.h"
#include "runtime/scaled.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

/* Partials of a call with few blocks are on the stack; one with many allocates at most this many
 * at a time, and checks for errors and interrupts after each such batch. */
enum { STACK_PARTIALS = 16, BATCH_BLOCKS = 2048 };

/* The least number of elements for which waking a thread pays off: 4 to 35 µs of work, depending on
 * the loss. */
enum { ELEMENTS_PER_THREAD = 16384 };

static const double INTERRUPT_SECONDS = 0.1;

/* --- interrupts --- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct interrupt_state {
    fl_interrupted ask;
    double asked;                    /* when */
    struct interrupt_state **caller; /* its current_interrupt: workers must not ask */
    atomic_int answer;               /* once nonzero, no block begins on any thread */
} interrupt_state;

/* The state of the call whose long units this thread computes, if any. */
static _Thread_local interrupt_state *current_interrupt;

static int has_long_units(const fl_call *call) { return call->unit_size > FL_ASK_AFTER; }

static int interrupt_answer(interrupt_state *state)
{
    return atomic_load_explicit(&state->answer, memory_order_relaxed);
}

static int ask_for_interrupt(interrupt_state *state)
{
    if (state->ask && !interrupt_answer(state) && seconds() - state->asked >= INTERRUPT_SECONDS) {
        atomic_store_explicit(&state->answer, state->ask(), memory_order_relaxed);
        state->asked = seconds();
    }
    return interrupt_answer(state);
}

int fl_is_interrupted(void)
{
    interrupt_state *state = current_interrupt;
    if (!state)
        return 0;
    return state->caller == &current_interrupt ? ask_for_interrupt(state) : interrupt_answer(state);
}

/* --- a phase --- */

typedef struct {
    const fl_call *call;
    interrupt_state *interrupt;
    fl_kernel *kernel;
    fl_phase phase;
    int64_t first_block, blocks,
        stride;          /* every stride-th of this many blocks, modulo their number */
    fl_partial *partial; /* of first_block and the blocks after it */
} phase_context;

static void run_blocks(void *context, int64_t first, int64_t last)
{
    const phase_context *c = context;
    const int is_long = has_long_units(c->call);
    interrupt_state *const before = is_long ? current_interrupt : NULL; /* a handler may call */
    if (is_long)
        current_interrupt = c->interrupt;
    for (int64_t i = first; i < last && !interrupt_answer(c->interrupt); i++) {
        int64_t first_unit, last_unit;
        int64_t block = c->first_block + (i - c->first_block) * c->stride % c->blocks;
        fl_partial *partial = &c->partial[block - c->first_block];
        *partial = (fl_partial){.error_unit = FL_NOWHERE};
        fl_block_range(c->call, c->phase, block, &first_unit, &last_unit);
        c->kernel(c->call, c->phase, first_unit, last_unit, partial);
    }
    if (is_long)
        current_interrupt = before;
#if defined(__x86_64__) || defined(_M_X64)
    _mm_sfence(); /* non-temporal stores become visible before the block counts as done */
#endif
}

/* Gradient entries that span blocks: a double-double accumulates over the blocks, and each entry is
 * stored when it is complete. */
typedef struct {
    fl_dd sum[FL_OPERANDS];
    int64_t entry[FL_OPERANDS];
} spanning_gradients;

static void store_spanning(const fl_call *call, int k, int64_t entry, double sum)
{
    float narrow = (float)sum;
    const void *from = call->is_double ? (const void *)&sum : (const void *)&narrow;
    fl_selected_services()->store[call->is_double](call->output[FL_GRADIENT + k], entry, 1, from);
}

static void accumulate_spanning(const fl_call *call, spanning_gradients *spanning, int64_t block,
                                const fl_partial *partial)
{
    int64_t first, last;
    fl_block_range(call, FL_MAIN, block, &first, &last);
    for (int k = 0; k < FL_OPERANDS; k++) {
        if (!call->broadcast_period[k] || !call->output[FL_GRADIENT + k] ||
            fl_gradient_sums_in_block(call, k))
            continue;
        int64_t entry = first / call->broadcast_period[k];
        if (entry != spanning->entry[k]) {
            store_spanning(call, k, spanning->entry[k], spanning->sum[k].hi);
            spanning->entry[k] = entry;
            spanning->sum[k] = (fl_dd){0, 0};
        }
        spanning->sum[k] = dd_add(spanning->sum[k], partial->broadcast_grad[k]);
        if (block == call->grid.blocks - 1)
            store_spanning(call, k, entry, spanning->sum[k].hi);
    }
}

static double phase_work(const fl_call *call, fl_phase phase)
{
    return fl_family_of(call)->work(call, phase);
}

/* Threads worth waking for this much work in this many blocks. */
static int useful_threads(double work, int64_t blocks)
{
    double most = work / ELEMENTS_PER_THREAD;
    most = most < (double)blocks ? most : (double)blocks;
    if (most < 2)
        return 1;
    int threads = fl_effective_threads();
    return most < threads ? (int)most : threads;
}

/* One phase over all blocks, in batches, so that partials need little memory and interrupts are
 * handled promptly. */
static fl_status run_phase(const fl_call *call, fl_phase phase, fl_totals *totals,
                           interrupt_state *interrupt, fl_partial *bad)
{
    const int64_t blocks = fl_phase_items(call, phase);
    const double work = phase_work(call, phase);
    const int threads = useful_threads(work, blocks);
    const double block_work = work / (double)blocks,
                 blocks_worth = block_work / FL_BLOCK; /* a long unit counts as several */
    int64_t batch = blocks_worth > 1 ? (int64_t)(BATCH_BLOCKS / blocks_worth) : BATCH_BLOCKS;
    batch = batch > 2 * threads ? batch : 2 * threads;
    batch = batch < blocks ? batch : blocks;

    fl_partial on_stack[STACK_PARTIALS], *partial = on_stack;
    if (batch > STACK_PARTIALS)
        partial = malloc((size_t)batch * sizeof *partial);
    if (!partial) {
        partial = on_stack;
        batch = STACK_PARTIALS;
    }
    spanning_gradients spanning = {{{0, 0}}, {0}};
    phase_context context = {.call = call,
                             .interrupt = interrupt,
                             .kernel = fl_selected_kernel(call),
                             .phase = phase,
                             .partial = partial};
    fl_status status = FL_OK;
    for (int64_t first = 0; first < blocks && status == FL_OK; first += batch) {
        int64_t last = first + batch < blocks ? first + batch : blocks;
        context.first_block = first;
        context.blocks = last - first;
        context.stride = fl_family_of(call)->stride(last - first);
        fl_parallel(first, last, run_blocks, &context, threads,
                    block_work * (double)(last - first));
        if (interrupt_answer(interrupt) || (last < blocks && ask_for_interrupt(interrupt))) {
            status = FL_INTERRUPTED;
            break;
        }
        for (int64_t block = first; block < last; block++) {
            const fl_partial *p = &partial[block - first];
            if (p->error_unit != FL_NOWHERE) {
                *bad = *p;
                status = FL_BAD_VALUE;
                break;
            }
            fl_add_partial(totals, p);
            if (phase == FL_MAIN)
                accumulate_spanning(call, &spanning, block, p);
        }
    }
    if (partial != on_stack)
        free(partial);
    return status;
}

/* --- units that are split over threads --- */

/* Allocates the state of the parts if there are fewer units than threads. If the allocation fails,
 * units run whole. */
static void alloc_split_state(fl_call *call)
{
    const int64_t parts = fl_family_of(call)->parts(call), items = parts * call->units;
    const int few = parts > 1 && call->units < useful_threads(fl_work(call), items);
    call->split_state = few ? calloc((size_t)items, sizeof *call->split_state) : NULL;
}

static void free_split_state(fl_call *call)
{
    if (!call->split_state)
        return;
    const int64_t items = fl_family_of(call)->parts(call) * call->units;
    for (int64_t i = 0; i < items; i++)
        fl_scratch_free(call->split_state[i]);
    free(call->split_state);
    call->split_state = NULL;
}

/* FL_MAIN in phases that split units. */
static fl_status run_split(const fl_call *call, fl_totals *totals, interrupt_state *interrupt,
                           fl_partial *bad)
{
    fl_status status = run_phase(call, FL_SPLIT_PARTIAL, totals, interrupt, bad);
    if (status == FL_OK && fl_family_of(call)->combines_parts)
        status = run_phase(call, FL_SPLIT_COMBINE, totals, interrupt, bad);
    if (status == FL_OK && ask_for_interrupt(interrupt))
        status = FL_INTERRUPTED;
    return status == FL_OK ? run_phase(call, FL_SPLIT_FINISH, totals, interrupt, bad) : status;
}

/* --- a call --- */

/* Sets the factor of all gradients; the divisor of a mean is the number of units unless it is
 * prepared. With nothing to divide by, the mean is NaN and its gradient 0. */
static void set_gradient_scale(fl_call *call, const fl_totals *prepared)
{
    const fl_dd sum = prepared ? prepared->divisor_sum : (fl_dd){(double)call->units, 0};
    const fl_scaled_sum beyond = prepared ? prepared->divisor_beyond : (fl_scaled_sum){0};
    call->grad_exponent = 0;
    call->grad_scale =
        call->mean ? call->grad_output / (sum.hi / call->divisor_scale) : call->grad_output;
    const double size = fabs(call->grad_scale);
    if (!call->mean || (size > FL_SUM_MIN && size < FL_SUM_MAX && beyond.magnitude == 0))
        return;
    const fl_scaled divisor = fl_scaled_total(sum, &beyond);
    fl_scaled scale =
        fl_scaled_times(fl_scaled_of(call->grad_output, 0), fl_scaled_of(call->divisor_scale, 0));
    scale = divisor.m == 0 ? (fl_scaled){0, 0} : fl_scaled_ratio(scale, divisor);
    call->grad_scale = scale.m;
    call->grad_exponent = scale.e;
}

double fl_work(const fl_call *call) { return phase_work(call, FL_MAIN); }

fl_status fl_run(fl_call *call, fl_totals *totals, fl_interrupted interrupted, fl_partial *bad)
{
    fl_totals prepared = {0};
    fl_status status = FL_OK;
    interrupt_state interrupt = {.ask = interrupted,
                                 .asked = interrupted ? seconds() : 0,
                                 .caller = has_long_units(call) ? &current_interrupt : NULL};
    fp_mode saved = fp_enter();
    fl_plan(call);
    alloc_split_state(call);
    set_gradient_scale(call, NULL);
    if (call->prepare) {
        if (call->mean)
            call->grad_scale = 0; /* not known yet */
        status = run_phase(call, FL_PREPARE, &prepared, &interrupt, bad);
        set_gradient_scale(call, &prepared);
    }
    if (status == FL_OK && call->split_state)
        status = run_split(call, totals, &interrupt, bad);
    else if (status == FL_OK)
        status = run_phase(call, FL_MAIN, totals, &interrupt, bad);
    free_split_state(call);
    fp_leave(saved);
    return status;
}
