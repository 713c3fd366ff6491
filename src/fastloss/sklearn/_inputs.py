"""Validation of the metrics' arguments: array-likes, weights, labels, probabilities.

It accepts and rejects the same arguments as scikit-learn 1.9, with the same types of exceptions.
Valid NumPy arrays of the common dtypes take a short path.
"""

import math
import warnings

import numpy as np

from fastloss._labels import check_unconverted, encode_labels

FLOAT_DTYPES = (np.dtype(np.float64), np.dtype(np.float32))
_PROBABILITY_DTYPES = (*FLOAT_DTYPES, np.dtype(np.float16))
_UNSIGNED_DTYPES = {n: np.dtype(f"u{n}") for n in (1, 2, 4, 8)}  # by item size
_MAX_DOT_SIZE = 10_000  # the largest dot product for which BLAS does not start threads
_HEAD_ROWS = 4096  # rows that are searched for all classes before the whole array is


class InvalidParameterError(ValueError, TypeError):
    """An argument of a type or value that the metric does not accept."""

    __module__ = "fastloss.sklearn"


# --- arrays ---------------------------------------------------------------------------------------


def check_array_like(value, name):
    """Reject scalars, strings, None, sparse matrices and masked arrays."""
    if type(value) is np.ndarray:
        return
    is_array = hasattr(value, "__len__") or hasattr(value, "shape") or hasattr(value, "__array__")
    if not is_array or np.isscalar(value) or hasattr(value, "tocsr"):
        raise InvalidParameterError(
            f"{name} must be an array or a list, got {type(value).__name__}"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be ignored: drop the masked rows from all "
            "arguments"
        )


def as_array(value, name, dtype=None):
    """Convert an array-like to an ndarray with at least one axis, in native byte order."""
    check_array_like(value, name)
    if type(value) is not np.ndarray:
        try:
            value = np.asarray(value)
        except TypeError as error:
            raise ValueError(f"{name} cannot be read as an array: {error}") from error
    if value.ndim == 0:
        raise InvalidParameterError(f"{name} is 0-d: it must have one entry for each row")
    if value.dtype.kind == "c":
        raise ValueError(f"{name} is complex: metrics take real numbers")
    if dtype is not None and value.dtype != dtype:
        return _astype(value, name, dtype)
    return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))


def _astype(array, name, dtype):
    try:
        return array.astype(dtype)
    except TypeError as error:
        raise ValueError(f"{name} has an entry that is not a number: {error}") from error


def as_real_array(value, name):
    """Convert an array-like to a dtype that the losses accept as weights."""
    array = as_array(value, name)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        return _astype(array, name, np.float64)
    return array


def check_equal_rows(**arrays):
    """Check that all arrays, except those that are None, have the same number of rows."""
    rows = {name: len(array) for name, array in arrays.items() if array is not None}
    if min(rows.values()) != max(rows.values()):
        counts = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise ValueError(f"the arrays have different numbers of rows: {counts}")


def check_not_empty(array, name):
    """Check that an array has one or two axes and at least one entry."""
    if array.ndim > 2:
        raise ValueError(f"{name} has shape {array.shape}: it must have one axis or two")
    if array.size == 0:
        raise ValueError(f"{name} of shape {array.shape} is empty: it needs at least one row")


def check_entries(valid, array, name, requirement):
    """Raise an error that names the first entry that is not valid."""
    if not valid.all():
        index = np.unravel_index(int(valid.argmin()), valid.shape)
        position = ", ".join(map(str, index))
        raise ValueError(
            f"{name}[{position}] = {array[index].item()!r}: {name} must be {requirement}"
        )


def is_finite(array):
    """Whether all entries are finite. May be False for finite entries whose sum overflows."""
    if array.dtype.kind != "f":
        return True
    flat = array.ravel("K")
    if flat.size <= _MAX_DOT_SIZE:
        return math.isfinite(np.vdot(flat, flat))  # vdot never warns
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.add.reduce(flat))


def check_finite(array, name):
    """Raise an error that names the first entry that is NaN or infinite."""
    if not is_finite(array):
        check_entries(np.isfinite(array), array, name, "finite")


