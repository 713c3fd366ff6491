"""Columns of Arrow: arrays of pyarrow in memory, and how their rows become ndarrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss._nulls import first_null, null_error
from fastloss.evaluation.sources.source import Source, read_errors


class ArrowSource(Source):
    """An Array or ChunkedArray of pyarrow, read as views where Arrow can give them."""

    buffered = False
    backing: Any

    def __init__(self, name: str, data: Any):
        self._data = self.backing = data
        first = next((chunk[:1] for chunk in _chunks_of(data) if len(chunk)), None)
        self._layout = RowLayout.of(name, data.type, first)
        super().__init__(name, (len(data), *self._layout.shape), self._layout.dtype)

    def _read(self, start, stop, buffer):
        parts = []
        for chunk in _chunks_of(self._data.slice(start, stop - start)):
            parts.append(self._layout.to_numpy(chunk, start))
            start += len(chunk)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *parts])


def _chunks_of(data) -> list[Any]:
    return data.chunks if hasattr(data, "chunks") else [data]


@dataclass(frozen=True)
class RowLayout:
    """How an Arrow array holds rows: as nested lists, with `sizes` entries at each level."""

    name: str
    sizes: tuple[int, ...]
    shape: tuple[int, ...]  # of a row
    dtype: np.dtype

    @classmethod
    def of(cls, name: str, column_type: Any, first: Any) -> "RowLayout":
        """`first` is an array of the first row, which shows the lengths of lists, or None."""
        import pyarrow as pa

        column_type, first = plain_type(column_type), first if first is None else _plain(first)
        shape, entry_type = None, column_type
        if isinstance(column_type, pa.FixedShapeTensorType):
            shape = tuple(column_type.shape)
            if column_type.permutation not in (None, list(range(len(shape)))):
                raise TypeError(f"{name} holds {column_type}, whose axes are permuted")
        if isinstance(column_type, pa.BaseExtensionType):
            entry_type, first = column_type.storage_type, first and first.storage
        sizes = []
        while _is_list(entry_type):
            first = None if first is None else _flatten(name, first)
            fixed = pa.types.is_fixed_size_list(entry_type)
            sizes.append(entry_type.list_size if fixed else len(first or ()))
            entry_type, first = entry_type.value_type, first and first[:1]
        if not _is_number(entry_type):
            raise TypeError(f"{name} holds {column_type}, which are not numbers{_cast(entry_type)}")
        dtype = np.dtype(entry_type.to_pandas_dtype())
        return cls(name, tuple(sizes), shape or tuple(sizes), dtype)

    def to_numpy(self, array: Any, row: int) -> np.ndarray:
        """The rows as an ndarray; messages count them from `row`."""
        array = _plain(array)
        values, entries = getattr(array, "storage", array), 1  # entries of a row at this level
        for size in self.sizes:
            self._check_nulls(array, row, values, entries)
            lengths = np.asarray(values.value_lengths())
            wrong = lengths != size
            if wrong.any():
                index = int(np.argmax(wrong))
                raise self._row_error(
                    array, row, index // entries, _length_error, lengths[index], size
                )
            values, entries = _flatten(self.name, values), entries * size
        self._check_nulls(array, row, values, entries)
        return values.to_numpy(zero_copy_only=False).reshape(len(array), *self.shape)

    def _check_nulls(self, array, row, values, entries):
        if values.null_count:
            index = values.is_null().index(True).as_py() // entries
            raise self._row_error(array, row, index, null_error)

    def _row_error(self, array, row: int, index: int, error: Any, *details: Any) -> ValueError:
        """The error of a row; raises an earlier row's error if one is wrong at a deeper level."""
        self.to_numpy(array[:index], row)
        return error(self.name, row + index, *details)


def _length_error(name: str, row: int, length: int, others: int) -> ValueError:
    return ValueError(f"{name}: row {row} is a list of length {length} where others have {others}")


def _cast(entry_type: Any) -> str:
    import pyarrow as pa

    return ": cast them to float64" if pa.types.is_decimal(entry_type) else ""


def plain_type(column_type: Any) -> Any:
    """The type of the values, whether or not a dictionary or run lengths encode them."""
    import pyarrow as pa

    while pa.types.is_dictionary(column_type) or pa.types.is_run_end_encoded(column_type):
        column_type = column_type.value_type
    return column_type


def _plain(array: Any) -> Any:
    """The values without a dictionary or run lengths."""
    import pyarrow as pa
    import pyarrow.compute

    if isinstance(array, pa.RunEndEncodedArray):
        return _plain(pa.compute.run_end_decode(array))
    if isinstance(array, pa.DictionaryArray):
        return _plain(array.dictionary_decode())
    return array


@dataclass(frozen=True)
class LabelLayout:
    """An Arrow array of labels: integers, floats, strings, dates or times."""

    name: str
    column_type: Any

    def __post_init__(self) -> None:
        import pyarrow as pa

        kind = plain_type(self.column_type)
        checks = (_is_number, _is_string, pa.types.is_date, pa.types.is_timestamp)
        if not any(check(kind) for check in checks):
            raise TypeError(
                f"{self.name} holds {self.column_type}: labels must be integers, floats, strings "
                "or dates"
            )

    def to_numpy(self, array: Any, row: int) -> np.ndarray:
        """The labels as an ndarray; messages count them from `row`."""
        import pyarrow as pa
        import pyarrow.compute

        index = first_null(array)
        if index is not None:
            raise null_error(self.name, row + index)
        kind = plain_type(array.type)
        if not _is_string(kind):
            return _plain(array).to_numpy(zero_copy_only=False)
        if isinstance(array, pa.RunEndEncodedArray):
            array = _plain(array)
        if not isinstance(array, pa.DictionaryArray):
            array = array.cast(pa.large_string()).dictionary_encode()
        strings = np.array(array.dictionary.to_pylist() or [""], object)
        if not any(string.endswith("\0") for string in strings):  # which dtype U would drop
            strings = strings.astype("U")
        return strings[array.indices.to_numpy(zero_copy_only=False)]


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in checks)


def holds_numbers(column_type: Any) -> bool:
    """Whether a type is one of numbers, or of lists or tensors of numbers."""
    import pyarrow as pa

    column_type = plain_type(column_type)
    if isinstance(column_type, pa.BaseExtensionType):
        column_type = column_type.storage_type
    while _is_list(column_type):
        column_type = column_type.value_type
    return _is_number(column_type)


def _is_number(column_type: Any) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(check(column_type) for check in checks)


def _flatten(name: str, lists: Any) -> Any:
    """The entries of lists, after a check that their offsets are in range."""
    with read_errors(name):
        lists.validate()
        return lists.flatten()


def _is_list(column_type) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(column_type) for check in checks)
