"""Weights of every loss, ignored rows, and `grad_output`."""

import itertools
import math

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import DrawnCase, cases, floats, reductions


@cases
@floats
def test_sample_weights_of_one_change_nothing(case, dtype):
    draw = DrawnCase(case, (30, 20), dtype)
    for shape, reduction in itertools.product((draw.shape, draw.shape[:1]), reductions(case)):
        ones = np.ones(shape, dtype)
        assert_bitwise(draw.both(reduction, sample_weight=ones), draw.both(reduction), reduction)
        assert draw.sums(sample_weight=ones) == draw.sums()


@cases
@floats
def test_sample_weights_multiply(case, dtype):
    """Powers of two, which round nothing."""
    draw = DrawnCase(case, (30, 20), dtype)
    for shape in (draw.shape, draw.shape[:1]):
        samples = 2.0 ** draw.rng.integers(-3, 4, shape).astype(dtype)
        full = np.broadcast_to(
            samples.reshape(*shape, *[1] * (len(draw.shape) - len(shape))), draw.shape
        )
        value, gradients = draw.both("none")
        expected = full * value, tuple(draw.by_unit(full) * g for g in gradients)
        assert_bitwise(draw.both("none", sample_weight=samples), expected)
        assert_bitwise(draw.grad("sum", sample_weight=samples), expected[1])
        for other in (np.float64, np.float32, np.float16, int):
            if (samples == samples.astype(other)).all():
                assert_bitwise(draw.both("none", sample_weight=samples.astype(other)), expected)


@cases
@floats
def test_all_weights_zero(case, dtype):
    draw = DrawnCase(case, (6, 5), dtype)
    for shape in (draw.shape, draw.shape[:1]):
        zeros = np.zeros(shape, dtype)
        assert draw.sums(sample_weight=zeros) == (0, 0, 0)
        for reduction in reductions(case):
            value, gradients = draw.both(reduction, sample_weight=zeros)
            averaged = reduction in ("mean", "batchmean")
            assert math.isnan(value) if averaged else not np.any(value)
            assert not any(g.any() for g in gradients)


@cases
@floats
@pytest.mark.parametrize("by", ["sample_weight", "weight"])
def test_a_zero_weight_removes_an_entry_whatever_it_holds(case, dtype, by):
    draw = DrawnCase(case, (2400 if case.kind != "sequences" else 240,), dtype)
    removed = np.arange(*draw.shape) % 5 == 2
    factor = np.where(removed, 0, 1.5).astype(dtype)
    keywords = dict(draw.keywords)
    if by == "sample_weight":
        keywords[by] = factor
    elif "weight" not in draw.keywords:
        return
    elif case.weighs_classes:
        if not case.by_class or case.options.get("label_smoothing"):
            return  # then the other classes weigh
        draw.arrays[1][removed] = 3
        keywords[by] = np.arange(7.0).astype(dtype)
        keywords[by][3] = 0
    else:
        keywords[by] = np.broadcast_to(
            factor.reshape(-1, *[1] * (draw.keywords[by].ndim - 1)), draw.keywords[by].shape
        )
    junk = (np.nan, np.inf, -5.0, 1e30)
    expected = draw.loss.value_and_grad(*draw.arrays, **keywords, reduction="none", wrt=draw.wrt)
    means = draw.loss.value_and_grad(*draw.arrays, **keywords, wrt=draw.wrt)
    for value in junk:
        arrays = [a.copy() for a in draw.arrays]
        for array, kind in zip(arrays, case.operands, strict=True):
            if array.dtype.kind == "f":
                case.leading(array)[removed] = value
            elif by == "sample_weight" and kind.place != "length":
                array[removed] = 999
        if by == "sample_weight" and not case.weighs_classes:
            for name in draw.keywords.keys() & {"weight", "pos_weight"}:
                weight = keywords[name] = draw.keywords[name].copy()
                weight[removed] = value
        got = draw.loss.value_and_grad(*arrays, **keywords, reduction="none", wrt=draw.wrt)
        assert_bitwise(got, expected, value)
        assert not got[0][removed].any()
        assert not any(g.any() for g in draw.gradients_at(got[1], removed))
        assert_bitwise(draw.loss.value_and_grad(*arrays, **keywords, wrt=draw.wrt), means, value)


