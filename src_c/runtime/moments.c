/* Second moments: exponents, and sums one by one. The kernels add whole tiles. */
#include "runtime/moments.h"

#include <math.h>

double fl_moments_unit(int exponent) { return ldexp(1, -exponent); }

static double moments_scaled(double v, int exponent)
{
    return exponent == 0 ? v : ldexp(v, -exponent);
}

/* An exponent for terms of this size, such that its power of two and the inverse are normal. */
static int moments_exponent_of(double size)
{
    const int e = ilogb(size);
    return e < -1000 ? -1000 : e > 1000 ? 1000 : e;
}

static void moments_set_exponents(fl_moments *moments, int r_exponent, int d_exponent)
{
    const int r = moments->r_exponent - r_exponent, d = moments->d_exponent - d_exponent;
    /* Sums of 0 have no exponent to keep. */
    moments->rr = moments->rr == 0 ? 0 : ldexp(moments->rr, 2 * r);
    moments->rd = moments->rd == 0 ? 0 : ldexp(moments->rd, r + d);
    moments->dd = moments->dd == 0 ? 0 : ldexp(moments->dd, 2 * d);
    moments->r_exponent = r_exponent;
    moments->d_exponent = d_exponent;
}

void fl_add_to_moments(fl_moments *moments, double l, double d)
{
    if (moments->dd == 0 && d != 0)
        moments->pivot = l / d;
    const double r = moments_residual(moments, l, d);
    double r_scaled = moments_scaled(r, moments->r_exponent),
           d_scaled = moments_scaled(d, moments->d_exponent);
    if (moments_need_exponent(fabs(r_scaled), moments->rr) ||
        moments_need_exponent(fabs(d_scaled), moments->dd)) {
        moments_set_exponents(
            moments,
            moments_need_exponent(fabs(r_scaled), moments->rr) ? moments_exponent_of(r)
                                                               : moments->r_exponent,
            moments_need_exponent(fabs(d_scaled), moments->dd) ? moments_exponent_of(d)
                                                               : moments->d_exponent);
        r_scaled = moments_scaled(r, moments->r_exponent);
        d_scaled = moments_scaled(d, moments->d_exponent);
    }
    moments->rr += r_scaled * r_scaled;
    moments->rd += r_scaled * d_scaled;
    moments->dd += d_scaled * d_scaled;
}

/* The exponent for the sum of two sums of squares: the larger one, unless a sum is 0. */
static int moments_common_exponent(double a, int a_exponent, double b, int b_exponent)
{
    if (a == 0 || b == 0)
        return a == 0 && b != 0 ? b_exponent : a_exponent;
    return a_exponent > b_exponent ? a_exponent : b_exponent;
}

/* The sums of `other` are first shifted to the pivot of `to`: with r = l - p d and e = q - p,
 * l - q d = r - e d. */
void fl_merge_moments(fl_moments *to, const fl_moments *other)
{
    fl_moments from = *other;
    const int d_exponent =
        moments_common_exponent(to->dd, to->d_exponent, from.dd, from.d_exponent);
    int r_exponent = moments_common_exponent(to->rr, to->r_exponent, from.rr, from.r_exponent);
    const int has_pivots = to->dd != 0 && from.dd != 0;
    const double e = has_pivots ? to->pivot - from.pivot : 0;
    double e_scaled = moments_scaled(e, r_exponent - d_exponent);
    if (moments_need_exponent(fabs(e_scaled), to->rr + from.rr)) {
        r_exponent = moments_exponent_of(moments_scaled(e, -d_exponent));
        e_scaled = moments_scaled(e, r_exponent - d_exponent);
    }
    if (to->r_exponent != r_exponent || to->d_exponent != d_exponent)
        moments_set_exponents(to, r_exponent, d_exponent);
    if (from.r_exponent != r_exponent || from.d_exponent != d_exponent)
        moments_set_exponents(&from, r_exponent, d_exponent);
    if (to->dd == 0)
        to->pivot = from.pivot;
    to->rr += e == 0 ? from.rr : from.rr - e_scaled * (2 * from.rd - e_scaled * from.dd);
    to->rd += e == 0 ? from.rd : from.rd - e_scaled * from.dd;
    to->dd += from.dd;
}
