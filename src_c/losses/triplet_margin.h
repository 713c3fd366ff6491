/* triplet_margin: anchors a, positives p and negatives n (N, D).
 *
 *     δ(u, v) = ‖e‖_p with e = u - v + ε,
 *     l = max(0, margin + δ(a, p) - δ_n), δ_n = δ(a, n), with swap min(δ(a, n), δ(p, n)),
 *     dδ/du = -dδ/dv = sign(e) (|e| / δ)^(p-1), 0 where e = 0; at p = inf 1,
 *         shared equally by the entries whose |e| is the largest.
 *
 * The hinge is active at 0; equal distances share the gradient of their minimum equally. */
#ifndef FASTLOSS_TRIPLET_MARGIN_H
#define FASTLOSS_TRIPLET_MARGIN_H

#include "losses/embedding_rows.h"
#include "losses/scaled_norm.h"

#include <math.h>

/* Makes one pass over all columns of the rows. */
static void triplet_accumulate(const embedding_config *config, int find_max, row_span at,
                               embedding_row *rows, real (*tile)[TILE])
{
    const double epsilon = config->epsilon;
    const real *x[FL_OPERANDS];
    for (at.to = 0; next_span(config->call, &at);) {
        embedding_load_operands(config, at, tile, x);
        int64_t n = at.to - at.from;
        for (int64_t i = 0; i < at.n; i++) {
            const real *a = x[0] + i * n, *p = x[1] + i * n, *neg = x[2] + i * n;
            norm_accumulate(&rows[i].norm[AP], find_max, at.from, a, p, n, epsilon, config->p);
            norm_accumulate(&rows[i].norm[AN], find_max, at.from, a, neg, n, epsilon, config->p);
            if (config->swap)
                norm_accumulate(&rows[i].norm[PN], find_max, at.from, p, neg, n, epsilon,
                                config->p);
        }
    }
}

/* Computes the norms of the rows: in one pass for p = 1, 2 and inf, and for any other p in one for
 * the maximum and one for the powers. At p = 2, a row that needs another scale takes a second one.
 */
static void triplet_norm_pass(const embedding_config *config, row_span at, embedding_row *rows,
                              real (*tile)[TILE])
{
    const int needs_max = config->p != 1 && config->p != 2;
    triplet_accumulate(config, needs_max, at, rows, tile);
    if (needs_max && config->p != INFINITY) {
        for (int64_t i = 0; i < at.n; i++)
            for (int k = 0; k < config->norm_count; k++)
                rows[i].norm[k].scale = norm_power_scale(rows[i].norm[k].max, config->p);
        triplet_accumulate(config, 0, at, rows, tile);
    }
    if (!REAL_IS_DOUBLE || config->p != 2)
        return;
    for (int64_t i = 0; i < at.n; i++) {
        int rescaled = 0;
        for (int k = 0; k < config->norm_count; k++)
            rescaled |= norm_rescale_if_needed(&rows[i].norm[k], SMALL_SUM);
        if (rescaled)
            triplet_accumulate(config, 0, (row_span){.first = at.first + i, .n = 1}, &rows[i],
                               tile);
    }
}

/* --- rows whose distances or derivatives overflow ---
 *
 * Two distances beyond the largest double may have a finite difference, or one whose sign decides;
 * so may two derivatives. Such rows are computed again in extended precision, from the logarithms
 * of their distances. */

/* Below this p, all rows are computed so: the power 1/p multiplies the rounding error of the sum.
 */
static const double SMALL_P = REAL_IS_DOUBLE ? 0.5 : 1e-6;

/* Below this p, powers are formed as expm1(p log), of which the sum keeps its digits: no term is
 * close to -1. */
static const double P_OF_SMALL_POWERS = 1e-3;

/* log δ(u, v) of a row, mean = -inf for 0, where u and v are operands of the row. NaN if one of
 * them holds an infinity or a NaN. */
static log_distance triplet_log_distance(const embedding_config *config, int64_t row, int u, int v)
{
    const fl_call *call = config->call;
    const int64_t D = call->unit_size;
    ALIGNED real u_tile[TILE], v_tile[TILE];
    const long double p = config->p;
    const int small_powers = p < P_OF_SMALL_POWERS;
    long double max = 0, sum = 0, count = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t from = 0, n; from < D; from += n) {
            n = D - from < TILE ? D - from : TILE;
            const real *a = fl_load(&call->operand[u], row * D + from, n, u_tile),
                       *b = fl_load(&call->operand[v], row * D + from, n, v_tile);
            for (int64_t i = 0; i < n; i++) {
                long double e = fabsl((long double)a[i] - (long double)b[i] + config->epsilon);
                if (pass == 0)
                    max = e > max || e != e ? e : max;
                else if (p < INFINITY && e > 0) {
                    sum += small_powers ? expm1l(p * logl(e / max)) : powl(e / max, p);
                    count++;
                }
            }
            if (max - max != 0)
                return (log_distance){0, (long double)NAN};
        }
    if (p == INFINITY || max == 0)
        return (log_distance){0, logl(max)};
    if (!small_powers)
        return (log_distance){0, logl(max) + logl(sum) / p};
    return (log_distance){logl(count) / p, logl(max) + log1pl(sum / count) / p};
}

