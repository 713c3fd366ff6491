/* The driver: cuts a call into blocks, runs its phases over them on several threads and adds the
 * partials.
 *
 * The sum is a fixed tree whatever the number of threads: each block sums its own units, and blocks
 * are added in order in double-double. Knows no losses; threads are parallel.c's business. */
#include "runtime/double_double.h"
#include "fastloss.h"
#include "runtime/fp_env.h"
#include "runtime/parallel.h"
#include "runtime/moments.h"

#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

/* Elements in a block: large against the cost of a partial, small enough to share out. */
enum { BLOCK = 8192 };

/* Of a row of which one entry is read, what it counts for. */
enum { ONE_OF_A_ROW = 32 };

/* Gradients of this many bytes go past the caches: the last of them would push out the first. */
static const double STREAM_BYTES = 1 << 25;

/* Classes of a frame of which the cache lines are nearly all written whole. */
enum { FRAME = 512 };

/* Blocks that run between two looks at partials and interrupts. A call on fewer needs no memory of
 * its own. */
enum { FEW = 16, MANY = 2048 };

/* Elements that a thread must have to be worth waking: 4 to 35 µs of work, by the loss. */
enum { ELEMENTS_PER_THREAD = 16384 };

static const double INTERRUPT_SECONDS = 0.1;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

fl_grid fl_grid_of(const fl_call *call)
{
    int64_t elements = call->unit_size > 0 ? call->unit_size : 1;
    if (call->formula == FL_FORMULA_nll)
        elements = ONE_OF_A_ROW;
    int64_t cap = BLOCK / elements > 0 ? BLOCK / elements : 1; /* units in a block */
    if (call->family == FL_FAMILY_cross_entropy && (cap >= FL_ROW_BATCH || call->inner_size > 1))
        cap = cap < FL_ROW_BATCH ? FL_ROW_BATCH : cap / FL_ROW_BATCH * FL_ROW_BATCH;
    if (call->family == FL_FAMILY_ctc)
        cap = 1; /* the sum is the same whether sequences come whole or in halves */
    fl_grid g = {.row_units = call->row_units > 0 ? call->row_units : 1};
    int64_t period = 0; /* units that share a gradient entry, where that is not all of them */
    for (int k = 0; k < FL_OPERANDS; k++)
        if (call->broadcast_period[k] > 0 && call->broadcast_period[k] < call->units)
            period = call->broadcast_period[k];
    if (g.row_units <= cap) {
        g.rows_per_block = cap / g.row_units;
        g.segments = 1;
        g.segment_units = g.row_units;
    } else {
        if (period > cap)
            g.row_units = period; /* a block then lies within one entry */
        g.rows_per_block = 1;
        g.segment_units = period > 0 && period <= cap ? cap / period * period : cap;
        g.segments = ceil_div(g.row_units, g.segment_units);
    }
    g.blocks = ceil_div(call->units / g.row_units, g.rows_per_block) * g.segments;
    return g;
}

/* The units of a block, or an item. */
static void block_units(const fl_call *call, fl_phase phase, int64_t block, int64_t *first,
                        int64_t *last)
{
    const fl_grid *g = &call->grid;
    if (fl_items_are_parts(call, phase)) {
        *first = block;
        *last = block + 1;
        return;
    }
    int64_t row = block / g->segments * g->rows_per_block, piece = block % g->segments;
    int64_t end = (row + g->rows_per_block) * g->row_units;
    *first = row * g->row_units + piece * g->segment_units;
    *last = g->segments > 1 && piece + 1 < g->segments ? *first + g->segment_units : end;
    if (*last > call->units)
        *last = call->units;
}

/* --- a phase --- */

typedef struct {
    const fl_call *call;
    fl_kernel *kernel;
    fl_phase phase;
    int64_t first_block, blocks, stride; /* so many, each stride-th in turn */
    fl_partial *partial;                 /* of first_block and those after it */
} phase_context;

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b > 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Entries of neighbouring sequences may share cache lines, for which threads would contend: those
 * that run at a time lie far apart. */
static int64_t stride_of(const fl_call *call, int64_t blocks)
{
    int64_t stride = call->family == FL_FAMILY_ctc ? blocks * 5 / 8 : 1;
    while (stride > 1 && common_divisor(stride, blocks) > 1)
        stride--;
    return stride > 1 ? stride : 1;
}

