"""Sums, means and divisors of every loss."""

import math

import numpy as np
import pytest

import fastloss as fl
from tests import references
from tests.drawn_case import DrawnCase, cases, floats


@cases
@floats
def test_mean_is_sum_over_divisor(case, dtype):
    draw = DrawnCase(case, (9, 4), dtype)
    sample_weight = draw.rng.choice([0, 0.5, 1.7], draw.shape).astype(dtype)
    for options in ({}, {"sample_weight": sample_weight}):
        total, weight, count = draw.sums(**options)
        expected = references.sums(case.loss, draw.arrays, draw.keywords | options)
        assert weight == pytest.approx(float(expected[1]), rel=1e-14)
        assert (type(total), type(weight), count) == (float, float, expected[2])
        assert draw.value("mean", **options) == total / weight
        losses = draw.value("none", **options)
        assert losses.dtype == dtype
        assert losses.shape == draw.shape
        if case.unit == "sequence":  # the mean divides each loss by its number of labels
            total = draw.value("sum", **options)
        assert draw.value("sum", **options) == total
        terms = draw.weighted_losses(options.get("sample_weight", 1.0))
        np.testing.assert_allclose(losses, terms, rtol=3 * np.finfo(dtype).eps)
        assert abs(total - math.fsum(terms.flat)) <= 1e-13 * math.fsum(np.abs(terms.flat))


@cases
@floats
def test_sum_of_rounded_losses(case, dtype, isa):
    """The sum is within 1e-13 of the sum of absolute losses, with weights from 2^-40 to 2^40."""
    rng = np.random.default_rng([5, *case.id.encode()])
    size = {"element": 200_000, "row": 20_000, "sequence": 2000}[case.unit]
    draw = DrawnCase(case, (size,), dtype)
    weights = np.exp2(rng.uniform(-40, 40, size)).astype(dtype)
    terms = draw.weighted_losses(weights.astype(np.float64))
    total, weight, count = draw.sums(sample_weight=weights, reduction="sum")
    assert abs(total - math.fsum(terms)) <= 1e-13 * math.fsum(np.abs(terms))
    assert count <= size
    assert weight >= 0


def test_sum_of_many_equal_terms():
    """The sum of 2^24 float32 values 0.1; a running float32 sum would stop at 2^21."""
    x = np.broadcast_to(np.float32(0.1), 1 << 24)
    exact = float(np.float32(0.1)) * (1 << 24)
    total = fl.l1_loss(x, 0.0, reduction="sum")
    assert abs(total - exact) <= 1e-13 * exact