/* log a - log b; 0 if both are -inf */
static long double triplet_log_ratio(log_distance a, log_distance b)
{
    return (a.count - b.count) + (a.mean == b.mean ? 0 : a.mean - b.mean);
}

static long double triplet_length(log_distance d) { return expl(d.count + d.mean); }

/* margin + near - far */
static double triplet_gap(long double margin, log_distance log_near, log_distance log_far)
{
    const long double log_ratio = triplet_log_ratio(log_near, log_far);
    if (log_ratio == 0)
        return (double)margin;
    long double near = triplet_length(log_near), far = triplet_length(log_far);
    if (near < HUGE_VALL || far < HUGE_VALL)
        return (double)(margin + near - far);
    return log_ratio > 0 ? INFINITY : -INFINITY;
}

/* Sets the derivatives of the minimum of two distances, or of increasing functions of them. */
static INLINE void triplet_set_min_weights(int swap, double an, double pn, embedding_row *row)
{
    double swapped = !swap || !(pn <= an) ? 0 : pn < an ? 1 : 0.5;
    row->norm[AN].min_weight = 1 - swapped;
    row->norm[PN].min_weight = swapped;
}

/* The gap of a row, in extended precision if its operands are finite; else `gap`. */
static double triplet_extended_gap(const embedding_config *config, int64_t unit, double gap,
                                   embedding_row *row)
{
    log_distance *log_length = row->log_length;
    log_length[AP] = triplet_log_distance(config, unit, 0, 1);
    log_length[AN] = triplet_log_distance(config, unit, 0, 2);
    log_length[PN] = config->swap ? triplet_log_distance(config, unit, 1, 2) : log_length[AN];
    for (int k = 0; k < NORMS; k++)
        if (log_length[k].mean != log_length[k].mean)
            return gap;
    row->is_extended = 1;
    const long double log_ratio = triplet_log_ratio(log_length[PN], log_length[AN]);
    triplet_set_min_weights(config->swap, 0, log_ratio < 0 ? -1 : log_ratio > 0, row);
    return triplet_gap(config->margin, log_length[AP], log_length[log_ratio < 0 ? PN : AN]);
}

/* The derivative of a distance by an entry e: sign(e) exp(log_size.count + log_size.mean). */
typedef struct {
    long double sign;
    log_distance log_size;
} triplet_slope;

static triplet_slope triplet_extended_slope(const embedding_config *config,
                                            const embedding_row *row, int k, real u, real v)
{
    long double e = (long double)u - (long double)v + config->epsilon, p = config->p;
    const log_distance length = row->log_length[k];
    triplet_slope s = {e > 0 ? 1 : e < 0 ? -1 : 0, {0, 0}};
    if (p == INFINITY)
        s.log_size.mean = logl(fabsl(e)) < length.mean ? -HUGE_VALL : -logl(row->norm[k].ties);
    else if (p != 1 && e != 0)
        s.log_size =
            (log_distance){(1 - p) * length.count, (1 - p) * (length.mean - logl(fabsl(e)))};
    if (k != AP && row->norm[k].min_weight == 0)
        s.sign = 0;
    else if (k != AP)
        s.log_size.mean += logl(row->norm[k].min_weight);
    return s;
}

/* a - b */
static double triplet_slope_difference(triplet_slope a, triplet_slope b)
{
    const long double log_ratio = triplet_log_ratio(a.log_size, b.log_size);
    const long double a_size = triplet_length(a.log_size), b_size = triplet_length(b.log_size);
    const long double difference = a.sign * a_size - b.sign * b_size;
    if (a.sign == b.sign && log_ratio == 0)
        return 0;
    if (a.sign == 0 || b.sign == 0)
        return (double)(a.sign == 0 ? (b.sign == 0 ? 0 : -b.sign * b_size) : a.sign * a_size);
    if (difference == difference)
        return (double)difference;
    return (double)(log_ratio > 0 ? a.sign : -b.sign) * INFINITY;
}

