"""Columns of Arrow: arrays of pyarrow in memory, Arrow IPC files, and batches of any file."""

import bisect
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss._nulls import null_error
from fastloss.evaluation.sources.chunked import ChunkedSource
from fastloss.evaluation.sources.source import (
    READ_BYTES,
    Source,
    read_errors,
    require_package,
    resolve_member,
)


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
            raise TypeError(f"{name} holds {column_type}, which are not numbers")
        dtype = np.dtype(entry_type.to_pandas_dtype())
        return cls(name, tuple(sizes), shape or tuple(sizes), dtype)

    def to_numpy(self, array: Any, row: int) -> np.ndarray:
        """The rows as an ndarray; messages count them from `row`."""
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


def holds_numbers(column_type: Any) -> bool:
    """Whether a type is one of numbers, or of lists or tensors of numbers."""
    import pyarrow as pa

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


class BatchSource(ChunkedSource):
    """A column of a file that pyarrow reads in batches, starting at certain rows only."""

    def __init__(
        self,
        name: str,
        column_type: Any,
        rows: int,
        batches: Callable[[int, int], Any],
        *,
        starts: Sequence[int] = (0,),
        file: Any,
        close: Callable[[], None],
    ) -> None:
        """`batches(i, size)` yields arrays of at most `size` rows from row `starts[i]` on."""
        self._close = close
        self._batches = batches
        self._starts = starts
        with read_errors(name):
            first = next((array[:1] for array in self._validated(0, 1) if len(array)), None)
        self._layout = RowLayout.of(name, column_type, first)
        super().__init__(name, (rows, *self._layout.shape), self._layout.dtype, file)
        self._batch_rows = max(READ_BYTES // max(self.row_bytes, 1), 1)
        self._stream_row = 0  # the first row of the next batch
        self._stream = None

    def _decode_chunk(self, row):
        index = bisect.bisect_right(self._starts, row) - 1
        if self._stream is None or self._starts[index] > self._stream_row:
            self._stream_row = self._starts[index]
            self._stream = self._validated(index, self._batch_rows)
        while True:
            with read_errors(self.name):
                array = next(self._stream, None)
                if array is None:
                    raise ValueError(f"it promises {self.rows} rows and holds {self._stream_row}")
            first, self._stream_row = self._stream_row, self._stream_row + len(array)
            if row < self._stream_row:
                return first, self._layout.to_numpy(array, first)

    def _validated(self, index, size):
        for array in self._batches(index, size):
            array.validate()
            yield array

    def close(self) -> None:
        self._stream = None
        self._close()


def open_arrow(path: str, member: str) -> Source:
    ipc = require_package("pyarrow.ipc", "parquet", path)
    with contextlib.ExitStack() as stack:
        with read_errors(path):
            stream = stack.enter_context(open(path, "rb"))
            schema = ipc.open_file(stream).schema
        field = column_field(path, member, schema)
        with read_errors(path):
            options = ipc.IpcReadOptions(
                included_fields=[schema.get_field_index(field.name)], use_threads=False
            )
            file = ipc.open_file(stream, options=options)
            rows = _count_rows(file)

        def batches(_, size):
            for index in range(file.num_record_batches):
                yield file.get_batch(index).column(0)

        source = BatchSource(
            f"{path}:{field.name}",
            field.type,
            rows,
            batches,
            file=path,
            close=stack.pop_all().close,
        )
    return source


def _count_rows(file: Any) -> int:
    """The rows of an Arrow file; before version 26 pyarrow must read the batches to count them."""
    if hasattr(file, "count_rows"):
        return file.count_rows()
    return sum(file.get_batch(index).num_rows for index in range(file.num_record_batches))


def column_field(path: str, member: str, schema: Any) -> Any:
    """The field of a column, or of the only one if `member` is empty."""
    with read_errors(path):
        names = schema.names
    name = resolve_member(path, member, names)
    if names.count(name) > 1:
        raise ValueError(f"{path} has {names.count(name)} columns {name!r}")
    return schema.field(name)
