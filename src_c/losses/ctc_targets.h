/* Targets: from the labels of a sample to its extended target and the classes in use. */
#ifndef FASTLOSS_CTC_TARGETS_H
#define FASTLOSS_CTC_TARGETS_H

#include "losses/ctc_pass.h"
#include "vector/loader.h"
#include "vector/domain_check.h"
#include "vector/lanes.h"

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

/* Checks the labels of a sample and copies them to `labels`, unless it is NULL: the values that
 * were checked are the values in use, even if the caller's array changes. */
static int ctc_load_labels(const fl_call *call, int64_t n, int64_t *labels, fl_partial *partial)
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

/* The position of a class in class_index, by bisection. */
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

/* With few classes, all of them are loaded. */
static int ctc_loads_all_classes(const fl_call *call, int64_t S)
{
    return call->C <= TILE && call->C / 2 <= S;
}

static int64_t ctc_round_up(int64_t n) { return (n + CTC_LANES - 1) / CTC_LANES * CTC_LANES; }

/* From the labels in label_slot, in the order of the sample: puts them in the order of the pass,
 * finds the classes in use, replaces labels by slots, and sets which labels may follow without a
 * blank. */
static void ctc_index_classes(ctc_pass *pass)
{
    int64_t n = pass->S;
    for (int64_t i = 0; pass->is_beta && i < n / 2; i++) {
        int64_t label = pass->label_slot[n - 1 - i];
        pass->label_slot[n - 1 - i] = pass->label_slot[i];
        pass->label_slot[i] = label;
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

#endif
