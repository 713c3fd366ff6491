/* The elementwise losses: value l of one element and its derivatives dl/dx, dl/dy and dl/dz with
 * respect to input, target and a third array.
 *
 * p holds the numeric options in the order of the Python signature, rounded to `real`, followed by
 * numbers that must not be computed from rounded options (set_formula_params()). Members of the
 * result that the caller does not use are eliminated by inlining. A NaN in an element gives NaN in
 * its value and derivatives. Definitions follow torch.nn.functional, with limits in place of
 * avoidable infinities. Each comment gives the formula and its source. */
#ifndef FASTLOSS_ELEMENTWISE_FORMULAS_H
#define FASTLOSS_ELEMENTWISE_FORMULAS_H

#include "runtime/double_double.h"
#include "vector/real.h"
#include "vector/vector_math.h"

typedef struct {
    real l, dx, dy, dz;
} result;

typedef result (*formula)(real x, real y, real z, const real *p);

/* Parameters of a formula. Exponents and complements of options are formed in double: a rounded
 * power p changes x^-p by p |log x| half ULPs, and 1 - p loses every digit of a p close to 1. */
enum {
    FOCAL_GAMMA_LOW = 2,     /* γ - p[1] */
    FOCAL_ALPHA_NEGATIVE,    /* 1 - α, or 1 without α: the weight for y = 0 */
    FOCAL_ALPHA_DIFFERENCE,  /* dα_t/dy = 2 α - 1, or 0 without α */
    PINBALL_ABOVE_LOW = 1,   /* 1 - quantile, less 1 - p[0] */
    TWEEDIE_TWO_MINUS_P = 1, /* 2 - p */
    TWEEDIE_ONE_MINUS_P,     /* 1 - p, rounded */
    TWEEDIE_ONE_MINUS_P_LOW, /* and the rounding error */
    FORMULA_PARAMS = 5
};

/* Beyond this γ, sigmoid_focal is computed by fl_elementwise_extended(). */
static const double FOCAL_LARGE_GAMMA = 1024;

static const real HALF_LOG_2PI = (real)0.918938533204672741780;

/* max(a, b); NaN if a is NaN. b is never NaN. */
static INLINE real maximum(real a, real b) { return a < b ? b : a; }

