"""The functions of vector_math.h, over the whole range and on every instruction set."""

import numpy as np
import pytest
from mpmath import mp, mpf

import fastloss as fl
from tests.bitwise import assert_bitwise

FUNCTIONS = {"exp": mp.exp, "log": mp.log, "log1p": mp.log1p, "expm1": mp.expm1}
FUNCTIONS |= {"exp_negative": mp.exp, "log1p_unit": mp.log1p}
DOMAINS = {"exp_negative": (-np.inf, 0), "log1p_unit": (0, 1)}  # of those that have not all reals
functions = pytest.mark.parametrize("function", FUNCTIONS)

# in ULP; DESIGN promises them of the first three
BOUNDS = {np.float32: 1.0, np.float64: 2.0}
EXPM1_BOUND = {np.float32: 1.1, np.float64: 2.0}


def bound(function, dtype):
    return (EXPM1_BOUND if function == "expm1" else BOUNDS)[dtype]


def inside(function, x):
    """Those of x that the function is meant for, NaN among them."""
    low, high = DOMAINS.get(function, (-np.inf, np.inf))
    return x[~((x < low) | (x > high))]


def of_numpy(function, x):
    return getattr(np, function.split("_")[0])(x)


def ulp(exact, dtype):
    """The spacing of the type at exact results, given as long double."""
    info = np.finfo(dtype)
    magnitude = np.clip(np.abs(exact), float(info.tiny), float(info.max))
    return np.exp2(np.floor(np.log2(magnitude)) - info.nmant)


def spaced(dtype, count, seed=0):
    """Numbers evenly spread over all bit patterns."""
    kind = np.uint32 if dtype is np.float32 else np.uint64
    bits = 8 * np.dtype(dtype).itemsize
    step = 2**bits // count | 1
    first = np.random.default_rng(seed).integers(0, step)
    return (np.arange(count, dtype=np.uint64) * step + first).astype(kind).view(dtype)


def dense(dtype):
    """Where errors peak: around 0 and 1, powers of two, results that are subnormal or overflow."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(1)
    reach = np.log(float(info.max))
    ranges = [(-1, 1), (0.4, 2.5), (-1e-3, 1e-3), (-1.1 * reach, 1.1 * reach), (-1, -0.9)]
    ranges += [(-1.2 * reach, -0.9 * reach), (0.99 * reach, 1.01 * reach)]
    parts = [rng.uniform(low, high, 40_000) for low, high in ranges]
    halves = (np.arange(-1100, 1100) + 0.5) * np.log(2)  # where exp changes its power of two
    parts += [halves + k * 1e-7 for k in (-1, 0, 1)]
    powers = np.exp2(np.arange(info.minexp - info.nmant, info.maxexp, dtype=np.float64))
    parts += [powers, powers * 1.5, powers * (1 - float(info.epsneg)), -powers]
    with np.errstate(over="ignore"):
        return np.concatenate(parts).astype(dtype)


@functions
def test_float32(function, isa):
    """Against float64 functions of NumPy, whose own error is 2^-29 of that allowed."""
    x = inside(function, np.concatenate([spaced(np.float32, 2_000_003), dense(np.float32)]))
    got = fl._binding.math(function, x).astype(np.float64)
    with np.errstate(all="ignore"):
        exact = of_numpy(function, x.astype(np.float64))
        assert_close(x, got, exact, np.float32, bound(function, np.float32))


@functions
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no long double to compare with")
def test_float64(function, isa):
    """Against long double functions of NumPy, whose own error is 2^-10 of that allowed."""
    x = inside(function, np.concatenate([spaced(np.float64, 200_003), dense(np.float64)]))
    got = fl._binding.math(function, x)
    with np.errstate(all="ignore"):
        exact = of_numpy(function, x.astype(np.longdouble))
        assert_close(x, got, exact, np.float64, bound(function, np.float64))


def assert_close(x, got, exact, dtype, bound):
    rounded = exact.astype(dtype)
    finite = np.isfinite(rounded) & np.isfinite(x)
    error = np.abs(got - exact) / ulp(exact, dtype)
    worst = np.argmax(np.where(finite & np.isfinite(got), error, 0))
    assert error[worst] <= bound, (x[worst], got[worst], exact[worst])
    # beyond: infinite where rounding makes it so, give or take an ULP of the largest number
    strange = ~finite & ~((got == rounded) | (np.isnan(got) & np.isnan(rounded)))
    edge = strange & (np.abs(got) == np.finfo(dtype).max) & (error <= bound)
    assert not (strange & ~edge).any(), (x[strange & ~edge][:4], got[strange & ~edge][:4])
    early = finite & ~np.isfinite(got)
    assert (np.abs(exact[early]) > np.finfo(dtype).max * (1 - bound * np.finfo(dtype).eps)).all()


@functions
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_against_exact_results(function, dtype, isa):
    """A few thousand, in many digits."""
    x = inside(function, np.concatenate([spaced(dtype, 801, seed=2), dense(dtype)[::211]]))
    x = x[np.isfinite(x) & (x > {"log": 0, "log1p": -1}.get(function, -np.inf))]
    x = x[x < np.log(float(np.finfo(dtype).max))] if function[:3] == "exp" else x
    got = fl._binding.math(function, x)
    info = np.finfo(dtype)
    tiny = mpf(float(info.tiny))
    with mp.workprec(1300):
        for given, found in zip(x.tolist(), got.tolist(), strict=True):
            exact = FUNCTIONS[function](mpf(max(given, -2000.0)))
            spacing = mpf(2) ** (int(mp.floor(mp.log(max(abs(exact), tiny), 2))) - info.nmant)
            assert abs(mpf(found) - exact) <= bound(function, dtype) * spacing, given


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
        x = np.array([given for given, _ in pairs], dtype)
        got = fl._binding.math(function, x)
        want = np.array([result for _, result in pairs], dtype)
        np.testing.assert_array_equal(got, want, err_msg=function)
        zero = x == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]), function)


@functions
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_a_result_does_not_depend_on_its_place(function, dtype, isa):
    x = inside(function, spaced(dtype, 403, seed=3))[:67]
    expected = fl._binding.math(function, x)
    for n in range(1, 67):
        assert_bitwise(fl._binding.math(function, x[:n]), expected[:n])
        assert_bitwise(fl._binding.math(function, x[n:]), expected[n:])
