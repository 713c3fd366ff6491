"""scikit-learn's losses as metrics: the names, signatures, numbers and exceptions of version 1.9.

They need NumPy only. Each is a loss of fastloss behind scikit-learn's way of reading labels,
weights and outputs.
"""

import math
import warnings
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import losses
from fastloss.sklearn import _inputs

__all__ = [
    "brier_score_loss",
    "d2_log_loss_score",
    "hinge_loss",
    "log_loss",
    "mean_absolute_error",
    "mean_gamma_deviance",
    "mean_pinball_loss",
    "mean_poisson_deviance",
    "mean_squared_error",
    "mean_tweedie_deviance",
]

_Array = NDArray[Any]

_EPS = {np.dtype(t): float(np.finfo(t).eps) for t in (np.float64, np.float32, np.float16)}
_PIECE = 1 << 15  # entries that are worked on at a time, in cache


class UndefinedMetricWarning(UserWarning):
    """A metric has no value for such data."""

    __module__ = "fastloss.sklearn"


# --- sums -----------------------------------------------------------------------------------------


def _sums(loss: Any, *arrays: Any, weight: _Array | None, **options: float) -> tuple[float, float]:
    """(sum of the weighted losses, sum of the weights); negative weights are allowed here."""
    if weight is None or not np.fmin.reduce(weight) < 0:  # NaN is passed on
        total, divisor, _ = loss.sums(*arrays, sample_weight=weight, **options)
        return total, divisor
    total, divisor, _ = loss.sums(*arrays, sample_weight=np.maximum(weight, 0), **options)
    less, lighter, _ = loss.sums(*arrays, sample_weight=np.maximum(-weight, 0), **options)
    return total - less, divisor - lighter


def _ratio(total: Any, weight: float) -> Any:
    if weight == 0:
        raise ZeroDivisionError("the weights add up to 0: there is no mean")
    return total / weight


def _check_flag(name: str, value: Any, words: str = "True or False") -> None:
    if not isinstance(value, (bool, np.bool_)):
        raise _inputs.InvalidParameterError(f"{name} must be {words}, got {value!r}")


# --- classes --------------------------------------------------------------------------------------


def _read_classes(y_true, y_proba, sample_weight, labels):
    """(classes or marks of labels, probabilities, weights)"""
    proba = _inputs.as_probabilities(y_proba)
    weight = None if sample_weight is None else _inputs.as_weight(sample_weight, len(proba))
    truth = _inputs.truth(y_true, labels, _columns(proba))
    _inputs.check_rows(y_true=truth, y_proba=proba)
    if proba.ndim == 2:
        _inputs.check_row_sums(proba)
    elif truth.ndim == 2:
        proba = np.stack((1 - proba, proba), axis=1)
    return truth, proba, weight


def _columns(proba: _Array) -> int:
    """The number of classes."""
    return 2 if proba.ndim == 1 else proba.shape[1]


def _flat_index(codes: _Array, columns: int) -> _Array:
    """Where the entries of the classes are in a table in C order."""
    return np.arange(0, codes.size * columns, columns) + _inputs.signed(codes)


def _one_hot(codes: _Array, columns: int) -> _Array:
    marks = np.zeros((codes.size, columns), np.bool_)
    marks.reshape(-1)[_flat_index(codes, columns)] = True
    return marks


def _log_sums(truth: _Array, proba: _Array, weight: _Array | None) -> tuple[float, float]:
    """(sum, weight) of -log of the probabilities of what is true."""
    eps = _EPS[proba.dtype]
    if truth.ndim == 2:
        each = -(truth * np.log(np.clip(proba, eps, 1 - eps))).sum(axis=1)
        weight = np.ones(each.size) if weight is None else weight
        return float(each @ weight), float(weight.sum())
    if proba.ndim == 1:
        of_true = np.abs(proba - (truth == 0))
    else:
        of_true = proba.take(_flat_index(truth, proba.shape[1]))
    np.maximum(of_true, eps, out=of_true)
    np.minimum(of_true, 1 - eps, out=of_true)
    return _sums(losses.binary_cross_entropy, of_true, 1.0, weight=weight)


