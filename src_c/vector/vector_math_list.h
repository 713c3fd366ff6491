/* The list of the functions of vector_math.h that exist over arrays (vector_math_tmpl.c): their
 * numbers, and their names in Python. Included by kernels and binding alike. */
#ifndef FASTLOSS_VECTOR_MATH_LIST_H
#define FASTLOSS_VECTOR_MATH_LIST_H

/* X(function of a `real`, name) for each. */
#define FOR_EACH_VECTOR_MATH(X) \
    X(EXP, exp) \
    X(LOG, log) \
    X(LOG1P, log1p) \
    X(EXPM1, expm1) \
    X(EXP_NEGATIVE, exp_negative) \
    X(LOG1P_UNIT, log1p_unit)

#define NUMBER(function, name) MATH_##function,
typedef enum { FOR_EACH_VECTOR_MATH(NUMBER) MATH_FUNCTIONS } vector_math_function;
#undef NUMBER

/* The name of function 0 ... MATH_FUNCTIONS - 1. */
static inline const char *vector_math_name(int function)
{
#define NAME(function, name) #name,
    static const char *const names[] = {FOR_EACH_VECTOR_MATH(NAME)};
#undef NAME
    return names[function];
}

#endif
