"""Laws that relate several calls, over shapes, layouts and values that hypothesis chooses."""

import math
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastloss as fl
from tests.cases import CASES, FLOATS, REAL, Case

settings.register_profile(
    "fastloss",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("fastloss")


class Call(NamedTuple):
    case: Case
    loss: fl._binding.Loss
    arrays: list
    keywords: dict
    dtype: type

    def __repr__(self):
        layouts = [(a.shape, a.strides, a.dtype.str) for a in self.arrays]
        return f"<{self.case.id} of {layouts}>"


@st.composite
def calls(draw, elementwise=False):
    """A call with arrays of any shape, layout and values."""
    case = draw(st.sampled_from([c for c in CASES if not elementwise or c.kind == "elements"]))
    dtype = draw(st.sampled_from(FLOATS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        most = st.sampled_from([511, 512, 513, 1023, 1025, 8193])
        size = draw(st.integers(1, 60) | most if case.kind != "sequences" else st.integers(1, 60))
        hard = draw(st.booleans())
        arrays = case.hard(rng, size, dtype) if hard else case.arrays(rng, (size,), dtype)
        keywords = case.keywords(rng, (size,), dtype, hard=hard and not case.weighs_classes)
    else:
        shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
        arrays = case.arrays(rng, shape, dtype)
        keywords = case.keywords(rng, shape, dtype)
    layouts = st.sampled_from([np.asarray, _strided, _fortran, _reversed, _swapped])
    arrays = [draw(layouts)(a) for a in arrays]
    return Call(case, getattr(fl, case.loss), arrays, keywords, dtype)


def _strided(a):
    return np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a


def _fortran(a):
    return np.asfortranarray(a)


def _reversed(a):
    return np.ascontiguousarray(a[::-1])[::-1] if a.ndim else a


def _swapped(a):
    return a.astype(a.dtype.newbyteorder())


def _row(keywords, case, index):
    if case.weighs_classes:
        return keywords
    return {k: v[index] if isinstance(v, np.ndarray) else v for k, v in keywords.items()}


def _size(values):
    """The sum of magnitudes; inf if it is none."""
    try:
        return math.fsum(np.abs(values).flat) if np.isfinite(values).all() else math.inf
    except OverflowError:
        return math.inf


def _same(left, right):
    """Equal, NaN as itself."""
    np.testing.assert_array_equal(left, right)


@given(calls())
def test_the_methods_agree(call):
    case, loss, arrays, keywords, dtype = call
    wrt = case.differentiable(loss)
    value = loss(*arrays, **keywords, reduction="none")
    assert value.dtype == dtype
    both = loss.value_and_grad(*arrays, **keywords, reduction="none", wrt=wrt)
    _same(both[0], value)
    for one, other in zip(
        both[1], loss.grad(*arrays, **keywords, reduction="sum", wrt=wrt), strict=True
    ):
        _same(one, other)
    added, weight, count = loss.sums(*arrays, **keywords)
    _same(loss(*arrays, **keywords), added / weight if weight else math.nan)
    if case.kind == "sequences":  # whose mean divides each by the number of its labels
        added = loss(*arrays, **keywords, reduction="sum")
    _same(loss(*arrays, **keywords, reduction="sum"), added)
    assert 0 <= count <= value.size
    if np.isfinite(_size(value)):
        assert abs(added - math.fsum(value.flat)) <= 1e-13 * _size(value)


@given(calls(), st.randoms(use_true_random=False))
def test_rows_may_change_places(call, random):
    case, loss, arrays, keywords, _ = call
    wrt = case.differentiable(loss)
    order = list(range(len(arrays[-1])))
    random.shuffle(order)
    order = np.array(order, dtype=int)
    value, gradients = loss.value_and_grad(*arrays, **keywords, reduction="none", wrt=wrt)
    moved, slopes = loss.value_and_grad(
        *case.at(arrays, order), **_row(keywords, case, order), reduction="none", wrt=wrt
    )
    _same(moved, value[order])
    for slope, gradient in zip(slopes, case.at(gradients, order), strict=True):
        _same(slope, gradient)


@given(calls(), st.floats(0, 1))
def test_sums_add_up_over_batches(call, share):
    case, loss, arrays, keywords, _ = call
    cut = int(share * len(arrays[-1]))
    parts = [
        loss.sums(*case.at(arrays, part), **_row(keywords, case, part))
        for part in (slice(0, cut), slice(cut, None))
    ]
    whole = loss.sums(*arrays, **keywords)
    value = loss(*arrays, **keywords, reduction="none")
    for k in range(3):
        together = parts[0][k] + parts[1][k]
        size = _size(value) if k == 0 else whole[k]
        if not np.isfinite(size):
            continue
        assert abs(together - whole[k]) <= 1e-12 * size


@given(calls(), st.integers(0, 3))
def test_a_repeated_row_weighs_twice(call, times):
    case, loss, arrays, keywords, dtype = call
    n = len(arrays[-1])
    weights = np.arange(n) % (times + 1)
    index = np.repeat(np.arange(n), weights)
    keywords = {k: v for k, v in keywords.items()}
    weighted = loss.sums(*arrays, **keywords, sample_weight=weights.astype(dtype))
    twice = case.at(arrays, index)
    repeated = loss.sums(*twice, **_row(keywords, case, index))
    value = loss(*twice, **_row(keywords, case, index), reduction="none")
    info = np.finfo(dtype)
    slack = 2 * float(info.eps)  # a weight of 3 rounds each loss once more
    if np.isfinite(_size(value)) and np.isfinite(weighted[0]):
        floor = 3 * n * float(info.smallest_subnormal)
        assert abs(weighted[0] - repeated[0]) <= slack * _size(value) + floor
    assert abs(weighted[1] - repeated[1]) <= slack * repeated[1]


@given(calls(elementwise=True))
def test_differences_are_symmetric(call):
    """Losses of |x - y| do not know which is which."""
    case, loss, arrays, keywords, _ = call
    if case.operands != (REAL, REAL) or "quantile" in case.options:
        return
    value, (dx, dy) = loss.value_and_grad(
        *arrays, **keywords, reduction="none", wrt=("input", "target")
    )
    turned, (ex, ey) = loss.value_and_grad(
        *arrays[::-1], **keywords, reduction="none", wrt=("input", "target")
    )
    _same(value, turned)
    _same(dx, ey)
    _same(dy, ex)
    _same(dx, -dy)
    assert not (value < 0).any()


@given(calls())
def test_threads_and_rereading_change_nothing(call):
    _, loss, arrays, keywords, _ = call
    first = loss.value_and_grad(*arrays, **keywords, reduction="none")
    with fl.num_threads(3):
        again = loss.value_and_grad(*arrays, **keywords, reduction="none")
    _same(first[0], again[0])
    if isinstance(first[1], tuple):
        for one, other in zip(first[1], again[1], strict=True):
            _same(one, other)
    else:
        _same(first[1], again[1])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_cross_entropy_is_blind_to_a_shift_that_rounds_nothing(rows, classes, seed, shift):
    rng = np.random.default_rng(seed)
    x = rng.integers(-1000, 1000, (rows, classes)).astype(np.float64)
    y = rng.integers(0, classes, rows)
    shift = round(shift)
    for smoothing in (0.0, 0.25):
        options = {"label_smoothing": smoothing, "reduction": "none"}
        one = fl.cross_entropy.value_and_grad(x, y, **options)
        other = fl.cross_entropy.value_and_grad(x + shift, y, **options)
        _same(one[0], other[0])
        _same(one[1], other[1])
        assert (one[0] >= 0).all()
        slack = 1e-13 * (1 + np.abs(one[1]).sum(axis=1))
        assert (np.abs(one[1].sum(axis=1)) <= slack).all()
