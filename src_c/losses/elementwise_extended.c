/* Elementwise losses in extended precision, see elementwise_extended.h: the formulas of
 * elementwise_formulas.h in plain form. */
#include "losses/elementwise_extended.h"

#include <math.h>

typedef long double ext;

static const ext HALF_LOG_2PI = 0.918938533204672741780329736406L;

static ext sign(ext d) { return d > 0 ? 1 : d < 0 ? -1 : 0; }

/* t a with 0 inf = 0 */
static ext times(ext t, ext a) { return t == 0 ? 0 : t * a; }

static fl_extended of_difference(ext l, ext slope)
{
    return (fl_extended){.l = l, .dx = slope, .dy = -slope};
}

static fl_extended smooth_l1(ext d, ext beta)
{
    ext a = fabsl(d);
    return a < beta ? of_difference(d * (d / beta) / 2, d / beta)
                    : of_difference(a - beta / 2, sign(d));
}

static fl_extended huber(ext d, ext delta)
{
    ext a = fabsl(d);
    return a <= delta ? of_difference(d * d / 2, d)
                      : of_difference(delta * (a - delta / 2), delta * sign(d));
}

static fl_extended pinball(ext d, ext quantile)
{
    ext slope = d > 0 ? 1 - quantile : d < 0 ? -quantile : 0;
    return of_difference(times(slope, d), slope);
}

static fl_extended margin_ranking(ext d, ext z, ext margin)
{
    ext hinge = margin - z * d, slope = hinge < 0 ? 0 : -z;
    return of_difference(hinge < 0 ? 0 : hinge, slope);
}

/* x if y = 1, else max(0, m - x) */
static fl_extended hinge_embedding(ext x, ext y, ext margin)
{
    ext hinge = margin - x;
    if (y == 1)
        return (fl_extended){.l = x, .dx = 1};
    return (fl_extended){.l = hinge < 0 ? 0 : hinge, .dx = hinge < 0 ? 0 : -1};
}

/* α_t, and its derivative dα_t/dy */
typedef struct {
    ext v, slope;
} focal_weight;

/* log q for q = 1 - r: accurate where q is close to 1 too */
static ext log_of_complement(ext q, ext r) { return q < 0.5L ? logl(q) : log1pl(-r); }

/* The limit of focal() at x = inf, where q -> 1 - y and e = q x; at x = -inf by symmetry, with
 * 1 - y for y. If q -> 0, q^γ decreases faster than x increases. */
static fl_extended focal_at_infinity(ext q, ext one_minus_q, ext gamma, focal_weight a)
{
    if (q == 0)
        return (fl_extended){.dy = gamma > 0 || a.v == 0 ? 0 : -INFINITY};
    ext growth = a.slope * q - a.v * (gamma + 1),
        power = expl(times(gamma, log_of_complement(q, one_minus_q)));
    return (fl_extended){
        .l = times(a.v, INFINITY), .dx = a.v * power * q, .dy = times(growth, INFINITY)};
}

/* α_t q^γ e */
static fl_extended focal(ext x, ext y, ext alpha, ext gamma)
{
    const focal_weight a = {alpha < 0 ? 1 : alpha * y + (1 - alpha) * (1 - y),
                            alpha < 0 ? 0 : 2 * alpha - 1};
    if (x == INFINITY)
        return focal_at_infinity(1 - y, y, gamma, a);
    if (x == -INFINITY) {
        fl_extended r = focal_at_infinity(y, 1 - y, gamma, (focal_weight){a.v, -a.slope});
        return (fl_extended){.l = r.l, .dx = -r.dx, .dy = -r.dy};
    }
    const ext t = expl(-fabsl(x)), log1p_t = log1pl(t), near = 1 / (1 + t), far = t / (1 + t);
    const ext yes = x < 0 ? far : near, no = x < 0 ? near : far; /* σ(x), σ(-x) */
    const ext softplus_x = (x > 0 ? x : 0) + log1p_t, softplus_neg_x = (x < 0 ? -x : 0) + log1p_t;
    const ext e = (1 - y) * softplus_x + y * softplus_neg_x;
    const ext q = (1 - y) * yes + y * no, one_minus_q = (1 - y) * no + y * yes;
    ext log_q = log_of_complement(q, one_minus_q);
    if (y == 0 || y == 1)
        log_q = y == 0 ? -softplus_neg_x : -softplus_x;
    const ext power = expl(times(gamma, log_q)), ratio = q == 0 ? 1 : e / q;
    const ext steeper = gamma * power * ratio;
    return (fl_extended){
        .l = a.v * power * e,
        .dx = a.v * (steeper * (1 - 2 * y) * yes * no + power * ((1 - y) * yes - y * no)),
        .dy = a.slope * power * e + a.v * (steeper * (no - yes) - power * x)};
}

