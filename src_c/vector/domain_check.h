/* Checks that operands and sample weights hold values of their domains. NaN passes every check and
 * propagates. */
#ifndef FASTLOSS_DOMAIN_CHECK_H
#define FASTLOSS_DOMAIN_CHECK_H

#include "fastloss.h"
#include "vector/loader.h"
#include "vector/real.h"

/* Whether v is valid. */
static INLINE int in_domain(real v, fl_domain domain)
{
    switch (domain) {
    case FL_UNIT_INTERVAL:
        return !(v < 0) & !(v > 1);
    case FL_NONNEGATIVE:
        return !(v < 0);
    case FL_POSITIVE:
        return !(v <= 0);
    case FL_SIGN:
        return (v == 1) | (v == -1) | (v != v);
    default:
        return 1;
    }
}

/* A fast conservative check: the sign bit is set if v is invalid, and possibly if v is -0 or NaN.
 * Integer operations are cheaper than comparisons here. */
static INLINE uint_real domain_flag(real v, fl_domain domain)
{
    uint_real bits = real_bits(v), one = real_bits(1);
    switch (domain) {
    case FL_UNIT_INTERVAL:
        return bits | (one - bits);
    case FL_NONNEGATIVE:
        return bits;
    case FL_POSITIVE:
        return bits | (bits - 1);
    case FL_SIGN:
        return 0 - ((bits ^ one) & ~SIGN_BIT);
    default:
        return 0;
    }
}

/* Records an invalid value. The partial retains the first one in the order of unit, argument and
 * entry. */
static inline void record_error(fl_partial *partial, int64_t unit, int argument, int64_t entry)
{
    int64_t error[] = {unit, argument, entry};
    int64_t recorded[] = {partial->error_unit, partial->error_argument, partial->error_entry};
    int k = 0;
    while (k < 2 && error[k] == recorded[k])
        k++;
    if (partial->error_unit == FL_NOWHERE || error[k] < recorded[k]) {
        partial->error_unit = unit;
        partial->error_argument = argument;
        partial->error_entry = entry;
    }
}

static INLINE int64_t count_invalid(const real *v, int64_t n, fl_domain domain)
{
    int invalid = 0;
    for (int64_t i = 0; i < n; i++)
        invalid += !in_domain(v[i], domain);
    return invalid;
}

/* Records the first invalid entry of the tile v (n), which holds entries [first, first + n) of an
 * operand with `width` entries per unit. A unit of weight 0 is removed and not checked.
 * unit_weight[0] belongs to the unit of entry `first`; NULL stands for weights of 1. */
static inline void check_tile(const real *v, int64_t n, fl_domain domain, const double *unit_weight,
                              int argument, int64_t first, int64_t width, fl_partial *partial)
{
    int64_t invalid = domain == FL_UNIT_INTERVAL ? count_invalid(v, n, FL_UNIT_INTERVAL)
                      : domain == FL_NONNEGATIVE ? count_invalid(v, n, FL_NONNEGATIVE)
                      : domain == FL_POSITIVE    ? count_invalid(v, n, FL_POSITIVE)
                      : domain == FL_SIGN        ? count_invalid(v, n, FL_SIGN)
                                                 : 0;
    for (int64_t i = 0; invalid > 0 && i < n; i++) {
        if (in_domain(v[i], domain))
            continue;
        invalid--;
        int64_t unit = (first + i) / width;
        if (unit_weight && unit_weight[unit - first / width] == 0)
            continue;
        record_error(partial, unit, argument, (first + i) % width);
        return;
    }
}

/* The sample weights of units [first, first + n), NULL if the call has none. A negative one is
 * recorded. */
static inline const double *load_sample_weight(const fl_call *call, int64_t first, int64_t n,
                                               double *scratch, fl_partial *partial)
{
    if (!call->sample_weight.data)
        return 0;
    const double *s = fl_load_double(&call->sample_weight, first, n, scratch);
    for (int64_t i = 0; i < n; i++)
        if (s[i] < 0) {
            record_error(partial, first + i, FL_AT_SAMPLE_WEIGHT, 0);
            break;
        }
    return s;
}

#endif
