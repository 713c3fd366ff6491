"""Sums, means and divisors of every loss."""

import math

import numpy as np
import pytest

import fastloss as fl
from tests import references
from tests.drawn_case import DrawnCase, cases, floats


@cases
@floats
def test_means_are_sums_divided(case, dtype):
    draw = DrawnCase(case, (9, 4), dtype)
    samples = draw.rng.choice([0, 0.5, 1.7], draw.shape).astype(dtype)
    for more in ({}, {"sample_weight": samples}):
        added, weight, count = draw.sums(**more)
        expected = references.sums(case.loss, draw.arrays, draw.keywords | more)
        assert weight == pytest.approx(float(expected[1]), rel=1e-14)
        assert (type(added), type(weight), count) == (float, float, expected[2])
        assert draw.value("mean", **more) == added / weight
        entries = draw.value("none", **more)
        assert entries.dtype == dtype
        assert entries.shape == draw.shape
        if case.kind == "sequences":  # whose mean divides each by the number of its labels
            added = draw.value("sum", **more)
        assert draw.value("sum", **more) == added
        assert abs(added - math.fsum(entries.flat)) <= 1e-13 * math.fsum(np.abs(entries.flat))


@cases
@floats
def test_sums_are_those_of_the_rounded_losses(case, dtype, isa):
    """Within 1e-13 of the absolute sum, however long and uneven."""
    rng = np.random.default_rng([5, *case.id.encode()])
    size = {"elements": 200_000, "rows": 20_000, "sequences": 2000}[case.kind]
    loss = getattr(fl, case.loss)
    arrays = case.arrays(rng, (size,), dtype)
    keywords = case.keywords(rng, (size,), dtype)
    keywords["sample_weight"] = np.exp2(rng.uniform(-40, 40, size)).astype(dtype)
    entries = loss(*arrays, **keywords, reduction="none").astype(np.float64)
    added, weight, count = loss.sums(*arrays, **keywords, reduction="sum")
    assert abs(added - math.fsum(entries)) <= 1e-13 * math.fsum(np.abs(entries))
    assert count <= size
    assert weight >= 0


def test_sums_of_many_equal_terms():
    """0.1 in float32, 2^24 times: a float32 sum stops at 2^21."""
    x = np.broadcast_to(np.float32(0.1), 1 << 24)
    exact = float(np.float32(0.1)) * (1 << 24)
    added = fl.l1_loss(x, 0.0, reduction="sum")
    assert abs(added - exact) <= 1e-13 * exact
