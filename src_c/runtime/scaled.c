#include "runtime/scaled.h"
#include "runtime/double_double.h"

#include <float.h>
#include <math.h>

fl_scaled fl_scaled_of(double v, int64_t exponent)
{
    int e = 0;
    if (!is_finite(v) || v == 0)
        return (fl_scaled){v, 0};
    double m = frexp(v, &e);
    return (fl_scaled){m, e + exponent};
}

fl_scaled fl_scaled_of_weight(double v, int64_t exponent)
{
    const fl_scaled w = fl_scaled_of(v, exponent);
    return w.e > 900 ? (fl_scaled){w.m * 0x1p64, w.e - 64} : w;
}

/* v 2^exponent for any exponent. */
static double times_power_of_two(double v, int64_t exponent)
{
    const int64_t most = 5000; /* as good as infinite */
    return ldexp(v, (int)(exponent > most ? most : exponent < -most ? -most : exponent));
}

fl_scaled fl_scaled_plus(fl_scaled a, fl_scaled b)
{
    if (a.m == 0)
        return b;
    const int64_t e = b.m == 0 || a.e > b.e ? a.e : b.e;
    return fl_scaled_of(times_power_of_two(a.m, a.e - e) + times_power_of_two(b.m, b.e - e), e);
}

fl_scaled fl_scaled_times(fl_scaled a, fl_scaled b) { return fl_scaled_of(a.m * b.m, a.e + b.e); }

fl_scaled fl_scaled_ratio(fl_scaled a, fl_scaled b) { return fl_scaled_of(a.m / b.m, a.e - b.e); }

double fl_unscaled(fl_scaled v) { return times_power_of_two(v.m, v.e); }

double fl_scaled_product(const double *factor, int count, int64_t exponent)
{
    fl_scaled product = {0.5, exponent + 1};
    for (int i = 0; i < count; i++)
        product = fl_scaled_times(product, fl_scaled_of(factor[i], 0));
    return fl_unscaled(product);
}

double fl_round_to_float_precision(double v)
{
    fl_scaled scaled = fl_scaled_of(v, 0);
    return fl_unscaled((fl_scaled){(double)(float)scaled.m, scaled.e});
}

/* Adds (hi + lo) 2^exponent, where hi and lo have at most the exponent 0 or so. */
static void add_to_scaled_sum(fl_scaled_sum *to, fl_dd term, double magnitude, int64_t exponent)
{
    if (magnitude == 0)
        return;
    if (to->magnitude == 0)
        to->exponent = exponent;
    if (exponent > to->exponent) {
        const int64_t shift = to->exponent - exponent;
        to->sum.hi = times_power_of_two(to->sum.hi, shift);
        to->sum.lo = times_power_of_two(to->sum.lo, shift);
        to->magnitude = times_power_of_two(to->magnitude, shift);
        to->exponent = exponent;
    }
    const int64_t shift = exponent - to->exponent;
    to->sum = dd_add(
        to->sum, (fl_dd){times_power_of_two(term.hi, shift), times_power_of_two(term.lo, shift)});
    to->magnitude += times_power_of_two(magnitude, shift);
}

void fl_add_scaled_term(fl_dd *sum, fl_scaled_sum *beyond, double s, double w, double v,
                        int64_t exponent)
{
    if (s == 0 || w == 0)
        return;
    const fl_scaled term = fl_scaled_times(
        fl_scaled_times(fl_scaled_of(s, exponent), fl_scaled_of(w, 0)), fl_scaled_of(v, 0));
    if (is_finite(term.m))
        add_to_scaled_sum(beyond, (fl_dd){term.m, 0}, fabs(term.m), term.e);
    else
        *sum = dd_add_double(*sum, term.m);
}

void fl_merge_scaled_sum(fl_scaled_sum *to, const fl_scaled_sum *from)
{
    add_to_scaled_sum(to, from->sum, from->magnitude, from->exponent);
}

fl_scaled fl_scaled_total(fl_dd sum, const fl_scaled_sum *beyond)
{
    if (!is_finite(sum.hi))
        return (fl_scaled){sum.hi, 0};
    fl_scaled_sum total = *beyond;
    const fl_scaled hi = fl_scaled_of(sum.hi, 0), lo = fl_scaled_of(sum.lo, 0);
    add_to_scaled_sum(&total, (fl_dd){hi.m, 0}, fabs(hi.m), hi.e);
    add_to_scaled_sum(&total, (fl_dd){lo.m, 0}, fabs(lo.m), lo.e);
    return fl_scaled_of(total.sum.hi, total.exponent);
}

/* --- the sums of a call --- */

int fl_settle_sum(fl_dd *sum, fl_scaled_sum *beyond)
{
    if (beyond->magnitude == 0 || !is_finite(sum->hi))
        return 0;
    const fl_dd term = {times_power_of_two(beyond->sum.hi, beyond->exponent),
                        times_power_of_two(beyond->sum.lo, beyond->exponent)};
    const fl_dd total = dd_add(*sum, term);
    const double magnitude = times_power_of_two(beyond->magnitude, beyond->exponent);
    if (!is_finite(total.hi) || (sum->hi == 0 && magnitude < DBL_MIN))
        return 1;
    *sum = total;
    *beyond = (fl_scaled_sum){{0, 0}, 0, 0};
    return 0;
}

int64_t fl_class_weight_exponent(const double *weight, int64_t n)
{
    const double low = 0x1p-500, high = 0x1p500;
    int64_t above_low = 0, above_high = 0;
    for (int64_t i = 0; i < n; i++) {
        above_low += fabs(weight[i]) >= low;
        above_high += fabs(weight[i]) >= high;
    }
    if (above_low > 0 && above_high == 0)
        return 0;
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        if (is_finite(weight[i]) && fabs(weight[i]) > most)
            most = fabs(weight[i]);
    if (most == 0)
        return 0;
    const fl_scaled scaled = fl_scaled_of(most, 0);
    return most >= high ? scaled.e - 500 : scaled.e; /* small ones are shifted up exactly */
}
