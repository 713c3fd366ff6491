"""The rows of one array in tables: `open_table` reads a file, `open_folder` all files below one."""

import bisect
import contextlib
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss._labels import strings_of
from fastloss.evaluation.sources.arrow import LabelLayout, RowLayout
from fastloss.evaluation.sources.chunked import ChunkedSource
from fastloss.evaluation.sources.paths import natural_order
from fastloss.evaluation.sources.source import (
    READ_BYTES,
    read_errors,
    require_package,
)
from fastloss.evaluation.sources.table_formats import TableFormat, format_of
from fastloss.evaluation.sources.tables import Table, TableFile

_NOT_ROWS = ("dataset_info.json", "state.json", "dataset_dict.json")  # of Hugging Face
_MANAGED = {"_delta_log": "Delta table", ".hoodie": "Hudi table"}


class _BatchCursor:
    """The batches of a table, taken in order, with rows skipped where a file can be entered."""

    def __init__(self, table: Table, layout: Any, batch_rows: int):
        self._table, self._layout, self._batch_rows = table, layout, batch_rows
        self._starts = table.starts()
        self._next_row = 0
        self._batches: Any = None

    def rows_at(self, row: int) -> tuple[int, np.ndarray]:
        """The first row of the batch that holds `row`, and its rows."""
        index = bisect.bisect_right(self._starts, row) - 1
        if self._batches is None or self._starts[index] > self._next_row:
            self.close()
            self._next_row = self._starts[index]
            self._batches = self._table.batches(index, self._batch_rows)
        while True:
            with read_errors(self._table.name):
                arrays = next(self._batches, None)
                if arrays is None:
                    raise ValueError(
                        f"it promises {self._table.rows} rows and holds {self._next_row}"
                    )
            first, self._next_row = self._next_row, self._next_row + len(arrays[0])
            if row < self._next_row:
                return first, self._layout.to_numpy(arrays, first)

    def close(self) -> None:
        if self._batches is not None:
            with contextlib.suppress(ValueError):  # another thread is reading
                self._batches.close()
        self._batches = None


class TableSource(ChunkedSource):
    """A column of numbers, or several side by side along a last axis."""

    def __init__(self, table: Table):
        with read_errors(table.name):
            first = _first_row(table)
        layout = ColumnsLayout.of(table, first)
        super().__init__(table.name, (table.rows, *layout.shape), layout.dtype)
        self.statuses = table.statuses
        self._cursor = _BatchCursor(table, layout, max(READ_BYTES // max(self.row_bytes, 1), 1))
        self._table = table

    def _decode_chunk(self, row):
        return self._cursor.rows_at(row)

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | files_fingerprint(self.name, self.statuses)

    def close(self) -> None:
        self._cursor.close()


class TableLabels:
    """A column of labels, which may be strings or dates; has the interface of `Source`."""

    buffered = False
    row_bytes = 0
    missing_chunks = 0
    chunk_rows = 1
    backing = None
    name: str
    rows: int
    shape: tuple[int, ...]
    statuses: list[os.stat_result]
    kind: Any

    def __init__(self, table: Table):
        self.name, self.rows, self.shape = table.name, table.rows, (table.rows,)
        self.statuses = table.statuses
        (self.kind,) = table.types.values()
        self.nbytes = 0
        self._layout = LabelLayout(table.name, self.kind)
        self._cursor = _BatchCursor(table, self, 1 << 16)
        self._cached: tuple[int, Any] = (0, ())

    def __str__(self) -> str:
        return f"{self.name} {self.kind}[{self.rows}]"

    def to_numpy(self, arrays: Sequence[Any], row: int) -> np.ndarray:
        return strings_of(self._layout.to_numpy(arrays[0], row), self.name, row)

    def read(self, start: int, stop: int, buffer: Any = None) -> np.ndarray:
        parts = [np.empty(0, np.int64)] if start == stop else []
        while start < stop:
            first, labels = self._cached
            if not first <= start < first + len(labels):
                self._cached = first, labels = self._cursor.rows_at(start)
            parts.append(labels[start - first : stop - first])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def read_all(self) -> np.ndarray:
        try:
            return self.read(0, self.rows)
        finally:
            self.close()

    def fingerprint(self) -> dict[str, Any]:
        identity = {"shape": list(self.shape), "dtype": str(self.kind)}
        return identity | files_fingerprint(self.name, self.statuses)

    def close(self) -> None:
        self._cursor.close()


@dataclass(frozen=True)
class ColumnsLayout:
    """The layouts of the columns; several are stacked along a last axis."""

    columns: list[RowLayout]
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, table: Table, first: list[Any] | None) -> "ColumnsLayout":
        names = (
            [table.name] if len(table.types) == 1 else [f"{table.path}:{n}" for n in table.types]
        )
        columns = [
            RowLayout.of(name, kind, first and first[k])
            for k, (name, kind) in enumerate(zip(names, table.types.values(), strict=True))
        ]
        if len(columns) == 1:
            return cls(columns, columns[0].shape, columns[0].dtype)
        for column in columns:
            if column.shape:
                raise ValueError(f"{column.name} holds lists: name it alone")
        return cls(columns, (len(columns),), np.result_type(*(c.dtype for c in columns)))

    def to_numpy(self, arrays: Sequence[Any], row: int) -> np.ndarray:
        parts = [c.to_numpy(array, row) for c, array in zip(self.columns, arrays, strict=True)]
        return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1, dtype=self.dtype)


