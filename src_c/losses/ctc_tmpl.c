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
#define LN2_HEAD 0x1.62e42feep-1
#define LN2_TAIL 0x1.a39ef35793c76p-33

/* Rows of a side up to so many numbers are all kept. */
static const double KEEP_ALL = 1 << 16;

/* Numbers of the frames that are read at a time: so many that none has to wait for another; and
 * those frames at most. */
enum { BATCH = 512, FRAMES = BATCH / VECTOR };

/* Where exp's argument has no fraction to speak of. */
static const double FAR = -0x1p50;

/* One side of a sample: the recursion from the first frame on, or from the last one back. Its j-th
 * frame is the sample's j-th from its end. Places and rows as in lattice.h, in its order. */
typedef struct side {
    const fl_call *call;
    int64_t sample, T, S;
    int backward;
    int64_t half;          /* frames of its first half */
    int dense;             /* all classes of the arrays are among those of the side */
    int64_t classes;       /* K, those in use or all */
    int64_t *class, *slot; /* (K) which, ascending; (S) the slot of each label among them */
    double *floor;         /* (K) -inf for those in use, else inf */
    int64_t blank_slot;
    /* Frames that have been read, from the batch_first on: */
    int64_t batch_first, batch_last, batch, limit; /* at most `batch`, none from `limit` on */
    int64_t width;                                 /* K, filled up to whole vectors */
    double *score, top[FRAMES]; /* (batch, width) x of the classes; the largest of a frame */
    const double *p, *spread;   /* of each frame, `step` places apart: the probabilities (width)
                                   over the largest; as in lattice_frame */
    int64_t step;
    double *label;              /* (batch, places) */
    double *m, *e, *label_e;    /* (K, K, S) of a frame that spreads too far, else 0 */
    double *posterior, *joined; /* (K) γ, (places) of labels */
    lattice_frame frame;        /* the current one */
    int64_t current;
    /* Those of its first half, or as many as go together: */
    double *read_p, *read_spread;
    double *max, *rest, *share; /* of a softmax m = max x and R = Σ exp(x - m) without one maximal
                                   entry, else m = 0; what makes p the probabilities */
    int keeps;                  /* for the other side: these, and every period-th row */
    int spreads;                /* a frame spread too far */
    const struct side *lender;  /* the side that has the frames of the second half, or NULL */
    int64_t period;             /* 1: in place */
    int64_t fixed, turn; /* rows that keep their place; places that the others take turns in */
    lattice_row *row, *kept;
    lattice lattice;
    double offset[VECTOR], offset_low[VECTOR]; /* Σ of the logarithms apart */
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
                record_error(partial, n, 1, i + k);
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

static int64_t whole_vectors(int64_t n) { return (n + VECTOR - 1) / VECTOR * VECTOR; }

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
    if (s->dense) {
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
    for (int64_t k = 0; k < whole_vectors(s->classes); k++)
        s->floor[k] = __builtin_inf();
    for (int64_t i = 0; i < n; i++)
        s->floor[s->slot[i]] = -__builtin_inf();
    s->floor[s->blank_slot] = -__builtin_inf();
}

/* The next n of the doubles at *from. */
static double *take(double **from, int64_t n)
{
    double *piece = *from;
    *from += n;
    return piece;
}

static double *take_zeros(double **from, int64_t n)
{
    return memset(take(from, n), 0, (size_t)n * sizeof **from);
}

/* A side with all its memory in one piece, or NULL: what is not allowed, and a lack of memory, are
 * noted. One that replays computes again what a side of the same direction did not keep. More
 * labels than frames have no alignment; they count as none, of probability 0. */
static side *new_side(const fl_call *call, int64_t n, int backward, int replays,
                      fl_partial *partial)
{
    enum { PARTS = 13, CACHE_LINE = 64 };
    int64_t T = call->frames[n], S = call->labels[n];
    int impossible = S > T, keeps = call->requested & FL_GRAD && !replays;
    if (impossible) {
        if (!read_labels(call, n, NULL, partial))
            return NULL;
        S = 0;
    }
    int64_t half = backward ? T - T / 2 : T / 2, dense = is_dense(call, S),
            K = dense && call->C > S ? call->C : S + 1, places = row_stride(S),
            stride = row_stride(K), width = whole_vectors(K), together = BATCH / width,
            batch = together >= VECTOR ? together / VECTOR * VECTOR
                    : together > 1     ? together
                                       : 1;
    double row = (double)ROW_PARTS * (double)places;
    int64_t period = row * (double)half <= KEEP_ALL ? 1 : 1 + (int64_t)__builtin_sqrt((double)half),
            fixed = keeps && period == 1 ? half : 0, turn = replays ? period : 2,
            kept = keeps && period > 1 ? half / period + 1 : 0, rows = fixed + turn + kept,
            frames = whole_vectors(keeps && half > batch ? half : batch),
            lists = fixed > batch ? fixed : batch;
    double doubles = PARTS * (double)stride + (double)batch * (double)(places + width) +
                     (double)lists * (double)(width + 1) + 3.0 * (double)(frames + VECTOR) +
                     row * (double)rows;
    double bytes = sizeof(side) + 2.0 * sizeof(int64_t) * (double)K +
                   sizeof(lattice_row) * (double)rows + sizeof(double) * doubles + CACHE_LINE;
    side *s = bytes < 0x1p50 ? fl_scratch_alloc((size_t)bytes) : NULL;
    if (!s) {
        record_error(partial, n, FL_NO_MEMORY, 0);
        return NULL;
    }
    int64_t *class = (int64_t *)(s + 1);
    lattice_row *row_list = (lattice_row *)(class + 2 * K);
    double *at =
        (double *)(((uintptr_t)(row_list + rows) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    double *part[PARTS];
    for (int k = 0; k < PARTS; k++)
        part[k] = take_zeros(&at, stride) + VECTOR;
    *s = (side){.call = call,
                .sample = n,
                .T = T,
                .S = S,
                .backward = backward,
                .half = half,
                .dense = (int)dense,
                .class = class,
                .slot = class + K,
                .floor = part[12],
                .batch = batch,
                .limit = half,
                .score = take(&at, batch * width),
                .step = 1,
                .label = take_zeros(&at, batch * places) + VECTOR,
                .m = part[0],
                .e = part[1],
                .label_e = part[2],
                .posterior = part[3],
                .joined = part[4],
                .read_p = take(&at, lists * width),
                .max = take_zeros(&at, frames + VECTOR),
                .rest = take_zeros(&at, frames + VECTOR),
                .share = take_zeros(&at, frames + VECTOR),
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
    for (int64_t i = 0; i < rows; i++)
        row_list[i] = row_at(take(&at, ROW_PARTS * places), S);
    s->read_spread = take(&at, lists);
    s->label_e[-1] = -DBL_MAX;
    if (!impossible && !read_labels(call, n, s->slot, partial)) {
        fl_scratch_free(s);
        return NULL;
    }
    if (impossible)
        s->offset[0] = -__builtin_inf();
    read_classes(s);
    s->width = whole_vectors(s->classes);
    for (int64_t k = 0; k < batch * s->width; k++) /* what is no class stays so */
        s->score[k] = -__builtin_inf();
    return s;
}

/* --- a frame --- */

static int64_t frame_of(const side *s, int64_t j) { return s->backward ? s->T - 1 - j : j; }

static int64_t frame_entry(const side *s, int64_t frame)
{
    return (s->sample * s->call->T + frame) * s->call->C;
}

typedef real reals
    __attribute__((vector_size(VECTOR * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef double doubles
    __attribute__((vector_size(VECTOR * sizeof(double)), aligned(sizeof(double)), may_alias));

/* Reals as doubles and back, in whole vectors, of which the last overlaps. */
static void widen(int64_t n, const real *from, double *to)
{
    for (int64_t k = 0; n < VECTOR && k < n; k++)
        to[k] = (double)from[k];
    for (int64_t k = 0; n >= VECTOR && k < n; k += VECTOR) {
        int64_t at = k + VECTOR <= n ? k : n - VECTOR;
        *(doubles *)(to + at) = __builtin_convertvector(*(const reals *)(from + at), doubles);
    }
}

static void narrow(int64_t n, const double *from, real *to)
{
    for (int64_t k = 0; n < VECTOR && k < n; k++)
        to[k] = (real)from[k];
    for (int64_t k = 0; n >= VECTOR && k < n; k += VECTOR) {
        int64_t at = k + VECTOR <= n ? k : n - VECTOR;
        *(reals *)(to + at) = __builtin_convertvector(*(const doubles *)(from + at), reals);
    }
}

/* x of the classes. */
static void read_scores(const side *s, int64_t frame, double *restrict score)
{
    const fl_array *x = &s->call->operand[0];
    const int64_t C = s->call->C, entry = frame_entry(s, frame), *class = s->class;
    real tile[TILE], one;
    /* Without scratch: NULL where the row does not lie in place. */
    const real *row = C <= TILE ? fl_load(x, entry, C, tile) : fl_output_buffer(x, entry, C, NULL);
    if (s->dense)
        widen(C, row, score);
    else if (row)
        for (int64_t k = 0; k < s->classes; k++)
            score[k] = (double)row[class[k]];
    else
        for (int64_t k = 0; k < s->classes; k++)
            score[k] = (double)*fl_load(x, entry + class[k], 1, &one);
}

/* Asks for x of the classes of a frame: entries far apart come from memory one by one. */
static void fetch_scores(const side *s, int64_t frame)
{
    const int64_t *class = s->class;
    const real *row =
        fl_output_buffer(&s->call->operand[0], frame_entry(s, frame), s->call->C, NULL);
    for (int64_t k = 0; row && k < s->classes; k++)
        __builtin_prefetch(&row[class[k]]);
}

/* The largest score, NaN if one in use is NaN or +inf, and how far the smallest finite one in use
 * is from it. */
static void find_bounds(int64_t n, const double *score, const double *floor, double *top,
                        double *spread)
{
    const double inf = __builtin_inf();
    double high = -inf, low = inf;
#pragma omp simd reduction(max : high) reduction(min : low)
    for (int64_t k = 0; k < n; k++) {
        double x = score[k] < inf ? score[k] : -floor[k];
        high = larger(high, x);
        low = smaller(x > floor[k] ? x : inf, low);
    }
    *top = high < inf ? high : __builtin_nan("");
    *spread = high - high == 0 && low < inf ? (high - low) * 0x1.71547652b82fep+0 : 0;
}

/* p := score - top, -inf if top is not finite. */
static void subtract_top(int64_t n, const double *restrict score, double top, double *restrict p)
{
    const int finite = top - top == 0;
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        p[k] = finite ? score[k] - top : -__builtin_inf();
}

/* What the rounded difference x - top lacks. */
static INLINE double lost(double x, double top)
{
    double d = x - top, back = d - x;
    return d > FAR && d <= 0 ? (x - (d - back)) - (top + back) : 0;
}

/* Differences of floats lose nothing that matters. */
static void add_lost(int64_t n, const double *restrict score, double top, double *restrict p)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++) {
        double more = p[k] * lost(score[k], top);
        p[k] += more == more ? more : 0; /* inf stays */
    }
}

/* Σ of the entries without a largest one, which is 1. */
static double sum_rest(int64_t n, const double *p)
{
    double sum[VECTOR] = {0}, low[VECTOR] = {0}, ones[VECTOR] = {0};
    for (int64_t k = 0; k < n; k += VECTOR)
#pragma omp simd
        for (int i = 0; i < VECTOR; i++) {
            double one = p[k + i] == 1, v = p[k + i] - one, a = sum[i], total = a + v,
                   b = total - a;
            low[i] += (a - (total - b)) + (v - b);
            sum[i] = total;
            ones[i] += one;
        }
    for (int half = VECTOR / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) {
            sum[i] += sum[i + half];
            low[i] += low[i + half];
            ones[i] += ones[i + half];
        }
    return (ones[0] - 1) + (sum[0] + (low[0] - low[0] == 0 ? low[0] : 0));
}

static void read_labels_of_frames(side *s, int64_t j, int64_t n)
{
    const int64_t places = row_stride(s->S), *slot = s->slot;
    for (int64_t f = 0; f < n; f++) {
        const double *restrict p = s->p + f * s->step * s->width;
        double *restrict label = s->label + f * places;
        for (int64_t i = 0; i < s->S; i++)
            label[i] = p[slot[i]];
    }
    s->batch_first = j;
    s->batch_last = j + n;
}

/* How many frames from the j-th on go together. */
static int64_t frames_together(const side *s, int64_t j)
{
    return s->limit - j < s->batch ? s->limit - j : s->batch;
}

/* The probabilities of frames from the j-th on. */
static void read_frames(side *s, int64_t j)
{
    const int64_t n = frames_together(s, j), width = s->width;
    const int64_t at = s->fixed > 0 && j < s->half ? j : 0;
    double *p = s->read_p + at * width, *spread = s->read_spread + at;
    for (int64_t f = j + n; !s->dense && f < s->limit && f < j + 2 * n; f++)
        fetch_scores(s, frame_of(s, f));
    for (int64_t f = 0; f < n; f++)
        read_scores(s, frame_of(s, j + f), s->score + f * width);
    for (int64_t f = 0; f < n; f++)
        find_bounds(width, s->score + f * width, s->floor, &s->top[f], &spread[f]);
    for (int64_t f = 0; f < n; f++)
        subtract_top(width, s->score + f * width, s->top[f], p + f * width);
    vector_math_double(MATH_EXP, n * width, p, p);
    for (int64_t f = 0; REAL_IS_DOUBLE && f < n; f++)
        add_lost(width, s->score + f * width, s->top[f], p + f * width);
    s->p = p;
    s->spread = spread;
    read_labels_of_frames(s, j, n);
}

/* The same of frames that the other side has read. */
static void borrow_frames(side *s, int64_t j)
{
    s->p = s->lender->read_p + (s->T - 1 - j) * s->width;
    s->spread = s->lender->read_spread + (s->T - 1 - j);
    s->step = -1;
    read_labels_of_frames(s, j, frames_together(s, j));
}

/* The current frame with unlimited range. With n whole, score - top = n ln 2 + r; only exp(r) is
 * left to compute. */
static void widen_frame(side *s)
{
    const double *score = s->score + s->current * s->width;
    const double magic = 0x1.8p52, top = s->top[s->current];
    double *m = s->m, *e = s->e;
    for (int64_t k = 0; k < s->classes; k++) {
        double a = score[k] - top, n = a * 0x1.71547652b82fep+0;
        double whole = (n + magic) - magic, low = lost(score[k], top);
        e[k] = a > FAR ? whole : n;
        m[k] = a > FAR ? (a - whole * LN2_HEAD) + (low - whole * LN2_TAIL) : 0;
    }
    vector_math_double(MATH_EXP, s->classes, m, m);
    for (int64_t k = 0; k < s->classes; k++)
        m[k] = e[k] < -DBL_MAX ? 0 : m[k];
    for (int64_t i = 0; i < s->S; i++) {
        s->frame.label[i] = m[s->slot[i]];
        s->label_e[i] = e[s->slot[i]];
    }
    s->frame.blank = (wide){m[s->blank_slot], e[s->blank_slot]};
}

/* The probabilities of the current frame. */
static const double *frame_p(const side *s) { return s->p + s->current * s->step * s->width; }

/* The probabilities of the j-th frame's states. */
static void read_frame(side *s, int64_t j)
{
    const int was_wide = s->frame.spread > FRAME_SPREAD;
    if ((j < s->batch_first || j >= s->batch_last) && s->lender)
        borrow_frames(s, j);
    else if (j < s->batch_first || j >= s->batch_last)
        read_frames(s, j);
    s->current = j - s->batch_first;
    s->frame = (lattice_frame){.blank = {frame_p(s)[s->blank_slot], 0},
                               .label = s->label + s->current * row_stride(s->S),
                               .label_e = s->label_e,
                               .spread = s->spread[s->current * s->step]};
    if (s->frame.spread > FRAME_SPREAD)
        widen_frame(s);
    else if (was_wide)
        clear(s->label_e, s->S);
}

/* max(m, max x), in several chains that do not wait for each other; a NaN does not matter here, it
 * reappears in R. */
static real max_tile(const real *x, int64_t n, real m)
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
static fl_dd sum_exp_tile(const real *e, int64_t n, int64_t *ones)
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

/* v[0 ... n - 1], whole vectors, to the logarithms apart. */
static void add_apart(side *s, int64_t n, const double *v)
{
    double *restrict sum = s->offset, *restrict low = s->offset_low;
    for (int64_t f = 0; f < n; f += VECTOR)
#pragma omp simd
        for (int i = 0; i < VECTOR; i++) {
            double a = sum[i], b = v[f + i], total = a + b, c = total - a;
            low[i] += (a - (total - c)) + (b - c);
            sum[i] = total;
        }
}

/* What all probabilities of the frames of the batch have in common. */
static void read_shares(side *s)
{
    const int64_t n = s->batch_last - s->batch_first, at = s->keeps ? s->batch_first : 0;
    const int logits = s->call->formula == FL_FORMULA_ctc_with_logits;
    double *max = s->max + at, *rest = s->rest + at, *share = s->share + at, apart[FRAMES];
    for (int64_t f = 0; f < n; f++) {
        s->spreads |= s->spread[f] > FRAME_SPREAD;
        max[f] = logits ? s->top[f] : 0;
        if (s->dense && (logits || s->keeps))
            rest[f] = sum_rest(s->width, s->p + f * s->width);
        else if (logits)
            read_softmax(s, s->batch_first + f, &max[f], &rest[f]);
    }
    const int64_t all = whole_vectors(n);
    if (logits)
        vector_math_double(MATH_LOG1P, all, rest, apart);
    for (int64_t f = 0; f < n; f++) /* rest - rest: NaN, and no loss, where it is infinite */
        apart[f] = s->top[f] - max[f] - (logits ? apart[f] + (rest[f] - rest[f]) : 0);
    clear(apart + n, all - n);
    add_apart(s, all, apart);
    if (!s->keeps)
        return;
    for (int64_t f = 0; f < all; f++)
        share[f] = s->top[f] - max[f];
    vector_math_double(MATH_EXP, all, share, share);
    for (int64_t f = 0; logits && f < all; f++)
        share[f] /= 1 + rest[f];
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
        if (j == s->batch_last) {
            read_frames(s, j);
            read_shares(s);
        }
        read_frame(s, j);
        step(s, j);
    }
    return s;
}

/* Places with a path on both sides of the j-th frame: [first, last_blank), [first, last_label). */
typedef struct {
    int64_t first, last_blank, last_label;
} joint_places;

static joint_places joint_of(const side *s, int64_t j)
{
    const int64_t S = s->S, first = S - (s->T - j);
    return (joint_places){.first = first > 0 ? first : 0,
                          .last_blank = j < S ? j + 1 : S + 1,
                          .last_label = j < S ? j + 1 : S};
}

/* γ of the j-th frame with these rows without its denominator, which is returned. */
static double join(side *s, int64_t j, lattice_row there, double top)
{
    const joint_places at = joint_of(s, j);
    double *posterior = s->posterior;
    double blank =
        lattice_join(&s->lattice, *row_of(s, j), &s->frame, there, top, at.first / VECTOR * VECTOR,
                     at.last_label / VECTOR * VECTOR + VECTOR, s->joined);
    clear(posterior, s->width);
    posterior[s->blank_slot] = blank;
    for (int64_t i = at.first; i < at.last_label; i++)
        posterior[s->slot[i]] += s->joined[i];
    return blank + sum_doubles(s->joined + at.first, at.last_label - at.first).hi;
}

static fl_dd offset_of(const side *s)
{
    fl_dd sum = {0, 0};
    for (int i = 0; i < VECTOR; i++) {
        sum = dd_add_double(sum, s->offset[i]);
        if (s->offset_low[i] - s->offset_low[i] == 0) /* inf and NaN have no remainder */
            sum = dd_add_double(sum, s->offset_low[i]);
    }
    return sum;
}

/* -log of what the sides found: of the sum z over paths and of what they held apart. */
static double loss_of(const side *s, const side *other, wide z)
{
    fl_dd offset = dd_add(offset_of(s), offset_of(other));
    int in_range = z.e > -500 && z.e < 500;
    double log, near = in_range ? z.m * power_of_2(z.e) : z.m, far = in_range ? 0 : z.e;
    vector_math_double(MATH_LOG, 1, &near, &log);
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
        real *g = fl_output_buffer(&call->grad[0], entry, m, tile);
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
        record_error(partial, n, 0, t);
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

/* The gradient of a frame's classes, all or those in use: of p and of the posteriors. */
static void find_gradient(const side *s, double by_p, double by_posterior)
{
    const double *restrict p = frame_p(s);
    double *restrict result = s->posterior;
    const int only = s->call->formula == FL_FORMULA_ctc_posteriors;
#pragma omp simd
    for (int64_t k = 0; k < s->width; k++)
        result[k] = result[k] * by_posterior + (only ? 0 : p[k] * by_p);
}

static void write_dense(const side *s, int64_t entry)
{
    real tile[TILE];
    const fl_array *gradient = &s->call->grad[0];
    real *g = fl_output_buffer(gradient, entry, s->call->C, tile);
    narrow(s->call->C, s->posterior, g);
    fl_store(gradient, entry, s->call->C, g);
}

/* Returns Σ exp of a frame of log-probabilities. */
static double write_sparse(const side *s, int64_t entry, real shift, real factor)
{
    const fl_call *call = s->call;
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
        for (; k < s->classes && s->class[k] < from + n; k++)
            g[s->class[k] - from] = (real)s->posterior[k];
        fl_store(&call->grad[0], entry + from, n, g);
    }
    return sum.hi;
}

/* The gradient of the j-th frame; sum is that of the posteriors. */
static void write_frame(side *s, const side *other, int64_t j, double sum, double scale,
                        fl_partial *partial)
{
    const fl_call *call = s->call;
    const int64_t t = frame_of(s, j), entry = frame_entry(s, t), there = s->T - 1 - j;
    const double share = other->share[there], rest = other->rest[there];
    double whole = share * (1 + rest);
    find_gradient(s, share * scale,
                  call->formula == FL_FORMULA_ctc_posteriors ? 1 / sum : -scale / sum);
    if (s->dense)
        write_dense(s, entry);
    else
        whole = write_sparse(s, entry, (real)other->max[there], (real)(scale / (1 + rest)));
    if (call->formula == FL_FORMULA_ctc && has_own_gradient(call))
        check_frame(call, s->sample, t, whole, partial);
}

/* What multiplies the gradient of a sample. */
static double gradient_scale(const fl_call *call, int64_t n, double weight, double labels)
{
    if (call->formula == FL_FORMULA_ctc_posteriors)
        return 1;
    double scratch, scale = call->grad_scale * weight;
    if (call->grad_output_array.data)
        scale *= *fl_load_double(&call->grad_output_array, n, 1, &scratch);
    return scale / labels;
}

static void write_value(const fl_call *call, int64_t n, double loss, double weight, double labels,
                        fl_partial *partial)
{
    real scratch, *l = fl_output_buffer(&call->values, n, 1, &scratch);
    *l = (real)(loss * weight);
    partial->sum = dd_add_double(partial->sum, (double)*l / labels);
    fl_store(&call->values, n, 1, l);
    if (wants_unit_terms(call))
        emit_unit_terms(call, n, 1, l, labels, &weight, &weight, partial);
}

/* The first frame of a side's second half, joined with what the other found there: Σ over paths. */
static wide meet(side *s, const side *other, side *again)
{
    lattice_row there = replay(again, other, s->T - 1 - s->half);
    s->limit = s->call->requested & FL_GRAD ? s->T : s->half + 1;
    s->lender = s->fixed > 0 && other->fixed > 0 && !s->spreads && !other->spreads ? other : NULL;
    read_frame(s, s->half);
    joint_places at = joint_of(s, s->half);
    double top = highest_joint(&s->lattice, *row_of(s, s->half), &s->frame, there, at.first,
                               at.last_blank, at.last_label);
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
    const int wants_gradient = (call->requested & FL_GRAD) != 0;
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
        partial->divisor_sum = dd_add_double(partial->divisor_sum, removed ? 0 : weight);
        partial->count += !removed;
        if (call->requested & (FL_SUM | FL_VALUES))
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
    fl_scratch_free(again);
}

/* --- the kernel --- */

static void prepare(const fl_call *call, int64_t n, fl_partial *partial)
{
    double weight;
    if (is_removed(call, n, &weight, partial))
        return;
    partial->divisor_sum = dd_add_double(partial->divisor_sum, weight);
    partial->count++;
    if (call->requested & FL_GRAD && call->formula == FL_FORMULA_ctc && !has_own_gradient(call))
        check_frames(call, n, 0, call->frames[n], partial);
    read_labels(call, n, NULL, partial);
}

/* A unit is a sample, in the two halves one side of a sample: the one that has the first frames
 * goes first, as the lowest position that is wrong is reported. */
void SUFFIXED(fl_ctc)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                      fl_partial *partial)
{
    for (int64_t i = first; i < last; i++) {
        int64_t n = i / 2;
        if (phase == FL_PREPARE) {
            prepare(call, i, partial);
        } else if (phase == FL_SPLIT_PARTIAL) {
            call->split_state[i] = first_half(call, n, (int)(i % 2), partial);
        } else if (phase == FL_SPLIT_FINISH) {
            second_half(call, n, 1 - (int)(i % 2), (side *const *)&call->split_state[2 * n],
                        partial);
        } else {
            side *sides[] = {first_half(call, i, 0, partial), first_half(call, i, 1, partial)};
            for (int backward = 1; partial->error_unit == FL_NOWHERE && backward >= 0; backward--)
                second_half(call, i, backward, sides, partial);
            fl_scratch_free(sides[0]);
            fl_scratch_free(sides[1]);
        }
    }
}
