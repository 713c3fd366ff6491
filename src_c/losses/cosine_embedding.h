/* cosine_embedding: rows x_1, x_2 (N, D), labels y (N) of 1 or -1. With ε = 1e-12 (as a float, like
 * PyTorch):
 *
 *     n_i = Σ x_i² + ε,  c = x_1·x_2 / (√n_1 √n_2),
 *     l = 1 - c where y = 1, max(0, c - margin) where y = -1,
 *     dc/dx_1 = x_2 / (√n_1 √n_2) - c x_1 / n_1, dc/dx_2 likewise.
 *
 * The hinge is active at 0. */
#ifndef FASTLOSS_COSINE_EMBEDDING_H
#define FASTLOSS_COSINE_EMBEDDING_H

#include "losses/embedding_rows.h"
#include "losses/scaled_norm.h"
#include "vector/lanes.h"

#include <math.h>

static const double COSINE_EPSILON = 1e-12f;

/* The scale of tiny vectors. ε divided by its square must not overflow. */
static const double COSINE_SMALL_SCALE = 0x1p-500;

/* Σ x², Σ y², Σ x y */
typedef struct {
    lane_sum xx, yy, xy;
} cosine_products;

static INLINE void cosine_add_products(cosine_products *sum, int k, double x, double y)
{
    add_product_to_lane(&sum->xx, k, x, x);
    add_product_to_lane(&sum->yy, k, y, y);
    add_product_to_lane(&sum->xy, k, x, y);
}

/* Adds the products of n columns, from column `from` on, to the sums of a row. */
static void cosine_accumulate_span(embedding_row *row, int64_t from, const real *x, const real *y,
                                   int64_t n)
{
    const double inv_x = 1 / row->norm[0].scale, inv_y = 1 / row->norm[1].scale;
    cosine_products sum;
    lane_sum_clear(&sum.xx);
    lane_sum_clear(&sum.yy);
    lane_sum_clear(&sum.xy);
    int64_t i = 0;
    if (n < LANES) {
        for (; i < n; i++)
            cosine_add_products(&sum, 0, entry_scaled((double)x[i], inv_x),
                                entry_scaled((double)y[i], inv_y));
    } else {
        for (; i + LANES <= n; i += LANES) {
            row_prefetch(x + i);
            row_prefetch(y + i);
#pragma omp simd
            for (int k = 0; k < LANES; k++)
                cosine_add_products(&sum, k, entry_scaled((double)x[i + k], inv_x),
                                    entry_scaled((double)y[i + k], inv_y));
        }
        for (int k = 0; i + k < n; k++)
            cosine_add_products(&sum, k, entry_scaled((double)x[i + k], inv_x),
                                entry_scaled((double)y[i + k], inv_y));
    }
    row_total_add(&row->norm[0].sum, from, lane_sum_fold(&sum.xx, n));
    row_total_add(&row->norm[1].sum, from, lane_sum_fold(&sum.yy, n));
    row_total_add(&row->dot, from, lane_sum_fold(&sum.xy, n));
}

/* Makes one pass over all columns of the rows. */
static void cosine_accumulate(const embedding_config *config, row_span at, embedding_row *rows,
                              real (*tile)[TILE])
{
    const real *x[FL_OPERANDS];
    for (at.to = 0; next_span(config->call, &at);) {
        embedding_load_operands(config, at, tile, x);
        int64_t n = at.to - at.from;
        for (int64_t i = 0; i < at.n; i++)
            cosine_accumulate_span(&rows[i], at.from, x[0] + i * n, x[1] + i * n, n);
    }
}

/* Computes the sums of the rows, in a second pass for each row that needs another scale. */
static void cosine_norm_pass(const embedding_config *config, row_span at, embedding_row *rows,
                             real (*tile)[TILE])
{
    cosine_accumulate(config, at, rows, tile);
    for (int64_t i = 0; REAL_IS_DOUBLE && i < at.n; i++) {
        int x = norm_rescale_if_needed(&rows[i].norm[0], COSINE_SMALL_SCALE);
        int y = norm_rescale_if_needed(&rows[i].norm[1], COSINE_SMALL_SCALE);
        if (x || y)
            cosine_accumulate(config, (row_span){.first = at.first + i, .n = 1}, &rows[i], tile);
    }
}

/* ε in units of scale². */
static double cosine_scaled_epsilon(double scale)
{
    return REAL_IS_DOUBLE ? COSINE_EPSILON / scale / scale : COSINE_EPSILON;
}

/* Computes the loss of a row and its slope from the sums. */
static void cosine_finish_row(const embedding_config *config, embedding_row *row, double y)
{
    scaled_norm *a = &row->norm[0], *b = &row->norm[1];
    double a_root = sqrt(a->sum.hi + a->sum.lo + cosine_scaled_epsilon(a->scale));
    double b_root = sqrt(b->sum.hi + b->sum.lo + cosine_scaled_epsilon(b->scale));
    double c = (row->dot.hi + row->dot.lo) / (a_root * b_root);
    c = c > 1 ? 1 : c < -1 ? -1 : c;
    norm_set_length(a, a_root);
    norm_set_length(b, b_root);
    double z = c - config->margin;
    row->cosine = c;
    row->loss = y == 1 ? 1 - c : z < 0 ? 0 : z;
    row->hinge_slope = y == 1 ? -1 : z < 0 ? 0 : 1;
    if (c != c || y != y)
        row->loss = row->hinge_slope = NAN;
}

/* Writes dc/dx_1 and dc/dx_2 of n columns, times grad_scale. With u = x_1/√n_1 and v = x_2/√n_2 the
 * derivatives of c are (v - c u)/√n_1 and (u - c v)/√n_2. */
static void cosine_gradient(const embedding_row *row, double grad_scale, int64_t n, const real *x,
                            const real *y, real *gx, real *gy)
{
    const double c = row->cosine;
    const double x_scale = row->norm[0].inv_scale, y_scale = row->norm[1].inv_scale;
    const double x_factor = row->norm[0].grad_factor, y_factor = row->norm[1].grad_factor;
    const double gx_scale = grad_scale * (x_scale * x_factor),
                 gy_scale = grad_scale * (y_scale * y_factor);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double u = entry_scaled((double)x[i], x_scale) * x_factor;
        double v = entry_scaled((double)y[i], y_scale) * y_factor;
        gx[i] = (real)(gx_scale * (v - c * u));
        gy[i] = (real)(gy_scale * (u - c * v));
    }
}

#endif
