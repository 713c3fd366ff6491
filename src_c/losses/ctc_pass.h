/* The state of one pass over a sample, and its memory.
 *
 * The alpha pass runs from the first frame forward, the beta pass from the last frame backward. A
 * pass numbers frames j from its own end and has the target in its own direction, so the beta pass
 * is an alpha pass over reversed frames and labels.
 *
 * All memory of a pass is one block: the struct and the arrays that CTC_PASS_ARRAYS lists. */
#ifndef FASTLOSS_CTC_PASS_H
#define FASTLOSS_CTC_PASS_H

#include "fastloss.h"
#include "losses/ctc_lattice.h"
#include "vector/domain_check.h"

#include <string.h>

typedef enum { CTC_ALPHA, CTC_BETA } ctc_direction;

/* Scores that are loaded at a time, so that loads from memory and exps overlap; frames, at most. */
enum { CTC_BATCH_SCORES = 512, CTC_BATCH_FRAMES = CTC_BATCH_SCORES / CTC_LANES };

typedef struct ctc_pass {
    const fl_call *call;
    int64_t sample, T, S;
    ctc_direction direction;
    int64_t midpoint; /* frames before the passes meet: T/2 of alpha, T - T/2 of beta */

    /* Classes. K of them are loaded: all, or the ones in use by the target and the blank. */
    int uses_all_classes;
    int64_t class_count, padded_classes; /* K, and rounded up to whole vectors */
    int64_t *class_index;                /* (K) ascending; not set if all are loaded */
    int64_t *label_slot, blank_slot;     /* (S) positions of the labels and of the blank in K */
    double *mask;                        /* (K) -inf for classes in use, else inf */

    /* The batch of loaded frames, [batch_first, batch_end): at most batch_frames, none from frame
     * `end` on. p = exp(x - frame_max) of frame f is at p + f frame_stride padded_classes. */
    int64_t batch_first, batch_end, batch_frames, end;
    double *scores;                      /* (batch, K) x */
    double frame_max[CTC_BATCH_FRAMES];  /* the largest x of each frame */
    const double *p, *exponent_range;    /* (batch, K), (batch) as in ctc_frame */
    int64_t frame_stride;                /* 1, or -1 for frames of the opposite pass */
    double *label_p;                     /* (batch, state_stride) p of each label */
    const struct ctc_pass *frame_source; /* the opposite pass if its p is used again, else NULL */

    /* The current frame. */
    ctc_frame frame;
    int64_t current;             /* its position in the batch */
    double *scaled_m, *scaled_e; /* (K) p as scaled doubles, if beyond CTC_FRAME_RANGE */
    double *label_e;             /* (S) exponents of the labels, 0 unless scaled */
    double *posterior;           /* (K) γ times its total */
    double *label_posterior;     /* (S) the terms of the labels */

    /* Per frame: of all frames before the midpoint if the opposite pass needs them, else of the
     * batch. */
    double *p_buffer, *range_buffer;     /* what p and exponent_range point to */
    double *softmax_max, *sum_minus_one; /* logits: m = max x, R = Σ exp(x - m) - 1; else 0 */
    double *p_scale;                     /* y / p: exp(frame_max - m) / (1 + R) */
    int has_scaled_frame;                /* one of them was beyond CTC_FRAME_RANGE */
    double log_scale[CTC_LANES], log_scale_lo[CTC_LANES]; /* Σ log p_scale, in double-double */

    /* Rows. */
    int saves_rows;            /* the opposite pass needs them, for a gradient */
    int64_t resident_rows;     /* the first rows have memory of their own, ... */
    int64_t ring_rows;         /* ... later ones take turns */
    int64_t checkpoint_period; /* rows from one checkpoint to the next; 1: none are needed */
    ctc_row *row;              /* (resident_rows + ring_rows) */
    ctc_row *checkpoint;       /* (checkpoint_rows) */
    double *row_data;          /* (all rows, CTC_ROW_ARRAYS, state_stride) */
    ctc_lattice lattice;
} ctc_pass;

static int64_t ctc_round_up(int64_t n) { return (n + CTC_LANES - 1) / CTC_LANES * CTC_LANES; }

/* --- geometry --- */

