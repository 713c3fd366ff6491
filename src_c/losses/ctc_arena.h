/* The memory of a pass. */
#ifndef FASTLOSS_CTC_ARENA_H
#define FASTLOSS_CTC_ARENA_H

#include "losses/ctc_targets.h"

static double *ctc_take(double **from, int64_t n)
{
    double *taken = *from;
    *from += n;
    return taken;
}

static double *ctc_take_zeros(double **from, int64_t n)
{
    return memset(ctc_take(from, n), 0, (size_t)n * sizeof **from);
}

/* A pass at its first frame, in one block of memory; NULL after an invalid label or without memory,
 * which are recorded. A target with more labels than frames has no alignment: its pass has no
 * labels and the log scale -inf. */
static ctc_pass *ctc_new_pass(const fl_call *call, int64_t n, int is_beta, int recomputes,
                              fl_partial *partial)
{
    enum { PARTS = 13, CACHE_LINE = 64 };
    int64_t T = call->frames[n], S = call->labels[n];
    int impossible = S > T, saves_rows = call->requested & FL_GRAD && !recomputes;
    if (impossible) {
        if (!ctc_load_labels(call, n, NULL, partial))
            return NULL;
        S = 0;
    }
    int64_t midpoint = is_beta ? T - T / 2 : T / 2, all = ctc_loads_all_classes(call, S),
            K = all && call->C > S ? call->C : S + 1, states = ctc_row_stride(S),
            stride = ctc_row_stride(K), width = ctc_round_up(K),
            frames_at_once = CTC_BATCH_SCORES / width,
            batch = frames_at_once >= CTC_LANES ? frames_at_once / CTC_LANES * CTC_LANES
                    : frames_at_once > 1        ? frames_at_once
                                                : 1;
    double row = (double)CTC_ROW_ARRAYS * (double)states;
    int64_t period = row * (double)midpoint <= CTC_RESIDENT_DOUBLES
                         ? 1
                         : 1 + (int64_t)__builtin_sqrt((double)midpoint),
            resident = saves_rows && period == 1 ? midpoint : 0, ring = recomputes ? period : 2,
            checkpoints = saves_rows && period > 1 ? midpoint / period + 1 : 0,
            rows = resident + ring + checkpoints,
            frames = ctc_round_up(saves_rows && midpoint > batch ? midpoint : batch),
            p_frames = resident > batch ? resident : batch;
    double doubles = PARTS * (double)stride + (double)batch * (double)(states + width) +
                     (double)p_frames * (double)(width + 1) + 3.0 * (double)(frames + CTC_LANES) +
                     row * (double)rows;
    double bytes = sizeof(ctc_pass) + 2.0 * sizeof(int64_t) * (double)K +
                   sizeof(ctc_row) * (double)rows + sizeof(double) * doubles + CACHE_LINE;
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
                       .is_beta = is_beta,
                       .midpoint = midpoint,
                       .uses_all_classes = (int)all,
                       .class_index = class,
                       .label_slot = class + K,
                       .mask = part[12],
                       .batch_frames = batch,
                       .end = midpoint,
                       .scores = ctc_take(&at, batch * width),
                       .frame_stride = 1,
                       .label_p = ctc_take_zeros(&at, batch * states) + CTC_LANES,
                       .scaled_m = part[0],
                       .scaled_e = part[1],
                       .label_e = part[2],
                       .posterior = part[3],
                       .label_posterior = part[4],
                       .p_buffer = ctc_take(&at, p_frames * width),
                       .softmax_max = ctc_take_zeros(&at, frames + CTC_LANES),
                       .sum_minus_one = ctc_take_zeros(&at, frames + CTC_LANES),
                       .p_scale = ctc_take_zeros(&at, frames + CTC_LANES),
                       .saves_rows = saves_rows,
                       .checkpoint_period = period,
                       .resident_rows = resident,
                       .ring_rows = ring,
                       .row = row_list,
                       .checkpoint = row_list + resident + ring,
                       .lattice = {.S = S,
                                   .skip_allowed = part[5],
                                   .shift_scale = part[6],
                                   .skip_scale = part[7],
                                   .joint_scale = {part[8], part[9], part[10], part[11]},
                                   .joint_sets = {-1, -1}}};
    for (int64_t i = 0; i < rows; i++)
        row_list[i] = ctc_row_at(ctc_take(&at, CTC_ROW_ARRAYS * states), S);
    pass->range_buffer = ctc_take(&at, p_frames);
    pass->label_e[-1] = -DBL_MAX;
    if (!impossible && !ctc_load_labels(call, n, pass->label_slot, partial)) {
        fl_scratch_free(pass);
        return NULL;
    }
    if (impossible)
        pass->log_scale[0] = -__builtin_inf();
    ctc_index_classes(pass);
    pass->padded_classes = ctc_round_up(pass->class_count);
    for (int64_t k = 0; k < batch * pass->padded_classes; k++) /* the padding keeps these */
        pass->scores[k] = -__builtin_inf();
    return pass;
}

#endif
