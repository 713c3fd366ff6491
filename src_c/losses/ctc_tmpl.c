/* Connectionist temporal classification, once per (instruction set, real): frames x (N, T, C) of
 * log-probabilities or logits, aligned with labels l_0 ... l_(S-1) of each sample in all ways that
 * read, repeated classes merged and blanks dropped, as its labels (Graves et al., ICML 2006).
 *
 *     P = Σ over alignments of Π_t p_t(class at t),  loss = -log P
 *     γ_tc = the probability, given the labels, that frame t has class c
 *     ctc              x = log p          gradient exp(x) - γ, that of the logits behind x
 *     ctc_with_logits  p = softmax(x)     gradient softmax(x) - γ
 *     ctc_posteriors   x = log p          γ itself
 *
 * Sums over paths run from both ends (lattice.h) and meet in the middle; then each goes on over the
 * frames of the other and joins what that one found. Rows of the lattice are kept for that, or
 * where they are too many only each √T-th, and the others are computed again from there. The two
 * sides are equal but for the order of frames and labels, and in either half they may run at the
 * same time.
 *
 * A frame's p is taken relative to its largest among the classes in use, and the logarithms of
 * those, from which a softmax's denominator is subtracted, are added up apart: a confident
 * prediction has P = exp(sum) (1 + little). */
#include "vector/vector_math_tmpl.h"
#include "losses/ctc_lattice.h"
#include "vector/loader.h"
#include "vector/vector_math.h"
#include "vector/lanes.h"
#include "vector/domain_check.h"
#include "vector/unit_outputs.h"

#include <stdlib.h>
#include <string.h>

/* ln 2 in two parts, the first of 32 bits. */
#define CTC_LN2_HI 0x1.62e42feep-1
#define CTC_LN2_LO 0x1.a39ef35793c76p-33

/* Rows of a side up to so many numbers are all kept. */
static const double CTC_RESIDENT_DOUBLES = 1 << 16;

/* Numbers of the frames that are read at a time: so many that none has to wait for another; and
 * those frames at most. */
enum { CTC_BATCH_SCORES = 512, CTC_BATCH_FRAMES = CTC_BATCH_SCORES / CTC_LANES };

/* Where exp's argument has no fraction to speak of. */
static const double CTC_NO_FRACTION = -0x1p50;

/* One side of a sample: the recursion from the first frame on, or from the last one back. Its j-th
 * frame is the sample's j-th from its end. Places and rows as in lattice.h, in its order. */
typedef struct ctc_pass {
    const fl_call *call;
    int64_t sample, T, S;
    int is_beta;
    int64_t midpoint;     /* frames of its first half */
    int uses_all_classes; /* all classes of the arrays are among those of the side */
    int64_t class_count;  /* K, those in use or all */
    int64_t *class_index,
        *label_slot; /* (K) which, ascending; (S) the slot of each label among them */
    double *mask;    /* (K) -inf for those in use, else inf */
    int64_t blank_slot;
    /* Frames that have been read, from the batch_first on: */
    int64_t batch_first, batch_end, batch_frames, end; /* at most `batch`, none from `limit` on */
    int64_t padded_classes;                            /* K, filled up to whole vectors */
    double *scores,
        frame_max[CTC_BATCH_FRAMES];  /* (batch, width) x of the classes; the largest of a frame */
    const double *p, *exponent_range; /* of each frame, `step` places apart: the probabilities
                                 (width) over the largest; as in lattice_frame */
    int64_t frame_stride;
    double *label_p;                       /* (batch, places) */
    double *scaled_m, *scaled_e, *label_e; /* (K, K, S) of a frame that spreads too far, else 0 */
    double *posterior, *label_posterior;   /* (K) γ, (places) of labels */
    ctc_frame frame;                       /* the current one */
    int64_t current;
    /* Those of its first half, or as many as go together: */
    double *p_buffer, *range_buffer;
    double *softmax_max, *sum_minus_one,
        *p_scale;         /* of a softmax m = max x and R = Σ exp(x - m) without one maximal
          entry, else m = 0; what makes p the probabilities */
    int saves_rows;       /* for the other side: these, and every period-th row */
    int has_scaled_frame; /* a frame spread too far */
    const struct ctc_pass
        *frame_source;         /* the side that has the frames of the second half, or NULL */
    int64_t checkpoint_period; /* 1: in place */
    int64_t resident_rows,
        ring_rows; /* rows that keep their place; places that the others take turns in */
    ctc_row *row, *checkpoint;
    ctc_lattice lattice;
    double log_scale[CTC_LANES], log_scale_lo[CTC_LANES]; /* Σ of the logarithms apart */
} ctc_pass;

/* --- labels --- */

static int ctc_is_removed(const fl_call *call, int64_t n, double *weight, fl_partial *partial)
{
    double scratch;
    const double *sample_weight = load_sample_weight(call, n, 1, &scratch, partial);
    *weight = sample_weight ? *sample_weight : 1;
    return *weight == 0;
}

/* Checks the labels of a sample, and copies them unless `to` is NULL: what was checked is what is
 * used. */
static int ctc_load_labels(const fl_call *call, int64_t n, int64_t *to, fl_partial *partial)
{
    int64_t tile[TILE];
    for (int64_t i = 0; i < call->labels[n]; i += TILE) {
        int64_t left = call->labels[n] - i, m = left < TILE ? left : TILE;
        const int64_t *label = fl_load_index(&call->operand[1], call->first_label[n] + i, m, tile);
        for (int64_t k = 0; k < m; k++)
            if (label[k] < 0 || label[k] >= call->C || label[k] == call->blank) {
                record_error(partial, n, 1, i + k);
                return 0;
            }
        if (to)
            memcpy(to + i, label, (size_t)m * sizeof *to);
    }
    return 1;
}

