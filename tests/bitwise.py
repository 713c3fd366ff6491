"""The comparison of results bit by bit."""

import numpy as np


def assert_bitwise(got, expected, where=""):
    """Asserts that results are bitwise identical; tuples are compared entry by entry.

    A NaN matches any NaN.
    """
    if isinstance(expected, tuple):
        assert isinstance(got, tuple)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_bitwise(one, other, where)
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