def column_or_1d(array, name):
    """Return a view with one axis of an array of shape (n,) or (n, 1)."""
    if array.ndim == 2 and array.shape[1] == 1:
        return array.reshape(-1)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: it must have one axis, or one column")
    return array


def as_weight(sample_weight, rows):
    """Convert sample weights, one per row; they may be negative but not all 0."""
    weight = as_real_array(sample_weight, "sample_weight")
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight has shape {weight.shape}: it must have shape ({rows},)")
    low, high = weight.min(), weight.max()
    if not (-math.inf < low and high < math.inf):
        check_entries(np.isfinite(weight), weight, "sample_weight", "finite")
    if low == high == 0:
        raise ValueError("sample_weight is 0 everywhere: at least one weight must not be 0")
    return weight


# --- labels ---------------------------------------------------------------------------------------
# Class indices are integers of any dtype, from 0 to the number of classes - 1.


def as_int64(indices):
    """Convert class indices to int64, for counting and index arithmetic."""
    return (
        indices.view(np.int64)
        if indices.dtype == np.uint64
        else indices.astype(np.int64, copy=False)
    )


def class_counts(indices, classes, weight=None):
    """The number of rows of each class, or the sum of their weights."""
    return np.bincount(as_int64(indices), weight, classes)


def as_class_indices(y, classes):
    """Return the labels, unsigned, if they are class indices already, otherwise None."""
    if y.dtype.kind not in "iub" or y.size == 0:
        return None
    indices = y.view(_UNSIGNED_DTYPES[y.itemsize])  # negative labels become large ones
    return indices if np.maximum.reduce(indices) < classes else None


def _has_every_class(indices, classes):
    if np.count_nonzero(class_counts(indices[:_HEAD_ROWS], classes)) == classes:
        return True
    return np.count_nonzero(class_counts(indices, classes)) == classes


def as_labels(value, name):
    """Convert an array-like of labels; raise an error if NumPy would change one of them."""
    labels = as_array(value, name)
    check_unconverted(value, labels, name, InvalidParameterError)
    return labels


def _check_strings(labels, name):
    for row, label in enumerate(labels):
        if not isinstance(label, str):
            raise InvalidParameterError(
                f"{name}[{row}] = {label!r} is not a string, unlike other labels: they must be "
                "all strings or all integers"
            )


def encode(y, name="y_true"):
    """Return the distinct labels in order, and for each row the index of its label among them.

    Labels are strings, booleans, integers or whole floats.
    """
    kind = y.dtype.kind
    if kind == "f":
        classes, indices = encode_labels(_as_integers(y, name))
        return classes.astype(y.dtype), indices
    if kind == "S":
        raise TypeError(f"{name} contains bytes: labels must be strings or integers")
    if kind == "O" and not isinstance(y[0], str):
        raise ValueError(
            f"{name} contains objects of type {type(y[0]).__name__}: labels must be all strings "
            "or all integers"
        )
    if kind == "O":
        _check_strings(y, name)
    return encode_labels(y)


def _as_integers(y, name):
    with np.errstate(invalid="ignore"):
        integers = y.astype(np.int64)
    check_entries(integers == y, y, name, "whole numbers, or strings")
    return integers


def sorted_labels(labels):
    """Return the labels in order, at least two; warn if they were given in another order."""
    labels = column_or_1d(as_labels(labels, "labels"), "labels")
    check_not_empty(labels, "labels")
    classes, indices = encode(labels, "labels")
    if classes.size < 2:
        raise ValueError(f"labels contains only {classes.tolist()}: at least two are needed")
    if classes.size != labels.size:
        raise ValueError(f"labels contains a label twice: {labels.tolist()}")
    if (indices[1:] < indices[:-1]).any():
        warnings.warn(
            f"labels is {labels.tolist()}, but the columns of y_proba are assumed to be in the "
            f"order of the sorted labels {classes.tolist()}",
            UserWarning,
            stacklevel=caller_level(),
        )
    return classes


