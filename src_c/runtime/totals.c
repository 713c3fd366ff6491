/* The running totals of streams and of groups of units, and the mean. */
#include "fastloss.h"
#include "runtime/double_double.h"
#include "runtime/fp_env.h"
#include "runtime/moments.h"
#include "runtime/scaled.h"

#include <float.h>
#include <math.h>

static int out_of_range(int sum, int divisor)
{
    return (sum ? FL_SUM_OUT_OF_RANGE : 0) | (divisor ? FL_DIVISOR_OUT_OF_RANGE : 0);
}

double fl_ratio(double a, double b)
{
    fp_mode saved = fp_enter();
    volatile double top = a,
                    ratio = top / b; /* volatile: divided in this mode, not before or after */
    fp_leave(saved);
    return b == 0 ? __builtin_nan("") : ratio;
}

/* Returns whether the sum of finite numbers overflows. */
static int add_partial_sum(fl_dd *to, fl_dd term)
{
    const double finite = (to->hi - to->hi) + (term.hi - term.hi); /* else NaN */
    *to = dd_add(*to, term);
    return finite == 0 && to->hi - to->hi != 0;
}

void fl_add_partial(fl_totals *totals, const fl_partial *p)
{
    totals->sum_overflows |= add_partial_sum(&totals->sum, p->sum);
    totals->divisor_overflows |= add_partial_sum(&totals->divisor_sum, p->divisor_sum);
    if (p->sum_beyond.magnitude != 0)
        fl_merge_scaled_sum(&totals->sum_beyond, &p->sum_beyond);
    if (p->divisor_beyond.magnitude != 0)
        fl_merge_scaled_sum(&totals->divisor_beyond, &p->divisor_beyond);
    totals->bad_terms |= p->bad_terms;
    totals->count += p->count;
    fl_merge_moments(&totals->moments, &p->moments);
}

int fl_settle_totals(fl_totals *totals)
{
    fp_mode saved = fp_enter();
    int sum = totals->sum_overflows || fl_settle_sum(&totals->sum, &totals->sum_beyond);
    int divisor =
        totals->divisor_overflows || fl_settle_sum(&totals->divisor_sum, &totals->divisor_beyond);
    fp_leave(saved);
    return out_of_range(sum, divisor);
}

int fl_mean(const fl_totals *totals, double divide, int64_t rows, int rounds_to_zero, double *mean)
{
    if (totals->sum_beyond.magnitude == 0 && totals->divisor_beyond.magnitude == 0 &&
        !totals->sum_overflows && !totals->divisor_overflows) {
        *mean = fl_ratio(totals->sum.hi,
                         divide == 0 ? (double)rows : fl_ratio(totals->divisor_sum.hi, divide));
        return 0;
    }
    fp_mode saved = fp_enter();
    fl_scaled sum = fl_scaled_total(totals->sum, &totals->sum_beyond), divisor;
    if (divide == 0)
        divisor = fl_scaled_of((double)rows, 0);
    else
        divisor = fl_scaled_ratio(fl_scaled_total(totals->divisor_sum, &totals->divisor_beyond),
                                  fl_scaled_of(divide, 0));
    fl_scaled ratio = fl_scaled_ratio(sum, divisor);
    if (divisor.m == 0) /* as fl_ratio() */
        ratio.m = __builtin_nan("");
    *mean = fl_unscaled(ratio);
    const int overflows = !is_finite(*mean) && is_finite(ratio.m),
              underflows = rounds_to_zero && ratio.m != 0 && fabs(*mean) < DBL_MIN;
    fp_leave(saved);
    return out_of_range(overflows || underflows || totals->sum_overflows,
                        totals->divisor_overflows);
}