/* Adds Stirling's approximation of log y!. As y grows without bound, y log y exceeds the other
 * terms. */
static fl_extended add_stirling(fl_extended r, ext x, ext y)
{
    if (!(y > 1))
        return r;
    r.l += y * (logl(y) - 1) + (HALF_LOG_2PI + logl(y) / 2);
    r.dy += logl(y) + 0.5L / y;
    if (y == INFINITY && x < INFINITY)
        r.l = r.dy = INFINITY;
    return r;
}

/* x - y log(x + ε): inf at x = inf */
static fl_extended poisson_nll(ext x, ext y, ext epsilon, int full)
{
    ext rate = x + epsilon, log_rate = logl(rate);
    ext ratio = y == 0 ? 0 : y / rate;
    fl_extended r = {.l = x - times(y, log_rate), .dx = 1 - ratio, .dy = -log_rate};
    if (x == INFINITY && y < INFINITY)
        r.l = INFINITY;
    return full ? add_stirling(r, x, y) : r;
}

/* exp x - y x: inf at x = inf, and -inf at y = inf for x > 0 */
static fl_extended poisson_nll_log_input(ext x, ext y, int full)
{
    ext rate = expl(x);
    fl_extended r = {.l = rate - times(y, x), .dx = rate - y, .dy = -x};
    if (x == INFINITY && y < INFINITY)
        r.l = INFINITY;
    if (x < INFINITY && y == INFINITY) {
        r.l = -y * x;
        r.dx = -y;
    }
    return full ? add_stirling(r, x, y) : r;
}

/* (log v + d²/v)/2, v not -0. As v -> 0: -inf for d = 0, else inf. */
static fl_extended gaussian_nll(ext d, ext v, int full)
{
    ext slope = d == 0 ? 0 : d / v;
    fl_extended r = {.l = (logl(v) + times(d, slope)) / 2, .dx = slope, .dy = -slope};
    r.dz = v == INFINITY && fabsl(d) < INFINITY ? 0 : (1 - times(d, slope)) / v / 2;
    if (v == 0) {
        r.l = d == 0 ? -INFINITY : INFINITY;
        r.dz = d == 0 ? INFINITY : -INFINITY;
    }
    r.l += full ? HALF_LOG_2PI : 0;
    return r;
}

/* exp y (y - x) */
static fl_extended kl_div_log_target(ext x, ext y)
{
    ext t = expl(y), d = y - x;
    return (fl_extended){.l = d == 0 ? 0 : t * d, .dx = -t, .dy = d == -1 ? 0 : t * (d + 1)};
}

static fl_extended gamma_nll(ext x, ext y)
{
    fl_extended r = {.l = logl(x) + y / x, .dx = (x - y) / x / x, .dy = 1 / x};
    if (x == INFINITY && y < INFINITY)
        r.dx = 0;
    return r;
}

static fl_extended gamma_nll_log_input(ext x, ext y)
{
    ext inverse = expl(-x), ratio = y * inverse;
    return (fl_extended){
        .l = x == -INFINITY ? INFINITY : x + ratio, .dx = 1 - ratio, .dy = inverse};
}

/* p = 1, for finite x and y */
static fl_extended tweedie_poisson(ext x, ext y)
{
    ext log_ratio = logl(y / x);
    return (fl_extended){
        .l = 2 * (times(y, log_ratio) - (y - x)), .dx = 2 * ((x - y) / x), .dy = 2 * log_ratio};
}

