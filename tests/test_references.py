"""The references: published values, finite differences, more digits, torch, scikit-learn."""

import inspect
from functools import partial

import numpy as np
import pytest
from mpmath import mp, mpf

import fastloss as fl
from benchmarks import with_numpy
from tests import references
from tests.cases import CASES, LOSSES
from tests.domains import Domain, weight_of
from tests.references import REFERENCES, reduced, sums, unreduced

INF, NAN = np.inf, np.nan
A = np.array


def floats(array):
    return np.asarray(array, dtype=object).astype(float)


def value(loss, arrays, **options):
    return floats(reduced(loss, arrays, options)[0].value)


def gradient(loss, arrays, argument, **options):
    return floats(reduced(loss, arrays, options)[1][argument].value)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


# Options that reach every branch of a formula; `tests.cases` does not have them.
MORE_OPTIONS = {
    "smooth_l1_loss": [{"beta": 0.4}],
    "huber_loss": [{"delta": 0.4}],
    "poisson_nll_loss": [
        {"log_input": log_input, "full": full, "eps": 1e-3}
        for log_input in (True, False)
        for full in (False, True)
    ],
    "sigmoid_focal_loss": [{"gamma": 0.7, "alpha": 0.6}, {"gamma": 0.0}],
    "triplet_margin_loss": [
        {"p": p, "swap": swap, "eps": 0.01, "margin": 1.3}
        for p in (0.5, 1.0, 1.5, 2.0, 3.0, INF)
        for swap in (False, True)
    ],
    "ctc_loss": [{"batch_first": True, "zero_infinity": True}],
    "ctc_loss_with_logits": [{"batch_first": True}],
}


def with_scalars_only():
    """The cases whose options are scalars of the formula; sequences have the batch first."""
    chosen = list(CASES)
    for loss in LOSSES:
        for options in MORE_OPTIONS.get(loss, []):
            formula = getattr(fl, loss).formula_of(**options)
            like = next(c for c in CASES if c.loss == loss and c.formula == formula)
            chosen.append(like._replace(options=options))
    chosen = [c for c in chosen if not any(isinstance(v, Domain) for v in c.options.values())]
    chosen = [c for c in chosen if "ignore_index" not in c.options]
    return [c for c in chosen if c.unit != "sequence" or c.options.get("batch_first")]


def operands(case, seed=0):
    """Typical operands, which are away from kinks."""
    rng = np.random.default_rng([seed, *case.id.encode()])
    size = {"element": 24, "row": 8, "sequence": 5}[case.unit]
    return case.typical(rng, (size,), np.float64)


def operands_of_loss(loss, seed=0):
    return operands(next(c for c in CASES if c.loss == loss), seed)


SCALAR_CASES = with_scalars_only()
cases = pytest.mark.parametrize("case", SCALAR_CASES, ids=lambda case: case.id)


# ---- Published values ----------------------------------------------------------------------------

