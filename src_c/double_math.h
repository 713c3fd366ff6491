/* EXP, LOG and LOG1P of scalar_math.h over arrays of doubles, whatever the real. */
#ifndef FASTLOSS_DOUBLE_MATH_H
#define FASTLOSS_DOUBLE_MATH_H

#include "fastloss.h"
#include "real.h"

#define double_math FL_PASTE(fl_math, ISA, f64)
enum { MATH_EXP, MATH_LOG, MATH_LOG1P };
fl_math_fn double_math;

#endif
