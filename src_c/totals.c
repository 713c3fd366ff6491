/* Totals of streams and of groups of units. */
#include "dd.h"
#include "fastloss.h"
#include "fpmode.h"
#include "spread.h"

void fl_add_totals(fl_totals *to, const fl_totals *from)
{
    fp_mode saved = fp_enter();
    to->sum = dd_add(to->sum, from->sum);
    to->weight = dd_add(to->weight, from->weight);
    to->count += from->count;
    spread_join(&to->spread, &from->spread);
    fp_leave(saved);
}

void fl_add_units(fl_totals *const *groups, int64_t n, const int64_t *group, const double *term,
                  const double *share, const unsigned char *counted)
{
    fp_mode saved = fp_enter();
    for (int64_t i = 0; i < n; i++) {
        if (!counted[i] && share[i] == 0)
            continue;
        fl_totals *to = groups[group[i]];
        to->sum = dd_add_double(to->sum, term[i]);
        to->weight = dd_add_double(to->weight, share[i]);
        to->count += counted[i];
        spread_unit(&to->spread, term[i], share[i]);
    }
    fp_leave(saved);
}
