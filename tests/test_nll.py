"""nll_loss reads and differentiates only the entry of the label in each row."""

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import REDUCTIONS, floats


def labelled_rows(dtype, shape, classes, seed=0):
    """Log-probabilities of `shape` with the classes in axis 1, and a label for each row."""
    rng = np.random.default_rng(seed)
    x = -rng.uniform(0.1, 5, (shape[0], classes, *shape[1:])).astype(dtype)
    return x, rng.integers(0, classes, shape)


def at_labels(x, y):
    return np.take_along_axis(x, np.expand_dims(y, 1), axis=1).squeeze(1)


@floats
@pytest.mark.parametrize("shape", [(50,), (6, 7), (3, 4, 5)])
def test_loss_is_minus_the_entry_of_the_label(shape, dtype, isa):
    x, y = labelled_rows(dtype, shape, 11)
    assert_bitwise(fl.nll_loss(x, y, reduction="none"), -at_labels(x, y))
    gradient = fl.nll_loss.grad(x, y, reduction="sum")
    assert_bitwise(at_labels(gradient, y), np.full(shape, -1, dtype))
    assert np.count_nonzero(gradient) == y.size


@floats
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_other_classes_are_not_read(reduction, dtype, isa):
    x, y = labelled_rows(dtype, (6, 7), 11)
    other_classes = np.full_like(x, np.nan)
    np.put_along_axis(other_classes, y[:, None], at_labels(x, y)[:, None], axis=1)
    expected = fl.nll_loss.value_and_grad(x, y, reduction=reduction)
    assert_bitwise(fl.nll_loss.value_and_grad(other_classes, y, reduction=reduction), expected)


@floats
@pytest.mark.parametrize("step", [1, 2, -1])
def test_gradients_in_part_of_an_array(step, dtype, isa):
    """Nothing is written after the last row, nor between the rows."""
    x, y = labelled_rows(dtype, (50,), 11)
    expected = fl.nll_loss.grad(x, y)
    for more in (0, 1):
        buffer = np.full((3000, abs(step) * 11 + more), 7, dtype)
        out = buffer[:50, ::step][:, :11]
        fl.nll_loss.grad(x, y, out=out)
        assert_bitwise(out, expected)
        out[...] = 7
        assert (buffer == 7).all()


@floats
def test_cross_entropy_of_log_probabilities(dtype):
    """The two losses agree up to the rounding of the log-probabilities."""
    x, y = labelled_rows(dtype, (200,), 11)
    log_probabilities = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    value = fl.nll_loss(log_probabilities, y)
    assert value == pytest.approx(fl.cross_entropy(x, y), rel=8 * float(np.finfo(dtype).eps))
