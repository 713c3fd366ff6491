// clang-format off
/* The table of losses. One row makes the C side of an elementwise loss: its products, weights,
 * types, instruction sets and threads follow. Boolean options and a pos_weight make variants: their
 * names are appended to its own.
 *
 *          formula in formulas.h                        arrays  values allowed in x, y, z */
ELEMENTWISE(l1,                                          2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(mse,                                         2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(smooth_l1,                                   2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(huber,                                       2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(log_cosh,                                    2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(poisson_nll,                                 2, FL_NONNEGATIVE, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(poisson_nll_full,                            2, FL_NONNEGATIVE, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(poisson_nll_log_input,                       2, FL_ANY, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(poisson_nll_log_input_full,                  2, FL_ANY, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(gaussian_nll,                                3, FL_ANY, FL_ANY, FL_NONNEGATIVE)
ELEMENTWISE(gaussian_nll_full,                           3, FL_ANY, FL_ANY, FL_NONNEGATIVE)
ELEMENTWISE(kl_div,                                      2, FL_ANY, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(kl_div_log_target,                           2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(binary_cross_entropy,                        2, FL_UNIT_INTERVAL, FL_UNIT_INTERVAL, FL_ANY)
ELEMENTWISE(binary_cross_entropy_with_logits,            2, FL_ANY, FL_UNIT_INTERVAL, FL_ANY)
ELEMENTWISE(binary_cross_entropy_with_logits_pos_weight, 3, FL_ANY, FL_UNIT_INTERVAL, FL_ANY)
ELEMENTWISE(hinge_embedding,                             2, FL_ANY, FL_SIGN, FL_ANY)
ELEMENTWISE(soft_margin,                                 2, FL_ANY, FL_SIGN, FL_ANY)
ELEMENTWISE(margin_ranking,                              3, FL_ANY, FL_ANY, FL_SIGN)
ELEMENTWISE(sigmoid_focal,                               2, FL_ANY, FL_UNIT_INTERVAL, FL_ANY)
ELEMENTWISE(sigmoid_focal_squared,                       2, FL_ANY, FL_UNIT_INTERVAL, FL_ANY)
ELEMENTWISE(pinball,                                     2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(gamma_nll,                                   2, FL_POSITIVE, FL_POSITIVE, FL_ANY)
ELEMENTWISE(gamma_nll_log_input,                         2, FL_ANY, FL_POSITIVE, FL_ANY)
ELEMENTWISE(tweedie_deviance_negative,                   2, FL_POSITIVE, FL_ANY, FL_ANY)
ELEMENTWISE(tweedie_deviance_normal,                     2, FL_ANY, FL_ANY, FL_ANY)
ELEMENTWISE(tweedie_deviance_poisson,                    2, FL_POSITIVE, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(tweedie_deviance_compound,                   2, FL_POSITIVE, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(tweedie_deviance_root,                       2, FL_POSITIVE, FL_NONNEGATIVE, FL_ANY)
ELEMENTWISE(tweedie_deviance_gamma,                      2, FL_POSITIVE, FL_POSITIVE, FL_ANY)
ELEMENTWISE(tweedie_deviance_positive,                   2, FL_POSITIVE, FL_POSITIVE, FL_ANY)

/* Losses over rows: the axis of the row, and of x, y, z where their entries are and which values
 * they may hold.
 *
 *   kind       formula in <kind>_tmpl.c   row     x                     y                        z */
ROWS(CLASSES,   nll,                       SECOND, ROW(SCORE),           UNIT(INDEX),             NONE)
ROWS(CLASSES,   cross_entropy,             SECOND, ROW(SCORE),           UNIT(INDEX),             NONE)
ROWS(CLASSES,   cross_entropy_probabilities, SECOND, ROW(SCORE),         ROW(NONNEGATIVE),        NONE)
ROWS(MARGINS,   multi_margin,              LAST,   ROW(SCORE),           UNIT(INDEX),             NONE)
ROWS(MARGINS,   multilabel_margin,         LAST,   ROW(SCORE),           ROW(LABELS),             NONE)
ROWS(MARGINS,   multilabel_soft_margin,    LAST,   ROW(SCORE),           ROW(UNIT_INTERVAL),      NONE)
ROWS(PAIRS,     cosine_embedding,          LAST,   ROW(ANY),             ROW(ANY),                UNIT(SIGN))
ROWS(PAIRS,     triplet_margin,            LAST,   ROW(ANY),             ROW(ANY),                ROW(ANY))
ROWS(PAIRS,     triplet_margin_swap,       LAST,   ROW(ANY),             ROW(ANY),                ROW(ANY))
ROWS(SEQUENCES, ctc,                       LAST,   ROW(SCORE),           ROW(INDEX),              NONE)
ROWS(SEQUENCES, ctc_with_logits,           LAST,   ROW(SCORE),           ROW(INDEX),              NONE)
ROWS(SEQUENCES, ctc_posteriors,            LAST,   ROW(SCORE),           ROW(INDEX),              NONE)
