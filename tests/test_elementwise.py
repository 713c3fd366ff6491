"""Elementwise losses: broadcast variances and scalars, limits of Tweedie deviances."""

import math

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import REDUCTIONS, DrawnCase, elementwise, floats

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
def test_broadcast_variance(shape, var_shape, dtype):
    """A variance with fewer entries gives the results of a full array of variances.

    They are bitwise the same on any number of threads. The gradient of a variance is the sum of
    the gradients of its copies.
    """
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, *shape)).astype(dtype)
    var = rng.uniform(0.5, 2, var_shape).astype(dtype)
    loss = fl.gaussian_nll_loss
    options = {"reduction": "none", "wrt": ("input", "target", "var")}
    results = []
    for threads in (1, 2, 3, 5):
        with fl.num_threads(threads):
            results.append(loss.value_and_grad(x, y, var, **options))
    for result in results[1:]:
        assert_bitwise(result, results[0])
    value, (*dxy, dvar) = results[0]

    with_axis = var[..., None] if var_shape == shape[:-1] and var_shape else var
    full = np.ascontiguousarray(np.broadcast_to(with_axis, shape))
    full_value, (*full_dxy, full_dvar) = loss.value_and_grad(x, y, full, **options)
    assert_bitwise((value, *dxy), (full_value, *full_dxy))
    axes = None  # all, of a variance without axes
    if with_axis.ndim:
        axes = tuple(i for i, n in enumerate(with_axis.shape) if n != shape[i])
    terms = full_dvar.astype(np.float64)
    expected = terms.sum(axis=axes).reshape(var_shape)
    bound = np.abs(terms).sum(axis=axes).reshape(var_shape)
    error = np.abs(dvar - expected)
    assert (error <= 1e-12 * bound + np.finfo(dtype).eps * np.abs(expected)).all()
    for reduction in ("mean", "sum"):
        loss.grad(x, y, var, reduction=reduction, wrt="var")


@floats
@pytest.mark.parametrize("length", [3, 7, 300, 600, 1000, 5000, 9001])
@pytest.mark.parametrize("axis", ["last axis", "first axis"])
def test_broadcast_variance_gradient_is_independent_of_other_rows(dtype, length, axis):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 41, length)).astype(dtype)
    var = rng.uniform(0.5, 2, (41, 1)).astype(dtype)
    arrays = [x, y, var]
    if axis == "first axis":
        arrays = [np.ascontiguousarray(a.T) for a in arrays]
    options = {"wrt": "var", "reduction": "sum"}
    gradient = fl.gaussian_nll_loss.grad(*arrays, **options).ravel()
    for i in range(41):
        row = slice(i, i + 1)
        of_row = fl.gaussian_nll_loss.grad(x[row], y[row], var[row], **options)
        assert_bitwise(gradient[row], of_row.ravel(), i)


@elementwise
@floats
def test_scalar_operand_gradient_is_a_sum(case, dtype):
    """The gradient of a 0-d operand is the sum of the gradients of its copies."""
    draw = DrawnCase(case, (20, 50), dtype)
    for k, name in enumerate(draw.loss.operands):
        arrays = list(draw.arrays)
        scalar = arrays[k][3, 4].copy()
        arrays[k] = np.full(draw.shape, scalar)
        copies = draw.with_arrays(arrays)
        arrays[k] = np.array(scalar)
        broadcast = draw.with_arrays(arrays)
        np.testing.assert_array_equal(broadcast.value(), copies.value(), strict=True)
        if name not in draw.wrt:
            continue
        terms = copies.grad("none", wrt=name)
        for reduction in REDUCTIONS:
            gradient = broadcast.grad(reduction, wrt=name)
            assert gradient.dtype == dtype
            assert gradient.shape == ()
            divisor = broadcast.sums()[1] if reduction == "mean" else 1
            expected = math.fsum(terms.flat) / divisor
            bound = math.fsum(np.abs(terms.flat)) / divisor
            slack = 4 * np.finfo(dtype).eps if reduction == "mean" else 1e-13
            rounding = np.finfo(dtype).eps * abs(expected)
            assert abs(gradient - expected) <= slack * bound + rounding, (name, reduction)


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
@floats
def test_tweedie_limits(power, x, y, value, dx, dy, dtype, each_isa):
    x, y = np.array([x], dtype), np.array([y], dtype)
    for _ in each_isa():
        values, gradients = fl.tweedie_deviance_loss.value_and_grad(
            x, y, power=power, reduction="none", wrt=("input", "target")
        )
        assert [float(v[0]) for v in (values, *gradients)] == [value, dx, dy]


@pytest.mark.parametrize(("power", "x", "y"), [(-1.5, 1.1e11, 1.15e11), (1.01, 4e36, 3.92e36)])
def test_tweedie_terms_that_overflow(power, x, y):
    """The terms of the difference overflow in float32; the loss does not."""
    x, y = np.float32([x]), np.float32([y])
    assert fl.tweedie_deviance_loss(x, y, power=power) > 0


@floats
def test_labels_have_the_bits_of_targets_beside_soft_ones(dtype, isa):
    """binary_cross_entropy of tiles whose targets are all 0 or 1 takes one logarithm, not two."""
    rng = np.random.default_rng(3)
    info = np.finfo(dtype)
    x = rng.random(5000).astype(dtype)
    x[:6] = 0, 1, info.smallest_subnormal, info.tiny / 3, 1 - info.epsneg, np.nan
    x[6:1000] = 10 ** rng.uniform(math.log10(info.tiny) - 5, 0, 994)
    x[1000:2000] = 1 - 10 ** rng.uniform(math.log10(info.eps), 0, 1000)
    for y in (np.zeros(5000, dtype), np.ones(5000, dtype), (np.arange(5000) % 3 == 0) * dtype(1)):
        soft = y.copy()
        soft[7::64] = 0.25
        index = np.setdiff1d(np.arange(5000), np.arange(7, 5000, 64))
        labelled = fl.binary_cross_entropy.value_and_grad(x, y, reduction="none")
        others = fl.binary_cross_entropy.value_and_grad(x, soft, reduction="none")
        for a, b in zip(labelled, others, strict=True):
            assert_bitwise(a[index], b[index])
        assert not np.signbit(labelled[0]).any()
    with pytest.raises(ValueError, match=r"input\[1\]"):
        fl.binary_cross_entropy(np.array([0.5, 1.5], dtype), np.ones(2, dtype))
