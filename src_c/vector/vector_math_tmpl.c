/* The functions of vector_math.h over arrays, compiled once per (instruction set, real).
 *
 * Kernels that compute in double, such as cross entropy's, call the double variant for either
 * real, through vector_math_tmpl.h. The binding exposes every variant to the tests. */
#include "vector/vector_math.h"
#include "vector/vector_math_tmpl.h"

fl_vector_math_fn SUFFIXED(fl_vector_math);

static INLINE void apply(real (*f)(real), int64_t n, const real *x, real *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = f(x[i]);
}

void SUFFIXED(fl_vector_math)(int function, int64_t n, const void *x, void *out)
{
    switch ((vector_math_function)function) {
#define CASE(f, name) \
    case MATH_##f: \
        apply(f, n, x, out); \
        break;
        FOR_EACH_VECTOR_MATH(CASE)
#undef CASE
    case MATH_FUNCTIONS:
        break;
    }
}
