/* The state of one pass over a sample, and its memory.
 *
 * The alpha pass runs forward from the first frame, the beta pass backward from the last one. A
 * pass counts frames j from the end where it starts and has the target in its own direction, so the
 * beta pass is an alpha pass over reversed frames and labels.
 *
 * The memory of a pass is one block: the struct, followed by the arrays that CTC_PASS_ARRAYS lists.
 * Both its size and the pointers follow from this list. */
#ifndef FASTLOSS_CTC_PASS_H
#define FASTLOSS_CTC_PASS_H

#include "fastloss.h"
#include "losses/ctc_lattice.h"
#include "runtime/checked_size.h"
#include "vector/domain_check.h"

#include <string.h>

typedef enum { CTC_ALPHA, CTC_BETA } ctc_direction;

/* Scores in a batch of frames, which are loaded together so that cache misses and exps overlap; and
 * frames in it, at most. */
enum { CTC_BATCH_SCORES = 512, CTC_BATCH_FRAMES = CTC_BATCH_SCORES / CTC_LANES };

typedef struct ctc_pass {
    const fl_call *call;
    int64_t sample, T, S;
    ctc_direction direction;
    int64_t midpoint; /* frames before the passes meet: T/2 of alpha, T - T/2 of beta */

    /* Classes. K classes are loaded: all C, or only those in use, the labels and the blank. */
    int uses_all_classes;
    int64_t class_count, padded_classes; /* K; K rounded up to whole vectors */
    int64_t *class_index;                /* (K) ascending; not set if all are loaded */
    int64_t *label_slot, blank_slot;     /* (S) positions of the labels, and of the blank, in K */
    double *mask;                        /* (K) -inf for classes in use, else inf */

    /* The batch of loaded frames, [batch_first, batch_end): at most batch_frames frames, all before
     * frame `end`. The p of its f-th frame are at p + f frame_stride padded_classes. */
    int64_t batch_first, batch_end, batch_frames, end;
    double *scores;                      /* (batch, K) x */
    double frame_max[CTC_BATCH_FRAMES];  /* the largest x of each frame */
    const double *p, *exponent_range;    /* (batch, K) exp(x - frame_max), (batch) see ctc_frame */
    int64_t frame_stride;                /* 1, or -1 for frames of the opposite pass */
    double *label_p;                     /* (batch, state_stride) p of each label */
    const struct ctc_pass *frame_source; /* the opposite pass if its p are reused, else NULL */

    /* The current frame. */
    ctc_frame frame;
    int64_t current;             /* its position in the batch */
    double *scaled_m, *scaled_e; /* (K) p as scaled doubles, if beyond CTC_FRAME_RANGE */
    double *label_e;             /* (S) exponents of the labels, 0 unless scaled */
    double *posterior;           /* (K) γ before normalisation */
    double *label_posterior;     /* (S) the same of each label state */

    /* Per frame: all frames before the midpoint if the opposite pass needs them, else the batch. */
    double *p_buffer, *range_buffer;     /* p and exponent_range point into these */
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

/* The sizes that determine the memory of a pass; members as in ctc_pass. */
typedef struct {
    int64_t T, S, midpoint;
    int uses_all_classes, saves_rows;
    int64_t max_classes, class_stride, state_stride;   /* K at most; entries of an array of classes,
                                                          or of states */
    int64_t batch_frames, p_frames, normaliser_frames; /* in a batch, in p_buffer, in p_scale */
    int64_t checkpoint_period, resident_rows, ring_rows, checkpoint_rows;
    int64_t rows; /* resident, ring and checkpoint rows */
} ctc_geometry;

/* Frames in a batch, each with `width` scores: whole vectors of frames if possible. */
static int64_t ctc_batch_frames_of(int64_t width)
{
    int64_t frames = CTC_BATCH_SCORES / width;
    if (frames >= CTC_LANES)
        return frames / CTC_LANES * CTC_LANES;
    return frames > 1 ? frames : 1;
}

/* 1 if the rows before the midpoint are at most 2^16 doubles and stay resident; else about
 * √midpoint. */
static int64_t ctc_checkpoint_period_of(int64_t state_stride, int64_t midpoint)
{
    const double row_length = CTC_ROW_ARRAYS * (double)state_stride, max_resident = 1 << 16;
    if (row_length * (double)midpoint <= max_resident)
        return 1;
    return 1 + (int64_t)__builtin_sqrt((double)midpoint);
}

/* The geometry of a pass over sample n with S labels. A pass that recomputes rows of another pass
 * in the same direction has room for the rows from one checkpoint to the next, and saves none. */
static ctc_geometry ctc_pass_geometry(const fl_call *call, int64_t n, int64_t S,
                                      ctc_direction direction, int recomputes)
{
    ctc_geometry g = {.T = call->sequences.frames[n], .S = S};
    g.midpoint = direction == CTC_BETA ? g.T - g.T / 2 : g.T / 2;
    g.saves_rows = call->output[FL_GRADIENT] && !recomputes;

    const int64_t C = call->sequences.C;
    g.uses_all_classes = C <= TILE && C / 2 <= S; /* most of them may be in use */
    g.max_classes = g.uses_all_classes ? C : S + 1;
    g.class_stride = ctc_round_up(g.max_classes);
    g.state_stride = ctc_row_stride(S);

    g.checkpoint_period = ctc_checkpoint_period_of(g.state_stride, g.midpoint);
    int is_resident = g.saves_rows && g.checkpoint_period == 1;
    g.resident_rows = is_resident ? g.midpoint : 0;
    g.ring_rows = recomputes ? g.checkpoint_period : 2;
    g.checkpoint_rows = g.saves_rows && !is_resident ? g.midpoint / g.checkpoint_period + 1 : 0;
    g.rows = g.resident_rows + g.ring_rows + g.checkpoint_rows;

    g.batch_frames = ctc_batch_frames_of(ctc_round_up(g.max_classes > S ? g.max_classes : S + 1));
    int64_t saved_frames = g.saves_rows ? g.midpoint : 0;
    g.p_frames = g.resident_rows > g.batch_frames ? g.resident_rows : g.batch_frames;
    g.normaliser_frames =
        CTC_LANES + ctc_round_up(saved_frames > g.batch_frames ? saved_frames : g.batch_frames);
    return g;
}

/* --- the arena --- */

/* The arrays of a pass in the order of memory: type, member of ctc_pass, rows, entries of a row,
 * and the entry that the member points to. ZEROS are set to 0. A vector of zeros precedes and
 * follows the entries of each array of states. */
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
    ARRAY(int64_t, class_index, 1, g->max_classes, 0) \
    ARRAY(int64_t, label_slot, 1, g->S, 0) \
    ARRAY(ctc_row, row, 1, g->resident_rows + g->ring_rows, 0) \
    ARRAY(ctc_row, checkpoint, 1, g->checkpoint_rows, 0)

static size_t ctc_pass_bytes(const ctc_geometry *g)
{
    size_t bytes = sizeof(ctc_pass) + FL_CACHE_LINE;
#define ADD(type, member, rows, length, first) \
    bytes = size_add(bytes, size_of_array(sizeof(type), rows, length));
    CTC_PASS_ARRAYS(ADD, ADD)
#undef ADD
    return bytes;
}

/* Sets the pointers to the arrays, which start at the first cache line after the struct. */
static void ctc_assign_arrays(ctc_pass *pass, const ctc_geometry *g)
{
    char *at =
        (char *)(((uintptr_t)(pass + 1) + FL_CACHE_LINE - 1) / FL_CACHE_LINE * FL_CACHE_LINE);
#define ASSIGN(type, member, rows, length, first) \
    pass->member = (type *)(void *)at + (first); \
    at += sizeof(type) * (size_t)(rows) * (size_t)(length);
#define ASSIGN_ZEROS(type, member, rows, length, first) \
    memset(at, 0, sizeof(type) * (size_t)(rows) * (size_t)(length)); \
    ASSIGN(type, member, rows, length, first)
    CTC_PASS_ARRAYS(ASSIGN, ASSIGN_ZEROS)
#undef ASSIGN
#undef ASSIGN_ZEROS
}

/* Allocates a pass at its first frame, still without a target. fl_scratch_free() frees it. Returns
 * NULL if there is no memory, which is recorded. */
static ctc_pass *ctc_alloc_pass(const fl_call *call, int64_t n, ctc_direction direction,
                                const ctc_geometry *g, fl_partial *partial)
{
    ctc_pass *pass = fl_scratch_alloc(ctc_pass_bytes(g));
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
    ctc_assign_arrays(pass, g);
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