static void run_blocks(void *context, int64_t first, int64_t last)
{
    const phase_context *c = context;
    for (int64_t i = first; i < last; i++) {
        int64_t first_unit, last_unit;
        int64_t block = c->first_block + (i - c->first_block) * c->stride % c->blocks;
        fl_partial *partial = &c->partial[block - c->first_block];
        *partial = (fl_partial){.error_unit = FL_NOWHERE};
        block_units(c->call, c->phase, block, &first_unit, &last_unit);
        c->kernel(c->call, c->phase, first_unit, last_unit, partial);
    }
#if defined(__x86_64__) || defined(_M_X64)
    _mm_sfence(); /* what was streamed is there before another thread is told so */
#endif
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Gradient entries that blocks share: a double-double runs through the blocks, each finished entry
 * is stored. */
typedef struct {
    fl_dd sum[FL_OPERANDS];
    int64_t entry[FL_OPERANDS];
} shared_entries;

static void store_entry(const fl_call *call, int k, int64_t entry, double sum)
{
    float narrow = (float)sum;
    const void *from = call->is_double ? (const void *)&sum : (const void *)&narrow;
    fl_kernels_selected()->store[call->is_double](&call->grad[k], entry, 1, from);
}

static void share_entries(const fl_call *call, shared_entries *shared, int64_t block,
                          const fl_partial *partial)
{
    int64_t first, last;
    block_units(call, FL_MAIN, block, &first, &last);
    for (int k = 0; k < FL_OPERANDS; k++) {
        if (!call->broadcast_period[k] || !(call->requested & FL_GRAD << k) ||
            fl_gradient_sums_in_block(call, k))
            continue;
        int64_t entry = first / call->broadcast_period[k];
        if (entry != shared->entry[k]) {
            store_entry(call, k, shared->entry[k], shared->sum[k].hi);
            shared->entry[k] = entry;
            shared->sum[k] = (fl_dd){0, 0};
        }
        shared->sum[k] = dd_add(shared->sum[k], partial->broadcast_grad[k]);
        if (block == call->grid.blocks - 1)
            store_entry(call, k, entry, shared->sum[k].hi);
    }
}

/* What there is to do: a state of a frame counts as an element, and a row of labels may be read
 * once for each of them. In double: labels may be broadcast without end. */
static double elements_of(const fl_call *call)
{
    double elements = (double)call->units * (double)(call->unit_size > 0 ? call->unit_size : 1);
    if (call->formula == FL_FORMULA_nll && !(call->requested & FL_GRAD))
        elements = (double)call->units * ONE_OF_A_ROW;
    if (call->spec[1].domain == FL_LABELS)
        elements *= 1 + (double)call->unit_size / 32;
    for (int64_t n = 0; call->family == FL_FAMILY_ctc && n < call->units; n++)
        elements += (double)call->frames[n] * (2 * (double)call->labels[n] + 1);
    return elements;
}

/* Threads worth starting for this much work in so many blocks. */
static int useful_threads(const fl_call *call, int64_t blocks)
{
    double most = elements_of(call) / ELEMENTS_PER_THREAD;
    most = most < (double)blocks ? most : (double)blocks;
    if (most < 2)
        return 1;
    int threads = fl_effective_threads();
    return most < threads ? (int)most : threads;
}

/* One phase over all blocks, in batches that keep the memory for partials and the time between
 * interrupts small. */
static fl_status run_phase(const fl_call *call, fl_phase phase, fl_totals *totals,
                           fl_interrupted interrupted, fl_partial *bad)
{
    const int64_t blocks =
        fl_items_are_parts(call, phase) ? fl_split_parts(call) * call->units : call->grid.blocks;
    const int threads = useful_threads(call, blocks);
    /* A block of one long unit counts as many. */
    const double heavy = elements_of(call) / BLOCK / (double)blocks;
    int64_t batch = heavy > 1 ? (int64_t)(MANY / heavy) : MANY;
    batch = batch > 2 * threads ? batch : 2 * threads;
    batch = batch < blocks ? batch : blocks;

    fl_partial few[FEW], *partial = batch > FEW ? malloc((size_t)batch * sizeof *partial) : few;
    if (!partial) {
        partial = few;
        batch = FEW;
    }
    shared_entries shared = {{{0, 0}}, {0}};
    phase_context context = {
        call,   fl_kernels_selected()->kernel[call->is_double][call->family], phase, 0, 0, 1,
        partial};
    double asked = interrupted ? seconds() : 0;
    fl_status status = FL_OK;
    for (int64_t first = 0; first < blocks && status == FL_OK; first += batch) {
        int64_t last = first + batch < blocks ? first + batch : blocks;
        context.first_block = first;
        context.blocks = last - first;
        context.stride = stride_of(call, last - first);
        fl_parallel(first, last, run_blocks, &context, threads);
        for (int64_t block = first; block < last; block++) {
            const fl_partial *p = &partial[block - first];
            if (p->error_unit != FL_NOWHERE) {
                *bad = *p;
                status = FL_BAD_VALUE;
                break;
            }
            totals->sum = dd_add(totals->sum, p->sum);
            totals->divisor_sum = dd_add(totals->divisor_sum, p->divisor_sum);
            totals->count += p->count;
            moments_merge(&totals->moments, &p->moments);
            if (phase == FL_MAIN)
                share_entries(call, &shared, block, p);
        }
        if (interrupted && status == FL_OK && last < blocks &&
            seconds() - asked >= INTERRUPT_SECONDS) {
            if (interrupted())
                status = FL_INTERRUPTED;
            asked = seconds();
        }
    }
    if (partial != few)
        free(partial);
    return status;
}

/* Memory for the sides of units that are fewer than the threads; without it they run whole. */
static void make_sides(fl_call *call)
{
    const int64_t sides = fl_split_parts(call), items = sides * call->units;
    const int few = sides > 1 && call->units < useful_threads(call, items);
    call->split_state = few ? calloc((size_t)items, sizeof *call->split_state) : NULL;
}

static void free_sides(fl_call *call)
{
    const int64_t items = fl_split_parts(call) * call->units;
    for (int64_t i = 0; call->split_state && i < items; i++)
        fl_scratch_free(call->split_state[i]);
    free(call->split_state);
    call->split_state = NULL;
}

/* FL_MAIN, the sides of each unit side by side. */
static fl_status run_halves(const fl_call *call, fl_totals *totals, fl_interrupted interrupted,
                            fl_partial *bad)
{
    double start = seconds();
    fl_status status = run_phase(call, FL_SPLIT_PARTIAL, totals, interrupted, bad);
    if (status == FL_OK && interrupted && seconds() - start >= INTERRUPT_SECONDS && interrupted())
        status = FL_INTERRUPTED;
    return status == FL_OK ? run_phase(call, FL_SPLIT_FINISH, totals, interrupted, bad) : status;
}

static void choose_streams(fl_call *call)
{
    const int short_frames = call->family == FL_FAMILY_ctc && call->C < FRAME;
    double entries = (double)call->units * (double)call->unit_size;
    for (int k = 0; k < FL_OPERANDS; k++) {
        fl_array *grad = &call->grad[k];
        int half = !grad->swapped && (grad->dtype == FL_F16 || grad->dtype == FL_BF16);
        int each = grad->data && !call->broadcast_period[k] && !short_frames;
        int size = half ? 2 : call->is_double ? 8 : 4;
        grad->non_temporal = each && (half || grad->is_direct) && entries * size >= STREAM_BYTES;
    }
}

fl_status fl_run(fl_call *call, fl_totals *totals, fl_interrupted interrupted, fl_partial *bad)
{
    fl_totals prepared = {0};
    fl_status status = FL_OK;
    fp_mode saved = fp_enter();
    call->grid = fl_grid_of(call);
    choose_streams(call);
    make_sides(call);
    double divisor = (double)call->units;
    if (call->prepare) {
        status = run_phase(call, FL_PREPARE, &prepared, interrupted, bad);
        divisor = prepared.divisor_sum.hi;
    }
    call->grad_scale =
        call->mean ? call->grad_output / (divisor / call->divisor_scale) : call->grad_output;
    if (status == FL_OK && call->split_state)
        status = run_halves(call, totals, interrupted, bad);
    else if (status == FL_OK)
        status = run_phase(call, FL_MAIN, totals, interrupted, bad);
    free_sides(call);
    fp_leave(saved);
    return status;
}

double fl_ratio(double a, double b)
{
    fp_mode saved = fp_enter();
    volatile double top = a, ratio = top / b; /* volatile: not before, not after */
    fp_leave(saved);
    return ratio;
}