/* p = 2, for finite x and y */
static fl_extended tweedie_gamma(ext x, ext y)
{
    ext r = (y - x) / x;
    return (fl_extended){.l = 2 * (r - logl(y / x)), .dx = -2 * r / x, .dy = 2 * (r / y)};
}

/* Other p, for finite x and y. Where a power overflows even here, so do value and derivatives,
 * unless y = x. */
static fl_extended tweedie(ext x, ext y, ext p)
{
    ext a = 2 - p, b = 1 - p, d = x - y, x_b = powl(x, b);
    ext y_a = y > 0 ? powl(y, a) : y == 0 && a < 0 ? INFINITY : 0;
    ext y_b = y > 0 ? powl(y, b) : y == 0 && b < 0 ? INFINITY : 0;
    fl_extended r = {.l = 2 * (y_a / (a * b) - y * x_b / b + x * x_b / a),
                     .dx = 2 * d * (x_b / x),
                     .dy = 2 * (y_b - x_b) / b};
    if (d == 0)
        return (fl_extended){0};
    r.l = r.l == r.l ? r.l : INFINITY;
    r.l = r.l < 0 ? 0 : r.l;
    r.dy = r.dy == r.dy ? r.dy : d > 0 ? -INFINITY : INFINITY;
    return r;
}

int fl_elementwise_extended(fl_formula formula, const double *p, double x, double y, double z,
                            fl_extended *result)
{
    const ext d = (ext)x - (ext)y;
    const int is_finite = x - x == 0 && y - y == 0;
    switch (formula) {
    case FL_FORMULA_smooth_l1:
        *result = smooth_l1(d, p[0]);
        return d == d;
    case FL_FORMULA_huber:
        *result = huber(d, p[0]);
        return d == d;
    case FL_FORMULA_pinball:
        *result = pinball(d, p[0]);
        return d == d;
    case FL_FORMULA_hinge_embedding:
        *result = hinge_embedding(x, y, p[0]);
        return 1;
    case FL_FORMULA_margin_ranking:
        *result = margin_ranking(d, z, p[0]);
        return d == d;
    case FL_FORMULA_sigmoid_focal:
        *result = focal(x, y, p[0], p[1]);
        return 1;
    case FL_FORMULA_sigmoid_focal_squared:
        *result = focal(x, y, p[0], 2);
        return 1;
    case FL_FORMULA_poisson_nll:
        *result = poisson_nll(x, y, p[0], 0);
        return 1;
    case FL_FORMULA_poisson_nll_full:
        *result = poisson_nll(x, y, p[0], 1);
        return 1;
    case FL_FORMULA_poisson_nll_log_input:
        *result = poisson_nll_log_input(x, y, 0);
        return 1;
    case FL_FORMULA_poisson_nll_log_input_full:
        *result = poisson_nll_log_input(x, y, 1);
        return 1;
    case FL_FORMULA_gaussian_nll:
        *result = gaussian_nll(d, z > p[0] ? z : p[0], 0);
        return 1;
    case FL_FORMULA_gaussian_nll_full:
        *result = gaussian_nll(d, z > p[0] ? z : p[0], 1);
        return 1;
    case FL_FORMULA_kl_div_log_target:
        *result = kl_div_log_target(x, y);
        return is_finite;
    case FL_FORMULA_gamma_nll:
        *result = gamma_nll(x, y);
        return 1;
    case FL_FORMULA_gamma_nll_log_input:
        *result = gamma_nll_log_input(x, y);
        return 1;
    case FL_FORMULA_tweedie_deviance_poisson:
        *result = tweedie_poisson(x, y);
        return is_finite;
    case FL_FORMULA_tweedie_deviance_gamma:
        *result = tweedie_gamma(x, y);
        return is_finite;
    case FL_FORMULA_tweedie_deviance_negative:
    case FL_FORMULA_tweedie_deviance_compound:
    case FL_FORMULA_tweedie_deviance_positive:
        *result = tweedie(x, y, p[0]);
        return is_finite;
    default:
        return 0;
    }
}
