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

/*      formula in classes_tmpl.c */
CLASSES(nll)
CLASSES(cross_entropy)
