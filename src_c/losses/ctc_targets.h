/* Targets: from the labels of a sample to the target of a pass, and the classes in use.
 *
 * The extended target l' is not stored. Its blanks share one class, and the transitions that skip a
 * blank, the second case of (6), are stored in skip_allowed. */
#ifndef FASTLOSS_CTC_TARGETS_H
#define FASTLOSS_CTC_TARGETS_H

#include "losses/ctc_pass.h"
#include "vector/loader.h"

#include <stdlib.h>
#include <string.h>

/* Loads the sample weight, 1 without weights. A weight of 0 removes the sample. */
static int ctc_is_removed(const fl_call *call, int64_t n, double *weight, fl_partial *partial)
{
    double scratch;
    const double *sample_weight = load_sample_weight(call, n, 1, &scratch, partial);
    *weight = sample_weight ? *sample_weight : 1;
    return *weight == 0;
}

/* Checks the labels of a sample and copies them to `labels`, unless it is NULL. Later code reads
 * the copy: another thread may change the caller's array after the check. */
static int ctc_load_labels(const fl_call *call, int64_t n, int64_t *labels, fl_partial *partial)
{
    const int64_t S = call->sequences.labels[n], entry = call->sequences.first_label[n],
                  C = call->sequences.C, blank = call->sequences.blank;
    ALIGNED int64_t tile[TILE];
    for (int64_t i = 0; i < S; i += TILE) {
        int64_t m = S - i < TILE ? S - i : TILE;
        const int64_t *label = fl_load_index(&call->operand[1], entry + i, m, tile);
        for (int64_t k = 0; k < m; k++)
            if (label[k] < 0 || label[k] >= C || label[k] == blank) {
                record_error(partial, n, 1, i + k);
                return 0;
            }
        if (labels)
            memcpy(labels + i, label, (size_t)m * sizeof *labels);
    }
    return 1;
}

static int ctc_compare_classes(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The position of a class in class_index, by binary search. */
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

static void ctc_reverse_labels(int64_t *label, int64_t S)
{
    for (int64_t i = 0; i < S / 2; i++) {
        int64_t opposite = label[S - 1 - i];
        label[S - 1 - i] = label[i];
        label[i] = opposite;
    }
}

/* Collects the classes in use in class_index, ascending, and replaces the classes in label_slot by
 * their positions there. */
static void ctc_index_classes(ctc_pass *pass)
{
    const int64_t S = pass->S;
    int64_t *class = pass->class_index, K = 0;
    if (S > 0)
        memcpy(class, pass->label_slot, (size_t)S * sizeof *class);
    class[S] = pass->call->sequences.blank;
    qsort(class, (size_t)S + 1, sizeof *class, ctc_compare_classes);
    for (int64_t i = 0; i <= S; i++)
        if (i == 0 || class[i] != class[K - 1])
            class[K++] = class[i];
    pass->class_count = K;
    for (int64_t i = 0; i < S; i++)
        pass->label_slot[i] = ctc_class_slot(pass, pass->label_slot[i]);
    pass->blank_slot = ctc_class_slot(pass, pass->call->sequences.blank);
}

/* Sets the target of a pass from the labels of the sample, which are in label_slot. */
static void ctc_set_target(ctc_pass *pass)
{
    const int64_t S = pass->S, *label = pass->label_slot;
    if (pass->direction == CTC_BETA)
        ctc_reverse_labels(pass->label_slot, S);
    for (int64_t i = 0; i < S; i++)
        pass->lattice.skip_allowed[i] = i == 0 || label[i] != label[i - 1];
    if (pass->uses_all_classes) {
        pass->class_count = pass->call->sequences.C;
        pass->blank_slot = pass->call->sequences.blank;
    } else {
        ctc_index_classes(pass);
    }
    pass->padded_classes = ctc_round_up(pass->class_count);
    for (int64_t k = 0; k < pass->padded_classes; k++)
        pass->mask[k] = __builtin_inf();
    for (int64_t i = 0; i < S; i++)
        pass->mask[pass->label_slot[i]] = -__builtin_inf();
    pass->mask[pass->blank_slot] = -__builtin_inf();
}

#endif
