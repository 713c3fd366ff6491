/* Rows of features or classes, one after the other: how a kernel goes through them. Short rows go
 * many at a time, so that loops run over full vectors; one that is longer than a tile goes in
 * pieces. */
#ifndef FASTLOSS_ROWS_H
#define FASTLOSS_ROWS_H

#include "fastloss.h"
#include "real.h"

/* Columns [from, to) of the n rows from `first` on; either whole rows or a piece of one. */
typedef struct {
    int64_t first, n, from, to;
} piece;

/* Columns of a piece. */
static inline int64_t piece_width(const fl_call *call)
{
    return call->unit_size < TILE ? call->unit_size : TILE;
}

/* How many of the rows that are left go together. */
static inline int64_t rows_together(const fl_call *call, int64_t left)
{
    int64_t width = piece_width(call), most = width > 0 ? TILE / width : FL_ROWS;
    most = most < FL_ROWS ? most : FL_ROWS;
    return left < most ? left : most;
}

/* The columns after `at`, the first ones if at.to = 0; false at the end. */
static inline int next_piece(const fl_call *call, piece *at)
{
    int64_t width = piece_width(call);
    at->from = at->to;
    at->to = call->unit_size - at->from < width ? call->unit_size : at->from + width;
    return at->from < at->to;
}

static inline int64_t entry(const fl_call *call, piece at)
{
    return at.first * call->unit_size + at.from;
}

static inline int64_t entries(piece at) { return at.n * (at.to - at.from); }

#endif
