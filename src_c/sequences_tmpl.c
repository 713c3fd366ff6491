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
 * frames of the other and joins what that one found. That would be T rows of the lattice to keep:
 * of each √T only the first is kept, and the others are computed again from there. The two sides
 * are equal but for the order of frames and labels, and in either half they may run at the same
 * time.
 *
 * A frame's p is taken relative to its largest among the classes in use, and the logarithms of
 * those, from which a softmax's denominator is subtracted, are added up apart: a confident
 * prediction has P = exp(sum) (1 + little). */
#include "lattice.h"
#include "loader.h"
#include "scalar_math.h"
#include "tile.h"

#include <stdlib.h>
#include <string.h>

/* EXP, LOG, LOG1P in double, whatever the real. */
#define double_math FL_PASTE(fl_math, ISA, f64)
enum { MATH_EXP, MATH_LOG, MATH_LOG1P };
fl_math_fn double_math;

/* ln 2 in two parts, the first of 32 bits. */
#define LN2_HEAD 0x1.62e42feep-1
#define LN2_TAIL 0x1.a39ef35793c76p-33

/* Numbers of a side that stay in the cache: so many rows are kept rather than computed again. */
static const double KEEP_ALL = 1 << 16;

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
    int64_t blank_slot;
    double *score;                      /* (K) x of the classes in use */
    double *p, *p_e;                    /* (K) their probabilities, relative to the largest */
    double *posterior;                  /* (K) γ */
    wide blank;                         /* p of the blank, ... */
    double *label, *label_e, *repeat_e; /* ... of the labels */
    double *joined, *joined_e;
    double *max, *rest;   /* of its first half's frames, with logits: m = max x and R = Σ exp(x - m)
                             without one maximal entry */
    int keeps;            /* every period-th row of its first half, for the other side */
    int64_t period, turn; /* turn: rows at a time */
    double *kept, *rows;
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

/* From the labels, which stand in slot: the classes in use, the slots, what may follow what. */
static void read_classes(side *s)
{
    int64_t n = s->S;
    for (int64_t i = 0; s->backward && i < n / 2; i++) {
        int64_t other = s->slot[n - 1 - i];
        s->slot[n - 1 - i] = s->slot[i];
        s->slot[i] = other;
    }
    if (n > 0)
        memcpy(s->class, s->slot, (size_t)n * sizeof *s->class);
    s->class[n] = s->call->blank;
    qsort(s->class, (size_t)n + 1, sizeof *s->class, ascending);
    for (int64_t i = 0; i <= n; i++)
        if (i == 0 || s->class[i] != s->class[s->classes - 1])
            s->class[s->classes++] = s->class[i];
    for (int64_t i = 0; i < n; i++)
        s->repeat_e[i] = i > 0 && s->slot[i] == s->slot[i - 1] ? -__builtin_inf() : 0;
    s->repeat_e[n] = 0;
    for (int64_t i = 0; i < n; i++)
        s->slot[i] = slot_of(s, s->slot[i]);
    s->blank_slot = slot_of(s, s->call->blank);
    s->label[0] = s->label[n + 1] = 0;
    s->label_e[0] = s->label_e[n + 1] = -DBL_MAX;
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
    int64_t half = backward ? T - T / 2 : T / 2, frames = keeps ? half : 1, K = S + 1,
            places = row_places(S);
    double row = (double)ROW_PARTS * (double)places;
    int64_t period = row * (double)half <= KEEP_ALL ? 1 : 1 + (int64_t)__builtin_sqrt((double)half),
            turn = replays ? period : 2, kept = keeps ? half / period + 1 : 0;
    double doubles = 11.0 * (double)places + 2.0 * (double)frames + row * (double)(turn + kept);
    double bytes = sizeof(side) + 8.0 * (2.0 * (double)K + doubles);
    side *s = bytes < 0x1p50 ? malloc((size_t)bytes) : NULL;
    if (!s) {
        note_bad(partial, n, FL_NO_MEMORY, 0);
        return NULL;
    }
    *s = (side){.call = call,
                .sample = n,
                .T = T,
                .S = S,
                .backward = backward,
                .half = half,
                .keeps = keeps,
                .period = period,
                .turn = turn};
    s->class = (int64_t *)(s + 1);
    s->slot = s->class + K;
    double **const part[] = {&s->score, &s->p,       &s->p_e,      &s->posterior,
                             &s->label, &s->label_e, &s->repeat_e, &s->joined};
    double *at = (double *)(s->slot + K);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++, at += places)
        *part[i] = at;
    s->joined_e = (at += places);
    s->max = (at += 2 * places);
    s->rest = (at += frames);
    s->rows = (at += frames);
    s->kept = at + turn * ROW_PARTS * places;
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

