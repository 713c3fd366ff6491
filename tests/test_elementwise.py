"""Elementwise losses: variances and scalars that are broadcast, and limits."""

import math

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.cases import FLOATS
from tests.drawn_case import DrawnCase, elementwise, floats

VARIANCES = [
    ((400, 300), (400,)),
    ((400, 300), (400, 1)),
    ((400, 300), (1, 300)),
    ((400, 300), ()),
    ((3, 40_000), (3,)),
    ((3, 40_000), (1, 40_000)),
    ((40_000, 3), (1, 3)),
    ((50, 8, 300), (50, 1, 300)),
    ((50, 8, 300), (1, 8, 300)),
    ((1, 120_000), (1,)),
    ((120_000,), ()),
]


@floats
@pytest.mark.parametrize(("shape", "var_shape"), VARIANCES)
def test_shared_variances(shape, var_shape, dtype):
    """Same bits on any number of threads; the sum of the gradients of a variance for each."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, *shape)).astype(dtype)
    var = rng.uniform(0.5, 2, var_shape).astype(dtype)
    wrt = ("input", "target", "var")
    results = []
    for threads in (1, 2, 3, 5):
        with fl.num_threads(threads):
            results.append(
                fl.gaussian_nll_loss.value_and_grad(x, y, var, reduction="none", wrt=wrt)
            )
    for result in results[1:]:
        assert_bitwise(result, results[0])
    appended = var[..., None] if var_shape == shape[:-1] and var_shape else var
    full = np.ascontiguousarray(np.broadcast_to(appended, shape))
    value, (dx, dy, each) = fl.gaussian_nll_loss.value_and_grad(
        x, y, full, reduction="none", wrt=wrt
    )
    assert_bitwise(results[0][0], value)
    assert_bitwise(results[0][1][:2], (dx, dy))
    axes = (
        tuple(i for i, n in enumerate(appended.shape) if n != shape[i]) if appended.ndim else None
    )
    expected = each.astype(np.float64).sum(axis=axes).reshape(var_shape)
    bound = np.abs(each.astype(np.float64)).sum(axis=axes).reshape(var_shape)
    error = np.abs(results[0][1][2] - expected)
    assert (error <= 1e-12 * bound + np.finfo(dtype).eps * np.abs(expected)).all()
    for reduction in ("mean", "sum"):
        fl.gaussian_nll_loss.grad(x, y, var, reduction=reduction, wrt="var")


@floats
@pytest.mark.parametrize("length", [3, 7, 300, 600, 1000, 5000, 9001])
@pytest.mark.parametrize("last", [True, False], ids=["last axis", "first axis"])
def test_the_gradient_of_a_shared_variance_depends_on_its_row_alone(dtype, length, last):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 41, length)).astype(dtype)
    var = rng.uniform(0.5, 2, (41, 1)).astype(dtype)
    arrays = [x, y, var] if last else [np.ascontiguousarray(a.T) for a in (x, y, var)]
    together = fl.gaussian_nll_loss.grad(*arrays, wrt="var", reduction="sum").ravel()
    for i in range(41):
        row = slice(i, i + 1)
        alone = fl.gaussian_nll_loss.grad(x[row], y[row], var[row], wrt="var", reduction="sum")
        assert_bitwise(together[row], alone.ravel(), i)


@elementwise
@floats
def test_gradients_add_up_over_numbers(case, dtype):
    """A 0-d operand's gradient is the sum of those of an operand that repeats it."""
    draw = DrawnCase(case, (20, 50), dtype)
    for k, name in enumerate(draw.loss.operands):
        arrays = list(draw.arrays)
        number = arrays[k][3, 4].copy()
        arrays[k] = np.full(draw.shape, number)
        value, (each,) = draw.loss.value_and_grad(
            *arrays, **draw.keywords, reduction="none", wrt=draw.wrt[:1]
        )
        arrays[k] = np.array(number)
        np.testing.assert_array_equal(
            draw.loss(*arrays, **draw.keywords, reduction="none"), value, strict=True
        )
        if name not in draw.wrt:
            continue
        arrays[k] = np.full(draw.shape, number)
        each = draw.loss.grad(*arrays, **draw.keywords, reduction="none", wrt=name)
        arrays[k] = np.array(number)
        for reduction in ("none", "sum", "mean"):
            got = draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=name)
            assert got.dtype == dtype
            assert got.shape == ()
            scale = draw.loss.sums(*arrays, **draw.keywords)[1] if reduction == "mean" else 1
            expected = math.fsum(each.flat) / scale
            bound = math.fsum(np.abs(each.flat)) / scale
            slack = 4 * np.finfo(dtype).eps if reduction == "mean" else 1e-13
            rounding = np.finfo(dtype).eps * abs(expected)
            assert abs(got - expected) <= slack * bound + rounding, (name, reduction)


@pytest.mark.parametrize(
    ("power", "x", "y", "value", "dx", "dy"),
    [
        (-1, np.inf, 1, np.inf, np.inf, -np.inf),
        (1, np.inf, 1, np.inf, 2, -np.inf),
        (1.25, np.inf, 1, np.inf, 0, -8),
        (1.5, np.inf, 1, np.inf, 0, -4),
        (2, np.inf, 1, np.inf, 0, -2),
        (3, np.inf, 1, 1, 0, -1),
        (1, 1, np.inf, np.inf, -np.inf, np.inf),
        (1.25, 1, np.inf, np.inf, -np.inf, 8),
        (1.5, 1, np.inf, np.inf, -np.inf, 4),
        (2, 1, np.inf, np.inf, -np.inf, 2),
        (3, 1, np.inf, np.inf, -np.inf, 1),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_limits_of_tweedie_deviances(power, x, y, value, dx, dy, dtype, each_isa):
    x, y = np.array([x], dtype), np.array([y], dtype)
    for _ in each_isa():
        values, gradients = fl.tweedie_deviance_loss.value_and_grad(
            x, y, power=power, reduction="none", wrt=("input", "target")
        )
        assert [float(v[0]) for v in (values, *gradients)] == [value, dx, dy]


@pytest.mark.parametrize(("power", "x", "y"), [(-1.5, 1.1e11, 1.15e11), (1.01, 4e36, 3.92e36)])
def test_tweedie_terms_that_overflow_are_not_0(power, x, y):
    x, y = np.float32([x]), np.float32([y])
    assert fl.tweedie_deviance_loss(x, y, power=power) > 0
