"""fastloss.sklearn.metrics against scikit-learn: results, exceptions, warnings, signatures."""

import inspect
import itertools
import math
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import mpmath
import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastloss.sklearn
from fastloss.sklearn import _inputs, metrics

sklearn = pytest.importorskip("sklearn", minversion="1.9")
from sklearn import metrics as peer  # noqa: E402

TOLERANCE = 1e-12
BUILTIN = (ValueError, TypeError, ZeroDivisionError)

# --- inputs ---------------------------------------------------------------------------------------


class Input:
    """A call of a metric."""

    def __init__(self, name, metric, *arrays, **options):
        self.name, self.metric, self.arrays, self.options = name, metric, arrays, options

    def call(self, module):
        return getattr(module, self.metric)(*self.arrays, **self.options)


def ids(inputs):
    return [f"{i.metric} {i.name}" for i in inputs]


def weights(rng, n):
    """Sample weights by name; the last ones are not all positive."""
    signed = rng.random(n) + 0.2
    signed[0] = -0.1
    return {
        "none": None,
        "random": rng.random(n) + 0.01,
        "whole": rng.integers(1, 4, n),
        "zeros": np.where(np.arange(n) % 3 == 0, 1.5, 0.0),
        "signed": signed,
    }


REGRESSION = {
    "mean_squared_error": [{}],
    "mean_absolute_error": [{}],
    "mean_pinball_loss": [{"alpha": a} for a in (0, 0.1, 0.5, 0.95, 1)],
    "root_mean_squared_error": [{}],
    "mean_squared_log_error": [{}],
    "root_mean_squared_log_error": [{}],
    "mean_absolute_percentage_error": [{}],
    "d2_absolute_error_score": [{}],
    "d2_pinball_score": [{"alpha": a} for a in (0, 0.1, 0.5, 0.95, 1)],
}
PROBA = ("log_loss", "d2_log_loss_score", "brier_score_loss", "d2_brier_score")
OF_LOGARITHMS = ("mean_squared_log_error", "root_mean_squared_log_error")
EXPLAINED = ("d2_absolute_error_score", "d2_pinball_score")
POWERS = (-1.5, 0, 1, 1.3, 1.5, 1.9, 2, 2.5, 3)


def regression_inputs():
    rng = np.random.default_rng(0)
    for shape in ((1,), (2,), (97,), (40, 1), (33, 3), (3, 3)):
        y, x = rng.normal(size=shape), rng.normal(size=shape)
        x.flat[0] = y.flat[0]
        for name, weight in weights(rng, shape[0]).items():
            if shape[0] == 1 and name == "signed":
                continue
            outputs = ["uniform_average", "raw_values"]
            if len(shape) == 2 and shape[1] == 3:
                outputs += [[0.2, 0.3, 0.5], np.array([1, -3, 4.0])]
            for metric, output in itertools.product(REGRESSION, outputs):
                arrays = map(np.expm1, (y, x)) if metric in OF_LOGARITHMS else (y, x)
                arrays = list(arrays)
                for options in REGRESSION[metric]:
                    yield Input(
                        f"{shape} {name} {output} {options or ''}",
                        metric,
                        *arrays,
                        sample_weight=weight,
                        multioutput=output,
                        **options,
                    )


def deviance_inputs():
    rng = np.random.default_rng(1)
    for shape in ((1,), (60,), (25, 1)):
        x = rng.gamma(2.0, size=shape) + 0.05
        for name, weight in weights(rng, shape[0]).items():
            if shape[0] == 1 and name == "signed":
                continue
            for power in POWERS:
                y = rng.normal(size=shape) if power <= 0 else rng.gamma(2.0, size=shape)
                if 1 <= power < 2:
                    y = np.floor(y)
                y = y + (power >= 2) * 0.01 + (power < 0)  # a mean above 0
                options = {"sample_weight": weight, "power": power}
                yield Input(f"{shape} {name} {power}", "mean_tweedie_deviance", y, x, **options)
                yield Input(f"{shape} {name} {power}", "d2_tweedie_score", y, x, **options)
            counts = rng.poisson(2, shape)
            yield Input(f"{shape} {name}", "mean_poisson_deviance", counts, x, sample_weight=weight)
            yield Input(f"{shape} {name}", "mean_gamma_deviance", x + 1, x, sample_weight=weight)


TWO_CLASSES = {
    "0 1": np.array([0, 1]),
    "int8": np.array([0, 1], np.int8),
    "uint64": np.array([0, 1], np.uint64),
    "bool": np.array([False, True]),
    "signs": np.array([-1, 1]),
    "far": np.array([-(10**12), 10**12]),
    "3 7": np.array([3, 7]),
    "float": np.array([0.0, 1.0]),
    "float32": np.array([2.0, 5.0], np.float32),
    "strings": np.array(["ham", "spam"]),
    "objects": np.array(["ham", "spam"], dtype=object),
}
MORE_CLASSES = {
    "0..": np.arange(5),
    "uint8": np.arange(5, dtype=np.uint8),
    "big-endian": np.arange(5, dtype=">i4"),
    "gaps": np.array([-7, 0, 2, 100, 3000]),
    "far": np.array([-(2**62), -1, 0, 1, 2**62]),
    "float": np.array([1.0, 2.0, 4.0, 8.0, 9.0]),
    "strings": np.array(["a", "bc", "d", "ef", "g"]),
    "objects": np.array(["a", "bc", "d", "ef", "g"], dtype=object),
}


def draw_labels(rng, classes, n):
    """Labels for n rows and one more of each class."""
    indices = np.concatenate([np.arange(classes.size), rng.integers(0, classes.size, n)])
    rng.shuffle(indices)
    return classes[indices]


def probabilities(rng, n, columns):
    p = rng.dirichlet(np.full(columns, 0.3), n)
    p[0] = np.eye(columns)[0]  # log_loss clips its zeros
    return p


def class_inputs():
    rng = np.random.default_rng(2)
    for kind, classes in TWO_CLASSES.items():
        y = draw_labels(rng, classes, 40)
        n = y.size
        p = probabilities(rng, n, 2)
        scores = rng.normal(size=n) * 2
        for name, weight in weights(rng, n).items():
            for shape in ((n,), (n, 1), (n, 2)):
                q = p if shape == (n, 2) else p[:, 1].reshape(shape)
                yield from proba_inputs(f"{kind} {name} {shape}", y, q, weight, classes)
            yield Input(f"{kind} {name}", "hinge_loss", y, scores, sample_weight=weight)
        yield Input(f"{kind} column", "hinge_loss", y[:, None], scores[:, None])
        yield Input(f"{kind} column", "log_loss", y[:, None], p)
    for kind, classes in MORE_CLASSES.items():
        y = draw_labels(rng, classes, 60)
        p = probabilities(rng, y.size, classes.size)
        scores = rng.normal(size=p.shape) * 2
        for name, weight in weights(rng, y.size).items():
            yield from proba_inputs(f"{kind} {name}", y, p, weight, classes)
            yield Input(f"{kind} {name}", "hinge_loss", y, scores, sample_weight=weight)
        rows = y != classes[2]
        for metric, matrix in (
            ("hinge_loss", scores),
            ("log_loss", p),
            ("brier_score_loss", p),
            ("d2_brier_score", p),
        ):
            yield Input(f"{kind} absent", metric, y[rows], matrix[rows], labels=classes)