/* x of the classes in use. Returns the largest, NaN if one is NaN or +inf. */
static double read_scores(side *s, int64_t frame)
{
    const fl_array *x = &s->call->operand[0];
    const int64_t C = s->call->C, entry = frame_entry(s, frame);
    real tile[TILE], one;
    /* Without scratch: NULL where the row does not lie in place. */
    const real *row = C <= TILE ? fl_load(x, entry, C, tile) : fl_target(x, entry, C, NULL);
    double max = -__builtin_inf();
    int bad = 0;
    for (int64_t k = 0; k < s->classes; k++) {
        double v = (double)(row ? row[s->class[k]] : *fl_load(x, entry + s->class[k], 1, &one));
        bad |= !(v < __builtin_inf());
        max = larger(max, v);
        s->score[k] = v;
    }
    return bad ? __builtin_nan("") : max;
}

/* p := exp(score - top), of unlimited range; 0 if top is not finite. With n whole,
 * score - top = n ln 2 + r; only exp(r) is left to compute. */
static void exp_scores(side *s, double top)
{
    const double magic = 0x1.8p52;
    const int64_t K = s->classes;
    double *restrict r = s->p, *restrict e = s->p_e;
    const double *restrict x = s->score;
    int finite = top - top == 0;
    for (int64_t k = 0; k < K; k++) {
        double a = finite ? x[k] - top : -__builtin_inf();
        double back = a - x[k], low = (x[k] - (a - back)) - (top + back); /* what a lacks */
        double n = a * 0x1.71547652b82fep+0, whole = (n + magic) - magic;
        r[k] = a > FAR ? (a - whole * LN2_HEAD) + (low - whole * LN2_TAIL) : 0;
        e[k] = a > FAR ? whole : n;
    }
    double_math(MATH_EXP, K, r, r);
    for (int64_t k = 0; k < K; k++)
        r[k] = e[k] < -DBL_MAX ? 0 : r[k];
}