def _renamed(y_proba, y_pred):
    """The probabilities, which were y_pred before version 1.9."""
    if isinstance(y_pred, str) and y_pred == "deprecated":
        return y_proba
    if y_proba is not None:
        raise ValueError("y_pred is the old name of y_proba: pass y_proba alone")
    warnings.warn(
        "y_pred was renamed to y_proba in scikit-learn 1.9 and goes away in 1.11",
        FutureWarning,
        stacklevel=_inputs.caller_level(),
    )
    return y_pred


def log_loss(
    y_true: ArrayLike,
    y_proba: ArrayLike | None = None,
    *,
    normalize: bool = True,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    y_pred: ArrayLike = "deprecated",
) -> float:
    """Cross entropy of predicted probabilities.

    For a row whose class has the predicted probability p::

        l = -log min(max(p, eps), 1 - eps)

    Parameters
    ----------
    y_true : array_like, shape (n,), (n, 1) or (n, k)
        Labels: integers, whole numbers, strings or booleans; or k marks of 0 and 1 in each row.
    y_proba : array_like, shape (n, k), (n,) or (n, 1)
        Predicted probabilities, in columns in the order of the sorted labels, or of the second of
        two labels. `eps` is the machine epsilon of their dtype, of float64 if they are not
        floating.
    normalize : bool, default True
        The mean, else the sum.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    labels : array_like, optional
        All labels, if some are not in `y_true`.
    y_pred : array_like, default "deprecated"
        The old name of `y_proba`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For probabilities outside [0, 1], labels that do not fit the columns or are not among
        `labels`, a single label without `labels`, NaN and infinity, lengths that differ, weights
        that are all 0.
    ZeroDivisionError
        For weights that add up to 0.

    Warns
    -----
    UserWarning
        For probabilities of a row that do not add up to 1, which are taken as they are, and for
        `labels` out of order, which are sorted.

    Notes
    -----
    Agrees with ``sklearn.metrics.log_loss`` to 1e-12 in float64, also where that is not the best
    number: probabilities are clipped, so that no row costs more than 36.04 or less than 2.2e-16;
    probabilities of one column are turned into 1 - p in their own precision first.
    `fastloss.binary_cross_entropy_with_logits` and `fastloss.cross_entropy` do neither.

    Examples
    --------
    >>> from fastloss.sklearn import log_loss
    >>> probabilities = [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]  # of ham, of spam
    >>> log_loss(["spam", "ham", "ham", "spam"], probabilities)
    0.21616187468057912
    """
    _check_flag("normalize", normalize)
    proba = _renamed(y_proba, y_pred)
    total, weight = _log_sums(*_read_classes(y_true, proba, sample_weight, labels))
    return _ratio(total, weight) if normalize else total


