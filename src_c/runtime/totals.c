/* Totals of streams and of groups of units. */
#include "runtime/double_double.h"
#include "fastloss.h"
#include "runtime/fp_env.h"
#include "runtime/moments.h"

void fl_add_totals(fl_totals *to, const fl_totals *from)
{
    fp_mode saved = fp_enter();
    to->sum = dd_add(to->sum, from->sum);
    to->divisor_sum = dd_add(to->divisor_sum, from->divisor_sum);
    to->count += from->count;
    moments_merge(&to->moments, &from->moments);
    fp_leave(saved);
}

void fl_add_unit_terms(fl_totals *const *groups, int64_t n, const int64_t *group,
                       const double *term, const double *share, const unsigned char *counted)
{
    fp_mode saved = fp_enter();
    for (int64_t i = 0; i < n; i++) {
        if (!counted[i] && share[i] == 0)
            continue;
        fl_totals *to = groups[group[i]];
        to->sum = dd_add_double(to->sum, term[i]);
        to->divisor_sum = dd_add_double(to->divisor_sum, share[i]);
        to->count += counted[i];
        moments_add(&to->moments, term[i], share[i]);
    }
    fp_leave(saved);
}
