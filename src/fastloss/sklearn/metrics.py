"""The losses of `sklearn.metrics`, with the signatures, results and exceptions of scikit-learn 1.9.

With them are the D² scores, which compare a loss to its value for a constant prediction. They need
only NumPy. Each validates and encodes its arguments as scikit-learn does, and calls a
loss of fastloss.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import losses
from fastloss.sklearn import _inputs

__all__ = [
    "brier_score_loss",
    "d2_absolute_error_score",
    "d2_brier_score",
    "d2_log_loss_score",
    "d2_pinball_score",
    "d2_tweedie_score",
    "hinge_loss",
    "log_loss",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_gamma_deviance",
    "mean_pinball_loss",
    "mean_poisson_deviance",
    "mean_squared_error",
    "mean_squared_log_error",
    "mean_tweedie_deviance",
    "root_mean_squared_error",
    "root_mean_squared_log_error",
]

_Array = NDArray[Any]

_EPS = {np.dtype(t): float(np.finfo(t).eps) for t in (np.float64, np.float32, np.float16)}
_BLOCK_SIZE = 1 << 15  # entries of a block of rows, which fits into the cache


class UndefinedMetricWarning(UserWarning):
    """The metric is not defined for the data."""

    __module__ = "fastloss.sklearn"


# --- sums -----------------------------------------------------------------------------------------


def _sums(loss: Any, *arrays: Any, weight: _Array | None, **options: float) -> tuple[float, float]:
    """Sum of the weighted losses, and sum of the weights, which may be negative here."""
    if weight is None or not np.fmin.reduce(weight) < 0:  # NaN is left to the loss
        total, divisor, _ = loss.sums(*arrays, sample_weight=weight, **options)
        return total, divisor
    total, divisor, _ = loss.sums(*arrays, sample_weight=np.maximum(weight, 0), **options)
    negative, negative_divisor, _ = loss.sums(
        *arrays, sample_weight=np.maximum(-weight, 0), **options
    )
    return total - negative, divisor - negative_divisor


def _divide(total: Any, divisor: float) -> Any:
    if divisor == 0:
        raise ZeroDivisionError("the weights sum to 0: the mean is not defined")
    return total / divisor


def _warn_undefined(reason: str) -> float:
    """Warn that D² is not defined, and return NaN."""
    warnings.warn(
        f"D² is not defined for {reason}",
        UndefinedMetricWarning,
        stacklevel=_inputs.caller_level(),
    )
    return math.nan


def _check_flag(name: str, value: Any, allowed: str = "True or False") -> None:
    if not isinstance(value, (bool, np.bool_)):
        raise _inputs.InvalidParameterError(f"{name} must be {allowed}, got {value!r}")


# --- classes --------------------------------------------------------------------------------------


def _read_classes(y_true, y_proba, sample_weight, labels):
    """Class indices or a label indicator matrix, probabilities, and weights."""
    proba = _inputs.as_probabilities(y_proba)
    weight = None if sample_weight is None else _inputs.as_weight(sample_weight, len(proba))
    target = _inputs.encode_y_true(y_true, labels, _class_count(proba))
    _inputs.check_equal_rows(y_true=target, y_proba=proba)
    if proba.ndim == 2:
        _inputs.check_row_sums(proba)
    elif target.ndim == 2:
        proba = np.stack((1 - proba, proba), axis=1)
    return target, proba, weight


def _class_count(proba: _Array) -> int:
    return 2 if proba.ndim == 1 else proba.shape[1]


def _flat_index(indices: _Array, columns: int) -> _Array:
    """Flat indices of the entries [row, indices[row]] of a C-contiguous matrix."""
    return np.arange(0, indices.size * columns, columns) + _inputs.as_int64(indices)


def _one_hot(indices: _Array, columns: int) -> _Array:
    matrix = np.zeros((indices.size, columns), np.bool_)
    matrix.reshape(-1)[_flat_index(indices, columns)] = True
    return matrix


def _log_loss_sums(target: _Array, proba: _Array, weight: _Array | None) -> tuple[float, float]:
    """Sum of the weighted log losses, and sum of the weights."""
    eps = _EPS[proba.dtype]
    if target.ndim == 2:
        losses_of_rows = -(target * np.log(np.clip(proba, eps, 1 - eps))).sum(axis=1)
        weight = np.ones(losses_of_rows.size) if weight is None else weight
        return float(losses_of_rows @ weight), float(weight.sum())
    if proba.ndim == 1:
        proba_of_true = np.abs(proba - (target == 0))
    else:
        proba_of_true = proba.take(_flat_index(target, proba.shape[1]))
    np.maximum(proba_of_true, eps, out=proba_of_true)
    np.minimum(proba_of_true, 1 - eps, out=proba_of_true)
    return _sums(losses.binary_cross_entropy, proba_of_true, 1.0, weight=weight)


def _resolve_y_proba(y_proba, y_pred):
    """The probabilities, from either name of the argument."""
    if isinstance(y_pred, str) and y_pred == "deprecated":
        return y_proba
    if y_proba is not None:
        raise ValueError("y_pred is the old name of y_proba: pass y_proba alone")
    warnings.warn(
        "y_pred was renamed to y_proba in scikit-learn 1.9 and will be removed in 1.11",
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
    """Cross-entropy of predicted probabilities.

    For a row whose class has the predicted probability p::

        l = -log min(max(p, eps), 1 - eps)

    Parameters
    ----------
    y_true : array_like, shape (n,), (n, 1) or (n, k)
        Labels: integers, whole floats, strings or booleans. Or a label indicator matrix of 0 and 1
        with one column for each of k classes.
    y_proba : array_like, shape (n, k), (n,) or (n, 1)
        Predicted probabilities: one column for each class in the order of the sorted labels, or one
        column for the second of two classes. `eps` is the machine epsilon of their dtype, or of
        float64 if that is not floating-point.
    normalize : bool, default True
        Whether to return the mean over the rows, or otherwise the sum.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    labels : array_like, optional
        All labels. Needed if `y_true` does not contain all of them.
    y_pred : array_like, default "deprecated"
        Old name of `y_proba`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For probabilities outside [0, 1], labels that do not match the columns or are not in
        `labels`, a single label without `labels`, NaN or infinity, arrays of different lengths, and
        weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Warns
    -----
    UserWarning
        For rows whose probabilities do not sum to 1, which are used unchanged, and for `labels`
        that are not sorted.

    Notes
    -----
    Agrees with ``sklearn.metrics.log_loss`` to 1e-12 in float64, including its losses of accuracy:
    probabilities are clipped, so that the loss of a row is between 2.2e-16 and 36.04, and with one
    column, 1 - p is rounded to the precision of p. `fastloss.binary_cross_entropy_with_logits` and
    `fastloss.cross_entropy` have neither limitation.

    Examples
    --------
    >>> from fastloss.sklearn import log_loss
    >>> probabilities = [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]  # ham, spam
    >>> log_loss(["spam", "ham", "ham", "spam"], probabilities)
    0.21616187468057912
    """
    _check_flag("normalize", normalize)
    proba = _resolve_y_proba(y_proba, y_pred)
    total, divisor = _log_loss_sums(*_read_classes(y_true, proba, sample_weight, labels))
    return _divide(total, divisor) if normalize else total


def d2_log_loss_score(
    y_true: ArrayLike,
    y_proba: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    y_pred: ArrayLike = "deprecated",
) -> float:
    """Fraction of log loss explained (D²).

    It is ``1 - log_loss(y_true, y_proba) / log_loss(y_true, q)``, where every row of q has the
    class frequencies of `y_true`. Perfect predictions score 1, the class frequencies score 0, and
    worse predictions score below 0.

    Parameters
    ----------
    y_true : array_like, shape (n,), (n, 1) or (n, k)
        Labels, as in `log_loss`.
    y_proba : array_like, shape (n, k), (n,) or (n, 1)
        Predicted probabilities, as in `log_loss`.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    labels : array_like, optional
        All labels. Needed if `y_true` does not contain all of them.
    y_pred : array_like, default "deprecated"
        Old name of `y_proba`.

    Returns
    -------
    float
        NaN for fewer than two rows.

    Raises
    ------
    ValueError
        As in `log_loss`.
    ZeroDivisionError
        For weights that sum to 0.

    Warns
    -----
    UserWarning
        As in `log_loss`, and for fewer than two rows.

    Notes
    -----
    Agrees with ``sklearn.metrics.d2_log_loss_score``. As there, q is clipped to the machine epsilon
    of float64 for any dtype of `y_proba`, and a `y_true` of a single class, with `labels`, gives a
    meaningless score below -1e10.

    Examples
    --------
    >>> from fastloss.sklearn import d2_log_loss_score
    >>> d2_log_loss_score([0, 1, 1, 0], [0.25, 0.75, 0.5, 0.5])
    0.2924812503605781
    """
    proba = _inputs.as_array(_resolve_y_proba(y_proba, y_pred), "y_proba")
    if len(proba) < 2:
        return _undefined_for_one_row(y_true, proba, sample_weight, labels)
    target, proba, weight = _read_classes(y_true, proba, sample_weight, labels)
    total, divisor = _log_loss_sums(target, proba, weight)
    return 1 - total / _null_log_loss(target, _class_count(proba), weight, divisor)


def _undefined_for_one_row(y_true: Any, proba: _Array, sample_weight: Any, labels: Any) -> float:
    """Check only what scikit-learn checks, warn, and return NaN."""
    if labels is not None:
        _inputs.check_array_like(labels, "labels")
    y, weight = _inputs.as_array(y_true, "y_true"), sample_weight
    weight = None if weight is None else _inputs.as_array(weight, "sample_weight")
    _inputs.check_equal_rows(y_true=y, y_proba=proba, sample_weight=weight)
    return _warn_undefined("fewer than two rows")


def _null_log_loss(target: _Array, columns: int, weight: _Array | None, divisor: float) -> float:
    """Sum of the log losses if the class frequencies are predicted for every row."""
    if target.ndim == 1:
        counts = _inputs.class_counts(target, columns, weight)
    else:
        counts = target.sum(axis=0) if weight is None else weight @ target
    eps = _EPS[np.dtype(np.float64)]
    return -float(counts @ np.log(np.clip(_divide(counts, divisor), eps, 1 - eps)))


def brier_score_loss(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    pos_label: float | bool | str | None = None,
    labels: ArrayLike | None = None,
    scale_by_half: bool | str = "auto",
) -> float:
    """Brier score: mean squared error of predicted probabilities.

    For a row with the probabilities p[c], where t[c] is 1 for its class and 0 for the others::

        l = sum_c (t[c] - p[c])^2        half of it for two classes: (t - p)^2

    Parameters
    ----------
    y_true : array_like, shape (n,), (n, 1) or (n, k)
        Labels, as in `log_loss`.
    y_proba : array_like, shape (n, k), (n,) or (n, 1)
        Predicted probabilities: one column for each class in the order of the sorted labels, or one
        column for the positive class.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    pos_label : float, bool or str, optional
        The positive class if `y_proba` has one column. Default: 1 if the labels are 0 and 1 or -1
        and 1, otherwise the larger number. Strings have no default.
    labels : array_like, optional
        All labels, if `y_proba` has several columns. Needed if `y_true` does not contain all of
        them.
    scale_by_half : bool or "auto", default "auto"
        Whether to halve the sum over the classes. "auto" halves it for two classes.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As in `log_loss`; and with one column of probabilities, for strings without `pos_label` and
        for more than two labels.
    ZeroDivisionError
        For weights that sum to 0.

    Warns
    -----
    UserWarning
        As in `log_loss`.

    Notes
    -----
    Agrees with ``sklearn.metrics.brier_score_loss``, which rounds 1 - p for a second column, a step
    that is not needed here. As there, a `pos_label` that is not in `y_true` makes all rows
    negative.

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
    is_auto = isinstance(scale_by_half, str) and scale_by_half == "auto"
    if not is_auto:
        _check_flag("scale_by_half", scale_by_half, 'True, False or "auto"')
    _check_pos_label(pos_label)
    target, proba, weight = _read_indicators(y_true, y_proba, sample_weight, pos_label, labels)
    columns = _class_count(proba)
    score = _divide(*_sums(losses.mse_loss, proba, target, weight=weight))
    is_halved = columns == 2 if is_auto else scale_by_half
    return columns * score / 2 if is_halved else columns * score


