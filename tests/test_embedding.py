"""Embedding losses: cosine_embedding_loss and triplet_margin_loss at their kinks."""

import numpy as np
import pytest

import fastloss as fl
from tests.drawn_case import floats


def gradients(loss, dtype, *arrays, **options):
    arrays = [np.array(a, dtype) for a in arrays]
    results = loss.grad(*arrays, reduction="sum", wrt=loss.default_wrt, **options)
    return [gradient.tolist() for gradient in results]


@floats
def test_cosine_embedding_at_the_margin(dtype, isa):
    """If the cosine equals the margin, the hinge has the gradient of its positive side."""
    dx1, dx2 = gradients(fl.cosine_embedding_loss, dtype, [1, 0], [0, 1], -1)
    assert (dx1, dx2) == (pytest.approx([0, 1]), pytest.approx([1, 0]))


@floats
def test_cosine_embedding_of_zero_vectors(dtype, isa):
    assert gradients(fl.cosine_embedding_loss, dtype, [0, 0], [0, 0], 1) == [[0, 0], [0, 0]]


@floats
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_triplet_margin_at_kinks(p, dtype, isa):
    """At the margin, and where `swap` has two equal distances, which share the gradient."""
    options = {"eps": 0.0, "margin": 2.0, "p": p}
    triplet = fl.triplet_margin_loss
    assert gradients(triplet, dtype, [0], [1], [3], **options) == [[0], [1], [-1]]
    tie = gradients(triplet, dtype, [0], [0], [2], swap=True, **options)
    assert tie == [[0.5], [0.5], [-1]]


@floats
def test_triplet_margin_with_two_largest_differences(dtype, isa):
    """For p = inf, entries of the same largest difference share its gradient."""
    options = {"eps": 0.0, "margin": 2.0, "p": np.inf}
    dx = gradients(fl.triplet_margin_loss, dtype, [3, -3, 0], [0, 0, 0], [4, 0, 0], **options)
    assert dx == [[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, -1, 0]]


@pytest.mark.parametrize("p", [1e-6, 1e-3, 0.02, 1, 2, 3, np.inf])
@pytest.mark.parametrize("swap", [False, True])
@floats
def test_distances_that_overflow(p, swap, dtype, each_isa):
    """The difference of two distances decides the loss, also where both are infinite.

    Rows of 8 equal entries: the distances are proportional to the entries.
    """
    big = float(np.finfo(dtype).max) / 2 if p >= 1 else 1.0
    a, near, far = (np.full((1, 8), v * big, dtype) for v in (0, 1, 1.5))
    options = {"p": p, "eps": 0, "swap": swap, "reduction": "none"}
    for _ in each_isa():
        value, gradients = fl.triplet_margin_loss.value_and_grad(a, near, far, **options)
        if not swap:
            assert value[0] == 0
            assert not np.any(gradients)
        value, gradients = fl.triplet_margin_loss.value_and_grad(a, far, near, **options)
        assert value[0] > 0
        assert not np.isnan(gradients).any()
        value = fl.triplet_margin_loss(a, near, near, **options)
        assert value[0] == 1 or swap


@floats
def test_difference_of_infinite_distances(dtype, each_isa):
    """Distances of 2^1025 and 2^1025 - 2^1022 (float64) differ by a number."""
    unit = 2.0 ** (np.finfo(dtype).maxexp - 1)
    a, near, far = (np.full((1, 16), v * unit, dtype) for v in (0, 1, 1 - 1 / 64))
    for p, factor in ((1, 16), (2, 4)):
        for _ in each_isa():
            value = fl.triplet_margin_loss(a, near, far, p=p, eps=0, reduction="none")
            assert value[0] == pytest.approx(unit / 64 * factor, rel=1e-6)


@pytest.mark.parametrize("p", [5e-324, 1e-300, 1e-14, 1e-6, 1e-3])
@floats
def test_power_near_zero(p, dtype, each_isa):
    """Every norm of a single entry is its absolute value."""
    a, near, far = (np.full((1, 1), v, dtype) for v in (0, 0.5, 0.125))
    for _ in each_isa():
        value, gradients = fl.triplet_margin_loss.value_and_grad(a, near, far, p=p, eps=0)
        assert value == 1.375
        slopes = [float(g[0, 0]) for g in gradients]
        assert slopes == pytest.approx([0, 1, -1], rel=0, abs=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("p", [1e-3, 0.3, 1, 2, 3, np.inf])
@floats
def test_infinite_entries(p, dtype, each_isa):
    a, near, infinite = (np.array([[v, 0]], dtype) for v in (0, 1, np.inf))
    for _ in each_isa():
        assert fl.triplet_margin_loss(a, infinite, near, p=p, eps=0) == np.inf
        value, gradients = fl.triplet_margin_loss.value_and_grad(a, near, infinite, p=p, eps=0)
        assert value == 0
        assert not np.any(gradients)
        assert np.isnan(fl.triplet_margin_loss(infinite, a, near, p=p, eps=0))


@pytest.mark.parametrize("p", [0.5, 0.51])
def test_triplet_derivatives_that_overflow_cancel(p, isa):
    """(length / |e|)^(1 - p) is infinite in float64, and the difference of two of them is 0."""
    anchor, other = np.zeros((2, 1, 3))
    anchor[0, 0], other[0, 1] = 5e-324, 1.7e308
    value, gradient = fl.triplet_margin_loss.value_and_grad(
        anchor, other, other, p=p, eps=0, wrt="anchor"
    )
    assert value == 1
    np.testing.assert_array_equal(gradient, np.zeros((1, 3)))
