"""The functions of vector_math.h over their whole domains, on every instruction set."""

import numpy as np
import pytest
from mpmath import mp, mpf

import fastloss as fl
from tests.bitwise import assert_bitwise

FUNCTIONS = {"exp": mp.exp, "log": mp.log, "log1p": mp.log1p, "expm1": mp.expm1}
FUNCTIONS |= {"exp_negative": mp.exp, "log1p_unit": mp.log1p}
DOMAINS = {"exp_negative": (-np.inf, 0), "log1p_unit": (0, 1)}  # default: all reals
functions = pytest.mark.parametrize("function", FUNCTIONS)

# In ULP; the numerical contract promises the bounds of exp, log and log1p
BOUNDS = {np.float32: 1.0, np.float64: 2.0}
EXPM1_BOUND = {np.float32: 1.1, np.float64: 2.0}


def bound(function, dtype):
    return (EXPM1_BOUND if function == "expm1" else BOUNDS)[dtype]


def in_domain(function, x):
    """The entries of x in the domain of the function, and NaN."""
    low, high = DOMAINS.get(function, (-np.inf, np.inf))
    return x[~((x < low) | (x > high))]


def numpy_result(function, x):
    return getattr(np, function.split("_")[0])(x)


def ulp(exact, dtype):
    """The spacing of `dtype` at exact results, which have a wider dtype."""
    info = np.finfo(dtype)
    magnitude = np.clip(np.abs(exact), float(info.tiny), float(info.max))
    return np.exp2(np.floor(np.log2(magnitude)) - info.nmant)


def spaced(dtype, count, seed=0):
    """Evenly spaced bit patterns, as floating-point values."""
    uint = np.uint32 if dtype is np.float32 else np.uint64
    bits = 8 * np.dtype(dtype).itemsize
    step = 2**bits // count | 1
    first = np.random.default_rng(seed).integers(0, step)
    return (np.arange(count, dtype=np.uint64) * step + first).astype(uint).view(dtype)