def encode_by(y, classes, name="y_true"):
    """Return for each row the index of its label among the sorted classes."""
    if (y.dtype.kind in "OU") != (classes.dtype.kind in "OU"):
        raise ValueError(f"{name} has dtype {y.dtype}, but labels is {classes.tolist()}")
    if y.dtype.kind == "O":
        _check_strings(y, name)
    indices = np.minimum(np.searchsorted(classes, y), classes.size - 1)
    unknown = classes[indices] != y
    if unknown.any():
        labels = sorted(set(y[unknown].tolist()), key=repr)
        raise ValueError(f"{name} contains {labels}, not among the labels {classes.tolist()}")
    return indices


def encode_y_true(y_true, labels, columns):
    """Return the class index of each row, or a label indicator matrix of shape (n, columns)."""
    y = as_labels(y_true, "y_true")
    check_not_empty(y, "y_true")
    if y.ndim == 2 and y.shape[1] > 1:
        return _as_label_indicator(y, labels, columns)
    y = y.reshape(-1)
    if labels is not None:
        return _encode_by_labels(y, sorted_labels(labels), columns)
    indices = as_class_indices(y, columns)
    if indices is not None and columns > 1 and _has_every_class(indices, columns):
        return indices
    classes, indices = encode(y)
    if classes.size == 1:
        raise ValueError(
            f"y_true contains only one label, {classes.tolist()[0]!r}: pass all labels as labels"
        )
    if classes.size != columns:
        raise ValueError(
            f"y_true contains {classes.size} labels, {classes.tolist()}, but y_proba has {columns} "
            "classes: pass all labels as labels"
        )
    return indices


def _encode_by_labels(y, classes, columns):
    if classes.size != columns:
        raise ValueError(
            f"labels contains {classes.size} labels, {classes.tolist()}, but y_proba has {columns} "
            "classes"
        )
    is_range = classes.dtype.kind in "iu" and classes[0] == 0 and classes[-1] == columns - 1
    indices = as_class_indices(y, columns) if is_range else None
    if indices is not None:
        return indices
    if y.dtype.kind not in "iub":
        encode(y)  # raises an error if an entry cannot be a label
    return encode_by(y, classes)


def _as_label_indicator(y, labels, columns):
    if not _is_label_indicator(y) or labels is not None:
        raise ValueError(
            f"y_true has shape {y.shape}: it must have one label per row, or be a matrix of 0 and "
            "1 without labels"
        )
    if y.shape[1] != columns:
        raise ValueError(f"y_true has {y.shape[1]} columns, but y_proba has {columns} classes")
    return y.astype(np.float64)


