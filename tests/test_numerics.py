"""The numerical contract: every value and gradient within ULPs of the exact one."""

import math

import numpy as np
import pytest
from mpmath import mp, mpf

import fastloss as fl
from tests import references
from tests.cases import CASES, CLASSES, FLOATS

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
floats = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)


@pytest.fixture
def check(each_isa):
    """Asserts that unreduced values and gradients keep the bound on each instruction set.

    Where a term of the formula, before weights, is beyond the largest number though the operands
    are finite, the result must be right or visibly not: infinite or NaN.
    """

    def assert_kept(case, arrays, keywords, dtype):
        loss = getattr(fl, case.loss)
        keywords = keywords | {"reduction": "none"}
        wrt = case.differentiable(loss)
        exact = _numbers(case, arrays, keywords)
        unweighted = keywords if case.weighs_classes else {**keywords, "weight": None}
        terms = {k: n.term for k, n in _numbers(case, arrays, unweighted).items()}
        seen = {name: [] for name in exact}
        weights = {k: v for k, v in keywords.items() if np.ndim(v)}

        def given(unit):
            entries = case.at(arrays, unit)
            if case.weighs_classes:
                return entries, weights
            return entries, {k: v[unit] for k, v in weights.items()}

        for isa in each_isa():
            value, gradients = loss.value_and_grad(*arrays, **keywords, wrt=wrt)
            results = {"value": value, **dict(zip(wrt, gradients, strict=True))}
            for name, got in results.items():
                if got.tobytes() in seen[name]:
                    continue
                seen[name].append(got.tobytes())
                size = terms[name]
                if case.kind == "rows":  # whose sum may be beyond where its mean is not
                    size = np.maximum(size, exact[name].term) * CLASSES
                parts = got, exact[name].value, size
                excess = references.excess(got, exact[name], dtype)
                _assert_kept(*map(case.leading, (excess, *parts)), dtype, (isa, name), given)

    return assert_kept


def _numbers(case, arrays, keywords):
    value, gradients = references.reduced(case.loss, arrays, keywords)
    return {"value": value, **gradients}


def _assert_kept(excess, got, exact, terms, dtype, where, given):
    end = mpf(2) ** int(np.finfo(dtype).maxexp)
    for index in map(tuple, np.argwhere(excess > 1)):
        overflows = mp.isfinite(terms[index]) and terms[index] >= end
        if overflows and not np.isfinite(got[index]):
            continue
        raise AssertionError(
            f"{where}: {got[index]!r} instead of {float(exact[index])!r}, off by "
            f"{excess[index]:.3g} times the bound, at {index} for {given(index[0])}"
        )


@cases
@floats
def test_hard_operands(case, dtype, check):
    rng = np.random.default_rng([3, *case.id.encode()])
    size = 400 if case.kind == "elements" else 150
    arrays = case.hard(rng, size, dtype)
    check(case, arrays, case.keywords(rng, (size,), dtype, hard=True), dtype)


MOST_CORNERS = 200  # of a case: references take their time


@cases
@floats
def test_corners(case, dtype, check):
    """Zeros, subnormal and huge numbers, infinities and NaN, in combinations of them."""
    rng = np.random.default_rng([4, *case.id.encode()])
    arrays = case.corners(dtype)
    size = len(case.leading(arrays[0]))
    if size > MOST_CORNERS:
        arrays = case.at(arrays, np.sort(rng.choice(size, MOST_CORNERS, replace=False)))
        size = MOST_CORNERS
    keywords = case.keywords(rng, (size,), dtype, hard=not case.weighs_classes)
    check(case, arrays, keywords, dtype)


