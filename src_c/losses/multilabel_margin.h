/* multilabel_margin: scores x (N, C), labels y (N, C), where the set T of a row's labels is the
 * list before the first -1. Elisseeff & Weston 2001.
 *
 *     l = 1/C Σ_{j∈T} Σ_{k∉T} max(0, z_jk),  z_jk = 1 - x_j + x_k
 *
 * A label listed twice counts twice. Each z_jk > 0 adds 1/C to dl/dx_k and -1/C to dl/dx_j.
 *
 * Defined as torch.nn.functional.multilabel_margin_loss, except that NaN propagates: PyTorch skips
 * it. */
#ifndef FASTLOSS_MULTILABEL_MARGIN_H
#define FASTLOSS_MULTILABEL_MARGIN_H

#include "losses/margin_rows.h"
#include "runtime/checked_size.h"
#include "vector/lanes.h"

#include <math.h>
#include <string.h>

/* Scratch for n whole rows, each padded to a multiple of LANES: on the stack for rows that fit into
 * a tile, from the scratch pool for a longer row. */
typedef struct {
    int64_t width;    /* C rounded up to a multiple of LANES */
    double *x;        /* (n, width), 0 in the padding */
    double *is_label; /* (n, width), 0 or 1, 1 in the padding */
    double *slope;    /* (width), C dl/dx of one row */
    int64_t *label;   /* (n, C) */
    real *g;          /* (n, C), the gradient */
} multilabel_margin_scratch;

static multilabel_margin_scratch multilabel_margin_scratch_at(double *memory, int64_t width,
                                                              int64_t n, int64_t C)
{
    double *slope = memory + 2 * n * width, *label = slope + width;
    return (multilabel_margin_scratch){.width = width,
                                       .x = memory,
                                       .is_label = memory + n * width,
                                       .slope = slope,
                                       .label = (int64_t *)label,
                                       .g = (real *)(label + n * C)};
}

/* In bytes; n whole rows fit into a tile, or n is 1. */
static size_t multilabel_margin_scratch_bytes(int64_t width, int64_t n, int64_t C)
{
    return size_add(size_of_array(sizeof(double), 2 * n + 1, width),
                    size_of_array(sizeof(double), 2 * n, C));
}

/* The largest size of rows that fit into a tile: the padding of a row is shorter than LANES. */
enum { MULTILABEL_MARGIN_STACK_SIZE = 5 * TILE + 2 * FL_ROW_BATCH * LANES };

/* Reads the labels (n, C) and checks every entry; a row with an invalid one becomes inactive. */
static void multilabel_margin_load_labels(const fl_call *call, int64_t first, int64_t n,
                                          margin_row *rows, int64_t *label, fl_partial *partial)
{
    int64_t C = call->unit_size, invalid = 0;
    for (int64_t done = 0, size; done < n * C; done += size) {
        size = n * C - done < TILE ? n * C - done : TILE;
        const int64_t *from =
            fl_load_index(&call->operand[1], first * C + done, size, label + done);
        if (from != label + done)
            memcpy(label + done, from, (size_t)size * sizeof *label);
    }
    for (int64_t j = 0; j < n * C; j++)
        invalid += (label[j] < -1) | (label[j] >= C);
    if (invalid == 0)
        return;
    for (int64_t i = 0; i < n; i++) {
        if (!rows[i].active)
            continue;
        for (int64_t j = 0; j < C; j++)
            if (label[i * C + j] < -1 || label[i * C + j] >= C) {
                record_error(partial, first + i, 1, j);
                rows[i].active = 0;
                break;
            }
    }
}

/* Copies a row's scores to x (width) and marks its labels in is_label (width), since the gradient
 * may overwrite the scores in place. */
static void multilabel_margin_load_row(const fl_call *call, int64_t unit, const int64_t *label,
                                       const multilabel_margin_scratch *scratch, double *x,
                                       double *is_label)
{
    const int64_t C = call->unit_size, width = scratch->width;
    ALIGNED real tile[TILE];
    for (int64_t from = 0, size; from < C; from += size) {
        size = C - from < TILE ? C - from : TILE;
        const real *part = fl_load(&call->operand[0], unit * C + from, size, tile);
        for (int64_t c = 0; c < size; c++)
            x[from + c] = (double)part[c];
    }
    for (int64_t c = C; c < width; c++)
        x[c] = 0;
    for (int64_t c = 0; c < width; c++)
        is_label[c] = c >= C;
    for (int64_t j = 0; j < C && label[j] >= 0; j++)
        is_label[label[j]] = 1;
}

/* Adds Σ_{k∉T} max(0, z_jk) for one label j to the lanes of sum, and its derivatives to slope if
 * with_grad. is_exact promises that 1 - x_j + x_k is exact in double. */
