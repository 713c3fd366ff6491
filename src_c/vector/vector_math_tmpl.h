/* The functions of vector_math.h over arrays of doubles, for kernels of either real. */
#ifndef FASTLOSS_VECTOR_MATH_TMPL_H
#define FASTLOSS_VECTOR_MATH_TMPL_H

#include "fastloss.h"
#include "vector/real.h"
#include "vector/vector_math_list.h"

/* vector_math_double(MATH_EXP, n, x, out), for example; x and out (n) may be the same array. */
#define vector_math_double FL_PASTE(fl_vector_math, ISA, f64)
fl_vector_math_fn vector_math_double;

#endif