/* As triplet_gradient(), of a row that is computed in extended precision. */
static void triplet_extended_gradient(const embedding_config *config, const embedding_row *row,
                                      double grad_scale, int64_t start, int64_t n,
                                      const real *const *x, real *const *g)
{
    for (int64_t i = start; i < start + n; i++) {
        const real a = x[0][i], p = x[1][i], neg = x[2][i];
        triplet_slope ap = triplet_extended_slope(config, row, AP, a, p),
                      an = triplet_extended_slope(config, row, AN, a, neg),
                      pn = triplet_extended_slope(config, row, PN, p, neg), minus_pn = pn;
        minus_pn.sign = -pn.sign;
        double da = triplet_slope_difference(ap, an), dp = triplet_slope_difference(ap, minus_pn),
               dn = triplet_slope_difference(an, minus_pn);
        g[0][i] = (real)(grad_scale * da);
        g[1][i] = (real)(-grad_scale * dp);
        g[2][i] = (real)(grad_scale * dn);
    }
}

/* Whether derivatives (δ / |e|)^(1-p) of a row may exceed the largest double, though a difference
 * of two does not: |e| >= 2^-1074, and from p = 0.52 on no such power reaches 2^1024. */
static int triplet_slopes_may_overflow(const embedding_config *config, const embedding_row *row)
{
    const double large = 0x1p900;
    return REAL_IS_DOUBLE && config->p < 0.52 &&
           (row->norm[AP].length > large || row->norm[AN].length > large ||
            (config->swap && row->norm[PN].length > large));
}

/* Computes the loss of a row and its slope from the norms. */
static void triplet_finish_row(const embedding_config *config, int64_t unit, embedding_row *row)
{
    for (int k = 0; k < config->norm_count; k++)
        norm_finish(&row->norm[k], config->p);
    double an = row->norm[AN].length, pn = row->norm[PN].length;
    triplet_set_min_weights(config->swap, an, pn, row);
    double z = config->margin + (row->norm[AP].length - (row->norm[PN].min_weight == 1 ? pn : an));
    if (z - z != 0 || config->p < SMALL_P || triplet_slopes_may_overflow(config, row))
        z = triplet_extended_gap(config, unit, z, row);
    row->loss = z < 0 ? 0 : z;
    row->hinge_slope = z < 0 ? 0 : z == z ? 1 : z;
}

/* Writes the gradients of a row by a, p and n, times grad_scale. Operand i of the row is x[i] +
 * start, its gradient g[i] + start, n entries each. */
static INLINE void triplet_apply_grad(norm_grad grad, const int swap,
                                      const embedding_config *config, const embedding_row *row,
                                      double grad_scale, int64_t start, int64_t n,
                                      const real *const *x, real *const *g)
{
    const real *a = x[0] + start, *p = x[1] + start, *neg = x[2] + start;
    real *ga = g[0] + start, *gp = g[1] + start, *gn = g[2] + start;
    const scaled_norm norm_ap = row->norm[AP], norm_an = row->norm[AN], norm_pn = row->norm[PN];
    const double epsilon = config->epsilon, order = config->p;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double ap = grad(entry_difference(a[i], p[i], epsilon), &norm_ap, order);
        double an = grad(entry_difference(a[i], neg[i], epsilon), &norm_an, order), pn = 0;
        if (swap) {
            pn = grad(entry_difference(p[i], neg[i], epsilon), &norm_pn, order);
            an = norm_an.min_weight == 0 ? 0 : an * norm_an.min_weight; /* 0 even for NaN */
            pn = norm_pn.min_weight == 0 ? 0 : pn * norm_pn.min_weight;
        }
        ga[i] = (real)(grad_scale * (ap - an));
        gp[i] = (real)(-grad_scale * (ap + pn));
        gn[i] = (real)(grad_scale * (an + pn));
    }
}

static INLINE void triplet_dispatch_swap(norm_grad grad, const embedding_config *config,
                                         const embedding_row *row, double grad_scale, int64_t start,
                                         int64_t n, const real *const *x, real *const *g)
{
    if (config->swap)
        triplet_apply_grad(grad, 1, config, row, grad_scale, start, n, x, g);
    else
        triplet_apply_grad(grad, 0, config, row, grad_scale, start, n, x, g);
}

static void triplet_gradient(const embedding_config *config, const embedding_row *row,
                             double grad_scale, int64_t start, int64_t n, const real *const *x,
                             real *const *g)
{
    if (row->is_extended)
        triplet_extended_gradient(config, row, grad_scale, start, n, x, g);
    else if (config->p == 1)
        triplet_dispatch_swap(norm_grad_l1, config, row, grad_scale, start, n, x, g);
    else if (config->p == 2)
        triplet_dispatch_swap(norm_grad_l2, config, row, grad_scale, start, n, x, g);
    else if (config->p == INFINITY)
        triplet_dispatch_swap(norm_grad_linf, config, row, grad_scale, start, n, x, g);
    else
        triplet_dispatch_swap(norm_grad_lp, config, row, grad_scale, start, n, x, g);
}

#endif
