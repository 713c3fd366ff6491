"""Linear models and scorers, against scikit-learn's models and scores for the same objectives."""

import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
import sklearn
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_array
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import RFE
from sklearn.linear_model import (
    BayesianRidge,
    GammaRegressor,
    HuberRegressor,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.metrics import (
    hinge_loss,
    log_loss,
    mean_gamma_deviance,
    mean_pinball_loss,
    mean_poisson_deviance,
    mean_squared_error,
    mean_tweedie_deviance,
)
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastloss as fl
from fastloss.sklearn import LossClassifier, LossRegressor, make_scorer

ROOT = Path(__file__).resolve().parent.parent
EXACT = {"tol": 1e-8, "max_iter": 20000}
HINGE = fl.MarginRankingLoss(margin=1.0)
pytestmark = pytest.mark.rotate("model")  # by default, a test of several models takes one


@pytest.fixture(autouse=True)
def convergence_warnings_are_errors():
    """A model that does not converge fails its test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


@pytest.fixture(scope="module")
def two():
    """Standardised features of tumours of two classes."""
    X, y = load_breast_cancer(return_X_y=True)
    return scale(X[:, :10]), y


@pytest.fixture(scope="module")
def three():
    """Irises of three classes, with strings as labels that are not in the order of the data."""
    X, y = load_iris(return_X_y=True)
    return X, np.array(["virginica", "setosa", "versicolor"])[y]


@pytest.fixture(scope="module")
def values():
    """Progress of a disease, which is positive, and standardised features without collinearity."""
    X, y = load_diabetes(return_X_y=True)
    return scale(X[:, [0, 1, 2, 3, 8]]), y / 100


def assert_same_model(model, expected, tolerance=1e-6):
    """Compare coefficients and intercepts, relative to the largest coefficient."""
    scale = np.abs(expected.coef_).max()
    for name in ("coef_", "intercept_"):
        a, b = (np.atleast_1d(getattr(m, name)).squeeze() for m in (model, expected))
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


# --- scikit-learn's own checks --------------------------------------------------------------------


def expected_failures(model):
    """Checks whose data are not valid for the model."""
    if isinstance(model.criterion, fl.PoissonNLLLoss):
        return {"check_regressor_multioutput": "the targets are negative"}
    if sklearn.__version__.startswith("1.6.") and isinstance(
        model.criterion, (fl.BCEWithLogitsLoss, fl.MarginRankingLoss)
    ):
        name = "check_sample_weight_equivalence_on_{}_data"
        reason = "the labels are reduced to two classes after shuffling"
        return {name.format(kind): reason for kind in ("dense", "sparse")}
    return {}


@parametrize_with_checks([LossClassifier(), LossRegressor()])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@parametrize_with_checks(
    [
        LossClassifier(fl.BCEWithLogitsLoss()),
        LossClassifier(HINGE),
        # With a small penalty the minimum is flat, and weights and repeated rows are compared to 7
        # digits.
        LossClassifier(fl.MultiMarginLoss(), alpha=0.1, tol=1e-9),
        LossRegressor(fl.PinballLoss(quantile=0.7)),
        LossRegressor(fl.PoissonNLLLoss()),
    ],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.complete_only
def test_scikit_learn_checks_of_other_criteria(estimator, check):
    check(estimator)


# --- classifiers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "criterion",
    [None, fl.BCEWithLogitsLoss(), fl.SoftMarginLoss(), fl.CrossEntropyLoss()],
    ids=repr,
)
@pytest.mark.parametrize("C", [0.1, 1.0])
def test_binary_criteria_are_logistic_regression(two, criterion, C):
    X, y = two
    model = LossClassifier(criterion, alpha=1 / (C * len(y)), **EXACT).fit(X, y)
    expected = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10).fit(X, y)
    assert_same_model(model, expected)
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X), atol=1e-5)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.score(X, y) == expected.score(X, y)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_cross_entropy_is_logistic_regression_of_three_classes(three, fit_intercept):
    X, y = three
    options = {"fit_intercept": fit_intercept}
    model = LossClassifier(fl.CrossEntropyLoss(reduction="sum"), alpha=2.0, **options, **EXACT)
    expected = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-10, **options)
    assert_same_model(model.fit(X, y), expected.fit(X, y))
    assert list(model.classes_) == ["setosa", "versicolor", "virginica"]
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))


def test_class_weights(three):
    X, y = three
    weight = np.array([1.0, 2.0, 0.5])
    criterion = fl.CrossEntropyLoss(weight=weight, reduction="sum")
    model = LossClassifier(criterion, alpha=1.0, **EXACT).fit(X, y)
    expected = LogisticRegression(
        class_weight=dict(zip(model.classes_, weight, strict=True)),
        solver="newton-cholesky",
        tol=1e-10,
    )
    assert_same_model(model, expected.fit(X, y))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("class_weight", ["balanced", {"setosa": 3.0, "virginica": 0.5}])
def test_class_weight_of_a_classifier(three, class_weight, weighted, reduction):
    X, y = (array[:130] for array in three)
    sample_weight = np.linspace(0.5, 2, len(y)) if weighted else None
    rows = np.ones(len(y)) if sample_weight is None else sample_weight
    # scikit-learn 1.6 ignores sample weights in "balanced".
    of_class = {
        name: rows.sum() / (3 * rows[y == name].sum())
        if class_weight == "balanced"
        else class_weight.get(name, 1.0)
        for name in np.unique(y)
    }
    expected = LogisticRegression(
        C=2.0, class_weight=of_class, solver="newton-cholesky", tol=1e-10
    ).fit(X, y, sample_weight=sample_weight)
    criterion = fl.CrossEntropyLoss(reduction=reduction)
    alpha = 0.5
    if reduction == "mean":
        alpha /= sum(weight * rows[y == name].sum() for name, weight in of_class.items())
    model = LossClassifier(criterion, alpha=alpha, class_weight=class_weight, **EXACT)
    assert_same_model(model.fit(X, y, sample_weight=sample_weight), expected)


def test_class_weight_of_rows_without_weight(three):
    X, y = three
    weight = (y != "setosa") * np.linspace(0.5, 2, len(y))
    model = LossClassifier(class_weight="balanced", **EXACT).fit(X, y, sample_weight=weight)
    assert list(model.classes_) == ["versicolor", "virginica"]
    some = y != "setosa"
    expected = LossClassifier(class_weight="balanced", **EXACT)
    assert_same_model(model, expected.fit(X[some], y[some], sample_weight=weight[some]))
    without = LossClassifier(class_weight={"setosa": 0.0}, **EXACT).fit(X, y)
    assert_same_model(without, LossClassifier(**EXACT).fit(X[some], y[some]))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("balance", "class_weight is 'balance': it must be"),
        ({"setosa": 1.0, "daisy": 2.0}, "not in class_weight"),
        ({"setosa": -1.0}, "class_weight of 'setosa' is -1.0"),
    ],
)
def test_class_weight_that_is_not_valid(three, class_weight, message):
    with pytest.raises(ValueError, match=message):
        LossClassifier(class_weight=class_weight).fit(*three)


def test_label_smoothing_spreads_weight_over_the_classes(three):
    X, y = three
    smoothing = 0.2
    model = LossClassifier(
        fl.CrossEntropyLoss(label_smoothing=smoothing, reduction="sum"), alpha=1.0, **EXACT
    ).fit(X, y)
    labels = np.repeat(model.classes_, len(y))
    weight = smoothing / 3 + (1 - smoothing) * (labels == np.tile(y, 3))
    expected = LogisticRegression(solver="newton-cholesky", tol=1e-10)
    assert_same_model(model, expected.fit(np.tile(X, (3, 1)), labels, sample_weight=weight))


def test_focal_loss_with_gamma_0_is_logistic_regression(two):
    X, y = two
    criterion = fl.SigmoidFocalLoss(alpha=0.25, gamma=0.0, reduction="sum")
    model = LossClassifier(criterion, alpha=1.0, **EXACT).fit(X, y)
    expected = LogisticRegression(
        class_weight={0: 0.75, 1: 0.25}, solver="newton-cholesky", tol=1e-10
    )
    assert_same_model(model, expected.fit(X, y))


def hinge(X, y, coef, intercept, alpha):
    """The objective of a linear support vector machine, for y of 0 and 1."""
    scores = X @ coef.ravel() + intercept
    return np.maximum(0, 1 - (2 * y - 1) * scores).mean() + alpha / 2 * np.vdot(coef, coef)


@pytest.mark.parametrize("alpha", [1e-1, 1e-3])
def test_hinge_losses_are_support_vector_machines(two, alpha):
    X, y = two
    tol = 1e-7
    expected = SVC(kernel="linear", C=1 / (alpha * len(y)), tol=1e-8).fit(X, y)
    minimum = hinge(X, y, expected.coef_, expected.intercept_, alpha)
    for criterion, factor in [(HINGE, 1), (fl.MultiMarginLoss(), 2)]:  # the latter divides by C = 2
        model = LossClassifier(criterion, alpha=alpha / factor, tol=tol, max_iter=20000).fit(X, y)
        objective = hinge(X, y, model.coef_, model.intercept_, alpha)
        assert minimum - 1e-6 <= objective <= minimum + 2 * tol


def test_squared_hinge_is_linear_svc(two):
    X, y = two
    model = LossClassifier(
        fl.MultiMarginLoss(p=2, reduction="sum"), alpha=1.0, fit_intercept=False, **EXACT
    )
    expected = LinearSVC(C=0.5, fit_intercept=False, tol=1e-10, max_iter=10**5)
    assert_same_model(model.fit(X, y), expected.fit(X, y))


def test_hinge_of_three_classes_is_a_linear_program():
    X, y = load_iris(return_X_y=True)
    X, y = X[::2], y[::2]
    n, features = X.shape
    columns = np.column_stack([X, np.ones(n)])
    rows = []  # the constraints slack[i, c] >= 1 - (score[i, y] - score[i, c])
    for i in range(n):
        for c in set(range(3)) - {y[i]}:
            row = np.zeros((3, features + 1))
            row[c], row[y[i]] = columns[i], -columns[i]
            rows.append(row.ravel())
    slack = -np.eye(2 * n)
    cost = np.r_[np.zeros(3 * (features + 1)), np.full(2 * n, 1 / (3 * n))]
    bounds = [(None, None)] * (3 * (features + 1)) + [(0, None)] * (2 * n)
    minimum = linprog(cost, np.hstack([rows, slack]), -np.ones(2 * n), bounds=bounds).fun
    model = LossClassifier(fl.MultiMarginLoss(), alpha=0.0, tol=1e-6, max_iter=20000).fit(X, y)
    objective = fl.multi_margin_loss(model.decision_function(X), y)
    assert minimum * (1 - 1e-9) <= objective <= minimum + 2e-6


def test_probabilities_need_logits(two):
    for criterion in (HINGE, fl.MultiMarginLoss()):
        model = LossClassifier(criterion).fit(*two)
        assert not hasattr(model, "predict_proba")
        assert not hasattr(model, "predict_log_proba")
    model = LossClassifier(fl.SoftMarginLoss()).fit(*two)
    assert np.isfinite(model.predict_log_proba(1e4 * two[0])).all()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(two[0])), model.predict_proba(two[0]))


def test_binary_criteria_in_one_vs_rest(three):
    model = OneVsRestClassifier(LossClassifier(fl.BCEWithLogitsLoss())).fit(*three)
    assert model.score(*three) > 0.95
    with pytest.raises(ValueError, match="takes two classes and y has 3; CrossEntropyLoss"):
        LossClassifier(fl.BCEWithLogitsLoss()).fit(*three)


# --- regressors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("outputs", [None, 1, 2])
def test_mse_is_ridge_regression(values, fit_intercept, outputs):
    X, y = values
    if outputs:
        y = np.column_stack([y, X[:, 0] - y**2])[:, :outputs]
    options = {"fit_intercept": fit_intercept}
    expected = Ridge(3.0, solver="cholesky", **options).fit(X, y)
    for criterion, alpha in [
        (fl.MSELoss(reduction="sum"), 6.0),
        (fl.MSELoss(), 6.0 / y.size),
    ]:
        model = LossRegressor(criterion, alpha=alpha, **options, **EXACT).fit(X, y)
        assert_same_model(model, expected)
        assert model.coef_.shape == (X.shape[1:] if outputs is None else (outputs, X.shape[1]))
        assert np.shape(model.intercept_) == (() if outputs is None else (outputs,))
        np.testing.assert_allclose(
            model.predict(X), expected.predict(X).reshape(y.shape), atol=1e-6
        )
        np.testing.assert_allclose(model.score(X, y), expected.score(X, y))


@pytest.mark.parametrize(
    ("criterion", "alpha", "expected"),
    [
        (fl.PoissonNLLLoss(), 0.1, PoissonRegressor(alpha=0.1)),
        (fl.PoissonNLLLoss(full=True), 0.0, PoissonRegressor(alpha=0.0)),
        (fl.GammaNLLLoss(), 0.1, GammaRegressor(alpha=0.1)),
        (fl.TweedieDevianceLoss(power=1.5), 0.2, TweedieRegressor(power=1.5, alpha=0.1)),
        (fl.TweedieDevianceLoss(power=3), 0.2, TweedieRegressor(power=3, alpha=0.1)),
        (fl.TweedieDevianceLoss(), 0.2, TweedieRegressor(power=0, alpha=0.1, link="log")),
    ],
    ids=repr,
)
def test_log_link_is_a_generalised_linear_model(values, criterion, alpha, expected):
    X, y = values
    weights = np.arange(len(y)) % 3
    expected = clone(expected).set_params(solver="newton-cholesky", tol=1e-10)
    expected.fit(X, y, sample_weight=weights)
    model = LossRegressor(criterion, alpha=alpha, tol=1e-8).fit(X, y, sample_weight=weights)
    assert_same_model(model, expected)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=1e-6)


def test_huber(values):
    X, y = values
    expected = HuberRegressor(epsilon=1.35, alpha=0.5, tol=1e-10, max_iter=10**5).fit(X, y)
    # With its scale s fixed, it minimises sum(2/s huber(r, epsilon s)) + alpha |w|^2.
    delta, alpha = 1.35 * expected.scale_, 0.5 * expected.scale_
    model = LossRegressor(fl.HuberLoss(delta=delta, reduction="sum"), alpha=alpha, **EXACT)
    assert_same_model(model.fit(X, y), expected, 1e-5)
    smooth = fl.SmoothL1Loss(beta=delta, reduction="sum")
    smooth_model = LossRegressor(smooth, alpha=alpha / delta, **EXACT)
    assert_same_model(smooth_model.fit(X, y), model)


def test_log_cosh(values):
    X, y = values

    def objective(variables):
        errors = X @ variables[1:] + variables[0] - y
        return np.log(np.cosh(errors)).mean() + 0.05 * (variables[1:] ** 2).sum()

    expected = minimize(objective, np.zeros(X.shape[1] + 1), tol=1e-12)
    model = LossRegressor(fl.LogCoshLoss(), alpha=0.1, **EXACT).fit(X, y)
    np.testing.assert_allclose(model.coef_, expected.x[1:], atol=1e-5)
    np.testing.assert_allclose(model.intercept_, expected.x[0], atol=1e-5)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.95])
def test_pinball_is_quantile_regression(values, quantile):
    X, y = values
    expected = QuantileRegressor(quantile=quantile, alpha=0.0).fit(X, y)
    minimum = mean_pinball_loss(y, expected.predict(X), alpha=quantile)
    for tol in (1e-4, 1e-8):
        model = LossRegressor(fl.PinballLoss(quantile=quantile), alpha=0.0, tol=tol).fit(X, y)
        objective = mean_pinball_loss(y, model.predict(X), alpha=quantile)
        assert minimum * (1 - 1e-12) <= objective <= minimum * (1 + 4 * tol)
    assert abs((y <= model.predict(X)).mean() - quantile) < X.shape[1] / len(y)


@pytest.mark.parametrize("criterion", [fl.L1Loss(), fl.SmoothL1Loss(beta=0.0)], ids=repr)
def test_absolute_error_is_support_vector_regression(values, criterion):
    X, y = values
    alpha = 0.05
    expected = SVR(kernel="linear", C=1 / (alpha * len(y)), epsilon=0.0, tol=1e-8).fit(X, y)
    model = LossRegressor(criterion, alpha=alpha, tol=1e-8).fit(X, y)
    objective, minimum = (
        np.abs(m.predict(X) - y).mean() + alpha / 2 * np.vdot(m.coef_, m.coef_)
        for m in (model, expected)
    )
    assert minimum * (1 - 1e-6) <= objective <= minimum * (1 + 1e-8)


# --- classifiers and regressors -------------------------------------------------------------------

MODELS = [
    LossClassifier(fl.CrossEntropyLoss(label_smoothing=0.1), alpha=0.01, tol=1e-8, max_iter=5000),
    LossClassifier(fl.MultiMarginLoss(p=2), alpha=0.1, tol=1e-8, max_iter=5000),
    LossClassifier(fl.MultiMarginLoss(), alpha=0.1, tol=1e-7, max_iter=20000),
    LossRegressor(fl.MSELoss(), alpha=0.01, tol=1e-8),
    LossRegressor(fl.PinballLoss(quantile=0.3), alpha=0.1, tol=1e-9, max_iter=5000),
    LossRegressor(fl.PoissonNLLLoss(), alpha=0.01, tol=1e-7),
]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: repr(m.criterion))


def data():
    """A third of the irises, whose classes 1, 2 and 3 also serve as targets of regressors."""
    X, y = load_iris(return_X_y=True)
    return X[::3], y[::3] + 1


def tolerance(model):
    """For the scores of two fits. A fit of a hinge loss is only accurate to the root of `tol`."""
    return 2e-3 if getattr(model.criterion, "p", None) == 1 else 1e-5


def predict_scores(model, X):
    return model.decision_function(X) if hasattr(model, "classes_") else model.predict(X)


@every_model
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_integer_weights_repeat_rows(model, reduction):
    X, y = data()
    weights = np.arange(len(y)) % 3
    rows = np.repeat(np.arange(len(y)), weights)
    model = clone(model).set_params(criterion__reduction=reduction)
    weighted = predict_scores(clone(model).fit(X, y, sample_weight=weights), X)
    repeated = predict_scores(model.fit(X[rows], y[rows]), X)
    np.testing.assert_allclose(weighted, repeated, atol=tolerance(model))


@every_model
def test_weight_0_removes_a_row(model):
    X, y = data()
    weight = y != 3
    X = np.where(weight[:, None], X, 1e300)
    weighted = clone(model).fit(X, y, sample_weight=weight)
    removed = clone(model).fit(X[weight], y[weight], sample_weight=np.ones(weight.sum()))
    np.testing.assert_array_equal(weighted.coef_, removed.coef_)
    np.testing.assert_array_equal(weighted.intercept_, removed.intercept_)
    with pytest.raises(ValueError, match=r"0 everywhere|at least one non-zero"):
        clone(model).fit(X, y, sample_weight=np.zeros(len(y)))


@every_model
def test_sparse_and_dense_features_agree(model):
    X, y = data()
    X = np.where(X > 1.5, X, 0)
    sparse, dense = clone(model).fit(csr_array(X), y), clone(model).fit(X, y)
    np.testing.assert_allclose(
        predict_scores(sparse, csr_array(X)), predict_scores(dense, X), atol=tolerance(model)
    )


@every_model
def test_float32_is_preserved(model):
    X, y = data()
    X = X.astype(np.float32)
    single = clone(model).set_params(tol=1e-4).fit(X, y)
    assert single.coef_.dtype == np.float32
    assert predict_scores(single, X).dtype == np.float32
    if hasattr(single, "predict_proba"):
        assert single.predict_proba(X).dtype == np.float32
    double = clone(model).set_params(tol=1e-4).fit(X.astype(np.float64), y)
    assert double.coef_.dtype == np.float64
    np.testing.assert_allclose(predict_scores(single, X), predict_scores(double, X), atol=0.02)


@every_model
def test_units_of_features_do_not_matter(model):
    X, y = data()
    units, shift = np.array([1e-6, 1.0, 1e3, 1e6]), np.array([1e-5, -3.0, 1e4, 0.0])
    model = clone(model).set_params(alpha=0.0 if isinstance(model, LossRegressor) else 1e-12)
    model.set_params(tol=1e-3, max_iter=20000)
    original = clone(model).fit(X, y)
    scaled = clone(model).fit(X * units + shift, y)
    if isinstance(model, LossRegressor):
        np.testing.assert_allclose(
            original.predict(X), scaled.predict(X * units + shift), rtol=1e-2
        )
    else:
        assert abs(original.score(X, y) - scaled.score(X * units + shift, y)) < 0.05


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("criterion", [fl.MSELoss(), fl.L1Loss(), fl.GammaNLLLoss()], ids=repr)
def test_unit_of_targets_does_not_matter(values, criterion, unit):
    X, y = values
    original = LossRegressor(criterion, alpha=0.0, tol=1e-6).fit(X, y)
    scaled = LossRegressor(criterion, alpha=0.0, tol=1e-6).fit(X, y * unit)
    np.testing.assert_allclose(original.predict(X) * unit, scaled.predict(X), rtol=1e-2)


@pytest.mark.parametrize("unit", [1e-9, 1e6, 1e9])
@pytest.mark.parametrize(
    "criterion", [fl.PoissonNLLLoss(), fl.GammaNLLLoss(), fl.TweedieDevianceLoss(power=1.5)]
)
def test_unit_of_float32_targets_does_not_matter(values, criterion, unit):
    X, y = (array.astype(np.float32) for array in values)
    original = LossRegressor(criterion, alpha=0.0, tol=1e-3).fit(X, y)
    scaled = LossRegressor(criterion, alpha=0.0, tol=1e-3).fit(X, y * np.float32(unit))
    atol = 1e-2 * np.abs(original.coef_).max()
    np.testing.assert_allclose(original.coef_, scaled.coef_, atol=atol)


@pytest.mark.parametrize("as_features", [np.asarray, csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("model", [LossClassifier(), LossRegressor(fl.HuberLoss())], ids=repr)
def test_constant_columns_change_nothing(model, dtype, as_features):
    X, y = data()
    X = X.astype(dtype)
    X_constant = np.c_[X, np.full(len(X), 1.7e9, dtype)]
    original = clone(model).fit(as_features(X), y)
    extended = clone(model).fit(as_features(X_constant), y)
    np.testing.assert_array_equal(extended.coef_[..., -1], 0)
    np.testing.assert_allclose(extended.coef_[..., :-1], original.coef_, rtol=1e-3)


@every_model
def test_warm_start_resumes(model):
    X, y = data()
    model = clone(model).set_params(warm_start=True).fit(X, y)
    iterations = model.n_iter_
    assert model.fit(X, y).n_iter_ < iterations
    with pytest.raises(ValueError, match="warm_start=False"):
        model.fit(X[:, :2], y)


@every_model
def test_too_few_iterations_warn(model):
    with pytest.warns(ConvergenceWarning, match=r"stopped after 1 iterations at (gradient|gap) "):
        clone(model).set_params(max_iter=1).fit(*data())


@every_model
def test_models_can_be_cloned_and_pickled(model):
    X, y = data()
    copy = clone(model)
    assert copy.criterion == model.criterion
    assert copy.criterion is not model.criterion
    copy.fit(X, y)
    np.testing.assert_array_equal(
        predict_scores(pickle.loads(pickle.dumps(copy)), X),
        predict_scores(copy, X),
    )


@pytest.mark.parametrize("model", [LossRegressor(), LossRegressor(fl.L1Loss())])
def test_constant_targets_and_features(model):
    X, _ = data()
    model.fit(X, np.full(len(X), 0.1))
    np.testing.assert_allclose(model.predict(X), 0.1)
    model.fit(np.ones_like(X), np.arange(len(X)))
    np.testing.assert_allclose(model.coef_, 0)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (LossClassifier(fl.MSELoss()), TypeError, r"MSELoss\(\): LossClassifier minimises one of"),
        (LossClassifier(fl.cross_entropy), TypeError, "one of CrossEntropyLoss, MultiMarginLoss"),
        (LossClassifier(fl.CrossEntropyLoss), TypeError, "one of CrossEntropyLoss"),
        (LossClassifier(fl.HingeEmbeddingLoss()), TypeError, "MarginRankingLoss"),
        (LossRegressor(fl.GaussianNLLLoss()), TypeError, "one of MSELoss, L1Loss"),
        (LossClassifier(fl.CrossEntropyLoss(reduction="none")), ValueError, "'mean' or 'sum'"),
        (LossRegressor(fl.PoissonNLLLoss(log_input=False)), ValueError, "log_input=True"),
        (LossClassifier(fl.MultiMarginLoss(margin=0.0)), ValueError, "margin=0.0: it must be"),
        (LossRegressor(fl.HuberLoss(delta=-1.0)), ValueError, "delta"),
        (LossRegressor(alpha=-1), ValueError, "alpha"),
        (LossRegressor(tol=0), ValueError, "tol"),
        (LossRegressor(alpha=np.nan), ValueError, "alpha is nan: it must be finite"),
        (LossRegressor(tol=np.inf), ValueError, "tol is inf"),
        (LossRegressor(max_iter=0.5), TypeError, "max_iter"),
        (LossClassifier(fl.CrossEntropyLoss(weight=[0.0, 0, 0])), ValueError, "loss is nan where"),
    ],
)
def test_fit_errors(model, error, message):
    with pytest.raises(error, match=message):
        model.fit(*data())


def test_negative_weight_is_named():
    X, y = data()
    weight = np.ones(len(y))
    weight[:3] = 0, 0, -1
    with pytest.raises(ValueError, match=r"sample_weight\[2\] = -1.0"):
        LossRegressor().fit(X, y, weight)


def test_overflow_of_features_is_named():
    X, y = data()
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="huge values in X"):
        LossRegressor().fit(X * 1e300, y)


def test_negative_count_is_named(values):
    with pytest.raises(ValueError, match=r"target\[1.*\] = -1.0 is not allowed"):
        LossRegressor(fl.PoissonNLLLoss()).fit([[0.0], [1.0], [2.0]], [1.0, -1.0, 3.0])


def test_grid_search_over_options_of_the_criterion(three):
    X, y = three
    pipeline = make_pipeline(StandardScaler(), LossClassifier(fl.CrossEntropyLoss()))
    search = GridSearchCV(
        pipeline,
        {"lossclassifier__criterion__label_smoothing": [0.0, 0.9]},
        scoring=make_scorer(fl.CrossEntropyLoss()),
        cv=3,
    ).fit(X, y)
    assert search.best_params_ == {"lossclassifier__criterion__label_smoothing": 0.0}
    smoothed = clone(pipeline).set_params(lossclassifier__criterion__label_smoothing=0.9)
    scores = cross_val_score(smoothed, X, y, scoring="neg_log_loss", cv=3)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"][1], scores.mean())


@pytest.mark.complete_only
def test_example_pipeline():
    program = ROOT / "examples" / "pipeline.py"
    lines = subprocess.run(
        [sys.executable, program], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(lines) == 7
    assert re.fullmatch(r"alpha=0.001, label_smoothing=0.01: cross entropy 0\.1\d\d", lines[3])
    entropy, accuracy = map(float, re.findall(r"\d\.\d+", lines[-1]))
    assert entropy < 0.15
    assert accuracy > 0.95


# --- scorers --------------------------------------------------------------------------------------


def test_logits_and_probabilities_give_the_same_score(three):
    X, y = three
    weights = np.linspace(0, 2, len(y))
    for classifier in (LogisticRegression(max_iter=1000), LossClassifier()):
        classifier.fit(X, y)
        expected = -log_loss(y, classifier.predict_proba(X), sample_weight=weights)
        for criterion, response_method in [
            (fl.CrossEntropyLoss(), None),
            (fl.CrossEntropyLoss(), "decision_function"),
            (fl.NLLLoss(), None),
        ]:
            scorer = make_scorer(criterion, response_method=response_method)
            np.testing.assert_allclose(scorer(classifier, X, y, sample_weight=weights), expected)


@pytest.mark.parametrize(
    "criterion",
    [
        fl.CrossEntropyLoss(),
        fl.BCEWithLogitsLoss(),
        fl.SoftMarginLoss(),
        fl.BCELoss(),
        fl.NLLLoss(),
    ],
    ids=repr,
)
def test_scores_of_two_classes(three, criterion):
    X, y = three
    X, y = X[50:, :2], y[50:]
    for classifier in (LogisticRegression(), GaussianNB(), LossClassifier()):
        classifier.fit(X, y)
        expected = -log_loss(y, classifier.predict_proba(X))
        np.testing.assert_allclose(make_scorer(criterion)(classifier, X, y), expected)


def test_score_at_probability_0_is_infinite(three):
    X, y = three
    forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    wrong = np.roll(y, 50)
    assert make_scorer(fl.CrossEntropyLoss())(forest, X, wrong) == -np.inf
    assert make_scorer(fl.NLLLoss())(forest, X, wrong) == -np.inf


def test_scores_of_margins(two, three):
    machine = SVC().fit(*two)
    expected = -hinge_loss(two[1], machine.decision_function(two[0]))
    np.testing.assert_allclose(make_scorer(HINGE)(machine, *two), expected)
    scorer = make_scorer(fl.MultiMarginLoss(reduction="sum"))
    np.testing.assert_allclose(scorer(machine, *two), expected * len(two[1]) / 2)
    machine = SVC().fit(*three)
    scores, target = (
        machine.decision_function(three[0]),
        np.unique(three[1], return_inverse=True)[1],
    )
    loss = 0.0
    for row, label in zip(scores, target, strict=True):
        loss += sum(max(0, 1 - row[label] + row[c]) for c in {0, 1, 2} - {label}) / 3
    np.testing.assert_allclose(scorer(machine, *three), -loss)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (fl.MSELoss(), mean_squared_error),
        (fl.PinballLoss(quantile=0.2), lambda y, p: mean_pinball_loss(y, p, alpha=0.2)),
        (fl.TweedieDevianceLoss(power=1.5), lambda y, p: mean_tweedie_deviance(y, p, power=1.5)),
        (
            fl.PoissonNLLLoss(),
            lambda y, p: mean_poisson_deviance(y, p) / 2 + (y - y * np.log(y)).mean(),
        ),
        (fl.GammaNLLLoss(), lambda y, p: mean_gamma_deviance(y, p) / 2 + 1 + np.log(y).mean()),
    ],
    ids=["squared error", "pinball", "tweedie", "poisson", "gamma"],
)
def test_scores_of_predictions(values, criterion, expected):
    X, y = values
    model = PoissonRegressor().fit(X, y)
    expected = -expected(y, model.predict(X))
    scorers = [make_scorer(criterion)]
    if hasattr(criterion, "log_input"):
        scorers.append(make_scorer(clone(criterion).set_params(log_input=False)))
    for scorer in scorers:
        np.testing.assert_allclose(scorer(model, X, y), expected, rtol=1e-7)


def test_score_of_a_small_rate_has_no_eps():
    model = DummyRegressor(strategy="constant", constant=1e-6).fit([[0.0]], [1.0])
    score = make_scorer(fl.PoissonNLLLoss())(model, [[0.0], [0.0]], [0.0, 1.0])
    np.testing.assert_allclose(score, np.log(1e-6) / 2 - 1e-6, rtol=1e-14)


def test_negative_prediction_of_a_rate_is_an_error(values):
    X, y = values
    with pytest.raises(ValueError, match=r"input.*must be at least 0"):
        make_scorer(fl.PoissonNLLLoss())(Ridge().fit(X, y - 3), X, y)


def test_score_of_predicted_deviations(values):
    X, y = values
    model = BayesianRidge().fit(X, y)
    mean, deviation = model.predict(X, return_std=True)
    score = make_scorer(fl.GaussianNLLLoss(full=True))(model, X, y)
    np.testing.assert_allclose(score, norm.logpdf(y, mean, deviation).mean())


def test_scorers_can_be_cloned_and_pickled():
    scorer = make_scorer(fl.CrossEntropyLoss(label_smoothing=0.1))
    for copy in (clone(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copy.criterion == scorer.criterion
    assert repr(scorer) == "LossScorer(criterion=CrossEntropyLoss(label_smoothing=0.1))"


def test_weights_are_routed_to_scorers(three):
    X, y = three
    weights = np.arange(len(y)) % 4
    model = LogisticRegression(max_iter=1000)
    folds = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
    expected = make_scorer(fl.CrossEntropyLoss())(
        clone(model).fit(X[::2], y[::2], sample_weight=weights[::2]),
        X[1::2],
        y[1::2],
        sample_weight=weights[1::2],
    )
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(fl.CrossEntropyLoss()).set_score_request(sample_weight=True)
        without = make_scorer(fl.CrossEntropyLoss()).set_score_request(sample_weight=False)
        results = cross_validate(
            model.set_fit_request(sample_weight=True),
            X,
            y,
            scoring={"loss": clone(scorer), "without": without},
            params={"sample_weight": weights},
            cv=folds,
        )
    np.testing.assert_allclose(results["test_loss"], expected)
    assert not np.isclose(results["test_without"][0], expected)


@pytest.mark.parametrize(
    ("criterion", "response_method", "error", "message"),
    [
        (fl.CTCLoss(), None, TypeError, "a scorer takes one of CrossEntropyLoss"),
        (fl.mse_loss, None, TypeError, "a scorer takes one of"),
        (fl.MSELoss(reduction="none"), None, ValueError, "reduction='mean' or 'sum'"),
        (fl.CrossEntropyLoss(), "predict", ValueError, "'predict_proba' or 'decision_function'"),
        (fl.NLLLoss(), "decision_function", ValueError, "it must be None"),
    ],
)
def test_errors_of_making_a_scorer(criterion, response_method, error, message):
    with pytest.raises(error, match=message):
        make_scorer(criterion, response_method=response_method)


def test_scorer_errors(two, three):
    classifier = LogisticRegression(max_iter=1000).fit(*three)
    with pytest.raises(ValueError, match=r"unseen labels: .*'daisy'"):
        make_scorer(fl.NLLLoss())(classifier, three[0][:2], ["setosa", "daisy"])
    with pytest.raises(ValueError, match="takes two classes and the estimator has 3"):
        make_scorer(fl.BCELoss())(classifier, *three)
    with pytest.raises(TypeError, match=r"LinearSVC has no predict_proba.*response_method="):
        make_scorer(fl.CrossEntropyLoss())(LinearSVC().fit(*two), *two)
    with pytest.raises(TypeError, match=r"DummyRegressor has no classes_: CrossEntropyLoss\(\)"):
        make_scorer(fl.CrossEntropyLoss())(DummyRegressor().fit(*two), *two)
    with pytest.raises(TypeError, match="GaussianNB has no decision_function, which"):
        make_scorer(HINGE)(GaussianNB().fit(*two), *two)


class Opaque(ClassifierMixin, BaseEstimator):
    """A classifier without parameters that has the decision values of another."""

    def __init__(self, model, sign=1):
        self.model, self.sign = model, sign

    def fit(self, X, y):
        self.fitted_ = clone(self.model).fit(X, y)
        self.classes_ = self.fitted_.classes_
        return self

    def predict(self, X):
        return self.fitted_.predict(X)

    def decision_function(self, X):
        return self.sign * self.fitted_.decision_function(X)


def machines(shape):
    """Support vector machines with decision values of this shape, alone and inside others."""
    machine = SVC(kernel="linear", decision_function_shape=shape)
    yield "alone", machine
    yield "nu", NuSVC(nu=0.1, decision_function_shape=shape)
    yield "pipeline", make_pipeline(StandardScaler(), machine)
    yield (
        "search",
        GridSearchCV(
            SVC(kernel="linear"), {"decision_function_shape": [shape]}, scoring="accuracy", cv=2
        ),
    )
    yield (
        "pipeline in a search",
        GridSearchCV(
            make_pipeline(StandardScaler(), machine), {"svc__C": [1.0]}, scoring="accuracy", cv=2
        ),
    )
    yield "features", RFE(machine, n_features_to_select=2)
    yield "bag", BaggingClassifier(machine, 3, random_state=0)
    yield "opaque", Opaque(machine)
    yield "stack", StackingClassifier([("nb", GaussianNB())], machine, cv=2)
    if shape == "ovo":
        yield "opaque, other sign", Opaque(machine, -1)


@pytest.mark.parametrize("classes", [3, 4, 5])
@pytest.mark.parametrize("name", [name for name, _ in machines("ovo")])
def test_columns_of_pairs_are_not_taken_for_classes(classes, name):
    rng = np.random.default_rng(classes)
    centers = 3 * rng.normal(size=(classes, 4))
    y = rng.permutation(np.arange(40 * classes) % classes)
    X = centers[y] + rng.normal(size=(len(y), 4))
    model = dict(machines("ovo"))[name].fit(X, y)
    for scorer in (
        make_scorer(fl.MultiMarginLoss()),
        make_scorer(fl.CrossEntropyLoss(), response_method="decision_function"),
    ):
        with pytest.raises(ValueError, match="one column per pair of classes"):
            scorer(model, X, y)
    for model in [dict(machines("ovr")).get(name), OneVsRestClassifier(SVC(kernel="linear"))]:
        if model is not None:
            scores = model.fit(X, y).decision_function(X)
            expected = -fl.multi_margin_loss(scores, y)
            assert make_scorer(fl.MultiMarginLoss())(model, X, y) == expected
    one_of_each = OneVsRestClassifier(SVC(decision_function_shape="ovo")).fit(X, y)
    expected = -fl.multi_margin_loss(one_of_each.decision_function(X), y)
    assert make_scorer(fl.MultiMarginLoss())(one_of_each, X, y) == expected


def test_the_remedy_for_columns_of_pairs(three):
    machine = SVC(decision_function_shape="ovo").fit(*three)
    scorer = make_scorer(fl.MultiMarginLoss())
    with pytest.raises(ValueError, match=r"SVC.*decision_function_shape='ovr' gives one per class"):
        scorer(machine, *three)
    machine.set_params(decision_function_shape="ovr")
    encoded = np.unique(three[1], return_inverse=True)[1]
    expected = -fl.multi_margin_loss(machine.decision_function(three[0]), encoded)
    assert scorer(machine, *three) == expected


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba", "decision_function"])
@pytest.mark.parametrize("shape", [(150,), (150, 1), (150, 2), (150, 6), (150, 3, 1)])
def test_scores_of_another_shape_are_refused(three, method, shape, monkeypatch):
    model = LogisticRegression(max_iter=1000).fit(*three)
    monkeypatch.setattr(type(model), method, lambda self, X: np.full(shape, 0.5))
    response = "decision_function" if method == "decision_function" else None
    scorer = make_scorer(fl.CrossEntropyLoss(), response_method=response)
    with pytest.raises(ValueError, match=r"(proba|function) of .*shape.*each of the 3 classes"):
        scorer(model, *three)


def test_classes_of_an_estimator_need_not_be_in_order(three):
    class Reversed(Opaque):
        def fit(self, X, y):
            super().fit(X, y)
            self.classes_ = self.classes_[::-1]
            return self

        def decision_function(self, X):
            return super().decision_function(X)[:, ::-1]

        def predict_proba(self, X):
            return self.fitted_.predict_proba(X)[:, ::-1]

    for y in (three[1], np.unique(three[1], return_inverse=True)[1]):
        model = LogisticRegression(max_iter=1000)
        for criterion in (fl.CrossEntropyLoss(), fl.MultiMarginLoss(), fl.NLLLoss()):
            scorer = make_scorer(criterion)
            expected = scorer(model.fit(three[0], y), three[0], y)
            turned = scorer(Reversed(model).fit(three[0], y), three[0], y)
            np.testing.assert_allclose(turned, expected, rtol=1e-12)


@pytest.mark.parametrize("model", [RandomForestClassifier(3), KNeighborsClassifier()], ids=repr)
@pytest.mark.parametrize("wrapper", [MultiOutputClassifier, lambda model: model])
def test_several_outputs_are_refused(three, model, wrapper):
    X, y = three
    outputs = np.c_[y == y[0], y == y[-1]]
    model = wrapper(model).fit(X, outputs)
    with pytest.raises(TypeError, match="has several outputs"):
        make_scorer(fl.CrossEntropyLoss())(model, X, outputs)


MULTILABEL = [
    MultiOutputClassifier(LogisticRegression(max_iter=1000)),
    make_pipeline(StandardScaler(), MultiOutputClassifier(LossClassifier())),
    OneVsRestClassifier(LogisticRegression(max_iter=1000)),
    ClassifierChain(LogisticRegression(max_iter=1000)),
    RandomForestClassifier(20, max_depth=2, random_state=0),
    KNeighborsClassifier(30),
    MLPClassifier(tol=0.01, max_iter=1000, random_state=0),
]


def probabilities_of_labels(model, X):
    proba = model.predict_proba(X)
    return np.stack([p[:, 1] for p in proba], axis=1) if isinstance(proba, list) else proba


@pytest.mark.parametrize("model", MULTILABEL, ids=repr)
def test_scores_of_multilabel_models(three, model):
    X, y = three
    labels = np.c_[y == y[0], y != y[-1], X[:, 0] > 5.8].astype(int)
    weights = np.linspace(0, 2, len(y))
    model = clone(model).fit(X, labels)
    p = np.clip(probabilities_of_labels(model, X), 1e-9, 1 - 1e-9)
    entropy = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    for criterion in (fl.BCELoss(), fl.BCEWithLogitsLoss(), fl.SoftMarginLoss()):
        mean, total = (
            make_scorer(clone(criterion).set_params(reduction=reduction))
            for reduction in ("mean", "sum")
        )
        expected = -(weights @ entropy).sum() / weights.sum() / 3
        for targets in (labels, labels.astype(bool), pandas.DataFrame(labels)):
            score = mean(model, X, targets, sample_weight=weights)
            np.testing.assert_allclose(score, expected, rtol=1e-6)
        np.testing.assert_allclose(total(model, X, labels), -entropy.sum(), rtol=1e-6)
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(model, X, labels, scoring=make_scorer(fl.BCELoss()), cv=folds)
    assert (scores < 0).all()


def test_decision_values_of_multilabel_models(three):
    X, y = three
    labels = np.c_[y == y[0], y != y[-1]].astype(int)
    model = OneVsRestClassifier(LogisticRegression()).fit(X, labels)
    by_logits = make_scorer(fl.BCEWithLogitsLoss(), response_method="decision_function")
    expected = make_scorer(fl.BCEWithLogitsLoss())(model, X, labels)
    np.testing.assert_allclose(by_logits(model, X, labels), expected)
    margins = (2 * labels - 1) * model.decision_function(X)
    expected = -np.maximum(0, 1 - margins).mean()
    np.testing.assert_allclose(make_scorer(HINGE)(model, X, labels), expected)
    sparse = OneVsRestClassifier(LogisticRegression()).fit(X, csr_array(labels))
    assert make_scorer(HINGE)(sparse, X, csr_array(labels)) == expected
    for model in (MultiOutputClassifier(LogisticRegression()), KNeighborsClassifier()):
        with pytest.raises(TypeError, match="has no decision_function"):
            by_logits(model.fit(X, labels), X, labels)


def test_label_that_is_not_in_the_training_data(three):
    X, y = three
    labels = np.c_[y == y[0], np.zeros(len(y))].astype(int)
    model = RandomForestClassifier(3, max_depth=1, random_state=0).fit(X, labels)
    score = make_scorer(fl.BCELoss())(model, X, labels)
    p = model.predict_proba(X)[0][:, 1]
    np.testing.assert_allclose(score, -fl.binary_cross_entropy(p, labels[:, 0]) / 2)
    labels[0, 1] = 1
    assert make_scorer(fl.BCEWithLogitsLoss())(model, X, labels) == -np.inf


def test_several_outputs_that_are_not_labels_are_refused(three):
    X, y = three
    classes = np.unique(y, return_inverse=True)[1]
    outputs, scorer = np.c_[classes, classes > 0], make_scorer(fl.BCELoss())
    model = RandomForestClassifier(3).fit(X, outputs)
    with pytest.raises(ValueError, match=r"y\[0, 0\] = 2: .* 0 or 1 for BCELoss\(\)"):
        scorer(model, X, outputs)
    with pytest.raises(TypeError, match=r"output 0 of RandomForest\w+ has the classes \[0, 1, 2\]"):
        scorer(model, X, np.minimum(outputs, 1))
    with pytest.raises(ValueError, match=r"has 2 outputs, and y has shape \(150,\)"):
        scorer(model, X, classes)
    with pytest.raises(ValueError, match=r"has 2 outputs, and y has shape \(150, 3\)"):
        scorer(model, X, np.eye(3)[classes])
    single = LogisticRegression(max_iter=1000).fit(X, classes)
    for criterion in (fl.BCELoss(), fl.CrossEntropyLoss()):
        with pytest.raises(ValueError, match=r"has one output, and y has shape \(150, 3\)"):
            make_scorer(criterion)(single, X, np.eye(3)[classes])


def test_scores_of_several_values(values):
    X, y = values
    outputs = np.c_[y, -y]
    for model in (Ridge(), RandomForestRegressor(3), MultiOutputRegressor(Ridge())):
        model.fit(X, outputs)
        expected = -mean_squared_error(outputs, model.predict(X))
        np.testing.assert_allclose(make_scorer(fl.MSELoss())(model, X, outputs), expected)


def test_targets_of_a_scorer_keep_their_rows():
    X, y = np.arange(6.0).reshape(3, 2), np.arange(6.0).reshape(2, 3)
    model = DummyRegressor(strategy="constant", constant=[0.0, 1.0]).fit(X, X)
    with pytest.raises(ValueError, match="shape"):
        make_scorer(fl.MSELoss())(model, X, y)
    one = DummyRegressor().fit(X, X[:, 0])
    scorer = make_scorer(fl.MSELoss())
    assert scorer(one, X, X[:, :1]) == scorer(one, X, X[:, 0])


def test_masked_targets_of_a_scorer_are_refused(values, three):
    X, y = values
    with pytest.raises(TypeError, match="y is a masked array"):
        make_scorer(fl.MSELoss())(Ridge().fit(X, y), X, np.ma.masked_array(y, y > y.mean()))
    X, y = three[0], np.unique(three[1], return_inverse=True)[1]
    model = LogisticRegression(max_iter=1000).fit(X, y)
    with pytest.raises(TypeError, match="y is a masked array"):
        make_scorer(fl.CrossEntropyLoss())(model, X, np.ma.masked_array(y, y > 1))


@pytest.mark.parametrize("missing", ["sklearn", "scipy"])
@pytest.mark.parametrize("name", ["LossClassifier", "LossRegressor", "make_scorer"])
def test_missing_package_is_named(name, missing):
    program = f"""
import sys
sys.modules[{missing!r}] = None
import fastloss.sklearn
try:
    fastloss.sklearn.{name}
except ImportError as error:
    assert "pip install 'fastloss[sklearn]'" in str(error), error
else:
    raise AssertionError("it was imported")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_package_can_be_explored_without_scikit_learn():
    program = """
import inspect, pydoc, sys
sys.modules["sklearn"] = None
import fastloss.sklearn
from fastloss.sklearn import *
names = {name for name, _ in inspect.getmembers(fastloss.sklearn)}
assert set(fastloss.sklearn.__all__) <= names == set(dir(fastloss.sklearn)), names
assert "LossClassifier" not in names
help(fastloss.sklearn)
assert log_loss([0, 1], [0.5, 0.5]) > 0.69
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    for name in (*fl.sklearn.metrics.__all__, "LossClassifier", "pip install 'fastloss[sklearn]'"):
        assert name in run.stdout


def test_package_can_be_explored_with_scikit_learn():
    program = """
import inspect
import fastloss.sklearn
from fastloss.sklearn import *
assert {"LossClassifier", "LossRegressor", "make_scorer"} <= set(fastloss.sklearn.__all__)
assert set(fastloss.sklearn.__all__) <= set(dir(fastloss.sklearn))
assert dict(inspect.getmembers(fastloss.sklearn))["make_scorer"] is make_scorer
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'LossCluster'"):
        fl.sklearn.LossCluster  # noqa: B018
