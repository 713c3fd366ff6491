"""What the tests share: the instruction sets, and calls made of the cases."""

import signal

import numpy as np
import pytest

import fastloss as fl

# A shell's background job ignores Ctrl-C, and so would the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=fl._binding.isas())
def isa(request):
    """Runs the test on each instruction set."""
    before = fl._binding.isa()
    fl._binding.select_isa(request.param)
    yield request.param
    fl._binding.select_isa(before)


@pytest.fixture
def each_isa():
    """Goes through the instruction sets within a test, so that they share a reference."""
    before = fl._binding.isa()

    def each():
        for name in fl._binding.isas():
            fl._binding.select_isa(name)
            yield name

    yield each
    fl._binding.select_isa(before)


@pytest.fixture
def bits():
    """Asserts that results are equal bit by bit; one NaN is like another."""
    return _assert_same_bits


def _assert_same_bits(got, expected, where=""):
    if isinstance(expected, tuple):
        assert isinstance(got, tuple)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            _assert_same_bits(one, other, where)
        return
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, where
    assert got.shape == expected.shape, where
    kind = f"u{expected.itemsize}"
    same = np.ascontiguousarray(got).view(kind) == np.ascontiguousarray(expected).view(kind)
    nan = np.isnan(got.astype(float)) & np.isnan(expected.astype(float))
    different = ~(same.reshape(nan.shape) | nan)
    if different.any():
        at = tuple(int(i) for i in np.argwhere(different)[0])
        raise AssertionError(
            f"{different.sum()} of {different.size} differ, first at {at}: "
            f"got {got[at]!r}, expected {expected[at]!r} {where}"
        )