def proba_inputs(name, y, p, weight, classes):
    yield Input(name, "log_loss", y, p, sample_weight=weight)
    yield Input(name, "log_loss", y, p, sample_weight=weight, labels=classes, normalize=False)
    yield Input(name, "d2_log_loss_score", y, p, sample_weight=weight)
    for pos_label in classes[[0, -1]].tolist():
        options = {"sample_weight": weight, "pos_label": pos_label}
        yield Input(f"{name} {pos_label}", "d2_brier_score", y, p, **options)
    for scale_by_half in ("auto", True, False):
        for pos_label in classes[[0, -1]].tolist():
            yield Input(
                f"{name} {scale_by_half} {pos_label}",
                "brier_score_loss",
                y,
                p,
                sample_weight=weight,
                pos_label=pos_label,
                scale_by_half=scale_by_half,
            )
    if classes.dtype.kind not in "OU" or p.shape[1:] == (classes.size,):
        yield Input(name, "brier_score_loss", y, p, sample_weight=weight)
        yield Input(name, "d2_brier_score", y, p, sample_weight=weight)


def other_inputs():
    """Containers, mixed dtypes, edge cases."""
    rng = np.random.default_rng(3)
    y, x, w = rng.normal(size=30), rng.normal(size=30), rng.random(30)
    y2, x2 = rng.normal(size=(30, 2)), rng.normal(size=(30, 2))
    labels, p = draw_labels(rng, np.arange(3), 27), probabilities(rng, 30, 3)
    strings = np.array(["c", "a", "b"])[labels]
    for metric in [m for m in REGRESSION if m not in OF_LOGARITHMS]:
        yield Input("lists", metric, y.tolist(), x.tolist(), sample_weight=w.tolist())
        yield Input("series", metric, pandas.Series(y), pandas.Series(x, index=range(30, 60)))
        yield Input("frames", metric, pandas.DataFrame(y2), pandas.DataFrame(x2))
        yield Input("Int64", metric, pandas.Series([1, 2, 4], dtype="Int64"), [1.5, 2.0, 3.0])
        yield Input(
            "integers", metric, np.arange(9), np.arange(9)[::-1], sample_weight=np.arange(9)
        )
        yield Input("bool", metric, y > 0, x)
        yield Input("int and float", metric, np.arange(30, dtype=np.int8), x)
        yield Input("column and row", metric, y[:, None], x)
        yield Input("strided", metric, y2[::2, 1], x2[::-2, 0])
        yield Input("Fortran", metric, np.asfortranarray(y2), x2, multioutput="raw_values")
        yield Input("swapped bytes", metric, y.astype(">f8"), x)
        yield Input("one row", metric, [[1.0, 2.0]], [[2.0, 4.0]], multioutput="raw_values")
        yield Input(
            "long",
            metric,
            rng.normal(size=(40_000, 2)),
            np.ones((40_000, 2)),
            multioutput="raw_values",
        )
    for metric in PROBA:
        yield Input("lists", metric, strings.tolist(), p.tolist(), sample_weight=w.tolist())
        yield Input("frames", metric, pandas.Series(strings), pandas.DataFrame(p))
        yield Input("categorical", metric, pandas.Series(strings, dtype="category"), p)
        yield Input("unsorted labels", metric, strings, p, labels=["c", "a", "b"])
        yield Input("sums below 1", metric, labels, p * 0.9)
        yield Input("sums within the tolerance", metric, labels, p * (1 - 2e-8), labels=range(3))
        yield Input(
            "sums just outside the tolerance", metric, labels, p * (1 - 3e-8), labels=range(3)
        )
        yield Input("indicator", metric, np.eye(3)[labels], p)
        ones = np.eye(3, dtype=int)[labels] | 1
        if metric != "d2_brier_score":  # all rows are the same: the score is not defined
            yield Input("indicator, weights", metric, ones, p, sample_weight=w)
        yield Input("negative indicator", metric, -np.eye(3, dtype=int)[labels], p)
        yield Input("indicator of two", metric, np.eye(2)[labels % 2], p[:, :2] / 2 + 0.25)
        yield Input("strided", metric, labels[::-1], np.asfortranarray(p)[::-1])
        yield Input("swapped bytes", metric, labels.astype(">i8"), p.astype(">f8"))
        yield Input("integers", metric, labels, np.eye(3, dtype=int)[labels])
        yield Input("bool", metric, labels, np.eye(3, dtype=bool)[labels])
        yield Input("superset", metric, labels, np.c_[p, np.zeros(30)], labels=[0, 1, 2, 9])
        yield Input("index to ignore", metric, [-100, 1, 2] * 10, p)
        yield Input("least integer", metric, [-(2**63), 1, 2**63 - 1] * 10, p)
        yield Input("largest integers", metric, np.array([2**64 - 1, 1, 2**63] * 10, np.uint64), p)
        yield Input("one class", metric, [1, 1, 1], [0.2, 0.5, 0.9], labels=[0, 1])
        yield Input("two rows", metric, [0, 1], [0.2, 0.5])
        yield Input("certain", metric, [0, 1], [0.0, 1.0])
        yield Input("wrong", metric, [0, 1], [1.0, 0.0])
        yield Input("certain columns", metric, [0, 1], np.eye(2))
        yield Input("one label late", metric, np.r_[np.zeros(5000, int), 1], np.full(5001, 0.25))
    yield Input("one row", "log_loss", [1], [0.25], labels=[0, 1])
    yield Input("one row", "d2_log_loss_score", [1], [0.25], labels=[0, 1])
    yield Input("old name", "log_loss", labels, y_pred=p)
    yield Input("old name", "d2_log_loss_score", labels, y_pred=p)
    for name, value in (("ones", 1), ("zeros", 0), ("minus ones", -1), ("fives", 5)):
        q = np.array([0.25, 0.5, 1.0])
        yield Input(name, "brier_score_loss", np.full(3, value), q)
        yield Input(name, "hinge_loss", np.full(3, value), q)
    yield Input("-1 and 0", "brier_score_loss", [-1, 0, 0], [0.25, 0.5, 1.0])
    yield Input("absent label", "brier_score_loss", [0, 1, 1], [0.25, 0.5, 1.0], pos_label=7)
    yield Input("absent string", "brier_score_loss", [0, 1, 1], [0.25, 0.5, 1.0], pos_label="a")
    yield Input("true", "brier_score_loss", [0, 1, 1], [0.25, 0.5, 1.0], pos_label=True)
    yield Input("integers", "hinge_loss", [0, 1, 1], [-3, 0, 2])
    yield Input("integers", "hinge_loss", [0, 1, 2], [[-3, 0, 2], [1, 2, 3], [0, 1, 0]])
    yield Input("lists", "hinge_loss", strings.tolist(), y2.repeat(2, 1)[:, :3].tolist())
    yield Input("two labels", "hinge_loss", [0, 0, 1], [0.5, -0.5, 0.5], labels=[0, 1])
    yield Input("one of two labels", "hinge_loss", [1, 1, 1], [0.5, -0.5, 0.5], labels=[0, 1])
    yield Input("no labels", "hinge_loss", [0, 1, 1], [0.5, -0.5, 0.5], labels=[])
    yield Input("two objects", "hinge_loss", [0, 1], [0.5, 2], labels=np.array([0, 1], object))
    yield Input("objects", "hinge_loss", [0, 1], [0.5, 2], sample_weight=np.array([1, 2], object))
    yield Input("extended", "hinge_loss", [0, 1], [0.5, 2], sample_weight=np.longdouble([1, 2]))
    yield Input("NaN and negative", "hinge_loss", [0, 1], [0.5, 2], sample_weight=[np.nan, -1])
    yield Input("numbers among strings", "hinge_loss", [1, "a"], [0.5, 2])
    yield Input("long", "hinge_loss", np.arange(9000) % 7, rng.normal(size=(9000, 7)))
    for metric in ("mean_squared_error", "mean_absolute_error"):
        yield Input("overflow", metric, np.array([1e308, -1e308]), np.array([-1e308, 1e308]))
    yield Input("perfect", "mean_poisson_deviance", np.arange(1.0, 9), np.arange(1.0, 9))
    yield from explained_inputs()