@cases
def test_ignored_rows_are_not_looked_at(case):
    if case.ignored is None:
        return
    draw = DrawnCase(case, (300,), np.float32)
    ignored = np.arange(300) % 4 == 1
    draw.arrays[1][ignored] = case.ignored
    expected = draw.both("none"), draw.both("mean")
    draw.arrays[0][ignored] = np.nan
    assert_bitwise((draw.both("none"), draw.both("mean")), expected)
    assert not expected[0][0][ignored].any()
    assert not expected[0][1][0][ignored].any()
    draw.arrays[1][:] = case.ignored
    value, (gradient,) = draw.both("mean")
    assert math.isnan(value)
    assert not gradient.any()
    assert draw.sums() == (0, 0, 0)


@cases
@floats
def test_weights_broadcast(case, dtype):
    """To the operands."""
    draw = DrawnCase(case, (6,) if case.kind == "rows" else (6, 5), dtype, classes=5)
    for name in ("weight", "pos_weight"):
        if name not in draw.keywords or case.weighs_classes:
            continue
        for shape in ((), (5,), (1, 5), (6, 1), (1, 1), (1,)):
            weight = draw.rng.choice([0, 0.5, 2], shape).astype(dtype)
            got = draw.loss.value_and_grad(
                *draw.arrays, **draw.keywords | {name: weight}, reduction="none", wrt=draw.wrt
            )
            full = np.ascontiguousarray(np.broadcast_to(weight, draw.arrays[0].shape))
            expected = draw.loss.value_and_grad(
                *draw.arrays, **draw.keywords | {name: full}, reduction="none", wrt=draw.wrt
            )
            assert_bitwise(got, expected, (name, shape))


def test_weights_keep_the_range_and_digits_of_float64():
    """Weights beside float32 operands are not rounded to float32."""
    x, y = np.array([1, 3], np.float32), np.zeros(2, np.float32)
    for size in (1e-300, 1e300):
        assert fl.mse_loss.sums(x, y, sample_weight=[size, size])[1] == 2 * size
    for size in (1e-35, 1e35):  # weighted losses are float32 again
        weight = np.array([size, size])
        assert fl.mse_loss(x, y, sample_weight=weight / 2) == pytest.approx(5, rel=1e-6)
        gradient = fl.mse_loss.grad(x, y, sample_weight=weight / 2)
        np.testing.assert_allclose(gradient, [1, 3], rtol=1e-6)
        logits = np.array([[2, 0], [0, 1]], np.float32)
        weighted = fl.cross_entropy(logits, [0, 0], np.array([size, size]) / 2)
        assert weighted == pytest.approx(fl.cross_entropy(logits, [0, 0]), rel=1e-6)
    assert fl.mse_loss.sums(x, y, sample_weight=[0.1, 0.2])[1] == 0.1 + 0.2
    with pytest.raises(ValueError, match=r"sample_weight\[0\] = -1e-50"):
        fl.mse_loss(x, y, sample_weight=[-1e-50, 1])
    # A product that underflows is no zero.
    nan = np.array([np.nan, 1], np.float32)
    assert np.isnan(fl.mse_loss(nan, y, weight=[1e-200, 1], sample_weight=[1e-200, 1]))


@cases
@floats
def test_grad_output_multiplies(case, dtype):
    draw = DrawnCase(case, (30, 20), dtype)
    for reduction in reductions(case):
        plain = draw.grad(reduction)
        assert_bitwise(draw.grad(reduction, grad_output=1), plain)
        for upstream in (0.25, np.float64(0.25), np.array(0.25, np.float32)):
            expected = tuple(0.25 * g for g in plain)
            assert_bitwise(draw.grad(reduction, grad_output=upstream), tuple(expected), reduction)
    upstream = 2.0 ** draw.rng.integers(-3, 4, draw.shape) * draw.rng.choice([-1, 1], draw.shape)
    plain = draw.grad("none")
    expected = tuple((draw.by_unit(upstream) * g).astype(dtype) for g in plain)
    for other in (np.float64, np.float32, np.float16):
        got = draw.grad("none", grad_output=upstream.astype(other))
        for one, two in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, two)  # -0 and 0 are equal here


def test_an_upstream_gradient_keeps_the_range_of_float64():
    x, y = np.array([1e20, 1], np.float32), np.zeros(2, np.float32)
    gradient = fl.mse_loss.grad(x, y, grad_output=1e-50, reduction="sum")
    np.testing.assert_allclose(gradient, [2e-30, 0], rtol=1e-6, atol=1e-44)
    upstream = np.array([1e39, 1e-39])
    gradient = fl.mse_loss.grad(x / np.float32(1e30), y, grad_output=upstream, reduction="none")
    np.testing.assert_allclose(gradient, [2e29, 0], rtol=1e-6, atol=1e-44)
