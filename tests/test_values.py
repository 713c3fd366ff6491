"""Values and gradients of every loss, against exact references and finite differences.

The bounds in ULP are the contract of docs/numerics.md. An error is at most its bound if
`references.excess` is at most 1.
"""

import math

import numpy as np
import pytest

import fastloss as fl
from tests import references
from tests.bitwise import assert_bitwise
from tests.cases import CASES, OPTION_CASES
from tests.domains import LABEL_ROWS, log_softmax
from tests.drawn_case import BLOCK, TILE, DrawnCase, by_row, cases, floats, reductions


@cases
@floats
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_values_and_gradients_match_the_reference(case, dtype, weighted, isa):
    draw = DrawnCase(case, (7, 3), dtype)
    for reduction in reductions(case):
        options = {"reduction": reduction}
        if weighted:
            shape = draw.shape[: 1 if reduction == "sum" else 2]
            sample_weight = draw.rng.choice([0, 0.5, 1.7], shape)
            grad_output = draw.rng.normal(size=draw.shape) if reduction == "none" else -1.3
            options["sample_weight"] = sample_weight.astype(dtype)
            options["grad_output"] = np.asarray(grad_output, dtype)
        value, gradients = draw.both(**options)
        exact_value, exact = references.reduced(case.loss, draw.arrays, draw.keywords | options)
        assert references.excess(value, exact_value, dtype).max() <= 1, reduction
        for name, gradient in zip(draw.wrt, gradients, strict=True):
            assert references.excess(gradient, exact[name], dtype).max() <= 1, (reduction, name)
        options.pop("grad_output", None)
        assert references.excess(draw.value(**options), exact_value, dtype).max() <= 1, reduction
        if reduction != "none":
            assert type(value) is float


@cases
def test_gradients_match_finite_differences(case):
    """The fourth-order central difference, except where a kink is within its four points.

    A step in one log-probability of a frame is followed by a normalisation, as for logits, because
    the probabilities of a frame must sum to 1.
    """
    draw = DrawnCase(case, (40,), np.float64)
    h = 1e-4
    _, gradients = draw.both("none")
    for name, gradient in zip(draw.wrt, gradients, strict=True):
        k = draw.loss.operands.index(name)
        for entry in np.ndindex(case.leading(gradient).shape[1:]):
            index = (slice(None), *entry)
            values, slopes = [], []
            for step in (-2, -1, 1, 2):
                arrays = [a.copy() for a in draw.arrays]
                case.leading(arrays[k])[index] += step * h
                if case.normalised and k == 0:
                    arrays[k] = log_softmax(arrays[k])
                value, slope = draw.loss.value_and_grad(
                    *arrays, **draw.keywords, reduction="none", wrt=name
                )
                values.append(value)
                slopes.append(case.leading(slope)[index])
            difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
            slope = case.leading(gradient)[index]
            bound = 1e-4 * (1 + np.abs(slope))
            smooth = np.abs(slopes[0] + slopes[3] - 2 * slope) <= bound
            smooth &= np.abs(slopes[1] + slopes[2] - 2 * slope) <= bound
            assert smooth.mean() > 0.8
            assert (np.abs(difference - slope) <= bound)[smooth].all(), (name, entry)


