"""Properties that relate several calls, over calls drawn by hypothesis: a few of each loss."""

import math
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastloss as fl
from tests.cases import CASES, LOSSES
from tests.domains import ANY
from tests.random_calls import calls

settings.register_profile(
    "fastloss",
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("fastloss")

CALLS = {name: calls([case for case in CASES if case.loss == name]) for name in LOSSES}
losses = pytest.mark.parametrize("name", LOSSES)

WEIGHTS = ("sample_weight", "weight", "pos_weight")

# Losses of |x - y|: the pinball loss at other quantiles is not symmetric.
SYMMETRIC = [c for c in CASES if c.operands == (ANY, ANY) and "quantile" not in c.options]


def run(call, method="__call__", at=None, **options):
    """Runs a method of a call, on all of its losses or on those at an index of the first axis."""
    arrays, keywords = (call.arrays, call.options) if at is None else call.at(at)
    return getattr(call.loss, method)(*arrays.values(), **keywords | options)


def sums(call, **options):
    """The sums, or None if they are out of the range of float64, which is an OverflowError."""
    try:
        return run(call, "sums", **options)
    except OverflowError:
        size = absolute_sum(run(call, reduction="none", **options))
        assert size < sys.float_info.min or size > sys.float_info.max
        return None


def both(call, at=None, **options):
    """(unreduced losses, tuple of gradients)"""
    options = {"reduction": "none", "wrt": call.wrt} | options
    return run(call, "value_and_grad", at, **options)


def first_axis(call, gradient):
    """A gradient with the axis of the losses first."""
    time_first = call.case.unit == "sequence" and not call.options.get("batch_first")
    return gradient.swapaxes(0, 1) if time_first else gradient


def absolute_sum(values):
    """The sum of the magnitudes, inf if one of them is not finite."""
    try:
        values = np.abs(values.astype(np.float64)).flat
        return math.fsum(values) if np.isfinite(values).all() else math.inf
    except OverflowError:
        return math.inf


def assert_equal(actual, expected):
    """Equal, NaN being equal to itself."""
    np.testing.assert_array_equal(actual, expected)


@losses
@given(st.data())
def test_methods_agree(name, data):
    call = data.draw(CALLS[name])
    value = run(call, reduction="none")
    assert value.dtype == call.dtype
    losses, gradients = both(call)
    assert_equal(losses, value)
    summed = run(call, "grad", reduction="sum", wrt=call.wrt)
    for gradient, expected in zip(gradients, summed, strict=True):
        assert_equal(gradient, expected)
    result = sums(call)
    if result is None:
        return
    total, weight, count = result
    assert_equal(run(call), total / weight if weight else math.nan)
    if call.case.unit == "sequence":  # the mean divides each loss by the number of its labels
        total = run(call, reduction="sum")
    assert_equal(run(call, reduction="sum"), total)
    assert 0 <= count <= value.size
    size = absolute_sum(value)
    if np.isfinite(size):
        # Unreduced losses are rounded after their weights were applied, terms of sums are not.
        is_weighted = not call.options.keys().isdisjoint(WEIGHTS)
        rounding = float(np.finfo(call.dtype).eps) / 2 if is_weighted else 0
        assert abs(total - math.fsum(value.flat)) <= (1e-13 + rounding) * size


@losses
@given(st.data(), st.randoms(use_true_random=False))
def test_losses_do_not_depend_on_their_position(name, data, random):
    call = data.draw(CALLS[name])
    order = list(range(call.shape[0]))
    random.shuffle(order)
    order = np.array(order, dtype=int)
    value, gradients = both(call)
    permuted, permuted_gradients = both(call, at=order)
    assert_equal(permuted, value[order])
    for actual, expected in zip(permuted_gradients, gradients, strict=True):
        assert_equal(first_axis(call, actual), first_axis(call, expected)[order])


@losses
@given(st.data(), st.floats(0, 1))
def test_sums_of_parts_sum_to_the_whole(name, data, fraction):
    call = data.draw(CALLS[name])
    cut = int(fraction * call.shape[0])
    parts = [sums(call, at=part) for part in (slice(0, cut), slice(cut, None))]
    whole = sums(call)
    if whole is None or None in parts:
        return
    for k in range(3):
        size = absolute_sum(run(call, reduction="none")) if k == 0 else whole[k]
        if np.isfinite(size):
            assert abs(parts[0][k] + parts[1][k] - whole[k]) <= 1e-12 * size


@losses
@given(st.data(), st.integers(0, 3))
def test_integer_sample_weights_repeat_losses(name, data, most):
    call = data.draw(CALLS[name])
    call.options.pop("sample_weight", None)
    weights = np.arange(call.shape[0]) % (most + 1)
    repeated = np.repeat(np.arange(call.shape[0]), weights)
    size = absolute_sum(run(call, at=repeated, reduction="none"))
    info = np.finfo(call.dtype)
    weighted = sums(call, sample_weight=weights.astype(call.dtype))
    expected = sums(call, at=repeated)
    if weighted is None or expected is None:
        return
    slack = 2 * float(info.eps)  # a weight of 3 rounds each loss once more
    if np.isfinite(size) and np.isfinite(weighted[0]):
        floor = 3 * math.prod(call.shape) * float(info.smallest_subnormal)
        assert abs(weighted[0] - expected[0]) <= slack * size + floor
    assert abs(weighted[1] - expected[1]) <= slack * expected[1]


@settings(max_examples=60)
@given(calls(SYMMETRIC))
def test_losses_of_differences_are_symmetric(call):
    call.options |= {"quantile": 0.5} if call.name == "pinball_loss" else {}
    value, (dx, dy) = both(call)
    arrays = list(call.arrays.values())[::-1]
    swapped, (ex, ey) = call.loss.value_and_grad(
        *arrays, **call.options | {"reduction": "none", "wrt": ("input", "target")}
    )
    assert_equal(value, swapped)
    assert_equal(dx, ey)
    assert_equal(dy, ex)
    assert_equal(dx, -dy)
    assert not (value < 0).any()


@losses
@given(st.data())
def test_threads_and_repetition_change_nothing(name, data):
    call = data.draw(CALLS[name])
    value, gradients = both(call)
    with fl.num_threads(3):
        repeated, repeated_gradients = both(call)
    assert_equal(value, repeated)
    for actual, expected in zip(repeated_gradients, gradients, strict=True):
        assert_equal(actual, expected)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_cross_entropy_is_invariant_to_exact_shifts(rows, classes, seed, shift):
    """Integers of this size are shifted without rounding."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-1000, 1000, (rows, classes)).astype(np.float64)
    y = rng.integers(0, classes, rows)
    for smoothing in (0.0, 0.25):
        options = {"label_smoothing": smoothing, "reduction": "none"}
        value, gradient = fl.cross_entropy.value_and_grad(x, y, **options)
        shifted = fl.cross_entropy.value_and_grad(x + round(shift), y, **options)
        assert_equal(shifted[0], value)
        assert_equal(shifted[1], gradient)
        assert (value >= 0).all()
        slack = 1e-13 * (1 + np.abs(gradient).sum(axis=1))
        assert (np.abs(gradient.sum(axis=1)) <= slack).all()
