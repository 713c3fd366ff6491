/* Elementwise losses in extended precision, for the few elements whose formula overflows in `real`
 * although the result does not, or has a limit at infinity.
 *
 * The kernels apply their formula to all elements, and this to those whose value or derivative is
 * then infinite or NaN. long double has exponents up to 2^16384 on x86-64 and arm64 Linux: no term
 * of a formula of doubles overflows. (Where long double is double, as with some compilers, doubles
 * near the end of their range keep the infinity.) */
#ifndef FASTLOSS_ELEMENTWISE_EXTENDED_H
#define FASTLOSS_ELEMENTWISE_EXTENDED_H

#include "fastloss.h"

typedef struct {
    long double l, dx, dy, dz;
} fl_extended;

/* The value and the derivatives of one element for the options p, none of x, y and z being NaN.
 * Returns 0 if the formula has no extended version, or none for these operands. */
int fl_elementwise_extended(fl_formula formula, const double *p, double x, double y, double z,
                            fl_extended *result);

#endif
