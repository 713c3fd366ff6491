/* Class tiles: rows of x and y laid out so that every loop runs over full vectors of LANES entries.
 *
 * Class c of the tile's i-th row is at [(c - at.from) * at.ld + i], in each of x, y, e, dx and dy:
 *
 *     Transposed tile, classes x ld, where ld is the number of rows rounded up to LANES:
 *
 *                       row 0 ... row LANES - 1     row LANES ...
 *         class from      x           x               x
 *         class from + 1  x           x               x
 *         ...
 *                       |---- lane block 0 ----|    |---- lane block 1 ...
 *
 *     Tile of a single row, classes (ld = 1), which is one lane block:
 *
 *         vector 0      class from           ...  class from + LANES - 1
 *         vector 1      class from + LANES   ...
 *         ...
 *
 * Tiles are transposed if rows have up to MAX_SHORT_ROW classes, or if the entries of one class are
 * contiguous over rows, as in (N, C, d1, ..., dK). In a lane block of a transposed tile each lane
 * is a row. In a single row the lanes hold interleaved classes, and are reduced at the end.
 *
 * Rows of more classes than a tile holds pass through consecutive tiles, and single rows are cut
 * into parts of whole tiles, which threads can share. The trailing shape decides all of this, so
 * the bits of a row depend on the row alone. */
#ifndef FASTLOSS_CLASS_TILE_H
#define FASTLOSS_CLASS_TILE_H

#include "losses/class_rows.h"
#include "runtime/checked_size.h"

enum { MAX_SHORT_ROW = 256, MAX_LANE_BLOCKS = FL_ROW_BATCH / LANES };

/* Up to this many classes, the gradient of a single row reuses the exp(-a) of the forward pass:
 * 512 KiB, half of an L2 cache. Longer rows recompute it. */
enum { MAX_CACHED_CLASSES = (1 << 19) / sizeof(real) };

/* Constants of a call. */
typedef struct {
    const fl_call *call;
    int64_t C;
    const double *class_weight; /* w (C), NULL for ones; not if HARD */
    double one_minus_eps, eps_over_C;
    target_mode mode;
    int single_row;
    int64_t rows_per_tile, classes_per_tile, classes_per_part;
    int caches_exp; /* the forward pass fills an exp cache: single rows of several tiles */
} softmax_config;

/* The end of part `part`, whose first class is part * classes_per_part. */
static int64_t softmax_part_end(const softmax_config *s, int64_t part)
{
    int64_t end = (part + 1) * s->classes_per_part;
    return end < s->C ? end : s->C;
}

/* exp(-a) of a tile, where a is the gap to the running maximum at the time the tile was read. */
typedef struct {
    real running_max;
    real padding[LANES - 1]; /* so that e is aligned like the struct */
    ALIGNED real e[TILE_2D];
} exp_cache_tile;

static size_t exp_cache_bytes(int64_t classes)
{
    return size_of_array(sizeof(exp_cache_tile), (classes + TILE_2D - 1) / TILE_2D, 1);
}

/* (rows) has an entry for each row of the tile. */
typedef struct {
    fl_tile2d at;
    int64_t first_row;           /* index of the tile's first row in the batch */
    const int64_t *label;        /* (rows) */
    const double *sample_weight; /* (rows) */
    const real *x, *y;
    fl_prefetch x_next, y_next; /* the entries of the next tile */
    int is_loaded;              /* x and y hold the classes of `at` */
    real *dx, *dy;
    real *e;                   /* exp(-a) / exp_rescale */
    double exp_rescale;        /* exp(m' - m) if e refers to an earlier maximum m', else 1 */
    exp_cache_tile *exp_cache; /* (tiles of the current part), or NULL */
    ALIGNED real x_tile[TILE_2D], y_tile[TILE_2D], e_tile[TILE_2D];
} class_tile;

/* Pointers into a tile: vector i of the lane block, LANES entries, is at i * stride. */
typedef struct {
    const real *x, *y;
    const char *x_next, *y_next; /* prefetched with vector i: x_next + i * x_next_stride */
    int64_t x_next_stride, y_next_stride;
    real *e, *dx, *dy;
    const double *class_weight; /* of the first class; NULL for ones */
    double exp_rescale;
    int64_t stride, vectors;
} lane_block;

static INLINE lane_block class_tile_lane_block(const softmax_config *s, const class_tile *t,
                                               int64_t start, int64_t stride, int64_t vectors)
{
    const int64_t first_class = t->at.from + (s->single_row ? start : 0);
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
                        .class_weight = s->class_weight ? s->class_weight + first_class : NULL,
                        .stride = stride,
                        .vectors = vectors};
}

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

/* The index of class c of the tile's i-th row. */
static int64_t class_tile_index(const class_tile *t, int64_t c, int64_t i)
{
    return (c - t->at.from) * t->at.ld + i;
}

/* Whether the tile holds the label of its i-th row. */
static int class_tile_has_label(const class_tile *t, int64_t i)
{
    return t->label[i] >= t->at.from && t->label[i] < t->at.to;
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

/* Reports the first negative probability of an active row. Rows are searched in order, which a
 * transposed tile does not allow, only if the tile holds a negative entry at all. */
static void class_tile_check_probabilities(const softmax_config *s, const class_tile *t,
                                           fl_partial *partial)
{
    ALIGNED real row_tile[TILE];
    if (count_invalid(t->y, class_tile_index(t, t->at.to, 0), FL_NONNEGATIVE) == 0)
        return;
    for (int64_t i = 0; i < t->at.n; i++)
        for (int64_t c = t->at.from, n; c < t->at.to; c += n) {
            int64_t entry = (t->at.first + i) * s->C + c;
            n = t->at.to - c < TILE ? t->at.to - c : TILE;
            check_tile(fl_load(&s->call->operand[1], entry, n, row_tile), n, FL_NONNEGATIVE,
                       &t->sample_weight[i], 1, entry, s->C, partial);
        }
}

/* FL_PREPARE: checks the probabilities of classes [first, last). */
static void class_tile_check_classes(const softmax_config *s, class_tile *t, int64_t first,
                                     int64_t last, fl_partial *partial)
{
    for (int64_t from = first; from < last; from = t->at.to) {
        class_tile_seek(s, t, from, s->classes_per_tile);
        t->y = class_tile_load_operand(s, 1, t->at, t->y_tile);
        class_tile_check_probabilities(s, t, partial);
    }
}

/* Starts a tile with row p of the batch and the rows after it, up to rows_per_tile. */
static void class_tile_init(const softmax_config *s, const row_batch *r, int64_t p, class_tile *t)
{
    int64_t n = r->n - p < s->rows_per_tile ? r->n - p : s->rows_per_tile;
    t->at = (fl_tile2d){
        .first = r->first + p,
        .n = n,
        .ld = s->single_row ? 1 : (n + LANES - 1) / LANES * LANES,
    };
    t->first_row = p;
    t->label = r->label + p;
    t->sample_weight = r->sample_weight + p;
    t->x = t->x_tile;
    t->y = t->y_tile;
    t->x_next = t->y_next = (fl_prefetch){0};
    t->is_loaded = 0;
    t->e = t->e_tile;
    t->exp_rescale = 1;
    t->exp_cache = NULL;
    t->dx = t->e; /* until there is a gradient to write */
    t->dy = t->y_tile;
}

#endif