/* What the memory of a pass depends on. */
typedef struct {
    int64_t T, S, midpoint;
    int uses_all_classes, saves_rows;
    int64_t classes, class_stride, state_stride;
    int64_t batch_frames, p_frames, normaliser_frames;
    int64_t checkpoint_period, resident_rows, ring_rows, checkpoint_rows, rows;
} ctc_geometry;

/* Frames of `size` scores or states each to load at a time: whole vectors of frames if possible. */
static int64_t ctc_batch_frames_of(int64_t size)
{
    int64_t frames = CTC_BATCH_SCORES / size;
    if (frames >= CTC_LANES)
        return frames / CTC_LANES * CTC_LANES;
    return frames > 1 ? frames : 1;
}

/* 1 if all rows are to stay resident, up to 2^16 doubles; else about √midpoint. */
static int64_t ctc_checkpoint_period_of(int64_t state_stride, int64_t midpoint)
{
    const double row_length = CTC_ROW_ARRAYS * (double)state_stride, max_resident = 1 << 16;
    if (row_length * (double)midpoint <= max_resident)
        return 1;
    return 1 + (int64_t)__builtin_sqrt((double)midpoint);
}

/* A pass over a target of S labels of sample n. A pass that recomputes rows of another one in the
 * same direction holds the rows from one checkpoint to the next and stores nothing. */
static ctc_geometry ctc_pass_geometry(const fl_call *call, int64_t n, int64_t S,
                                      ctc_direction direction, int recomputes)
{
    ctc_geometry g = {.T = call->sequences.frames[n], .S = S};
    g.midpoint = direction == CTC_BETA ? g.T - g.T / 2 : g.T / 2;
    g.saves_rows = call->output[FL_GRADIENT] && !recomputes;

    g.uses_all_classes =
        call->sequences.C <= TILE && call->sequences.C / 2 <= S; /* few, and about as many in use */
    g.classes = g.uses_all_classes ? call->sequences.C : S + 1;
    g.class_stride = ctc_round_up(g.classes);
    g.state_stride = ctc_row_stride(S);

    g.checkpoint_period = ctc_checkpoint_period_of(g.state_stride, g.midpoint);
    int is_resident = g.saves_rows && g.checkpoint_period == 1;
    g.resident_rows = is_resident ? g.midpoint : 0;
    g.ring_rows = recomputes ? g.checkpoint_period : 2;
    g.checkpoint_rows = g.saves_rows && !is_resident ? g.midpoint / g.checkpoint_period + 1 : 0;
    g.rows = g.resident_rows + g.ring_rows + g.checkpoint_rows;

    g.batch_frames = ctc_batch_frames_of(ctc_round_up(g.classes > S ? g.classes : S + 1));
    int64_t saved_frames = g.saves_rows ? g.midpoint : 0;
    g.p_frames = g.resident_rows > g.batch_frames ? g.resident_rows : g.batch_frames;
    g.normaliser_frames =
        CTC_LANES + ctc_round_up(saved_frames > g.batch_frames ? saved_frames : g.batch_frames);
    return g;
}

/* --- the arena --- */

/* The arrays of a pass in the order of memory: type, member, number of rows, entries of a row, and
 * the entry that the member points to. Vectors of zeros surround arrays of states. */
