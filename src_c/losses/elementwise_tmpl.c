/* The elementwise kind: a formula over up to three arrays, once per (instruction set, real).
 *
 * A unit is an element. A block goes tile by tile: load, check, map the formula, weigh, add up,
 * store. */
#include "losses/elementwise_formulas.h"
#include "vector/loader.h"
#include "vector/lanes.h"
#include "vector/domain_check.h"
#include "vector/unit_outputs.h"

#include <string.h>

enum { VALUE = 1, DX = 2, DY = 4, DZ = 8 };

/* Entries that are mapped at a time where gradients go past the caches, so that memory is read and
 * written at the same time. */
enum { CHUNK = 8 * LANES };

/* A row of the table as constants. */
typedef struct {
    formula f;
    int operands;
    fl_domain domain[FL_OPERANDS];
} form;

/* Where a formula is mapped: from x, y, z to l and the derivatives, which are multiplied by scale.
 */
typedef struct {
    const real *operand[FL_OPERANDS];
    real *result[1 + FL_OPERANDS];
    real scale, params[FL_PARAMS];
} mapping;

/* What comes along in each lane: in a pass of its own it would cost as much as a short formula. */
typedef struct {
    lane_sum sum;                 /* Σ l */
    uint_real domain_flag[LANES]; /* the sign bit: some entry may not be allowed */
} along;

static INLINE void copy_along(along *to, const along *from)
{
    copy_lane_sum(&to->sum, &from->sum);
    for (int k = 0; k < LANES; k++)
        to->domain_flag[k] = from->domain_flag[k];
}

/* The formula at entries [i, n), whole lines; outputs that `wanted` leaves out are not touched. */
static INLINE void map(const form t, const int wanted, const mapping *m, int64_t i, int64_t n,
                       along *a)
{
    along here; /* in registers */
    copy_along(&here, a);
    for (; i < n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            real x = m->operand[0][i + k], y = m->operand[1][i + k], z = m->operand[2][i + k];
            result r = t.f(x, y, z, m->params);
            here.domain_flag[k] |= domain_flag(x, t.domain[0]) | domain_flag(y, t.domain[1]) |
                                   domain_flag(z, t.domain[2]);
            if (wanted & VALUE)
                m->result[0][i + k] = r.l;
            if (wanted & VALUE)
                add_to_lane(&here.sum, k, (double)r.l);
            if (wanted & DX)
                m->result[1][i + k] = r.dx * m->scale;
            if (wanted & DY)
                m->result[2][i + k] = r.dy * m->scale;
            if (wanted & DZ)
                m->result[3][i + k] = r.dz * m->scale;
        }
    copy_along(a, &here);
}

/* The usual wishes have a loop of their own, the others share one (its surplus goes to scratch). */
static INLINE void map_wanted(const form t, int wanted, const mapping *m, int64_t i, int64_t n,
                              along *a)
{
    const int all = t.operands == 3 ? VALUE | DX | DY | DZ : VALUE | DX | DY;
    switch (wanted) {
    case VALUE:
        map(t, VALUE, m, i, n, a);
        break;
    case DX:
        map(t, DX, m, i, n, a);
        break;
    case VALUE | DX:
        map(t, VALUE | DX, m, i, n, a);
        break;
    default:
        map(t, all, m, i, n, a);
        break;
    }
}

/* The table becomes code here and nowhere else. */
static void map_formula(fl_formula number, int wanted, const mapping *m, int64_t i, int64_t n,
                        along *a)
{
    switch (number) {
#define ELEMENTWISE(name, operands, ...) \
    case FL_FORMULA_##name: \
        map_wanted((form){name, operands, {__VA_ARGS__}}, wanted, m, i, n, a); \
        break;
#define ROWS(...)
#include "losses.def"
#undef ELEMENTWISE
#undef ROWS
    default:
        break;
    }
}

