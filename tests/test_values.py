"""Values and gradients of every loss: within ULPs of exact references, and finite differences."""

import math

import numpy as np
import pytest
from mpmath import mp, mpf

import fastloss as fl
from tests import references
from tests.cases import CASES, CLASSES, LABEL_SETS, log_softmax
from tests.drawn_case import BLOCK, TILE, DrawnCase, by_row, cases, floats, reductions


@cases
@floats
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_values_and_gradients_are_those_of_the_reference(case, dtype, weighted, isa):
    draw = DrawnCase(case, (7, 3), dtype)
    for reduction in reductions(case):
        more = {"reduction": reduction}
        if weighted:
            samples = draw.rng.choice([0, 0.5, 1.7], draw.shape[: 1 if reduction == "sum" else 2])
            upstream = draw.rng.normal(size=draw.shape) if reduction == "none" else -1.3
            more["sample_weight"] = samples.astype(dtype)
            more["grad_output"] = np.asarray(upstream, dtype)
        value, gradients = draw.both(**more)
        number, numbers = references.reduced(case.loss, draw.arrays, draw.keywords | more)
        assert references.excess(value, number, dtype).max() <= 1, reduction
        for name, gradient in zip(draw.wrt, gradients, strict=True):
            assert references.excess(gradient, numbers[name], dtype).max() <= 1, (reduction, name)
        more.pop("grad_output", None)
        assert references.excess(draw.value(**more), number, dtype).max() <= 1, reduction
        if reduction != "none":
            assert type(value) is float


@cases
def test_gradients_are_differences_of_values(case):
    """Four values around a point, where none of them lies beyond a kink.

    Log-probabilities of a frame are moved together, as their logits are: alone none can be.
    """
    draw = DrawnCase(case, (40,), np.float64)
    h = 1e-4
    _, gradients = draw.both("none")
    for name, gradient in zip(draw.wrt, gradients, strict=True):
        k = draw.loss.operands.index(name)
        entries = np.ndindex(case.leading(gradient).shape[1:])
        for entry in entries:
            index = (slice(None), *entry)
            values, slopes = [], []
            for step in (-2, -1, 1, 2):
                arrays = [a.copy() for a in draw.arrays]
                case.leading(arrays[k])[index] += step * h
                if case.normalised and k == 0:
                    arrays[k] = log_softmax(arrays[k])
                moved, slope = draw.loss.value_and_grad(
                    *arrays, **draw.keywords, reduction="none", wrt=name
                )
                values.append(moved)
                slopes.append(case.leading(slope)[index])
            low2, low, high, high2 = values
            found = (low2 - 8 * low + 8 * high - high2) / (12 * h)
            middle = case.leading(gradient)[index]
            bound = 1e-4 * (1 + np.abs(middle))
            smooth = np.abs(slopes[0] + slopes[3] - 2 * middle) <= bound
            smooth &= np.abs(slopes[1] + slopes[2] - 2 * middle) <= bound
            assert smooth.mean() > 0.8
            assert (np.abs(found - middle) <= bound)[smooth].all(), (name, entry)


@by_row
@floats
def test_lengths_of_rows(case, dtype, each_isa):
    """Any number of classes or features, in one piece or many."""
    tile = TILE[dtype]
    lengths = [1, 3, 17, tile + 1]
    if not case.options:
        lengths += [2, 15, 16, tile, 2 * tile + 1, BLOCK + 1]
    for classes in sorted(lengths):
        if LABEL_SETS in case.operands and classes > 17:
            break  # whose terms are the pairs of classes
        draw = DrawnCase(case, (3 if classes < tile // 2 else 1,), dtype, classes=classes)
        number, numbers = references.reduced(
            case.loss, draw.arrays, draw.keywords | {"reduction": "none"}
        )
        for isa in each_isa():
            value, gradients = draw.both("none")
            assert references.excess(value, number, dtype).max() <= 1, (classes, isa)
            for name, gradient in zip(draw.wrt, gradients, strict=True):
                excess = references.excess(gradient, numbers[name], dtype).max()
                assert excess <= 1, (classes, isa, name)


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


def test_ulp_command(capsys):
    """`python -m tests.ulp` prints a row for each loss."""
    from tests import ulp

    ulp.main(["--size", "20", "--no-torch", "--loss", "mse_loss", "--loss", "cross_entropy"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mse_loss") for line in lines)
    assert sum(line.startswith("cross_entropy") for line in lines) >= 2