def explained_inputs():
    """Constant, perfect and single true values, zeros, and intervals of quantiles."""
    constant, zeros, steps = np.full(4, 0.1), np.zeros(4), np.arange(4.0)
    for name, y in (("constant", constant), ("zeros", zeros), ("steps", steps)):
        for metric in REGRESSION:
            for options in REGRESSION[metric]:
                yield Input(f"{name} perfect {options}", metric, y, y.copy(), **options)
                yield Input(f"{name} wrong {options}", metric, y, steps + 0.5, **options)
                both = np.c_[y, steps], np.c_[steps, steps]
                for output in ("uniform_average", "raw_values", [0.25, 0.75]):
                    title = f"{name} one of two {output} {options}"
                    yield Input(title, metric, *both, multioutput=output, **options)
    rng = np.random.default_rng(8)
    for n in (2, 3, 10, 20, 100):
        y, x = np.floor(rng.normal(size=(2, n)) * 4)
        for weight in (None, np.ones(n), rng.integers(0, 3, n) + (np.arange(n) == 0)):
            for alpha in (0, 0.05, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 1):
                options = {"sample_weight": weight, "alpha": alpha}
                yield Input(f"ties {n} {alpha}", "d2_pinball_score", y, x, **options)
    trailing = np.array([1.0, 1.0, 0.0, 0.0])
    for alpha in (0, 0.5, 1):
        for weight in (trailing, trailing[::-1]):
            options = {"sample_weight": weight, "alpha": alpha}
            yield Input(f"no weight {alpha}", "d2_pinball_score", steps, steps[::-1], **options)
    for power in POWERS:
        yield Input(f"one row {power}", "d2_tweedie_score", [1.0], [2.0], power=power)
        yield Input(f"perfect {power}", "d2_tweedie_score", steps + 1, steps + 1, power=power)
    yield Input("one row of counts", "d2_tweedie_score", [-1.0], [-2.0], power=1)
    yield Input("mean 0", "d2_tweedie_score", [-1.0, 1.0], [0.5, 2.0], power=-1)
    yield Input("whole", "d2_tweedie_score", [1, 2, 4], [1, 3, 3], power=1)
    yield Input("one row", "d2_brier_score", [1], [0.25], labels=[0, 1])
    for p in ([0.0, 0.0], [0.5, 0.25], [1.0, 1.0]):
        yield Input(f"one class {p}", "d2_brier_score", [1, 1], p)
        columns = np.stack((np.subtract(1, p), p), axis=1)
        yield Input(f"one class {columns}", "d2_brier_score", [1, 1], columns, labels=[0, 1])


INPUTS = [*regression_inputs(), *deviance_inputs(), *class_inputs(), *other_inputs()]

# --- results --------------------------------------------------------------------------------------


def tweedie_terms(y, x, power):
    """The sum of the magnitudes of the deviance's terms, which may cancel."""
    if power == 0:
        return (y - x) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        if power == 1:
            return 2 * (np.abs(np.where(y > 0, y * np.log(y / x), 0)) + y + x)
        if power == 2:
            return 2 * (np.abs(np.log(x / y)) + y / x + 1)
    first = np.maximum(y, 0) ** (2 - power) / ((1 - power) * (2 - power))
    second, third = y * x ** (1 - power) / (1 - power), x ** (2 - power) / (2 - power)
    return 2 * (np.abs(first) + np.abs(second) + np.abs(third))


def scale(case, value):
    """The scale of the error: the value, or the magnitude of the terms whose difference it is."""
    weight = case.options.get("sample_weight")
    power = {"mean_poisson_deviance": 1, "mean_gamma_deviance": 2}.get(
        case.metric, case.options.get("power")
    )
    if case.metric == "d2_tweedie_score":
        y, x = (np.asarray(a, float).ravel() for a in case.arrays)
        mean = np.full(y.shape, max(np.average(y, weights=weight), 1e-300))
        deviances = [
            peer.mean_tweedie_deviance(y, at, sample_weight=weight, power=power) for at in (x, mean)
        ]
        weights = np.abs(np.ones_like(y) if weight is None else weight)
        terms = [weights @ tweedie_terms(y, at, power) / abs(np.sum(weights)) for at in (x, mean)]
        return 1 + (terms[0] + terms[1] * deviances[0] / deviances[1]) / abs(deviances[1])
    if case.metric.startswith("d2"):
        return 1 + abs(1 - value)
    if case.metric in OF_LOGARITHMS:
        y, x = (np.log1p(np.asarray(a, float)).reshape(len(a), -1) for a in case.arrays)
        scale = mean64((np.abs(y) + np.abs(x)) ** 2, None, columns=True)
        if case.metric.startswith("root"):
            scale = np.sqrt(scale)
        return scale if np.ndim(value) else scale.max()
    if power is not None:
        y, x = (np.asarray(a, float).ravel() for a in case.arrays)
        terms = tweedie_terms(y, x, power)
    elif weight is not None and np.min(weight) < 0:
        positive = Input(
            "", case.metric, *case.arrays, **case.options | {"sample_weight": np.abs(weight)}
        )
        return abs(positive.call(peer)) * np.abs(weight).sum() / abs(np.sum(weight))
    else:
        return np.abs(value)
    if weight is None:
        return terms.mean()
    return (np.abs(weight) * terms).sum() / abs(np.sum(weight))


