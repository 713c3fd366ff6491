/* The state of one pass over a sample: the alpha pass, from the first frame forward, or the beta
 * pass, from the last frame backward.
 *
 * A pass numbers frames j from its own end and works on the target in its own direction, so the
 * beta pass is an alpha pass over reversed frames and labels. */
#ifndef FASTLOSS_CTC_PASS_H
#define FASTLOSS_CTC_PASS_H

#include "fastloss.h"
#include "losses/ctc_lattice.h"

/* Doubles of the rows of a pass up to which all of its rows stay resident. */
static const double CTC_RESIDENT_DOUBLES = 1 << 16;

/* Scores that are loaded at a time, so that loads from memory and exps overlap; frames, at most. */
enum { CTC_BATCH_SCORES = 512, CTC_BATCH_FRAMES = CTC_BATCH_SCORES / CTC_LANES };

typedef struct ctc_pass {
    const fl_call *call;
    int64_t sample, T, S;
    int is_beta;
    int64_t midpoint;     /* frames before the passes meet: T/2 of alpha, T - T/2 of beta */
    int uses_all_classes; /* all C classes are loaded, else only the ones in use */
    int64_t class_count;  /* K classes that are loaded */
    int64_t *class_index, /* (K) their indices, ascending; not set if all are loaded */
        *label_slot;      /* (S) position of each label among them */
    double *mask;         /* (K) -inf for classes in use, else inf */
    int64_t blank_slot;   /* position of the blank */
    /* The loaded batch: frames [batch_first, batch_end). */
    int64_t batch_first, batch_end, batch_frames, end; /* at most batch_frames, up to frame `end` */
    int64_t padded_classes;                            /* K, rounded up to whole vectors */
    double *scores, frame_max[CTC_BATCH_FRAMES];       /* (batch, K) x; its largest in each frame */
    const double *p, *exponent_range; /* (batch, K) exp(x - frame_max), (batch) as in ctc_frame; */
    int64_t frame_stride;             /* ... frame by frame, or, if -1, in reversed order */
    double *label_p;                  /* (batch, row stride) p of each label */
    double *scaled_m, *scaled_e, *label_e; /* (K), (K), (S) p of a frame beyond CTC_FRAME_RANGE */
    double *posterior, *label_posterior;   /* (K), (S) γ times P of a frame */
    ctc_frame frame;                       /* the current frame: */
    int64_t current;                       /* its position in the batch */
    /* Of all frames before the midpoint if the other pass needs them, else of the batch: */
    double *p_buffer, *range_buffer;     /* what p and exponent_range point to */
    double *softmax_max, *sum_minus_one, /* logits: m = max x, R = Σ exp(x - m) - 1 */
        *p_scale;                        /* y / p: exp(frame_max - m) / (1 + R) */
    int saves_rows;                      /* the other pass needs rows and normalisers */
    int has_scaled_frame;                /* a frame was beyond CTC_FRAME_RANGE */
    const struct ctc_pass *frame_source; /* the pass whose p is used again, or NULL */
    int64_t checkpoint_period;           /* 1: rows are resident, or are not needed */
    int64_t resident_rows, ring_rows;    /* later rows take turns in ring_rows rows */
    ctc_row *row, *checkpoint;           /* (resident_rows + ring_rows); each period-th */
    ctc_lattice lattice;
    double log_scale[CTC_LANES], log_scale_lo[CTC_LANES]; /* Σ log p_scale, in double-double */
} ctc_pass;

#endif