/* The probabilities of the j-th frame's states. Returns the logarithm that is apart. */
static double read_frame(side *s, int64_t j)
{
    double top = read_scores(s, frame_of(s, j));
    exp_scores(s, top);
    const double *p = s->p, *p_e = s->p_e;
    const int64_t *slot = s->slot;
    double *restrict label = s->label + 1, *restrict label_e = s->label_e + 1;
    for (int64_t i = 0; i < s->S; i++) {
        label[i] = p[slot[i]];
        label_e[i] = p_e[slot[i]];
    }
    s->blank = (wide){s->p[s->blank_slot], s->p_e[s->blank_slot]};
    return top;
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

static size_t row_bytes(const side *s)
{
    return ROW_PARTS * (size_t)row_places(s->S) * sizeof(double);
}

static double *row_data(const side *s, double *rows, int64_t index)
{
    return rows + index * ROW_PARTS * row_places(s->S);
}

static lattice_row row_of(const side *s, int64_t j)
{
    return row_at(row_data(s, s->rows, j % s->turn), s->S);
}

/* From the row of the j-th frame to the next. */
static void step(const side *s, int64_t j)
{
    lattice_row to = row_of(s, j + 1);
    lattice_step(s->S, row_of(s, j), s->blank, s->label, s->label_e, s->repeat_e, to);
    if (j % NORMALISE_EVERY == NORMALISE_EVERY - 1)
        normalise_row(s->S, to);
}

/* The j-th row of the first half of `other`, its rows being asked for from the last to the first.
 */
static lattice_row replay(side *s, const side *other, int64_t j)
{
    int64_t start = j - j % s->period;
    if (j == other->half - 1 || j % s->period == s->period - 1) {
        memcpy(s->rows, row_data(s, other->kept, j / s->period), row_bytes(s));
        for (int64_t i = start; i < j; i++) {
            read_frame(s, i);
            step(s, i);
        }
    }
    return row_of(s, j);
}

static side *first_half(const fl_call *call, int64_t n, int backward, fl_partial *partial)
{
    double weight;
    side *s =
        is_removed(call, n, &weight, partial) ? NULL : new_side(call, n, backward, 0, partial);
    if (!s)
        return NULL;
    lattice_start(s->S, row_of(s, 0));
    for (int64_t j = 0; j < s->half; j++) {
        if (s->keeps && j % s->period == 0)
            memcpy(row_data(s, s->kept, j / s->period), row_of(s, j).blank, row_bytes(s));
        double apart = read_frame(s, j);
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

/* γ of the frame with these rows without its denominator, which is returned. */
static wide join(side *s, lattice_row here, lattice_row there)
{
    const int64_t S = s->S;
    double sum = 0;
    double top =
        lattice_join(S, here, s->blank, s->label, s->label_e, there, s->joined, s->joined_e);
    for (int64_t k = 0; k < s->classes; k++)
        s->posterior[k] = 0;
    s->posterior[s->blank_slot] = sum_states(s->joined, S + 1);
    for (int64_t i = 0; i < S; i++)
        s->posterior[s->slot[i]] += s->joined[S + 2 + i];
    for (int64_t k = 0; k < s->classes; k++)
        sum += s->posterior[k];
    return (wide){sum, top};
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

/* The gradient of the j-th frame, the classes in use in double. */
static void write_frame(side *s, const side *other, int64_t j, wide z, double scale)
{
    const fl_call *call = s->call;
    const fl_formula formula = call->formula;
    const int64_t C = call->C, entry = frame_entry(s, frame_of(s, j)), there = s->T - 1 - j;
    double max = 0, S = 1, *probability = s->p;
    if (formula == FL_FORMULA_ctc_with_logits) {
        max = other->max[there];
        S = 1 + other->rest[there];
    }
    for (int64_t k = 0; k < s->classes; k++)
        probability[k] = s->score[k] - max;
    double_math(MATH_EXP, s->classes, probability, probability);

    real x_tile[TILE], e[TILE], g_tile[TILE], shift = (real)max, factor = (real)(scale / S);
    for (int64_t from = 0, k = 0; from < C; from += TILE) {
        int64_t n = C - from < TILE ? C - from : TILE;
        real *g = fl_target(&call->grad[0], entry + from, n, g_tile);
        if (formula == FL_FORMULA_ctc_posteriors) {
            memset(g, 0, (size_t)n * sizeof *g);
        } else {
            const real *x = fl_load(&call->operand[0], entry + from, n, x_tile);
            for (int64_t c = 0; c < n; c++)
                e[c] = x[c] - shift;
            for (int64_t c = 0; c < n; c++)
                e[c] = EXP(e[c]);
            for (int64_t c = 0; c < n; c++)
                g[c] = e[c] * factor;
        }
        for (; k < s->classes && s->class[k] < from + n; k++) {
            double posterior = s->posterior[k] / z.m;
            g[s->class[k] - from] = formula == FL_FORMULA_ctc_posteriors
                                        ? (real)posterior
                                        : (real)(scale * (probability[k] / S - posterior));
        }
        fl_store(&call->grad[0], entry + from, n, g);
    }
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

/* The j-th frame of a side, joined with what the other found there; without `again` that is still
 * the row before its last. */
static wide meet(side *s, const side *other, side *again, int64_t j)
{
    int64_t there = s->T - 1 - j;
    read_frame(s, j);
    return join(s, row_of(s, j), again ? replay(again, other, there) : row_of(other, there));
}

static void write_gradient(side *s, const side *other, side *again, wide z, double scale)
{
    for (int64_t j = s->half; j < s->T; j++) {
        if (j > s->half)
            z = meet(s, other, again, j);
        write_frame(s, other, j, z, scale);
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
    if (!removed && wants_gradient) {
        again = new_side(call, n, !backward, 1, partial);
        if (!again)
            return;
    }
    if (!removed) {
        if (s->half < s->T)
            z = meet(s, other, again, s->half);
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
    if (wants_gradient && finite) {
        write_gradient(s, other, again, z, gradient_scale(call, n, weight, labels));
    } else if (wants_gradient && !removed) {
        int64_t meeting = s->T / 2;
        fill_frames(call, n, backward ? 0 : meeting, backward ? meeting : s->T,
                    (real)(loss == 0 ? 0 : REAL_NAN));
    }
    free(again);
}

/* --- the kernel --- */

/* Notes the first frame whose probabilities do not add up to 1; a NaN passes. */
static void check_frames(const fl_call *call, int64_t n, fl_partial *partial)
{
    real tile[TILE], e[TILE];
    for (int64_t t = 0; t < call->frames[n]; t++) {
        fl_dd sum = {0, 0};
        for (int64_t from = 0; from < call->C; from += TILE) {
            int64_t m = call->C - from < TILE ? call->C - from : TILE;
            const real *x = fl_load(&call->operand[0], (n * call->T + t) * call->C + from, m, tile);
            for (int64_t c = 0; c < m; c++)
                e[c] = EXP(x[c]);
            sum = dd_add(sum, sum_tile(e, m));
        }
        if (__builtin_fabs(sum.hi - 1) > call->sum_tolerance) {
            note_bad(partial, n, 0, t);
            return;
        }
    }
}

static void prepare(const fl_call *call, int64_t n, fl_partial *partial)
{
    double weight;
    if (is_removed(call, n, &weight, partial))
        return;
    partial->weight = dd_add_double(partial->weight, weight);
    partial->count++;
    if (call->products & FL_GRAD && call->formula == FL_FORMULA_ctc)
        check_frames(call, n, partial);
    read_labels(call, n, NULL, partial);
}

/* A unit is a sample, in the two halves one side of a sample. */
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
            second_half(call, n, (int)(i % 2), (side *const *)&call->sides[2 * n], partial);
        } else {
            side *sides[] = {first_half(call, i, 0, partial), first_half(call, i, 1, partial)};
            for (int backward = 0; partial->bad_unit == FL_NOWHERE && backward < 2; backward++)
                second_half(call, i, backward, sides, partial);
            free(sides[0]);
            free(sides[1]);
        }
    }
}