def with_warnings(function):
    """The result, and the categories of the warnings for the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    categories = (FutureWarning, UserWarning)
    return result, [
        next(c for c in categories if issubclass(w.category, c))
        for w in caught
        if issubclass(w.category, categories)
    ]


def test_inputs_cover_every_metric():
    assert len(INPUTS) >= 300
    assert {i.metric for i in INPUTS} == set(metrics.__all__)


@pytest.mark.parametrize("case", INPUTS, ids=ids(INPUTS))
def test_result_and_warnings_match_scikit_learn(case):
    result, warned = with_warnings(lambda: case.call(metrics))
    expected, expected_warnings = with_warnings(lambda: case.call(peer))
    assert warned == expected_warnings
    assert np.shape(result) == np.shape(expected)
    assert type(result) is (np.ndarray if np.ndim(expected) else float)
    if np.all(np.isfinite(expected)):
        error = np.abs(np.subtract(result, expected))
        assert np.all(error <= TOLERANCE * scale(case, expected)), (result, expected)
    else:
        np.testing.assert_array_equal(result, expected)


# --- float32 --------------------------------------------------------------------------------------


def mean64(losses, weight, columns=False):
    """The weighted mean over the rows, and over the columns too unless `columns`, in float64."""
    weight = np.ones(len(losses)) if weight is None else weight.astype(float)
    means = weight @ losses / weight.sum()
    return means if columns else means.mean()


def true_regression(metric, y, x, options):
    """The metric, and the size of its terms."""
    y, x, weight = y.astype(float), x.astype(float), options.get("sample_weight")
    y, x = y.reshape(len(y), -1), x.reshape(len(x), -1)
    alpha = options.get("alpha", 0.5)

    def pinball(x):
        return mean64(np.maximum(alpha * (y - x), (1 - alpha) * (x - y)), weight, columns=True)

    if metric in EXPLAINED:
        quantiles = [
            min(column, key=lambda q: pinball(np.full_like(y, q))[k])
            for k, column in enumerate(y.T)
        ]
        null = pinball(np.broadcast_to(quantiles, y.shape))
        ratio = np.divide(pinball(x), null, out=np.ones_like(null), where=null != 0)
        values, terms = 1 - ratio, 1 + ratio
    else:
        values = terms = {
            "mean_squared_error": lambda: mean64((y - x) ** 2, weight, columns=True),
            "root_mean_squared_error": lambda: mean64((y - x) ** 2, weight, columns=True) ** 0.5,
            "mean_absolute_error": lambda: mean64(abs(y - x), weight, columns=True),
            "mean_absolute_percentage_error": lambda: mean64(
                abs(y - x) / np.maximum(abs(y), np.finfo(float).eps), weight, columns=True
            ),
            "mean_squared_log_error": lambda: true_log_errors(y, x, weight),
            "root_mean_squared_log_error": lambda: true_log_errors(y, x, weight) ** 0.5,
            "mean_pinball_loss": lambda: pinball(x),
        }[metric]()
    if options.get("multioutput") == "raw_values":
        return values, terms
    return values.mean(), terms.mean()


def true_log_errors(y, x, weight):
    """The mean of (log(1 + y) - log(1 + x))^2 of each column, computed with 50 digits."""
    with mpmath.workdps(50):
        difference = np.vectorize(
            lambda y, x: float(mpmath.log1p(mpmath.mpf(y)) - mpmath.log1p(mpmath.mpf(x)))
        )
        return mean64(difference(y, x) ** 2, weight, columns=True)


def true_deviance(y, x, power, weight):
    """The deviance, computed with 50 digits, and the magnitude of its terms."""
    y, x = y.astype(float), x.astype(float)
    with mpmath.workdps(50):
        p = mpmath.mpf(power)
        losses = [deviance(mpmath.mpf(a), mpmath.mpf(b), p) for a, b in zip(y, x, strict=True)]
        value = mean64(np.array([float(d) for d in losses]), weight)
    return value, mean64(tweedie_terms(y, x, power), weight)


def deviance(y, x, p):
    if p == 1:
        return 2 * ((y * mpmath.log(y / x) if y else 0) - y + x)
    if p == 2:
        return 2 * (mpmath.log(x / y) + y / x - 1)
    first = max(y, 0) ** (2 - p) / ((1 - p) * (2 - p)) if y > 0 else 0
    return 2 * (first - y * x ** (1 - p) / (1 - p) + x ** (2 - p) / (2 - p))


def true_log_loss(y, p, weight):
    """The log loss of class indices y; p is clipped, and 1 - p is rounded, in float32."""
    eps = np.finfo(np.float32).eps
    p = np.stack((1 - p, p), axis=1) if p.ndim == 1 else p
    p_of_true = np.clip(p[np.arange(len(p)), y], eps, 1 - eps).astype(float)
    return mean64(-np.log(p_of_true), weight)


def assert_float32(result, expected, magnitude=None):
    magnitude = np.float32(np.abs(expected if magnitude is None else magnitude))
    assert np.all(np.abs(result - expected) <= 4 * np.spacing(magnitude)), (result, expected)


def weights32(rng, n):
    return [None, rng.random(n, np.float32) + np.float32(0.01)]


@pytest.mark.parametrize("shape", [(1,), (1000,), (333, 3)])
@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize("metric", REGRESSION)
def test_float32_regression(metric, mean, shape):
    rng = np.random.default_rng(4)
    y, x = (rng.normal(mean, 1, shape).astype(np.float32) for _ in range(2))
    if metric in OF_LOGARITHMS:
        y, x = np.abs(y), np.abs(x)
    if metric in EXPLAINED and shape == (1,):
        return  # not defined
    for weight, output in itertools.product(
        weights32(rng, len(y)), ("uniform_average", "raw_values")
    ):
        for alpha in REGRESSION[metric]:
            options = {"sample_weight": weight, "multioutput": output, **alpha}
            result = getattr(metrics, metric)(y, x, **options)
            assert_float32(result, *true_regression(metric, y, x, options))
            if output == "raw_values":
                assert result.dtype == getattr(peer, metric)(y, x, **options).dtype == np.float32


@pytest.mark.parametrize("power", POWERS)
def test_float32_deviance(power):
    rng = np.random.default_rng(5)
    x = rng.gamma(2.0, size=200).astype(np.float32) + np.float32(0.05)
    y = x * rng.lognormal(0, 0.5, 200).astype(np.float32)
    for weight in weights32(rng, 200):
        result = metrics.mean_tweedie_deviance(y, x, power=power, sample_weight=weight)
        if power == 0:
            options = {"sample_weight": weight}
            assert_float32(result, *true_regression("mean_squared_error", y, x, options))
        else:
            assert_float32(result, *true_deviance(y, x, power, weight))


@pytest.mark.parametrize("columns", [1, 2, 10])
def test_float32_classes(columns):
    rng = np.random.default_rng(6)
    classes = max(columns, 2)
    y = draw_labels(rng, np.arange(classes), 500)
    p = probabilities(rng, y.size, classes).astype(np.float32)
    y_proba = p[:, 1] if columns == 1 else p
    for weight in weights32(rng, y.size):
        options = {"sample_weight": weight}
        log_loss = true_log_loss(y, y_proba, weight)
        assert_float32(metrics.log_loss(y, y_proba, **options), log_loss)
        q = mean64(np.eye(classes)[y], weight, columns=True)
        ratio = log_loss / -(q @ np.log(q))
        assert_float32(metrics.d2_log_loss_score(y, y_proba, **options), 1 - ratio, 1 + ratio)
        one_hot = np.eye(classes)[y]
        score = mean64((one_hot - p.astype(float)) ** 2, weight, columns=True).sum()
        if columns == 1:
            score = 2 * mean64((y - y_proba.astype(float)) ** 2, weight)
        result = metrics.brier_score_loss(y, y_proba, scale_by_half=False, **options)
        assert_float32(result, score)
        null = (q * (1 - q)).sum()
        result = metrics.d2_brier_score(y, y_proba, **options)
        assert_float32(result, 1 - score / null, 1 + score / null)


@pytest.mark.parametrize("columns", [1, 3, 10])
def test_float32_hinge(columns):
    rng = np.random.default_rng(7)
    y = draw_labels(rng, np.arange(max(columns, 2)), 500)
    scores = rng.normal(0, 2, (y.size, columns)).astype(np.float32)
    scores64 = scores.astype(float)
    if columns == 1:
        margin = scores64[:, 0] * (2 * y - 1)
    else:
        at_true = np.arange(y.size), y
        margin = scores64[at_true]
        scores64[at_true] = -np.inf
        margin = margin - scores64.max(axis=1)
    for weight in weights32(rng, y.size):
        result = metrics.hinge_loss(y, scores, sample_weight=weight)
        assert_float32(result, mean64(np.maximum(0, 1 - margin), weight))


# --- errors ---------------------------------------------------------------------------------------

GOOD = np.array([0.5, 0.25, 0.75])
THIRDS = np.full((3, 3), 1 / 3)
BAD = {
    "NaN": np.array([0.5, np.nan, 0.75]),
    "infinity": np.array([0.5, np.inf, 0.75]),
    "minus infinity": np.array([0.5, -np.inf, 0.75]),
    "float32 NaN": np.array([0.5, np.nan, 0.75], np.float32),
    "short": np.array([0.5, 0.25]),
    "empty": np.array([]),
    "3-d": np.full((3, 1, 1), 0.5),
    "0-d": np.array(0.5),
    "number": 0.5,
    "none": None,
    "string": "0.5",
    "strings": ["a", "b", "c"],
    "complex": np.array([0.5, 0.25j, 0.75]),
    "ragged": [[0.5], [0.25, 0.75], [0.5]],
    "no columns": np.empty((3, 0)),
}
BAD_WEIGHTS = {
    **{name: BAD[name] for name in ("NaN", "infinity", "short", "empty", "number", "string")},
    "all zero": np.zeros(3),
    "column": np.ones((3, 1)),
    "cancel": np.array([1.0, -2.0, 1.0]),
}
DEVIANCES = ("mean_tweedie_deviance", "mean_poisson_deviance", "mean_gamma_deviance")
OF_VALUES = (*REGRESSION, *DEVIANCES, "d2_tweedie_score")


def error_inputs():
    for name, bad in BAD.items():
        for metric in OF_VALUES:
            yield Input(f"y_true {name}", metric, bad, GOOD)
            yield Input(f"y_pred {name}", metric, GOOD, bad)
        for metric in (*PROBA, "hinge_loss"):
            yield Input(f"predictions {name}", metric, [0, 1, 1], bad)
            if name != "none":
                yield Input(f"labels {name}", metric, [0, 1, 2], THIRDS, labels=bad)
            if name != "strings" or "brier" in metric:
                yield Input(f"y_true {name}", metric, bad, GOOD)
    for name, bad in BAD_WEIGHTS.items():
        for metric in OF_VALUES:
            yield Input(f"weight {name}", metric, GOOD, GOOD, sample_weight=bad)
        for metric in PROBA:
            yield Input(f"weight {name}", metric, [0, 1, 1], GOOD, sample_weight=bad)
        if name not in ("NaN", "infinity"):  # scikit-learn accepts them
            yield Input(f"weight {name}", "hinge_loss", [0, 1, 1], GOOD, sample_weight=bad)
    yield from regression_errors()
    yield from class_errors()


def regression_errors():
    two, three = np.ones((3, 2)), np.ones((3, 3))
    for metric, options in REGRESSION.items():
        yield Input("outputs differ", metric, two, three, **options[0])
        yield Input("unknown name", metric, two, two, multioutput="variance_weighted")
        yield Input("none", metric, two, two, multioutput=None)
        yield Input("number", metric, two, two, multioutput=2)
        yield Input("weights too many", metric, two, two, multioutput=[1, 2, 3])
        yield Input("weights cancel", metric, two, two, multioutput=[1, -1])
        if metric != "root_mean_squared_error":  # scikit-learn accepts them
            yield Input("weights of one", metric, GOOD, GOOD, multioutput=[1])
            yield Input("weight NaN", metric, two, two, multioutput=[1, np.nan])
    for alpha in (-0.1, 1.1, np.nan, "0.5", None):
        yield Input(f"alpha {alpha}", "mean_pinball_loss", GOOD, GOOD, alpha=alpha)
        yield Input(f"alpha {alpha}", "d2_pinball_score", GOOD, GOOD, alpha=alpha)
    for metric, low in itertools.product(OF_LOGARITHMS, (-1.0, -2.0)):
        yield Input(f"y {low}", metric, np.r_[low, 1, 1], GOOD)
        yield Input(f"x {low}", metric, GOOD, np.r_[low, 1, 1])
        weight = np.array([0.0, 1, 1])
        yield Input(f"y {low} without weight", metric, np.r_[low, 1, 1], GOOD, sample_weight=weight)
    yield Input("outputs of one row", "d2_pinball_score", [[1, 2]], [[1, 2]], multioutput=[1])
    yield Input("outputs of one row", "d2_tweedie_score", [[1, 2]], [[1, 2]])
    yield Input("constant", "d2_tweedie_score", np.full(3, 0.5), GOOD)
    yield Input("constant counts", "d2_tweedie_score", np.full(3, 0.5), GOOD, power=1)
    yield Input("zeros", "d2_tweedie_score", np.zeros(3), GOOD)
    for metric in ("mean_tweedie_deviance", "d2_tweedie_score"):
        yield from power_errors(metric)


def power_errors(metric):
    two = np.ones((3, 2))
    for power in (0.5, np.nan, "1", None, [1]):
        yield Input(f"power {power}", metric, GOOD, GOOD, power=power)
    for power in POWERS:
        yield Input(f"power {power} outputs", metric, two, two, power=power)
        if power:
            yield Input(f"power {power} x 0", metric, GOOD, [0, 1, 2], power=power)
            yield Input(f"power {power} x -1", metric, GOOD, -GOOD, power=power)
        if power >= 1:
            yield Input(f"power {power} y -1", metric, -GOOD, GOOD, power=power)
            yield Input(
                f"power {power} y -1 without weight",
                metric,
                np.array([-1.0, 1, 1]),
                GOOD,
                power=power,
                sample_weight=np.array([0.0, 1, 1]),
            )
        if power >= 2:
            yield Input(f"power {power} y 0", metric, [0, 1, 1], GOOD, power=power)
    x = np.array([np.nan, 0.25, 0.75])
    for metric in OF_VALUES:
        yield Input("NaN without weight", metric, GOOD, x, sample_weight=np.array([0.0, 1, 1]))
    for alpha in (0, 1):
        for bad in (np.inf, -np.inf):
            x = np.array([bad, 0.25, 0.75])
            yield Input(f"infinity {alpha} {bad}", "mean_pinball_loss", GOOD, x, alpha=alpha)


def class_errors():
    for metric in PROBA:
        yield Input("above 1", metric, [0, 1, 1], [0.5, 1.5, 0.5])
        yield Input("below 0", metric, [0, 1, 1], [0.5, -0.5, 0.5])
        yield Input("above 1 in a matrix", metric, [0, 1, 2], THIRDS * [1, 4, 1])
        yield Input("below 0 in a matrix", metric, [0, 1, 2], THIRDS * [1, 3, -1])
        yield Input("more columns", metric, [0, 1, 1], THIRDS)
        yield Input("fewer columns", metric, [0, 1, 2], THIRDS[:, :2])
        yield Input("one column", metric, [0, 1, 2], THIRDS[:, :1])
        yield Input("one class of three", metric, [1, 1, 1], THIRDS)
        yield Input("labels too few", metric, [0, 1, 2], THIRDS, labels=[0, 1])
        yield Input("labels too many", metric, [0, 1, 2], THIRDS, labels=[0, 1, 2, 3])
        yield Input("one label", metric, [0, 0, 0], THIRDS, labels=[0])
        yield Input("a label twice", metric, [0, 1, 2], THIRDS, labels=[0, 1, 1])
        yield Input("unknown label", metric, [0, 1, 3], THIRDS, labels=[0, 1, 2])
        yield Input("unknown negative", metric, [0, 1, -1], THIRDS, labels=[0, 1, 2])
        yield Input("unknown string", metric, ["a", "b", "x"], THIRDS, labels=["a", "b", "c"])
        yield Input("string labels", metric, [0, 1, 2], THIRDS, labels=["a", "b", "c"])
        yield Input("a gap", metric, [0, 1, 3, 3], np.full((4, 4), 0.25))
        yield Input("not whole", metric, [0.5, 1, 2], THIRDS)
        yield Input("bytes", metric, [b"a", b"b", b"c"], THIRDS)
        yield Input("objects", metric, np.array([0, 1, 2], object), THIRDS)
        yield Input("mixed objects", metric, np.array(["a", 1, None], object), THIRDS)
        yield Input("indicator of three values", metric, np.array([[0, 1, 2]] * 3), THIRDS)
        yield Input("indicator and labels", metric, np.eye(3), THIRDS, labels=[0, 1, 2])
        yield Input("indicator of two", metric, np.eye(3)[:, :2], THIRDS)
        yield Input("more rows", metric, [0, 1, 2, 2], THIRDS)
        yield Input("fewer rows", metric, [0, 1], GOOD)
        yield Input("NaN in a matrix", metric, [0, 1, 2], THIRDS * [1, np.nan, 1])
        yield Input("ignored index", metric, [-100, 1, 2], THIRDS, labels=[0, 1, 2])
        yield Input("least integer", metric, [-(2**63), 1, 2], THIRDS, labels=[0, 1, 2])
        yield Input("numbers among strings", metric, [1, "a", "b"], THIRDS)
        yield Input("numbers among labels", metric, ["1", "a", "b"], THIRDS, labels=[1, "a", "b"])
        yield Input("objects after strings", metric, np.array(["a", "b", None], object), THIRDS)
        yield Input("NA", metric, pandas.Series(["a", "b", None], dtype="string"), THIRDS)
        if metric != "brier_score_loss":
            yield Input("labels a string", metric, [0, 1, 1], GOOD, labels="01")
    yield Input("one label", "log_loss", [1, 1, 1], GOOD)
    yield Input("normalize", "log_loss", [0, 1, 1], GOOD, normalize="yes")
    yield Input("normalize 1", "log_loss", [0, 1, 1], GOOD, normalize=2)
    yield Input("both names", "log_loss", [0, 1, 1], GOOD, y_pred=GOOD)
    yield Input("no predictions", "log_loss", [0, 1, 1])
    yield Input("one row of more", "d2_log_loss_score", [0, 1], [0.5])
    yield Input("weights of one row", "d2_log_loss_score", [1], [0.5], sample_weight=[1, 2])
    yield Input("labels of one row", "d2_log_loss_score", [1], [0.5], labels="01")
    yield Input("labels a string", "brier_score_loss", [0, 1, 1], GOOD, labels="01")
    for metric in ("brier_score_loss", "d2_brier_score"):
        yield Input("strings", metric, ["a", "b", "b"], GOOD)
        yield Input("columns of labels", metric, np.eye(3), GOOD)
        yield Input("pos_label", metric, [0, 1, 1], GOOD, pos_label=[1])
    yield Input("one row of more", "d2_brier_score", [0, 1], [0.5])
    yield Input("scale_by_half", "brier_score_loss", [0, 1, 1], GOOD, scale_by_half="half")
    yield Input("scale_by_half 1", "brier_score_loss", [0, 1, 1], GOOD, scale_by_half=1.0)
    yield Input("flat", "hinge_loss", [0, 1, 2], GOOD)
    yield Input("columns", "hinge_loss", [0, 1, 2], THIRDS[:, :2])
    yield Input("columns of two", "hinge_loss", [0, 1, 1], THIRDS)
    yield Input("labels", "hinge_loss", [0, 1, 2], THIRDS, labels=[0, 1, 2, 3])
    yield Input("unknown label", "hinge_loss", [0, 1, 7], THIRDS, labels=[0, 1, 2])
    yield Input("strings", "hinge_loss", [0, 1, 1], ["1", "2", "3"])
    yield Input("not whole", "hinge_loss", [0.5, 1.5, 1.5], GOOD)
    yield Input("columns of labels", "hinge_loss", np.eye(3), THIRDS)
    mixed = np.array(["a", 1, None], object)
    yield Input("mixed objects", "hinge_loss", mixed, THIRDS, labels=["a", "b", "c"])


ERRORS = list(error_inputs())


@pytest.mark.parametrize("case", ERRORS, ids=ids(ERRORS))
@pytest.mark.filterwarnings("ignore")
def test_error_has_the_types_of_scikit_learn(case):
    with pytest.raises(BUILTIN) as expected:
        case.call(peer)
    types = tuple(t for t in BUILTIN if issubclass(expected.type, t))
    with pytest.raises(BUILTIN) as raised:
        case.call(metrics)
    assert all(issubclass(raised.type, t) for t in types), (expected.value, raised.value)
    assert str(raised.value)


MESSAGES = [
    (Input("", "mean_squared_error", GOOD, BAD["NaN"]), r"y_pred\[1\] = nan: .* finite"),
    (Input("", "mean_poisson_deviance", -GOOD, GOOD), r"y_true\[0\] = -0.5: .* at least 0"),
    (Input("", "mean_gamma_deviance", GOOD, [1, 0, 1]), r"y_pred\[1\] = 0.0: .* above 0"),
    (Input("", "mean_squared_log_error", [-1, 0], [0, 0]), r"y_true\[0\] = -1.0: .* above -1"),
    (Input("", "log_loss", [0, 1, 2], THIRDS * [1, 4, 1]), r"y_proba\[0, 1\] = 1.33\d+: "),
    (Input("", "log_loss", [0, 1, 7], THIRDS, labels=[0, 1, 2]), r"\[7\], .* \[0, 1, 2\]"),
    (Input("", "log_loss", [1, 1, 1], GOOD), "only one label, 1: .* labels"),
    (Input("", "hinge_loss", [0, 1, 2], GOOD), "shape .3,., but there are 3 labels"),
    (Input("", "log_loss", [1, "a", 1], GOOD), r"y_true\[0\] = 1 would become '1'"),
    (Input("", "log_loss", np.array(["a", None], object), [0, 1]), r"y_true\[1\] = None is not"),
    (
        Input("", "hinge_loss", np.array(["a", 1, "b"], object), THIRDS, labels=["a", "b", "c"]),
        r"y_true\[1\] = 1 is not a string",
    ),
    (
        Input("", "brier_score_loss", [0, 1, 1], GOOD, sample_weight=[1, np.nan, 1]),
        r"sample_weight\[1\] = nan",
    ),
]


@pytest.mark.parametrize(("case", "message"), MESSAGES, ids=[m for _, m in MESSAGES])
def test_messages_name_argument_position_and_value(case, message):
    with pytest.raises(ValueError, match=message):
        case.call(metrics)


# --- differences ----------------------------------------------------------------------------------


def test_hinge_labels_are_not_truncated():
    """scikit-learn converts y_true to the dtype of labels: "bus" becomes "b"."""
    scores = np.eye(3)
    with pytest.raises(ValueError, match="bus"):
        metrics.hinge_loss(["a", "bus", "c"], scores, labels=["a", "b", "c"])


def test_hinge_labels_must_contain_all_of_y_true():
    with pytest.raises(ValueError, match="3 labels, but labels only"):
        metrics.hinge_loss([0, 1, 2], GOOD, labels=[0, 1])


@pytest.mark.parametrize("metric", OF_VALUES)
def test_masked_arrays_and_sparse_matrices_are_rejected(metric):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    for bad in (np.ma.masked_array(GOOD, [0, 1, 0]), scipy_sparse.csr_array(np.eye(3))):
        with pytest.raises(TypeError):
            getattr(metrics, metric)(bad, GOOD)


def test_powers_close_to_1_and_2_are_rejected():
    with pytest.raises(ValueError, match="1e-6"):
        metrics.mean_tweedie_deviance(GOOD, GOOD, power=1 + 1e-9)


def test_a_sum_that_overflows():
    """The mean is right; scikit-learn returns NaN, from infinity times 0."""
    huge = np.array([1e308, -1e308])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.mean_pinball_loss(huge, -huge) == 1e308


def test_deviance_of_good_predictions_is_accurate():
    """The terms of the deviance cancel; scikit-learn's result has no correct digit."""
    x = np.full(3, 5.0)
    y = x * (1 + 1e-9)
    with mpmath.workdps(50):
        expected = float(deviance(mpmath.mpf(y[0]), mpmath.mpf(x[0]), 1))
    assert metrics.mean_poisson_deviance(y, x) == pytest.approx(expected, rel=1e-13)


