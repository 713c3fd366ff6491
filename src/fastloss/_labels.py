"""Labels of classes and groups: reading them as an array, and encoding them as indices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss._arrays import as_array

_COUNTED_RANGE = 4096  # a range of integers up to this, or up to their number, is not sorted


def as_labels(value: Any, name: str) -> NDArray[Any]:
    """Labels as an array; raises a TypeError if NumPy would change one of them."""
    labels: NDArray[Any] = as_array(value, name)
    check_unconverted(value, labels, name)
    return labels


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
