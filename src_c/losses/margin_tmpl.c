/* The kernel of the losses of margins and independent labels over rows of class scores, once per
 * (instruction set, real). */
#include "losses/multi_margin.h"
#include "losses/multilabel_margin.h"
#include "losses/multilabel_soft_margin.h"

void SUFFIXED(fl_margin)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                         fl_partial *partial)
{
    margin_row rows[FL_ROW_BATCH];
    for (int64_t n; first < last; first += n) {
        n = rows_per_tile(call, last - first);
        margin_rows_init(call, first, n, rows, partial);
        switch (call->formula) {
        case FL_FORMULA_multi_margin:
            multi_margin(call, phase, first, n, rows, partial);
            break;
        case FL_FORMULA_multilabel_margin:
            multilabel_margin(call, phase, first, n, rows, partial);
            break;
        default:
            multilabel_soft_margin(call, phase, first, n, rows, partial);
        }
    }
}
