"""Margin losses of classes: kinks, long rows, invalid labels."""

import numpy as np
import pytest

import fastloss as fl
from tests.drawn_case import TILE, floats

AT_THE_MARGIN = [1, 0, 2]  # class 1 is exactly the margin of 1 below class 0


@floats
def test_multi_margin_at_the_margin(dtype, isa):
    gradient = fl.multi_margin_loss.grad(np.array(AT_THE_MARGIN, dtype), 0)
    assert gradient.tolist() == pytest.approx([-1 / 3, 0, 1 / 3], rel=1e-6)


@floats
def test_multilabel_margin_at_the_margin(dtype, isa):
    labels = np.array([0, -1, -1])
    gradient = fl.multilabel_margin_loss.grad(np.array(AT_THE_MARGIN, dtype), labels)
    assert gradient.tolist() == pytest.approx([-1 / 3, 0, 1 / 3], rel=1e-6)


def test_mean_of_terms_whose_sum_overflows(each_isa):
    """The loss divides the sum over classes, which overflows, by their number."""
    big = 1.7e308
    x, labels = np.array([[0, big, big, big]]), np.array([[0, -1, -1, -1]])
    for _ in each_isa():
        assert fl.multi_margin_loss(x, [0]) == pytest.approx(big / 4 * 3)
        assert fl.multilabel_margin_loss(x, labels) == pytest.approx(big / 4 * 3)
        long = np.repeat(x, 600, axis=1)
        assert fl.multilabel_soft_margin_loss(x, 0 * x) == pytest.approx(big / 4 * 3)
        assert fl.multilabel_soft_margin_loss(long, 0 * long) == pytest.approx(big / 4 * 3)
        value, gradient = fl.multilabel_soft_margin_loss.value_and_grad(x, 0 * x, out=x.copy())
        assert value == pytest.approx(big / 4 * 3)
        assert gradient.max() == 1 / 4


@pytest.mark.parametrize("classes", [4, 300, 3000])
@pytest.mark.parametrize("layout", ["contiguous", "strided", "out"])
def test_gradient_of_squares_that_overflow(classes, layout, each_isa):
    """z^2 and the sum of 2 z overflow; w/C 2 z, w/C times the sum, and w/C z^2 need not."""
    big, weight = 1.7e308, np.full(classes, 1e-310)
    x = np.where(np.arange(classes) % 2, big, -big)[None]
    x = x if layout != "strided" else np.asfortranarray(x.repeat(2, axis=0))[:1]
    expected = np.where(np.arange(classes) % 2, big / classes * 4, 2 / classes)
    expected[0] = -np.inf
    loss = fl.multi_margin_loss
    for _ in each_isa():
        copy = x.copy()
        gradient = loss.grad(copy, [0], p=2, out=copy if layout == "out" else None)
        np.testing.assert_allclose(gradient[0], expected, rtol=1e-15)
        value, gradient = loss.value_and_grad(x, [0], p=2, weight=weight, reduction="none")
        assert value[0] == pytest.approx(big * 1e-310 * big * 2, rel=1e-10)
        assert gradient[0, 0] == pytest.approx(-2e-310 * big, rel=1e-10)
        np.testing.assert_allclose(gradient[0, 1:], expected[1:] * 1e-310, rtol=1e-10, atol=5e-324)


@floats
@pytest.mark.parametrize("rows", [1, 3])
def test_multilabel_margin_of_long_rows(rows, dtype, isa):
    """Rows of up to a tile are on the stack."""
    tile = TILE[dtype]
    for classes in (tile - 1, tile, tile + 1, 2 * tile - 1, 2 * tile, 3 * tile, 5 * tile):
        x = np.random.default_rng(classes).integers(-3, 4, (rows, classes)).astype(dtype)
        labels = np.full((rows, classes), -1)
        labels[:, :2] = classes - 1, 5
        rest = np.delete(x, (5, classes - 1), axis=1)
        z = 1 - x[:, labels[0, :2], None].astype(float) + rest[:, None, :]
        value, gradient = fl.multilabel_margin_loss.value_and_grad(x, labels, reduction="none")
        np.testing.assert_allclose(value, np.maximum(z, 0).sum((1, 2)) / classes, rtol=1e-6)
        assert gradient[:, 5] * classes == pytest.approx(-(z[:, 1] > 0).sum(1), rel=1e-6)
        np.testing.assert_allclose(
            np.delete(gradient, (5, classes - 1), axis=1) * classes, (z > 0).sum(1), rtol=1e-6
        )


@floats
def test_multilabel_margin_reads_nothing_at_an_invalid_label(dtype, isa):
    """No row with an invalid label is computed, which would write far from its memory."""
    for label in (2**62, -(2**62), 10**9, 3):
        labels = np.array([[0, -1, -1], [1, label, -1]])
        for loss in (fl.multilabel_margin_loss, fl.multilabel_margin_loss.sums):
            with pytest.raises(IndexError, match=rf"target\[1, 1\] = {label}"):
                loss(np.ones((2, 3), dtype), labels)