def d2_log_loss_score(
    y_true: ArrayLike,
    y_proba: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    y_pred: ArrayLike = "deprecated",
) -> float:
    """Share of the log loss that predictions explain: 1 is best, 0 that of the classes' shares.

    ``1 - log_loss(y_true, y_proba) / log_loss(y_true, q)``, where q predicts in every row how
    often the classes are in `y_true`.

    Parameters
    ----------
    y_true : array_like, shape (n,), (n, 1) or (n, k)
        Labels, as in `log_loss`.
    y_proba : array_like, shape (n, k), (n,) or (n, 1)
        Predicted probabilities, as in `log_loss`.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    labels : array_like, optional
        All labels, if some are not in `y_true`.
    y_pred : array_like, default "deprecated"
        The old name of `y_proba`.

    Returns
    -------
    float
        NaN for fewer than two rows.

    Raises
    ------
    ValueError
        As in `log_loss`.
    ZeroDivisionError
        For weights that add up to 0.

    Warns
    -----
    UserWarning
        As in `log_loss`, and for fewer than two rows.

    Notes
    -----
    Agrees with ``sklearn.metrics.d2_log_loss_score``. As there, q is clipped to the machine epsilon
    of float64 whatever the dtype of `y_proba`, and a `y_true` of one class, with `labels`, gives an
    absurd number below -1e10.

    Examples
    --------
    >>> from fastloss.sklearn import d2_log_loss_score
    >>> d2_log_loss_score([0, 1, 1, 0], [0.25, 0.75, 0.5, 0.5])
    0.2924812503605781
    """
    proba = _inputs.as_array(_renamed(y_proba, y_pred), "y_proba")
    if proba.shape[0] < 2:
        if labels is not None:
            _inputs.check_array_like(labels, "labels")
        y, weight = _inputs.as_array(y_true, "y_true"), sample_weight
        weight = None if weight is None else _inputs.as_array(weight, "sample_weight")
        _inputs.check_rows(y_true=y, y_proba=proba, sample_weight=weight)
        warnings.warn(
            "the D² of fewer than two rows is not defined",
            UndefinedMetricWarning,
            stacklevel=_inputs.caller_level(),
        )
        return math.nan
    truth, proba, weight = _read_classes(y_true, proba, sample_weight, labels)
    total, divisor = _log_sums(truth, proba, weight)
    return 1 - total / _null_sum(truth, _columns(proba), weight, divisor)


def _null_sum(truth: _Array, columns: int, weight: _Array | None, divisor: float) -> float:
    """The log losses of predictions of how often each class is."""
    if truth.ndim == 1:
        often = _inputs.count(truth, columns, weight)
    else:
        often = truth.sum(axis=0) if weight is None else weight @ truth
    eps = _EPS[np.dtype(np.float64)]
    return -float(often @ np.log(np.clip(_ratio(often, divisor), eps, 1 - eps)))


def brier_score_loss(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    pos_label: float | bool | str | None = None,
    labels: ArrayLike | None = None,
    scale_by_half: bool | str = "auto",
) -> float:
    """Mean squared error of predicted probabilities.

    For a row of the probabilities p[c], t[c] being 1 for its class and 0 for the others::

        l = sum_c (t[c] - p[c])^2        for two classes half of it: (t - p)^2

    Parameters
    ----------
    y_true : array_like, shape (n,), (n, 1) or (n, k)
        Labels, as in `log_loss`.
    y_proba : array_like, shape (n, k), (n,) or (n, 1)
        Predicted probabilities, in columns in the order of the sorted labels, or of the positive
        label.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    pos_label : float, bool or str, optional
        Which label `y_proba` of one column is of: 1 if labels are 0 and 1 or -1 and 1, else the
        larger number. Strings need it.
    labels : array_like, optional
        All labels, if some are not in `y_true`; for `y_proba` of more columns.
    scale_by_half : bool or "auto", default "auto"
        Whether the sum over the classes is halved; "auto" does so for two of them.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As in `log_loss`, and for strings without `pos_label`, and more than two labels for
        probabilities of one column.
    ZeroDivisionError
        For weights that add up to 0.

    Warns
    -----
    UserWarning
        As in `log_loss`.

    Notes
    -----
    Agrees with ``sklearn.metrics.brier_score_loss``, whose second column 1 - p is rounded; here it
    is not needed. As there, a `pos_label` that is not in `y_true` makes all rows negative.

    Examples
    --------
    >>> from fastloss.sklearn import brier_score_loss
    >>> brier_score_loss([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.3])
    0.037500000000000006
    >>> brier_score_loss(["spam", "ham", "ham"], [0.1, 0.9, 0.8], pos_label="ham")
    0.02
    >>> brier_score_loss(["a", "b", "c"], [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.2, 0.2, 0.6]])
    0.1466666666666666
    """
    automatic = isinstance(scale_by_half, str) and scale_by_half == "auto"
    if not automatic:
        _check_flag("scale_by_half", scale_by_half, 'True, False or "auto"')
    if not (pos_label is None or isinstance(pos_label, (Real, str, np.bool_))):
        raise _inputs.InvalidParameterError(
            f"pos_label must be a number, a string or None, got {pos_label!r}"
        )
    proba = _inputs.as_probabilities(y_proba)
    columns = _columns(proba)
    if proba.ndim == 2:
        truth, proba, weight = _read_classes(y_true, proba, sample_weight, labels)
        truth = _one_hot(truth, columns) if truth.ndim == 1 else truth
    else:
        if labels is not None:
            _inputs.check_array_like(labels, "labels")
        truth = _inputs.positives(y_true, pos_label)
        _inputs.check_rows(y_true=truth, y_proba=proba)
        weight = None if sample_weight is None else _inputs.as_weight(sample_weight, len(proba))
    score = _ratio(*_sums(losses.mse_loss, proba, truth, weight=weight))
    halved = columns == 2 if automatic else scale_by_half
    return columns * score / 2 if halved else columns * score


