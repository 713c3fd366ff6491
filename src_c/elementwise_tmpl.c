/* The elementwise kind: a formula over up to three arrays, once per (instruction set, real).
 *
 * A unit is an element. A block goes tile by tile: load, check, map the formula, weigh, add up,
 * store. */
#include "formulas.h"
#include "loader.h"
#include "tile.h"

#include <string.h>

enum { VALUE = 1, DX = 2, DY = 4, DZ = 8 };

/* Where a formula is mapped: from x, y, z to l and the derivatives, which are multiplied by scale.
 */
typedef struct {
    const real *operand[FL_OPERANDS];
    real *result[1 + FL_OPERANDS];
    real scale, params[FL_PARAMS];
} mapping;

/* The formula at n entries, whole lines; outputs that `wanted` leaves out are not touched. Σ l
 * comes along: in a pass of its own it would cost as much as a short formula. */
static INLINE fl_dd map(formula f, const int wanted, mapping m, int64_t n)
{
    lanes sum = {{0}, {0}};
    for (int64_t i = 0; i < n; i += LANES)
#pragma omp simd
        for (int k = 0; k < LANES; k++) {
            result r = f(m.operand[0][i + k], m.operand[1][i + k], m.operand[2][i + k], m.params);
            if (wanted & VALUE)
                m.result[0][i + k] = r.l;
            if (wanted & VALUE)
                add_to_lane(&sum, k, (double)r.l);
            if (wanted & DX)
                m.result[1][i + k] = r.dx * m.scale;
            if (wanted & DY)
                m.result[2][i + k] = r.dy * m.scale;
            if (wanted & DZ)
                m.result[3][i + k] = r.dz * m.scale;
        }
    return sum_lanes(&sum);
}

/* The usual wishes have a loop of their own, the others share one (its surplus goes to scratch). */
static INLINE fl_dd map_wanted(formula f, const int operands, int wanted, mapping m, int64_t n)
{
    const int all = operands == 3 ? VALUE | DX | DY | DZ : VALUE | DX | DY;
    switch (wanted) {
    case 0:
        return (fl_dd){0, 0};
    case VALUE:
        return map(f, VALUE, m, n);
    case DX:
        return map(f, DX, m, n);
    case VALUE | DX:
        return map(f, VALUE | DX, m, n);
    default:
        return map(f, all, m, n);
    }
}

/* The table becomes code here and nowhere else. */
static fl_dd map_formula(fl_formula number, int wanted, mapping m, int64_t n)
{
    switch (number) {
#define ELEMENTWISE(name, operands, ...) \
    case FL_FORMULA_##name: \
        return map_wanted(name, operands, wanted, m, n);
#define ROWS(...)
#include "losses.h"
#undef ELEMENTWISE
#undef ROWS
    default:
        return (fl_dd){0, 0};
    }
}

/* The same for any n: what is left over becomes a line, filled up with its last entry. */
static fl_dd map_tile(fl_formula number, int wanted, mapping m, int64_t n)
{
    int64_t rest = n % LANES, whole = n - rest;
    fl_dd sum = map_formula(number, wanted, m, whole);
    if (rest == 0)
        return sum;
    real operand[FL_OPERANDS][LANES], result[1 + FL_OPERANDS][LANES];
    mapping end = m;
    for (int k = 0; k < FL_OPERANDS; k++) {
        for (int i = 0; i < LANES; i++)
            operand[k][i] = m.operand[k][i < rest ? whole + i : n - 1];
        end.operand[k] = operand[k];
    }
    for (int k = 0; k <= FL_OPERANDS; k++)
        end.result[k] = result[k];
    map_formula(number, wanted, end, LANES);
    for (int k = 0; k <= FL_OPERANDS; k++)
        if (wanted & VALUE << k)
            memcpy(m.result[k] + whole, result[k], (size_t)rest * sizeof(real));
    return wanted & VALUE ? sum_tile(m.result[0], n) : sum;
}

/* A gradient of which `period` units share an entry: sums run through the tile, finished entries
 * are stored. */