/* -1, 0, 1 or NaN. */
static INLINE real sign(real x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

/* t a with 0 inf = 0, the limit for t -> 0 (as in scipy.special.xlogy). A NaN in a propagates. */
static INLINE real times(real t, real a) { return ((t == 0) & (a == a)) ? 0 : t * a; }

/* The derivative d, or NaN if a is NaN. */
static INLINE real or_nan(real d, real a) { return a == a ? d : a; }

/* |x - y| */
static INLINE result l1(real x, real y, real z, const real *p)
{
    real d = x - y;
    return (result){.l = FABS(d), .dx = sign(d), .dy = -sign(d)};
}

/* (x - y)² */
static INLINE result mse(real x, real y, real z, const real *p)
{
    real d = x - y;
    return (result){.l = d * d, .dx = 2 * d, .dy = -2 * d};
}

/* d²/(2β) if |d| < β, else |d| - β/2. The square is formed as d (d/β), as d² over- and underflows.
 * Girshick 2015, Fast R-CNN. */
static INLINE result smooth_l1(real x, real y, real z, const real *p)
{
    real beta = p[0], d = x - y, a = FABS(d), r = d / beta;
    int near = a < beta;
    real g = near ? r : sign(d);
    return (result){.l = near ? (real)0.5 * d * r : a - (real)0.5 * beta, .dx = g, .dy = -g};
}

/* d²/2 if |d| <= δ, else δ(|d| - δ/2). Huber 1964. */
static INLINE result huber(real x, real y, real z, const real *p)
{
    real delta = p[0], d = x - y, a = FABS(d);
    int near = a <= delta;
    real g = near ? d : delta * sign(d);
    return (result){
        .l = near ? (real)0.5 * d * d : delta * (a - (real)0.5 * delta), .dx = g, .dy = -g};
}

/* log cosh d. With t = expm1(-2|d|): for small |d| log1p(sinh² d)/2, where sinh² d = t²/(4(1 + t)),
 * else |d| - log 2 + log1p(1 + t). */
static INLINE result log_cosh(real x, real y, real z, const real *p)
{
    real d = x - y, a = FABS(d), t = EXPM1(-2 * a), g = -t / (2 + t);
    int near = a < (real)0.875;
    real log1p = LOG1P_UNIT(near ? (real)0.25 * t * t / (1 + t) : 1 + t);
    g = d < 0 ? -g : g;
    return (result){.l = near ? (real)0.5 * log1p : a - LN2 + log1p, .dx = g, .dy = -g};
}

/* y log y - y + log(2πy)/2 if y > 1, else 0: Stirling's approximation of log y!. */
static INLINE result stirling(real y)
{
    real log_y = LOG(y);
    result large = {.l = y * log_y - y + (HALF_LOG_2PI + (real)0.5 * log_y),
                    .dy = log_y + (real)0.5 / y};
    return (result){.l = y > 1 ? large.l : 0, .dy = y > 1 ? large.dy : 0};
}

static INLINE result add_results(result a, result b)
{
    return (result){a.l + b.l, a.dx + b.dx, a.dy + b.dy, a.dz + b.dz};
}

/* x - y log(x + ε) for the rate x */
static INLINE result poisson_nll(real x, real y, real z, const real *p)
{
    real rate = x + p[0], log_rate = LOG(rate);
    real ratio = y / (y == 0 && rate == 0 ? 1 : rate); /* 0/0 gives 0 */
    return (result){.l = x - times(y, log_rate), .dx = 1 - ratio, .dy = or_nan(-log_rate, y)};
}

static INLINE result poisson_nll_full(real x, real y, real z, const real *p)
{
    return add_results(poisson_nll(x, y, z, p), stirling(y));
}

/* exp x - y x for the log of the rate, x */
static INLINE result poisson_nll_log_input(real x, real y, real z, const real *p)
{
    real rate = EXP(x);
    return (result){.l = rate - times(y, x), .dx = rate - y, .dy = or_nan(-x, y)};
}

static INLINE result poisson_nll_log_input_full(real x, real y, real z, const real *p)
{
    return add_results(poisson_nll_log_input(x, y, z, p), stirling(y));
}

/* (log v + (x - y)²/v) / 2 with v = max(z, ε); dl/dz is dl/dv also if z < ε. Nix & Weigend 1994. */
static INLINE result gaussian_nll(real x, real y, real z, const real *p)
{
    real v = maximum(z, p[0]), d = x - y, r = d / v;
    return (result){
        .l = (real)0.5 * LOG(v) + (real)0.5 * d * r,
        .dx = r,
        .dy = -r,
        .dz = (real)0.5 / v - (real)0.5 * r * r,
    };
}

static INLINE result gaussian_nll_full(real x, real y, real z, const real *p)
{
    result r = gaussian_nll(x, y, z, p);
    r.l += HALF_LOG_2PI;
    return r;
}

/* y (log y - x) for the log-probability x; 0 if y = 0. Kullback & Leibler 1951. */
static INLINE result kl_div(real x, real y, real z, const real *p)
{
    real log_y = LOG(y);
    return (result){
        .l = y == 0 ? or_nan(0, x) : y * (log_y - x), .dx = or_nan(-y, x), .dy = log_y + 1 - x};
}

/* exp y (y - x); 0 if y = -inf */
static INLINE result kl_div_log_target(real x, real y, real z, const real *p)
{
    real t = EXP(y), d = y - x;
    int zero = y == -REAL_INFINITY && x == x;
    int infinite = FABS(d) == REAL_INFINITY; /* t may have underflowed to 0 */
    real l = zero ? 0 : infinite ? d : t * d;
    real dy = zero ? 0 : infinite ? d : t * (d + 1);
    return (result){.l = l, .dx = or_nan(-t, x), .dy = dy};
}

/* -(y log x + (1 - y) log(1 - x)), with logarithms clamped to at least -100 and x(1 - x) to at
 * least 1e-12 (a float, as in PyTorch). */
static INLINE result binary_cross_entropy(real x, real y, real z, const real *p)
{
    real log_x = LOG(x), log_1_minus_x = LOG1P(-x);
    return (result){
        .l = FABS(y * maximum(log_x, -100) + (1 - y) * maximum(log_1_minus_x, -100)),
        .dx = (x - y) / maximum(x * (1 - x), (real)1e-12f),
        .dy = or_nan(log_1_minus_x - log_x, y),
    };
}

/* (1 - y) softplus(x) + w y softplus(-x) for the weight w of positive targets, where
 * softplus(x) = max(x, 0) + log1p(exp(-|x|)) */
static INLINE result binary_cross_entropy_with_logits_pos_weight(real x, real y, real w,
                                                                 const real *p)
{
    real e = EXP_NEGATIVE(-FABS(x)), log1p_e = LOG1P_UNIT(e);
    real sigmoid_abs_x = 1 / (1 + e), sigmoid_neg_abs_x = e * sigmoid_abs_x;
    real softplus_x = maximum(x, 0) + log1p_e, softplus_neg_x = maximum(-x, 0) + log1p_e;
    real t = w * y, one_minus_y = 1 - y;
    int removed = w == 0 && y == 1; /* the weight removes the element even if x is NaN */
    return (result){
        .l = removed ? 0 : times(one_minus_y, softplus_x) + times(w, times(y, softplus_neg_x)),
        .dx = removed ? 0
                      : one_minus_y * (x < 0 ? sigmoid_neg_abs_x : sigmoid_abs_x) -
                            t * (x < 0 ? sigmoid_abs_x : sigmoid_neg_abs_x),
        .dy = or_nan(times(w, softplus_neg_x) - softplus_x, y),
    };
}

/* The same for w = 1: k |x| + log1p(exp(-|x|)), where k is 1 - y if x >= 0 and y if x < 0 */
static INLINE result binary_cross_entropy_with_logits(real x, real y, real z, const real *p)
{
    real a = FABS(x), e = EXP_NEGATIVE(-a), one_minus_y = 1 - y;
    return (result){
        .l = times(x < 0 ? y : one_minus_y, a) + LOG1P_UNIT(e),
        .dx = (x < 0 ? one_minus_y * e - y : one_minus_y - y * e) / (1 + e),
        .dy = or_nan(-x, y),
    };
}

/* x if y = 1, max(0, m - x) if y = -1; the hinge is active at 0 */
static INLINE result hinge_embedding(real x, real y, real z, const real *p)
{
    real hinge = p[0] - x;
    real l = y == 1 ? x : maximum(hinge, 0), slope = y == 1 ? 1 : hinge < 0 ? 0 : -1;
    return (result){.l = or_nan(l, y), .dx = or_nan(slope, l + y)};
}

/* log(1 + exp(-y x)) */
static INLINE result soft_margin(real x, real y, real z, const real *p)
{
    real t = -y * x, e = EXP_NEGATIVE(-FABS(t));
    return (result){.l = maximum(t, 0) + LOG1P_UNIT(e), .dx = -y * (t < 0 ? e : 1) / (1 + e)};
}

/* max(0, -z (x - y) + m), where z = 1 if x should be larger, else -1; the hinge is active at 0 */
static INLINE result margin_ranking(real x, real y, real z, const real *p)
{
    real hinge = p[0] - z * (x - y);
    real slope = hinge < 0 ? 0 : or_nan(z, hinge);
    return (result){.l = maximum(hinge, 0), .dx = -slope, .dy = slope};
}

/* α_t q^γ e with the cross entropy e = (1 - y) softplus(x) + y softplus(-x), the probability of
 * being wrong q = (1 - y) σ(x) + y σ(-x), and α_t = (1 - α)(1 - y) + α y, or 1 if α = -1. The
 * relative error of q is multiplied by γ. Lin et al. 2017. */
static INLINE result focal(const int squared, real x, real y, const real *p)
{
    real gamma = squared ? 2 : p[1], a = FABS(x), one_minus_y = 1 - y;
    real t = EXP_NEGATIVE(-a), sigmoid_a = 1 / (1 + t);
    real e = binary_cross_entropy_with_logits(x, y, 0, p).l;
    /* q = σ(a) wrong */
    real wrong = x < 0 ? one_minus_y * t + y : one_minus_y + y * t, q = sigmoid_a * wrong;
    real power = squared ? q * q : POW(q, gamma, p[FOCAL_GAMMA_LOW]);
    /* σ(x) σ(-x) e / q, and e / q, which is 1 if y is 0 or 1 and q underflows */
    real u = t == 0 ? 0 : sigmoid_a * t / wrong * e, v = q == 0 ? 1 : e / q;
    /* α = -1 makes both weights 1. */
    real alpha_t = FABS(p[0]) * y + p[FOCAL_ALPHA_NEGATIVE] * one_minus_y;
    real alpha_diff = p[FOCAL_ALPHA_DIFFERENCE];
    real tanh = EXPM1(-a) * sigmoid_a; /* of -a/2 */
    /* If q underflows for y = 0 or 1, q^γ = exp(-γ a) need not. */
    real safe_power =
        (q < REAL_MIN) & ((y == 0) | (y == 1)) ? EXP_NEGATIVE(-times(gamma, a)) : power;
    real slope =
        gamma * (1 - 2 * y) * u + sigmoid_a * (x < 0 ? one_minus_y * t - y : one_minus_y - y * t);
    real dq_weight = alpha_t * gamma * (x < 0 ? -tanh : tanh);
    int far = (a == REAL_INFINITY) & (q > 0); /* e is q a */
    real dy_at_inf = alpha_diff * q + alpha_t * (gamma + 1) * (x < 0 ? 1 : -1);
    real dy = times(safe_power, alpha_diff * e) +
              (dq_weight * times(safe_power, v) - alpha_t * times(safe_power, x));
    return (result){.l = times(alpha_t, e < REAL_INFINITY ? power * e : e),
                    .dx = alpha_t * (power * slope),
                    .dy = far ? times(dy_at_inf, REAL_INFINITY) : dy};
}

static INLINE result sigmoid_focal(real x, real y, real z, const real *p)
{
    return focal(0, x, y, p);
}

/* γ = 2 */
static INLINE result sigmoid_focal_squared(real x, real y, real z, const real *p)
{
    return focal(1, x, y, p);
}

/* α max(0, y - x) + (1 - α) max(0, x - y), minimal if x is the α-quantile of y. Koenker & Bassett
 * 1978. */
static INLINE result pinball(real x, real y, real z, const real *p)
{
    /* A sum, as gcc would not vectorise a selection between two parameters. */
    real d = x - y, above = (1 - p[0]) + p[PINBALL_ABOVE_LOW],
         slope = d < 0   ? -p[0]
                 : d > 0 ? above
                         : d;
    return (result){.l = times(d < 0 ? p[0] : above, FABS(d)), .dx = slope, .dy = -slope};
}

/* log x + y/x for a gamma distribution of y with mean x */
static INLINE result gamma_nll(real x, real y, real z, const real *p)
{
    return (result){.l = LOG(x) + y / x, .dx = (x - y) / x / x, .dy = or_nan(1 / x, y)};
}

/* x + y exp(-x) for the log of the mean, x. exp(-x) is applied as two factors, as it may overflow
 * although y exp(-x) does not. */
static INLINE result gamma_nll_log_input(real x, real y, real z, const real *p)
{
    real root = EXP((real)-0.5 * x), ratio = y * root * root;
    return (result){
        .l = ratio == REAL_INFINITY ? ratio : x + ratio,
        .dx = 1 - ratio,
        .dy = or_nan(root * root, y),
    };
}

/* Tweedie deviances 2 ∫ (y - m)/m^p dm from m = x to y, for a distribution with mean m and variance
 * proportional to m^p. Jørgensen 1987; sklearn.metrics.mean_tweedie_deviance. */

/* p = 0: (x - y)² */
static INLINE result tweedie_deviance_normal(real x, real y, real z, const real *p)
{
    return mse(x, y, z, p);
}

/* log(y/x) - 2w for w = (y - x)/(y + x), |w| <= 1/8: the series of 2 artanh w without its first
 * term. Truncation error 2^-67 relative to w. */
static INLINE real log_ratio_series_tail(real w)
{
    real w2 = w * w, series = (real)(2. / 19);
    series = series * w2 + (real)(2. / 17);
    series = series * w2 + (real)(2. / 15);
    series = series * w2 + (real)(2. / 13);
    series = series * w2 + (real)(2. / 11);
    series = series * w2 + (real)(2. / 9);
    series = series * w2 + (real)(2. / 7);
    series = series * w2 + (real)(2. / 5);
    series = series * w2 + (real)(2. / 3);
    return series * w2 * w;
}

/* w = d/(y + x) for d = y - x, where y + x may overflow */
static INLINE real relative_difference(real x, real y, real d)
{
    real sum = y + x;
    int overflows = sum == REAL_INFINITY;
    return (overflows ? (real)0.5 * d : d) / (overflows ? (real)0.5 * y + (real)0.5 * x : sum);
}

/* p = 1: 2 (y log(y/x) - (y - x)). For y close to x the difference cancels; with d = y - x and
 * w = d/(y + x) its main part is y 2w - d = d w. Loader 2000, Fast and Accurate Computation of
 * Binomial Probabilities. */
static INLINE result tweedie_deviance_poisson(real x, real y, real z, const real *p)
{
    real d = y - x, w = relative_difference(x, y, d), log_ratio = LOG_RATIO(y, x);
    real near = d * w + y * log_ratio_series_tail(w), far = times(y, log_ratio) - d;
    far = FABS(d) == REAL_INFINITY ? FABS(d) : far;
    return (result){.l = 2 * (FABS(w) < (real)0.125 ? near : far),
                    .dx = d == -REAL_INFINITY ? 2 : -2 * (d / x),
                    .dy = 2 * log_ratio};
}

/* p = 2: 2 (log(x/y) + y/x - 1), w as above */
static INLINE result tweedie_deviance_gamma(real x, real y, real z, const real *p)
{
    real d = y - x, r = d == -REAL_INFINITY ? -1 : d / x, w = relative_difference(x, y, d);
    real near = r * w - log_ratio_series_tail(w);
    real far = d == REAL_INFINITY ? d : r - LOG_RATIO(y, x);
    real small = x < y ? x : y, large = x < y ? y : x;
    return (result){.l = 2 * (FABS(w) < (real)0.125 ? near : far),
                    .dx = -2 * (r / x),
                    .dy = 2 * ((large == REAL_INFINITY ? sign(d) : d / large) / small)};
}

/* p = 3/2: 4 (√x - √y)²/√x; y = -0 is read as 0 */
static INLINE result tweedie_deviance_root(real x, real y, real z, const real *p)
{
    real d = x - y, root_x = SQRT(x), root_y = SQRT(y + 0), inverse = 1 / root_x;
    real gap = d / (root_x + root_y);
    return (result){.l = FABS(d) < REAL_INFINITY ? 4 * gap * (gap * inverse) : FABS(d),
                    .dx = d == REAL_INFINITY ? 0 : 2 * (d / x * inverse),
                    .dy = 4 * (inverse - 1 / root_y)};
}

/* v > 0 with the sign of s. By bits: gcc moves a comparison of a loop invariant out of the loop and
 * then does not vectorise it. */
static INLINE real copysign_bits(real v, real s)
{
    return real_from_bits(real_bits(v) | (real_bits(s) & SIGN_BIT));
}

/* All other p, with a = 2 - p and b = 1 - p: 2 (max(y, 0)^a/(ab) - y x^b/b + x^a/a), and
 * dl/dx = 2 (x - y) x^-p. For y close to x the three terms cancel. x^a is x x^b. Each term is
 * scaled as a whole, so that it rounds once and only its result overflows. */
static INLINE result tweedie_deviance(const int negative, const int above_2, real x, real y,
                                      const real *p)
{
    const real a = p[TWEEDIE_TWO_MINUS_P], b = p[TWEEDIE_ONE_MINUS_P],
               b_low = p[TWEEDIE_ONE_MINUS_P_LOW], c = (real)(2 / ((double)a * (double)b));
    const real two_over_a = 2 / a, two_over_b = 2 / b;
    real d = x - y;
    log_parts log_x = log_in_parts(x), log_y = log_in_parts(negative ? FABS(y) : y);
    power_parts x_b = power_in_parts(log_x, b, b_low), y_b = power_in_parts(log_y, b, b_low);
    real y_term = round_scaled(y_b.v * (log_y.m * FABS(c)), y_b.exponent + log_y.e);
    real xy_term = round_scaled(x_b.v * (log_y.m * FABS(two_over_b)), x_b.exponent + log_y.e);
    real x_term = round_scaled(x_b.v * (log_x.m * FABS(two_over_a)), x_b.exponent + log_x.e);
    y_term = y > 0 ? copysign_bits(y_term, c) : 0;
    xy_term = y == 0 ? 0 : copysign_bits(xy_term, two_over_b);
    xy_term = negative && y < 0 ? -xy_term : xy_term;
    real l = y_term - xy_term + copysign_bits(x_term, two_over_a);
    l = l > -REAL_INFINITY ? maximum(l, 0) : REAL_INFINITY; /* terms may overflow */
    l = d == 0 ? 0 : l;

    real x_slope = round_scaled(x_b.v * FABS(two_over_b), x_b.exponent);
    real y_slope = round_scaled(y_b.v * FABS(two_over_b), y_b.exponent);
    y_slope = !negative || y > 0 ? y_slope : 0;
    real dy = copysign_bits(y_slope, two_over_b) - copysign_bits(x_slope, two_over_b);
    dy = dy == dy ? dy : d * -REAL_INFINITY; /* both overflow */
    real abs_dx = negative ? round_scaled(x_b.v / log_x.m, x_b.exponent - log_x.e)
                           : 2 * round_scaled(x_b.v * FABS((real)0.5 * (d / x)), x_b.exponent);
    abs_dx = negative ? times(FABS(d), abs_dx) : abs_dx; /* |dl/dx| / 2 */
    abs_dx = d == 0 || (!negative && x == REAL_INFINITY) ? 0 : abs_dx;
    abs_dx = d == -REAL_INFINITY || (negative && d == REAL_INFINITY) ? REAL_INFINITY : abs_dx;
    real far = above_2 && x == REAL_INFINITY ? y_term : FABS(d);
    return (result){.l = FABS(d) < REAL_INFINITY ? l : or_nan(far, d),
                    .dx = 2 * or_nan(d < 0 ? -abs_dx : abs_dx, d),
                    .dy = or_nan(d == 0 ? 0 : dy, d)};
}

/* p < 0 */
static INLINE result tweedie_deviance_negative(real x, real y, real z, const real *p)
{
    return tweedie_deviance(1, 0, x, y, p);
}

/* 1 < p < 2 */
static INLINE result tweedie_deviance_compound(real x, real y, real z, const real *p)
{
    return tweedie_deviance(0, 0, x, y, p);
}

/* p > 2 */
static INLINE result tweedie_deviance_positive(real x, real y, real z, const real *p)
{
    return tweedie_deviance(0, 1, x, y, p);
}

/* Whether the options of a formula are rounded to `real`: lengths, not exponents or fractions. */
static inline int options_are_rounded(fl_formula formula)
{
    switch (formula) {
    case FL_FORMULA_sigmoid_focal:
    case FL_FORMULA_sigmoid_focal_squared:
    case FL_FORMULA_pinball:
    case FL_FORMULA_tweedie_deviance_negative:
    case FL_FORMULA_tweedie_deviance_compound:
    case FL_FORMULA_tweedie_deviance_positive:
        return 0;
    default:
        return 1;
    }
}

/* The parameters p (FORMULA_PARAMS) of a formula for its options (FL_PARAMS). */
static inline void set_formula_params(fl_formula formula, const double *option, real *p)
{
    for (int k = 0; k < FORMULA_PARAMS; k++)
        p[k] = k < FL_PARAMS ? (real)option[k] : 0;
    switch (formula) {
    case FL_FORMULA_sigmoid_focal:
    case FL_FORMULA_sigmoid_focal_squared:
        p[FOCAL_GAMMA_LOW] = p[1] < REAL_INFINITY ? (real)(option[1] - (double)p[1]) : 0;
        p[FOCAL_ALPHA_NEGATIVE] = (real)(1 - (option[0] < 0 ? 0 : option[0]));
        p[FOCAL_ALPHA_DIFFERENCE] = option[0] < 0 ? 0 : (real)(2 * option[0] - 1);
        break;
    case FL_FORMULA_pinball:
        p[PINBALL_ABOVE_LOW] = (real)((1 - option[0]) - (double)(1 - p[0]));
        break;
    case FL_FORMULA_tweedie_deviance_negative:
    case FL_FORMULA_tweedie_deviance_compound:
    case FL_FORMULA_tweedie_deviance_positive: {
        const fl_dd b = two_sum(1, -option[0]);
        p[TWEEDIE_TWO_MINUS_P] = (real)(2 - option[0]);
        p[TWEEDIE_ONE_MINUS_P] = (real)b.hi;
        p[TWEEDIE_ONE_MINUS_P_LOW] = (real)((b.hi - (double)p[TWEEDIE_ONE_MINUS_P]) + b.lo);
        break;
    }
    default:
        break;
    }
}

#endif
