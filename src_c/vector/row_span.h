/* Rows of features or classes, one after the other: how a kernel goes through them. Short rows go
 * many at a time, so that loops run over full vectors; one that is longer than a tile goes in
 * pieces. */
#ifndef FASTLOSS_ROWS_H
#define FASTLOSS_ROWS_H

#include "fastloss.h"
#include "vector/real.h"

/* Columns [from, to) of the n rows from `first` on; either whole rows or a row_span of one. */
typedef struct {
    int64_t first, n, from, to;
} row_span;

/* Columns of a row_span. */
static inline int64_t span_width(const fl_call *call)
{
    return call->unit_size < TILE ? call->unit_size : TILE;
}

/* How many of the rows that are left go together. */
static inline int64_t rows_per_tile(const fl_call *call, int64_t left)
{
    int64_t width = span_width(call), most = width > 0 ? TILE / width : FL_ROW_BATCH;
    most = most < FL_ROW_BATCH ? most : FL_ROW_BATCH;
    return left < most ? left : most;
}

/* The columns after `at`, the first ones if at.to = 0; false at the end. */
static inline int next_span(const fl_call *call, row_span *at)
{
    int64_t width = span_width(call);
    at->from = at->to;
    at->to = call->unit_size - at->from < width ? call->unit_size : at->from + width;
    return at->from < at->to;
}

static inline int64_t first_element(const fl_call *call, row_span at)
{
    return at.first * call->unit_size + at.from;
}

static inline int64_t element_count(row_span at) { return at.n * (at.to - at.from); }

#endif
