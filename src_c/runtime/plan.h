/* The plan of a call: how its units are cut into blocks, how much work they are, which gradients
 * bypass the caches. Each family supplies its part of the plan through its row of families.def. */
#ifndef FASTLOSS_PLAN_H
#define FASTLOSS_PLAN_H

#include "fastloss.h"

/* Elements in a block: enough to amortise a partial, few enough to balance the threads. */
enum { FL_BLOCK = 8192 };

/* The columns of families.def. Results are bitwise reproducible because `fl_block_fn` depends on
 * the trailing shape and the compute type alone, never on the number of units or threads. */
typedef int64_t fl_block_fn(const fl_call *call);               /* units in a block */
typedef double fl_work_fn(const fl_call *call, fl_phase phase); /* work of a phase, in elements */
typedef int64_t fl_parts_fn(const fl_call *call); /* work items that a unit can be split into */
typedef int64_t fl_stride_fn(int64_t blocks);     /* blocks between two that start together */
typedef int fl_streaming_fn(const fl_call *call); /* whether large gradients bypass the caches */

typedef struct {
    const char *name;
    fl_block_fn *block;
    fl_work_fn *work;
    fl_parts_fn *parts;
    int prepares_by_parts; /* FL_PREPARE runs part by part too */
    int combines_parts;    /* FL_SPLIT_COMBINE runs between FL_SPLIT_PARTIAL and FL_SPLIT_FINISH */
    fl_stride_fn *stride;
    fl_streaming_fn *streaming;
} fl_family;

#define FAMILY(name, block, work, parts, prepares, combines, stride, streaming) \
    fl_block_fn block; \
    fl_work_fn work; \
    fl_parts_fn parts; \
    fl_stride_fn stride; \
    fl_streaming_fn streaming;
#include "families.def"
#undef FAMILY

/* Work of FL_PREPARE where operand 1 is the target. */
double fl_prepare_work(const fl_call *call);

const fl_family *fl_family_of(const fl_call *call);

/* Sets call->grid and, in each gradient, whether it is written with non-temporal stores. */
void fl_plan(fl_call *call);

/* Whether the work items of a phase are parts of units. */
int fl_items_are_parts(const fl_call *call, fl_phase phase);

/* The work items of a phase: blocks of units, single units, or parts of units. */
int64_t fl_phase_items(const fl_call *call, fl_phase phase);

/* The units [first, last) of a block, or the index of another work item. */
void fl_block_range(const fl_call *call, fl_phase phase, int64_t block, int64_t *first,
                    int64_t *last);

#endif
