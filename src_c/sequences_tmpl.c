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
#include "double_math.h"
#include "lattice.h"
#include "loader.h"
#include "scalar_math.h"
#include "tile.h"

#include <stdlib.h>
#include <string.h>

/* ln 2 in two parts, the first of 32 bits. */
#define LN2_HEAD 0x1.62e42feep-1
#define LN2_TAIL 0x1.a39ef35793c76p-33

/* Rows of a side up to so many numbers are all kept. */
static const double KEEP_ALL = 1 << 16;

/* Numbers of the frames that are read at a time: so many that none has to wait for another. */
enum { BATCH = 512 };

/* Where exp's argument has no fraction to speak of. */
static const double FAR = -0x1p50;

/* One side of a sample: the recursion from the first frame on, or from the last one back. Its j-th
 * frame is the sample's j-th from its end. Places and rows as in lattice.h, in its order. */
typedef struct {
    const fl_call *call;
    int64_t sample, T, S;
    int backward;
    int64_t half;          /* frames of its first half */
    int64_t classes;       /* K, those in use */
    int64_t *class, *slot; /* (K) which, ascending; (S) the slot of each label among them */
    real *used; /* NULL, or all classes are among them: (C) 1 where it is in use, else 0 */
    int64_t blank_slot;
    /* Frames that have been read, from the batch_first on: */
    int64_t batch_first, batch_last, batch, limit; /* at most `batch`, none from `limit` on */
    int64_t width;                                 /* K, filled up to whole vectors */
    double *score, *p, *low;    /* (batch, width) x of the classes in use, their probabilities over
                                   the largest, what the logarithms of those lack */
    double *top, *spread;       /* (batch) the largest x, and as in lattice_frame */
    double *label;              /* (batch, places) */
    double *m, *e, *label_e;    /* (K, K, S) of a frame that spreads too far, else 0 */
    double *posterior, *joined; /* (K) γ, (places) of labels */
    lattice_frame frame;        /* the current one */
    int64_t current;
    double *max, *rest;  /* of its first half's frames, with logits: m = max x and R = Σ exp(x - m)
                            without one maximal entry */
    int keeps;           /* every period-th row of its first half, for the other side */
    int64_t period;      /* 1: in place */
    int64_t fixed, turn; /* rows that keep their place; places that the others take turns in */
    lattice_row *row, *kept;
    lattice lattice;
    fl_dd offset; /* Σ of the logarithms apart */
} side;

/* --- labels --- */

static int is_removed(const fl_call *call, int64_t n, double *weight, fl_partial *partial)
{
    double scratch;
    const double *s = load_sample_weight(call, n, 1, &scratch, partial);
    *weight = s ? *s : 1;
    return *weight == 0;
}

/* Checks the labels of a sample, and copies them unless `to` is NULL: what was checked is what is
 * used. */
