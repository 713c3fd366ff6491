"""Labels of classes and groups: reading them as an array, and encoding them as indices."""

import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss._arrays import as_array

_COUNTED_RANGE = 4096  # a range of integers up to this, or up to their number, is not sorted


def as_labels(value: Any, name: str) -> NDArray[Any]:
    """Labels as an array; raises a TypeError if NumPy would change one of them.

    Dates, times and bytes become strings.
    """
    labels: NDArray[Any] = as_array(value, name)
    check_unconverted(value, labels, name)
    return strings_of(labels, name)


def strings_of(labels: NDArray[Any], name: str, first_row: int = 0) -> NDArray[Any]:
    """Labels with strings in place of dates, times and bytes; messages count from `first_row`.

    A time is written in ISO 8601 as short as it can be: 2026-01-31, 2026-01-31T08:30. Such strings
    sort like the times, and do not depend on the unit in which these are stored.
    """
    if labels.dtype.kind in "SO" and labels.size:
        try:
            labels = _unboxed(labels)
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} holds bytes that are not UTF-8: {error}") from error
    return _iso_strings(labels, name, first_row) if labels.dtype.kind == "M" else labels


def _unboxed(labels: NDArray[Any]) -> NDArray[Any]:
    """Bytes as strings, and objects that are all dates or times without a zone as an array."""
    objects = labels.ravel().tolist()
    if all(isinstance(label, bytes) for label in objects):
        strings = [label.decode() for label in objects]
        return np.array(strings, object).reshape(labels.shape)
    is_date = all(
        isinstance(label, datetime.date) and getattr(label, "tzinfo", None) is None
        for label in objects
    )
    return (
        labels.astype("M8[ns]" if _have_nanoseconds(objects) else "M8[us]") if is_date else labels
    )


def _have_nanoseconds(times: list[Any]) -> bool:
    """Whether times of pandas have a part that microseconds do not hold."""
    return any(getattr(time, "nanosecond", 0) for time in times)


def _iso_strings(times: NDArray[Any], name: str, first_row: int) -> NDArray[Any]:
    missing = np.isnat(times)
    if missing.any():
        index = [int(i) for i in np.unravel_index(int(missing.argmax()), times.shape)]
        row = f"row {first_row + index[0]} is" if index else "it is"
        raise ValueError(f"{name}: {row} NaT, which is not a label")
    distinct, codes = np.unique(times, return_inverse=True)
    return np.array([_iso_string(time) for time in distinct], "U")[codes.reshape(times.shape)]


def _iso_string(time: np.datetime64) -> str:
    unit, _ = np.datetime_data(time.dtype)
    for short in ("D", "m", "s", "ms", "us", "ns", "ps", "fs"):
        if unit in ("Y", "M"):
            break
        if time.astype(f"M8[{short}]") == time:
            return str(np.datetime_as_string(time, unit=short))
    return str(np.datetime_as_string(time))


def check_unconverted(
    value: Any, labels: NDArray[Any], name: str, error: type[Exception] = TypeError
) -> None:
    """Raises an error if `labels`, the array that NumPy made of `value`, holds other labels.

    Among strings, NumPy converts numbers to strings; among floats, large integers to floats.
    """
    is_array = hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    if is_array or labels.dtype.kind not in "fU":
        return
    objects = np.array(value, object)
    changed = (labels != objects) & (labels == labels)  # NaN equals nothing and is no change
    if changed.any():
        index = np.unravel_index(int(changed.argmax()), changed.shape)
        raise error(
            f"{name}[{', '.join(str(int(i)) for i in index)}] = {objects[index]!r} would become "
            f"{labels[index].item()!r} in an array with the others: pass labels of one type"
        )


def encode_labels(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct labels in order, and for each entry the index of its label among them.

    This is ``np.unique(labels, return_inverse=True)`` in one dimension, except that integers in a
    small range are counted instead of sorted.
    """
    if labels.dtype.kind in "iu" and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if high - low <= max(_COUNTED_RANGE, labels.size) and high < 2**63:
            offsets = labels.astype(np.int64)
            offsets -= low
            present = np.bincount(offsets) > 0
            distinct = np.flatnonzero(present)
            codes = offsets if distinct.size == present.size else (np.cumsum(present) - 1)[offsets]
            return (distinct + low).astype(labels.dtype), codes
    distinct, codes = np.unique(labels, return_inverse=True)
    return distinct, codes