def _is_label_indicator(y):
    """Whether a matrix has at most two distinct values, whole numbers."""
    values = np.unique(y)
    whole = y.dtype.kind in "iub" or (y.dtype.kind == "f" and bool((values == values // 1).all()))
    return whole and values.size < 3


def encode_binary(y_true, pos_label):
    """Return for each row whether its label, one of at most two, is the positive one."""
    y = column_or_1d(as_array(y_true, "y_true"), "y_true")
    check_not_empty(y, "y_true")
    indices = as_class_indices(y, 2)
    if indices is not None:
        return indices if pos_label is None else y == pos_label
    classes, _ = encode(y)
    if classes.size > 2:
        raise ValueError(
            f"y_true contains {classes.size} labels, {classes[:5].tolist()}..., but y_proba has "
            "two classes"
        )
    if pos_label is None:
        pos_label = _default_pos_label(classes)
    return y == pos_label


def _default_pos_label(classes):
    """1 if the labels are 0 and 1 or -1 and 1, otherwise the larger label."""
    if classes.dtype.kind in "OU":
        raise ValueError(
            f"y_true contains the strings {classes.tolist()}: pass one of them as pos_label"
        )
    distinct = set(classes.tolist())
    return 1 if distinct <= {0, 1} or distinct <= {-1, 1} else classes[-1]


def encode_for_decisions(y, labels, columns):
    """Return the number of classes, and the class index of each row."""
    if labels is not None:
        labels = as_array(labels, "labels").reshape(-1)
        if labels.size > 2:
            declared, _ = encode(labels, "labels")
            if declared.size > 2:
                return declared.size, encode_by(y, declared)
    indices = as_class_indices(y, columns) if labels is None and columns > 2 else None
    if indices is not None and _has_every_class(indices, columns):
        return columns, indices
    classes, indices = encode(y)
    if labels is not None and classes.size > 2:
        raise ValueError(
            f"y_true contains {classes.size} labels, but labels only {labels.tolist()}"
        )
    return classes.size, indices


# --- decisions and targets ------------------------------------------------------------------------


def as_decisions(pred_decision):
    """Convert decision values to float32 or float64; they must be finite."""
    scores = as_array(pred_decision, "pred_decision")
    if scores.dtype.kind in "USV":
        raise ValueError(f"pred_decision has dtype {scores.dtype}: decision values are numbers")
    check_not_empty(scores, "pred_decision")
    if scores.dtype not in FLOAT_DTYPES:
        scores = _astype(scores, "pred_decision", np.float64)
    check_finite(scores, "pred_decision")
    return scores


def _common_dtype(*arrays):
    """The common floating-point dtype of the arguments that have a dtype, lists being without."""
    dtypes = {np.asarray(array).dtype for array in arrays if hasattr(array, "dtype")}
    sizes = [dtype.itemsize for dtype in dtypes if dtype.kind == "f"]
    return FLOAT_DTYPES[bool(sizes) and max(sizes) <= 4]


def as_targets(y_true, y_pred, sample_weight):
    """Convert true and predicted values to a common dtype and shape (n, outputs), and weights."""
    check_array_like(y_true, "y_true")
    check_array_like(y_pred, "y_pred")
    dtype = _common_dtype(y_true, y_pred, sample_weight)
    y_true, y_pred = as_array(y_true, "y_true", dtype), as_array(y_pred, "y_pred", dtype)
    check_equal_rows(y_true=y_true, y_pred=y_pred)
    for array, name in ((y_true, "y_true"), (y_pred, "y_pred")):
        check_not_empty(array, name)
        check_finite(array, name)
    weight = None if sample_weight is None else as_weight(sample_weight, len(y_true))
    y_true, y_pred = y_true.reshape(len(y_true), -1), y_pred.reshape(len(y_pred), -1)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true has {y_true.shape[1]} outputs, but y_pred has {y_pred.shape[1]}")
    return y_true, y_pred, weight


def as_output_weight(multioutput, outputs):
    """Convert weights of the outputs, of which there must be several."""
    weight = as_array(multioutput, "multioutput", np.float64)
    check_finite(weight, "multioutput")
    if outputs == 1:
        raise ValueError("multioutput contains weights, but there is only one output")
    if weight.shape != (outputs,):
        raise InvalidParameterError(
            f"multioutput has shape {weight.shape}: it must have shape ({outputs},)"
        )
    return weight


# --- probabilities --------------------------------------------------------------------------------


def as_probabilities(y_proba):
    """Convert probabilities to a floating-point dtype and shape (n, classes) or, of two, (n,)."""
    proba = as_array(y_proba, "y_proba")
    if proba.dtype not in _PROBABILITY_DTYPES:
        proba = _astype(proba, "y_proba", np.float64)
    check_not_empty(proba, "y_proba")
    if proba.ndim == 2 and proba.shape[1] == 1:
        proba = proba.reshape(-1)
    flat = proba.reshape(-1) if proba.flags.c_contiguous else proba
    low, high = np.minimum.reduce(flat, axis=None), np.maximum.reduce(flat, axis=None)
    if not (low >= 0 and high <= 1):
        check_entries((proba >= 0) & (proba <= 1), proba, "y_proba", "between 0 and 1")
    return proba


def check_row_sums(proba):
    """Warn if the probabilities of a row do not sum to 1."""
    has_two = proba.shape[1] == 2
    sums = proba[:, 0] + proba[:, 1] if has_two else np.einsum("ij->i", proba)
    tolerance = 1e-8 + math.sqrt(np.finfo(proba.dtype).eps)
    if sums.min() < 1 - tolerance or sums.max() > 1 + tolerance:
        row = int(np.abs(sums - 1).argmax())
        warnings.warn(
            f"the probabilities of y_proba[{row}] sum to {float(sums[row]):.6g}, not 1",
            UserWarning,
            stacklevel=caller_level(),
        )


def caller_level():
    """The `stacklevel` that attributes a warning to the code that called this package."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("fastloss.sklearn"):
        level, frame = level + 1, frame.f_back
    return level
