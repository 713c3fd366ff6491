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
#include "runtime/interrupt.h"
#include "vector/lanes.h"
#include "vector/radix_sort.h"

#include <math.h>
#include <string.h>

/* Scratch for n whole rows, each padded to a multiple of LANES: on the stack for rows that fit into
 * a tile, from the scratch pool for a longer row. */
typedef struct {
    int64_t width;  /* C rounded up to a multiple of LANES */
    double *x;      /* (n, width), 0 in the padding */
    double *listed; /* (n, width), how many times a class is in the list, 1 in the padding */
    double *slope;  /* (width), C dl/dx of one row */
    int64_t *label; /* (n, C) */
    real *g;        /* (n, C), the gradient */
} multilabel_margin_scratch;

static multilabel_margin_scratch multilabel_margin_scratch_at(double *memory, int64_t width,
                                                              int64_t n, int64_t C)
{
    double *slope = memory + 2 * n * width, *label = slope + width;
    return (multilabel_margin_scratch){.width = width,
                                       .x = memory,
                                       .listed = memory + n * width,
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

/* Copies a row's scores to x (width), since the gradient may overwrite them in place, and counts
 * its labels by class in listed (width). Returns how many there are. */
static int64_t multilabel_margin_load_row(const fl_call *call, int64_t unit, const int64_t *label,
                                          int64_t width, double *x, double *listed)
{
    const int64_t C = call->unit_size;
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
        listed[c] = c >= C;
    int64_t labels = 0;
    while (labels < C && label[labels] >= 0 && !fl_is_interrupted_after(labels + 1))
        listed[label[labels++]] += 1;
    return labels;
}

/* A row as its sums read it. */
typedef struct {
    int64_t C, width, labels;
    const int64_t *label;
    const double *x, *listed;
    double *slope; /* C dl/dx; NULL: not requested */
} multilabel_margin_row;

/* ---- Few labels: each with each class ------------------------------------------------------- */

/* Adds Σ_{k∉T} max(0, z_jk) for one label j to the lanes of sum, and its derivatives to slope if
 * with_grad. is_exact promises that 1 - x_j + x_k is exact in double. */
static INLINE void multilabel_margin_add_label(const int with_grad, const int is_exact,
                                               int64_t label, int64_t width, const double *x,
                                               const double *listed, lane_sum *sum, double *slope)
{
    const fl_dd gap = margin_gap(1, (real)x[label]);
    double positives[LANES] = {0};
    lane_sum local; /* in registers */
    copy_lane_sum(&local, sum);
    for (int64_t i = 0; i < width; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            double z = is_exact ? gap.hi + x[i + k] : margin_at(gap, x[i + k]);
            int is_positive = !(z <= 0) & (listed[i + k] == 0);
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

/* Returns C l of a row. */
static INLINE double multilabel_margin_pairs(const int with_grad, const int is_exact,
                                             const multilabel_margin_row *row)
{
    lane_sum sum;
    clear_lane_sum(&sum);
    if (with_grad)
        for (int64_t c = 0; c < row->width; c++)
            row->slope[c] = 0;
    for (int64_t j = 0; j < row->labels; j++) {
        multilabel_margin_add_label(with_grad, is_exact, row->label[j], row->width, row->x,
                                    row->listed, &sum, row->slope);
        if (row->C > FL_ASK_AFTER && fl_is_interrupted())
            break;
    }
    return reduce_lanes(&sum).hi;
}

/* ---- Many labels: sorted -----------------------------------------------------------------------
 *
 * Let s_0 <= s_1 <= ... be the scores of the labels in ascending order, and let the rank n of a
 * class k∉T be the number of labels with z_jk > 0: the first n. With n_b such classes of rank b or
 * more, and the sums over k∉T of rank n > 0 and over labels b > 0,
 *
 *     C l = Σ_k n (1 - s_{n-1} + x_k) + Σ_b b n_{b+1} (s_b - s_{b-1}).
 *
 * No term is negative, so nothing cancels, however large the scores are. For doubles, z, each
 * difference, and the product of either with a count are rounded by 2^-53 of themselves, and sums
 * keep their errors, so that C l is exact to 2^-52 before it is rounded, and l to 2^-51 of itself:
 * less than 4 ULP. The derivatives are counts, and exact. */

typedef struct {
    int64_t *ahead; /* (labels + 1), n_b */
    real *score;    /* (labels), s */
} multilabel_margin_order;

static size_t multilabel_margin_order_bytes(int64_t labels)
{
    return size_add(size_of_array(sizeof(int64_t), 2, labels), sizeof(int64_t));
}

static multilabel_margin_order multilabel_margin_order_at(void *memory, int64_t labels)
{
    int64_t *ahead = memory;
    return (multilabel_margin_order){.ahead = ahead, .score = (real *)(ahead + labels + 1)};
}

/* Whether to sort the labels. With AVX2, to find the rank of a class takes as long as 8 pairs of a
 * label and a class in double and 24 in float, and to sort a label 4 times as long. It counts twice
 * here, as AVX-512 halves a pair at best: the choice, and with it the bits, must not depend on the
 * instruction set. */
static int multilabel_margin_is_sorted(const multilabel_margin_row *row)
{
    const double C = (double)row->C, labels = (double)row->labels;
    return C * labels > (REAL_IS_DOUBLE ? 16 : 48) * (C + 4 * labels + 128);
}

/* x + 1, rounded up: s < x + 1 exactly if s < the result. */
static INLINE real multilabel_margin_end(real x)
{
    const real hi = x + 1, v = hi - x, lo = (x - (hi - v)) + (1 - v);
    const int_real up = hi > 0 ? 1 : -1;
    return lo > 0 ? real_from_bits(real_bits(hi) + (uint_real)up) : hi;
}

/* Whether some z is a difference of equal infinities. */
static int multilabel_margin_is_undefined(const multilabel_margin_row *row,
                                          const multilabel_margin_order *order)
{
    const double lowest = (double)order->score[0], highest = (double)order->score[row->labels - 1];
    if (is_finite(lowest) && is_finite(highest))
        return 0;
    for (int64_t c = 0; c < row->C; c++) {
        const double x = row->x[c];
        if (row->listed[c] == 0 && !is_finite(x) && (x == lowest || x == highest))
            return 1;
    }
    return 0;
}

/* Binary searches at once, which wait for memory together. They have no branch, which would be
 * mispredicted at every second step. */
enum { SEARCHES = 8 };

/* Returns the sum over k, times unit, a power of two; counts classes by rank in ahead; writes ranks
 * to slope if with_grad: of a label, how many labels have lower scores. */
static fl_dd multilabel_margin_rank(const int with_grad, double unit,
                                    const multilabel_margin_row *row,
                                    const multilabel_margin_order *order)
{
    lane_sum sum;
    clear_lane_sum(&sum);
    memset(order->ahead, 0, (size_t)(row->labels + 1) * sizeof *order->ahead);
    for (int64_t c = 0; c < row->width; c += SEARCHES) {
        const double *x = row->x + c, *listed = row->listed + c;
        real end[SEARCHES];
        int64_t rank[SEARCHES] = {0};
        for (int k = 0; k < SEARCHES; k++) {
            const real score = (real)x[k], margin = multilabel_margin_end(score);
            end[k] = listed[k] == 0 ? margin : score;
        }
        for (int64_t left = row->labels, half; left > 1; left -= half) {
            half = left / 2;
            const real *last = order->score + half - 1;
#pragma GCC unroll 8
            for (int k = 0; k < SEARCHES; k++)
                rank[k] += -(int64_t)(last[rank[k]] < end[k]) & half;
        }
        for (int k = 0; k < SEARCHES; k++) {
            rank[k] += order->score[rank[k]] < end[k];
            const double last = (double)order->score[rank[k] > 0 ? rank[k] - 1 : 0];
            const double z = margin_at(margin_gap(unit, (real)(unit * last)), unit * x[k]);
            const int is_other = listed[k] == 0;
            add_to_lane(&sum, (int)(c % LANES) + k,
                        is_other & (rank[k] > 0) ? (double)rank[k] * z : 0);
            order->ahead[rank[k]] += is_other;
            if (with_grad)
                row->slope[c + k] = (double)rank[k];
        }
        if (fl_is_interrupted_after(c + SEARCHES))
            break;
    }
    return reduce_lanes(&sum);
}

/* C l, times unit. */
static double multilabel_margin_order_sum(const int with_grad, double unit,
                                          const multilabel_margin_row *row,
                                          const multilabel_margin_order *order)
{
    const fl_dd near = multilabel_margin_rank(with_grad, unit, row, order);
    const real *score = order->score;
    int64_t *const ahead = order->ahead;
    fl_dd sum = {0, 0};
    for (int64_t b = row->labels - 1; b > 0; b--) {
        const double step = unit * (double)score[b] - unit * (double)score[b - 1];
        const int is_positive = (ahead[b + 1] > 0) & (score[b] != score[b - 1]);
        const fl_dd next =
            two_sum(sum.hi, is_positive ? (double)b * (double)ahead[b + 1] * step : 0);
        sum = (fl_dd){next.hi, sum.lo + next.lo};
        ahead[b] += ahead[b + 1];
    }
    return dd_add(near, (fl_dd){sum.hi, finite_or_zero(sum.lo)}).hi;
}

/* Returns l of a row, and the slopes if with_grad. */
static double multilabel_margin_sorted(const int with_grad, const multilabel_margin_row *row,
                                       const multilabel_margin_order *order)
{
    for (int64_t j = 0; j < row->labels && !fl_is_interrupted_after(j + 1); j++)
        order->score[j] = (real)row->x[row->label[j]];
    radix_sort(row->labels, order->score, (real *)order->ahead);
    const int is_long = row->C > FL_ASK_AFTER;
    if (is_long && fl_is_interrupted())
        return 0;
    if (multilabel_margin_is_undefined(row, order))
        return NAN;
    double l = multilabel_margin_order_sum(with_grad, 1, row, order) / (double)row->C;
    if (REAL_IS_DOUBLE && l == INFINITY) /* the sum may be, and then 1 is negligible */
        l = multilabel_margin_order_sum(with_grad, 0x1p-100, row, order) / (double)row->C * 0x1p100;
    if (!with_grad || (is_long && fl_is_interrupted())) /* ranks would be missing */
        return l;
    for (int64_t c = 0; c < row->C && !fl_is_interrupted_after(c + 1); c++) {
        const double listed = row->listed[c];
        if (listed > 0)
            row->slope[c] = 0 - listed * (double)order->ahead[(int64_t)row->slope[c] + 1];
    }
    return l;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* Returns l of a row and writes the slopes if with_grad; negative: no memory. */
static INLINE double multilabel_margin_loss(const int with_grad, const multilabel_margin_row *row)
{
    int has_nan = 0, is_inexact = REAL_IS_DOUBLE;
    for (int64_t c = 0; c < row->width; c++) {
        double size = fabs(row->x[c]);
        has_nan |= row->x[c] != row->x[c];
        is_inexact |= !((size == 0) | ((size >= 0x1p-22) & (size <= 0x1p6)));
    }
    const int is_sorted = multilabel_margin_is_sorted(row);
    double l = NAN;
    if (!has_nan && !is_sorted)
        l = (is_inexact ? multilabel_margin_pairs(with_grad, 0, row)
                        : multilabel_margin_pairs(with_grad, 1, row)) /
            (double)row->C;
    if (!has_nan && (is_sorted || (REAL_IS_DOUBLE && l == INFINITY))) {
        void *memory = fl_scratch_alloc(multilabel_margin_order_bytes(row->labels));
        if (!memory)
            return -1;
        const multilabel_margin_order order = multilabel_margin_order_at(memory, row->labels);
        l = multilabel_margin_sorted(with_grad && is_sorted, row, &order);
        fl_scratch_free(memory);
    }
    if (with_grad && l != l)
        for (int64_t c = 0; c < row->C; c++)
            row->slope[c] = l;
    return l;
}

static NOINLINE void multilabel_margin(const fl_call *call, fl_phase phase, int64_t first,
                                       int64_t n, margin_row *rows, fl_partial *partial)
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
        int64_t labels[FL_ROW_BATCH]; /* the length of each row's list */
        for (int64_t i = 0; i < n; i++)
            if (rows[i].active)
                labels[i] =
                    multilabel_margin_load_row(call, first + i, scratch.label + i * C, width,
                                               scratch.x + i * width, scratch.listed + i * width);
        real *g = with_grad && C > 0
                      ? fl_output_buffer(call->output[FL_GRADIENT], first * C, size, scratch.g)
                      : scratch.g;
        int is_interrupted = 0;
        for (int64_t i = 0; i < n && !is_interrupted; i++) {
            margin_row *row = &rows[i];
            if (row->active) {
                const multilabel_margin_row sums = {.C = C,
                                                    .width = width,
                                                    .labels = labels[i],
                                                    .label = scratch.label + i * C,
                                                    .x = scratch.x + i * width,
                                                    .listed = scratch.listed + i * width,
                                                    .slope = scratch.slope};
                row->loss =
                    with_grad ? multilabel_margin_loss(1, &sums) : multilabel_margin_loss(0, &sums);
                if (row->loss < 0) {
                    record_error(partial, first, FL_NO_MEMORY, 0);
                    row->active = 0;
                }
            }
            is_interrupted = C > FL_ASK_AFTER && fl_is_interrupted();
            if (!with_grad || is_interrupted)
                continue;
            for (int64_t c = 0; c < C; c++)
                g[i * C + c] = row->active ? (real)(row->grad_scale * scratch.slope[c]) : 0;
        }
        if (with_grad && C > 0 && !is_interrupted)
            fl_store(call->output[FL_GRADIENT], first * C, size, g);
        margin_rows_emit(call, first, n, rows, partial);
    }
    if (memory != stack)
        fl_scratch_free(memory);
}

#endif
