/* The elementwise losses: value l and the derivatives by x (input), y (target) and z (third array)
 * of one element.
 *
 * p holds the numeric options in the order of the Python signature. What a caller does not use
 * vanishes by inlining. An element with a NaN gives NaN in value and derivatives. Definitions:
 * torch.nn.functional, and what replaces its avoidable infinities by their limits. Comments give
 * what the code does not say. */
#ifndef FASTLOSS_FORMULAS_H
#define FASTLOSS_FORMULAS_H

#include "vector/real.h"
#include "vector/vector_math.h"

typedef struct {
    real l, dx, dy, dz;
} result;

typedef result (*formula)(real x, real y, real z, const real *p);

static const real HALF_LOG_2PI = (real)0.918938533204672741780;

/* max(a, b) where a NaN in a wins; b is never NaN. */
static INLINE real maximum(real a, real b) { return a < b ? b : a; }

/* -1, 0, 1, NaN. */
static INLINE real sign(real x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

/* A factor of exactly 0 wins over inf: the limit of t·a for t -> 0. NaN in a stays. */
static INLINE real times(real t, real a) { return ((t == 0) & (a == a)) ? 0 : t * a; }

/* The derivative d, or NaN where the element has one. */
static INLINE real unless_nan(real d, real a) { return a == a ? d : a; }

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

/* d²/(2β) where |d| < β, else |d| - β/2; d·(d/β), since d² over- and underflows. Girshick 2015,
 * Fast R-CNN. */
static INLINE result smooth_l1(real x, real y, real z, const real *p)
{
    real beta = p[0], d = x - y, a = FABS(d), r = d / beta;
    int near = a < beta;
    real g = near ? r : sign(d);
    return (result){.l = near ? (real)0.5 * d * r : a - (real)0.5 * beta, .dx = g, .dy = -g};
}

/* d²/2 where |d| <= δ, else δ(|d| - δ/2). Huber 1964. */
static INLINE result huber(real x, real y, real z, const real *p)
{
    real delta = p[0], d = x - y, a = FABS(d);
    int near = a <= delta;
    real g = near ? d : delta * sign(d);
    return (result){
        .l = near ? (real)0.5 * d * d : delta * (a - (real)0.5 * delta), .dx = g, .dy = -g};
}

/* log cosh d. With t = expm1(-2|d|): log1p(sinh² d)/2, sinh² d = t²/(4(1 + t)), for small |d|, |d|
 * - log 2 + log1p(1 + t) else. */
static INLINE result log_cosh(real x, real y, real z, const real *p)
{
    real d = x - y, a = FABS(d), t = EXPM1(-2 * a), g = -t / (2 + t);
    int near = a < (real)0.875;
    real log1p = LOG1P_UNIT(near ? (real)0.25 * t * t / (1 + t) : 1 + t);
    g = d < 0 ? -g : g;
    return (result){.l = near ? (real)0.5 * log1p : a - LN2 + log1p, .dx = g, .dy = -g};
}

/* y log y - y + log(2πy)/2 where y > 1, else 0: Stirling's approximation of log y!. */
static INLINE result stirling(real y)
{
    real log_y = LOG(y);
    result far = {.l = y * log_y - y + (HALF_LOG_2PI + (real)0.5 * log_y),
                  .dy = log_y + (real)0.5 / y};
    return (result){.l = y > 1 ? far.l : 0, .dy = y > 1 ? far.dy : 0};
}

static INLINE result plus(result a, result b)
{
    return (result){a.l + b.l, a.dx + b.dx, a.dy + b.dy, a.dz + b.dz};
}

/* x - y log(x + ε), x being the rate */
static INLINE result poisson_nll(real x, real y, real z, const real *p)
{
    real rate = x + p[0], log_rate = LOG(rate);
    real ratio = y / (y == 0 && rate == 0 ? 1 : rate); /* 0/0 is 0 */
    return (result){.l = x - times(y, log_rate), .dx = 1 - ratio, .dy = unless_nan(-log_rate, y)};
}

static INLINE result poisson_nll_full(real x, real y, real z, const real *p)
{
    return plus(poisson_nll(x, y, z, p), stirling(y));
}

/* exp x - y x, x being the log of the rate */
static INLINE result poisson_nll_log_input(real x, real y, real z, const real *p)
{
    real rate = EXP(x);
    return (result){.l = rate - times(y, x), .dx = rate - y, .dy = unless_nan(-x, y)};
}

static INLINE result poisson_nll_log_input_full(real x, real y, real z, const real *p)
{
    return plus(poisson_nll_log_input(x, y, z, p), stirling(y));
}

/* (log v + (x - y)²/v) / 2 with v = max(z, ε); the derivative by z passes the clamp. Nix & Weigend
 * 1994. */
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

/* y (log y - x), x being log-probabilities; 0 where y = 0. Kullback & Leibler 1951. */
static INLINE result kl_div(real x, real y, real z, const real *p)
{
    real log_y = LOG(y);
    return (result){.l = y == 0 ? unless_nan(0, x) : y * (log_y - x),
                    .dx = unless_nan(-y, x),
                    .dy = log_y + 1 - x};
}

/* exp y (y - x); 0 where y = -inf */
static INLINE result kl_div_log_target(real x, real y, real z, const real *p)
{
    real t = EXP(y), d = y - x;
    int none = y == -REAL_INFINITY && x == x;
    int apart = FABS(d) == REAL_INFINITY; /* where exp may have underflowed to 0 */
    return (result){.l = none    ? 0
                         : apart ? d
                                 : t * d,
                    .dx = unless_nan(-t, x),
                    .dy = none    ? 0
                          : apart ? d
                                  : t * (d + 1)};
}

/* -(y log x + (1 - y) log(1 - x)), logarithms not below -100, x(1 - x) not below 1e-12 (as a float,
 * like torch). */
static INLINE result binary_cross_entropy(real x, real y, real z, const real *p)
{
    real log_x = LOG(x), log_rest = LOG1P(-x);
    return (result){
        .l = -(y * maximum(log_x, -100) + (1 - y) * maximum(log_rest, -100)),
        .dx = (x - y) / maximum(x * (1 - x), (real)1e-12f),
        .dy = unless_nan(log_rest - log_x, y),
    };
}

/* (1 - y) softplus(x) + w y softplus(-x), w weighing the positives; softplus(x) = max(x, 0) +
 * log1p(exp(-|x|)) */
static INLINE result binary_cross_entropy_with_logits_pos_weight(real x, real y, real w,
                                                                 const real *p)
{
    real e = EXP_NEGATIVE(-FABS(x)), log1p_e = LOG1P_UNIT(e);
    real large = 1 / (1 + e), small = e * large;
    real positive = maximum(x, 0) + log1p_e, negative = maximum(-x, 0) + log1p_e;
    real t = w * y, rest = 1 - y;
    int removed = w == 0 && y == 1; /* by its weight, NaN or not */
    return (result){
        .l = removed ? 0 : times(rest, positive) + times(w, times(y, negative)),
        .dx = removed ? 0 : rest * (x < 0 ? small : large) - t * (x < 0 ? large : small),
        .dy = unless_nan(times(w, negative) - positive, y),
    };
}

/* The same for w = 1: log1p(exp(-|x|)), and |x| as far as y is on the other side */
static INLINE result binary_cross_entropy_with_logits(real x, real y, real z, const real *p)
{
    real a = FABS(x), e = EXP_NEGATIVE(-a), rest = 1 - y;
    return (result){
        .l = times(x < 0 ? y : rest, a) + LOG1P_UNIT(e),
        .dx = (x < 0 ? rest * e - y : rest - y * e) / (1 + e),
        .dy = unless_nan(-x, y),
    };
}

/* x where y = 1, max(0, m - x) where y = -1; active at 0 */
static INLINE result hinge_embedding(real x, real y, real z, const real *p)
{
    real gap = p[0] - x;
    real l = y == 1 ? x : maximum(gap, 0), slope = y == 1 ? 1 : gap < 0 ? 0 : -1;
    return (result){.l = unless_nan(l, y), .dx = unless_nan(slope, l + y)};
}

/* log(1 + exp(-y x)) */
static INLINE result soft_margin(real x, real y, real z, const real *p)
{
    real t = -y * x, e = EXP_NEGATIVE(-FABS(t));
    return (result){.l = maximum(t, 0) + LOG1P_UNIT(e), .dx = -y * (t < 0 ? e : 1) / (1 + e)};
}

/* max(0, -z (x - y) + m), z naming the larger one; active at 0 */
static INLINE result margin_ranking(real x, real y, real z, const real *p)
{
    real gap = p[0] - z * (x - y);
    real slope = gap < 0 ? 0 : unless_nan(z, gap);
    return (result){.l = maximum(gap, 0), .dx = -slope, .dy = slope};
}

/* α_t q^γ e with e = (1 - y) softplus(x) + y softplus(-x), the cross-entropy, q = (1 - y) σ(x) +
 * y σ(-x) and α_t = (1 - α)(1 - y) + α y, or 1 where α = -1; the error of q counts γ times. Lin et
 * al. 2017. */
static INLINE result focal(const int squared, real x, real y, const real *p)
{
    real alpha = p[0], gamma = squared ? 2 : p[1], a = FABS(x), rest = 1 - y;
    real t = EXP_NEGATIVE(-a), large = 1 / (1 + t);
    real entropy = binary_cross_entropy_with_logits(x, y, 0, p).l;
    real mixed = x < 0 ? rest * t + y : rest + y * t, q = large * mixed;
    real power = squared ? q * q : POW(q, gamma);
    /* σ(x) σ(-x) e / q, and e / q, which is 1 where y is 0 or 1 and q underflows */
    real u = t == 0 ? 0 : large * t / mixed * entropy, v = q == 0 ? 1 : entropy / q;
    /* Both weights are 1 where α = -1, without a comparison of α: it would keep gcc from vectors.
     */
    real positive = maximum(alpha, 0), balance = FABS(alpha) * y + (1 - positive) * rest;
    real tilt = positive + FABS(alpha) - 1;
    real tanh = EXPM1(-a) * large; /* of -|x|/2 */
    /* There q^γ need not: it is exp(-γ|x|). */
    real tail = (q < REAL_MIN) & ((y == 0) | (y == 1)) ? EXP_NEGATIVE(-times(gamma, a)) : power;
    real slope = gamma * (1 - 2 * y) * u + large * (x < 0 ? rest * t - y : rest - y * t);
    real steep = balance * gamma * (x < 0 ? -tanh : tanh);
    int far = (a == REAL_INFINITY) & (q > 0); /* e is q |x| */
    real ascent = tilt * q + balance * (gamma + 1) * (x < 0 ? 1 : -1);
    real dy = times(tail, tilt * entropy) + (steep * times(tail, v) - balance * times(tail, x));
    return (result){.l = times(balance, entropy < REAL_INFINITY ? power * entropy : entropy),
                    .dx = balance * (power * slope),
                    .dy = far ? times(ascent, REAL_INFINITY) : dy};
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

/* α max(0, y - x) + (1 - α) max(0, x - y), least where x is the α-quantile of y. Koenker & Bassett
 * 1978. */
static INLINE result pinball(real x, real y, real z, const real *p)
{
    real d = x - y, above = 1 - p[0], slope = d < 0 ? -p[0] : d > 0 ? above : d;
    return (result){.l = times(d < 0 ? p[0] : above, FABS(d)), .dx = slope, .dy = -slope};
}

/* log x + y/x, x being the mean of a gamma distribution of y */
static INLINE result gamma_nll(real x, real y, real z, const real *p)
{
    return (result){.l = LOG(x) + y / x, .dx = (x - y) / x / x, .dy = unless_nan(1 / x, y)};
}

/* x + y exp(-x), x being the log of the mean; exp(-x) in two factors, as it may overflow where y
 * exp(-x) does not. */
static INLINE result gamma_nll_log_input(real x, real y, real z, const real *p)
{
    real root = EXP((real)-0.5 * x), ratio = y * root * root;
    return (result){
        .l = ratio == REAL_INFINITY ? ratio : x + ratio,
        .dx = 1 - ratio,
        .dy = unless_nan(root * root, y),
    };
}

/* Deviances 2 ∫ (y - m)/m^p dm from m = x to y: what a Tweedie distribution of mean x and variance
 * m^p loses against the best mean. Jørgensen 1987; sklearn.metrics.mean_tweedie_deviance. */

/* p = 0: (x - y)² */
static INLINE result tweedie_deviance_normal(real x, real y, real z, const real *p)
{
    return mse(x, y, z, p);
}

/* log(y/x) - 2w for w = (y - x)/(y + x), |w| <= 1/8: 2 artanh w without its first term. Its error
 * is 2^-67 of w. */
static INLINE real log_ratio_beyond(real w)
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

/* p = 1: 2 (y log(y/x) - (y - x)). With w = d/(y + x), d = y - x, the part y 2w - d of a difference
 * that cancels is d w. Loader 2000, Fast and Accurate Computation of Binomial Probabilities. */
static INLINE result tweedie_deviance_poisson(real x, real y, real z, const real *p)
{
    real d = y - x, w = d / (y + x), log_ratio = LOG_RATIO(y, x);
    real near = d * w + y * log_ratio_beyond(w), far = times(y, log_ratio) - d;
    far = FABS(d) == REAL_INFINITY ? FABS(d) : far;
    return (result){.l = 2 * (FABS(w) < (real)0.125 ? near : far),
                    .dx = d == -REAL_INFINITY ? 2 : -2 * (d / x),
                    .dy = 2 * log_ratio};
}

/* p = 2: 2 (log(x/y) + y/x - 1), w as above */
static INLINE result tweedie_deviance_gamma(real x, real y, real z, const real *p)
{
    real d = y - x, r = d == -REAL_INFINITY ? -1 : d / x, w = d / (y + x);
    real near = r * w - log_ratio_beyond(w);
    real far = d == REAL_INFINITY ? d : r - LOG_RATIO(y, x);
    real small = x < y ? x : y, large = x < y ? y : x;
    return (result){.l = 2 * (FABS(w) < (real)0.125 ? near : far),
                    .dx = -2 * (r / x),
                    .dy = 2 * ((large == REAL_INFINITY ? sign(d) : d / large) / small)};
}

/* p = 3/2: 4 (√x - √y)²/√x; -0 is 0 */
static INLINE result tweedie_deviance_root(real x, real y, real z, const real *p)
{
    real d = x - y, root_x = SQRT(x), root_y = SQRT(y + 0), inverse = 1 / root_x;
    real gap = d / (root_x + root_y);
    return (result){.l = FABS(d) < REAL_INFINITY ? 4 * gap * (gap * inverse) : FABS(d),
                    .dx = d == REAL_INFINITY ? 0 : 2 * (d / x * inverse),
                    .dy = 4 * (inverse - 1 / root_y)};
}

/* v > 0 with the sign of s, without a comparison: gcc takes that of a constant out of the loop and
 * then cannot vectorise. */
static INLINE real with_sign(real v, real s)
{
    return real_from_bits(real_bits(v) | (real_bits(s) & SIGN_BIT));
}

/* The other p, a = 2 - p and b = 1 - p: 2 (max(y, 0)^a/(ab) - y x^b/b + x^a/a), the derivative by x
 * being 2 (x - y) x^-p. Where y is close to x the three terms cancel. x^a is x x^b; a term rounds
 * and overflows as a whole. */
static INLINE result tweedie_deviance(const int negative, const int above_2, real x, real y,
                                      const real *p)
{
    const real a = 2 - p[0], b = 1 - p[0], c = (real)(2 / ((double)a * (double)b));
    const real of_a = 2 / a, of_b = 2 / b;
    real d = x - y;
    log_parts log_x = log_in_parts(x), log_y = log_in_parts(negative ? FABS(y) : y);
    power_parts x_b = power_in_parts(log_x, b), y_b = power_in_parts(log_y, b);
    real first = round_scaled(y_b.v * (log_y.m * FABS(c)), y_b.exponent + log_y.e);
    real middle = round_scaled(x_b.v * (log_y.m * FABS(of_b)), x_b.exponent + log_y.e);
    real last = round_scaled(x_b.v * (log_x.m * FABS(of_a)), x_b.exponent + log_x.e);
    first = y > 0 ? with_sign(first, c) : 0;
    middle = y == 0 ? 0 : with_sign(middle, of_b);
    middle = negative && y < 0 ? -middle : middle;
    real l = first - middle + with_sign(last, of_a);
    l = l > -REAL_INFINITY ? maximum(l, 0)
                           : REAL_INFINITY; /* a difference of terms that overflow */
    l = d == 0 ? 0 : l;

    real x_slope = round_scaled(x_b.v * FABS(of_b), x_b.exponent);
    real y_slope = round_scaled(y_b.v * FABS(of_b), y_b.exponent);
    y_slope = !negative || y > 0 ? y_slope : 0;
    real rise = with_sign(y_slope, of_b) - with_sign(x_slope, of_b);
    rise = rise == rise ? rise : d * -REAL_INFINITY; /* both overflow */
    real slope = negative ? round_scaled(x_b.v / log_x.m, x_b.exponent - log_x.e)
                          : 2 * round_scaled(x_b.v * FABS((real)0.5 * (d / x)), x_b.exponent);
    slope = negative ? times(FABS(d), slope) : slope;
    slope = d == 0 || (!negative && x == REAL_INFINITY) ? 0 : slope;
    slope = d == -REAL_INFINITY || (negative && d == REAL_INFINITY) ? REAL_INFINITY : slope;
    real far = above_2 && x == REAL_INFINITY ? first : FABS(d);
    return (result){.l = FABS(d) < REAL_INFINITY ? l : unless_nan(far, d),
                    .dx = 2 * unless_nan(d < 0 ? -slope : slope, d),
                    .dy = unless_nan(d == 0 ? 0 : rise, d)};
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

#endif