def test_log_error_of_good_predictions_is_accurate():
    """The logarithms cancel; half of the digits of scikit-learn's result are wrong."""
    for y in (1.0, 1e-12, -1 + 2.0**-40, 1e12):
        x = np.nextafter(y, np.inf, dtype=float) + 1e-9 * abs(y)
        with mpmath.workdps(50):
            expected = float((mpmath.log1p(mpmath.mpf(x)) - mpmath.log1p(mpmath.mpf(y))) ** 2)
        for first, second in ((x, y), (y, x)):
            result = metrics.mean_squared_log_error([first], [second])
            assert result == pytest.approx(expected, rel=1e-14, abs=0)
            result = metrics.root_mean_squared_log_error([first], [second])
            assert result == pytest.approx(math.sqrt(expected), rel=1e-14, abs=0)


def test_root_of_one_output_takes_no_weights_of_outputs():
    with pytest.raises(ValueError, match="only one output"):
        metrics.root_mean_squared_error(GOOD, GOOD, multioutput=[1])
    with pytest.raises(ValueError, match=r"multioutput\[1\] = nan"):
        metrics.root_mean_squared_error(np.ones((3, 2)), np.ones((3, 2)), multioutput=[1, np.nan])


def test_explained_deviance_of_constant_values_is_an_error():
    """scikit-learn divides rounding errors by each other: -1e32 for 0.1 three times."""
    for weight in (None, [1.0, 3.0, 0.5]):
        with pytest.raises(ZeroDivisionError, match=r"y_true is 0\.1 everywhere"):
            metrics.d2_tweedie_score([0.1, 0.1, 0.1], GOOD, sample_weight=weight)
    with pytest.raises(ZeroDivisionError, match="everywhere"):
        metrics.d2_tweedie_score([0.1, 0.1, 7.0], GOOD, sample_weight=[1.0, 3.0, 0.0])


