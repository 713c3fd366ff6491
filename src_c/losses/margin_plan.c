/* The plan of the margin losses. */
#include "runtime/plan.h"

/* A row of labels may hold as many labels as classes. If there are few, each is compared with each
 * class, which costs a thirty-second of an element; more are sorted, which costs a class no more
 * than MOST elements. */
enum { MOST = 32 };

double fl_margin_work(const fl_call *call, fl_phase phase)
{
    if (phase == FL_PREPARE)
        return fl_prepare_work(call);
    double work = fl_plain_work(call, phase);
    const double per_class = (double)call->unit_size / 32;
    return call->spec[1].domain == FL_LABELS ? work * (1 + (per_class < MOST ? per_class : MOST))
                                             : work;
}
