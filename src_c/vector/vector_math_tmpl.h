/* EXP, LOG and LOG1P of scalar_math.h over arrays of doubles, whatever the real. */
#ifndef FASTLOSS_DOUBLE_MATH_H
#define FASTLOSS_DOUBLE_MATH_H

#include "fastloss.h"
#include "vector/real.h"

#define vector_math_double FL_PASTE(fl_vector_math, ISA, f64)
enum { MATH_EXP, MATH_LOG, MATH_LOG1P };
fl_vector_math_fn vector_math_double;

#endif
