"""What scikit-learn's metrics take and refuse: array-likes, weights, labels, probabilities.

Exceptions are of the types that scikit-learn 1.9 raises. Where the usual array passes at a glance,
nothing more is looked at.
"""

import math
import warnings

import numpy as np

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
_PROBABILITIES = (*FLOATS, np.dtype(np.float16))
_DOT = 10_000  # numbers of which BLAS forms the dot product at once, without a team of threads
_UNSIGNED = {n: np.dtype(f"u{n}") for n in (1, 2, 4, 8)}
_HEAD = 4096  # labels that are looked through for all classes before the rest is


class InvalidParameterError(ValueError, TypeError):
    """An argument of a kind that the metric does not take."""

    __module__ = "fastloss.sklearn"


# --- arrays ---------------------------------------------------------------------------------------


def check_array_like(value, name):
    """Refuses what is no sequence and no array: numbers, strings, None, sparse matrices."""
    if type(value) is np.ndarray:
        return
    is_array = hasattr(value, "__len__") or hasattr(value, "shape") or hasattr(value, "__array__")
    if not is_array or np.isscalar(value) or hasattr(value, "tocsr"):
        raise InvalidParameterError(
            f"{name} must be an array or a list, got {type(value).__name__}"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost: pass its .compressed()"
        )


def as_array(value, name, dtype=None):
    """An array-like as ndarray of rows in native byte order."""
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
        return _converted(value, name, dtype)
    return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))


def _converted(array, name, dtype):
    try:
        return array.astype(dtype)
    except TypeError as error:
        raise ValueError(f"{name} holds what is no number: {error}") from error


def as_numbers(value, name):
    """An array-like of a dtype that losses take as weights."""
    array = as_array(value, name)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        return _converted(array, name, np.float64)
    return array


def check_rows(**arrays):
    """All that are given have as many rows."""
    rows = {name: len(array) for name, array in arrays.items() if array is not None}
    if min(rows.values()) != max(rows.values()):
        told = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise ValueError(f"the arrays have unequal numbers of rows: {told}")


def check_some(array, name):
    """There are rows, and columns if there may be, of at most two axes."""
    if array.ndim > 2:
        raise ValueError(f"{name} has shape {array.shape}: it must have one axis or two")
    if array.size == 0:
        raise ValueError(f"{name} of shape {array.shape} is empty: it needs at least one row")


def check_entries(good, array, name, words):
    """Names the first entry that is not good."""
    if not good.all():
        index = np.unravel_index(int(good.argmin()), good.shape)
        place = ", ".join(map(str, index))
        raise ValueError(f"{name}[{place}] = {array[index].item()!r}: {name} must be {words}")


def is_finite(array):
    """Whether a sum over all entries is finite; it may also overflow."""
    if array.dtype.kind != "f":
        return True
    flat = array.ravel("K")
    if flat.size <= _DOT:
        return math.isfinite(np.vdot(flat, flat))  # warns of nothing
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.add.reduce(flat))


def check_finite(array, name):
    """Names the first entry that is NaN or infinite."""
    if not is_finite(array):
        check_entries(np.isfinite(array), array, name, "finite")


def column(array, name):
    """A single column as one axis."""
    if array.ndim == 2 and array.shape[1] == 1:
        return array.reshape(-1)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: it must have one axis, or one column")
    return array


def as_weight(sample_weight, rows):
    """Weights, one for each row, not all of them 0; some may be negative."""
    weight = as_numbers(sample_weight, "sample_weight")
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight has shape {weight.shape}: it must have shape ({rows},)")
    low, high = weight.min(), weight.max()
    if not (-math.inf < low and high < math.inf):
        check_entries(np.isfinite(weight), weight, "sample_weight", "finite")
    if low == high == 0:
        raise ValueError("sample_weight is 0 everywhere: at least one weight must not be")
    return weight


# --- labels ---------------------------------------------------------------------------------------