/* The n < LANES entries from i on: a line, filled up with the last one, which adds nothing. */
static void map_end(fl_formula number, int wanted, const mapping *m, int64_t i, int64_t n, along *a)
{
    real operand[FL_OPERANDS][LANES], result[1 + FL_OPERANDS][LANES];
    mapping line = *m;
    along surplus = *a;
    for (int k = 0; k < FL_OPERANDS; k++) {
        for (int64_t j = 0; j < LANES; j++)
            operand[k][j] = m->operand[k][i + (j < n ? j : n - 1)];
        line.operand[k] = operand[k];
    }
    for (int k = 0; k <= FL_OPERANDS; k++)
        line.result[k] = result[k];
    map_formula(number, wanted, &line, 0, LANES, &surplus);
    for (int k = 0; k <= FL_OPERANDS; k++)
        if (wanted & VALUE << k)
            memcpy(m->result[k] + i, result[k], (size_t)n * sizeof(real));
    for (int k = 0; wanted & VALUE && k < n; k++)
        add_to_lane(&a->sum, k, (double)result[0][k]);
    for (int k = 0; k < LANES; k++)
        a->domain_flag[k] = surplus.domain_flag[k];
}

/* A gradient of which `period` units share an entry: sums run through the tile, finished entries
 * are stored. */
static void reduce_tile(const fl_call *call, int k, const real *d, int64_t first, int64_t n,
                        fl_partial *partial)
{
    const int64_t period = call->broadcast_period[k];
    for (int64_t done = 0; done < n;) {
        int64_t rest = period - (first + done) % period, piece = rest < n - done ? rest : n - done;
        partial->broadcast_grad[k] = dd_add(partial->broadcast_grad[k], sum_tile(d + done, piece));
        done += piece;
        if (piece == rest && fl_gradient_sums_in_block(call, k)) {
            real entry = (real)partial->broadcast_grad[k].hi;
            fl_store(&call->grad[k], (first + done) / period - 1, 1, &entry);
            partial->broadcast_grad[k] = (fl_dd){0, 0};
        }
    }
}

static void check_operands(const fl_call *call, const real *const *operand, int64_t first,
                           int64_t n, const double *factor, fl_partial *partial)
{
    for (int k = 0; k < FL_OPERANDS; k++)
        if (operand[k])
            check_tile(operand[k], n, call->spec[k].domain, factor, k, first, 1, partial);
}

/* weight · sample weight, 0 only where one of them is; NULL where there is neither. */
static const double *load_factor(const fl_call *call, int64_t first, int64_t n,
                                 const double *sample, double *scratch)
{
    if (!call->weight.data)
        return sample;
    double tile[TILE];
    const double *weight = fl_load_double(&call->weight, first, n, sample ? tile : scratch);
    for (int64_t i = 0; sample && i < n; i++) {
        double product = weight[i] * sample[i];
        int removed = weight[i] == 0 || sample[i] == 0;
        scratch[i] = removed ? 0 : product == 0 ? 0x1p-1022 : product;
    }
    return sample ? scratch : weight;
}

static void add_divisor(const double *divisor, const double *factor, int64_t n, fl_partial *partial)
{
    partial->divisor_sum = divisor ? dd_add(partial->divisor_sum, sum_doubles(divisor, n))
                                   : dd_add_double(partial->divisor_sum, (double)n);
    partial->count += n;
    for (int64_t i = 0; factor && i < n; i++)
        partial->count -= factor[i] == 0;
}

/* Whether gradient k is stored chunk by chunk. */
static int is_sent(const fl_call *call, int k, int weighed)
{
    return call->requested & FL_GRAD << k && call->grad[k].non_temporal && !weighed;
}

/* Maps the formula over the tile, and stores gradients that go past the caches. */
static void map_tile(const fl_call *call, int wanted, const mapping *m, int weighed, int64_t first,
                     int64_t n, along *a)
{
    const int64_t whole = n - n % LANES;
    int sent = 0;
    for (int k = 0; k < FL_OPERANDS; k++)
        sent |= is_sent(call, k, weighed);
    for (int64_t i = 0, next; i < n; i = next) {
        next = sent && i + CHUNK < whole ? i + CHUNK : i < whole ? whole : n;
        if (i < whole)
            map_formula(call->formula, wanted, m, i, next, a);
        else
            map_end(call->formula, wanted, m, i, next - i, a);
        for (int k = 0; sent && k < FL_OPERANDS; k++)
            if (is_sent(call, k, weighed))
                fl_store(&call->grad[k], first + i, next - i, m->result[1 + k] + i);
    }
}