static int read_labels(const fl_call *call, int64_t n, int64_t *to, fl_partial *partial)
{
    int64_t tile[TILE];
    for (int64_t i = 0; i < call->labels[n]; i += TILE) {
        int64_t left = call->labels[n] - i, m = left < TILE ? left : TILE;
        const int64_t *label = fl_load_index(&call->operand[1], call->first_label[n] + i, m, tile);
        for (int64_t k = 0; k < m; k++)
            if (label[k] < 0 || label[k] >= call->C || label[k] == call->blank) {
                note_bad(partial, n, 1, i + k);
                return 0;
            }
        if (to)
            memcpy(to + i, label, (size_t)m * sizeof *to);
    }
    return 1;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t slot_of(const side *s, int64_t class)
{
    int64_t low = 0, high = s->classes;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (s->class[middle] <= class)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Few classes are all in use, as it were. */
static int is_dense(const fl_call *call, int64_t S) { return call->C <= TILE && call->C / 2 <= S; }

/* From the labels, which stand in slot: the classes in use, the slots, what may follow what. */
static void read_classes(side *s)
{
    int64_t n = s->S;
    for (int64_t i = 0; s->backward && i < n / 2; i++) {
        int64_t other = s->slot[n - 1 - i];
        s->slot[n - 1 - i] = s->slot[i];
        s->slot[i] = other;
    }
    for (int64_t i = 0; i < n; i++)
        s->lattice.follows[i] = i == 0 || s->slot[i] != s->slot[i - 1];
    if (s->used) {
        for (int64_t i = 0; i < n; i++)
            s->used[s->slot[i]] = 1;
        s->used[s->call->blank] = 1;
        s->classes = s->call->C;
        s->blank_slot = s->call->blank;
    } else {
        if (n > 0)
            memcpy(s->class, s->slot, (size_t)n * sizeof *s->class);
        s->class[n] = s->call->blank;
        qsort(s->class, (size_t)n + 1, sizeof *s->class, ascending);
        for (int64_t i = 0; i <= n; i++)
            if (i == 0 || s->class[i] != s->class[s->classes - 1])
                s->class[s->classes++] = s->class[i];
        for (int64_t i = 0; i < n; i++)
            s->slot[i] = slot_of(s, s->slot[i]);
        s->blank_slot = slot_of(s, s->call->blank);
    }
    s->width = (s->classes + VECTOR - 1) / VECTOR * VECTOR;
}

/* A side with all its memory in one piece, or NULL: what is not allowed, and a lack of memory, are
 * noted. One that replays computes again what a side of the same direction did not keep. More
 * labels than frames have no alignment; they count as none, of probability 0. */
static side *new_side(const fl_call *call, int64_t n, int backward, int replays,
                      fl_partial *partial)
{
    int64_t T = call->frames[n], S = call->labels[n];
    int impossible = S > T, keeps = call->products & FL_GRAD && !replays;
    if (impossible) {
        if (!read_labels(call, n, NULL, partial))
            return NULL;
        S = 0;
    }
    int64_t half = backward ? T - T / 2 : T / 2, frames = keeps ? half : 1,
            dense = is_dense(call, S), K = dense && call->C > S ? call->C : S + 1,
            places = row_stride(S), stride = row_stride(K);
    double row = (double)ROW_PARTS * (double)places;
    int64_t period = row * (double)half <= KEEP_ALL ? 1 : 1 + (int64_t)__builtin_sqrt((double)half),
            fixed = keeps && period == 1 ? half : 0, turn = replays ? period : 2,
            kept = keeps && period > 1 ? half / period + 1 : 0, rows = fixed + turn + kept;
    int64_t batch = BATCH / stride > 1 ? BATCH / stride : 1;
    double *part[13];
    enum { PARTS = sizeof part / sizeof *part, CACHE_LINE = 64 };
    double fixed_doubles = (PARTS + 4 * (double)batch) * (double)stride + 2 * (double)batch;
    double doubles = fixed_doubles + 2.0 * (double)frames + row * (double)rows;
    double bytes = sizeof(side) + 2.0 * sizeof(int64_t) * (double)K +
                   sizeof(lattice_row) * (double)rows + sizeof(double) * doubles + CACHE_LINE;
    side *s = bytes < 0x1p50 ? malloc((size_t)bytes) : NULL;
    if (!s) {
        note_bad(partial, n, FL_NO_MEMORY, 0);
        return NULL;
    }
    int64_t *class = (int64_t *)(s + 1);
    lattice_row *row_list = (lattice_row *)(class + 2 * K);
    double *at =
        (double *)(((uintptr_t)(row_list + rows) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    memset(at, 0, (size_t)fixed_doubles * sizeof *at);
    for (int k = 0; k < PARTS; k++, at += stride)
        part[k] = at + VECTOR;
    double *label = at, *score = label + batch * stride, *p = score + batch * stride,
           *low = p + batch * stride, *top = low + batch * stride;
    at = top + 2 * batch + 2 * frames;
    for (int64_t i = 0; i < rows; i++, at += ROW_PARTS * places)
        row_list[i] = row_at(at, S);
    *s = (side){.call = call,
                .sample = n,
                .T = T,
                .S = S,
                .backward = backward,
                .half = half,
                .class = class,
                .slot = class + K,
                .used = dense ? (real *)part[12] : NULL,
                .batch = batch,
                .limit = half,
                .score = score,
                .p = p,
                .low = low,
                .top = top,
                .spread = top + batch,
                .label = label + VECTOR,
                .m = part[0],
                .e = part[1],
                .label_e = part[2],
                .posterior = part[3],
                .joined = part[4],
                .max = top + 2 * batch,
                .rest = top + 2 * batch + frames,
                .keeps = keeps,
                .period = period,
                .fixed = fixed,
                .turn = turn,
                .row = row_list,
                .kept = row_list + fixed + turn,
                .lattice = {.S = S,
                            .follows = part[5],
                            .shift = part[6],
                            .jump = part[7],
                            .joint = {part[8], part[9], part[10], part[11]},
                            .joint_of = {-1, -1}}};
    s->label_e[-1] = -DBL_MAX;
    if (!impossible && !read_labels(call, n, s->slot, partial)) {
        free(s);
        return NULL;
    }
    if (impossible)
        s->offset.hi = -__builtin_inf();
    read_classes(s);
    return s;
}

/* --- a frame --- */

static int64_t frame_of(const side *s, int64_t j) { return s->backward ? s->T - 1 - j : j; }

static int64_t frame_entry(const side *s, int64_t frame)
{
    return (s->sample * s->call->T + frame) * s->call->C;
}

/* x of the classes in use, filled up to whole vectors. */
static void read_scores(const side *s, int64_t frame, double *restrict score)
{
    const fl_array *x = &s->call->operand[0];
    const int64_t C = s->call->C, entry = frame_entry(s, frame), *class = s->class;
    real tile[TILE], one;
    /* Without scratch: NULL where the row does not lie in place. */
    const real *row = C <= TILE ? fl_load(x, entry, C, tile) : fl_target(x, entry, C, NULL);
    int64_t k = 0;
    for (; s->used && k < s->classes; k++)
        score[k] = s->used[k] > 0 ? (double)row[k] : -__builtin_inf();
    for (; row && k < s->classes; k++)
        score[k] = (double)row[class[k]];
    for (; k < s->classes; k++)
        score[k] = (double)*fl_load(x, entry + class[k], 1, &one);
    for (; k < s->width; k++)
        score[k] = -__builtin_inf();
}

/* The largest score, NaN if one is NaN or +inf, and how far the smallest finite one is from it. */
static void find_bounds(int64_t n, const double *score, double *top, double *spread)
{
    const double inf = __builtin_inf();
    double high[VECTOR], low[VECTOR];
    for (int i = 0; i < VECTOR; i++) {
        high[i] = -inf;
        low[i] = inf;
    }
    for (int64_t k = 0; k < n; k += VECTOR)
#pragma omp simd
        for (int i = 0; i < VECTOR; i++) {
            double v = score[k + i] < inf ? score[k + i] : inf;
            high[i] = larger(high[i], v);
            low[i] = smaller(v > -inf ? v : inf, low[i]);
        }
    for (int half = VECTOR / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) {
            high[i] = larger(high[i], high[i + half]);
            low[i] = smaller(low[i], low[i + half]);
        }
    *top = high[0] < inf ? high[0] : __builtin_nan("");
    *spread = high[0] - high[0] == 0 ? (high[0] - low[0]) * 0x1.71547652b82fep+0 : 0;
}

/* a := score - top and what it lacks; -inf if top is not finite. */
static void subtract_top(int64_t n, const double *restrict score, double top, double *restrict a,
                         double *restrict low)
{
    const int finite = top - top == 0;
    for (int64_t k = 0; k < n; k += VECTOR)
#pragma omp simd
        for (int64_t i = k; i < k + VECTOR; i++) {
            double x = score[i], d = finite ? x - top : -__builtin_inf(), back = d - x;
            low[i] = d > FAR ? (x - (d - back)) - (top + back) : 0;
            a[i] = d;
        }
}

/* The probabilities of frames from the j-th on. */
static void read_frames(side *s, int64_t j)
{
    const int64_t n = s->limit - j < s->batch ? s->limit - j : s->batch, width = s->width;
    const int64_t places = row_stride(s->S), *slot = s->slot;
    double *restrict p = s->p, *restrict low = s->low;
    for (int64_t f = 0; f < n; f++)
        read_scores(s, frame_of(s, j + f), s->score + f * width);
    for (int64_t f = 0; f < n; f++)
        find_bounds(width, s->score + f * width, &s->top[f], &s->spread[f]);
    for (int64_t f = 0; f < n; f++)
        subtract_top(width, s->score + f * width, s->top[f], p + f * width, low + f * width);
    double_math(MATH_EXP, n * width, p, p);
    for (int64_t k = 0; k < n * width; k += VECTOR)
#pragma omp simd
        for (int64_t i = k; i < k + VECTOR; i++)
            p[i] += p[i] * low[i];
    for (int64_t f = 0; f < n; f++) {
        double *restrict label = s->label + f * places;
        for (int64_t i = 0; i < s->S; i++)
            label[i] = p[f * width + slot[i]];
    }
    s->batch_first = j;
    s->batch_last = j + n;
}

/* The current frame with unlimited range. With n whole, score - top = n ln 2 + r; only exp(r) is
 * left to compute. */
static void widen_frame(side *s)
{
    const int64_t at = s->current * s->width;
    const double magic = 0x1.8p52, top = s->top[s->current];
    double *m = s->m, *e = s->e;
    for (int64_t k = 0; k < s->classes; k++) {
        double a = s->score[at + k] - top, n = a * 0x1.71547652b82fep+0;
        double whole = (n + magic) - magic, low = s->low[at + k];
        e[k] = a > FAR ? whole : n;
        m[k] = a > FAR ? (a - whole * LN2_HEAD) + (low - whole * LN2_TAIL) : 0;
    }
    double_math(MATH_EXP, s->classes, m, m);
    for (int64_t k = 0; k < s->classes; k++)
        m[k] = e[k] < -DBL_MAX ? 0 : m[k];
    for (int64_t i = 0; i < s->S; i++) {
        s->frame.label[i] = m[s->slot[i]];
        s->label_e[i] = e[s->slot[i]];
    }
    s->frame.blank = (wide){m[s->blank_slot], e[s->blank_slot]};
}

/* The probabilities of the j-th frame's states. */
static void read_frame(side *s, int64_t j)
{
    const int was_wide = s->frame.spread > FRAME_SPREAD;
    if (j < s->batch_first || j >= s->batch_last)
        read_frames(s, j);
    s->current = j - s->batch_first;
    s->frame = (lattice_frame){.blank = {s->p[s->current * s->width + s->blank_slot], 0},
                               .label = s->label + s->current * row_stride(s->S),
                               .label_e = s->label_e,
                               .spread = s->spread[s->current]};
    if (s->frame.spread > FRAME_SPREAD)
        widen_frame(s);
    else if (was_wide)
        clear(s->label_e, s->S);
}

/* max(m, max x); a NaN does not matter here, it reappears in R. */
static real max_tile(const real *x, int64_t n, real m)
{
    real lane[LANES];
    int64_t i = 0;
    for (int k = 0; k < LANES; k++)
        lane[k] = m;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++)
            lane[k] = lane[k] < x[i + k] ? x[i + k] : lane[k];
    if (i > 0)
        for (int k = 0; k < LANES; k++)
            m = m < lane[k] ? lane[k] : m;
    for (; i < n; i++)
        m = m < x[i] ? x[i] : m;
    return m;
}

/* Σ of the entries that are not 1, and the number of ones. */
static fl_dd sum_exp_tile(const real *e, int64_t n, int64_t *ones)
{
    lanes sum = {{0}, {0}};
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
    return sum_lanes(&sum);
}

/* m and R of the j-th frame's logits. */
static void read_softmax(side *s, int64_t j, double *max, double *rest)
{
    const int64_t C = s->call->C, entry = frame_entry(s, frame_of(s, j));
    real tile[TILE], e[TILE], m = -REAL_INFINITY;
    fl_dd sum = {0, 0};
    int64_t ones = 0;
    for (int64_t from = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        m = max_tile(fl_load(&s->call->operand[0], entry + from, n, tile), n, m);
    }
    for (int64_t from = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        const real *x = fl_load(&s->call->operand[0], entry + from, n, tile);
        for (int64_t c = 0; c < n; c++)
            e[c] = x[c] - m;
        for (int64_t c = 0; c < n; c++)
            e[c] = EXP(e[c]);
        sum = dd_add(sum, sum_exp_tile(e, n, &ones));
    }
    *max = (double)m;
    *rest = dd_add_double(sum, (double)(ones - 1)).hi;
}

/* --- the recursion --- */

static lattice_row *row_of(const side *s, int64_t j)
{
    return &s->row[j < s->fixed ? j : s->fixed + (j - s->fixed) % s->turn];
}

/* From the row of the j-th frame to the next. */
static void step(side *s, int64_t j)
{
    lattice_step(&s->lattice, j, row_of(s, j), &s->frame, row_of(s, j + 1));
}

/* Where steps may begin again. */
static int is_kept(const side *s, int64_t j) { return s->period > 1 && j % s->period == 0; }

/* The j-th row of the first half of `other`, its rows being asked for from the last to the first; s
 * is NULL where they are still there. */
static lattice_row replay(side *s, const side *other, int64_t j)
{
    if (!s)
        return *row_of(other, j);
    int64_t start = j - j % s->period;
    if (j == other->half - 1 || j % s->period == s->period - 1) {
        lattice_row first = row_at(s->row[0].blank - VECTOR, s->S);
        copy_row(s->S, other->kept[start / s->period], first);
        first.exponents = ++s->lattice.exponents;
        s->row[0] = first;
        s->lattice.room = 0;
        s->limit = j;
        for (int64_t i = start; i < j; i++) {
            read_frame(s, i);
            step(s, i);
        }
    }
    return *row_of(s, j);
}

static side *first_half(const fl_call *call, int64_t n, int backward, fl_partial *partial)
{
    double weight;
    side *s =
        is_removed(call, n, &weight, partial) ? NULL : new_side(call, n, backward, 0, partial);
    if (!s)
        return NULL;
    lattice_start(&s->lattice, *row_of(s, 0));
    for (int64_t j = 0; j < s->half; j++) {
        if (is_kept(s, j))
            s->lattice.room = 0;
        if (is_kept(s, j) && s->keeps)
            copy_row(s->S, *row_of(s, j), s->kept[j / s->period]);
        read_frame(s, j);
        double apart = s->top[s->current];
        if (call->formula == FL_FORMULA_ctc_with_logits) {
            int64_t at = s->keeps ? j : 0;
            double log1p;
            read_softmax(s, j, &s->max[at], &s->rest[at]);
            double_math(MATH_LOG1P, 1, &s->rest[at], &log1p);
            s->offset = dd_add_double(s->offset, -log1p);
            apart -= s->max[at];
        }
        s->offset = dd_add_double(s->offset, apart);
        step(s, j);
    }
    return s;
}

/* γ of the j-th frame with these rows without its denominator, which is returned. */
static double join(side *s, int64_t j, lattice_row there, double top)
{
    const int64_t S = s->S, first = S - (s->T - j) > 0 ? S - (s->T - j) : 0;
    const int64_t last = j < S ? j + 1 : S; /* places with a path on both sides */
    double *posterior = s->posterior, sum = 0;
    double blank =
        lattice_join(&s->lattice, *row_of(s, j), &s->frame, there, top, first / VECTOR * VECTOR,
                     last / VECTOR * VECTOR + VECTOR, s->joined);
    clear(posterior, s->classes);
    posterior[s->blank_slot] = blank;
    for (int64_t i = first; i < last; i++)
        posterior[s->slot[i]] += s->joined[i];
    for (int64_t k = 0; k < s->classes; k++)
        sum += posterior[k];
    return sum;
}

/* -log of what the sides found: of the sum z over paths and of what they held apart. */
static double loss_of(const side *s, const side *other, wide z)
{
    fl_dd offset = dd_add(s->offset, other->offset);
    int in_range = z.e > -500 && z.e < 500;
    double log, near = in_range ? z.m * power_of_2(z.e) : z.m, far = in_range ? 0 : z.e;
    double_math(MATH_LOG, 1, &near, &log);
    return 0 - (offset.hi + (far * 0x1.62e42fefa39efp-1 + (log + offset.lo)));
}

/* --- results --- */

/* v in the entries of a sample's frames [from, to). */
static void fill_frames(const fl_call *call, int64_t n, int64_t from, int64_t to, real v)
{
    real tile[TILE];
    int64_t entry = (n * call->T + from) * call->C, end = (n * call->T + to) * call->C;
    for (; entry < end; entry += TILE) {
        int64_t m = end - entry < TILE ? end - entry : TILE;
        real *g = fl_target(&call->grad[0], entry, m, tile);
        for (int64_t i = 0; i < m; i++)
            g[i] = v;
        fl_store(&call->grad[0], entry, m, g);
    }
}

static int has_own_gradient(const fl_call *call)
{
    return call->grad[0].data != call->operand[0].data;
}

static void check_frame(const fl_call *call, int64_t n, int64_t t, double sum, fl_partial *partial)
{
    if (__builtin_fabs(sum - 1) > call->sum_tolerance)
        note_bad(partial, n, 0, t);
}

/* Notes the first frame of [from, to) whose probabilities do not add up to 1; a NaN passes. */
static void check_frames(const fl_call *call, int64_t n, int64_t from, int64_t to,
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
        check_frame(call, n, t, sum.hi, partial);
    }
}

/* The gradient of the j-th frame, the classes in use in double. sum is that of the posteriors. */
static void write_frame(side *s, const side *other, int64_t j, double sum, double scale,
                        fl_partial *partial)
{
    const fl_call *call = s->call;
    const fl_formula formula = call->formula;
    const int64_t C = call->C, entry = frame_entry(s, frame_of(s, j)), there = s->T - 1 - j;
    const double *p = s->p + s->current * s->width;
    double max = 0, S = 1, top, *result = s->posterior;
    if (formula == FL_FORMULA_ctc_with_logits) {
        max = other->max[there];
        S = 1 + other->rest[there];
    }
    top = s->top[s->current] - max;
    double_math(MATH_EXP, 1, &top, &top);
    const double softmax = formula == FL_FORMULA_ctc_posteriors ? 0 : scale * (top / S),
                 posterior = formula == FL_FORMULA_ctc_posteriors ? 1 / sum : -scale / sum;
    for (int64_t k = 0; k < s->classes; k++)
        result[k] = p[k] * softmax + result[k] * posterior;

    real x_tile[TILE], e[TILE], g_tile[TILE], shift = (real)max, factor = (real)(scale / S);
    fl_dd exps = {0, 0};
    for (int64_t from = 0, k = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        real *g = fl_target(&call->grad[0], entry + from, n, g_tile);
        if (formula == FL_FORMULA_ctc_posteriors) {
            memset(g, 0, (size_t)n * sizeof *g);
        } else {
            const real *x = fl_load(&call->operand[0], entry + from, n, x_tile);
            for (int64_t c = 0; c < n; c++)
                e[c] = EXP(x[c] - shift);
            for (int64_t c = 0; c < n; c++)
                g[c] = e[c] * factor;
            if (formula == FL_FORMULA_ctc)
                exps = dd_add(exps, sum_tile(e, n));
        }
        for (; s->used && k < n; k++)
            g[k] = s->used[k] > 0 ? (real)result[k] : g[k];
        for (; k < s->classes && s->class[k] < from + n; k++)
            g[s->class[k] - from] = (real)result[k];
        fl_store(&call->grad[0], entry + from, n, g);
    }
    if (formula == FL_FORMULA_ctc && has_own_gradient(call))
        check_frame(call, s->sample, frame_of(s, j), exps.hi, partial);
}

/* What multiplies the gradient of a sample. */
static double gradient_scale(const fl_call *call, int64_t n, double weight, double labels)
{
    if (call->formula == FL_FORMULA_ctc_posteriors)
        return 1;
    double scratch, scale = call->scale * weight;
    if (call->upstream_each.data)
        scale *= *fl_load_double(&call->upstream_each, n, 1, &scratch);
    return scale / labels;
}

static void write_value(const fl_call *call, int64_t n, double loss, double weight, double labels,
                        fl_partial *partial)
{
    real scratch, *l = fl_target(&call->values, n, 1, &scratch);
    *l = (real)(loss * weight);
    partial->sum = dd_add_double(partial->sum, (double)*l / labels);
    fl_store(&call->values, n, 1, l);
}

/* The first frame of a side's second half, joined with what the other found there: Σ over paths. */
static wide meet(side *s, const side *other, side *again)
{
    lattice_row there = replay(again, other, s->T - 1 - s->half);
    s->limit = s->call->products & FL_GRAD ? s->T : s->half + 1;
    read_frame(s, s->half);
    double top = highest_joint(&s->lattice, *row_of(s, s->half), &s->frame, there);
    return (wide){join(s, s->half, there, top), top};
}

static void write_gradient(side *s, const side *other, side *again, wide z, double scale,
                           fl_partial *partial)
{
    double sum = z.m;
    for (int64_t j = s->half; j < s->T; j++) {
        if (j > s->half) {
            read_frame(s, j);
            sum = join(s, j, replay(again, other, s->T - 1 - j), z.e);
        }
        write_frame(s, other, j, sum, scale, partial);
        step(s, j);
    }
}

/* Value and gradient of a sample, the latter over the side's second half. One whose sides were not
 * made is removed. */
static void second_half(const fl_call *call, int64_t n, int backward, side *const *sides,
                        fl_partial *partial)
{
    side *s = sides[backward], *again = NULL;
    const side *other = sides[!backward];
    const int wants_gradient = (call->products & FL_GRAD) != 0;
    const double labels = call->per_label && call->labels[n] > 1 ? (double)call->labels[n] : 1;
    double weight, loss = 0;
    int removed = is_removed(call, n, &weight, partial) || !s || !other, finite = 0;
    wide z = {1, 0};
    if (!removed && wants_gradient && other->period > 1) {
        again = new_side(call, n, !backward, 1, partial);
        if (!again)
            return;
    }
    if (!removed) {
        if (s->half < s->T)
            z = meet(s, other, again);
        loss = loss_of(s, other, z);
        finite = loss - loss == 0;
        if (loss == __builtin_inf() && call->zero_infinity)
            loss = 0;
    }
    if (!backward) {
        partial->weight = dd_add_double(partial->weight, removed ? 0 : weight);
        partial->count += !removed;
        if (call->products & (FL_SUM | FL_VALUES))
            write_value(call, n, loss, removed ? 0 : weight, labels, partial);
        if (wants_gradient)
            fill_frames(call, n, removed ? 0 : s->T, call->T, 0);
    }
    const int64_t meeting = s ? s->T / 2 : 0, from = backward ? 0 : meeting,
                  to = backward ? meeting : call->frames[n];
    if (wants_gradient && finite) {
        write_gradient(s, other, again, z, gradient_scale(call, n, weight, labels), partial);
    } else if (wants_gradient && !removed) {
        fill_frames(call, n, from, to, (real)(loss == 0 ? 0 : REAL_NAN));
        if (call->formula == FL_FORMULA_ctc && has_own_gradient(call))
            check_frames(call, n, from, to, partial);
    }
    free(again);
}

/* --- the kernel --- */

static void prepare(const fl_call *call, int64_t n, fl_partial *partial)
{
    double weight;
    if (is_removed(call, n, &weight, partial))
        return;
    partial->weight = dd_add_double(partial->weight, weight);
    partial->count++;
    if (call->products & FL_GRAD && call->formula == FL_FORMULA_ctc && !has_own_gradient(call))
        check_frames(call, n, 0, call->frames[n], partial);
    read_labels(call, n, NULL, partial);
}

/* A unit is a sample, in the two halves one side of a sample: the one that has the first frames
 * goes first, as the lowest position that is wrong is reported. */
void SUFFIXED(fl_sequences)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                            fl_partial *partial)
{
    for (int64_t i = first; i < last; i++) {
        int64_t n = i / 2;
        if (phase == FL_PREPARE) {
            prepare(call, i, partial);
        } else if (phase == FL_FIRST_HALF) {
            call->sides[i] = first_half(call, n, (int)(i % 2), partial);
        } else if (phase == FL_SECOND_HALF) {
            second_half(call, n, 1 - (int)(i % 2), (side *const *)&call->sides[2 * n], partial);
        } else {
            side *sides[] = {first_half(call, i, 0, partial), first_half(call, i, 1, partial)};
            for (int backward = 1; partial->bad_unit == FL_NOWHERE && backward >= 0; backward--)
                second_half(call, i, backward, sides, partial);
            free(sides[0]);
            free(sides[1]);
        }
    }
}
