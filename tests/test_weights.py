"""`weight`, `pos_weight`, `sample_weight`, `ignore_index` and `grad_output` of every loss."""

import itertools
import math

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import DrawnCase, cases, cases_where, floats, reductions

WEIGHTS = {"weight", "pos_weight"}


@cases
@floats
def test_sample_weight_of_one(case, dtype):
    draw = DrawnCase(case, (30, 20), dtype)
    for shape, reduction in itertools.product((draw.shape, draw.shape[:1]), reductions(case)):
        ones = np.ones(shape, dtype)
        assert_bitwise(draw.both(reduction, sample_weight=ones), draw.both(reduction), reduction)
        assert draw.sums(sample_weight=ones) == draw.sums()


@cases
@floats
def test_sample_weight_scales_losses_and_gradients(case, dtype):
    """Bitwise, with weights of any dtype that are powers of two and so cause no rounding."""
    draw = DrawnCase(case, (30, 20), dtype)
    for shape in (draw.shape, draw.shape[:1]):
        weight = 2.0 ** draw.rng.integers(-3, 4, shape).astype(dtype)
        full = np.broadcast_to(
            weight.reshape(*shape, *[1] * (len(draw.shape) - len(shape))), draw.shape
        )
        value, gradients = draw.both("none")
        expected = full * value, tuple(draw.by_unit(full) * g for g in gradients)
        assert_bitwise(draw.both("none", sample_weight=weight), expected)
        assert_bitwise(draw.grad("sum", sample_weight=weight), expected[1])
        for weight_dtype in (np.float64, np.float32, np.float16, int):
            cast = weight.astype(weight_dtype)
            if (cast == weight).all():
                assert_bitwise(draw.both("none", sample_weight=cast), expected)


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


INVALID = (np.nan, np.inf, -5.0, 1e30)  # for at least one operand of every loss


@cases
@floats
def test_zero_sample_weight_removes_nan_and_invalid_entries(case, dtype):
    """The entries and labels of a loss whose weight is 0 are not read, nor are its weights."""
    draw = DrawnCase(case, (2400 if case.unit != "sequence" else 240,), dtype)
    removed = np.arange(*draw.shape) % 5 == 2
    draw.keywords["sample_weight"] = np.where(removed, 0, 1.5).astype(dtype)
    expected = draw.both("none"), draw.both("mean")
    for value in INVALID:
        changed = draw.with_arrays(a.copy() for a in draw.arrays)
        for array, domain in zip(changed.arrays, case.operands, strict=True):
            if array.dtype.kind == "f":
                case.leading(array)[removed] = value
            elif domain.extent != "length":
                array[removed] = 999
        if not case.weighs_classes:
            for name in changed.keywords.keys() & {"weight", "pos_weight"}:
                weight = changed.keywords[name] = changed.keywords[name].copy()
                weight[removed] = value
        assert_removed(changed, removed, expected, value)


@floats
def test_zero_pos_weight_removes_the_elements_whose_target_is_1(dtype):
    x, y = np.array([np.nan, np.nan, 0.5], dtype), np.array([1, 0, 1], dtype)
    value, gradient = fl.binary_cross_entropy_with_logits.value_and_grad(
        x, y, pos_weight=0, reduction="none"
    )
    np.testing.assert_array_equal(value, [0, np.nan, 0])
    np.testing.assert_array_equal(gradient, [0, np.nan, 0])


def by_entry_or_class(case):
    """Whether the weight of one entry, or of one class, removes losses.

    With label smoothing, or probabilities as targets, the other classes of a row have a weight.
    """
    by_class = case.by_class and not case.options.get("label_smoothing")
    return "weight" in case.options and (by_class or not case.weighs_classes)


@cases_where(by_entry_or_class)
@floats
def test_zero_weight_removes_nan_and_invalid_entries(case, dtype):
    """The entries of a loss whose weight is 0 are not read."""
    draw = DrawnCase(case, (2400,), dtype)
    removed = np.arange(*draw.shape) % 5 == 2
    if case.weighs_classes:
        draw.arrays[1][removed] = 3
        weight = draw.keywords["weight"] = np.arange(7.0).astype(dtype)
        weight[3] = 0
    else:
        shape = draw.keywords["weight"].shape
        factor = np.where(removed, 0, 1.5).reshape(-1, *[1] * (len(shape) - 1)).astype(dtype)
        draw.keywords["weight"] = np.broadcast_to(factor, shape)
    expected = draw.both("none"), draw.both("mean")
    for value in INVALID:
        changed = draw.with_arrays(a.copy() for a in draw.arrays)
        for array in changed.arrays:
            if array.dtype.kind == "f":
                array[removed] = value
        assert_removed(changed, removed, expected, value)