def _first_row(table: Table) -> list[Any] | None:
    """The columns of the first row, or None in a table without rows."""
    with contextlib.closing(table.batches(0, 1)) as batches:
        return next(([a[:1] for a in arrays] for arrays in batches if len(arrays[0])), None)


def files_fingerprint(name: str, statuses: Sequence[os.stat_result]) -> dict[str, Any]:
    """An identity of files, which differs if one was written to or replaced."""
    entries = [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in statuses]
    return {
        "name": name,
        "size": sum(size for size, *_ in entries),
        "mtime_ns": max(mtime for _, mtime, *_ in entries),
        "files": len(entries),
        "crc": zlib.crc32(json.dumps(entries).encode()),
    }


def open_table(path: str, member: str, table_format: TableFormat, labels: bool) -> Any:
    require_package(table_format.module, "parquet", path)
    return _open_files(path, [TableFile(path, table_format)], member, labels)


def open_folder(folder: str, member: str, labels: bool) -> Any:
    """The source of a column of all files of a folder, in the order of their names."""
    paths = _data_files(folder)
    for module in ("pyarrow.dataset", *(table_format.module for _, table_format in paths)):
        require_package(module, "parquet", folder)
    files = [TableFile(path, table_format) for path, table_format in paths]
    kinds = sorted({file.format.name for file in files})
    if len(kinds) > 1:
        raise ValueError(f"{folder} holds files of several formats ({', '.join(kinds)})")
    with read_errors(folder):
        for file, values in zip(files, _partitions(folder, files), strict=True):
            file.partition = values
    return _open_files(folder, files, member, labels)


def _open_files(path: str, files: list[TableFile], member: str, labels: bool) -> Any:
    table = Table(path, files, member, labels)
    return TableLabels(table) if labels else TableSource(table)


def _data_files(folder: str) -> list[tuple[str, TableFormat]]:
    """The files with rows below a folder, and their formats.

    Subfolders must be partitions (``name=value``): files of several tables are no table.
    """
    found: list[tuple[str, TableFormat]] = []
    arrays = []
    for current, subfolders, names in os.walk(folder):
        for name, kind in _MANAGED.items():
            if name in subfolders:
                raise ValueError(
                    f"{current} is a {kind}, whose folder also holds rows that were deleted: read "
                    "it by its own library, and pass batches"
                )
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "_"))]
        others = sorted(name for name in subfolders if "=" not in name)
        if others:
            raise ValueError(
                f"{current} holds the folders {', '.join(others)}: name one of them, or pass a "
                "list of files"
            )
        for name in names:
            path = os.path.join(current, name)
            if name.startswith((".", "_")) or name in _NOT_ROWS:
                continue
            with open(path, "rb") as stream:
                table_format = format_of(path, stream.read(8))
            if table_format is not None:
                found.append((path, table_format))
            elif name.endswith((".npy", ".npz")):
                arrays.append(name)
            elif not os.path.getsize(path):
                raise ValueError(f"{path} is empty")
    if not found:
        remedy = f": {os.path.join(folder, '*.npy')} names its arrays" if arrays else ""
        raise ValueError(
            f"{folder} holds no Parquet, Arrow, CSV or JSON Lines files, and no Zarr array{remedy}"
        )
    return sorted(found, key=lambda entry: natural_order(os.path.relpath(entry[0], folder)))


def _partitions(folder: str, files: Sequence[TableFile]) -> list[dict[str, Any]]:
    """For each file, the values of ``name=value`` in its path, as scalars by name."""
    import pyarrow as pa
    from pyarrow import dataset

    relative = [os.path.relpath(file.path, folder).replace(os.sep, "/") for file in files]
    keys = [[part.partition("=")[0] for part in path.split("/")[:-1]] for path in relative]
    if any(names != keys[0] for names in keys):
        raise ValueError("its files are in folders of different partitions")
    partitioning = dataset.HivePartitioning(pa.schema([(name, pa.string()) for name in keys[0]]))
    values = [dataset.get_partition_keys(partitioning.parse(path)) for path in relative]
    for name in keys[0]:
        texts = [entry.get(name) for entry in values]
        are_integers = all(
            text is None or re.fullmatch(r"0|-?[1-9]\d{0,17}", text) for text in texts
        )
        kind = pa.int64() if are_integers and any(texts) else pa.string()
        for entry, text in zip(values, texts, strict=True):
            entry[name] = pa.scalar(int(text) if text and are_integers else text, kind)
    return values
