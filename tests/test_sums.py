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
        assert abs(total - math.fsum(losses.flat)) <= 1e-13 * math.fsum(np.abs(losses.flat))


@cases
@floats
def test_sum_of_rounded_losses(case, dtype, isa):
    """The sum is within 1e-13 of the sum of absolute losses, with weights from 2^-40 to 2^40."""
    rng = np.random.default_rng([5, *case.id.encode()])
    size = {"element": 200_000, "row": 20_000, "sequence": 2000}[case.unit]
    loss = getattr(fl, case.loss)
    arrays = case.typical(rng, (size,), dtype)
    keywords = case.keywords(rng, (size,), dtype)
    keywords["sample_weight"] = np.exp2(rng.uniform(-40, 40, size)).astype(dtype)
    losses = loss(*arrays, **keywords, reduction="none").astype(np.float64)
    total, weight, count = loss.sums(*arrays, **keywords, reduction="sum")
    assert abs(total - math.fsum(losses)) <= 1e-13 * math.fsum(np.abs(losses))
    assert count <= size
    assert weight >= 0


def test_sum_of_many_equal_terms():
    """The sum of 2^24 float32 values 0.1; a running float32 sum would stop at 2^21."""
    x = np.broadcast_to(np.float32(0.1), 1 << 24)
    exact = float(np.float32(0.1)) * (1 << 24)
    total = fl.l1_loss(x, 0.0, reduction="sum")
    assert abs(total - exact) <= 1e-13 * exact
