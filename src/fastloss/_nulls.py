"""Missing entries of arrays that are not NumPy's: nulls, and masks that NumPy drops.

NumPy reads a null of pyarrow, pandas or Polars as NaN, and it reads what is below the mask of a
masked array. Each function raises an error instead.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

_LIST_TYPES = (list, tuple)


def check_nulls(value: Any, name: str) -> None:
    """Raises an error that names the first row with a null, if the array-like has one."""
    row = first_null(value)
    if row is not None:
        raise null_error(name, row)


def null_error(name: str, row: int) -> ValueError:
    return ValueError(
        f"{name}: row {row} is null or holds one, which NumPy would read as NaN: fill it, or drop "
        "the row from every array"
    )


def check_nested(value: Any, array: np.ndarray, name: str) -> None:
    """Checks the arrays in a list, or in lists of lists, of which NumPy has made `array`."""
    has_nan = array.dtype.kind in "fc" and bool(np.isnan(array).any())
    # Scalars, on the last level, are searched only if one of them may be a masked one.
    _check_levels(value, name, array.ndim - (0 if has_nan else 1))


def _check_levels(value: Any, name: str, levels: int) -> None:
    if levels < 1:
        return
    types = set(map(type, value))
    others = [t for t in types if not issubclass(t, (float, int, complex, str, np.generic))]
    if any(t is not np.ndarray and t not in _LIST_TYPES for t in others):
        for index, entry in enumerate(value):
            if isinstance(entry, np.ma.MaskedArray):
                raise TypeError(
                    f"{name}[{index}] is a masked array, and fastloss does not read masks"
                )
            if not isinstance(entry, (*_LIST_TYPES, np.ndarray)):
                check_nulls(entry, f"{name}[{index}]")
    if levels > 1 and not types.isdisjoint(_LIST_TYPES):
        for index, entry in enumerate(value):
            if isinstance(entry, _LIST_TYPES):
                _check_levels(entry, f"{name}[{index}]", levels - 1)


def first_null(value: Any) -> int | None:
    """The first row of an array-like with a null; None if it has none."""
    if isinstance(value, np.ndarray) or isinstance(getattr(value, "dtype", None), np.dtype):
        return None
    package = type(value).__module__.partition(".")[0]
    if package == "pyarrow":
        return _first_null_of_arrow(value)
    if callable(getattr(value, "isna", None)):
        return _first_null_of_pandas(value)
    for method, constructor in (
        ("__arrow_c_array__", "array"),
        ("__arrow_c_stream__", "chunked_array"),
    ):
        if hasattr(value, method):
            return _first_null_of_protocol(value, constructor)
    return None


def _first(rows: Iterable[int | None]) -> int | None:
    return min((row for row in rows if row is not None), default=None)


def _first_null_of_arrow(value: Any) -> int | None:
    import pyarrow as pa
    import pyarrow.compute

    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return _first(map(_first_null_of_arrow, value.columns))
    if isinstance(value, pa.ChunkedArray):
        start = 0
        for chunk in value.chunks:
            row = _first_null_of_arrow(chunk)
            if row is not None:
                return start + row
            start += len(chunk)
        return None
    if not isinstance(value, pa.Array):
        return None
    if isinstance(value, pa.ExtensionArray):
        return _first_null_of_arrow(value.storage)
    if isinstance(value, pa.DictionaryArray):  # whose dictionary may hold a null
        value = value.dictionary_decode()
    if isinstance(value, pa.RunEndEncodedArray):  # whose null_count is 0
        value = pa.compute.run_end_decode(value)
    if value.null_count:
        return _first_of_mask(value.is_null())
    if isinstance(value, pa.FixedSizeListArray):
        row = _first_null_of_arrow(value.flatten())
        return None if row is None else row // value.type.list_size
    if isinstance(value, (pa.ListArray, pa.LargeListArray)):
        row = _first_null_of_arrow(value.flatten())
        if row is None:
            return None
        ends = np.cumsum(np.asarray(value.value_lengths()))
        return int(np.searchsorted(ends, row, side="right"))
    if isinstance(value, pa.StructArray):
        return _first(map(_first_null_of_arrow, value.flatten()))
    return None


def _first_of_mask(mask: Any) -> int | None:
    """The index of the first True in a boolean array of pyarrow."""
    index = mask.index(True).as_py()
    return None if index < 0 else index


def _first_null_of_pandas(value: Any) -> int | None:
    """The first row of a pandas object, or of one with its methods, that has a null."""
    if hasattr(value, "dtypes") and hasattr(value, "columns"):
        columns = (value.iloc[:, k] for k in range(len(value.columns)))
        return _first(map(first_null, columns))
    if type(value.dtype).__name__ == "SparseDtype":  # its missing entries are NaN
        return None
    mask = np.asarray(value.isna(), bool)
    return int(mask.argmax()) if mask.any() else None


def _first_null_of_protocol(value: Any, constructor: str) -> int | None:
    """The first row with a null of an object that exports Arrow memory, such as a Polars series."""
    try:
        import pyarrow as pa
    except ImportError:
        return _first_null_by_methods(value)
    return _first_null_of_arrow(getattr(pa, constructor)(value))


def _first_null_by_methods(value: Any) -> int | None:
    """The first row of a Polars object, or of one with its methods, that has a null."""
    if hasattr(value, "iter_columns"):
        return _first(map(first_null, value.iter_columns()))
    if not hasattr(value, "is_null"):
        return None
    mask = np.asarray(value.is_null(), bool)
    if mask.any():
        return int(mask.argmax())
    row_shape = getattr(value.dtype, "shape", None)
    if row_shape and mask.size:
        entry = _first_null_by_methods(value.explode())
        return None if entry is None else entry // row_shape[0]
    return None
