/* The kernel of the losses of distances and angles between rows of features, once per (instruction
 * set, real). */
#include "losses/cosine_embedding.h"
#include "losses/embedding_rows.h"
#include "losses/triplet_margin.h"
#include "vector/domain_check.h"
#include "vector/lanes.h"
#include "vector/row_span.h"
#include "vector/unit_outputs.h"

#include <string.h>

static void embedding_norm_pass(const embedding_config *config, row_span at, embedding_row *rows,
                                real (*tile)[TILE])
{
    if (config->is_cosine)
        cosine_norm_pass(config, at, rows, tile);
    else
        triplet_norm_pass(config, at, rows, tile);
}

/* Writes the gradients of the rows of one tile, or of one long row; grad_scale[i] multiplies row i.
 */
static NOINLINE void embedding_write_gradients(const embedding_config *config, row_span at,
                                               const embedding_row *rows, const double *grad_scale,
                                               real (*x_tile)[TILE], real (*g_tile)[TILE])
{
    const fl_call *call = config->call;
    while (next_span(call, &at)) {
        const real *x[FL_OPERANDS];
        real *g[FL_OPERANDS];
        int64_t columns = at.to - at.from;
        embedding_load_operands(config, at, x_tile, x);
        for (int k = 0; k < config->operand_count; k++) /* unrequested gradients stay in scratch */
            g[k] = call->output[FL_GRADIENT + k]
                       ? fl_output_buffer(call->output[FL_GRADIENT + k], first_element(call, at),
                                          element_count(at), g_tile[k])
                       : g_tile[k];
        for (int64_t i = 0; i < at.n; i++) {
            int64_t start = i * columns;
            if (rows[i].hinge_slope == 0)
                for (int k = 0; k < config->operand_count; k++)
                    memset(g[k] + start, 0, (size_t)columns * sizeof *g[k]);
            else if (config->is_cosine)
                cosine_gradient(&rows[i], grad_scale[i] * rows[i].hinge_slope, columns,
                                x[0] + start, x[1] + start, g[0] + start, g[1] + start);
            else
                triplet_gradient(config, &rows[i], grad_scale[i] * rows[i].hinge_slope, start,
                                 columns, x, g);
        }
        for (int k = 0; k < config->operand_count; k++)
            if (call->output[FL_GRADIENT + k])
                fl_store(call->output[FL_GRADIENT + k], first_element(call, at), element_count(at),
                         g[k]);
    }
}

/* Runs at most FL_ROW_BATCH rows as one batch, to amortise the fixed cost of a row. */
static void embedding_run_rows(const embedding_config *config, fl_phase phase, int64_t first,
                               int64_t n, fl_partial *partial)
{
    const fl_call *call = config->call;
    embedding_row rows[FL_ROW_BATCH];
    ALIGNED real x_tile[FL_OPERANDS][TILE], g_tile[FL_OPERANDS][TILE];
    real label_tile[FL_ROW_BATCH], value_tile[FL_ROW_BATCH];
    double weight_tile[FL_ROW_BATCH], grad_scale[FL_ROW_BATCH];
    const real *label = 0;

    const double *weight = load_sample_weight(call, first, n, weight_tile, partial);
    const unit_weights w = sample_weights_only(weight);
    add_divisors(&w, n, partial);
    add_count(weight, n, partial);
    if (config->is_cosine) {
        label = fl_load(&call->operand[2], first, n, label_tile);
        check_tile(label, n, call->spec[2].domain, weight, 2, first, 1, partial);
    }
    if (wants_gradients(call))
        load_gradient_scale(call, first, n, weight, NULL, grad_scale, partial);
    if (phase == FL_PREPARE)
        return;

    for (int64_t i = 0; i < n; i++)
        rows[i] = (embedding_row){.norm = {{.scale = 1}, {.scale = 1}, {.scale = 1}}};
    for (int64_t i = 0, batch; i < n; i += batch) {
        batch = rows_per_tile(call, n - i);
        embedding_norm_pass(config, (row_span){.first = first + i, .n = batch}, rows + i, x_tile);
    }
    for (int64_t i = 0; i < n; i++) {
        if (config->is_cosine)
            cosine_finish_row(config, &rows[i], (double)label[i]);
        else
            triplet_finish_row(config, first + i, &rows[i]);
        if (weight && weight[i] == 0)
            rows[i].loss = rows[i].hinge_slope = 0;
    }

    if (wants_losses(call)) {
        real *l = fl_output_buffer(call->output[FL_LOSSES], first, n, value_tile);
        for (int64_t i = 0; i < n; i++)
            l[i] = (real)rows[i].loss;
        const unit_losses losses = {.weight = &w, .l = l, .target_length = 1};
        emit_losses(call, first, n, &losses, sum_unit_losses(&losses, n), &w, weight, partial);
        for (int64_t i = 0; weight && i < n; i++)
            l[i] = (real)(weight[i] * rows[i].loss);
        fl_store(call->output[FL_LOSSES], first, n, l);
    }
    if (!wants_gradients(call))
        return;

    for (int64_t i = 0, batch; i < n; i += batch) {
        batch = rows_per_tile(call, n - i);
        embedding_write_gradients(config, (row_span){.first = first + i, .n = batch}, rows + i,
                                  grad_scale + i, x_tile, g_tile);
    }
}

void SUFFIXED(fl_embedding)(const fl_call *call, fl_phase phase, int64_t first, int64_t last,
                            fl_partial *partial)
{
    /* margin and p are doubles for floats too. */
    embedding_config config = {.call = call,
                               .is_cosine = call->formula == FL_FORMULA_cosine_embedding,
                               .swap = call->formula == FL_FORMULA_triplet_margin_swap,
                               .margin = call->params[0],
                               .p = call->params[1],
                               .epsilon = round_option(call->params[2])};
    config.operand_count = config.is_cosine ? 2 : 3;
    config.norm_count = config.swap ? 3 : 2;
    for (int64_t n; first < last; first += n) {
        n = last - first < FL_ROW_BATCH ? last - first : FL_ROW_BATCH;
        embedding_run_rows(&config, phase, first, n, partial);
    }
}
