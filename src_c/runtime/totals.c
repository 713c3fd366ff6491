/* Adds to the running totals of streams and of groups of units. */
#include "runtime/double_double.h"
#include "fastloss.h"
#include "runtime/fp_env.h"
#include "runtime/moments.h"

void fl_add_totals(fl_totals *to, const fl_totals *other)
{
    fp_mode saved = fp_enter();
    to->sum = dd_add(to->sum, other->sum);
    to->divisor_sum = dd_add(to->divisor_sum, other->divisor_sum);
    to->count += other->count;
    moments_merge(&to->moments, &other->moments);
    fp_leave(saved);
}

void fl_add_unit_terms(fl_totals *const *groups, int64_t n, const int64_t *group,
                       const double *weighted_loss, const double *unit_divisor,
                       const unsigned char *unit_counted)
{
    fp_mode saved = fp_enter();
    for (int64_t i = 0; i < n; i++) {
        if (!unit_counted[i] && unit_divisor[i] == 0)
            continue;
        fl_totals *to = groups[group[i]];
        to->sum = dd_add_double(to->sum, weighted_loss[i]);
        to->divisor_sum = dd_add_double(to->divisor_sum, unit_divisor[i]);
        to->count += unit_counted[i];
        moments_add(&to->moments, weighted_loss[i], unit_divisor[i]);
    }
    fp_leave(saved);
}