static INLINE void multilabel_margin_add_label(const int with_grad, const int is_exact,
                                               int64_t label, int64_t width, const double *x,
                                               const double *is_label, lane_sum *sum, double *slope)
{
    const fl_dd gap = margin_gap(1, (real)x[label]);
    double positives[LANES] = {0};
    lane_sum local; /* in registers */
    copy_lane_sum(&local, sum);
    for (int64_t i = 0; i < width; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double z = is_exact ? gap.hi + x[i + k] : margin_at(gap, x[i + k]);
            int is_positive = !(z <= 0) & (is_label[i + k] == 0);
            double one = is_positive ? 1 : 0;
            add_to_lane(&local, k, is_positive ? z : 0);
            if (with_grad) {
                slope[i + k] += one;
                positives[k] += one;
            }
        }
    copy_lane_sum(sum, &local);
    if (!with_grad)
        return;
    slope[label] -= reduce_sum(positives, LANES); /* exact: counts */
}

/* l of a row of doubles whose sum overflows, though l may not. */
static double multilabel_margin_extended_mean(int64_t C, const int64_t *label, const double *x,
                                              const double *is_label)
{
    long double sum = 0;
    for (int64_t j = 0; j < C && label[j] >= 0; j++)
        for (int64_t k = 0; k < C; k++) {
            long double z = 1 + ((long double)x[k] - x[label[j]]);
            sum += z > 0 && is_label[k] == 0 ? z : 0;
        }
    return (double)(sum / C);
}

/* Returns l of a row; writes C dl/dx to slope (width) if with_grad. */
static INLINE double multilabel_margin_row(const int with_grad, int64_t C, const int64_t *label,
                                           int64_t width, const double *x, const double *is_label,
                                           double *slope)
{
    int has_nan = 0, is_inexact = REAL_IS_DOUBLE;
    lane_sum sum;
    clear_lane_sum(&sum);
    for (int64_t c = 0; c < width; c++) {
        double size = fabs(x[c]);
        has_nan |= x[c] != x[c];
        is_inexact |= !((size == 0) | ((size >= 0x1p-22) & (size <= 0x1p6)));
    }
    if (with_grad)
        for (int64_t c = 0; c < width; c++)
            slope[c] = 0;
    for (int64_t j = 0; j < C && label[j] >= 0; j++)
        if (is_inexact)
            multilabel_margin_add_label(with_grad, 0, label[j], width, x, is_label, &sum, slope);
        else
            multilabel_margin_add_label(with_grad, 1, label[j], width, x, is_label, &sum, slope);
    double total = has_nan ? NAN : reduce_lanes(&sum).hi;
    if (REAL_IS_DOUBLE && total == INFINITY)
        return multilabel_margin_extended_mean(C, label, x, is_label);
    if (with_grad && total != total)
        for (int64_t c = 0; c < C; c++)
            slope[c] = total;
    return total / (double)C;
}

static void multilabel_margin(const fl_call *call, fl_phase phase, int64_t first, int64_t n,
                              margin_row *rows, fl_partial *partial)
{
    const int with_grad = call->output[FL_GRADIENT] != NULL;
    const int64_t C = call->unit_size, size = n * C, width = (C + LANES - 1) / LANES * LANES;
    const size_t scratch_bytes = multilabel_margin_scratch_bytes(width, n, C);
    ALIGNED double stack[MULTILABEL_MARGIN_STACK_SIZE];
    double *memory = stack;
    if (scratch_bytes > sizeof stack)
        memory = fl_scratch_alloc(scratch_bytes);
    if (!memory) {
        record_error(partial, first, FL_NO_MEMORY, 0);
        return;
    }
    const multilabel_margin_scratch scratch = multilabel_margin_scratch_at(memory, width, n, C);
    multilabel_margin_load_labels(call, first, n, rows, scratch.label, partial);
    if (phase == FL_MAIN) {
        for (int64_t i = 0; i < n; i++)
            if (rows[i].active)
                multilabel_margin_load_row(call, first + i, scratch.label + i * C, &scratch,
                                           scratch.x + i * width, scratch.is_label + i * width);
        real *g = with_grad && C > 0
                      ? fl_output_buffer(call->output[FL_GRADIENT], first * C, size, scratch.g)
                      : scratch.g;
        for (int64_t i = 0; i < n; i++) {
            margin_row *row = &rows[i];
            const int64_t *label = scratch.label + i * C;
            const double *x = scratch.x + i * width, *is_label = scratch.is_label + i * width;
            if (row->active)
                row->loss =
                    with_grad
                        ? multilabel_margin_row(1, C, label, width, x, is_label, scratch.slope)
                        : multilabel_margin_row(0, C, label, width, x, is_label, scratch.slope);
            if (!with_grad)
                continue;
            for (int64_t c = 0; c < C; c++)
                g[i * C + c] = row->active ? (real)(row->grad_scale * scratch.slope[c]) : 0;
        }
        if (with_grad && C > 0)
            fl_store(call->output[FL_GRADIENT], first * C, size, g);
        margin_rows_emit(call, first, n, rows, partial);
    }
    if (memory != stack)
        fl_scratch_free(memory);
}

#endif
