/* Rows of features, two or three at a time: what the losses of embedding_tmpl.c share. A unit is a
 * row of each operand. */
#ifndef FASTLOSS_EMBEDDING_ROWS_H
#define FASTLOSS_EMBEDDING_ROWS_H

#include "fastloss.h"
#include "losses/scaled_norm.h"
#include "vector/loader.h"
#include "vector/row_span.h"

/* Constant over the rows of a call. */
typedef struct {
    const fl_call *call;
    int is_cosine, swap, operand_count, norm_count;
    double margin, p, epsilon;
} embedding_config;

/* The norms of triplet_margin: of a - p, a - n, p - n. */
enum { AP, AN, PN, NORMS };

/* The logarithm of a distance, count + mean. For a small p, count = log(k)/p for k entries that are
 * not 0, which may be so large that the sum would lose the digits of the mean. */
typedef struct {
    long double count, mean;
} log_distance;

typedef struct {
    double loss;
    double hinge_slope; /* dl/dc or dl/dδ(a, p): 1, -1, 0 beyond the hinge, NaN for a NaN loss */
    scaled_norm norm[NORMS]; /* √n_1, √n_2; or δ(a, p), δ(a, n), δ(p, n) */
    fl_dd dot;               /* x_1·x_2, each divided by its scale */
    double cosine;           /* c */
    int is_extended;         /* a distance overflows: log_length holds the logarithms of all */
    log_distance log_length[NORMS];
} embedding_row;

/* x[k] is operand k of the rows and columns of the span, a matrix (n, columns). */
static void embedding_load_operands(const embedding_config *config, row_span at, real (*tile)[TILE],
                                    const real **x)
{
    for (int k = 0; k < config->operand_count; k++)
        x[k] = fl_load(&config->call->operand[k], first_element(config->call, at),
                       element_count(at), tile[k]);
}

#endif