/* Σ l - pivot Σ d: products are rounded once, in a range of their own. */
static fl_scaled residual_of_sums(const fl_totals *totals)
{
    const fl_scaled pivot = fl_scaled_of(totals->moments.pivot, 0),
                    d = fl_scaled_of(totals->divisor_sum.hi, 0),
                    sum = fl_scaled_of(totals->sum.hi, 0);
    const int64_t product = pivot.e + d.e;
    const int64_t e = pivot.m == 0 || (sum.m != 0 && product < sum.e) ? sum.e : product;
    const double p = ldexp(pivot.m, (int)(product - e));
    double residual = fma(-p, d.m, ldexp(sum.m, (int)(sum.e - e))) + ldexp(totals->sum.lo, (int)-e);
    residual -= p * ldexp(totals->divisor_sum.lo, (int)-d.e);
    return fl_scaled_of(residual, e);
}

double fl_standard_error(const fl_totals *totals, double divisor)
{
    const double n = (double)totals->count, d = totals->divisor_sum.hi;
    if (n < 2 || d == 0 || divisor == 0 || totals->moments.dd.m == 0)
        return __builtin_nan("");
    fp_mode saved = fp_enter();
    fl_scaled shift = fl_scaled_ratio(residual_of_sums(totals), fl_scaled_of(d, 0));
    shift.m = -shift.m; /* pivot - mean */
    fl_scaled squares = fl_scaled_times(fl_shifted_moments(&totals->moments, shift).rr,
                                        fl_scaled_of(n / (n - 1), 0));
    squares.m = squares.m < 0 ? 0 : squares.m; /* a NaN propagates */
    const int odd = (int)(squares.e & 1);
    const fl_scaled root = fl_scaled_of(sqrt(ldexp(squares.m, odd)), (squares.e - odd) / 2);
    const double error = fl_unscaled(fl_scaled_ratio(root, fl_scaled_of(fabs(divisor), 0)));
    fp_leave(saved);
    return error == __builtin_inf() ? __builtin_nan("") : error;
}

int fl_add_totals(fl_totals *to, const fl_totals *other)
{
    fp_mode saved = fp_enter();
    const int is_sum_finite = is_finite(to->sum.hi) && is_finite(other->sum.hi),
              is_divisor_finite = is_finite(to->divisor_sum.hi) && is_finite(other->divisor_sum.hi);
    to->sum = dd_add(to->sum, other->sum);
    to->divisor_sum = dd_add(to->divisor_sum, other->divisor_sum);
    to->count += other->count;
    fl_merge_moments(&to->moments, &other->moments);
    fp_leave(saved);
    return out_of_range(is_sum_finite && !is_finite(to->sum.hi),
                        is_divisor_finite && !is_finite(to->divisor_sum.hi));
}

/* Adds a term to a group's sum. Returns 1 if the sum of finite terms overflows. */
static int add_term(fl_dd *sum, double term)
{
    const int was_finite = is_finite(sum->hi) && is_finite(term);
    *sum = dd_add_double(*sum, term);
    return was_finite && !is_finite(sum->hi);
}

static int is_subnormal(double v) { return v != 0 && fabs(v) < DBL_MIN; }

int fl_add_unit_terms(fl_totals *groups, int64_t n, const int64_t *group,
                      const double *weighted_loss, const double *unit_divisor,
                      const unsigned char *unit_counted, int bad_terms)
{
    int sum = bad_terms & FL_TERM_OVERFLOWS, divisor = 0;
    fp_mode saved = fp_enter();
    for (int64_t i = 0; i < n; i++) {
        if (!unit_counted[i] && unit_divisor[i] == 0)
            continue;
        fl_totals *to = &groups[group[i]];
        sum |= add_term(&to->sum, weighted_loss[i]);
        divisor |= add_term(&to->divisor_sum, unit_divisor[i]);
        to->count += unit_counted[i];
        fl_add_to_moments(&to->moments, weighted_loss[i], unit_divisor[i]);
    }
    for (int64_t i = 0; bad_terms & FL_TERM_UNDERFLOWS && i < n; i++) {
        if (!unit_counted[i] && unit_divisor[i] == 0)
            continue;
        const fl_totals *to = &groups[group[i]];
        sum |= is_subnormal(weighted_loss[i]) && fabs(to->sum.hi) < DBL_MIN;
        divisor |= is_subnormal(unit_divisor[i]) && to->divisor_sum.hi < DBL_MIN;
    }
    fp_leave(saved);
    return out_of_range(sum, divisor);
}