@floats
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_confident_predictions(classes, dtype, check):
    """Losses down to the smallest number keep their digits, and so do their gradients."""
    depth = -np.log(float(np.finfo(dtype).tiny))
    rows = 40 if classes <= 10 else 6
    lead = np.linspace(0, depth, rows).astype(dtype)
    x = np.zeros((rows, classes), dtype)
    x[:, 1] = lead
    y = np.ones(rows, np.int64)
    by_class = next(case for case in CASES if case.loss == "cross_entropy")
    check(by_class, [x, y], {}, dtype)
    smallest = fl.cross_entropy(x[-1:], y[-1:])
    assert smallest == pytest.approx((classes - 1) * math.exp(-lead[-1]), rel=1e-4)
    assert smallest > 0

    by_logit = next(c for c in CASES if c.loss == "binary_cross_entropy_with_logits")
    for sign in (1, -1):
        arrays = [sign * lead, np.full(rows, sign == 1, dtype)]
        check(by_logit, arrays, {}, dtype)
        by_margin = next(c for c in CASES if c.loss == "soft_margin_loss")
        check(by_margin, [sign * lead, np.full(rows, sign, dtype)], {}, dtype)


def test_a_float32_loss_of_1e_30():
    """By hand: log(1 + exp(-69)) is exp(-69) to all digits of float32."""
    exact = math.exp(-69.0)
    x = np.array([[69, 0]], np.float32)
    assert fl.cross_entropy(x, np.array([0])) == pytest.approx(exact, rel=1e-6)
    gradient = fl.cross_entropy.grad(x, np.array([0]))
    np.testing.assert_allclose(gradient, [[-exact, exact]], rtol=1e-6)
    logit = np.array([69], np.float32)
    assert fl.binary_cross_entropy_with_logits(logit, 1.0) == pytest.approx(exact, rel=1e-6)
    assert fl.binary_cross_entropy_with_logits.grad(logit, 1.0) == pytest.approx(-exact, rel=1e-6)


def test_smoothing_of_far_logits(isa):
    """Their distance is beyond float32, the loss is not: 0.01 of five distances of 6e38."""
    x = np.array([[3e38, -3e38] * 5], np.float32)
    exact = 0.01 * 5 * 2 * float(x[0, 0])
    assert fl.cross_entropy(x, [0], label_smoothing=0.1) == pytest.approx(exact, rel=1e-6)


def test_probabilities_of_no_classes(isa):
    assert fl.cross_entropy(np.zeros((3, 0)), np.zeros((3, 0))) == 0


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


