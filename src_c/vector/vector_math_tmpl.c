/* The functions of scalar_math.h over arrays, so that the tests can reach every instruction set. */
#include "vector/vector_math.h"

void SUFFIXED(fl_vector_math)(int function, int64_t n, const real *x, real *out);

void SUFFIXED(fl_vector_math)(int function, int64_t n, const real *x, real *out)
{
    switch (function) {
    case 0:
        for (int64_t i = 0; i < n; i++)
            out[i] = EXP(x[i]);
        break;
    case 1:
        for (int64_t i = 0; i < n; i++)
            out[i] = LOG(x[i]);
        break;
    case 2:
        for (int64_t i = 0; i < n; i++)
            out[i] = LOG1P(x[i]);
        break;
    case 3:
        for (int64_t i = 0; i < n; i++)
            out[i] = EXPM1(x[i]);
        break;
    case 4:
        for (int64_t i = 0; i < n; i++)
            out[i] = EXP_NEGATIVE(x[i]);
        break;
    case 5:
        for (int64_t i = 0; i < n; i++)
            out[i] = LOG1P_UNIT(x[i]);
        break;
    }
}