#define CTC_PASS_ARRAYS(ARRAY, ZEROS) \
    ZEROS(double, lattice.skip_allowed, 1, g->state_stride, CTC_LANES) \
    ZEROS(double, lattice.shift_scale, 1, g->state_stride, CTC_LANES) \
    ZEROS(double, lattice.skip_scale, 1, g->state_stride, CTC_LANES) \
    ZEROS(double, lattice.joint_scale[0], 1, g->state_stride, CTC_LANES) \
    ZEROS(double, lattice.joint_scale[1], 1, g->state_stride, CTC_LANES) \
    ZEROS(double, lattice.joint_scale[2], 1, g->state_stride, CTC_LANES) \
    ZEROS(double, lattice.joint_scale[3], 1, g->state_stride, CTC_LANES) \
    ZEROS(double, label_e, 1, g->state_stride, CTC_LANES) \
    ZEROS(double, label_posterior, 1, g->state_stride, CTC_LANES) \
    ZEROS(double, label_p, g->batch_frames, g->state_stride, CTC_LANES) \
    ARRAY(double, row_data, CTC_ROW_ARRAYS * g->rows, g->state_stride, 0) \
    ARRAY(double, mask, 1, g->class_stride, 0) \
    ARRAY(double, posterior, 1, g->class_stride, 0) \
    ARRAY(double, scaled_m, 1, g->class_stride, 0) \
    ARRAY(double, scaled_e, 1, g->class_stride, 0) \
    ARRAY(double, scores, g->batch_frames, g->class_stride, 0) \
    ARRAY(double, p_buffer, g->p_frames, g->class_stride, 0) \
    ZEROS(double, softmax_max, 1, g->normaliser_frames, 0) \
    ZEROS(double, sum_minus_one, 1, g->normaliser_frames, 0) \
    ZEROS(double, p_scale, 1, g->normaliser_frames, 0) \
    ARRAY(double, range_buffer, 1, g->p_frames, 0) \
    ARRAY(int64_t, class_index, 1, g->classes, 0) \
    ARRAY(int64_t, label_slot, 1, g->S, 0) \
    ARRAY(ctc_row, row, 1, g->resident_rows + g->ring_rows, 0) \
    ARRAY(ctc_row, checkpoint, 1, g->checkpoint_rows, 0)

enum { CTC_CACHE_LINE = 64 };

/* In double: lengths may be absurd where an axis is broadcast. */
static double ctc_pass_bytes(const ctc_geometry *g)
{
    double bytes = sizeof(ctc_pass) + CTC_CACHE_LINE;
#define ADD(type, member, rows, length, first) \
    bytes += sizeof(type) * (double)(rows) * (double)(length);
    CTC_PASS_ARRAYS(ADD, ADD)
#undef ADD
    return bytes;
}

/* Gives the arrays their memory, which follows the struct from the next cache line on. */
static void ctc_place_arrays(ctc_pass *pass, const ctc_geometry *g)
{
    char *at =
        (char *)(((uintptr_t)(pass + 1) + CTC_CACHE_LINE - 1) / CTC_CACHE_LINE * CTC_CACHE_LINE);
#define PLACE(type, member, rows, length, first) \
    pass->member = (type *)(void *)at + (first); \
    at += sizeof(type) * (size_t)(rows) * (size_t)(length);
#define PLACE_ZEROS(type, member, rows, length, first) \
    memset(at, 0, sizeof(type) * (size_t)(rows) * (size_t)(length)); \
    PLACE(type, member, rows, length, first)
    CTC_PASS_ARRAYS(PLACE, PLACE_ZEROS)
#undef PLACE
#undef PLACE_ZEROS
}

/* A pass without its labels, to be freed by fl_scratch_free(); NULL without memory, which is
 * recorded. */
static ctc_pass *ctc_alloc_pass(const fl_call *call, int64_t n, ctc_direction direction,
                                const ctc_geometry *g, fl_partial *partial)
{
    double bytes = ctc_pass_bytes(g);
    ctc_pass *pass = bytes < 0x1p50 ? fl_scratch_alloc((size_t)bytes) : NULL;
    if (!pass) {
        record_error(partial, n, FL_NO_MEMORY, 0);
        return NULL;
    }
    *pass = (ctc_pass){.call = call,
                       .sample = n,
                       .T = g->T,
                       .S = g->S,
                       .direction = direction,
                       .midpoint = g->midpoint,
                       .uses_all_classes = g->uses_all_classes,
                       .batch_frames = g->batch_frames,
                       .end = g->midpoint,
                       .frame_stride = 1,
                       .saves_rows = g->saves_rows,
                       .resident_rows = g->resident_rows,
                       .ring_rows = g->ring_rows,
                       .checkpoint_period = g->checkpoint_period,
                       .lattice = {.S = g->S, .joint_sets = {-1, -1}}};
    ctc_place_arrays(pass, g);
    for (int64_t i = 0; i < g->rows; i++) {
        ctc_row row = ctc_row_at(pass->row_data + i * CTC_ROW_ARRAYS * g->state_stride, g->S);
        if (i < g->resident_rows + g->ring_rows)
            pass->row[i] = row;
        else
            pass->checkpoint[i - g->resident_rows - g->ring_rows] = row;
    }
    pass->label_e[-1] = -DBL_MAX;
    return pass;
}

#endif