@by_row
@floats
@pytest.mark.rotate("dtype")
def test_row_lengths(case, dtype, each_isa, complete):
    """Numbers of classes or features up to several tiles."""
    tile = TILE[dtype]
    lengths = [1, 3, 17, tile + 1]
    if not case.options:
        lengths += [2, 15, 16]
        lengths += [tile, 2 * tile + 1] if complete else []
        lengths += [BLOCK + 1] if complete and dtype == np.float32 else []
    for classes in sorted(lengths):
        if LABEL_ROWS in case.operands and classes > 17:
            break  # the reference has a term for each pair of classes
        draw = DrawnCase(case, (3 if classes < tile // 2 else 1,), dtype, classes=classes)
        exact_value, exact = references.reduced(
            case.loss, draw.arrays, draw.keywords | {"reduction": "none"}
        )
        for isa in each_isa():
            value, gradients = draw.both("none")
            assert references.excess(value, exact_value, dtype).max() <= 1, (classes, isa)
            for name, gradient in zip(draw.wrt, gradients, strict=True):
                excess = references.excess(gradient, exact[name], dtype).max()
                assert excess <= 1, (classes, isa, name)


@pytest.fixture
def check(each_isa):
    """Asserts that unreduced values and gradients are within the bound on each instruction set.

    Terms that exceed the largest number are no excuse: the result is right, or overflows as well.
    """

    def assert_within_bound(case, arrays, keywords, dtype):
        loss = getattr(fl, case.loss)
        keywords = keywords | {"reduction": "none"}
        wrt = case.differentiable(loss)
        exact = _exact_results(case, arrays, keywords)
        # A weight of elements multiplies losses and derivatives as rounded to the type, which may
        # be infinite: 2 (x - y) of mse_loss.
        overflows = {}
        if not case.weighs_classes and keywords.get("weight") is not None:
            for name, number in _exact_results(case, arrays, {**keywords, "weight": None}).items():
                unweighted = number.value.astype(float)
                is_beyond = abs(unweighted) > float(np.finfo(dtype).max)
                overflows[name] = np.where(is_beyond, np.copysign(math.inf, unweighted), 0)
        checked = {name: [] for name in exact}
        weights = {k: v for k, v in keywords.items() if np.ndim(v)}

        def describe_unit(unit):
            entries = case.at(arrays, unit)
            if case.weighs_classes:
                return entries, weights
            return entries, {k: v[unit] for k, v in weights.items()}

        for isa in each_isa():
            value, gradients = loss.value_and_grad(*arrays, **keywords, wrt=wrt)
            results = {"value": value, **dict(zip(wrt, gradients, strict=True))}
            assert_bitwise(loss(*arrays, **keywords), value)
            assert_bitwise(loss.grad(*arrays, **keywords, wrt=wrt), gradients)
            for name, result in results.items():
                if result.tobytes() in checked[name]:
                    continue
                checked[name].append(result.tobytes())
                excess = references.excess(result, exact[name], dtype)
                excess[np.isinf(result) & (result == overflows.get(name, 0))] = 0
                arrays_by_unit = map(case.leading, (excess, result, exact[name].value))
                _assert_within_bound(*arrays_by_unit, (isa, name), describe_unit)

    return assert_within_bound


def _exact_results(case, arrays, keywords):
    value, gradients = references.reduced(case.loss, arrays, keywords)
    return {"value": value, **gradients}


def _assert_within_bound(excess, result, exact, where, describe_unit):
    for index in map(tuple, np.argwhere(excess > 1)):
        raise AssertionError(
            f"{where}: {result[index]!r} instead of {float(exact[index])!r}, off by "
            f"{excess[index]:.3g} times the bound, at {index} for {describe_unit(index[0])}"
        )


@cases
@floats
@pytest.mark.rotate("dtype")
def test_adversarial_operands(case, dtype, check, complete):
    rng = np.random.default_rng([3, *case.id.encode()])
    size = (300 if case.unit == "element" else 100) // (1 if complete else 3)
    arrays = case.adversarial(rng, size, dtype)
    check(case, arrays, case.keywords(rng, (size,), dtype, adversarial=True), dtype)


@cases
@floats
@pytest.mark.rotate("dtype")
def test_edge_cases(case, dtype, check, complete):
    """Combinations of zeros, subnormal and huge numbers, infinities and NaN."""
    rng = np.random.default_rng([4, *case.id.encode()])
    arrays = case.edge_cases(dtype)
    size = len(case.leading(arrays[0]))
    most = 150 if complete else 50  # because the references are slow
    if size > most:
        arrays = case.at(arrays, np.sort(rng.choice(size, most, replace=False)))
        size = most
    keywords = case.keywords(rng, (size,), dtype, adversarial=not case.weighs_classes)
    check(case, arrays, keywords, dtype)


@pytest.mark.parametrize("case", [*CASES, *OPTION_CASES], ids=lambda case: case.id)
@floats
@pytest.mark.rotate("dtype")
def test_corners(case, dtype, check, complete):
    """Every option and operand at the ends of its range, where terms overflow or have limits."""
    rng = np.random.default_rng([5, *case.id.encode()])
    arrays = case.corners(dtype) if case.unit == "element" else case.edge_cases(dtype)
    size, most = len(case.leading(arrays[0])), 45 if complete else 20
    if case.options.get("p") in (1e-300, 1e300):
        most //= 10  # the references need thousands of digits
    if size > most:
        arrays = case.at(arrays, np.sort(rng.choice(size, most, replace=False)))
        size = most
    check(case, arrays, case.keywords(rng, (size,), dtype), dtype)


@floats
def test_limits(dtype, each_isa):
    """Limits at infinity and at 0, where two terms are infinite."""
    inf = math.inf
    limits = [
        (fl.poisson_nll_loss, (inf, 1), {}, inf, [inf, -inf]),
        (fl.poisson_nll_loss, (0.5, inf), {}, -inf, [-inf, -0.5]),
        (fl.poisson_nll_loss, (inf, 1), {"log_input": False}, inf, [1, -inf]),
        (fl.poisson_nll_loss, (inf, 1), {"full": True}, inf, [inf, -inf]),
        (fl.gamma_nll_loss, (inf, 1), {"log_input": False}, inf, [0, 0]),
        (fl.gaussian_nll_loss, (1, 2, 0), {"eps": 0}, inf, [-inf, inf, -inf]),
        (fl.gaussian_nll_loss, (2, 1, -0.0), {"eps": 0}, inf, [inf, -inf, -inf]),
        (fl.gaussian_nll_loss, (1, 1, 0), {"eps": 0}, -inf, [0, 0, inf]),
        (fl.kl_div, (1e3, 1e3), {"log_target": True}, 0, [-inf, inf]),
    ]
    for _ in each_isa():
        for loss, operands, options, value, gradients in limits:
            arrays = [np.array([v], dtype) for v in operands]
            got, slopes = loss.value_and_grad(
                *arrays, **options, reduction="none", wrt=loss.operands
            )
            assert [float(v[0]) for v in (got, *slopes)] == [value, *gradients], (loss, operands)
            gradient = arrays[0].copy()  # over the input
            loss.grad(gradient, *arrays[1:], **options, reduction="sum", out=gradient)
            assert gradient[0] == gradients[0]


@floats
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_confident_predictions(classes, dtype, check):
    """Losses and gradients have full relative accuracy down to the smallest normal number."""
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


def test_float32_loss_of_1e_30():
    """log(1 + exp(-69)) rounds to exp(-69) in float32."""
    exact = math.exp(-69.0)
    x = np.array([[69, 0]], np.float32)
    assert fl.cross_entropy(x, np.array([0])) == pytest.approx(exact, rel=1e-6)
    gradient = fl.cross_entropy.grad(x, np.array([0]))
    np.testing.assert_allclose(gradient, [[-exact, exact]], rtol=1e-6)
    logit = np.array([69], np.float32)
    assert fl.binary_cross_entropy_with_logits(logit, 1.0) == pytest.approx(exact, rel=1e-6)
    assert fl.binary_cross_entropy_with_logits.grad(logit, 1.0) == pytest.approx(-exact, rel=1e-6)


@pytest.mark.complete_only
def test_ulp_command(capsys):
    """`python -m tests.ulp` prints a row for each loss."""
    from tests import ulp

    ulp.main(["--size", "20", "--no-torch", "--loss", "mse_loss", "--loss", "cross_entropy"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mse_loss") for line in lines)
    assert sum(line.startswith("cross_entropy") for line in lines) >= 2