static void reduce_tile(const fl_call *call, int k, const real *d, int64_t first, int64_t n,
                        fl_partial *partial)
{
    const int64_t period = call->reduce[k];
    for (int64_t done = 0; done < n;) {
        int64_t rest = period - (first + done) % period, piece = rest < n - done ? rest : n - done;
        partial->reduced[k] = dd_add(partial->reduced[k], sum_tile(d + done, piece));
        done += piece;
        if (piece == rest && fl_reduced_in_block(call, k)) {
            real entry = (real)partial->reduced[k].hi;
            fl_store(&call->grad[k], (first + done) / period - 1, 1, &entry);
            partial->reduced[k] = (fl_dd){0, 0};
        }
    }
}

static void run_tile(const fl_call *call, fl_phase phase, int64_t first, int64_t n,
                     fl_partial *partial)
{
    real operand_tile[FL_OPERANDS][TILE], grad_tile[FL_OPERANDS][TILE], value_tile[TILE];
    double weight_tile[TILE], sample_tile[TILE], factor_tile[TILE], upstream_tile[TILE];
    const real *operand[FL_OPERANDS];
    const double *weight = 0, *factor;

    /* factor = weight · sample weight, 0 only where one of them is */
    if (call->weight.data)
        weight = fl_load_double(&call->weight, first, n, weight_tile);
    const double *sample = load_sample_weight(call, first, n, sample_tile, partial);
    factor = weight ? weight : sample;
    if (weight && sample) {
        for (int64_t i = 0; i < n; i++) {
            double product = weight[i] * sample[i];
            int removed = weight[i] == 0 || sample[i] == 0;
            factor_tile[i] = removed ? 0 : product == 0 ? 0x1p-1022 : product;
        }
        factor = factor_tile;
    }
    const double *divisor = call->divisor == FL_BY_ALL_WEIGHTS ? factor : sample;
    partial->weight = divisor ? dd_add(partial->weight, sum_doubles(divisor, n))
                              : dd_add_double(partial->weight, (double)n);
    partial->count += n;
    for (int64_t i = 0; factor && i < n; i++)
        partial->count -= factor[i] == 0;

    for (int k = 0; k < FL_OPERANDS; k++) {
        fl_domain domain = call->role[k].domain;
        operand[k] = operand[0];
        if (!call->operand[k].data || (phase == FL_PREPARE && domain == FL_ANY))
            continue;
        operand[k] = fl_load(&call->operand[k], first, n, operand_tile[k]);
        check_tile(operand[k], n, domain, factor, k, first, 1, partial);
    }
    if (phase == FL_PREPARE)
        return;

    const double *upstream = load_upstream(call, first, n, upstream_tile);
    int wanted = call->products & (FL_SUM | FL_VALUES) ? VALUE : 0;
    real *l = fl_target(&call->values, first, n, value_tile), *grad[FL_OPERANDS];
    for (int k = 0; k < FL_OPERANDS; k++) {
        int elementwise = call->products & FL_GRAD << k && !call->reduce[k];
        wanted |= call->products & FL_GRAD << k ? DX << k : 0;
        grad[k] = elementwise ? fl_target(&call->grad[k], first, n, grad_tile[k]) : grad_tile[k];
    }
    /* The scale is applied on the way, or in double with the weights where a real might not hold
     * it; rounded alike, so that weights of 1 change nothing. */
    double size = __builtin_fabs(call->scale);
    int fits = size == 0 || (size > 1e-30 && size < 1e30), later = factor || upstream || !fits;
    double scale = fits ? (double)(real)call->scale : call->scale;
    mapping m = {.operand = {operand[0], operand[1], operand[2]},
                 .result = {l, grad[0], grad[1], grad[2]},
                 .scale = later ? 1 : (real)scale};
    for (int k = 0; k < FL_PARAMS; k++)
        m.params[k] = (real)call->params[k];
    fl_dd sum = map_tile(call->formula, wanted, m, n);

    if (wanted & VALUE) {
        if (factor) {
            weigh_tile(l, factor, 0, 1, n);
            sum = sum_tile(l, n);
        }
        partial->sum = dd_add(partial->sum, sum);
        fl_store(&call->values, first, n, l);
    }
    for (int k = 0; k < FL_OPERANDS; k++) {
        if (!(wanted & DX << k))
            continue;
        if (later)
            weigh_tile(grad[k], factor, upstream, scale, n);
        if (call->reduce[k])
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
        int64_t period = call->reduce[k];
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