def _check_pos_label(pos_label: Any) -> None:
    if not (pos_label is None or isinstance(pos_label, (Real, str, np.bool_))):
        raise _inputs.InvalidParameterError(
            f"pos_label must be a number, a string or None, got {pos_label!r}"
        )


def _read_indicators(y_true, y_proba, sample_weight, pos_label, labels):
    """Class indicators and probabilities, both (n, classes) or, of the positive class, (n,)."""
    proba = _inputs.as_probabilities(y_proba)
    if proba.ndim == 2:
        target, proba, weight = _read_classes(y_true, proba, sample_weight, labels)
        return _one_hot(target, proba.shape[1]) if target.ndim == 1 else target, proba, weight
    if labels is not None:
        _inputs.check_array_like(labels, "labels")
    target = _inputs.encode_binary(y_true, pos_label)
    _inputs.check_equal_rows(y_true=target, y_proba=proba)
    weight = None if sample_weight is None else _inputs.as_weight(sample_weight, len(proba))
    return target, proba, weight


def d2_brier_score(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    pos_label: float | bool | str | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Fraction of the Brier score explained (D²), also called Brier skill score.

    It is ``1 - brier_score_loss(y_true, y_proba) / brier_score_loss(y_true, q)``, where every row
    of q has the class frequencies of `y_true`. Perfect predictions score 1, the class frequencies
    score 0, and worse predictions score below 0.

    Parameters
    ----------
    y_true : array_like, shape (n,), (n, 1) or (n, k)
        Labels, as in `log_loss`.
    y_proba : array_like, shape (n, k), (n,) or (n, 1)
        Predicted probabilities, as in `brier_score_loss`.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    pos_label : float, bool or str, optional
        The positive class, as in `brier_score_loss`.
    labels : array_like, optional
        All labels, as in `brier_score_loss`.

    Returns
    -------
    float
        NaN for fewer than two rows. If all rows have the same class, minus infinity, or NaN for
        perfect predictions.

    Raises
    ------
    ValueError
        As in `brier_score_loss`.
    ZeroDivisionError
        For weights that sum to 0.

    Warns
    -----
    UserWarning
        As in `log_loss`, and for fewer than two rows.

    Notes
    -----
    Agrees with ``sklearn.metrics.d2_brier_score``. If all rows have the same class, rounding errors
    there may give a large negative number instead of minus infinity.

    Examples
    --------
    >>> from fastloss.sklearn import d2_brier_score
    >>> d2_brier_score([0, 1, 1, 0], [0.25, 0.75, 0.5, 0.5])
    0.375
    """
    _check_pos_label(pos_label)
    proba = _inputs.as_array(y_proba, "y_proba")
    if len(proba) < 2:
        return _undefined_for_one_row(y_true, proba, sample_weight, labels)
    target, proba, weight = _read_indicators(y_true, proba, sample_weight, pos_label, labels)
    score = _divide(*_sums(losses.mse_loss, proba, target, weight=weight))
    counted = target if weight is None else target[weight != 0]
    if (counted == counted[0]).all():
        return math.nan if score == 0 else -math.inf
    frequencies = np.broadcast_to(np.average(target, axis=0, weights=weight), target.shape)
    return 1 - score / _divide(*_sums(losses.mse_loss, frequencies, target, weight=weight))


def hinge_loss(
    y_true: ArrayLike,
    pred_decision: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Hinge loss of decision values: the amount by which the margin falls short of 1.

    For a row with the decision value x and the label y, -1 or 1, or with the decision values x[c]
    and the class y::

        l = max(0, 1 - y x)        l = max(0, 1 - (x[y] - max_{c != y} x[c]))

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Labels. The larger of two labels is 1, the other -1.
    pred_decision : array_like, shape (n,), (n, 1) or (n, k)
        Decision values. With more than two labels, one column for each in the order of the sorted
        labels.
    labels : array_like, optional
        All labels. Needed if `y_true` does not contain all of them.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For labels that do not match the columns or are not in `labels`, NaN or infinity, and arrays
        of different lengths.
    TypeError
        For weights with several axes.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.hinge_loss``, and computes float32 decision values in float64. As
    there, a single label in `y_true` becomes -1, even if it is the larger of two `labels`. Unlike
    there, more than two labels in `y_true` with two `labels` are an error, and labels are not
    truncated or rounded to the dtype of `labels`. `fastloss.multi_margin_loss` sums over the other
    classes instead.

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
    scores, target, weight = _read_decisions(y_true, pred_decision, labels, sample_weight)
    if scores.ndim == 1:
        total, divisor = _sums(
            losses.margin_ranking_loss, scores, 0.0, target, weight=weight, margin=1.0
        )
    else:
        true_score, runner_up = _true_and_runner_up(target, scores)
        if true_score.dtype == np.float32:
            true_score, runner_up = true_score.astype(np.float64), runner_up.astype(np.float64)
        total, divisor = _sums(
            losses.margin_ranking_loss, true_score, runner_up, 1, weight=weight, margin=1.0
        )
    return _divide(total, divisor)


def _read_decisions(y_true, pred_decision, labels, sample_weight):
    """Decision values, targets, and weights.

    For two classes, the decision values have one axis and the targets are -1 and 1; for more, the
    targets are class indices.
    """
    scores = _inputs.as_decisions(pred_decision)
    y = _inputs.column_or_1d(_inputs.as_array(y_true, "y_true"), "y_true")
    weight = (
        None if sample_weight is None else _inputs.as_real_array(sample_weight, "sample_weight")
    )
    _inputs.check_equal_rows(y_true=y, pred_decision=scores, sample_weight=weight)
    if weight is not None and weight.ndim != 1:
        raise TypeError(f"sample_weight has shape {weight.shape}: it must have one axis")
    columns = 1 if scores.ndim == 1 else scores.shape[1]
    classes, indices = _inputs.encode_for_decisions(y, labels, columns)
    if classes > 2 and columns != classes:
        raise ValueError(
            f"pred_decision has shape {scores.shape}, but there are {classes} labels: it must have "
            "one column for each; pass all labels as labels"
        )
    if classes > 2:
        return scores, indices, weight
    scores = _inputs.column_or_1d(scores, "pred_decision")
    return scores.astype(np.float64, copy=False), 2 * indices.astype(np.int8) - 1, weight


def _true_and_runner_up(indices: _Array, scores: _Array) -> tuple[_Array, _Array]:
    """The score of the true class and the largest score of the others, of each row."""
    rows, columns = scores.shape
    indices = _inputs.as_int64(indices)
    if scores.size <= _BLOCK_SIZE:
        return _true_and_runner_up_of_block(indices, scores)
    true_score, runner_up = np.empty(rows, scores.dtype), np.empty(rows, scores.dtype)
    for block in _row_blocks(rows, columns):
        true_score[block], runner_up[block] = _true_and_runner_up_of_block(
            indices[block], scores[block]
        )
    return true_score, runner_up


def _true_and_runner_up_of_block(indices: _Array, scores: _Array) -> tuple[_Array, _Array]:
    by_class = scores.T.copy()  # one row per class: a maximum over rows is vectorised
    flat, rows = by_class.reshape(-1), indices.size
    position = indices * rows
    position += _arange(rows)
    true_score = flat.take(position)
    flat[position] = -math.inf
    return true_score, np.maximum.reduce(by_class, axis=0)


@lru_cache(maxsize=1)
def _arange(rows: int) -> _Array:
    """0, 1, ..., rows - 1, cached for the next call with the same number of rows."""
    return np.arange(rows)


def _row_blocks(rows: int, columns: int) -> list[slice]:
    step = max(1, _BLOCK_SIZE // columns)
    return [slice(first, first + step) for first in range(0, rows, step)]


# --- regression -----------------------------------------------------------------------------------


def _fast_mean(
    loss: Any,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any,
    propagates_nonfinite: bool,
    **options: float,
) -> float:
    """The mean if the loss accepts the arrays as they are, NaN if they need validation.

    `propagates_nonfinite` says whether the loss of an argument that is not finite is not finite
    either. If so, the arguments need no check before the call.
    """
    if type(y_true) is not np.ndarray or type(y_pred) is not np.ndarray:
        return math.nan
    dtype = y_pred.dtype
    if dtype not in _inputs.FLOAT_DTYPES:
        return math.nan
    if not (y_true.dtype is dtype or y_true.dtype.kind in "iub"):
        return math.nan
    if y_true.shape != y_pred.shape or not 0 < y_pred.ndim < 3 or y_pred.size == 0:
        return math.nan
    if sample_weight is not None:
        if type(sample_weight) is not np.ndarray or sample_weight.dtype is not dtype:
            return math.nan
        sample_weight = _inputs.as_weight(sample_weight, len(y_pred))
        if not sample_weight.min() > 0:  # a weight of 0 would hide an argument that is not finite
            return math.nan
    if not (propagates_nonfinite or (_inputs.is_finite(y_true) and _inputs.is_finite(y_pred))):
        return math.nan
    try:
        value = loss(y_pred, y_true, sample_weight=sample_weight, **options)
    except ValueError:  # the message names the loss's arguments; validation names the metric's
        return math.nan
    return value if value < math.inf else math.nan


def _mean(
    loss: Any,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any,
    multioutput: Any,
    propagates_nonfinite: bool = True,
    **options: float,
) -> Any:
    """The mean over rows, and over outputs as `multioutput` says."""
    if type(multioutput) is str and multioutput == "uniform_average":
        value = _fast_mean(loss, y_true, y_pred, sample_weight, propagates_nonfinite, **options)
        if value == value:
            return value
    y_true, y_pred, weight, multioutput = _read_outputs(y_true, y_pred, sample_weight, multioutput)
    if isinstance(multioutput, str) and multioutput == "uniform_average":
        return _divide(*_sums(loss, y_pred, y_true, weight=weight, **options))
    unreduced = partial(loss, reduction="none", **options)
    means = _column_means(unreduced, y_true, y_pred, weight)
    return _average_outputs(means, multioutput, y_pred.dtype)


def _read_outputs(y_true, y_pred, sample_weight, multioutput):
    """True and predicted values (n, outputs), weights, and `multioutput`, a name or an array."""
    is_name = isinstance(multioutput, str)
    if is_name and multioutput not in ("raw_values", "uniform_average"):
        raise _inputs.InvalidParameterError(
            f"multioutput must be 'raw_values', 'uniform_average' or an array of weights, got "
            f"{multioutput!r}"
        )
    y_true, y_pred, weight = _inputs.as_targets(y_true, y_pred, sample_weight)
    if not is_name:
        multioutput = _inputs.as_output_weight(multioutput, y_pred.shape[1])
    return y_true, y_pred, weight, multioutput


def _column_means(
    unreduced: Callable[[_Array, _Array], _Array],
    y_true: _Array,
    y_pred: _Array,
    weight: _Array | None,
) -> _Array:
    """The mean over rows of the losses, ``unreduced(y_pred, y_true)``, of each output."""
    rows, columns = y_pred.shape
    weight = np.ones(rows) if weight is None else weight.astype(np.float64)
    total = np.zeros(columns)
    for block in _row_blocks(rows, columns):
        total += weight[block] @ unreduced(y_pred[block], y_true[block])
    return _divide(total, float(weight.sum()))


def _average_outputs(values: _Array, multioutput: Any, dtype: np.dtype[Any]) -> Any:
    """The values of the outputs, or their average, as `multioutput` says."""
    if not isinstance(multioutput, str):
        return float(_divide(values @ multioutput, float(multioutput.sum())))
    if multioutput == "uniform_average":
        return float(values.mean())
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def mean_squared_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Mean squared error: the mean of (y_true - y_pred)^2.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the mean of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, and weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_squared_error``. As there, the arguments that have a dtype
    determine the precision of the others: with a float32 array, a list is converted to float32.
    Sums are accumulated in float64, and float16 is computed in float32.

    Examples
    --------
    >>> from fastloss.sklearn import mean_squared_error
    >>> mean_squared_error([3, -0.5, 2, 7], [2.5, 0.0, 2, 8])
    0.375
    >>> mean_squared_error([[0.5, 1], [-1, 1]], [[0, 2], [-1, 2]], multioutput="raw_values")
    array([0.125, 1.   ])
    """
    return _mean(losses.mse_loss, y_true, y_pred, sample_weight, multioutput)


def root_mean_squared_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Root mean squared error: the square root of the mean of (y_true - y_pred)^2.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the root of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, and weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.root_mean_squared_error``: the root is taken for each output,
    before the average. With negative weights, a mean below 0 has the root NaN. Unlike there,
    weights of a single output are an error, as in the other metrics, and so are weights that are
    NaN. For the precision, see `mean_squared_error`.

    Examples
    --------
    >>> from fastloss.sklearn import root_mean_squared_error
    >>> root_mean_squared_error([3, -0.5, 2, 7], [2.5, 0.0, 2, 8])
    0.6123724356957945
    """
    if type(multioutput) is str and multioutput == "uniform_average":
        mean = _fast_mean(losses.mse_loss, y_true, y_pred, sample_weight, True)
        if mean == mean and np.ndim(y_pred) == 1:
            return math.sqrt(mean)
    unreduced = partial(losses.mse_loss, reduction="none")
    return _root_mean(unreduced, *_read_outputs(y_true, y_pred, sample_weight, multioutput))


def _root_mean(unreduced, y_true, y_pred, weight, multioutput):
    with np.errstate(invalid="ignore"):  # a mean below 0
        roots = np.sqrt(_column_means(unreduced, y_true, y_pred, weight))
    return _average_outputs(roots, multioutput, y_pred.dtype)


def mean_squared_log_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Mean squared logarithmic error: the mean of (log(1 + y_true) - log(1 + y_pred))^2.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values, greater than -1.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values, greater than -1.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the mean of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, values of at most -1,
        weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_squared_log_error`` to 1e-12 of the squared logarithms. If
    they cancel, as for good predictions, fastloss is more accurate than scikit-learn. float32 is
    computed in float64.

    Examples
    --------
    >>> from fastloss.sklearn import mean_squared_log_error
    >>> mean_squared_log_error([3, 5, 2.5, 7], [2.5, 5, 4, 8])
    0.03973012298459379
    """
    outputs = _read_outputs(y_true, y_pred, sample_weight, multioutput)
    y_true, y_pred, weight, multioutput = outputs
    _check_above_minus_1(y_true, y_pred)
    means = _column_means(_squared_log_errors, y_true, y_pred, weight)
    return _average_outputs(means, multioutput, y_pred.dtype)


def _check_above_minus_1(y_true: _Array, y_pred: _Array) -> None:
    for array, name in ((y_true, "y_true"), (y_pred, "y_pred")):
        array = array[:, 0] if array.shape[1] == 1 else array  # for the position in the message
        _inputs.check_entries(array > -1, array, name, "above -1")


def _squared_log_errors(y_pred: _Array, y_true: _Array) -> _Array:
    """(log(1 + y) - log(1 + x))^2 as log1p(|y - x| / (1 + min(x, y)))^2, which does not cancel."""
    x, y = y_pred.astype(np.float64, copy=False), y_true.astype(np.float64, copy=False)
    return np.square(np.log1p(np.abs(y - x) / (1 + np.minimum(x, y))))


def root_mean_squared_log_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Root mean squared logarithmic error, the square root of `mean_squared_log_error`.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values, greater than -1.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values, greater than -1.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the root of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, values of at most -1,
        weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.root_mean_squared_log_error``: the root is taken for each output,
    before the average. For the precision, see `mean_squared_log_error`.

    Examples
    --------
    >>> from fastloss.sklearn import root_mean_squared_log_error
    >>> root_mean_squared_log_error([3, 5, 2.5, 7], [2.5, 5, 4, 8])
    0.19932416558108
    """
    outputs = _read_outputs(y_true, y_pred, sample_weight, multioutput)
    _check_above_minus_1(*outputs[:2])
    return _root_mean(_squared_log_errors, *outputs)


def mean_absolute_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Mean absolute error: the mean of ``|y_true - y_pred|``.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the mean of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, and weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_absolute_error``. For the precision, see
    `mean_squared_error`.

    Examples
    --------
    >>> from fastloss.sklearn import mean_absolute_error
    >>> mean_absolute_error([3, -0.5, 2, 7], [2.5, 0.0, 2, 8])
    0.5
    >>> mean_absolute_error([[0.5, 1], [-1, 1]], [[0, 2], [-1, 2]], multioutput=[0.25, 0.75])
    0.8125
    """
    return _mean(losses.l1_loss, y_true, y_pred, sample_weight, multioutput)


def mean_absolute_percentage_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Mean absolute percentage error: the mean of ``|y_true - y_pred| / |y_true|``.

    It is a ratio, not a percentage.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the mean of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, and weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_absolute_percentage_error``. As there, the divisor is at
    least 2.2e-16, so that the error at a true value of 0 is large but finite. float32 is computed
    in float64.

    Examples
    --------
    >>> from fastloss.sklearn import mean_absolute_percentage_error
    >>> mean_absolute_percentage_error([3, -0.5, 2, 8], [2.5, 0.0, 2, 7])
    0.3229166666666667
    >>> mean_absolute_percentage_error([0.0, 1.0], [1.0, 1.0])
    2251799813685248.0
    """
    y_true, y_pred, weight, multioutput = _read_outputs(y_true, y_pred, sample_weight, multioutput)
    means = _column_means(_percentage_errors, y_true, y_pred, weight)
    return _average_outputs(means, multioutput, y_pred.dtype)


def _percentage_errors(y_pred: _Array, y_true: _Array) -> _Array:
    x, y = y_pred.astype(np.float64, copy=False), y_true.astype(np.float64, copy=False)
    with np.errstate(over="ignore"):
        return np.abs(y - x) / np.maximum(np.abs(y), _EPS[np.dtype(np.float64)])


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

        l = alpha (y - x)    if x < y,        l = (1 - alpha) (x - y)    if x > y

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted quantiles.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    alpha : float, default 0.5
        Level of the quantile, from 0 to 1.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the mean of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, weights that are all 0, and
        `alpha` outside [0, 1].
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_pinball_loss``. For the precision, see `mean_squared_error`.

    Examples
    --------
    >>> from fastloss.sklearn import mean_pinball_loss
    >>> mean_pinball_loss([1.0, 2.0, 3.0], [0.0, 2.0, 5.0], alpha=0.25)
    0.5833333333333334
    """
    quantile = _check_quantile(alpha)
    return _mean(
        losses.pinball_loss,
        y_true,
        y_pred,
        sample_weight,
        multioutput,
        propagates_nonfinite=0 < quantile < 1,
        quantile=quantile,
    )


def _check_quantile(alpha: Any) -> float:
    if not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise _inputs.InvalidParameterError(f"alpha must be between 0 and 1, got {alpha!r}")
    return float(alpha)


def d2_pinball_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    alpha: float = 0.5,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Fraction of the pinball loss explained (D²).

    It is ``1 - mean_pinball_loss(y_true, y_pred) / mean_pinball_loss(y_true, q)``, where every row
    of q has the quantile of `y_true`. Perfect predictions score 1, the quantile scores 0, and worse
    predictions score below 0.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values quantiles.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    alpha : float, default 0.5
        Level of the quantile, from 0 to 1.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the score of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)
        The score of an output whose true values all are the quantile is 1 for perfect predictions,
        otherwise 0. NaN for fewer than two rows.

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, weights that are all 0,
        and `alpha` outside [0, 1].
    ZeroDivisionError
        For weights that sum to 0.

    Warns
    -----
    UserWarning
        For fewer than two rows.

    Notes
    -----
    Agrees with ``sklearn.metrics.d2_pinball_score``. If the quantile is an interval, q is its
    middle, and all its values have the same loss. For the precision, see `mean_squared_error`.

    Examples
    --------
    >>> from fastloss.sklearn import d2_pinball_score
    >>> d2_pinball_score([1, 2, 3], [1, 3, 3])
    0.5
    >>> d2_pinball_score([1, 2, 3], [1, 2, 4], alpha=0.9)
    0.6666666666666667
    """
    quantile = _check_quantile(alpha)
    y_true, y_pred, weight, multioutput = _read_outputs(y_true, y_pred, sample_weight, multioutput)
    if len(y_pred) < 2:
        return _warn_undefined("fewer than two rows")
    unreduced = partial(losses.pinball_loss, reduction="none", quantile=quantile)
    loss = _column_means(unreduced, y_true, y_pred, weight)
    constant = np.broadcast_to(_quantiles(y_true, weight, quantile), y_true.shape)
    null_loss = _column_means(unreduced, y_true, constant, weight)
    is_constant = null_loss == 0
    scores = np.where(is_constant, loss == 0, 1 - loss / np.where(is_constant, 1, null_loss))
    return _average_outputs(scores, multioutput, y_pred.dtype)


def _quantiles(y: _Array, weight: _Array | None, level: float) -> _Array:
    """The quantile of each column; the mean of the two values that bound an interval of them."""
    if weight is None:
        return np.asarray(np.quantile(y, level, axis=0, method="averaged_inverted_cdf"))
    y, weight = y[weight != 0], weight[weight != 0].astype(np.float64)
    quantiles = np.empty(y.shape[1], y.dtype)
    for column, values in enumerate(y.T):
        order = values.argsort()
        below = weight[order].cumsum()
        rank = level * below[-1]
        first = min(int(below.searchsorted(rank)), len(order) - 1)
        is_interval = below[first] - rank <= _EPS[np.dtype(np.float64)] * abs(below[-1])
        last = min(first + is_interval, len(order) - 1)
        quantiles[column] = values[order[first]] / 2 + values[order[last]] / 2
    return quantiles


def d2_absolute_error_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: ArrayLike = "uniform_average",
) -> float | _Array:
    """Fraction of the absolute error explained (D²).

    It is ``1 - mean_absolute_error(y_true, y_pred) / mean_absolute_error(y_true, q)``, where every
    row of q has the median of `y_true`: `d2_pinball_score` with ``alpha=0.5``.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, outputs)
        True values.
    y_pred : array_like, shape (n,) or (n, outputs)
        Predicted values.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    multioutput : {"raw_values", "uniform_average"} or array_like, default "uniform_average"
        "raw_values" returns the score of each output, and "uniform_average" their average. An array
        has the weights of the outputs in the average.

    Returns
    -------
    float or ndarray of shape (outputs,)
        The score of an output whose true values all are the median is 1 for perfect predictions,
        otherwise 0. NaN for fewer than two rows.

    Raises
    ------
    ValueError
        For NaN or infinity, different numbers of rows or outputs, and weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Warns
    -----
    UserWarning
        For fewer than two rows.

    Notes
    -----
    Agrees with ``sklearn.metrics.d2_absolute_error_score``.

    Examples
    --------
    >>> from fastloss.sklearn import d2_absolute_error_score
    >>> d2_absolute_error_score([3, -0.5, 2, 7], [2.5, 0.0, 2, 8])
    0.7647058823529411
    """
    return d2_pinball_score(
        y_true, y_pred, sample_weight=sample_weight, alpha=0.5, multioutput=multioutput
    )


def mean_tweedie_deviance(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    power: float = 0,
) -> float:
    """Mean deviance of Tweedie distributions.

    `fastloss.tweedie_deviance_loss` has the formula.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Observed values: greater than 0 if `power` is at least 2, at least 0 if `power` is at least
        1.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted means: greater than 0, unless `power` is 0.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    power : float, default 0
        Power of the mean that the variance is proportional to, at most 0 or at least 1. The normal
        distribution has 0, Poisson 1, gamma 2, and inverse Gaussian 3.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For values outside the range of the power, NaN or infinity, more than one output, arrays of
        different lengths, and weights that are all 0.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    Agrees with ``sklearn.metrics.mean_tweedie_deviance`` to 1e-12 of the terms of the formula. If
    they cancel, as for good predictions, fastloss is more accurate than scikit-learn. A power that
    differs from 1 or 2 by less than 1e-6 is an error; scikit-learn's result for it is dominated by
    rounding errors.

    Examples
    --------
    >>> from fastloss.sklearn import mean_tweedie_deviance
    >>> mean_tweedie_deviance([2, 0, 1, 4], [0.5, 0.5, 2.0, 2.0], power=1.5)
    1.7781745930520225
    """
    loss, p = losses.tweedie_deviance_loss, _check_power(power)
    propagates_nonfinite = p in (0, 1, 1.5, 2)
    value = _fast_mean(loss, y_true, y_pred, sample_weight, propagates_nonfinite, power=p)
    if value == value and y_pred.ndim == 1:
        return value
    y_true, y_pred, weight = _read_single_output(y_true, y_pred, sample_weight)
    return _mean_deviance(y_true, y_pred, weight, p)


def _check_power(power: Any) -> float:
    if not isinstance(power, Real) or not (power <= 0 or power >= 1):
        raise _inputs.InvalidParameterError(
            f"power must be at most 0, or at least 1, got {power!r}"
        )
    return float(power)


def _read_single_output(y_true, y_pred, sample_weight):
    y_true, y_pred, weight = _inputs.as_targets(y_true, y_pred, sample_weight)
    if y_pred.shape[1] > 1:
        raise ValueError(f"y_pred has shape {y_pred.shape}: a deviance needs a single output")
    return y_true.reshape(-1), y_pred.reshape(-1), weight


def _mean_deviance(y_true: _Array, y_pred: _Array, weight: _Array | None, power: float) -> Any:
    if power >= 2:
        _inputs.check_entries(y_true > 0, y_true, "y_true", f"above 0 for power {power:g}")
    elif power >= 1:
        _inputs.check_entries(y_true >= 0, y_true, "y_true", f"at least 0 for power {power:g}")
    if power != 0:
        _inputs.check_entries(y_pred > 0, y_pred, "y_pred", f"above 0 for power {power:g}")
    loss = losses.tweedie_deviance_loss
    return _divide(*_sums(loss, y_pred, y_true, weight=weight, power=power))


def mean_poisson_deviance(
    y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Mean Poisson deviance.

    For an observed count y and the predicted mean x::

        l = 2 (y log(y/x) - y + x)

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Observed values, at least 0.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted means, greater than 0.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As in `mean_tweedie_deviance`.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    This is `mean_tweedie_deviance` with ``power=1``. It agrees with
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
    """Mean gamma deviance.

    For an observed value y and the predicted mean x::

        l = 2 (log(x/y) + y/x - 1)

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Observed values, greater than 0.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted means, greater than 0.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As in `mean_tweedie_deviance`.
    ZeroDivisionError
        For weights that sum to 0.

    Notes
    -----
    This is `mean_tweedie_deviance` with ``power=2``. It agrees with
    ``sklearn.metrics.mean_gamma_deviance``.

    Examples
    --------
    >>> from fastloss.sklearn import mean_gamma_deviance
    >>> mean_gamma_deviance([2, 0.5, 1, 4], [0.5, 0.5, 2.0, 2.0])
    1.0568528194400546
    """
    return mean_tweedie_deviance(y_true, y_pred, sample_weight=sample_weight, power=2.0)


def d2_tweedie_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    power: float = 0,
) -> float:
    """Fraction of the Tweedie deviance explained (D²); for power 0, it is R².

    It is ``1 - mean_tweedie_deviance(y_true, y_pred) / mean_tweedie_deviance(y_true, q)``, where
    every row of q has the mean of `y_true`. Perfect predictions score 1, the mean scores 0, and
    worse predictions score below 0.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        Observed values, as in `mean_tweedie_deviance`.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted means, as in `mean_tweedie_deviance`.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows. They may be negative.
    power : float, default 0
        Power of the mean that the variance is proportional to, as in `mean_tweedie_deviance`.

    Returns
    -------
    float
        NaN for fewer than two rows, and for a mean that `power` does not allow.

    Raises
    ------
    ValueError
        As in `mean_tweedie_deviance`.
    ZeroDivisionError
        For a `y_true` that is constant, and for weights that sum to 0.

    Warns
    -----
    UserWarning
        For fewer than two rows, and for a mean that `power` does not allow.

    Notes
    -----
    Agrees with ``sklearn.metrics.d2_tweedie_score``, with two exceptions. There, the score of a
    constant `y_true` may be a large negative number, the result of rounding errors, instead of an
    error; and for a power below 0 and a `y_true` with a mean below 0, the score is a number
    although the deviance is not defined.

    Examples
    --------
    >>> from fastloss.sklearn import d2_tweedie_score
    >>> d2_tweedie_score([0.5, 1, 2.5, 7], [1, 1, 5, 3.5], power=1)
    0.4879151349031141
    """
    p = _check_power(power)
    y_true, y_pred, weight = _read_single_output(y_true, y_pred, sample_weight)
    if len(y_pred) < 2:
        return _warn_undefined("fewer than two rows")
    deviance = _mean_deviance(y_true, y_pred, weight, p)
    y = y_true.astype(np.float64, copy=False)
    mean = float(np.average(y, weights=weight))
    if p < 0 and mean == 0:
        mean = math.ulp(0)  # the deviance's limit
    if p != 0 and not mean > 0:
        return _warn_undefined(f"power {p:g} and a y_true whose mean is {mean:g}")
    weighted = y if weight is None else y[weight != 0]
    if weighted.min() == weighted.max():
        raise ZeroDivisionError(f"y_true is {weighted[0]:g} everywhere: D² is not defined")
    loss = losses.tweedie_deviance_loss
    null_deviance = _divide(*_sums(loss, mean, y, weight=weight, power=p))
    return 1 - _divide(deviance, null_deviance)
