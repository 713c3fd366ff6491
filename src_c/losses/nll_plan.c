/* The plan of negative log-likelihood: one entry of each row is read. */
#include "runtime/plan.h"

/* The cost, in elements, of a row of which one entry is read: mostly its cache miss. */
enum { GATHER_ROW_COST = 32 };

int64_t fl_nll_block(const fl_call *call)
{
    (void)call;
    return FL_BLOCK / GATHER_ROW_COST / FL_ROW_BATCH * FL_ROW_BATCH;
}

double fl_nll_work(const fl_call *call, fl_phase phase)
{
    if (phase == FL_PREPARE)
        return fl_prepare_work(call);
    int writes_rows = call->output[FL_GRADIENT] != NULL;
    return writes_rows ? fl_plain_work(call, phase) : (double)call->units * GATHER_ROW_COST;
}