def dense(dtype):
    """Where errors peak: near 0 and 1, powers of two, subnormal and overflowing results."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(1)
    largest = np.log(float(info.max))
    ranges = [(-1, 1), (0.4, 2.5), (-1e-3, 1e-3), (-1.1 * largest, 1.1 * largest), (-1, -0.9)]
    ranges += [(-1.2 * largest, -0.9 * largest), (0.99 * largest, 1.01 * largest)]
    parts = [rng.uniform(low, high, 40_000) for low, high in ranges]
    halves = (np.arange(-1100, 1100) + 0.5) * np.log(2)  # where n in exp(x) = 2^n p changes
    parts += [halves + k * 1e-7 for k in (-1, 0, 1)]
    powers = np.exp2(np.arange(info.minexp - info.nmant, info.maxexp, dtype=np.float64))
    parts += [powers, powers * 1.5, powers * (1 - float(info.epsneg)), -powers]
    with np.errstate(over="ignore"):
        return np.concatenate(parts).astype(dtype)


def test_every_function_is_tested():
    assert sorted(FUNCTIONS) == sorted(fl._binding.math_functions())


@functions
def test_float32(function, isa):
    """Against the float64 functions of NumPy, whose error is 2^-29 of the bound."""
    x = in_domain(function, np.concatenate([spaced(np.float32, 2_000_003), dense(np.float32)]))
    got = fl._binding.math(function, x).astype(np.float64)
    with np.errstate(all="ignore"):
        exact = numpy_result(function, x.astype(np.float64))
        assert_close(x, got, exact, np.float32, bound(function, np.float32))


@functions
@pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="needs a long double of 64 or more mantissa bits"
)
def test_float64(function, isa):
    """Against the long double functions of NumPy, whose error is 2^-10 of the bound."""
    x = in_domain(function, np.concatenate([spaced(np.float64, 200_003), dense(np.float64)]))
    got = fl._binding.math(function, x)
    with np.errstate(all="ignore"):
        exact = numpy_result(function, x.astype(np.longdouble))
        assert_close(x, got, exact, np.float64, bound(function, np.float64))


def assert_close(x, got, exact, dtype, bound):
    rounded = exact.astype(dtype)
    finite = np.isfinite(rounded) & np.isfinite(x)
    error = np.abs(got - exact) / ulp(exact, dtype)
    worst = np.argmax(np.where(finite & np.isfinite(got), error, 0))
    assert error[worst] <= bound, (x[worst], got[worst], exact[worst])
    # infinite results: those that round to inf, up to the bound around the largest finite value
    different = ~finite & ~((got == rounded) | (np.isnan(got) & np.isnan(rounded)))
    at_limit = different & (np.abs(got) == np.finfo(dtype).max) & (error <= bound)
    wrong = different & ~at_limit
    assert not wrong.any(), (x[wrong][:4], got[wrong][:4])
    overflowed = finite & ~np.isfinite(got)
    limit = np.finfo(dtype).max * (1 - bound * np.finfo(dtype).eps)
    assert (np.abs(exact[overflowed]) > limit).all()


@functions
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_against_exact_results(function, dtype, isa):
    """A few thousand arguments, against mpmath."""
    x = in_domain(function, np.concatenate([spaced(dtype, 801, seed=2), dense(dtype)[::211]]))
    x = x[np.isfinite(x) & (x > {"log": 0, "log1p": -1}.get(function, -np.inf))]
    x = x[x < np.log(float(np.finfo(dtype).max))] if function[:3] == "exp" else x
    got = fl._binding.math(function, x)
    info = np.finfo(dtype)
    tiny = mpf(float(info.tiny))
    with mp.workprec(1300):
        for argument, result in zip(x.tolist(), got.tolist(), strict=True):
            exact = FUNCTIONS[function](mpf(max(argument, -2000.0)))
            spacing = mpf(2) ** (int(mp.floor(mp.log(max(abs(exact), tiny), 2))) - info.nmant)
            assert abs(mpf(result) - exact) <= bound(function, dtype) * spacing, argument


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_special_values(dtype, isa):
    inf, nan, small = np.inf, np.nan, float(np.finfo(dtype).smallest_subnormal)
    expected = {
        "exp": {0.0: 1, inf: inf, -inf: 0, 1e4: inf, -1e4: 0, small: 1, -small: 1},
        "log": {0.0: -inf, inf: inf, -inf: nan, -1: nan, -small: nan, 1: 0},
        "log1p": {0.0: 0.0, inf: inf, -inf: nan, -1: -inf, -2: nan, small: small},
        "expm1": {0.0: 0.0, inf: inf, -inf: -1, -1e4: -1, 1e4: inf, small: small},
        "exp_negative": {0.0: 1, -inf: 0, -1e4: 0, -3.4e38: 0, -small: 1},
        "log1p_unit": {0.0: 0.0, 1: np.log(2), small: small},
    }
    for function, table in expected.items():
        pairs = [*table.items(), (nan, nan)]
        if function != "log1p_unit":
            at_zero = table[0.0]
            pairs.append((-0.0, -0.0 if at_zero == 0 else at_zero))
        x = np.array([argument for argument, _ in pairs], dtype)
        got = fl._binding.math(function, x)
        want = np.array([result for _, result in pairs], dtype)
        np.testing.assert_array_equal(got, want, err_msg=function)
        zero = x == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]), function)


@functions
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_results_do_not_depend_on_position(function, dtype, isa):
    x = in_domain(function, spaced(dtype, 403, seed=3))[:67]
    expected = fl._binding.math(function, x)
    for n in range(1, 67):
        assert_bitwise(fl._binding.math(function, x[:n]), expected[:n])
        assert_bitwise(fl._binding.math(function, x[n:]), expected[n:])