def signed(codes):
    """Codes as int64, to count with and to compute places with."""
    return codes.view(np.int64) if codes.dtype == np.uint64 else codes.astype(np.int64, copy=False)


def count(codes, classes, weight=None):
    """How often there is each class, or its weight."""
    return np.bincount(signed(codes), weight, classes)


def as_codes(y, classes):
    """The labels, unsigned, if they are integers from 0 to classes - 1, else None."""
    if y.dtype.kind not in "iub" or y.size == 0:
        return None
    codes = y.view(_UNSIGNED[y.itemsize])  # a negative number is a large one
    return codes if np.maximum.reduce(codes) < classes else None


def _has_all(codes, classes):
    """Whether there is each class; as a rule the first rows tell."""
    if np.count_nonzero(count(codes[:_HEAD], classes)) == classes:
        return True
    return np.count_nonzero(count(codes, classes)) == classes


def as_labels(value, name):
    """Labels as an array; NumPy would make numbers among strings strings."""
    labels = as_array(value, name)
    if labels.dtype.kind == "U" and not isinstance(value, np.ndarray):
        _check_strings(np.asarray(value, object).ravel(), name)
    return labels


def _check_strings(labels, name):
    for row, label in enumerate(labels):
        if not isinstance(label, str):
            raise InvalidParameterError(
                f"{name}[{row}] = {label!r} is no string, as other labels are: labels must be "
                "strings or integers, of one kind"
            )


def unique_codes(y, name="y_true"):
    """(the sorted labels, for each row the place of its label among them)."""
    kind = y.dtype.kind
    if kind == "f":
        return _unique_floats(y, name)
    if kind == "S":
        raise TypeError(f"{name} holds bytes: labels must be strings or integers")
    if kind == "O" and not isinstance(y[0], str):
        raise ValueError(
            f"{name} holds objects of type {type(y[0]).__name__}: labels must be "
            "strings or integers, of one kind"
        )
    if kind == "O":
        _check_strings(y, name)
    if kind in "iu":
        low, high = int(y.min()), int(y.max())
        if high - low <= max(_HEAD, y.size) and high < 2**63:
            return _unique_in_range(y.astype(np.int64) - low, low, y.dtype)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, codes


def _unique_in_range(y, low, dtype):
    """Small integers are counted, not sorted."""
    seen = np.bincount(y) > 0
    classes = np.flatnonzero(seen)
    if classes.size == seen.size:
        return (classes + low).astype(dtype), y
    return (classes + low).astype(dtype), (np.cumsum(seen) - 1)[y]


def _unique_floats(y, name):
    """Labels may be floating if they are whole."""
    with np.errstate(invalid="ignore"):
        whole = y.astype(np.int64)
    check_entries(whole == y, y, name, "whole numbers, or strings")
    classes, codes = unique_codes(whole, name)
    return classes.astype(y.dtype), codes


def sorted_labels(labels):
    """The labels in order, at least two; a warning where they were given in another order."""
    labels = column(as_labels(labels, "labels"), "labels")
    check_some(labels, "labels")
    classes, codes = unique_codes(labels, "labels")
    if classes.size < 2:
        raise ValueError(f"labels holds only {classes.tolist()}: at least two labels are needed")
    if classes.size != labels.size:
        raise ValueError(f"labels holds a label twice: {labels.tolist()}")
    if (codes[1:] < codes[:-1]).any():
        warnings.warn(
            f"labels are {labels.tolist()}, but the columns of y_proba are taken to be in the "
            f"order of the sorted labels {classes.tolist()}",
            UserWarning,
            stacklevel=caller_level(),
        )
    return classes


def places(y, classes, name="y_true"):
    """For each row the place of its label among sorted classes."""
    if (y.dtype.kind in "OU") != (classes.dtype.kind in "OU"):
        raise ValueError(f"{name} holds {y.dtype}, but labels are {classes.tolist()}")
    if y.dtype.kind == "O":
        _check_strings(y, name)
    found = np.minimum(np.searchsorted(classes, y), classes.size - 1)
    missing = classes[found] != y
    if missing.any():
        unknown = sorted(set(y[missing].tolist()), key=repr)
        raise ValueError(f"{name} holds {unknown}, not among the labels {classes.tolist()}")
    return found


