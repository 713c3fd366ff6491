/* Iteration over rows of classes or features that are contiguous in the order of entries.
 *
 * A kernel takes as many short rows at a time as fit into a tile, so that its loops run over full
 * vectors, and a row that is longer than a tile in several spans of columns. */
#ifndef FASTLOSS_ROW_SPAN_H
#define FASTLOSS_ROW_SPAN_H

#include "fastloss.h"
#include "vector/real.h"

/* Columns [from, to) of rows [first, first + n): all columns of one or more rows, or some columns
 * of one row. */
typedef struct {
    int64_t first, n, from, to;
} row_span;

/* Columns of a span, at most. */
static inline int64_t span_width(const fl_call *call)
{
    return call->unit_size < TILE ? call->unit_size : TILE;
}

/* The number of rows in the next span if `remaining` rows are left. */
static inline int64_t rows_per_tile(const fl_call *call, int64_t remaining)
{
    int64_t width = span_width(call), most = width > 0 ? TILE / width : FL_ROW_BATCH;
    most = most < FL_ROW_BATCH ? most : FL_ROW_BATCH;
    return remaining < most ? remaining : most;
}

/* Advances to the columns from span->to on, which is 0 before the first span. Returns 0 at the end
 * of the rows. */
static inline int next_span(const fl_call *call, row_span *span)
{
    int64_t width = span_width(call);
    span->from = span->to;
    span->to = call->unit_size - span->from < width ? call->unit_size : span->from + width;
    return span->from < span->to;
}

/* The flat index of the span's first element. */
static inline int64_t first_element(const fl_call *call, row_span span)
{
    return span.first * call->unit_size + span.from;
}

static inline int64_t element_count(row_span span) { return span.n * (span.to - span.from); }

#endif