D, W = (A([1.0, 2, 3]), np.zeros(3)), A([1.0, 0, 3])
POISSON = A([0.5, 1, -1, 0, 2]), A([0, 1, 2, 3, 0.5])
KL = A([[-1.0, -2, -3], [-4, -5, -6]]), A([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
NLL = A([[-1.0, -2, -3], [-4, -5, -6]]), A([0, 2])
CE = A([[1.0, 2, 3], [4, 1, 0]]), A([0, 2])
W3 = A([1.0, 2, 3])
SOFT = A([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
MULTI = A([[0.1, 0.2, 0.4, 0.8], [1, 0, 0.5, 1]]), A([3, 0])
INDEPENDENT = A([[0.1, 0.2, 0.4], [-1, 0, 0.5]]), A([[1.0, 0, 1], [0, 1, 1]])
TRIPLETS = A([[0.0, 0], [1, 1]]), A([[1.0, 2], [0, 3]]), A([[2.0, 1], [1, 1.5]])
UNIFORM = np.full((4, 3), -np.log(3))
GOLDEN = [  # results of torch 2.13.0, unless a comment says otherwise
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
    ("gaussian_nll_loss", ([1.0], [0.0], [0.0]), {"eps": 0.0}, INF),  # the limit; torch: NaN
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
    ("cross_entropy", (CE[0], SOFT), {"reduction": "none"}, [1.1076060, 3.5658839]),
    ("cross_entropy", (CE[0], SOFT), {}, 2.3367449),
    ("cross_entropy", (CE[0], SOFT), {"weight": W3}, 6.1576901),
    ("cross_entropy", (CE[0], SOFT), {"weight": W3, "label_smoothing": 0.1}, 5.9559368),
    ("cross_entropy", ([[1.0, -INF]], A([[1.0, 0.0]])), {}, 0),  # torch: NaN
    ("cross_entropy", ([[1.0, -INF]], A([[0.0, 1.0]])), {}, INF),
    ("cross_entropy", ([[1.0, NAN]], A([[1.0, 0.0]])), {}, NAN),
    ("multi_margin_loss", MULTI, {"reduction": "none"}, [0.325, 0.375]),
    ("multi_margin_loss", MULTI, {"p": 2, "reduction": "none"}, [0.1525, 0.3125]),
    ("multi_margin_loss", MULTI, {"weight": A([1.0, 2, 3, 4])}, 0.8375),
    ("multi_margin_loss", ([1.0, NAN], A(0)), {}, NAN),  # torch: 0
    ("multilabel_margin_loss", (MULTI[0][0], A([3, 0, -1, 1])), {}, 0.85),
    ("multilabel_margin_loss", (MULTI[0][0], A([3, 3, -1, -1])), {}, 0.65),
    ("multilabel_margin_loss", (MULTI[0][0], A([-1, 3, -1, -1])), {}, 0),
    ("multilabel_soft_margin_loss", INDEPENDENT, {"reduction": "none"}, [0.6518503, 0.4934953]),
    ("multilabel_soft_margin_loss", INDEPENDENT, {}, 0.5726728),
    # torch: NaN
    ("multilabel_soft_margin_loss", ([INF, -INF], [1.0, 0]), {}, 0),
    ("cosine_embedding_loss", ([0.0, 0], [1.0, 0], 1.0), {}, 1),
    ("cosine_embedding_loss", ([0.0, 0], [1.0, 0], -1.0), {}, 0),
    ("cosine_embedding_loss", ([1e-6, 0], [1e-6, 0], 1.0), {}, 0.5),
    ("cosine_embedding_loss", ([1e200, 0], [1e200, 0], 1.0), {"reduction": "sum"}, 0),  # torch: NaN
    ("triplet_margin_loss", TRIPLETS, {"reduction": "none"}, [1.0, 2.7360685302855967]),
    ("triplet_margin_loss", TRIPLETS, {}, 1.8680342651427984),
    ("ctc_loss", (UNIFORM, A([1, 2]), A(4), A(2)), {"reduction": "sum"}, 1.6863989535702288),
    ("ctc_loss", (UNIFORM, A([1, 1]), A(4), A(2)), {"reduction": "sum"}, 2.7850112422383386),
    ("ctc_loss", (UNIFORM, A([], int), A(4), A(0)), {}, 4.394449154672439),
    ("ctc_loss", (UNIFORM, A([1, 1, 1]), A(4), A(3)), {}, INF),
    ("ctc_loss", (UNIFORM, A([1, 1, 1]), A(4), A(3)), {"zero_infinity": True}, 0),
    ("ctc_loss", (UNIFORM, A([1, 2]), A(4), A(2)), {}, 1.6863989535702288 / 2),
    ("ctc_loss", (UNIFORM, A([], int), A(0), A(0)), {}, 0),
    ("ctc_loss_with_logits", (0 * UNIFORM, A([1, 1]), A(4), A(2)), {"blank": 0}, 1.3925056),
    ("sigmoid_focal_loss", ([0.0, 100], [1.0, 1]), {"reduction": "sum"}, 0.0433217),
    ("sigmoid_focal_loss", ([INF, -INF], [1.0, 0]), {}, 0),
    ("sigmoid_focal_loss", ([-INF], [1.0]), {}, INF),
    ("pinball_loss", ([1.0, 0], [0.0, 1]), {"quantile": 0.9, "reduction": "none"}, [0.1, 0.9]),
    ("gamma_nll_loss", ([0.0], [2.0]), {}, 2),
    ("gamma_nll_loss", ([2.0], [1.0]), {"log_input": False}, np.log(2) + 0.5),
    ("tweedie_deviance_loss", ([2.0], [0.0]), {"power": 1.0}, 4),
    ("tweedie_deviance_loss", ([2.0], [0.0]), {"power": 1.5}, 4 * np.sqrt(2)),
    (
        "tweedie_deviance_loss",
        ([2.0], [-3.0]),
        {"power": -1.0},
        2 * (6 + 8 / 3),
    ),
]

TINY = float(np.float32(1e-12))
SMALL = np.sqrt(TINY)
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
    ("cross_entropy", ([[1.0, -INF]], A([[1.0, 0]])), "input", {}, [[0, 0]]),
    ("cross_entropy", ([[1.0, -INF]], A([[1.0, 0]])), "target", {}, [[0, INF]]),
    ("multi_margin_loss", ([1.0, 0, 3], A(0)), "input", {}, [-1 / 3, 0, 1 / 3]),
    ("multi_margin_loss", ([1.0, NAN, 3], A(0)), "input", {}, [NAN, NAN, NAN]),
    (
        "multilabel_margin_loss",
        (MULTI[0][0], A([3, 0, -1, 1])),
        "input",
        {},
        [-0.5, 0.5, 0.5, -0.5],
    ),
    (
        "cosine_embedding_loss",
        ([0.0, 0], [3.0, 4], 1.0),
        "input1",
        {},
        [-0.6 / SMALL, -0.8 / SMALL],
    ),
    ("cosine_embedding_loss", ([1.0, 0], [0.0, 1], -1.0), "input1", {}, [0, 1]),
    ("triplet_margin_loss", ([1.0], [1.0], [5.0]), "positive", {"margin": 5.0, "eps": 0.5}, [-1]),
    ("triplet_margin_loss", ([0.0], [1.0], [3.0]), "anchor", {"margin": 2.0, "eps": 0.0}, [0]),
    (
        "triplet_margin_loss",
        ([3.0, -3], [0.0, 0], [9.0, 0]),
        "positive",
        {"p": INF, "eps": 0.0, "margin": 9.0},
        [-0.5, 0.5],
    ),
    (
        "triplet_margin_loss",
        ([0.0], [0.0], [2.0]),
        "anchor",
        {"swap": True, "eps": 0.0, "margin": 3.0},
        [0.5],
    ),
    ("pinball_loss", ([1.0, 0, 1], [0.0, 1, 1]), "input", {"reduction": "sum"}, [0.5, -0.5, 0]),
    ("sigmoid_focal_loss", ([INF, -INF], [1.0, 1]), "input", {"reduction": "sum"}, [0, -0.25]),
    ("tweedie_deviance_loss", ([2.0], [0.0]), "target", {"power": 1.5}, [-INF]),
]


@pytest.mark.parametrize(("loss", "arrays", "options", "expected"), GOLDEN)
def test_golden_values(loss, arrays, options, expected):
    np.testing.assert_allclose(value(loss, arrays, **options), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("loss", "arrays", "argument", "options", "expected"), GOLDEN_GRADIENTS)
def test_golden_gradients(loss, arrays, argument, options, expected):
    result = gradient(loss, arrays, argument, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=0)


def test_clamped_gradient_to_its_last_digits():
    slope = gradient("binary_cross_entropy", ([0.0], [1.0]), "input")
    np.testing.assert_allclose(slope, [-1000000003995.80], rtol=1e-14)


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


@cases
@pytest.mark.complete_only
def test_gradients_are_finite_differences(case):
    """Each entry of each operand is changed alone.

    A log-probability cannot be changed alone; the logits are, of which the frame is the
    log-softmax.
    """
    arrays, reference = operands(case), REFERENCES[case.loss]
    names = [*reference.operands, *reference.extra]
    formula = reference.probabilities if case.has_probabilities else reference.formula
    scalars = {
        k: mpf(v) if type(v) is float else v for k, v in case.options.items() if k != "batch_first"
    }
    with mp.workprec(references.BITS):
        h = mpf(2) ** -50
        for i in range(len(arrays[-1])):
            entry = [numbers(a[i]) for a in arrays]
            if case.unit == "sequence":
                entry = [entry[0][: entry[2]], entry[1][: entry[3]]]
                if case.normalised:
                    entry[0] = [log_softmaxed(frame) for frame in entry[0]]
            else:
                entry += [numbers(weights_like(arrays[0][i]))] * len(reference.extra)
            _, gradients = formula(*entry, **scalars)
            for name, gradient in gradients.items():
                k = names.index(name)
                shape = np.shape(arrays[k][i])
                if case.unit == "sequence":
                    shape = (len(entry[0]), shape[-1])
                for index in np.ndindex(shape):

                    def function(step, index=index, k=k, entry=entry):
                        changed = [*entry]
                        changed[k] = stepped(entry[k], index, step)
                        if case.normalised:
                            changed[k] = [log_softmaxed(frame) for frame in changed[k]]
                        return formula(*changed, **scalars)[0].value

                    number = gradient
                    for axis in index:
                        number = number[axis]
                    if not mp.isfinite(number.value):
                        continue
                    error = abs((function(h) - function(-h)) / (2 * h) - number.value)
                    assert error < mpf(2) ** -75 * max(1, number.term) * 100, (name, i, index)


def numbers(array):
    """The entries as mpf or int, in nested lists."""
    if np.ndim(array):
        return [numbers(part) for part in array]
    return int(array) if np.asarray(array).dtype.kind in "iu" else mpf(float(array))


def weights_like(entry):
    return np.linspace(0.5, 3, len(entry)) if np.ndim(entry) else 1.25


def stepped(entry, index, step):
    """A nested list with `step` added to the number at this index."""
    if not index:
        return entry + step
    first, *others = index
    return [stepped(e, others, step) if i == first else e for i, e in enumerate(entry)]


def log_softmaxed(frame):
    log_sum = mp.log(mp.fsum(map(mp.exp, frame)))
    return [v - log_sum for v in frame]


@cases
@pytest.mark.complete_only
def test_more_digits_change_nothing(case, monkeypatch):
    """The working precision suffices at all magnitudes: 300 more bits give the same numbers."""
    rng = np.random.default_rng([5, *case.id.encode()])
    arrays = case.adversarial(rng, 12 if case.unit == "sequence" else 40, np.float64)
    loss, options = case.loss, {**case.options, "reduction": "none"}
    before = reduced(loss, arrays, options)
    monkeypatch.setattr(references, "BITS", 500)
    monkeypatch.setattr(references, "DEEPEST", 3000)
    for cache in (references._elements, references._rows, references._sequences):
        monkeypatch.setattr(references, cache.__name__, cache.__wrapped__)
    after = reduced(loss, arrays, options)
    for a, b in [(before[0], after[0]), *((g, after[1][k]) for k, g in before[1].items())]:
        fields = a.value.flat, b.value.flat, a.term.flat, np.maximum(a.exponent, b.exponent).flat
        for value, other, term, exponent in zip(*fields, strict=True):
            if exponent >= mpf(2) ** 53:
                continue  # so near a kink that either derivative is accepted
            if mp.isfinite(value):
                assert abs(value - other) <= mpf(2) ** -150 * term + mpf(2) ** -2000
            else:
                assert str(value) == str(other)


# ---- Arrays --------------------------------------------------------------------------------------


def equal(left, right, rtol=1e-14):
    np.testing.assert_allclose(floats(left), floats(right), rtol=rtol, atol=1e-300)


@cases
def test_weights_repeat_entries(case):
    """A sample weight of 0, 1 or 2 is equivalent to that number of copies of the entry."""
    loss, options, arrays = case.loss, case.options, operands(case)
    n = len(arrays[-1])
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
            active = times > 0
            expected = (floats(plain[1][name].value)[first].T * times[active]).T
            equal(number.value[active], expected)
            assert not floats(number.value[~active]).any()


@cases
def test_removed_entries_may_hold_anything(case):
    loss, options, arrays = case.loss, case.options, operands(case)
    n = len(arrays[-1])
    weight = np.where(np.arange(n) % 4 == 1, 0.0, 1.5)
    with_nan = [a.copy() for a in arrays]
    for array in with_nan:
        if array.dtype.kind == "f":
            array[weight == 0] = NAN
    keywords = {**options, "sample_weight": weight}
    expected, number = (reduced(loss, a, keywords) for a in (arrays, with_nan))
    equal(number[0].value, expected[0].value)
    for name in expected[1]:
        equal(number[1][name].value, expected[1][name].value)
    assert sums(loss, with_nan, keywords)[1:] == (1.5 * (weight > 0).sum(), (weight > 0).sum())


@cases
def test_all_removed_and_empty(case):
    loss, options, arrays = case.loss, case.options, operands(case)
    removed = {**options, "sample_weight": np.zeros(len(arrays[-1]))}
    number, gradients = reduced(loss, arrays, removed)
    assert mp.isnan(number.value)
    assert all(not floats(g.value).any() for g in gradients.values())
    assert sums(loss, arrays, removed) == (0, 0, 0)

    empty = [a[:0] for a in arrays]
    number, gradients = reduced(loss, empty, options)
    assert mp.isnan(number.value)
    assert reduced(loss, empty, {**options, "reduction": "sum"})[0].value == 0
    for name, number in gradients.items():
        assert number.value.shape == empty[REFERENCES[loss].operands.index(name)].shape
    assert unreduced(loss, empty, options).value.shape == (0,)


@cases
def test_sums_and_reductions_agree(case):
    loss, options, arrays = case.loss, case.options, operands(case)
    keywords = {**options, "sample_weight": np.linspace(0.5, 2, len(arrays[-1]))}
    added, weight, count = sums(loss, arrays, keywords)
    assert count == len(arrays[-1])
    equal(reduced(loss, arrays, keywords)[0].value, added / weight)
    if case.unit != "sequence":  # whose mean divides by the labels
        equal(reduced(loss, arrays, {**keywords, "reduction": "sum"})[0].value, added)
        equal(unreduced(loss, arrays, keywords).value.sum(), added)


@cases
def test_grad_output_multiplies(case):
    loss, options, arrays = case.loss, case.options, operands(case)
    array = np.linspace(-1, 2, len(arrays[-1]))
    for reduction, grad_output in (("mean", 2.5), ("sum", -3.0), ("none", array)):
        keywords = {**options, "reduction": reduction}
        plain = reduced(loss, arrays, keywords)[1]
        scaled = reduced(loss, arrays, {**keywords, "grad_output": grad_output})[1]
        for name in plain:
            equal(scaled[name].value, (plain[name].value.T * grad_output).T)


def test_divisors():
    x, y = operands_of_loss("l1_loss")
    w, s = np.linspace(0, 3, len(x)), np.linspace(1, 2, len(x))
    d = np.abs(x - y)
    both = {"weight": w, "sample_weight": s}
    equal(value("l1_loss", (x, y), **both), (s * w * d).sum() / (s * w).sum())
    equal(value("mse_loss", (x, y), **both), (s * w * d * d).sum() / (s * w).sum())
    huber = np.where(d < 1, d * d / 2, d - 0.5)
    equal(value("huber_loss", (x, y), **both), (s * w * huber).sum() / s.sum())
    assert sums("l1_loss", (x, y), both)[2] == len(x) - 1

    x, y = operands_of_loss("cross_entropy")
    y = A([0, 3, 1, 2, 0, 6, 3, 5])
    w = np.linspace(0, 3, 7)
    rows = floats(unreduced("cross_entropy", (x, y)).value)
    s = np.linspace(1, 2, len(y))
    active = y != 3
    equal(
        value("cross_entropy", (x, y), weight=w, sample_weight=s, ignore_index=3),
        (s * w[y] * rows)[active].sum() / (s * w[y])[active].sum(),
    )
    equal(sums("nll_loss", (x, y), {"weight": w})[1], w[y].sum())
    assert (
        sums("nll_loss", (x, y), {"weight": w, "ignore_index": 3})[2] == (active & (y != 0)).sum()
    )
    # With smoothing the other classes count even if the weight of the label is 0.
    equal(
        unreduced("cross_entropy", (x[:1], [0]), {"weight": w, "label_smoothing": 0.5}).value,
        [0.5 / 7 * (w * (np.log(np.exp(x[0]).sum()) - x[0])).sum()],
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


def test_batchmean_of_empty_arrays():
    assert value("kl_div", (np.empty((3, 0)), np.empty((3, 0))), reduction="batchmean") == 0
    assert np.isnan(value("kl_div", (np.empty((0, 3)), np.empty((0, 3))), reduction="batchmean"))


@pytest.mark.parametrize("loss", ["mse_loss", "gaussian_nll_loss", "margin_ranking_loss"])
def test_gradients_are_summed_over_broadcasting(loss):
    arrays = list(operands_of_loss(loss))
    reference = REFERENCES[loss]
    for i, name in enumerate(reference.operands):
        if name == "var":
            continue
        broadcast = [*arrays]
        broadcast[i] = A(arrays[i][0])
        full = [*arrays]
        full[i] = np.full_like(arrays[i], arrays[i][0])
        if name in reference.differentiable:
            number = reduced(loss, broadcast)[1][name]
            entries = reduced(loss, full)[1][name]
            assert number.value.shape == ()
            with mp.workprec(references.BITS):
                error = abs(number.value.item() - entries.value.sum())
                assert error <= mpf(2) ** -150 * number.term.item()
                equal(number.term.item(), entries.term.sum())


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
    full = np.broadcast_to(aligned, shape)
    number, gradients = reduced("gaussian_nll_loss", (x, y, v))
    plain, expected = reduced("gaussian_nll_loss", (x, y, full))
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


def test_options_are_rounded_to_the_compute_type():
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


def test_excess_is_relative_to_the_promised_bound():
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


def test_registrations_are_complete():
    for loss, reference in REFERENCES.items():
        named = {n for names in reference.terms for n in names.split(", ")}
        assert named == {"value", *reference.differentiable}, loss
        assert reference.formula.__doc__
        assert set(reference.differentiable) <= set(reference.operands)


# ---- torch and scikit-learn ----------------------------------------------------------------------


def ctc_loss(torch, x, *others, batch_first, **options):
    return torch.nn.functional.ctc_loss(x.transpose(0, 1), *others, **options)


def ctc_loss_with_logits(torch, x, *others, **options):
    return ctc_loss(torch, torch.log_softmax(x, -1), *others, **options)


# Losses that are not functions of torch with the same arguments, by what they are there.
WITH_TORCH = {"ctc_loss": ctc_loss, "ctc_loss_with_logits": ctc_loss_with_logits}
TORCH = "torch.nn.functional"
TORCH_CASES = [
    pytest.param(case, reduction, id=f"{case.id}-{reduction}")
    for case in SCALAR_CASES
    for reduction in ("none", "mean", "sum", *(["batchmean"] if case.loss == "kl_div" else []))
    if REFERENCES[case.loss].source == TORCH or case.loss in WITH_TORCH
]


def with_weights(case):
    """The case, also with the weights and the `ignore_index` that its loss has."""
    loss = getattr(fl, case.loss)
    weights = [name for name in ("weight", "pos_weight") if name in loss.__signature__.parameters]
    options = [{}, *({name: weight_of(loss)} for name in weights)]
    if len(weights) == 2:
        options.append(dict.fromkeys(weights, weight_of(loss)))
    if case.ignored is not None:
        options += [o | {"ignore_index": 2} for o in options]
    for more in options:
        yield case._replace(options=case.options | more)


@pytest.mark.parametrize(("case", "reduction"), TORCH_CASES)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_torch_agrees(case, reduction):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[bench]'")
    reference, arrays = REFERENCES[case.loss], operands(case, seed=1)
    function = getattr(torch.nn.functional, case.loss, None)
    if case.loss in WITH_TORCH:
        function = partial(WITH_TORCH[case.loss], torch)
    rng = np.random.default_rng(1)
    for weighted in with_weights(case):
        units = (len(arrays[-1]),)
        keywords = weighted.keywords(rng, units, np.float64) | {"reduction": reduction}
        tensors = [torch.tensor(a) for a in arrays]
        named = dict(zip(reference.operands, tensors, strict=True))
        wrt = tuple(n for n in reference.differentiable if named[n].is_floating_point())
        for name in wrt:
            named[name].requires_grad_()
        result = function(
            *tensors,
            **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in keywords.items()},
        )
        grad_output = np.linspace(-1, 2, result.numel()).reshape(result.shape) + 0.1
        result.backward(torch.tensor(grad_output))
        number, gradients = reduced(case.loss, arrays, {**keywords, "grad_output": grad_output})
        np.testing.assert_allclose(floats(number.value), result.detach(), rtol=1e-11, atol=1e-13)
        assert tuple(gradients) == wrt
        for name in wrt:
            gradient = floats(gradients[name].value)
            np.testing.assert_allclose(gradient, named[name].grad, rtol=1e-11, atol=1e-13)


def test_sources_name_the_losses_of_torch():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[bench]'")
    functional = torch.nn.functional
    for loss, reference in REFERENCES.items():
        assert hasattr(functional, loss) == (reference.source == TORCH), loss


def formulas_of(torch):
    """Formulas, on tensors, of losses that torch does not have and that take options."""

    def focal(x, y, alpha=0.25, gamma=2.0):
        p = torch.sigmoid(x)
        ce = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
        wrong = 1 - p * y - (1 - p) * (1 - y)
        return ce * wrong**gamma * (alpha * y + (1 - alpha) * (1 - y) if alpha >= 0 else 1)

    return {
        "sigmoid_focal_loss": focal,
        "pinball_loss": lambda x, y, quantile=0.5: torch.maximum(
            quantile * (y - x), (quantile - 1) * (y - x)
        ),
        "gamma_nll_loss": lambda x, y, log_input=True: (
            x + y * torch.exp(-x) if log_input else torch.log(x) + y / x
        ),
    }


WITH_OPTIONS = ("sigmoid_focal_loss", "pinball_loss", "gamma_nll_loss")


def has_formula(case):
    """Whether a formula on tensors takes the options of the case."""
    if case.loss in WITH_OPTIONS:
        return True
    return (
        case.options.keys() <= inspect.signature(getattr(with_numpy, case.loss)).parameters.keys()
    )


OURS = [
    case
    for case in SCALAR_CASES
    if REFERENCES[case.loss].source != TORCH
    and case.unit == "element"
    and case.loss != "tweedie_deviance_loss"  # compared with scikit-learn
    and has_formula(case)
]


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.id)
def test_formulas_on_tensors_agree(case):
    """Losses that torch does not have: the formula of the benchmarks, differentiated by torch."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[bench]'")
    formula = formulas_of(torch).get(case.loss)
    if formula is None:

        def formula(*tensors, **options):
            return getattr(with_numpy, case.loss)(*tensors, **options, xp=torch)[0]

    arrays = operands(case, seed=1)
    wrt = REFERENCES[case.loss].differentiable
    tensors = [
        torch.tensor(a, requires_grad=name in wrt)
        for name, a in zip(REFERENCES[case.loss].operands, arrays, strict=True)
    ]
    result = formula(*tensors, **case.options)
    result.sum().backward()
    number, gradients = reduced(case.loss, arrays, {**case.options, "reduction": "none"})
    np.testing.assert_allclose(floats(number.value), result.detach(), rtol=1e-11, atol=1e-13)
    for name, tensor in zip(REFERENCES[case.loss].operands, tensors, strict=True):
        if name in wrt:
            gradient = floats(gradients[name].value)
            np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-10, atol=1e-12)


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    x, y = np.random.default_rng(1).uniform(0.05, 0.95, (2, 24))
    for power in (-1.5, 0.0, 1.0, 1.5, 2.0, 3.0):
        theirs = metrics.mean_tweedie_deviance(y, x, power=power)
        np.testing.assert_allclose(value("tweedie_deviance_loss", (x, y), power=power), theirs)
    for quantile in (0.5, 0.9):
        theirs = metrics.mean_pinball_loss(y, x, alpha=quantile)
        np.testing.assert_allclose(value("pinball_loss", (x, y), quantile=quantile), theirs)