@pytest.mark.parametrize(("y", "power"), [([-2, -1, 1], -1), ([0, 0, 0], 1), ([0, 0, 0], 1.5)])
def test_explained_deviance_needs_a_mean_in_the_range_of_the_power(y, power):
    """scikit-learn uses the formula of the deviance, whatever the mean."""
    result, warned = with_warnings(lambda: metrics.d2_tweedie_score(y, GOOD, power=power))
    assert math.isnan(result)
    assert warned == [UserWarning]


def test_explained_brier_score_of_one_class():
    """scikit-learn divides by rounding errors: -1e31 for these weights."""
    ones, weight = np.ones((30, 3), int), np.random.default_rng(3).random(30)
    p = np.random.default_rng(4).dirichlet(np.ones(3), 30)
    assert metrics.d2_brier_score(ones, p, sample_weight=weight) == -math.inf
    assert metrics.d2_brier_score(np.ones(30), p[:, 0], sample_weight=weight) == -math.inf
    weight[:] = [0.1, 0.2, 0] * 10
    y = [1, 1, 0] * 10
    assert metrics.d2_brier_score(y, p[:, 0], sample_weight=weight) == -math.inf
    assert math.isnan(metrics.d2_brier_score(y, np.ones(30), sample_weight=weight))


def test_quantile_does_not_depend_on_the_scale_of_the_weights():
    """scikit-learn compares sums of weights to 2e-16."""
    y, x, weight = [0.0, 1.0, 5.0], [0.5, 0.5, 0.5], np.array([1.0, 2.0, 2.0])
    expected = metrics.d2_absolute_error_score(y, x, sample_weight=weight)
    assert expected == peer.d2_absolute_error_score(y, x, sample_weight=weight)
    for scale in (2.0**-80, 2.0**80):
        assert metrics.d2_absolute_error_score(y, x, sample_weight=weight * scale) == expected


