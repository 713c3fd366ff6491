/* The plan of a call: blocks, work, parts and non-temporal stores, with the plain functions of
 * families whose units are alike. */
#include "runtime/plan.h"

/* Gradients of at least this many bytes are written with non-temporal stores: in the caches, the
 * last of them would evict the first. */
static const double STREAM_BYTES = 1 << 25;

static const fl_family families[] = {
#define FAMILY(name, block, work, parts, prepares, combines, stride, streaming) \
    {#name, block, work, parts, prepares, combines, stride, streaming},
#include "families.def"
#undef FAMILY
};

const fl_family *fl_family_of(const fl_call *call) { return &families[call->family]; }

/* ---- Families whose units are alike ------------------------------------------------------------
 */

int64_t fl_plain_block(const fl_call *call)
{
    int64_t elements = call->unit_size > 0 ? call->unit_size : 1;
    return elements < FL_BLOCK ? FL_BLOCK / elements : 1;
}

/* In double: units may be broadcast without limit. */
double fl_plain_work(const fl_call *call, fl_phase phase)
{
    (void)phase;
    return (double)call->units * (double)(call->unit_size > 0 ? call->unit_size : 1);
}

/* FL_PREPARE reads the class index of each unit, or all elements of other targets. */
double fl_prepare_work(const fl_call *call)
{
    return call->spec[1].domain == FL_INDEX ? (double)call->units : fl_plain_work(call, FL_PREPARE);
}

int64_t fl_plain_parts(const fl_call *call)
{
    (void)call;
    return 1;
}

int64_t fl_plain_stride(int64_t blocks)
{
    (void)blocks;
    return 1;
}

int fl_plain_streaming(const fl_call *call)
{
    (void)call;
    return 1;
}

/* ---- Blocks -------------------------------------------------------------------------------------
 */

/* Without a + b, which may exceed 2^63. */
static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b > 0); }

fl_grid fl_grid_of(const fl_call *call)
{
    const int64_t most = fl_family_of(call)->block(call);
    fl_grid g = {.row_units = call->row_units > 0 ? call->row_units : 1};
    int64_t period = 0; /* units that share a gradient entry, where that is not all of them */
    for (int k = 0; k < FL_OPERANDS; k++)
        if (call->broadcast_period[k] > 0 && call->broadcast_period[k] < call->units)
            period = call->broadcast_period[k];
    if (g.row_units <= most) {
        g.rows_per_block = most / g.row_units;
        g.segments = 1;
        g.segment_units = g.row_units;
    } else {
        if (period > most)
            g.row_units = period; /* a block then lies within one entry */
        g.rows_per_block = 1;
        g.segment_units = period > 0 && period <= most ? most / period * period : most;
        g.segments = ceil_div(g.row_units, g.segment_units);
    }
    g.blocks = ceil_div(call->units / g.row_units, g.rows_per_block) * g.segments;
    return g;
}

int fl_items_are_parts(const fl_call *call, fl_phase phase)
{
    return call->split_state && phase != FL_SPLIT_COMBINE &&
           (phase != FL_PREPARE || fl_family_of(call)->prepares_by_parts);
}

int64_t fl_phase_items(const fl_call *call, fl_phase phase)
{
    if (phase == FL_SPLIT_COMBINE)
        return call->units;
    if (fl_items_are_parts(call, phase))
        return fl_family_of(call)->parts(call) * call->units;
    return call->grid.blocks;
}

void fl_block_range(const fl_call *call, fl_phase phase, int64_t block, int64_t *first,
                    int64_t *last)
{
    const fl_grid *g = &call->grid;
    if (phase == FL_SPLIT_COMBINE || fl_items_are_parts(call, phase)) {
        *first = block;
        *last = block + 1;
        return;
    }
    const int64_t row = block / g->segments * g->rows_per_block, segment = block % g->segments;
    const int64_t rows_left = call->units / g->row_units - row,
                  rows = rows_left < g->rows_per_block ? rows_left : g->rows_per_block;
    *first = row * g->row_units + segment * g->segment_units;
    *last = segment + 1 < g->segments ? *first + g->segment_units : (row + rows) * g->row_units;
}

/* ---- Non-temporal stores ------------------------------------------------------------------------
 */

static void choose_streams(fl_call *call)
{
    const int streaming = fl_family_of(call)->streaming(call);
    const double entries = (double)call->units * (double)call->unit_size;
    for (int k = 0; k < FL_OPERANDS; k++) {
        fl_array *grad = call->output[FL_GRADIENT + k];
        if (!grad)
            continue;
        int half = !grad->swapped && (grad->dtype == FL_F16 || grad->dtype == FL_BF16);
        int size = half ? 2 : call->is_double ? 8 : 4;
        int whole = !call->broadcast_period[k]; /* an entry for each of the operand's */
        grad->non_temporal =
            whole && streaming && (half || grad->is_direct) && entries * size >= STREAM_BYTES;
    }
}

void fl_plan(fl_call *call)
{
    call->grid = fl_grid_of(call);
    choose_streams(call);
}
