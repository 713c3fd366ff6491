/* The plan of the cross-entropy family. */
#include "losses/cross_entropy_split.h"
#include "runtime/plan.h"

/* Rows that the kernel transposes together must not be cut. */
int64_t fl_cross_entropy_block(const fl_call *call)
{
    int64_t rows = fl_plain_block(call);
    if (rows < FL_ROW_BATCH && call->inner_size <= 1)
        return rows;
    return rows < FL_ROW_BATCH ? FL_ROW_BATCH : rows / FL_ROW_BATCH * FL_ROW_BATCH;
}

/* The work of combining a part, in elements: 40 to 120 ns. */
enum { COMBINE_WORK = 256 };

double fl_cross_entropy_work(const fl_call *call, fl_phase phase)
{
    if (phase == FL_SPLIT_COMBINE)
        return (double)call->units * (double)fl_cross_entropy_parts(call) * COMBINE_WORK;
    return phase == FL_PREPARE ? fl_prepare_work(call) : fl_plain_work(call, phase);
}

/* Only rows whose classes are neighbours are split. */
int64_t fl_cross_entropy_parts(const fl_call *call)
{
    int is_long = call->inner_size == 1 && call->unit_size > FL_CLASSES_PER_PART;
    return is_long ? (call->unit_size - 1) / FL_CLASSES_PER_PART + 1 : 1;
}
