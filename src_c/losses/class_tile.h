/* Class tiles: rows of x and y as columns, so that every loop runs over full vectors of rows.
 *
 * Class c of the tile's p-th row is at [(c - at.from) * at.ld + p]:
 *
 *     transposed      rows of up to MAX_SHORT_ROW classes, or rows whose entries of one class are
 *                     neighbours in memory, as in (N, C, d1, ..., dK):
 *                         x, y, e, dx, dy    classes x ld, ld = rows rounded up to LANES
 *                     Columns [i LANES, (i + 1) LANES) are lane block i; each lane is a row.
 *
 *     single row      a longer row:
 *                         x, y, e, dx, dy    classes (ld = 1)
 *                     The row is the only lane block: consecutive vectors of LANES classes, each
 *                     lane an interleaved part of the row. Its lanes are combined at the end.
 *
 * Rows with more classes than fit into a tile pass through it in consecutive tiles, and rows with
 * more than classes_per_part are cut into parts of whole tiles. The trailing shape decides all of
 * this, hence the bits of a row depend on the row alone. */
#ifndef FASTLOSS_CLASS_TILE_H
#define FASTLOSS_CLASS_TILE_H

#include "losses/class_rows.h"

enum { MAX_SHORT_ROW = 256, MAX_LANE_BLOCKS = FL_ROW_BATCH / LANES };

/* The gradient reuses the forward pass's exp(-a) in rows of up to this many classes, twice of which
 * fit into the L2 cache; longer rows recompute it. */
enum { MAX_CACHED_CLASSES = (1 << 19) / sizeof(real) };

/* An exp cache holds EXP_CACHE_TILE entries for each tile of a part: the running maximum, and from
 * EXP_CACHE_E on exp(-a), a being the gap to this maximum. */
enum { EXP_CACHE_E = LANES, EXP_CACHE_TILE = EXP_CACHE_E + TILE_2D };

typedef struct {
    fl_tile2d at;
    const real *x, *y;
    fl_prefetch x_next, y_next; /* the tile that is loaded after this one */
    int is_loaded;              /* x and y hold tile `at` */
    real *dx, *dy;
    real *e;            /* exp(-a) / exp_rescale */
    double exp_rescale; /* from the maximum that e was computed with to the final one */
    real *exp_cache;    /* the part's tiles in order; NULL if none */
    real x_tile[TILE_2D], y_tile[TILE_2D], e_tile[TILE_2D];
} class_tile;

/* The columns of a lane block: vector i, of LANES entries, is at i * stride. */
typedef struct {
    const real *x, *y;
    const char *x_next, *y_next; /* to prefetch with vector i: x_next + i * x_next_stride */
    int64_t x_next_stride, y_next_stride;
    real *e, *dx, *dy;
    const double *class_weight; /* of the first class; NULL for ones */
    double exp_rescale;
    int64_t stride, vectors;
} lane_block;

static INLINE lane_block class_tile_lane_block(const softmax_config *s, const class_tile *t,
                                               int64_t start, int64_t stride, int64_t vectors)
{
    return (lane_block){.x = t->x + start,
                        .y = t->y + start,
                        .x_next = t->x_next.at + start * t->x_next.row,
                        .y_next = t->y_next.at + start * t->y_next.row,
                        .x_next_stride = t->x_next.line,
                        .y_next_stride = t->y_next.line,
                        .e = t->e + start,
                        .dx = t->dx + start,
                        .dy = t->dy + start,
                        .exp_rescale = t->exp_rescale,
                        .class_weight = s->class_weight ? s->class_weight + t->at.from +
                                                              (s->single_row ? start : 0)
                                                        : 0,
                        .stride = stride,
                        .vectors = vectors};
}

/* The tile of the class with this index in the part. */
static real *exp_cache_at(real *cache, int64_t c) { return cache + c / TILE_2D * EXP_CACHE_TILE; }

static int class_tile_lane_blocks(const softmax_config *s, const class_tile *t)
{
    return s->single_row ? 1 : (int)(t->at.ld / LANES);
}

static const real *class_tile_load_operand(const softmax_config *s, int k, fl_tile2d at, real *tile)
{
    const fl_array *array = &s->call->operand[k];
    if (s->single_row)
        return fl_load(array, at.first * s->C + at.from, at.to - at.from, tile);
    fl_load_transposed(array, s->C, at, tile);
    return tile;
}

