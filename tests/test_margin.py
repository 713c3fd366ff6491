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


@floats
@pytest.mark.parametrize("rows", [1, 3])
def test_multilabel_margin_of_long_rows(rows, dtype, isa):
    """Rows of up to a tile are on the stack."""
    tile = TILE[dtype]
    for classes in (tile - 1, tile, tile + 1, 2 * tile - 1, 2 * tile, 2 * tile + 1, 5 * tile):
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