def assert_removed(draw, removed, expected, where):
    losses, gradients = draw.both("none")
    assert_bitwise(((losses, gradients), draw.both("mean")), expected, where)
    assert not losses[removed].any()
    assert not any(g.any() for g in draw.gradients_at(gradients, removed))


@cases_where(lambda case: case.ignored is not None)
def test_ignored_rows_are_not_read(case):
    draw = DrawnCase(case, (300,), np.float32)
    ignored = np.arange(300) % 4 == 1
    draw.arrays[1][ignored] = case.ignored
    expected = draw.both("none"), draw.both("mean")
    draw.arrays[0][ignored] = np.nan
    assert_removed(draw, ignored, expected, "ignored")


@cases_where(lambda case: case.ignored is not None)
def test_all_rows_ignored(case):
    draw = DrawnCase(case, (300,), np.float32)
    draw.arrays[1][:] = case.ignored
    value, (gradient,) = draw.both("mean")
    assert math.isnan(value)
    assert not gradient.any()
    assert draw.sums() == (0, 0, 0)


@cases_where(lambda case: not case.weighs_classes and case.options.keys() & WEIGHTS)
@floats
def test_weight_broadcasts_to_the_operands(case, dtype):
    draw = DrawnCase(case, (6,) if case.unit == "row" else (6, 5), dtype, classes=5)
    for name in WEIGHTS & draw.keywords.keys():
        for shape in ((), (5,), (1, 5), (6, 1), (1, 1), (1,)):
            weight = draw.rng.choice([0, 0.5, 2], shape).astype(dtype)
            full = np.ascontiguousarray(np.broadcast_to(weight, draw.arrays[0].shape))
            expected = draw.with_arrays(draw.arrays, **{name: full}).both("none")
            broadcast = draw.with_arrays(draw.arrays, **{name: weight})
            assert_bitwise(broadcast.both("none"), expected, (name, shape))


def test_weights_have_float64_range_and_precision():
    """The weights of float32 operands are not rounded to float32."""
    x, y = np.array([1, 3], np.float32), np.zeros(2, np.float32)
    for size in (1e-300, 1e300):
        assert fl.mse_loss.sums(x, y, sample_weight=[size, size])[1] == 2 * size
    for size in (1e-35, 1e35):  # the weighted losses are in the range of float32
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
    # A product of weights that underflows removes nothing.
    nan = np.array([np.nan, 1], np.float32)
    assert np.isnan(fl.mse_loss(nan, y, weight=[1e-200, 1], sample_weight=[1e-200, 1]))


@cases
@floats
def test_grad_output_scales_gradients(case, dtype):
    draw = DrawnCase(case, (30, 20), dtype)
    for reduction in reductions(case):
        gradients = draw.grad(reduction)
        assert_bitwise(draw.grad(reduction, grad_output=1), gradients)
        expected = tuple(0.25 * g for g in gradients)
        for scalar in (0.25, np.float64(0.25), np.array(0.25, np.float32)):
            assert_bitwise(draw.grad(reduction, grad_output=scalar), expected, reduction)
    powers = 2.0 ** draw.rng.integers(-3, 4, draw.shape)
    grad_output = powers * draw.rng.choice([-1, 1], draw.shape)
    expected = tuple((draw.by_unit(grad_output) * g).astype(dtype) for g in draw.grad("none"))
    for other in (np.float64, np.float32, np.float16):
        scaled = draw.grad("none", grad_output=grad_output.astype(other))
        for gradient, exact in zip(scaled, expected, strict=True):
            np.testing.assert_array_equal(gradient, exact)  # -0 equals 0


def test_grad_output_has_float64_range():
    x, y = np.array([1e20, 1], np.float32), np.zeros(2, np.float32)
    gradient = fl.mse_loss.grad(x, y, grad_output=1e-50, reduction="sum")
    np.testing.assert_allclose(gradient, [2e-30, 0], rtol=1e-6, atol=1e-44)
    upstream = np.array([1e39, 1e-39])
    gradient = fl.mse_loss.grad(x / np.float32(1e30), y, grad_output=upstream, reduction="none")
    np.testing.assert_allclose(gradient, [2e29, 0], rtol=1e-6, atol=1e-44)