/* Where to write the gradient of operand k: in place if possible, else `tile`. */
static real *class_tile_grad_buffer(const softmax_config *s, int k, fl_tile2d at, real *tile)
{
    return s->single_row ? fl_output_buffer(s->call->output[FL_GRADIENT + k],
                                            at.first * s->C + at.from, at.to - at.from, tile)
                         : tile;
}

static void class_tile_store_grad(const softmax_config *s, int k, fl_tile2d at, const real *from)
{
    const fl_array *array = s->call->output[FL_GRADIENT + k];
    if (s->single_row)
        fl_store(array, at.first * s->C + at.from, at.to - at.from, from);
    else
        fl_store_transposed(array, s->C, at, from);
}

/* Where class c of the tile's p-th row is. */
static int64_t class_tile_index(const class_tile *t, int64_t c, int64_t p)
{
    return (c - t->at.from) * t->at.ld + p;
}

/* Whether the label of row p of the batch is in the tile. */
static int class_tile_has_label(const class_tile *t, const row_batch *r, int64_t p)
{
    return r->label[p] >= t->at.from && r->label[p] < t->at.to;
}

/* Moves the tile to classes [from, from + classes), without loading them. */
static void class_tile_seek(const softmax_config *s, class_tile *t, int64_t from, int64_t classes)
{
    t->at.from = from;
    t->at.to = from + classes < s->C ? from + classes : s->C;
}

/* Moves the tile to classes [from, from + classes) and loads them. Whole rows are loaded once. */
static void class_tile_load(const softmax_config *s, class_tile *t, int64_t from, int64_t classes)
{
    if (t->is_loaded && t->at.from == from && s->classes_per_tile >= s->C)
        return;
    class_tile_seek(s, t, from, classes);
    t->is_loaded = 1;
    t->x = class_tile_load_operand(s, 0, t->at, t->x_tile);
    t->y = s->mode == SOFT ? class_tile_load_operand(s, 1, t->at, t->y_tile) : t->y_tile;
    t->x_next = t->y_next = fl_next_tile(&s->call->operand[0], s->C, t->at);
    if (s->mode == SOFT)
        t->y_next = fl_next_tile(&s->call->operand[1], s->C, t->at);
}

/* Reports the first negative probability of an active row. The tile is transposed, so the rows are
 * searched in order only if it has a negative entry at all. */
static void class_tile_check_probabilities(const softmax_config *s, const row_batch *r, int64_t p,
                                           const class_tile *t, fl_partial *partial)
{
    real row_tile[TILE];
    if (count_invalid(t->y, class_tile_index(t, t->at.to, 0), FL_NONNEGATIVE) == 0)
        return;
    for (int64_t i = 0; i < t->at.n; i++)
        for (int64_t c = t->at.from, n; c < t->at.to; c += n) {
            int64_t entry = (t->at.first + i) * s->C + c;
            n = t->at.to - c < TILE ? t->at.to - c : TILE;
            check_tile(fl_load(&s->call->operand[1], entry, n, row_tile), n, FL_NONNEGATIVE,
                       &r->sample_weight[p + i], 1, entry, s->C, partial);
        }
}

/* FL_PREPARE: the same check of classes [first, last), without x. */
static void class_tile_check_classes(const softmax_config *s, const row_batch *r, int64_t p,
                                     class_tile *t, int64_t first, int64_t last,
                                     fl_partial *partial)
{
    for (int64_t from = first; from < last; from = t->at.to) {
        class_tile_seek(s, t, from, s->classes_per_tile);
        t->y = class_tile_load_operand(s, 1, t->at, t->y_tile);
        class_tile_check_probabilities(s, r, p, t, partial);
    }
}

/* Starts a tile of rows p, p + 1, ... of the batch, up to rows_per_tile of them. */
static void class_tile_init(const softmax_config *s, const row_batch *r, int64_t p, class_tile *t)
{
    int64_t n = r->n - p < s->rows_per_tile ? r->n - p : s->rows_per_tile;
    t->at = (fl_tile2d){
        .first = r->first + p, .n = n, .ld = s->single_row ? 1 : (n + LANES - 1) / LANES * LANES};
    t->x = t->x_tile;
    t->y = t->y_tile;
    t->x_next = t->y_next = (fl_prefetch){0};
    t->is_loaded = 0;
    t->e = t->e_tile;
    t->exp_rescale = 1;
    t->exp_cache = 0;
    t->dx = t->e; /* until there is a gradient to write */
    t->dy = t->y_tile;
}

#endif
