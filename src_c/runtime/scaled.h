/* Numbers m 2^e with an exponent of their own, for products and sums that leave the range of
 * double: of weights of any scale, and of losses near its ends. They are rare, so none of this is
 * inlined. */
#ifndef FASTLOSS_SCALED_H
#define FASTLOSS_SCALED_H

#include "fastloss.h"

/* Sums of blocks within these bounds need no exponent: they neither overflow when they are added,
 * nor can products that underflowed contribute to them. */
#define FL_SUM_MIN 0x1p-900
#define FL_SUM_MAX 0x1p900

fl_scaled fl_scaled_of(double v, int64_t exponent); /* v 2^exponent */
/* v 2^exponent for a weight, with |m| < 2^64: the power 2^e of a large weight can then be
 * multiplied by other factors without overflow. */
fl_scaled fl_scaled_of_weight(double v, int64_t exponent);

/* Mantissas are rounded to double. */
fl_scaled fl_scaled_plus(fl_scaled a, fl_scaled b);
fl_scaled fl_scaled_times(fl_scaled a, fl_scaled b);
fl_scaled fl_scaled_ratio(fl_scaled a, fl_scaled b);
double fl_unscaled(fl_scaled v);

/* The product of `count` factors times 2^exponent: overflows or underflows only if it does. */
double fl_scaled_product(const double *factor, int count, int64_t exponent);

/* v rounded to the precision of float, but not to its range. */
double fl_round_to_float_precision(double v);

/* Adds s w v 2^exponent to `beyond`, or to `sum` if the product is infinite or NaN. A weight s or w
 * of 0 removes the term, whatever v. */
void fl_add_scaled_term(fl_dd *sum, fl_scaled_sum *beyond, double s, double w, double v,
                        int64_t exponent);

void fl_merge_scaled_sum(fl_scaled_sum *to, const fl_scaled_sum *from);

/* sum + beyond. */
fl_scaled fl_scaled_total(fl_dd sum, const fl_scaled_sum *beyond);

/* Moves `beyond` into `sum`; 1 if the total is out of the range of a double, see
 * fl_settle_totals(). */
int fl_settle_sum(fl_dd *sum, fl_scaled_sum *beyond);

#endif
