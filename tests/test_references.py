"""The references themselves: against published values, calculus, their own digits, and torch."""

import numpy as np
import pytest
import references
from mpmath import mp, mpf
from references import REFERENCES, reduced, sums, unreduced

INF, NAN = np.inf, np.nan
A = np.array


def floats(array):
    return np.asarray(array, dtype=object).astype(float)


def value(loss, arrays, **options):
    return floats(reduced(loss, arrays, options)[0].value)


def gradient(loss, arrays, argument, **options):
    return floats(reduced(loss, arrays, options)[1][argument].value)


def operands(loss, n=24, seed=0):
    """Ordinary operands of a loss, away from its kinks."""
    rng = np.random.default_rng([seed, *loss.encode()])
    normal, unit = rng.normal(size=(2, n)) * 2, rng.uniform(0.05, 0.95, size=(2, n))
    labels = rng.choice([-1.0, 1.0], n)
    if REFERENCES[loss].divisor == "classes":
        return normal.reshape(-1, 6), rng.integers(0, 6, n // 3)
    return {
        "poisson_nll_loss": (unit[0] * 3, unit[1] * 3),
        "gaussian_nll_loss": (*normal, unit[0]),
        "kl_div": (normal[0], unit[0]),
        "binary_cross_entropy": tuple(unit),
        "binary_cross_entropy_with_logits": (normal[0], unit[0]),
        "hinge_embedding_loss": (normal[0], labels),
        "soft_margin_loss": (normal[0], labels),
        "margin_ranking_loss": (*normal, labels),
    }.get(loss, tuple(normal))


SCALARS = {  # options without arrays, every branch of every formula
    "smooth_l1_loss": [{}, {"beta": 0.4}, {"beta": 0.0}],
    "huber_loss": [{}, {"delta": 0.4}],
    "poisson_nll_loss": [
        {"log_input": log_input, "full": full, "eps": 1e-3}
        for log_input in (True, False)
        for full in (False, True)
    ],
    "gaussian_nll_loss": [{}, {"full": True, "eps": 0.01}],
    "kl_div": [{}, {"log_target": True}],
    "hinge_embedding_loss": [{}, {"margin": 0.3}],
    "margin_ranking_loss": [{}, {"margin": 0.3}],
    "cross_entropy": [{}, {"label_smoothing": 0.1}, {"label_smoothing": 1.0}],
}
CASES = [(loss, options) for loss in REFERENCES for options in SCALARS.get(loss, [{}])]
cases = pytest.mark.parametrize(
    ("loss", "options"), CASES, ids=[f"{loss} {options}" for loss, options in CASES]
)


# ---- Published values ----------------------------------------------------------------------------

D, W = (A([1.0, 2, 3]), np.zeros(3)), A([1.0, 0, 3])
POISSON = A([0.5, 1, -1, 0, 2]), A([0, 1, 2, 3, 0.5])
KL = A([[-1.0, -2, -3], [-4, -5, -6]]), A([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
NLL = A([[-1.0, -2, -3], [-4, -5, -6]]), A([0, 2])
CE = A([[1.0, 2, 3], [4, 1, 0]]), A([0, 2])
W3 = A([1.0, 2, 3])
GOLDEN = [  # what torch 2.13.0 gives, except where a comment says why not
    ("l1_loss", D, {"weight": W, "reduction": "none"}, [1, 0, 9]),
    ("l1_loss", D, {"weight": W, "reduction": "sum"}, 10),
    ("l1_loss", D, {"weight": W}, 2.5),
    ("l1_loss", D, {}, 2),
    ("l1_loss", ([INF, -INF], [0, 0]), {"reduction": "none"}, [INF, INF]),
    ("l1_loss", ([INF, NAN], [INF, 0]), {"reduction": "none"}, [NAN, NAN]),
    ("mse_loss", D, {"weight": W}, 7),
    ("mse_loss", ([INF, NAN], [0, 0]), {"reduction": "none"}, [INF, NAN]),
    ("smooth_l1_loss", D, {"beta": 2.0, "reduction": "none"}, [0.25, 1, 2]),
    ("smooth_l1_loss", D, {"beta": 0.0, "reduction": "none"}, [1, 2, 3]),
    ("smooth_l1_loss", D, {"beta": INF}, 0),
    ("smooth_l1_loss", ([INF], [0]), {"beta": INF}, NAN),
    ("smooth_l1_loss", ([INF], [0]), {}, INF),
    # torch squares first: inf and 0
    ("smooth_l1_loss", ([np.float32(1e20)], [0.0]), {"beta": 1e25}, 1e40 / 2e25),
    ("smooth_l1_loss", ([5e-301], [0.0]), {"beta": 1e-300}, 1.25e-301),
    ("huber_loss", D, {"weight": W}, (0.5 + 3 * 2.5) / 3),
    ("huber_loss", D, {"weight": np.zeros(3)}, 0),
    ("huber_loss", D, {"delta": 2.0, "reduction": "none"}, [0.5, 2, 4]),
    ("huber_loss", ([3.0, INF], [0, 0]), {"delta": INF, "reduction": "none"}, [4.5, INF]),
    ("huber_loss", ([INF], [0]), {}, INF),
    ("log_cosh_loss", ([INF, 0, 1e300], [0, 0, 0]), {"reduction": "none"}, [INF, 0, 1e300]),
    ("log_cosh_loss", ([1.0], [0.0]), {}, 0.4337808304830271870),
    ("log_cosh_loss", ([1e-150], [0.0]), {}, 5e-301),
    (
        "poisson_nll_loss",
        POISSON,
        {"full": True, "reduction": "none"},
        [1.6487213, 1.7182818, 3.0196859, 2.7640815, 6.3890561],
    ),
    ("poisson_nll_loss", ([13.8], [10**6]), {"full": True}, 127.496),
    ("poisson_nll_loss", ([0.0], [1.0]), {"log_input": False}, 18.420681),
    ("poisson_nll_loss", ([-INF], [2.0]), {}, INF),
    ("poisson_nll_loss", ([-INF], [0.0]), {}, 0),  # torch: NaN
    ("gaussian_nll_loss", ([1.0], [0.0], [1.0]), {}, 0.5),
    ("gaussian_nll_loss", ([1.0], [0.0], [1.0]), {"full": True}, 1.4189385332),
    ("gaussian_nll_loss", ([1.0], [0.0], [0.0]), {}, 499993.09),
    ("gaussian_nll_loss", ([1.0], [0.0], [0.0]), {"eps": 0.0}, NAN),
    ("gaussian_nll_loss", ([1.0], [0.0], [INF]), {}, INF),
    ("kl_div", KL, {"reduction": "sum"}, 6.3313151),
    ("kl_div", KL, {}, 1.0552192),
    ("kl_div", KL, {"reduction": "batchmean"}, 3.1656576),
    ("kl_div", (KL[0][0], KL[1][0]), {"reduction": "batchmean"}, 1.2703470 / 3),
    ("kl_div", (-1.0, 0.5), {"reduction": "batchmean"}, 0.5 * np.log(0.5) + 0.5),
    # torch: NaN for the infinities
    ("kl_div", ([-1, -INF, INF, NAN], [0, 0, 0, 0.0]), {"reduction": "none"}, [0, 0, 0, NAN]),
    ("kl_div", ([-INF], [0.5]), {}, INF),
    ("kl_div", ([-1, -INF], [-INF, -INF]), {"log_target": True, "reduction": "none"}, [0, 0]),
    (
        "binary_cross_entropy",
        ([0, 1, 0, 1, 0.0], [0, 1, 1, 0, 0.5]),
        {"reduction": "none"},
        [0, 0, 100, 100, 50],
    ),
    ("binary_cross_entropy", ([1e-44], [1.0]), {}, 100),
    ("binary_cross_entropy", ([3.8e-44], [1.0]), {}, 99.9787),
    ("binary_cross_entropy", ([1e-300], [0.0]), {}, 1e-300),
    ("binary_cross_entropy_with_logits", ([np.float32(100)], [1.0]), {}, 3.7200759760208e-44),
    ("binary_cross_entropy_with_logits", ([1000.0, -1000], [0.0, 1]), {}, 1000),
    (
        "binary_cross_entropy_with_logits",
        ([INF, -INF, INF, -INF], [1, 0, 0, 1.0]),
        {"reduction": "none"},
        [0, 0, INF, INF],  # torch: NaN, NaN, inf, NaN
    ),
    ("hinge_embedding_loss", ([0.5, 0.5], [1.0, -1]), {"reduction": "none"}, [0.5, 0.5]),
    ("hinge_embedding_loss", ([NAN, INF], [-1.0, -1]), {"reduction": "none"}, [NAN, 0]),
    ("soft_margin_loss", ([0.0], [1.0]), {}, np.log(2)),
    ("soft_margin_loss", ([-710.0, INF, -INF], [1, 1, 1.0]), {"reduction": "none"}, [710, 0, INF]),
    ("margin_ranking_loss", ([2.0], [2.0], [1.0]), {}, 0),
    ("margin_ranking_loss", ([1.0], [3.0], [1.0]), {"margin": -0.5}, 1.5),
    ("margin_ranking_loss", ([INF], [INF], [1.0]), {}, NAN),
    ("nll_loss", NLL, {"weight": W3, "reduction": "none"}, [1, 18]),
    ("nll_loss", NLL, {"weight": W3, "reduction": "sum"}, 19),
    ("nll_loss", NLL, {"weight": W3}, 4.75),
    ("nll_loss", NLL, {}, 3.5),
    ("nll_loss", NLL, {"ignore_index": 2}, 1),
    ("nll_loss", (NLL[0][1], A(2)), {"weight": W3}, 6),
    ("nll_loss", ([[-INF, -1]], A([0])), {}, INF),
    # torch: NaN
    ("nll_loss", ([[-INF, -1]], A([0])), {"weight": A([0.0, 1]), "reduction": "sum"}, 0),
    ("cross_entropy", CE, {"reduction": "none"}, [2.4076060, 4.0658839]),
    ("cross_entropy", CE, {}, 3.2367449),
    ("cross_entropy", CE, {"weight": W3}, 3.6513144),
    ("cross_entropy", CE, {"label_smoothing": 0.1}, 3.1034116),
    (
        "cross_entropy",
        CE,
        {"weight": W3, "label_smoothing": 0.1, "reduction": "none"},
        [2.3816999, 11.5910633],
    ),
    ("cross_entropy", CE, {"weight": W3, "label_smoothing": 0.1}, 3.4931908),
    ("cross_entropy", (CE[0][0], A(0)), {}, 2.4076060),
    ("cross_entropy", ([[1.0, -INF]], A([0])), {}, 0),
    ("cross_entropy", ([[1.0, -INF]], A([0])), {"label_smoothing": 0.1}, INF),
    ("cross_entropy", ([[1.0, -INF]], A([1])), {}, INF),
    ("cross_entropy", ([[1.0, INF]], A([1])), {}, NAN),
    ("cross_entropy", ([[-INF, -INF]], A([1])), {}, NAN),
    ("cross_entropy", ([[3.0]], A([0])), {}, 0),
]

TINY = float(np.float32(1e-12))
GOLDEN_GRADIENTS = [
    ("l1_loss", D, "input", {"weight": W}, [0.25, 0, 0.75]),
    ("l1_loss", D, "target", {"weight": W}, [-0.25, 0, -0.75]),
    ("l1_loss", ([INF, 1], [0.0, 1]), "input", {"reduction": "sum"}, [1, 0]),
    # torch: 0
    ("l1_loss", ([NAN, INF], [1.0, INF]), "target", {"reduction": "sum"}, [NAN, NAN]),
    ("mse_loss", D, "input", {"weight": W}, [0.5, 0, 4.5]),
    ("mse_loss", ([INF, NAN], [0, 0]), "input", {"reduction": "sum"}, [INF, NAN]),
    ("smooth_l1_loss", D, "input", {"beta": 2.0, "reduction": "sum"}, [0.5, 1, 1]),
    ("smooth_l1_loss", ([0.0, INF], [0, 0]), "input", {"beta": 0.0, "reduction": "sum"}, [0, 1]),
    ("smooth_l1_loss", ([INF, -INF], [0, 0]), "input", {"reduction": "sum"}, [1, -1]),
    ("smooth_l1_loss", ([INF, 3], [0, 0]), "input", {"beta": INF, "reduction": "sum"}, [1, 0]),
    ("huber_loss", D, "target", {"delta": 2.0, "reduction": "sum"}, [-1, -2, -2]),
    ("huber_loss", ([INF, -INF], [0, 0]), "input", {"delta": 2.0, "reduction": "sum"}, [2, -2]),
    ("log_cosh_loss", ([1e-300, INF], [0, 0]), "input", {"reduction": "sum"}, [1e-300, 1]),
    ("poisson_nll_loss", ([0.0], [1.0]), "input", {"log_input": False}, [1 - 1e8]),
    # torch: NaN where the target is 0
    (
        "poisson_nll_loss",
        ([0.5, 2], [0, 1.0]),
        "target",
        {"full": True, "reduction": "sum"},
        [-0.5, -2],
    ),
    ("gaussian_nll_loss", ([1.0], [0.0], [0.0]), "input", {}, [1e6]),
    ("gaussian_nll_loss", ([1.0], [0.0], [0.0]), "var", {}, [-4.999995e11]),
    ("gaussian_nll_loss", ([1.0], [0.0], [INF]), "var", {}, [0]),
    ("gaussian_nll_loss", ([1.0], [0.0], [INF]), "input", {}, [0]),
    ("kl_div", ([-1.0, -INF], [0.0, 0]), "input", {}, [0, 0]),
    ("kl_div", ([-1.0], [0.0]), "target", {}, [-INF]),  # torch: NaN
    ("kl_div", ([-1.0], [-INF]), "input", {"log_target": True}, [0]),
    (
        "binary_cross_entropy",
        ([0, 1, 0, 1, 0.0], [0, 1, 1, 0, 0.5]),
        "input",
        {"reduction": "sum"},
        [0, 0, -1 / TINY, 1 / TINY, -0.5 / TINY],
    ),
    ("binary_cross_entropy", ([0, 1.0], [0, 1]), "target", {"reduction": "sum"}, [INF, -INF]),
    (
        "binary_cross_entropy_with_logits",
        ([INF, -INF, INF, -INF], [1, 0, 0, 1.0]),
        "input",
        {"reduction": "sum"},
        [0, 0, 1, -1],
    ),
    (
        "hinge_embedding_loss",
        ([1.0, 1, 0, 2], [-1.0, 1, -1, -1]),
        "input",
        {"reduction": "sum"},
        [-1, 1, -1, 0],
    ),
    ("hinge_embedding_loss", ([NAN], [-1.0]), "input", {}, [NAN]),  # torch: 0
    ("soft_margin_loss", ([-710.0, 1e4], [1, 1.0]), "input", {"reduction": "sum"}, [-1, 0]),
    ("margin_ranking_loss", ([2.0], [2.0], [1.0]), "input1", {}, [-1]),
    ("margin_ranking_loss", ([2.0], [2.0], [1.0]), "input2", {}, [1]),
    ("margin_ranking_loss", ([NAN], [2.0], [1.0]), "input2", {}, [NAN]),  # torch: 0
    ("nll_loss", NLL, "input", {"weight": W3}, [[-0.25, 0, 0], [0, 0, -0.75]]),
    ("nll_loss", ([[NAN, -1], [NAN, -1]], A([0, 1])), "input", {}, [[NAN, 0], [0, -0.5]]),
    ("cross_entropy", ([[1.0, -INF]], A([0])), "input", {}, [[0, 0]]),
    ("cross_entropy", ([[1.0, -INF]], A([1])), "input", {}, [[1, -1]]),
    ("cross_entropy", ([[1.0, INF]], A([1])), "input", {}, [[NAN, NAN]]),
    # torch: NaN in an ignored row
    (
        "cross_entropy",
        ([[1.0, 1.0], [NAN, 0]], A([0, -100])),
        "input",
        {"label_smoothing": 0.5},
        [[-0.25, 0.25], [0, 0]],
    ),
]


@pytest.mark.parametrize(("loss", "arrays", "options", "expected"), GOLDEN)
def test_golden_values(loss, arrays, options, expected):
    np.testing.assert_allclose(value(loss, arrays, **options), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("loss", "arrays", "argument", "options", "expected"), GOLDEN_GRADIENTS)
def test_golden_gradients(loss, arrays, argument, options, expected):
    found = gradient(loss, arrays, argument, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)


def test_clamp_corner_to_its_digits():
    found = gradient("binary_cross_entropy", ([0.0], [1.0]), "input")
    np.testing.assert_allclose(found, [-1000000003995.80], rtol=1e-14)


@pytest.mark.parametrize("gap", [28.0, 100.0, 600.0, 1500.0])
def test_confident_predictions_keep_their_digits(gap):
    for loss, arrays in [
        ("cross_entropy", ([gap, 0.0], A(0))),
        ("binary_cross_entropy_with_logits", (gap, 1.0)),
        ("soft_margin_loss", (gap, 1.0)),
    ]:
        number, gradients = reduced(loss, arrays, {"reduction": "sum"})
        slope = gradients["input"].value.ravel()[0]
        with mp.workprec(6000):
            small = mp.exp(-mpf(gap))
            assert abs(number.value / mp.log(1 + small) - 1) < mpf(2) ** -150
            assert abs(slope / (-small / (1 + small)) - 1) < mpf(2) ** -150
        assert number.term == number.value


# ---- Calculus ------------------------------------------------------------------------------------


def differs(function, point, index, h):
    up, down = list(point), list(point)
    up[index] += h
    down[index] -= h
    return (function(up) - function(down)) / (2 * h)


@cases
def test_gradients_are_differences(loss, options):
    reference, arrays = REFERENCES[loss], operands(loss)
    with mp.workprec(references.BITS):
        h = mpf(2) ** -50
        for entry in zip(*arrays, *[[1.25] * len(arrays[0])] * len(reference.extra), strict=True):
            if reference.divisor == "classes":
                row, c = [mpf(v) for v in entry[0]], int(entry[1])
                weight = [mpf(v) for v in (0.5, 1, 1.5, 2, 0, 3)]

                def function(point, c=c, weight=weight):
                    return reference.formula(point, c, weight, **options)[0].value

                point, gradients = row, reference.formula(row, c, weight, **options)[1]
                found = dict(enumerate(gradients))
            else:
                point = [mpf(float(v)) for v in entry]

                def function(point):
                    return reference.formula(*point, **options)[0].value

                gradients = reference.formula(*point, **options)[1]
                found = {reference.operands.index(name): g for name, g in gradients.items()}
            for index, number in found.items():
                error = abs(differs(function, point, index, h) - number.value)
                assert error < mpf(2) ** -75 * max(1, number.term) * 100


@cases
def test_more_digits_change_nothing(loss, options, monkeypatch):
    """The digits suffice where magnitudes are extreme: 300 more bits give the same numbers."""
    rng = np.random.default_rng(5)
    extreme = rng.choice([-1.0, 1], 40) * 10.0 ** rng.uniform(-300, 300, 40)
    labels, unit = rng.choice([-1.0, 1], 40), 10.0 ** rng.uniform(-300, 0, 40)
    arrays = {
        "poisson_nll_loss": (np.abs(extreme), np.abs(extreme[::-1])),
        "gaussian_nll_loss": (extreme, extreme[::-1], unit),
        "kl_div": (extreme, unit),
        "binary_cross_entropy": (unit, 1 - unit[::-1]),
        "binary_cross_entropy_with_logits": (extreme, unit),
        "margin_ranking_loss": (extreme, extreme[::-1], labels),
        "nll_loss": (extreme.reshape(-1, 4), np.arange(10) % 4),
        "cross_entropy": (extreme.reshape(-1, 4), np.arange(10) % 4),
    }.get(loss, (extreme, labels if loss in ("hinge_embedding_loss", "soft_margin_loss") else unit))
    options = {**options, "reduction": "none"}
    before = reduced(loss, arrays, options)
    monkeypatch.setattr(references, "BITS", 500)
    monkeypatch.setattr(references, "DEEPEST", 3000)
    for cache in (references._elements, references._rows):
        monkeypatch.setattr(references, cache.__name__, cache.__wrapped__)
    after = reduced(loss, arrays, options)
    for a, b in [(before[0], after[0]), *((g, after[1][k]) for k, g in before[1].items())]:
        for one, two, term in zip(a.value.flat, b.value.flat, a.term.flat, strict=True):
            if mp.isfinite(one):
                assert abs(one - two) <= mpf(2) ** -150 * term + mpf(2) ** -2000
            else:
                assert str(one) == str(two)


# ---- Arrays --------------------------------------------------------------------------------------


def equal(left, right, rtol=1e-14):
    np.testing.assert_allclose(floats(left), floats(right), rtol=rtol, atol=1e-300)


@cases
def test_weights_repeat_entries(loss, options):
    """A sample weight of 0, 1, 2 is leaving out, taking, and taking twice."""
    arrays = operands(loss)
    n = len(arrays[1])
    times = np.arange(n) % 3
    repeated = [np.repeat(a, times, axis=0) for a in arrays]
    for reduction in ("mean", "sum", *(["batchmean"] if loss == "kl_div" else [])):
        keywords = {**options, "reduction": reduction}
        weighted = reduced(loss, arrays, {**keywords, "sample_weight": times})
        plain = reduced(loss, repeated, keywords)
        equal(weighted[0].value, plain[0].value)
        equal(weighted[0].term, plain[0].term)
        for name, number in weighted[1].items():
            first = np.flatnonzero(np.diff(np.repeat(np.arange(n), times), prepend=-1))
            taken = times > 0
            expected = (floats(plain[1][name].value)[first].T * times[taken]).T
            equal(number.value[taken], expected)
            assert not floats(number.value[~taken]).any()


@cases
def test_removed_entries_may_hold_anything(loss, options):
    arrays = operands(loss)
    n = len(arrays[1])
    weight = np.where(np.arange(n) % 4 == 1, 0.0, 1.5)
    spoilt = [a.copy() for a in arrays]
    for array in spoilt:
        if array.dtype.kind == "f":
            array[weight == 0] = NAN
    keywords = {**options, "sample_weight": weight}
    clean, dirty = (reduced(loss, a, keywords) for a in (arrays, spoilt))
    equal(clean[0].value, dirty[0].value)
    for name in clean[1]:
        equal(clean[1][name].value, dirty[1][name].value)
    assert sums(loss, spoilt, keywords)[1:] == (1.5 * (weight > 0).sum(), (weight > 0).sum())


@cases
def test_all_removed_and_empty(loss, options):
    arrays = operands(loss)
    nothing = {**options, "sample_weight": np.zeros(len(arrays[1]))}
    number, gradients = reduced(loss, arrays, nothing)
    assert mp.isnan(number.value)
    assert all(not floats(g.value).any() for g in gradients.values())
    assert sums(loss, arrays, nothing) == (0, 0, 0)

    empty = [a[:0] for a in arrays]
    number, gradients = reduced(loss, empty, options)
    assert mp.isnan(number.value)
    assert reduced(loss, empty, {**options, "reduction": "sum"})[0].value == 0
    assert all(g.value.shape == empty[0].shape for g in gradients.values())
    assert unreduced(loss, empty, options).value.shape == (0,)


@cases
def test_sums_and_reductions_agree(loss, options):
    arrays = operands(loss)
    keywords = {**options, "sample_weight": np.linspace(0.5, 2, len(arrays[1]))}
    added, weight, count = sums(loss, arrays, keywords)
    assert count == len(arrays[1])
    equal(reduced(loss, arrays, keywords)[0].value, added / weight)
    equal(reduced(loss, arrays, {**keywords, "reduction": "sum"})[0].value, added)
    equal(unreduced(loss, arrays, keywords).value.sum(), added)


@cases
def test_grad_output_multiplies(loss, options):
    arrays = operands(loss)
    upstream = np.linspace(-1, 2, len(arrays[1]))
    for reduction, one in (("mean", 2.5), ("sum", -3.0), ("none", upstream)):
        keywords = {**options, "reduction": reduction}
        plain = reduced(loss, arrays, keywords)[1]
        scaled = reduced(loss, arrays, {**keywords, "grad_output": one})[1]
        for name in plain:
            equal(scaled[name].value, (plain[name].value.T * one).T)


def test_divisors():
    x, y = operands("l1_loss")
    w, s = np.linspace(0, 3, len(x)), np.linspace(1, 2, len(x))
    d = np.abs(x - y)
    both = {"weight": w, "sample_weight": s}
    equal(value("l1_loss", (x, y), **both), (s * w * d).sum() / (s * w).sum())
    equal(value("mse_loss", (x, y), **both), (s * w * d * d).sum() / (s * w).sum())
    huber = np.where(d < 1, d * d / 2, d - 0.5)
    equal(value("huber_loss", (x, y), **both), (s * w * huber).sum() / s.sum())
    assert sums("l1_loss", (x, y), both)[2] == len(x) - 1

    x, y = operands("cross_entropy")
    w = np.linspace(0, 3, 6)
    rows = floats(unreduced("cross_entropy", (x, y)).value)
    s = np.linspace(1, 2, len(y))
    keep = y != 3
    equal(
        value("cross_entropy", (x, y), weight=w, sample_weight=s, ignore_index=3),
        (s * w[y] * rows)[keep].sum() / (s * w[y])[keep].sum(),
    )
    equal(sums("nll_loss", (x, y), {"weight": w})[1], w[y].sum())
    assert sums("nll_loss", (x, y), {"weight": w, "ignore_index": 3})[2] == (keep & (y != 0)).sum()
    # with smoothing the other classes still count where the true one weighs nothing
    equal(
        unreduced("cross_entropy", (x[:1], [0]), {"weight": w, "label_smoothing": 0.5}).value,
        [0.5 / 6 * (w * (np.log(np.exp(x[0]).sum()) - x[0])).sum()],
    )


def test_sample_weight_of_the_leading_axis():
    s = A([2.0, 3.0])
    full = np.broadcast_to(s[:, None], KL[0].shape)
    for reduction in ("mean", "sum", "batchmean"):
        keywords = {"reduction": reduction}
        equal(
            value("kl_div", KL, sample_weight=s, **keywords),
            value("kl_div", KL, sample_weight=full, **keywords),
        )
    rows = floats(unreduced("kl_div", KL).value).sum(axis=1)
    equal(value("kl_div", KL, sample_weight=s, reduction="batchmean"), (s * rows).sum() / s.sum())
    square = np.arange(4.0).reshape(2, 2), np.zeros((2, 2))
    equal(value("l1_loss", square, sample_weight=s, reduction="sum"), 2 * 1 + 3 * 5)


def test_batchmean_of_nothing():
    assert value("kl_div", (np.empty((3, 0)), np.empty((3, 0))), reduction="batchmean") == 0
    assert np.isnan(value("kl_div", (np.empty((0, 3)), np.empty((0, 3))), reduction="batchmean"))


@pytest.mark.parametrize("loss", ["mse_loss", "gaussian_nll_loss", "margin_ranking_loss"])
def test_gradients_add_up_over_broadcasting(loss):
    arrays = list(operands(loss))
    reference = REFERENCES[loss]
    for i, name in enumerate(reference.operands):
        if name == "var":
            continue
        single = [*arrays]
        single[i] = A(arrays[i][0])
        spread = [*arrays]
        spread[i] = np.full_like(arrays[i], arrays[i][0])
        if name in reference.differentiable:
            one = reduced(loss, single)[1][name]
            many = reduced(loss, spread)[1][name]
            assert one.value.shape == ()
            with mp.workprec(references.BITS):
                error = abs(one.value.item() - many.value.sum())
                assert error <= mpf(2) ** -150 * one.term.item()
                equal(one.term.item(), many.term.sum())


@pytest.mark.parametrize(
    ("shape", "var"),
    [
        ((2, 3), (2, 3)),
        ((2, 3), (2,)),
        ((2, 3), (2, 1)),
        ((2, 3), (1, 3)),
        ((2, 3), ()),
        ((3,), ()),
        ((3,), (1,)),
        ((3, 3), (3,)),
        ((4, 3, 2, 2), (4, 1, 2, 2)),
        ((), ()),
    ],
)
def test_shapes_of_var(shape, var):
    rng = np.random.default_rng(1)
    x, y, v = rng.normal(size=shape), rng.normal(size=shape), rng.uniform(0.5, 2, var)
    aligned = v.reshape(*var, 1) if var and len(var) < len(shape) else v
    spread = np.broadcast_to(aligned, shape)
    number, gradients = reduced("gaussian_nll_loss", (x, y, v))
    plain, expected = reduced("gaussian_nll_loss", (x, y, spread))
    equal(number.value, plain.value)
    summed = floats(expected["var"].value)
    axes = tuple(i for i in range(len(shape)) if not var or (*aligned.shape,)[i] < shape[i])
    equal(gradients["var"].value, summed.sum(axis=axes, keepdims=True).reshape(var))
    assert gradients["var"].value.shape == var


def test_class_axis():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 3, 4)), rng.integers(0, 3, (2, 4))
    flat = x.transpose(0, 2, 1).reshape(-1, 3), y.ravel()
    for loss in ("nll_loss", "cross_entropy"):
        (number, gradients), (plain, expected) = reduced(loss, (x, y)), reduced(loss, flat)
        equal(number.value, plain.value)
        equal(
            gradients["input"].value,
            expected["input"].value.reshape(2, 4, 3).transpose(0, 2, 1),
        )


def test_options_are_read_in_the_compute_type():
    x, y = np.float32([0.1]), np.float32([-1])
    assert gradient("hinge_embedding_loss", (x, y), "input", margin=0.1) == [-1]
    assert value("hinge_embedding_loss", (x, y), margin=0.1) == 0
    assert value("hinge_embedding_loss", (x.astype(float), y), margin=0.1) == 0
    assert value("l1_loss", (x, 0.1)) == 0
    assert references.compute_dtype("mse_loss", (x, y)) == np.float32
    assert references.compute_dtype("mse_loss", (x.astype(np.float16), 1.0)) == np.float32
    assert references.compute_dtype("mse_loss", (x, y.astype(float))) == np.float64
    assert references.compute_dtype("mse_loss", (A([1, 2]), np.float32([1, 2]))) == np.float64
    assert references.compute_dtype("cross_entropy", (x, A(0))) == np.float32


def test_excess_measures_against_the_promise():
    for dtype in (np.float32, np.float64):
        number = unreduced("l1_loss", (A([3.0, 0, INF, NAN, 1e-320]), np.zeros(5)))
        eps, small = np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal
        exact = A([3.0, 0, INF, NAN, 1e-320]).astype(dtype)
        assert (references.excess(exact, number, dtype) <= 0.25).all()
        off = exact + dtype(2) * A([4 * eps, 4 * small, 0, 0, 4 * small]).astype(dtype)
        found = references.excess(off, number, dtype)
        np.testing.assert_allclose(found, [2 / 3, 2, 0, 0, 2], rtol=0.3)
        wrong = references.excess(A([NAN, INF, 1, 1, -INF], dtype), number, dtype)
        assert (wrong > 1).all()
    arrays, options = (A([1.0, 2.0]), A([0.0, 0.0])), {"sample_weight": A([0.0, 1.0])}
    number, gradients = reduced("mse_loss", arrays, {**options, "reduction": "none"})
    assert (references.excess(A([0.0, 4]), number, float) == 0).all()
    assert (references.excess(A([1e-300, 4]), gradients["input"], float) > 1).tolist() == [
        True,
        False,
    ]
    tail = unreduced("kl_div", (A([0.0]), A([-INF])), {"log_target": True})
    assert references.excess(A([1e-300]), tail, float) > 1
    huge = unreduced("mse_loss", (A([1e30]), A([0.0])))
    assert references.excess(A([INF], np.float32), huge, np.float32) == 0


def test_every_row_of_the_table_is_whole():
    for loss, reference in REFERENCES.items():
        named = {n for names in reference.terms for n in names.split(", ")}
        assert named == {"value", *reference.differentiable}, loss
        assert reference.formula.__doc__
        assert set(reference.differentiable) <= set(reference.operands)


# ---- torch ---------------------------------------------------------------------------------------

TORCH_CASES = [
    (loss, options, reduction)
    for loss, options in CASES
    for reduction in ("none", "mean", "sum", *(["batchmean"] if loss == "kl_div" else []))
    if loss != "log_cosh_loss"  # which torch has not
]


@pytest.mark.parametrize(("loss", "options", "reduction"), TORCH_CASES)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_torch_agrees(loss, options, reduction):
    torch = pytest.importorskip("torch")
    reference, arrays = REFERENCES[loss], operands(loss, seed=1)
    function = getattr(torch.nn.functional, loss)
    weights = [{}]
    if loss in ("nll_loss", "cross_entropy"):
        w = A([0.5, 1, 1.5, 2, 0.25, 3])
        weights += [{"weight": w}, {"weight": w, "ignore_index": 2}, {"ignore_index": 4}]
    elif loss.startswith(("binary", "l1", "mse", "huber")):
        weights += [{"weight": np.linspace(0.5, 2, len(arrays[0]))}]
    if loss.endswith("logits"):
        weights += [{**weights[1], "pos_weight": np.linspace(2, 0.5, len(arrays[0]))}]

    for extra in weights:
        keywords = {**options, **extra, "reduction": reduction}
        tensors = [torch.tensor(a) for a in arrays]
        for name, tensor in zip(reference.operands, tensors, strict=True):
            tensor.requires_grad_(name in reference.differentiable)
        theirs = function(
            *tensors,
            **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in keywords.items()},
        )
        upstream = np.linspace(-1, 2, theirs.numel()).reshape(theirs.shape) + 0.1
        theirs.backward(torch.tensor(upstream))
        number, gradients = reduced(loss, arrays, {**keywords, "grad_output": upstream})
        np.testing.assert_allclose(floats(number.value), theirs.detach(), rtol=1e-12, atol=1e-14)
        assert tuple(gradients) == reference.differentiable
        for name, tensor in zip(reference.operands, tensors, strict=True):
            if name in gradients:
                found = floats(gradients[name].value)
                np.testing.assert_allclose(found, tensor.grad, rtol=1e-12, atol=1e-14)
