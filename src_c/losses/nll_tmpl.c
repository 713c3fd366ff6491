/* Negative log-likelihood, once per (instruction set, real). */
#include "fastloss.h"
#include "vector/real.h"

fl_kernel SUFFIXED(fl_cross_entropy), SUFFIXED(fl_nll);

void SUFFIXED(fl_nll)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                      fl_partial *partial)
{
    SUFFIXED(fl_cross_entropy)(call, phase, first, last, partial);
}
