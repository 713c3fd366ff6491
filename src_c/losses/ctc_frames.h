/* Frames: from the input to the probabilities of a frame's states, and the scale that they have in
 * common.
 *
 * A pass loads K classes of each frame: those in use, or all C if they are few. The probability of
 * class c in frame t is split into
 *     y_t(c) = p_scale_t p_tc,  p_tc = exp(x_tc - frame_max_t),
 * where frame_max_t is the largest loaded x. The recursion runs on p. The logarithms of p_scale are
 * summed separately (log_scale), so that the loss of a confident prediction, whose P is near 1, has
 * full relative accuracy. p_scale_t is exp(frame_max_t) for log-probabilities; for logits it is
 *     exp(frame_max_t - m) / (1 + R),  m = max_c x_tc,  R = Σ_c exp(x_tc - m) - 1.
 * R is the sum over all entries but one that is exactly 1. This avoids the cancellation, and the
 * logarithm of the denominator is log1p(R). */
#ifndef FASTLOSS_CTC_FRAMES_H
#define FASTLOSS_CTC_FRAMES_H

#include "losses/ctc_targets.h"
#include "vector/vector_math.h"
#include "vector/vector_math_tmpl.h"

/* ln 2 in two parts, the first of 32 bits, so that its products with whole exponents are exact. */
#define CTC_LN2_HI 0x1.62e42feep-1
#define CTC_LN2_LO 0x1.a39ef35793c76p-33

#define CTC_LOG2_E 0x1.71547652b82fep+0

/* Arguments of exp below this have at most two fractional bits; exp is then taken to be a power of
 * two. */
static const double CTC_NO_FRACTION = -0x1p50;

/* --- loading --- */

/* Frame j of the pass, counted from the first frame of the sample. */
static int64_t ctc_frame_index(const ctc_pass *pass, int64_t j)
{
    return pass->direction == CTC_BETA ? pass->T - 1 - j : j;
}

/* The flat index of the first entry of frame t of sample n, in arrays of shape (N, T, C). */
static int64_t ctc_frame_entry(const fl_call *call, int64_t n, int64_t t)
{
    return (n * call->sequences.T + t) * call->sequences.C;
}