def _is_indicator(y):
    """Whether rows are marks of labels: at most two values, whole numbers."""
    values = np.unique(y)
    whole = y.dtype.kind in "iub" or (y.dtype.kind == "f" and bool((values == values // 1).all()))
    return whole and values.size < 3


def truth(y_true, labels, columns):
    """The class of each row as a number from 0 to columns - 1, or marks of labels in each row."""
    y = as_labels(y_true, "y_true")
    check_some(y, "y_true")
    if y.ndim == 2 and y.shape[1] > 1:
        return _marks(y, labels, columns)
    y = y.reshape(-1)
    if labels is not None:
        return _declared(y, sorted_labels(labels), columns)
    codes = as_codes(y, columns)
    if codes is not None and columns > 1 and _has_all(codes, columns):
        return codes
    classes, codes = unique_codes(y)
    if classes.size == 1:
        raise ValueError(
            f"y_true holds only one label, {classes.tolist()[0]!r}: pass all of them as labels"
        )
    if classes.size != columns:
        raise ValueError(
            f"y_true holds {classes.size} labels, {classes.tolist()}, but y_proba is of {columns} "
            "classes: pass all labels as labels"
        )
    return codes


def _declared(y, classes, columns):
    """Classes by the labels that were given."""
    if classes.size != columns:
        raise ValueError(
            f"labels holds {classes.size} labels, {classes.tolist()}, but y_proba is of {columns} "
            "classes"
        )
    numbered = classes.dtype.kind in "iu" and classes[0] == 0 and classes[-1] == columns - 1
    codes = as_codes(y, columns) if numbered else None
    if codes is not None:
        return codes
    if y.dtype.kind not in "iub":
        unique_codes(y)  # refuses what is no label
    return places(y, classes)


def _marks(y, labels, columns):
    if not _is_indicator(y) or labels is not None:
        raise ValueError(
            f"y_true has shape {y.shape}: it must hold one label for each row, or be of 0 and 1 "
            "without labels"
        )
    if y.shape[1] != columns:
        raise ValueError(f"y_true has {y.shape[1]} columns, but y_proba is of {columns} classes")
    return y.astype(np.float64)


def positives(y_true, pos_label):
    """Which rows have the positive one of at most two labels."""
    y = column(as_array(y_true, "y_true"), "y_true")
    check_some(y, "y_true")
    codes = as_codes(y, 2)
    if codes is not None:
        return codes if pos_label is None else y == pos_label
    classes, _ = unique_codes(y)
    if classes.size > 2:
        raise ValueError(
            f"y_true holds {classes.size} labels, {classes[:5].tolist()}..., but y_proba is of two "
            "classes"
        )
    if pos_label is None:
        pos_label = _usual_positive(classes)
    return y == pos_label


def _usual_positive(classes):
    """1 of -1 and 1 or 0 and 1, else the larger."""
    if classes.dtype.kind in "OU":
        raise ValueError(
            f"y_true holds the strings {classes.tolist()}: pass one of them as pos_label"
        )
    given = set(classes.tolist())
    return 1 if given <= {0, 1} or given <= {-1, 1} else classes[-1]


def decision_classes(y, labels, columns):
    """(the number of classes, for each row the place of its label among them)"""
    if labels is not None:
        labels = as_array(labels, "labels").reshape(-1)
        if labels.size > 2:
            known, _ = unique_codes(labels, "labels")
            if known.size > 2:
                return known.size, places(y, known)
    codes = as_codes(y, columns) if labels is None and columns > 2 else None
    if codes is not None and _has_all(codes, columns):
        return columns, codes
    classes, codes = unique_codes(y)
    if labels is not None and classes.size > 2:
        raise ValueError(f"y_true holds {classes.size} labels, but labels only {labels.tolist()}")
    return classes.size, codes


# --- decisions and targets ------------------------------------------------------------------------


def as_decisions(pred_decision):
    """Decision values, floating and finite."""
    scores = as_array(pred_decision, "pred_decision")
    if scores.dtype.kind in "USV":
        raise ValueError(f"pred_decision holds {scores.dtype}: decision values are numbers")
    check_some(scores, "pred_decision")
    if scores.dtype not in FLOATS:
        scores = _converted(scores, "pred_decision", np.float64)
    check_finite(scores, "pred_decision")
    return scores


def _common_dtype(*arrays):
    """The widest floating dtype of the arrays that have a dtype; others do not count."""
    dtypes = {np.asarray(array).dtype for array in arrays if hasattr(array, "dtype")}
    sizes = [dtype.itemsize for dtype in dtypes if dtype.kind == "f"]
    return FLOATS[bool(sizes) and max(sizes) <= 4]


def as_targets(y_true, y_pred, sample_weight):
    """True and predicted values with one column for each output, and the weights, of one dtype."""
    check_array_like(y_true, "y_true")
    check_array_like(y_pred, "y_pred")
    dtype = _common_dtype(y_true, y_pred, sample_weight)
    y_true, y_pred = as_array(y_true, "y_true", dtype), as_array(y_pred, "y_pred", dtype)
    check_rows(y_true=y_true, y_pred=y_pred)
    for array, name in ((y_true, "y_true"), (y_pred, "y_pred")):
        check_some(array, name)
        check_finite(array, name)
    weight = None if sample_weight is None else as_weight(sample_weight, len(y_true))
    y_true, y_pred = y_true.reshape(len(y_true), -1), y_pred.reshape(len(y_pred), -1)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true has {y_true.shape[1]} outputs, but y_pred has {y_pred.shape[1]}")
    return y_true, y_pred, weight


def as_output_weight(multioutput, outputs):
    """Weights of the outputs, of which there are several."""
    weight = as_array(multioutput, "multioutput", np.float64)
    check_finite(weight, "multioutput")
    if outputs == 1:
        raise ValueError("multioutput holds weights, but there is one output only")
    if weight.shape != (outputs,):
        raise ValueError(f"multioutput has shape {weight.shape}: it must have shape ({outputs},)")
    return weight


# --- probabilities --------------------------------------------------------------------------------


def as_probabilities(y_proba):
    """Probabilities, floating, with one axis for those of the second of two classes."""
    proba = as_array(y_proba, "y_proba")
    if proba.dtype not in _PROBABILITIES:
        proba = _converted(proba, "y_proba", np.float64)
    check_some(proba, "y_proba")
    if proba.ndim == 2 and proba.shape[1] == 1:
        proba = proba.reshape(-1)
    flat = proba.reshape(-1) if proba.flags.c_contiguous else proba
    low, high = np.minimum.reduce(flat, axis=None), np.maximum.reduce(flat, axis=None)
    if not (low >= 0 and high <= 1):
        check_entries((proba >= 0) & (proba <= 1), proba, "y_proba", "between 0 and 1")
    return proba


def check_row_sums(proba):
    """Warns where the probabilities of a row do not add up to 1."""
    two = proba.shape[1] == 2
    totals = proba[:, 0] + proba[:, 1] if two else np.einsum("ij->i", proba)
    slack = 1e-8 + math.sqrt(np.finfo(proba.dtype).eps)
    if totals.min() < 1 - slack or totals.max() > 1 + slack:
        row = int(np.abs(totals - 1).argmax())
        warnings.warn(
            f"the probabilities of y_proba[{row}] add up to {float(totals[row]):.6g}, not 1",
            UserWarning,
            stacklevel=caller_level(),
        )


def caller_level():
    """The stack level of the code that called this package."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("fastloss.sklearn"):
        level, frame = level + 1, frame.f_back
    return level