static void run_tile(const fl_call *call, fl_phase phase, int64_t first, int64_t n,
                     fl_partial *partial)
{
    real operand_tile[FL_OPERANDS][TILE], grad_tile[FL_OPERANDS][TILE], value_tile[TILE];
    double sample_tile[TILE], factor_tile[TILE], upstream_tile[TILE];
    const real *operand[FL_OPERANDS];

    const double *sample = load_sample_weight(call, first, n, sample_tile, partial);
    const double *factor = load_factor(call, first, n, sample, factor_tile);
    const double *divisor = call->mean_divisor == FL_BY_ALL_WEIGHTS ? factor : sample;
    add_divisor(divisor, factor, n, partial);
    for (int k = 0; k < FL_OPERANDS; k++) {
        const int needed = phase != FL_PREPARE || call->spec[k].domain != FL_ANY;
        operand[k] = needed && call->operand[k].data
                         ? fl_load(&call->operand[k], first, n, operand_tile[k])
                         : 0;
    }
    if (phase == FL_PREPARE) {
        check_operands(call, operand, first, n, factor, partial);
        return;
    }

    const double *upstream = load_grad_output(call, first, n, upstream_tile);
    int wanted = call->requested & (FL_SUM | FL_VALUES) ? VALUE : 0;
    real *l = fl_output_buffer(&call->values, first, n, value_tile), *grad[FL_OPERANDS];
    for (int k = 0; k < FL_OPERANDS; k++) {
        int elementwise = call->requested & FL_GRAD << k && !call->broadcast_period[k];
        wanted |= call->requested & FL_GRAD << k ? DX << k : 0;
        grad[k] =
            elementwise ? fl_output_buffer(&call->grad[k], first, n, grad_tile[k]) : grad_tile[k];
    }
    /* The scale is applied on the way, or in double with the weights where a real might not hold
     * it; rounded alike, so that weights of 1 change nothing. */
    double size = __builtin_fabs(call->grad_scale);
    int fits = size == 0 || (size > 1e-30 && size < 1e30), later = factor || upstream || !fits;
    double scale = fits ? (double)(real)call->grad_scale : call->grad_scale;
    mapping m = {.operand = {operand[0], operand[1] ? operand[1] : operand[0],
                             operand[2] ? operand[2] : operand[0]},
                 .result = {l, grad[0], grad[1], grad[2]},
                 .scale = later ? 1 : (real)scale};
    for (int k = 0; k < FL_PARAMS; k++)
        m.params[k] = (real)call->params[k];
    along a = {{{0}, {0}}, {0}};
    map_tile(call, wanted, &m, later, first, n, &a);
    uint_real doubts = 0;
    for (int k = 0; k < LANES; k++)
        doubts |= a.domain_flag[k];
    if (doubts >= SIGN_BIT && !call->prepare) /* else it was checked, and may be overwritten */
        check_operands(call, operand, first, n, factor, partial);

    if (wanted & VALUE) {
        if (factor)
            scale_tile(l, factor, 0, 1, n);
        partial->sum = dd_add(partial->sum, factor ? sum_tile(l, n) : reduce_lanes(&a.sum));
        fl_store(&call->values, first, n, l);
        if (wants_unit_terms(call))
            emit_unit_terms(call, first, n, l, 1, divisor, factor, partial);
    }
    for (int k = 0; k < FL_OPERANDS; k++) {
        if (!(wanted & DX << k) || is_sent(call, k, later))
            continue;
        if (later)
            scale_tile(grad[k], factor, upstream, scale, n);
        if (call->broadcast_period[k])
            reduce_tile(call, k, grad[k], first, n, partial);
        else
            fl_store(&call->grad[k], first, n, grad[k]);
    }
}

/* Units of the tile that starts at `first`. Where units share a gradient entry a tile holds whole
 * entries or a piece of one, counted from its start: its sum then does not depend on its place. */
static int64_t tile_units(const fl_call *call, int64_t first, int64_t last)
{
    int64_t n = last - first < TILE ? last - first : TILE;
    for (int k = 0; k < FL_OPERANDS; k++) {
        int64_t period = call->broadcast_period[k];
        if (period == 0 || period >= call->units)
            continue;
        int64_t rest = period - first % period;
        n = period > TILE ? (n < rest ? n : rest) : n < period ? n : n / period * period;
    }
    return n;
}

void SUFFIXED(fl_elementwise)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                              fl_partial *partial)
{
    for (int64_t n; first < last; first += n) {
        n = tile_units(call, first, last);
        run_tile(call, phase, first, n, partial);
    }
}