static int ctc_compare_classes(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t ctc_class_slot(const ctc_pass *pass, int64_t class)
{
    int64_t low = 0, high = pass->class_count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (pass->class_index[middle] <= class)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Few classes are all in use, as it were. */
static int ctc_all_classes_used(const fl_call *call, int64_t S)
{
    return call->C <= TILE && call->C / 2 <= S;
}

static int64_t ctc_round_up(int64_t n) { return (n + CTC_LANES - 1) / CTC_LANES * CTC_LANES; }

/* From the labels, which stand in slot: the classes in use, the slots, what may follow what. */
static void ctc_index_classes(ctc_pass *pass)
{
    int64_t n = pass->S;
    for (int64_t i = 0; pass->is_beta && i < n / 2; i++) {
        int64_t opposite = pass->label_slot[n - 1 - i];
        pass->label_slot[n - 1 - i] = pass->label_slot[i];
        pass->label_slot[i] = opposite;
    }
    for (int64_t i = 0; i < n; i++)
        pass->lattice.skip_allowed[i] = i == 0 || pass->label_slot[i] != pass->label_slot[i - 1];
    if (pass->uses_all_classes) {
        pass->class_count = pass->call->C;
        pass->blank_slot = pass->call->blank;
    } else {
        if (n > 0)
            memcpy(pass->class_index, pass->label_slot, (size_t)n * sizeof *pass->class_index);
        pass->class_index[n] = pass->call->blank;
        qsort(pass->class_index, (size_t)n + 1, sizeof *pass->class_index, ctc_compare_classes);
        for (int64_t i = 0; i <= n; i++)
            if (i == 0 || pass->class_index[i] != pass->class_index[pass->class_count - 1])
                pass->class_index[pass->class_count++] = pass->class_index[i];
        for (int64_t i = 0; i < n; i++)
            pass->label_slot[i] = ctc_class_slot(pass, pass->label_slot[i]);
        pass->blank_slot = ctc_class_slot(pass, pass->call->blank);
    }
    for (int64_t k = 0; k < ctc_round_up(pass->class_count); k++)
        pass->mask[k] = __builtin_inf();
    for (int64_t i = 0; i < n; i++)
        pass->mask[pass->label_slot[i]] = -__builtin_inf();
    pass->mask[pass->blank_slot] = -__builtin_inf();
}

/* The next n of the doubles at *from. */
static double *ctc_take(double **from, int64_t n)
{
    double *piece = *from;
    *from += n;
    return piece;
}

static double *ctc_take_zeros(double **from, int64_t n)
{
    return memset(ctc_take(from, n), 0, (size_t)n * sizeof **from);
}

/* A side with all its memory in one piece, or NULL: what is not allowed, and a lack of memory, are
 * noted. One that replays computes again what a side of the same direction did not keep. More
 * labels than frames have no alignment; they count as none, of probability 0. */
static ctc_pass *ctc_new_pass(const fl_call *call, int64_t n, int backward, int replays,
                              fl_partial *partial)
{
    enum { PARTS = 13, CACHE_LINE = 64 };
    int64_t T = call->frames[n], S = call->labels[n];
    int impossible = S > T, keeps = call->requested & FL_GRAD && !replays;
    if (impossible) {
        if (!ctc_load_labels(call, n, NULL, partial))
            return NULL;
        S = 0;
    }
    int64_t half = backward ? T - T / 2 : T / 2, dense = ctc_all_classes_used(call, S),
            K = dense && call->C > S ? call->C : S + 1, places = ctc_row_stride(S),
            stride = ctc_row_stride(K), width = ctc_round_up(K),
            together = CTC_BATCH_SCORES / width,
            batch = together >= CTC_LANES ? together / CTC_LANES * CTC_LANES
                    : together > 1        ? together
                                          : 1;
    double row = (double)CTC_ROW_ARRAYS * (double)places;
    int64_t period = row * (double)half <= CTC_RESIDENT_DOUBLES
                         ? 1
                         : 1 + (int64_t)__builtin_sqrt((double)half),
            fixed = keeps && period == 1 ? half : 0, turn = replays ? period : 2,
            kept = keeps && period > 1 ? half / period + 1 : 0, rows = fixed + turn + kept,
            frames = ctc_round_up(keeps && half > batch ? half : batch),
            lists = fixed > batch ? fixed : batch;
    double ctc_doubles = PARTS * (double)stride + (double)batch * (double)(places + width) +
                         (double)lists * (double)(width + 1) + 3.0 * (double)(frames + CTC_LANES) +
                         row * (double)rows;
    double bytes = sizeof(ctc_pass) + 2.0 * sizeof(int64_t) * (double)K +
                   sizeof(ctc_row) * (double)rows + sizeof(double) * ctc_doubles + CACHE_LINE;
    ctc_pass *pass = bytes < 0x1p50 ? fl_scratch_alloc((size_t)bytes) : NULL;
    if (!pass) {
        record_error(partial, n, FL_NO_MEMORY, 0);
        return NULL;
    }
    int64_t *class = (int64_t *)(pass + 1);
    ctc_row *row_list = (ctc_row *)(class + 2 * K);
    double *at =
        (double *)(((uintptr_t)(row_list + rows) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    double *part[PARTS];
    for (int k = 0; k < PARTS; k++)
        part[k] = ctc_take_zeros(&at, stride) + CTC_LANES;
    *pass = (ctc_pass){.call = call,
                       .sample = n,
                       .T = T,
                       .S = S,
                       .is_beta = backward,
                       .midpoint = half,
                       .uses_all_classes = (int)dense,
                       .class_index = class,
                       .label_slot = class + K,
                       .mask = part[12],
                       .batch_frames = batch,
                       .end = half,
                       .scores = ctc_take(&at, batch * width),
                       .frame_stride = 1,
                       .label_p = ctc_take_zeros(&at, batch * places) + CTC_LANES,
                       .scaled_m = part[0],
                       .scaled_e = part[1],
                       .label_e = part[2],
                       .posterior = part[3],
                       .label_posterior = part[4],
                       .p_buffer = ctc_take(&at, lists * width),
                       .softmax_max = ctc_take_zeros(&at, frames + CTC_LANES),
                       .sum_minus_one = ctc_take_zeros(&at, frames + CTC_LANES),
                       .p_scale = ctc_take_zeros(&at, frames + CTC_LANES),
                       .saves_rows = keeps,
                       .checkpoint_period = period,
                       .resident_rows = fixed,
                       .ring_rows = turn,
                       .row = row_list,
                       .checkpoint = row_list + fixed + turn,
                       .lattice = {.S = S,
                                   .skip_allowed = part[5],
                                   .shift_scale = part[6],
                                   .skip_scale = part[7],
                                   .joint_scale = {part[8], part[9], part[10], part[11]},
                                   .joint_sets = {-1, -1}}};
    for (int64_t i = 0; i < rows; i++)
        row_list[i] = ctc_row_at(ctc_take(&at, CTC_ROW_ARRAYS * places), S);
    pass->range_buffer = ctc_take(&at, lists);
    pass->label_e[-1] = -DBL_MAX;
    if (!impossible && !ctc_load_labels(call, n, pass->label_slot, partial)) {
        fl_scratch_free(pass);
        return NULL;
    }
    if (impossible)
        pass->log_scale[0] = -__builtin_inf();
    ctc_index_classes(pass);
    pass->padded_classes = ctc_round_up(pass->class_count);
    for (int64_t k = 0; k < batch * pass->padded_classes; k++) /* what is no class stays so */
        pass->scores[k] = -__builtin_inf();
    return pass;
}

/* --- a frame --- */

static int64_t ctc_frame_index(const ctc_pass *pass, int64_t j)
{
    return pass->is_beta ? pass->T - 1 - j : j;
}

static int64_t ctc_frame_entry(const ctc_pass *pass, int64_t frame)
{
    return (pass->sample * pass->call->T + frame) * pass->call->C;
}

typedef real ctc_reals
    __attribute__((vector_size(CTC_LANES * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef double ctc_doubles
    __attribute__((vector_size(CTC_LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

/* Reals as doubles and back, in whole vectors, of which the last overlaps. */
static void ctc_to_double(int64_t n, const real *from, double *to)
{
    for (int64_t k = 0; n < CTC_LANES && k < n; k++)
        to[k] = (double)from[k];
    for (int64_t k = 0; n >= CTC_LANES && k < n; k += CTC_LANES) {
        int64_t at = k + CTC_LANES <= n ? k : n - CTC_LANES;
        *(ctc_doubles *)(to + at) =
            __builtin_convertvector(*(const ctc_reals *)(from + at), ctc_doubles);
    }
}

static void ctc_from_double(int64_t n, const double *from, real *to)
{
    for (int64_t k = 0; n < CTC_LANES && k < n; k++)
        to[k] = (real)from[k];
    for (int64_t k = 0; n >= CTC_LANES && k < n; k += CTC_LANES) {
        int64_t at = k + CTC_LANES <= n ? k : n - CTC_LANES;
        *(ctc_reals *)(to + at) =
            __builtin_convertvector(*(const ctc_doubles *)(from + at), ctc_reals);
    }
}

/* x of the classes. */
static void ctc_load_scores(const ctc_pass *pass, int64_t frame, double *restrict score)
{
    const fl_array *x = &pass->call->operand[0];
    const int64_t C = pass->call->C, entry = ctc_frame_entry(pass, frame),
                  *class = pass->class_index;
    real tile[TILE], one;
    /* Without scratch: NULL where the row does not lie in place. */
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

/* Asks for x of the classes of a frame: entries far apart come from memory one by one. */
static void ctc_prefetch_scores(const ctc_pass *pass, int64_t frame)
{
    const int64_t *class = pass->class_index;
    const real *row = fl_output_buffer(&pass->call->operand[0], ctc_frame_entry(pass, frame),
                                       pass->call->C, NULL);
    for (int64_t k = 0; row && k < pass->class_count; k++)
        __builtin_prefetch(&row[class[k]]);
}

/* The largest score, NaN if one in use is NaN or +inf, and how far the smallest finite one in use
 * is from it. */
static void ctc_frame_bounds(int64_t n, const double *score, const double *floor, double *top,
                             double *spread)
{
    const double inf = __builtin_inf();
    double high = -inf, low = inf;
#pragma omp simd reduction(max : high) reduction(min : low)
    for (int64_t k = 0; k < n; k++) {
        double x = score[k] < inf ? score[k] : -floor[k];
        high = ctc_max(high, x);
        low = ctc_min(x > floor[k] ? x : inf, low);
    }
    *top = high < inf ? high : __builtin_nan("");
    *spread = high - high == 0 && low < inf ? (high - low) * 0x1.71547652b82fep+0 : 0;
}

/* p := score - top, -inf if top is not finite. */
static void ctc_subtract_max(int64_t n, const double *restrict score, double top,
                             double *restrict p)
{
    const int finite = top - top == 0;
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        p[k] = finite ? score[k] - top : -__builtin_inf();
}

/* What the rounded difference x - top lacks. */
static INLINE double ctc_rounding_error(double x, double top)
{
    double d = x - top, back = d - x;
    return d > CTC_NO_FRACTION && d <= 0 ? (x - (d - back)) - (top + back) : 0;
}

/* Differences of floats lose nothing that matters. */
static void ctc_correct_rounding(int64_t n, const double *restrict score, double top,
                                 double *restrict p)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++) {
        double more = p[k] * ctc_rounding_error(score[k], top);
        p[k] += more == more ? more : 0; /* inf stays */
    }
}

/* Σ of the entries without a largest one, which is 1. */
static double ctc_sum_minus_one(int64_t n, const double *p)
{
    double sum[CTC_LANES] = {0}, low[CTC_LANES] = {0}, ones[CTC_LANES] = {0};
    for (int64_t k = 0; k < n; k += CTC_LANES)
#pragma omp simd
        for (int i = 0; i < CTC_LANES; i++) {
            double one = p[k + i] == 1, v = p[k + i] - one, a = sum[i], total = a + v,
                   b = total - a;
            low[i] += (a - (total - b)) + (v - b);
            sum[i] = total;
            ones[i] += one;
        }
    for (int half = CTC_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) {
            sum[i] += sum[i + half];
            low[i] += low[i + half];
            ones[i] += ones[i + half];
        }
    return (ones[0] - 1) + (sum[0] + (low[0] - low[0] == 0 ? low[0] : 0));
}

static void ctc_gather_labels(ctc_pass *pass, int64_t j, int64_t n)
{
    const int64_t places = ctc_row_stride(pass->S), *slot = pass->label_slot;
    for (int64_t f = 0; f < n; f++) {
        const double *restrict p = pass->p + f * pass->frame_stride * pass->padded_classes;
        double *restrict label = pass->label_p + f * places;
        for (int64_t i = 0; i < pass->S; i++)
            label[i] = p[slot[i]];
    }
    pass->batch_first = j;
    pass->batch_end = j + n;
}

/* How many frames from the j-th on go together. */
static int64_t ctc_next_batch_size(const ctc_pass *pass, int64_t j)
{
    return pass->end - j < pass->batch_frames ? pass->end - j : pass->batch_frames;
}

/* The probabilities of frames from the j-th on. */
static void ctc_load_frames(ctc_pass *pass, int64_t j)
{
    const int64_t n = ctc_next_batch_size(pass, j), width = pass->padded_classes;
    const int64_t at = pass->resident_rows > 0 && j < pass->midpoint ? j : 0;
    double *p = pass->p_buffer + at * width, *spread = pass->range_buffer + at;
    for (int64_t f = j + n; !pass->uses_all_classes && f < pass->end && f < j + 2 * n; f++)
        ctc_prefetch_scores(pass, ctc_frame_index(pass, f));
    for (int64_t f = 0; f < n; f++)
        ctc_load_scores(pass, ctc_frame_index(pass, j + f), pass->scores + f * width);
    for (int64_t f = 0; f < n; f++)
        ctc_frame_bounds(width, pass->scores + f * width, pass->mask, &pass->frame_max[f],
                         &spread[f]);
    for (int64_t f = 0; f < n; f++)
        ctc_subtract_max(width, pass->scores + f * width, pass->frame_max[f], p + f * width);
    vector_math_double(MATH_EXP, n * width, p, p);
    for (int64_t f = 0; REAL_IS_DOUBLE && f < n; f++)
        ctc_correct_rounding(width, pass->scores + f * width, pass->frame_max[f], p + f * width);
    pass->p = p;
    pass->exponent_range = spread;
    ctc_gather_labels(pass, j, n);
}

/* The same of frames that the other side has read. */
static void ctc_reuse_frames(ctc_pass *pass, int64_t j)
{
    pass->p = pass->frame_source->p_buffer + (pass->T - 1 - j) * pass->padded_classes;
    pass->exponent_range = pass->frame_source->range_buffer + (pass->T - 1 - j);
    pass->frame_stride = -1;
    ctc_gather_labels(pass, j, ctc_next_batch_size(pass, j));
}

/* The current frame with unlimited range. With n whole, score - top = n ln 2 + r; only exp(r) is
 * left to compute. */
static void ctc_scale_frame(ctc_pass *pass)
{
    const double *score = pass->scores + pass->current * pass->padded_classes;
    const double magic = 0x1.8p52, top = pass->frame_max[pass->current];
    double *m = pass->scaled_m, *e = pass->scaled_e;
    for (int64_t k = 0; k < pass->class_count; k++) {
        double a = score[k] - top, n = a * 0x1.71547652b82fep+0;
        double whole = (n + magic) - magic, low = ctc_rounding_error(score[k], top);
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

/* The probabilities of the current frame. */
static const double *ctc_frame_p(const ctc_pass *pass)
{
    return pass->p + pass->current * pass->frame_stride * pass->padded_classes;
}

/* The probabilities of the j-th frame's states. */
static void ctc_set_frame(ctc_pass *pass, int64_t j)
{
    const int was_wide = pass->frame.exponent_range > CTC_FRAME_RANGE;
    if ((j < pass->batch_first || j >= pass->batch_end) && pass->frame_source)
        ctc_reuse_frames(pass, j);
    else if (j < pass->batch_first || j >= pass->batch_end)
        ctc_load_frames(pass, j);
    pass->current = j - pass->batch_first;
    pass->frame =
        (ctc_frame){.blank = {ctc_frame_p(pass)[pass->blank_slot], 0},
                    .label = pass->label_p + pass->current * ctc_row_stride(pass->S),
                    .label_e = pass->label_e,
                    .exponent_range = pass->exponent_range[pass->current * pass->frame_stride]};
    if (pass->frame.exponent_range > CTC_FRAME_RANGE)
        ctc_scale_frame(pass);
    else if (was_wide)
        ctc_clear(pass->label_e, pass->S);
}

/* max(m, max x), in several chains that do not wait for each other; a NaN does not matter here, it
 * reappears in R. */
static real ctc_max_tile(const real *x, int64_t n, real m)
{
    enum { WIDE = 4 * LANES };
    real lane[WIDE];
    int64_t i = 0;
    for (int k = 0; k < WIDE; k++)
        lane[k] = m;
    for (; i + WIDE <= n; i += WIDE)
#pragma omp simd
        for (int k = 0; k < WIDE; k++)
            lane[k] = lane[k] < x[i + k] ? x[i + k] : lane[k];
    for (int half = WIDE / 2; i > 0 && half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] = lane[k] < lane[k + half] ? lane[k + half] : lane[k];
    m = lane[0];
    for (; i < n; i++)
        m = m < x[i] ? x[i] : m;
    return m;
}

/* Σ of the entries that are not 1, and the number of ones. */
static fl_dd ctc_sum_exp_tile(const real *e, int64_t n, int64_t *ones)
{
    lane_sum sum = {{0}, {0}};
    real count[LANES] = {0}, total = 0;
    int64_t i = 0;
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

/* m and R of the j-th frame's logits. */
static void ctc_softmax_normaliser(ctc_pass *pass, int64_t j, double *max, double *rest)
{
    const int64_t C = pass->call->C, entry = ctc_frame_entry(pass, ctc_frame_index(pass, j));
    real tile[TILE], e[TILE], m = -REAL_INFINITY;
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
    *rest = dd_add_double(sum, (double)(ones - 1)).hi;
}

/* v[0 ... n - 1], whole vectors, to the logarithms apart. */
static void ctc_accumulate_log_scale(ctc_pass *pass, int64_t n, const double *v)
{
    double *restrict sum = pass->log_scale, *restrict low = pass->log_scale_lo;
    for (int64_t f = 0; f < n; f += CTC_LANES)
#pragma omp simd
        for (int i = 0; i < CTC_LANES; i++) {
            double a = sum[i], b = v[f + i], total = a + b, c = total - a;
            low[i] += (a - (total - c)) + (b - c);
            sum[i] = total;
        }
}

/* What all probabilities of the frames of the batch have in common. */
static void ctc_frame_normalisers(ctc_pass *pass)
{
    const int64_t n = pass->batch_end - pass->batch_first,
                  at = pass->saves_rows ? pass->batch_first : 0;
    const int logits = pass->call->formula == FL_FORMULA_ctc_with_logits;
    double *max = pass->softmax_max + at, *rest = pass->sum_minus_one + at,
           *share = pass->p_scale + at, apart[CTC_BATCH_FRAMES];
    for (int64_t f = 0; f < n; f++) {
        pass->has_scaled_frame |= pass->exponent_range[f] > CTC_FRAME_RANGE;
        max[f] = logits ? pass->frame_max[f] : 0;
        if (pass->uses_all_classes && (logits || pass->saves_rows))
            rest[f] = ctc_sum_minus_one(pass->padded_classes, pass->p + f * pass->padded_classes);
        else if (logits)
            ctc_softmax_normaliser(pass, pass->batch_first + f, &max[f], &rest[f]);
    }
    const int64_t all = ctc_round_up(n);
    if (logits)
        vector_math_double(MATH_LOG1P, all, rest, apart);
    for (int64_t f = 0; f < n; f++) /* rest - rest: NaN, and no loss, where it is infinite */
        apart[f] = pass->frame_max[f] - max[f] - (logits ? apart[f] + (rest[f] - rest[f]) : 0);
    ctc_clear(apart + n, all - n);
    ctc_accumulate_log_scale(pass, all, apart);
    if (!pass->saves_rows)
        return;
    for (int64_t f = 0; f < all; f++)
        share[f] = pass->frame_max[f] - max[f];
    vector_math_double(MATH_EXP, all, share, share);
    for (int64_t f = 0; logits && f < all; f++)
        share[f] /= 1 + rest[f];
}

/* --- the recursion --- */

static ctc_row *ctc_row_before(const ctc_pass *pass, int64_t j)
{
    return &pass->row[j < pass->resident_rows
                          ? j
                          : pass->resident_rows + (j - pass->resident_rows) % pass->ring_rows];
}

/* From the row of the j-th frame to the next. */
static void ctc_step(ctc_pass *pass, int64_t j)
{
    ctc_alpha_step(&pass->lattice, j, ctc_row_before(pass, j), &pass->frame,
                   ctc_row_before(pass, j + 1));
}

/* Where steps may begin again. */
static int ctc_is_checkpoint(const ctc_pass *pass, int64_t j)
{
    return pass->checkpoint_period > 1 && j % pass->checkpoint_period == 0;
}

/* The j-th row of the first half of `other`, its rows being asked for from the last to the first; s
 * is NULL where they are still there. */
static ctc_row ctc_recompute_row(ctc_pass *pass, const ctc_pass *opposite, int64_t j)
{
    if (!pass)
        return *ctc_row_before(opposite, j);
    int64_t start = j - j % pass->checkpoint_period;
    if (j == opposite->midpoint - 1 || j % pass->checkpoint_period == pass->checkpoint_period - 1) {
        ctc_row first = ctc_row_at(pass->row[0].blank - CTC_LANES, pass->S);
        ctc_copy_row(pass->S, opposite->checkpoint[start / pass->checkpoint_period], first);
        first.exponent_set = ++pass->lattice.exponent_sets;
        pass->row[0] = first;
        pass->lattice.exponent_headroom = 0;
        pass->end = j;
        for (int64_t i = start; i < j; i++) {
            ctc_set_frame(pass, i);
            ctc_step(pass, i);
        }
    }
    return *ctc_row_before(pass, j);
}

static ctc_pass *ctc_run_to_midpoint(const fl_call *call, int64_t n, int backward,
                                     fl_partial *partial)
{
    double weight;
    ctc_pass *pass = ctc_is_removed(call, n, &weight, partial)
                         ? NULL
                         : ctc_new_pass(call, n, backward, 0, partial);
    if (!pass)
        return NULL;
    ctc_init_row(&pass->lattice, *ctc_row_before(pass, 0));
    for (int64_t j = 0; j < pass->midpoint; j++) {
        if (ctc_is_checkpoint(pass, j))
            pass->lattice.exponent_headroom = 0;
        if (ctc_is_checkpoint(pass, j) && pass->saves_rows)
            ctc_copy_row(pass->S, *ctc_row_before(pass, j),
                         pass->checkpoint[j / pass->checkpoint_period]);
        if (j == pass->batch_end) {
            ctc_load_frames(pass, j);
            ctc_frame_normalisers(pass);
        }
        ctc_set_frame(pass, j);
        ctc_step(pass, j);
    }
    return pass;
}

/* Places with a path on both sides of the j-th frame: [first, last_blank), [first, last_label). */
typedef struct {
    int64_t first, last_blank, last_label;
} ctc_state_range;

static ctc_state_range ctc_joint_range(const ctc_pass *pass, int64_t j)
{
    const int64_t S = pass->S, first = S - (pass->T - j);
    return (ctc_state_range){.first = first > 0 ? first : 0,
                             .last_blank = j < S ? j + 1 : S + 1,
                             .last_label = j < S ? j + 1 : S};
}

/* γ of the j-th frame with these rows without its denominator, which is returned. */
static double ctc_combine_frame(ctc_pass *pass, int64_t j, ctc_row there, double top)
{
    const ctc_state_range at = ctc_joint_range(pass, j);
    double *posterior = pass->posterior;
    double blank = ctc_combine_alpha_beta(&pass->lattice, *ctc_row_before(pass, j), &pass->frame,
                                          there, top, at.first / CTC_LANES * CTC_LANES,
                                          at.last_label / CTC_LANES * CTC_LANES + CTC_LANES,
                                          pass->label_posterior);
    ctc_clear(posterior, pass->padded_classes);
    posterior[pass->blank_slot] = blank;
    for (int64_t i = at.first; i < at.last_label; i++)
        posterior[pass->label_slot[i]] += pass->label_posterior[i];
    return blank + sum_doubles(pass->label_posterior + at.first, at.last_label - at.first).hi;
}

static fl_dd ctc_log_scale_sum(const ctc_pass *pass)
{
    fl_dd sum = {0, 0};
    for (int i = 0; i < CTC_LANES; i++) {
        sum = dd_add_double(sum, pass->log_scale[i]);
        if (pass->log_scale_lo[i] - pass->log_scale_lo[i] == 0) /* inf and NaN have no remainder */
            sum = dd_add_double(sum, pass->log_scale_lo[i]);
    }
    return sum;
}

/* -log of what the sides found: of the sum z over paths and of what they held apart. */
static double ctc_loss_of(const ctc_pass *pass, const ctc_pass *opposite, scaled_double z)
{
    fl_dd offset = dd_add(ctc_log_scale_sum(pass), ctc_log_scale_sum(opposite));
    int in_range = z.e > -500 && z.e < 500;
    double log, near = in_range ? z.m * ctc_exp2(z.e) : z.m, far = in_range ? 0 : z.e;
    vector_math_double(MATH_LOG, 1, &near, &log);
    return 0 - (offset.hi + (far * 0x1.62e42fefa39efp-1 + (log + offset.lo)));
}

/* --- results --- */

/* v in the entries of a sample's frames [from, to). */
static void ctc_fill_frames(const fl_call *call, int64_t n, int64_t from, int64_t to, real v)
{
    real tile[TILE];
    int64_t entry = (n * call->T + from) * call->C, end = (n * call->T + to) * call->C;
    for (; entry < end; entry += TILE) {
        int64_t m = end - entry < TILE ? end - entry : TILE;
        real *g = fl_output_buffer(&call->grad[0], entry, m, tile);
        for (int64_t i = 0; i < m; i++)
            g[i] = v;
        fl_store(&call->grad[0], entry, m, g);
    }
}

static int ctc_gradient_is_separate(const fl_call *call)
{
    return call->grad[0].data != call->operand[0].data;
}

static void ctc_check_frame_sum(const fl_call *call, int64_t n, int64_t t, double sum,
                                fl_partial *partial)
{
    if (__builtin_fabs(sum - 1) > call->sum_tolerance)
        record_error(partial, n, 0, t);
}

/* Notes the first frame of [from, to) whose probabilities do not add up to 1; a NaN passes. */
static void ctc_check_frame_sums(const fl_call *call, int64_t n, int64_t from, int64_t to,
                                 fl_partial *partial)
{
    real tile[TILE], e[TILE];
    for (int64_t t = from; t < to; t++) {
        fl_dd sum = {0, 0};
        for (int64_t first = 0; first < call->C; first += TILE) {
            int64_t m = call->C - first < TILE ? call->C - first : TILE;
            const real *x =
                fl_load(&call->operand[0], (n * call->T + t) * call->C + first, m, tile);
            for (int64_t c = 0; c < m; c++)
                e[c] = EXP(x[c]);
            sum = dd_add(sum, sum_tile(e, m));
        }
        ctc_check_frame_sum(call, n, t, sum.hi, partial);
    }
}

/* The gradient of a frame's classes, all or those in use: of p and of the posteriors. */
static void ctc_frame_gradient(const ctc_pass *pass, double by_p, double by_posterior)
{
    const double *restrict p = ctc_frame_p(pass);
    double *restrict result = pass->posterior;
    const int only = pass->call->formula == FL_FORMULA_ctc_posteriors;
#pragma omp simd
    for (int64_t k = 0; k < pass->padded_classes; k++)
        result[k] = result[k] * by_posterior + (only ? 0 : p[k] * by_p);
}

static void ctc_write_all_classes(const ctc_pass *pass, int64_t entry)
{
    real tile[TILE];
    const fl_array *gradient = &pass->call->grad[0];
    real *g = fl_output_buffer(gradient, entry, pass->call->C, tile);
    ctc_from_double(pass->call->C, pass->posterior, g);
    fl_store(gradient, entry, pass->call->C, g);
}

/* Returns Σ exp of a frame of log-probabilities. */
static double ctc_write_used_classes(const ctc_pass *pass, int64_t entry, real shift, real factor)
{
    const fl_call *call = pass->call;
    const int64_t C = call->C;
    real x_tile[TILE], e[TILE], g_tile[TILE];
    fl_dd sum = {0, 0};
    for (int64_t from = 0, k = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        real *g = fl_output_buffer(&call->grad[0], entry + from, n, g_tile);
        if (call->formula == FL_FORMULA_ctc_posteriors) {
            memset(g, 0, (size_t)n * sizeof *g);
        } else {
            const real *x = fl_load(&call->operand[0], entry + from, n, x_tile);
            for (int64_t c = 0; c < n; c++)
                e[c] = EXP(x[c] - shift);
            for (int64_t c = 0; c < n; c++)
                g[c] = e[c] * factor;
            if (call->formula == FL_FORMULA_ctc)
                sum = dd_add(sum, sum_tile(e, n));
        }
        for (; k < pass->class_count && pass->class_index[k] < from + n; k++)
            g[pass->class_index[k] - from] = (real)pass->posterior[k];
        fl_store(&call->grad[0], entry + from, n, g);
    }
    return sum.hi;
}

/* The gradient of the j-th frame; sum is that of the posteriors. */
static void ctc_write_frame(ctc_pass *pass, const ctc_pass *opposite, int64_t j, double sum,
                            double scale, fl_partial *partial)
{
    const fl_call *call = pass->call;
    const int64_t t = ctc_frame_index(pass, j), entry = ctc_frame_entry(pass, t),
                  there = pass->T - 1 - j;
    const double share = opposite->p_scale[there], rest = opposite->sum_minus_one[there];
    double whole = share * (1 + rest);
    ctc_frame_gradient(pass, share * scale,
                       call->formula == FL_FORMULA_ctc_posteriors ? 1 / sum : -scale / sum);
    if (pass->uses_all_classes)
        ctc_write_all_classes(pass, entry);
    else
        whole = ctc_write_used_classes(pass, entry, (real)opposite->softmax_max[there],
                                       (real)(scale / (1 + rest)));
    if (call->formula == FL_FORMULA_ctc && ctc_gradient_is_separate(call))
        ctc_check_frame_sum(call, pass->sample, t, whole, partial);
}

/* What multiplies the gradient of a sample. */
static double ctc_gradient_scale(const fl_call *call, int64_t n, double weight, double labels)
{
    if (call->formula == FL_FORMULA_ctc_posteriors)
        return 1;
    double scratch, scale = call->grad_scale * weight;
    if (call->grad_output_array.data)
        scale *= *fl_load_double(&call->grad_output_array, n, 1, &scratch);
    return scale / labels;
}

static void ctc_write_value(const fl_call *call, int64_t n, double loss, double weight,
                            double labels, fl_partial *partial)
{
    real scratch, *l = fl_output_buffer(&call->values, n, 1, &scratch);
    *l = (real)(loss * weight);
    partial->sum = dd_add_double(partial->sum, (double)*l / labels);
    fl_store(&call->values, n, 1, l);
    if (wants_unit_terms(call))
        emit_unit_terms(call, n, 1, l, labels, &weight, &weight, partial);
}

/* The first frame of a side's second half, joined with what the other found there: Σ over paths. */
static scaled_double ctc_total_probability(ctc_pass *pass, const ctc_pass *opposite,
                                           ctc_pass *recompute)
{
    ctc_row there = ctc_recompute_row(recompute, opposite, pass->T - 1 - pass->midpoint);
    pass->end = pass->call->requested & FL_GRAD ? pass->T : pass->midpoint + 1;
    pass->frame_source = pass->resident_rows > 0 && opposite->resident_rows > 0 &&
                                 !pass->has_scaled_frame && !opposite->has_scaled_frame
                             ? opposite
                             : NULL;
    ctc_set_frame(pass, pass->midpoint);
    ctc_state_range at = ctc_joint_range(pass, pass->midpoint);
    double top =
        ctc_max_joint_exponent(&pass->lattice, *ctc_row_before(pass, pass->midpoint), &pass->frame,
                               there, at.first, at.last_blank, at.last_label);
    return (scaled_double){ctc_combine_frame(pass, pass->midpoint, there, top), top};
}

static void ctc_write_gradient(ctc_pass *pass, const ctc_pass *opposite, ctc_pass *recompute,
                               scaled_double z, double scale, fl_partial *partial)
{
    double sum = z.m;
    for (int64_t j = pass->midpoint; j < pass->T; j++) {
        if (j > pass->midpoint) {
            ctc_set_frame(pass, j);
            sum = ctc_combine_frame(pass, j,
                                    ctc_recompute_row(recompute, opposite, pass->T - 1 - j), z.e);
        }
        ctc_write_frame(pass, opposite, j, sum, scale, partial);
        ctc_step(pass, j);
    }
}

/* Value and gradient of a sample, the latter over the side's second half. One whose sides were not
 * made is removed. */
static void ctc_finish_pass(const fl_call *call, int64_t n, int backward, ctc_pass *const *sides,
                            fl_partial *partial)
{
    ctc_pass *pass = sides[backward], *recompute = NULL;
    const ctc_pass *opposite = sides[!backward];
    const int wants_gradient = (call->requested & FL_GRAD) != 0;
    const double labels = call->per_label && call->labels[n] > 1 ? (double)call->labels[n] : 1;
    double weight, loss = 0;
    int removed = ctc_is_removed(call, n, &weight, partial) || !pass || !opposite, finite = 0;
    scaled_double z = {1, 0};
    if (!removed && wants_gradient && opposite->checkpoint_period > 1) {
        recompute = ctc_new_pass(call, n, !backward, 1, partial);
        if (!recompute)
            return;
    }
    if (!removed) {
        if (pass->midpoint < pass->T)
            z = ctc_total_probability(pass, opposite, recompute);
        loss = ctc_loss_of(pass, opposite, z);
        finite = loss - loss == 0;
        if (loss == __builtin_inf() && call->zero_infinity)
            loss = 0;
    }
    if (!backward) {
        partial->divisor_sum = dd_add_double(partial->divisor_sum, removed ? 0 : weight);
        partial->count += !removed;
        if (call->requested & (FL_SUM | FL_VALUES))
            ctc_write_value(call, n, loss, removed ? 0 : weight, labels, partial);
        if (wants_gradient)
            ctc_fill_frames(call, n, removed ? 0 : pass->T, call->T, 0);
    }
    const int64_t meeting = pass ? pass->T / 2 : 0, from = backward ? 0 : meeting,
                  to = backward ? meeting : call->frames[n];
    if (wants_gradient && finite) {
        ctc_write_gradient(pass, opposite, recompute, z,
                           ctc_gradient_scale(call, n, weight, labels), partial);
    } else if (wants_gradient && !removed) {
        ctc_fill_frames(call, n, from, to, (real)(loss == 0 ? 0 : REAL_NAN));
        if (call->formula == FL_FORMULA_ctc && ctc_gradient_is_separate(call))
            ctc_check_frame_sums(call, n, from, to, partial);
    }
    fl_scratch_free(recompute);
}

/* --- the kernel --- */

static void ctc_prepare(const fl_call *call, int64_t n, fl_partial *partial)
{
    double weight;
    if (ctc_is_removed(call, n, &weight, partial))
        return;
    partial->divisor_sum = dd_add_double(partial->divisor_sum, weight);
    partial->count++;
    if (call->requested & FL_GRAD && call->formula == FL_FORMULA_ctc &&
        !ctc_gradient_is_separate(call))
        ctc_check_frame_sums(call, n, 0, call->frames[n], partial);
    ctc_load_labels(call, n, NULL, partial);
}

/* A unit is a sample, in the two halves one side of a sample: the one that has the first frames
 * goes first, as the lowest position that is wrong is reported. */
void SUFFIXED(fl_ctc)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                      fl_partial *partial)
{
    for (int64_t i = first; i < last; i++) {
        int64_t n = i / 2;
        if (phase == FL_PREPARE) {
            ctc_prepare(call, i, partial);
        } else if (phase == FL_SPLIT_PARTIAL) {
            call->split_state[i] = ctc_run_to_midpoint(call, n, (int)(i % 2), partial);
        } else if (phase == FL_SPLIT_FINISH) {
            ctc_finish_pass(call, n, 1 - (int)(i % 2), (ctc_pass *const *)&call->split_state[2 * n],
                            partial);
        } else {
            ctc_pass *sides[] = {ctc_run_to_midpoint(call, i, 0, partial),
                                 ctc_run_to_midpoint(call, i, 1, partial)};
            for (int backward = 1; partial->error_unit == FL_NOWHERE && backward >= 0; backward--)
                ctc_finish_pass(call, i, backward, sides, partial);
            fl_scratch_free(sides[0]);
            fl_scratch_free(sides[1]);
        }
    }
}