def test_ulp_command(capsys):
    """`python -m tests.ulp` prints a row for each loss."""
    from tests import ulp

    ulp.main(["--size", "20", "--no-torch", "--loss", "mse_loss", "--loss", "cross_entropy"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mse_loss") for line in lines)
    assert sum(line.startswith("cross_entropy") for line in lines) >= 2


@floats
@pytest.mark.parametrize("classes", [512, 50_257, 1 << 20])
def test_long_rows(classes, dtype):
    """Equal logits but one: sum and gradient are known, whatever rounding exp has."""
    lead = dtype(0.75)
    x = np.zeros((1, classes), dtype)
    x[0, 5] = lead
    value, gradient = fl.cross_entropy.value_and_grad(x, np.array([0]))
    ratio = mp.mpf(float(fl._binding.math("exp", np.array([-lead]))[0]))  # each of the others
    others = 1 + (classes - 1) * ratio
    assert abs(gradient[0, 1] / float(ratio / others) - 1) <= 2 * np.finfo(dtype).eps
    exact = float(mp.log(others)) + float(lead)
    assert abs(value / exact - 1) <= 4 * np.finfo(dtype).eps


def softmax_loss(x, q, dq):
    """-Σ q log softmax(x) of one row in extended precision, its gradients along x and, for
    dq = ∂q_c/∂y_c, along y, and the terms of which that along x is the difference. A class
    without q adds nothing."""
    x, q = x.astype(np.longdouble), q.astype(np.longdouble)
    below = x.max() - x
    e = np.exp(-below)
    rest = np.delete(e, e.argmax()).sum()
    surprise = below + np.log1p(rest)
    value = np.where(q == 0, 0, q * np.where(q == 0, 0, surprise)).sum()
    others = q.sum() - q
    top = rest + 1 - e
    slopes_y = dq * np.where(np.equal(dq, 0), 0, surprise)
    pull, push = e * others / (1 + rest), q * top / (1 + rest)
    return value, pull - push, slopes_y, pull + push


def rising(rng, classes):
    """Maxima that come later and later, by steps that float32 holds."""
    return np.arange(classes) * 2.0**-10


def falling(rng, classes):
    return rising(rng, classes)[::-1]


def late(rng, classes):
    """Nothing for long, then a little, the largest at the very end."""
    x = rng.integers(-600, 600, classes) / 64
    x[:9000] = -np.inf
    x[-1] = 17.5
    return x


@floats
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("classes", [4097, 40_003, 140_001])
@pytest.mark.parametrize("logits", [rising, falling, late])
def test_sums_move_to_a_higher_maximum(logits, classes, smoothing, dtype, each_isa):
    """Long rows go in pieces, each under the largest logit so far."""
    rng = np.random.default_rng(classes)
    x = logits(rng, classes).astype(dtype)[np.newaxis]
    y, label = rng.random((1, classes)).astype(dtype), np.array([classes // 2])
    y[0, :9000] = 0
    w = rng.integers(0, 5, classes).astype(dtype)
    w[:9000] = 0  # of an infinite loss, with smoothing
    one = np.arange(classes) == label
    keywords = {"weight": w, "label_smoothing": smoothing, "reduction": "sum"}
    eps = float(np.finfo(dtype).eps)
    lost = float(np.finfo(dtype).smallest_subnormal)  # of an exponential that underflows
    for _ in each_isa():
        q = w * ((1 - smoothing) * one + smoothing / classes)
        value, slopes, _, terms = softmax_loss(x[0], q, 0)
        number, dx = fl.cross_entropy.value_and_grad(x, label, **keywords)
        assert abs(number - value) <= 8 * eps * value
        assert (abs(dx[0] - slopes) <= 8 * eps * terms + lost * q.sum()).all()

        q = w * ((1 - smoothing) * y[0].astype(float) + smoothing / classes)
        value, slopes, targets, terms = softmax_loss(x[0], q, (1 - smoothing) * w)
        number, (dx, dy) = fl.cross_entropy.value_and_grad(
            x, y, wrt=("input", "target"), **keywords
        )
        finite = np.isfinite(x[0])
        assert abs(number - value) <= 8 * eps * value
        assert (abs(dx[0] - slopes) <= 8 * eps * terms + lost * q.sum()).all()
        assert (abs(dy[0] - targets)[finite] <= 8 * eps * targets[finite]).all()


@pytest.mark.parametrize(
    ("power", "x", "y", "value", "dx", "dy"),
    [
        (-1, np.inf, 1, np.inf, np.inf, -np.inf),
        (1, np.inf, 1, np.inf, 2, -np.inf),
        (1.25, np.inf, 1, np.inf, 0, -8),
        (1.5, np.inf, 1, np.inf, 0, -4),
        (2, np.inf, 1, np.inf, 0, -2),
        (3, np.inf, 1, 1, 0, -1),
        (1, 1, np.inf, np.inf, -np.inf, np.inf),
        (1.25, 1, np.inf, np.inf, -np.inf, 8),
        (1.5, 1, np.inf, np.inf, -np.inf, 4),
        (2, 1, np.inf, np.inf, -np.inf, 2),
        (3, 1, np.inf, np.inf, -np.inf, 1),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_limits_of_tweedie_deviances(power, x, y, value, dx, dy, dtype, each_isa):
    x, y = np.array([x], dtype), np.array([y], dtype)
    for _ in each_isa():
        values, gradients = fl.tweedie_deviance_loss.value_and_grad(
            x, y, power=power, reduction="none", wrt=("input", "target")
        )
        assert [float(v[0]) for v in (values, *gradients)] == [value, dx, dy]


@pytest.mark.parametrize(("power", "x", "y"), [(-1.5, 1.1e11, 1.15e11), (1.01, 4e36, 3.92e36)])
def test_tweedie_terms_that_overflow_are_not_0(power, x, y):
    x, y = np.float32([x]), np.float32([y])
    assert fl.tweedie_deviance_loss(x, y, power=power) > 0
