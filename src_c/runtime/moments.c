/* Second moments: of single units, and of parts. The kernels sum whole tiles. */
#include "runtime/moments.h"

#include <math.h>

/* Whether v² is ordinary, and 0 for 0 only. */
static int has_ordinary_square(double v)
{
    return is_ordinary_square(v * v) && (v * v != 0 || v == 0);
}

static fl_scaled square(double v)
{
    const fl_scaled scaled = fl_scaled_of(v, 0);
    return has_ordinary_square(v) ? (fl_scaled){v * v, 0} : fl_scaled_times(scaled, scaled);
}

static int are_plain(const fl_moments *moments)
{
    return (moments->rr.e | moments->rd.e | moments->dd.e) == 0;
}

/* v without an exponent where it needs none. */
static fl_scaled plain_if_ordinary(fl_scaled v)
{
    const double plain = fl_unscaled(v);
    return plain != 0 && is_ordinary_square(fabs(plain)) ? (fl_scaled){plain, 0} : v;
}

static int is_less(fl_scaled a, fl_scaled b)
{
    if (a.m == 0 || b.m == 0 || (a.e == 0 && b.e == 0))
        return a.m < b.m;
    const fl_scaled x = fl_scaled_of(a.m, a.e), y = fl_scaled_of(b.m, b.e);
    return x.e == y.e ? x.m < y.m : x.e < y.e;
}

/* fl_merge_moments() where no sum has an exponent or needs one; else 0. */
static int merge_plain(fl_moments *to, const fl_moments *from)
{
    if (!are_plain(to) || !are_plain(from))
        return 0;
    const double shift = from->dd.m == 0 ? 0 : from->pivot - to->pivot;
    const double moved = shift * from->dd.m, square = shift * moved;
    const double rr = to->rr.m + (from->rr.m + shift * (2 * from->rd.m + moved));
    const double dd = to->dd.m + from->dd.m;
    if (!is_ordinary_square(rr) || !is_ordinary_square(dd) || !is_ordinary_square(square) ||
        (square == 0 && shift != 0))
        return 0;
    to->rd.m += from->rd.m + moved;
    to->rr.m = rr;
    to->dd.m = dd;
    return 1;
}

fl_moments fl_shifted_moments(const fl_moments *moments, fl_scaled shift)
{
    const fl_scaled rr = fl_scaled_of(moments->rr.m, moments->rr.e),
                    rd = fl_scaled_of(moments->rd.m, moments->rd.e),
                    dd = fl_scaled_of(moments->dd.m, moments->dd.e);
    const fl_scaled moved = dd.m == 0 ? dd : fl_scaled_times(shift, dd);
    const fl_scaled change = fl_scaled_plus((fl_scaled){rd.m, rd.e + 1}, moved);
    return (fl_moments){.rr = dd.m == 0 ? rr : fl_scaled_plus(rr, fl_scaled_times(shift, change)),
                        .rd = fl_scaled_plus(rd, moved),
                        .dd = dd};
}

static void merge_scaled(fl_moments *to, const fl_moments *from)
{
    const fl_scaled none = {0, 0}, shift = fl_scaled_plus(fl_scaled_of(from->pivot, 0),
                                                          fl_scaled_of(-to->pivot, 0));
    const fl_moments a = fl_shifted_moments(to, none), b = fl_shifted_moments(from, shift);
    to->rr = plain_if_ordinary(fl_scaled_plus(a.rr, b.rr));
    to->rd = plain_if_ordinary(fl_scaled_plus(a.rd, b.rd));
    to->dd = plain_if_ordinary(fl_scaled_plus(a.dd, b.dd));
}

/* The lighter side is shifted to the pivot of the heavier one: the other way round, large terms
 * would cancel. */
void fl_merge_moments(fl_moments *to, const fl_moments *other)
{
    fl_moments from = *other;
    if (is_less(to->dd, from.dd)) {
        from = *to;
        *to = *other;
    }
    if (!merge_plain(to, &from))
        merge_scaled(to, &from);
}

void fl_add_to_moments(fl_moments *moments, double l, double d)
{
    const double r = d == 0 ? l : l - moments->pivot * d;
    if (are_plain(moments) && d * d <= moments->dd.m && has_ordinary_square(d) &&
        has_ordinary_square(r) && is_ordinary_square(moments->rr.m + r * r) &&
        is_ordinary_square(moments->dd.m + d * d)) {
        moments->rr.m += r * r;
        moments->rd.m += r * d;
        moments->dd.m += d * d;
        return;
    }
    fl_moments unit = {.dd = square(d)};
    if (d == 0)
        unit.rr = square(l);
    else
        unit.pivot = l / d;
    fl_merge_moments(moments, &unit);
}
