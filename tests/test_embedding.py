"""Losses of vectors and margins: derivatives at kinks."""

import numpy as np
import pytest

import fastloss as fl
from tests.drawn_case import floats


@floats
def test_kinks_of_rows(dtype, isa):
    """The gradient exactly at a kink, in numbers that round nothing."""

    def gradients(loss, *arrays, **options):
        arrays = [np.array(a, dtype if np.ndim(a) or type(a) is float else None) for a in arrays]
        return [
            g.tolist() for g in loss.grad(*arrays, reduction="sum", wrt=loss.default_wrt, **options)
        ]

    unit, across, zero = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
    one, two = gradients(fl.cosine_embedding_loss, unit, across, -1.0)
    assert (one, two) == (pytest.approx([0, 1]), pytest.approx([1, 0]))
    assert gradients(fl.cosine_embedding_loss, zero, zero, 1.0) == [zero, zero]
    plain = {"eps": 0.0, "margin": 2.0}
    triplet = fl.triplet_margin_loss
    for p in (1.0, 2.0, 3.0, np.inf):
        at_margin = gradients(triplet, [0.0], [1.0], [3.0], p=p, **plain)
        assert at_margin == [[0], [1], [-1]], p
        tie = gradients(triplet, [0.0], [0.0], [2.0], p=p, swap=True, **plain)
        assert tie == [[0.5], [0.5], [-1]], p
    shared = gradients(triplet, [3.0, -3.0, 0.0], [0.0] * 3, [4.0, 0.0, 0.0], p=np.inf, **plain)
    assert shared == [[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, -1, 0]]
    assert fl.multi_margin_loss.grad(np.array([1, 0, 2], dtype), 0).tolist() == pytest.approx(
        [-1 / 3, 0, 1 / 3], rel=1e-6
    )
    labels = np.array([0, -1, -1])
    assert fl.multilabel_margin_loss.grad(np.array([1, 0, 2], dtype), labels).tolist() == (
        pytest.approx([-1 / 3, 0, 1 / 3], rel=1e-6)
    )