def test_float16_is_clipped_to_its_epsilon():
    p = np.array([0.0, 1.0, 0.5], np.float16)
    eps = 2.0**-10
    expected = -(math.log(eps) + math.log1p(-eps) + math.log(0.5)) / 3
    assert metrics.log_loss([1, 1, 0], p) == pytest.approx(expected, rel=1e-6)
    assert metrics.mean_squared_error(p, p + np.float16(0.5)) == 0.25


# --- the package ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", metrics.__all__)
def test_signature_matches_scikit_learn(metric):
    def parameters(function):
        signature = inspect.signature(function)
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    assert parameters(getattr(metrics, metric)) == parameters(getattr(peer, metric))


def test_warnings_point_to_the_caller():
    for call in (
        lambda: metrics.log_loss([0, 1, 1], y_pred=GOOD),
        lambda: metrics.log_loss([0, 1, 2], THIRDS / 2),
        lambda: metrics.brier_score_loss([0, 1, 2], THIRDS, labels=[2, 1, 0]),
        lambda: metrics.d2_log_loss_score([0], [0.5]),
        lambda: metrics.d2_brier_score([0], [0.5]),
        lambda: metrics.d2_absolute_error_score([0], [0.5]),
        lambda: metrics.d2_tweedie_score([0], [0.5]),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert [w.filename for w in caught] == [__file__]


def test_documentation_lists_every_metric():
    for page in ("guides/sklearn.md", "api.md"):
        text = (Path(__file__).parent.parent / "docs" / page).read_text(encoding="utf-8")
        missing = [name for name in metrics.__all__ if not re.search(rf"\b{name}\b", text)]
        assert not missing, page


def test_number_of_compared_inputs_is_documented():
    page = Path(__file__).parent.parent / "docs" / "sklearn-metrics.md"
    numbers = re.search(r"on ([\d,]+) inputs and\s+([\d,]+) errors", page.read_text("utf-8"))
    assert numbers.groups() == (f"{len(INPUTS):,}", f"{len(ERRORS):,}")


@pytest.mark.parametrize("name", ["InvalidParameterError", "UndefinedMetricWarning"])
def test_exceptions_can_be_pickled(name):
    error = getattr(fastloss.sklearn, name)("reason")
    assert type(pickle.loads(pickle.dumps(error))) is type(error)


def test_package_needs_no_scikit_learn():
    program = """
import sys
import fastloss
assert not any(name.startswith("fastloss.sklearn") for name in sys.modules)
for name in ("sklearn", "scipy", "pandas"):
    sys.modules[name] = None
import fastloss.sklearn as skl
assert set(skl.metrics.__all__) <= set(skl.__all__)
assert skl.log_loss(["b", "a"], [[0.5, 0.5], [0.5, 0.5]]) > 0.69
assert skl.mean_squared_error([1.0, 2.0], [1.0, 4.0]) == 2.0
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


# --- invariants -----------------------------------------------------------------------------------

DTYPES = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "bool", "float32")
LABELS = st.one_of(
    *(
        hnp.arrays(
            dtype,
            st.integers(1, 30),
            elements=st.integers(0, 100).map(np.dtype(dtype).type) if dtype == "float32" else None,
        )
        for dtype in DTYPES
    ),
    st.lists(st.text("abc", max_size=2), min_size=1).map(np.array),
)


FIXED_POINT = st.integers(-(10**9), 10**9).map(lambda n: n / 1024)  # products do not underflow


@given(LABELS)
def test_labels_are_encoded_in_order(y):
    classes, indices = _inputs.encode(y)
    expected, inverse = np.unique(y, return_inverse=True)
    assert classes.dtype == y.dtype
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(indices, inverse)
    np.testing.assert_array_equal(_inputs.encode_by(y, classes), inverse)


@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from(PROBA))
def test_renamed_labels_give_the_same_value(seed, columns, metric):
    rng = np.random.default_rng(seed)
    y = draw_labels(rng, np.arange(columns), 10)
    p = rng.dirichlet(np.ones(columns), y.size)
    weight = rng.random(y.size) + 0.1
    value = getattr(metrics, metric)(y, p, sample_weight=weight)
    for labels in (np.array(list("abcdef")), np.array([-9, -1, 0, 5, 6000, 10**15])):
        assert getattr(metrics, metric)(labels[y], p, sample_weight=weight) == value


@given(st.integers(0, 2**32), st.sampled_from([*REGRESSION, *PROBA, "hinge_loss"]))
def test_integer_weights_repeat_rows(seed, metric):
    rng = np.random.default_rng(seed)
    y = draw_labels(rng, np.arange(3), 12)
    p = rng.gamma(2.0, size=y.size) if metric in REGRESSION else rng.dirichlet(np.ones(3), y.size)
    weight = rng.integers(1, 4, y.size)
    weighted = getattr(metrics, metric)(y, p, sample_weight=weight)
    repeated = getattr(metrics, metric)(np.repeat(y, weight), np.repeat(p, weight, axis=0))
    assert weighted == pytest.approx(repeated, rel=1e-13, abs=1e-13)


@given(
    hnp.arrays(float, st.tuples(st.integers(1, 20), st.just(2)), elements=FIXED_POINT),
    st.sampled_from(list(REGRESSION)),
    st.sampled_from(["raw_values", "uniform_average", [0.25, 0.75]]),
)
def test_arbitrary_values_match_scikit_learn(y, metric, output):
    if metric in OF_LOGARITHMS:
        y = np.floor(np.abs(y))  # distinct logarithms do not cancel
    result = getattr(metrics, metric)(y, y[::-1], multioutput=output)
    expected = getattr(peer, metric)(y, y[::-1], multioutput=output)
    atol = TOLERANCE * np.max(1 + np.abs(1 - expected)) if metric.startswith("d2") else 0
    np.testing.assert_allclose(result, expected, rtol=TOLERANCE, atol=atol)
