/* The plan of the margin losses. */
#include "runtime/plan.h"

/* A row of labels is compared with the classes once per label, and may hold as many labels as
 * classes; a comparison costs a thirty-second of an element. */
double fl_margin_work(const fl_call *call, fl_phase phase)
{
    if (phase == FL_PREPARE)
        return fl_prepare_work(call);
    double work = fl_plain_work(call, phase);
    return call->spec[1].domain == FL_LABELS ? work * (1 + (double)call->unit_size / 32) : work;
}