typedef real ctc_reals
    __attribute__((vector_size(CTC_LANES * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef double ctc_doubles
    __attribute__((vector_size(CTC_LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

/* Conversion of reals to doubles and back by whole vectors, the last of which overlaps the one
 * before it. */
static void ctc_to_double(int64_t n, const real *from, double *to)
{
    if (n < CTC_LANES) {
        for (int64_t k = 0; k < n; k++)
            to[k] = (double)from[k];
        return;
    }
    for (int64_t k = 0; k < n; k += CTC_LANES) {
        int64_t at = k + CTC_LANES <= n ? k : n - CTC_LANES;
        *(ctc_doubles *)(to + at) =
            __builtin_convertvector(*(const ctc_reals *)(from + at), ctc_doubles);
    }
}

static void ctc_from_double(int64_t n, const double *from, real *to)
{
    if (n < CTC_LANES) {
        for (int64_t k = 0; k < n; k++)
            to[k] = (real)from[k];
        return;
    }
    for (int64_t k = 0; k < n; k += CTC_LANES) {
        int64_t at = k + CTC_LANES <= n ? k : n - CTC_LANES;
        *(ctc_reals *)(to + at) =
            __builtin_convertvector(*(const ctc_doubles *)(from + at), ctc_reals);
    }
}

/* Loads x of the K classes of a frame. */
static void ctc_load_scores(const ctc_pass *pass, int64_t t, double *restrict score)
{
    const fl_array *x = &pass->call->operand[0];
    const int64_t C = pass->call->sequences.C, entry = ctc_frame_entry(pass->call, pass->sample, t),
                  *class = pass->class_index;
    ALIGNED real tile[TILE];
    real one;
    /* fl_output_buffer() without scratch returns NULL if the row cannot be read in place. */
    const real *row = C <= TILE ? fl_load(x, entry, C, tile) : fl_output_buffer(x, entry, C, NULL);
    if (pass->uses_all_classes)
        ctc_to_double(C, row, score);
    else if (row)
        for (int64_t k = 0; k < pass->class_count; k++)
            score[k] = (double)row[class[k]];
    else
        for (int64_t k = 0; k < pass->class_count; k++)
            score[k] = (double)*fl_load(x, entry + class[k], 1, &one);
}

/* Prefetches them: entries that are far apart cost a cache miss each. */
static void ctc_prefetch_scores(const ctc_pass *pass, int64_t t)
{
    const int64_t C = pass->call->sequences.C, entry = ctc_frame_entry(pass->call, pass->sample, t),
                  *class = pass->class_index;
    const real *row = fl_output_buffer(&pass->call->operand[0], entry, C, NULL);
    if (!row)
        return;
    for (int64_t k = 0; k < pass->class_count; k++)
        __builtin_prefetch(&row[class[k]]);
}

/* max: the largest score, NaN if the score of a class in use is NaN or +inf. exponent_range: the
 * difference to the smallest finite score of a class in use, in powers of two. */
static void ctc_frame_bounds(int64_t n, const double *score, const double *mask, double *max,
                             double *exponent_range)
{
    const double inf = __builtin_inf();
    double high = -inf, low = inf;
#pragma omp simd reduction(max : high) reduction(min : low)
    for (int64_t k = 0; k < n; k++) {
        double x = score[k] < inf ? score[k] : -mask[k];
        high = ctc_max(high, x);
        low = ctc_min(x > mask[k] ? x : inf, low);
    }
    *max = high < inf ? high : __builtin_nan("");
    *exponent_range = high - high == 0 && low < inf ? (high - low) * CTC_LOG2_E : 0;
}

/* p := score - max, or -inf if max is not finite. */
static void ctc_subtract_max(int64_t n, const double *restrict score, double max,
                             double *restrict p)
{
    const int is_finite = max - max == 0;
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        p[k] = is_finite ? score[k] - max : -__builtin_inf();
}

/* The rounding error of x - max, as in two_sum(); 0 if exp(x - max) is a power of two or inf. */
static INLINE double ctc_rounding_error(double x, double max)
{
    double d = x - max, back = d - x;
    return d > CTC_NO_FRACTION && d <= 0 ? (x - (d - back)) - (max + back) : 0;
}

/* Corrects p = exp(score - max) to first order for the rounding error of the difference. Scores
 * that were floats do not need it. */
static void ctc_correct_rounding(int64_t n, const double *restrict score, double max,
                                 double *restrict p)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++) {
        double correction = p[k] * ctc_rounding_error(score[k], max);
        p[k] += correction == correction ? correction : 0; /* not NaN = inf 0 */
    }
}

/* Σ p - 1, the sum over all entries but one that is 1. */
static double ctc_sum_minus_one(int64_t n, const double *p)
{
    double hi[CTC_LANES] = {0}, lo[CTC_LANES] = {0}, ones[CTC_LANES] = {0};
    for (int64_t k = 0; k < n; k += CTC_LANES)
#pragma omp simd
        for (int i = 0; i < CTC_LANES; i++) {
            double one = p[k + i] == 1;
            fl_dd sum = two_sum(hi[i], p[k + i] - one);
            hi[i] = sum.hi;
            lo[i] += sum.lo;
            ones[i] += one;
        }
    return (reduce_sum(ones, CTC_LANES) - 1) +
           (reduce_sum(hi, CTC_LANES) + finite_or_zero(reduce_sum(lo, CTC_LANES)));
}

/* --- sums of probabilities --- */

/* Records frame t if its probabilities do not sum to 1; a NaN passes. */
static void ctc_check_frame_sum(const fl_call *call, int64_t n, int64_t t, double sum,
                                fl_partial *partial)
{
    if (__builtin_fabs(sum - 1) > call->sequences.sum_tolerance)
        record_error(partial, n, 0, t);
}

/* Σ exp(x) of the C entries from `entry` on. */
static double ctc_frame_sum(const fl_call *call, int64_t entry)
{
    const int64_t C = call->sequences.C;
    ALIGNED real tile[TILE], e[TILE];
    fl_dd sum = {0, 0};
    for (int64_t first = 0; first < C; first += TILE) {
        int64_t m = C - first < TILE ? C - first : TILE;
        const real *x = fl_load(&call->operand[0], entry + first, m, tile);
        for (int64_t c = 0; c < m; c++)
            e[c] = EXP(x[c]);
        sum = dd_add(sum, sum_tile(e, m));
    }
    return sum.hi;
}

/* The relative error of ctc_rough_frame_sum(): 7.5e-5 of the polynomial, the rest of roundings. */
static const double CTC_ROUGH_SUM_ERROR = 1e-4;

/* exp(x) of log-probabilities: 2^k 2^r with a whole k and |r| <= 1/2, 2^r by a minimax polynomial.
 * 4 for x > 0.7, meaningless for NaN. */
static INLINE real ctc_rough_exp(real x)
{
    const real smallest = 1 - REAL_EXPONENT_BIAS;
    real t = x * LOG2_E;
    t = t < smallest ? smallest : t;
    const real shifted = t + ROUND_MAGIC, r = t - (shifted - ROUND_MAGIC);
    real p = FMA(REAL_C(0x1.c3f760p-5), r, REAL_C(0x1.f0de1ap-3));
    p = FMA(p, r, REAL_C(0x1.62f31ap-1));
    p = FMA(p, r, REAL_C(0x1.fff692p-1));
    p = real_from_bits(real_bits(p) + (real_bits(shifted) << REAL_MANTISSA_BITS));
    return t > 1 ? 4 : p;
}

/* Σ exp(x) as ctc_frame_sum(), in about half the time. */
static double ctc_rough_frame_sum(const fl_call *call, int64_t entry)
{
    enum { WIDTH = 2 * LANES };
    const int64_t C = call->sequences.C;
    ALIGNED real tile[TILE];
    double sum = 0, total[WIDTH];
    for (int64_t first = 0; first < C; first += TILE) {
        const int64_t m = C - first < TILE ? C - first : TILE;
        const real *x = fl_load(&call->operand[0], entry + first, m, tile);
        real lane[WIDTH] = {0}, end[WIDTH];
        int64_t c = 0;
        for (; c + WIDTH <= m; c += WIDTH)
#pragma omp simd
            for (int k = 0; k < WIDTH; k++)
                lane[k] += ctc_rough_exp(x[c + k]);
        for (int k = 0; c < m && k < WIDTH; k++)
            end[k] = c + k < m ? x[c + k] : -REAL_INFINITY;
#pragma omp simd
        for (int k = 0; k < WIDTH; k++)
            lane[k] += c < m ? ctc_rough_exp(end[k]) : 0;
        for (int k = 0; k < WIDTH; k++)
            total[k] = (double)lane[k];
        sum += reduce_sum(total, WIDTH);
    }
    return sum;
}

/* Checks a frame of log-probabilities: exactly, if a rough sum is not clear. */
static void ctc_check_frame(const fl_call *call, int64_t n, int64_t t, fl_partial *partial)
{
    const int64_t entry = ctc_frame_entry(call, n, t);
    const double clear = call->sequences.sum_tolerance - CTC_ROUGH_SUM_ERROR;
    if (!(__builtin_fabs(ctc_rough_frame_sum(call, entry) - 1) < clear))
        ctc_check_frame_sum(call, n, t, ctc_frame_sum(call, entry), partial);
}

/* Checks frames [from, to) of log-probabilities. */
static void ctc_check_frames(const fl_call *call, int64_t n, int64_t from, int64_t to,
                             fl_partial *partial)
{
    for (int64_t t = from; t < to; t++)
        ctc_check_frame(call, n, t, partial);
}

/* Whether frames of log-probabilities are checked where they are loaded. With a gradient they are
 * checked where it is written: all classes are read there in any case. */
static int ctc_checks_loaded_frames(const ctc_pass *pass)
{
    return pass->call->formula == FL_FORMULA_ctc && !pass->call->output[FL_GRADIENT];
}

/* Checks the frames of a batch of all classes. */
static void ctc_check_batch(const ctc_pass *pass, fl_partial *partial)
{
    const int64_t n = pass->batch_end - pass->batch_first;
    double scale[CTC_BATCH_FRAMES];
    vector_math_double(MATH_EXP, n, pass->frame_max, scale);
    for (int64_t f = 0; f < n; f++) {
        const double *p = pass->p + f * pass->padded_classes;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < pass->padded_classes; k++)
            sum += p[k];
        ctc_check_frame_sum(pass->call, pass->sample, ctc_frame_index(pass, pass->batch_first + f),
                            scale[f] * sum, partial);
    }
}

/* --- batches of frames --- */

/* Gathers p of the labels of frames [j, j + n), which become the batch. */
static void ctc_gather_labels(ctc_pass *pass, int64_t j, int64_t n)
{
    const int64_t stride = ctc_row_stride(pass->S), *slot = pass->label_slot;
    for (int64_t f = 0; f < n; f++) {
        const double *restrict p = pass->p + f * pass->frame_stride * pass->padded_classes;
        double *restrict label = pass->label_p + f * stride;
        for (int64_t i = 0; i < pass->S; i++)
            label[i] = p[slot[i]];
    }
    pass->batch_first = j;
    pass->batch_end = j + n;
}

/* Frames in the batch that starts at frame j. */
static int64_t ctc_next_batch_size(const ctc_pass *pass, int64_t j)
{
    return pass->end - j < pass->batch_frames ? pass->end - j : pass->batch_frames;
}

/* Loads the batch that starts at frame j, and checks its frames unless `partial` is NULL. Entries
 * that are far apart are prefetched, unless the check, which reads the whole frame, precedes. */
static void ctc_load_frames(ctc_pass *pass, int64_t j, fl_partial *partial)
{
    const int64_t n = ctc_next_batch_size(pass, j), K = pass->padded_classes;
    const int64_t at = pass->resident_rows > 0 && j < pass->midpoint ? j : 0;
    double *p = pass->p_buffer + at * K, *exponent_range = pass->range_buffer + at;
    const int checks = partial && !pass->uses_all_classes && ctc_checks_loaded_frames(pass);
    if (!pass->uses_all_classes && !checks)
        for (int64_t f = j + n; f < pass->end && f < j + 2 * n; f++)
            ctc_prefetch_scores(pass, ctc_frame_index(pass, f));
    for (int64_t f = 0; f < n; f++) {
        const int64_t t = ctc_frame_index(pass, j + f);
        if (checks)
            ctc_check_frame(pass->call, pass->sample, t, partial);
        ctc_load_scores(pass, t, pass->scores + f * K);
    }
    for (int64_t f = 0; f < n; f++)
        ctc_frame_bounds(K, pass->scores + f * K, pass->mask, &pass->frame_max[f],
                         &exponent_range[f]);
    for (int64_t f = 0; f < n; f++)
        ctc_subtract_max(K, pass->scores + f * K, pass->frame_max[f], p + f * K);
    vector_math_double(MATH_EXP, n * K, p, p);
    if (REAL_IS_DOUBLE)
        for (int64_t f = 0; f < n; f++)
            ctc_correct_rounding(K, pass->scores + f * K, pass->frame_max[f], p + f * K);
    pass->p = p;
    pass->exponent_range = exponent_range;
    ctc_gather_labels(pass, j, n);
}

/* Takes the batch that starts at frame j from the opposite pass, which loaded it before it reached
 * the midpoint. */
static void ctc_reuse_frames(ctc_pass *pass, int64_t j)
{
    pass->p = pass->frame_source->p_buffer + (pass->T - 1 - j) * pass->padded_classes;
    pass->exponent_range = pass->frame_source->range_buffer + (pass->T - 1 - j);
    pass->frame_stride = -1;
    ctc_gather_labels(pass, j, ctc_next_batch_size(pass, j));
}

/* --- the current frame --- */

/* p of the current frame as scaled doubles: exp(r) 2^n, with a whole n and
 * r = score - max - n ln 2. */
static void ctc_scale_frame(ctc_pass *pass)
{
    const double *score = pass->scores + pass->current * pass->padded_classes;
    const double magic = 0x1.8p52, max = pass->frame_max[pass->current];
    double *m = pass->scaled_m, *e = pass->scaled_e;
    for (int64_t k = 0; k < pass->class_count; k++) {
        double a = score[k] - max, n = a * CTC_LOG2_E;
        double whole = (n + magic) - magic, low = ctc_rounding_error(score[k], max);
        e[k] = a > CTC_NO_FRACTION ? whole : n;
        m[k] = a > CTC_NO_FRACTION ? (a - whole * CTC_LN2_HI) + (low - whole * CTC_LN2_LO) : 0;
    }
    vector_math_double(MATH_EXP, pass->class_count, m, m);
    for (int64_t k = 0; k < pass->class_count; k++)
        m[k] = e[k] < -DBL_MAX ? 0 : m[k];
    for (int64_t i = 0; i < pass->S; i++) {
        pass->frame.label[i] = m[pass->label_slot[i]];
        pass->label_e[i] = e[pass->label_slot[i]];
    }
    pass->frame.blank = (scaled_double){m[pass->blank_slot], e[pass->blank_slot]};
}

/* p of the current frame, (K). */
static const double *ctc_frame_p(const ctc_pass *pass)
{
    return pass->p + pass->current * pass->frame_stride * pass->padded_classes;
}

/* Makes j the current frame and sets p of its states. */
static void ctc_set_frame(ctc_pass *pass, int64_t j)
{
    const int was_scaled = pass->frame.exponent_range > CTC_FRAME_RANGE;
    if ((j < pass->batch_first || j >= pass->batch_end) && pass->frame_source)
        ctc_reuse_frames(pass, j);
    else if (j < pass->batch_first || j >= pass->batch_end)
        ctc_load_frames(pass, j, NULL);
    pass->current = j - pass->batch_first;
    pass->frame =
        (ctc_frame){.blank = {ctc_frame_p(pass)[pass->blank_slot], 0},
                    .label = pass->label_p + pass->current * ctc_row_stride(pass->S),
                    .label_e = pass->label_e,
                    .exponent_range = pass->exponent_range[pass->current * pass->frame_stride]};
    if (pass->frame.exponent_range > CTC_FRAME_RANGE)
        ctc_scale_frame(pass);
    else if (was_scaled)
        ctc_clear(pass->label_e, pass->S);
}

/* --- scales and softmax normalisers --- */

/* max(m, max x), in several independent chains of vector operations. A NaN in x may be lost: R will
 * be NaN. */
static real ctc_max_tile(const real *x, int64_t n, real m)
{
    enum { WIDTH = 4 * LANES };
    real lane[WIDTH];
    int64_t i = 0;
    for (int k = 0; k < WIDTH; k++)
        lane[k] = m;
    for (; i + WIDTH <= n; i += WIDTH)
#pragma omp simd
        for (int k = 0; k < WIDTH; k++)
            lane[k] = lane[k] < x[i + k] ? x[i + k] : lane[k];
    if (i > 0)
        m = reduce_real_max(lane, WIDTH);
    for (; i < n; i++)
        m = m < x[i] ? x[i] : m;
    return m;
}

/* The sum of the entries that are not 1. Adds the number of ones to *ones. */
static fl_dd ctc_sum_exp_tile(const real *e, int64_t n, int64_t *ones)
{
    lane_sum sum;
    real count[LANES] = {0}, total = 0;
    int64_t i = 0;
    clear_lane_sum(&sum);
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            real one = e[i + k] == 1;
            add_to_lane(&sum, k, (double)(e[i + k] - one));
            count[k] += one;
        }
    for (int k = 0; i + k < n; k++) {
        real one = e[i + k] == 1;
        add_to_lane(&sum, k, (double)(e[i + k] - one));
        count[k] += one;
    }
    for (int k = 0; k < LANES; k++)
        total += count[k];
    *ones += (int64_t)total;
    return reduce_lanes(&sum);
}

/* m and R of the logits of frame j, over all C classes. */
static void ctc_softmax_normaliser(ctc_pass *pass, int64_t j, double *max, double *sum_minus_one)
{
    const int64_t C = pass->call->sequences.C,
                  entry = ctc_frame_entry(pass->call, pass->sample, ctc_frame_index(pass, j));
    ALIGNED real tile[TILE], e[TILE];
    real m = -REAL_INFINITY;
    fl_dd sum = {0, 0};
    int64_t ones = 0;
    for (int64_t from = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        m = ctc_max_tile(fl_load(&pass->call->operand[0], entry + from, n, tile), n, m);
    }
    for (int64_t from = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        const real *x = fl_load(&pass->call->operand[0], entry + from, n, tile);
        for (int64_t c = 0; c < n; c++)
            e[c] = x[c] - m;
        for (int64_t c = 0; c < n; c++)
            e[c] = EXP(e[c]);
        sum = dd_add(sum, ctc_sum_exp_tile(e, n, &ones));
    }
    *max = (double)m;
    *sum_minus_one = dd_add_double(sum, (double)(ones - 1)).hi;
}

/* Adds v (n), whole vectors, to log_scale. */
static void ctc_accumulate_log_scale(ctc_pass *pass, int64_t n, const double *v)
{
    double *restrict hi = pass->log_scale, *restrict lo = pass->log_scale_lo;
    for (int64_t f = 0; f < n; f += CTC_LANES)
#pragma omp simd
        for (int i = 0; i < CTC_LANES; i++) {
            fl_dd sum = two_sum(hi[i], v[f + i]);
            hi[i] = sum.hi;
            lo[i] += sum.lo;
        }
}

/* Adds log p_scale of the frames in the batch to log_scale. Stores m, R and p_scale if the opposite
 * pass needs them for the gradient. Checks frames whose classes are all loaded. */
static void ctc_frame_normalisers(ctc_pass *pass, fl_partial *partial)
{
    const int checks = pass->uses_all_classes && ctc_checks_loaded_frames(pass);
    const int64_t n = pass->batch_end - pass->batch_first,
                  at = pass->saves_rows ? pass->batch_first : 0;
    const int logits = pass->call->formula == FL_FORMULA_ctc_with_logits;
    double *max = pass->softmax_max + at, *sum_minus_one = pass->sum_minus_one + at,
           *p_scale = pass->p_scale + at, log_p_scale[CTC_BATCH_FRAMES];
    for (int64_t f = 0; f < n; f++) {
        pass->has_scaled_frame |= pass->exponent_range[f] > CTC_FRAME_RANGE;
        max[f] = logits ? pass->frame_max[f] : 0;
        if (pass->uses_all_classes && (logits || pass->saves_rows || checks))
            sum_minus_one[f] =
                ctc_sum_minus_one(pass->padded_classes, pass->p + f * pass->padded_classes);
        else if (logits)
            ctc_softmax_normaliser(pass, pass->batch_first + f, &max[f], &sum_minus_one[f]);
    }
    const int64_t padded = ctc_round_up(n);
    if (checks)
        ctc_check_batch(pass, partial);
    if (logits)
        vector_math_double(MATH_LOG1P, padded, sum_minus_one, log_p_scale);
    for (int64_t f = 0; f < n; f++) /* R - R: if R is infinite, the loss is NaN */
        log_p_scale[f] = pass->frame_max[f] - max[f] -
                         (logits ? log_p_scale[f] + (sum_minus_one[f] - sum_minus_one[f]) : 0);
    ctc_clear(log_p_scale + n, padded - n);
    ctc_accumulate_log_scale(pass, padded, log_p_scale);
    if (!pass->saves_rows)
        return;
    for (int64_t f = 0; f < padded; f++)
        p_scale[f] = pass->frame_max[f] - max[f];
    vector_math_double(MATH_EXP, padded, p_scale, p_scale);
    if (logits)
        for (int64_t f = 0; f < padded; f++)
            p_scale[f] /= 1 + sum_minus_one[f];
}

#endif