def hinge_loss(
    y_true: ArrayLike,
    pred_decision: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Hinge loss of decision values: by how much they miss a distance of 1.

    For a row of the decision x and the label -1 or 1, or of the decisions x[c] and the class y::

        l = max(0, 1 - y x)        l = max(0, 1 - (x[y] - max_{c != y} x[c]))

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Labels. Of two, the larger is 1 and the other -1.
    pred_decision : array_like, shape (n,), (n, 1) or (n, k)
        Decision values; for more than two labels with a column for each, in their sorted order.
    labels : array_like, optional
        All labels, if some are not in `y_true`.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For labels that do not fit the columns or are not among `labels`, NaN and infinity, lengths
        that differ.
    TypeError
        For weights of another shape.
    ZeroDivisionError
        For weights that add up to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.hinge_loss``; decisions in float32 are computed in float64. As
    there, a `y_true` of a single label is all -1, even if it is the larger of two `labels`. Other
    than there, `labels` of two with a `y_true` of more is an error, and labels are not cut off or
    rounded to the dtype of `labels`. `fastloss.multi_margin_loss` sums over the other classes
    instead.

    References
    ----------
    Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", JMLR 2, 2001.

    Examples
    --------
    >>> from fastloss.sklearn import hinge_loss
    >>> hinge_loss([-1, 1, 1], [-2.0, 0.5, 2.0])
    0.16666666666666666
    >>> hinge_loss([0, 2], [[1.0, 0.5, 0.0], [0.0, 1.0, 0.5]], labels=[0, 1, 2])
    1.0
    """
    scores, truth, weight = _read_decisions(y_true, pred_decision, labels, sample_weight)
    if scores.ndim == 1:
        total, divisor = _sums(
            losses.margin_ranking_loss, scores, 0.0, truth, weight=weight, margin=1.0
        )
    else:
        own, other = _own_and_other(truth, scores)
        if own.dtype == np.float32:
            own, other = own.astype(np.float64), other.astype(np.float64)
        total, divisor = _sums(losses.margin_ranking_loss, own, other, 1, weight=weight, margin=1.0)
    return _ratio(total, divisor)


def _read_decisions(y_true, pred_decision, labels, sample_weight):
    """(decisions, in one axis for two labels; classes, or signs for two labels; weights)"""
    scores = _inputs.as_decisions(pred_decision)
    y = _inputs.column(_inputs.as_array(y_true, "y_true"), "y_true")
    weight = None if sample_weight is None else _inputs.as_numbers(sample_weight, "sample_weight")
    _inputs.check_rows(y_true=y, pred_decision=scores, sample_weight=weight)
    if weight is not None and weight.ndim != 1:
        raise TypeError(f"sample_weight has shape {weight.shape}: it must have one axis")
    columns = 1 if scores.ndim == 1 else scores.shape[1]
    classes, codes = _inputs.decision_classes(y, labels, columns)
    if classes > 2 and columns != classes:
        raise ValueError(
            f"pred_decision has shape {scores.shape}, but there are {classes} labels: it must have "
            "a column for each; pass all labels as labels"
        )
    if classes > 2:
        return scores, codes, weight
    scores = _inputs.column(scores, "pred_decision")
    return scores.astype(np.float64, copy=False), 2 * codes.astype(np.int8) - 1, weight


def _own_and_other(codes: _Array, scores: _Array) -> tuple[_Array, _Array]:
    """The score of the class and the largest of the others."""
    rows, columns = scores.shape
    codes = _inputs.signed(codes)
    if scores.size <= _PIECE:
        return _own_and_other_of(codes, scores)
    own, other = np.empty(rows, scores.dtype), np.empty(rows, scores.dtype)
    for part in _parts(rows, columns):
        own[part], other[part] = _own_and_other_of(codes[part], scores[part])
    return own, other


def _own_and_other_of(codes: _Array, scores: _Array) -> tuple[_Array, _Array]:
    table = scores.T.copy()  # a class is a row: maxima go fast
    flat, rows = table.reshape(-1), codes.size
    at = codes * rows
    at += _numbers(rows)
    own = flat.take(at)
    flat[at] = -math.inf
    return own, np.maximum.reduce(table, axis=0)


@lru_cache(maxsize=1)
def _numbers(rows: int) -> _Array:
    """0, 1, ..., rows - 1; kept for the next call of as many."""
    return np.arange(rows)


def _parts(rows: int, columns: int) -> list[slice]:
    step = max(1, _PIECE // columns)
    return [slice(first, first + step) for first in range(0, rows, step)]


# --- regression -----------------------------------------------------------------------------------


def _mean_of_plain(
    loss: Any, y_true: Any, y_pred: Any, sample_weight: Any, tells: bool, **options: float
) -> float:
    """The mean where the arrays are as fastloss takes them, NaN where there is more to look at.

    `tells`: the loss is not finite where an argument is not.
    """
    if type(y_true) is not np.ndarray or type(y_pred) is not np.ndarray:
        return math.nan
    dtype = y_pred.dtype
    if dtype not in _inputs.FLOATS or not (y_true.dtype is dtype or y_true.dtype.kind in "iub"):
        return math.nan
    if y_true.shape != y_pred.shape or not 0 < y_pred.ndim < 3 or y_pred.size == 0:
        return math.nan
    if sample_weight is not None:
        if type(sample_weight) is not np.ndarray or sample_weight.dtype is not dtype:
            return math.nan
        sample_weight = _inputs.as_weight(sample_weight, len(y_pred))
        if not sample_weight.min() > 0:  # a weight of 0 would hide what is not finite
            return math.nan
    if not (tells or (_inputs.is_finite(y_true) and _inputs.is_finite(y_pred))):
        return math.nan
    try:
        value = loss(y_pred, y_true, sample_weight=sample_weight, **options)
    except ValueError:  # the slow way names the argument as it is called here
        return math.nan
    return value if value < math.inf else math.nan


def _mean(
    loss: Any,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any,
    multioutput: Any,
    tells: bool = True,
    **options: float,
) -> Any:
    """The mean over rows and outputs, or what `multioutput` asks for."""
    named = isinstance(multioutput, str)
    if type(multioutput) is str and multioutput == "uniform_average":
        value = _mean_of_plain(loss, y_true, y_pred, sample_weight, tells, **options)
        if value == value:
            return value
    if named and multioutput not in ("raw_values", "uniform_average"):
        raise _inputs.InvalidParameterError(
            f"multioutput must be 'raw_values', 'uniform_average' or an array of weights, got "
            f"{multioutput!r}"
        )
    y_true, y_pred, weight = _inputs.as_targets(y_true, y_pred, sample_weight)
    if not named:
        multioutput = _inputs.as_output_weight(multioutput, y_pred.shape[1])
    elif multioutput == "uniform_average":
        return _ratio(*_sums(loss, y_pred, y_true, weight=weight, **options))
    means = _column_means(loss, y_true, y_pred, weight, **options)
    if named:
        return means.astype(y_pred.dtype)
    return float(_ratio(means @ multioutput, float(multioutput.sum())))


def _column_means(
    loss: Any, y_true: _Array, y_pred: _Array, weight: _Array | None, **options: float
) -> _Array:
    rows, columns = y_pred.shape
    weight = np.ones(rows) if weight is None else weight.astype(np.float64)
    total = np.zeros(columns)
    for part in _parts(rows, columns):
        total += weight[part] @ loss(y_pred[part], y_true[part], reduction="none", **options)
    return _ratio(total, float(weight.sum()))


def mean_squared_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Mean of (y_true - y_pred)^2.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        One mean for each output, their mean, or their mean with these weights.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN and infinity, lengths or outputs that differ, weights that are all 0.
    ZeroDivisionError
        For weights that add up to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_squared_error``. As there, the arrays that have a dtype
    decide in which precision others are read: a list beside a float32 array is float32. Sums are in
    float64; float16 is computed in float32.

    Examples
    --------
    >>> from fastloss.sklearn import mean_squared_error
    >>> mean_squared_error([3, -0.5, 2, 7], [2.5, 0.0, 2, 8])
    0.375
    >>> mean_squared_error([[0.5, 1], [-1, 1]], [[0, 2], [-1, 2]], multioutput="raw_values")
    array([0.125, 1.   ])
    """
    return _mean(losses.mse_loss, y_true, y_pred, sample_weight, multioutput)


def mean_absolute_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Mean of ``|y_true - y_pred|``.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        One mean for each output, their mean, or their mean with these weights.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN and infinity, lengths or outputs that differ, weights that are all 0.
    ZeroDivisionError
        For weights that add up to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_absolute_error``; precision is as in `mean_squared_error`.

    Examples
    --------
    >>> from fastloss.sklearn import mean_absolute_error
    >>> mean_absolute_error([3, -0.5, 2, 7], [2.5, 0.0, 2, 8])
    0.5
    >>> mean_absolute_error([[0.5, 1], [-1, 1]], [[0, 2], [-1, 2]], multioutput=[0.25, 0.75])
    0.8125
    """
    return _mean(losses.l1_loss, y_true, y_pred, sample_weight, multioutput)


def mean_pinball_loss(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    alpha: float = 0.5,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Mean pinball loss of predicted quantiles.

    For a true value y and its prediction x::

        l = alpha (y - x)    where x < y,        l = (1 - alpha) (x - y)    where x > y

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted quantiles.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    alpha : float, default 0.5
        Which quantile is predicted, from 0 to 1.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        One mean for each output, their mean, or their mean with these weights.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN and infinity, lengths or outputs that differ, weights that are all 0, an `alpha`
        outside [0, 1].
    ZeroDivisionError
        For weights that add up to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_pinball_loss``; precision is as in `mean_squared_error`.

    Examples
    --------
    >>> from fastloss.sklearn import mean_pinball_loss
    >>> mean_pinball_loss([1.0, 2.0, 3.0], [0.0, 2.0, 5.0], alpha=0.25)
    0.5833333333333334
    """
    if not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise _inputs.InvalidParameterError(f"alpha must be between 0 and 1, got {alpha!r}")
    loss, quantile = losses.pinball_loss, float(alpha)
    tells = 0 < quantile < 1
    return _mean(loss, y_true, y_pred, sample_weight, multioutput, tells, quantile=quantile)


def mean_tweedie_deviance(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    power: float = 0,
) -> float:
    """Mean deviance of Tweedie distributions; `fastloss.tweedie_deviance_loss` has the formula.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Observed values: above 0 for a `power` of at least 2, at least 0 for one of at least 1.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted means, above 0 unless `power` is 0.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    power : float, default 0
        Exponent of the variance, at most 0 or at least 1: 0 is the normal distribution, 1
        Poisson's, 2 the gamma and 3 the inverse Gaussian one.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For values outside the range of the power, NaN and infinity, more than one output, lengths
        that differ, weights that are all 0.
    ZeroDivisionError
        For weights that add up to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_tweedie_deviance`` to 1e-12 of the terms that it adds; where
    they cancel, as with good predictions, fastloss keeps digits that scikit-learn loses. A power
    that is not 1 or 2 but within 1e-6 of them is an error here, and noise there.

    Examples
    --------
    >>> from fastloss.sklearn import mean_tweedie_deviance
    >>> mean_tweedie_deviance([2, 0, 1, 4], [0.5, 0.5, 2.0, 2.0], power=1.5)
    1.7781745930520225
    """
    if not isinstance(power, Real) or not (power <= 0 or power >= 1):
        raise _inputs.InvalidParameterError(
            f"power must be at most 0, or at least 1, got {power!r}"
        )
    loss, p = losses.tweedie_deviance_loss, float(power)
    value = _mean_of_plain(loss, y_true, y_pred, sample_weight, p in (0, 1, 1.5, 2), power=p)
    if value == value and y_pred.ndim == 1:
        return value
    return _mean_deviance(y_true, y_pred, sample_weight, p)


def _mean_deviance(y_true: Any, y_pred: Any, sample_weight: Any, power: float) -> float:
    y_true, y_pred, weight = _inputs.as_targets(y_true, y_pred, sample_weight)
    if y_pred.shape[1] > 1:
        raise ValueError(f"y_pred has shape {y_pred.shape}: a deviance takes one output")
    y_true, y_pred = y_true.reshape(-1), y_pred.reshape(-1)
    if power >= 2:
        _inputs.check_entries(y_true > 0, y_true, "y_true", f"above 0 for the power {power:g}")
    elif power >= 1:
        _inputs.check_entries(y_true >= 0, y_true, "y_true", f"at least 0 for the power {power:g}")
    if power != 0:
        _inputs.check_entries(y_pred > 0, y_pred, "y_pred", f"above 0 for the power {power:g}")
    loss = losses.tweedie_deviance_loss
    return _ratio(*_sums(loss, y_pred, y_true, weight=weight, power=power))


def mean_poisson_deviance(
    y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Mean of 2 (y log(y/x) - y + x) for true counts y and predicted means x.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Observed values, at least 0.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted means, above 0.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As in `mean_tweedie_deviance`.
    ZeroDivisionError
        For weights that add up to 0.

    Notes
    -----
    This is `mean_tweedie_deviance` with the power 1, which agrees with
    ``sklearn.metrics.mean_poisson_deviance``.

    Examples
    --------
    >>> from fastloss.sklearn import mean_poisson_deviance
    >>> mean_poisson_deviance([2, 0, 1, 4], [0.5, 0.5, 2.0, 2.0])
    1.4260151319598084
    """
    return mean_tweedie_deviance(y_true, y_pred, sample_weight=sample_weight, power=1.0)


def mean_gamma_deviance(
    y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Mean of 2 (log(x/y) + y/x - 1) for true values y and predicted means x.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Observed values, above 0.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted means, above 0.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As in `mean_tweedie_deviance`.
    ZeroDivisionError
        For weights that add up to 0.

    Notes
    -----
    This is `mean_tweedie_deviance` with the power 2, which agrees with
    ``sklearn.metrics.mean_gamma_deviance``.

    Examples
    --------
    >>> from fastloss.sklearn import mean_gamma_deviance
    >>> mean_gamma_deviance([2, 0.5, 1, 4], [0.5, 0.5, 2.0, 2.0])
    1.0568528194400546
    """
    return mean_tweedie_deviance(y_true, y_pred, sample_weight=sample_weight, power=2.0)
