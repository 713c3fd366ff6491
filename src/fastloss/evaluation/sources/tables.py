"""Columns of tables in files, by pyarrow: Parquet, Arrow, CSV and JSON Lines.

A table is one file, or a folder of files as Spark, Dask, pandas and Hugging Face write them. Every
format is a `TableFormat`, which reads the batches of one file.
"""

import bisect
import contextlib
import fnmatch
import json
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from fastloss._labels import strings_of
from fastloss.evaluation.sources.arrow import LabelLayout, RowLayout, plain_type
from fastloss.evaluation.sources.chunked import ChunkedSource
from fastloss.evaluation.sources.paths import natural_order
from fastloss.evaluation.sources.source import (
    READ_BYTES,
    read_errors,
    require_package,
    resolve_member,
)

_COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")  # of CSV and JSON Lines
_NOT_ROWS = ("dataset_info.json", "state.json", "dataset_dict.json")  # of Hugging Face
_MANAGED = {"_delta_log": "Delta table", ".hoodie": "Hudi table"}


# ---- formats -------------------------------------------------------------------------------------


class TableFormat:
    """The files of one format.

    column_types(path)
        The type of each column by name, in order; of CSV and JSON as the first rows suggest.
    count(path, types)
        The rows at which reading may start, each with the number of rows up to the next; `types`
        are those of the columns that are read.
    batches(path, types, index, size)
        The columns of batches from start `index` on, of at most `size` rows where the format can
        cut them.
    """

    name = ""
    module = "pyarrow.dataset"  # that reads it
    is_text = False

    def column_types(self, path: str) -> list[tuple[str, Any]]:
        raise NotImplementedError

    def count(self, path: str, types: dict[str, Any]) -> list[int]:
        return [sum(len(columns[0]) for columns in self.batches(path, types, 0, 1 << 16))]

    def batches(
        self, path: str, types: dict[str, Any], index: int, size: int
    ) -> Generator[Any, None, None]:
        raise NotImplementedError


class Parquet(TableFormat):
    name: str = "Parquet"
    module: str = "pyarrow.parquet"

    @staticmethod
    def _open(path):
        from pyarrow import parquet

        options = {"pre_buffer": False, "page_checksum_verification": True}
        file = parquet.ParquetFile(path, buffer_size=READ_BYTES, **options)
        return contextlib.closing(_Closer(file, partial(file.close, force=True)))

    def column_types(self, path: str) -> list[tuple[str, Any]]:
        with self._open(path) as opened:
            return _fields(opened.file.schema_arrow)

    def count(self, path: str, types: dict[str, Any]) -> list[int]:
        with self._open(path) as opened:
            metadata = opened.file.metadata
            return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def batches(
        self, path: str, types: dict[str, Any], index: int, size: int
    ) -> Generator[Any, None, None]:
        with self._open(path) as opened:
            file = opened.file
            for group in range(index, file.num_row_groups):  # else pyarrow would start the next
                with _null_lists(path, group):
                    for batch in file.iter_batches(size, [group], list(types), use_threads=False):
                        yield [batch.column(name) for name in types]


@contextlib.contextmanager
def _null_lists(path: str, group: int) -> Iterator[None]:
    """Explains an error of releases of pyarrow that cannot read null among lists of fixed size."""
    try:
        yield
    except ValueError as error:
        if "Expected all lists to be of size" not in str(error):
            raise
        raise ValueError(
            f"{path}: a list in row group {group} is null, which this release of pyarrow cannot "
            f"read in a column of lists of fixed size ({error})"
        ) from error


class ArrowFile(TableFormat):
    name: str = "Arrow"
    module: str = "pyarrow.ipc"

    @staticmethod
    @contextlib.contextmanager
    def _open(path, types=None):
        from pyarrow import ipc

        with open(path, "rb") as stream:
            schema = ipc.open_file(stream).schema
            fields = None if types is None else [schema.get_field_index(name) for name in types]
            options = ipc.IpcReadOptions(included_fields=fields, use_threads=False)
            yield ipc.open_file(stream, options=options)

    def column_types(self, path: str) -> list[tuple[str, Any]]:
        with self._open(path) as file:
            return _fields(file.schema)

    def count(self, path: str, types: dict[str, Any]) -> list[int]:
        with self._open(path, types) as file:
            if hasattr(file, "count_rows"):  # since version 26
                return [file.count_rows()]
            return [sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))]

    def batches(
        self, path: str, types: dict[str, Any], index: int, size: int
    ) -> Generator[Any, None, None]:
        with self._open(path, types) as file:
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                yield [batch.column(name) for name in types]


class ArrowStream(TableFormat):
    name: str = "Arrow stream"
    module: str = "pyarrow.ipc"

    @staticmethod
    @contextlib.contextmanager
    def _open(path):
        from pyarrow import ipc

        with open(path, "rb") as stream, ipc.open_stream(stream) as reader:
            yield reader

    def column_types(self, path: str) -> list[tuple[str, Any]]:
        with self._open(path) as reader:
            return _fields(reader.schema)

    def batches(
        self, path: str, types: dict[str, Any], index: int, size: int
    ) -> Generator[Any, None, None]:
        with self._open(path) as reader:
            for batch in reader:
                yield [batch.column(name) for name in types]


class _Text(TableFormat):
    """Lines of text, which pyarrow.dataset parses; types are inferred from the first block."""

    is_text = True

    def _format(self, path, types) -> Any:
        raise NotImplementedError

    def _fragment(self, path, types) -> Any:
        from pyarrow import fs

        name = os.path.abspath(path)
        return self._format(path, types).make_fragment(name, filesystem=fs.LocalFileSystem())

    def column_types(self, path: str) -> list[tuple[str, Any]]:
        if not os.path.getsize(path):
            return []
        return _fields(self._fragment(path, {}).physical_schema)

    def batches(
        self, path: str, types: dict[str, Any], index: int, size: int
    ) -> Generator[Any, None, None]:
        # Not by a scanner of pyarrow.dataset, which would parse all of the file before the first
        # batch on one thread, and ahead of the reader on several.
        if os.path.getsize(path):
            for batch in self._blocks(path, types):
                yield [batch.column(name) for name in types]

    def _blocks(self, path, types) -> Iterator[Any]:
        """The columns in batches, of about READ_BYTES of text."""
        raise NotImplementedError


class Csv(_Text):
    name = "CSV"

    def _options(self, path, types):
        import pyarrow as pa
        from pyarrow import csv

        base = _without_compression(path)
        delimiter = "\t" if base.endswith((".tsv", ".tab")) else ","
        # Among texts, an empty field is missing; among numbers, so is NA. NaN is a number.
        is_text = any(pa.types.is_string(kind) for kind in types.values())
        missing = [""] if is_text else ["", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "None"]
        columns = self._header(path, delimiter)
        return (
            csv.ReadOptions(use_threads=False, block_size=READ_BYTES),
            # In one column, an empty line is a row.
            csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=len(columns) > 1),
            csv.ConvertOptions(
                include_columns=list(types),
                column_types=types,
                null_values=missing,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _format(self, path, types):
        from pyarrow import dataset

        read, parse, convert = self._options(path, types)
        scan = dataset.CsvFragmentScanOptions(convert, read)
        return dataset.CsvFileFormat(parse, default_fragment_scan_options=scan)

    def _blocks(self, path, types):
        import pyarrow as pa
        from pyarrow import csv

        with (
            pa.input_stream(path) as stream,
            csv.open_csv(stream, *self._options(path, types)) as reader,
        ):
            yield from reader

    @staticmethod
    def _header(path, delimiter):
        """The names in the first line."""
        import csv

        import pyarrow as pa

        with pa.input_stream(path) as stream:
            data = stream.read(READ_BYTES)
        (names, *_) = csv.reader(
            data.decode("utf-8-sig", "replace").splitlines(), delimiter=delimiter
        )
        if names and all(_is_float(name) for name in names):
            raise ValueError(
                f"its first line is {', '.join(names[:3])}: it must hold the names of the columns"
            )
        return names


class JsonLines(_Text):
    name = "JSON Lines"

    def column_types(self, path: str) -> list[tuple[str, Any]]:
        try:
            return super().column_types(path)
        except ValueError as error:  # of pyarrow, ArrowInvalid is one
            raise ValueError(f"{error} (JSON Lines has one object on each line)") from error

    def _format(self, path, types):
        import pyarrow as pa
        from pyarrow import dataset, json

        schema = pa.schema(list(types.items())) if types else None
        return dataset.JsonFileFormat(
            dataset.JsonFragmentScanOptions(
                json.ParseOptions(explicit_schema=schema),
                json.ReadOptions(use_threads=False, block_size=READ_BYTES),
            )
        )

    def _blocks(self, path, types):
        import pyarrow as pa
        from pyarrow import json

        schema = pa.schema(list(types.items()))
        parse = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        with pa.input_stream(path) as stream:
            for lines in _whole_lines(stream):
                read = json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
                table = json.read_json(pa.BufferReader(lines), read, parse)
                yield from table.to_batches()


def _whole_lines(stream: Any) -> Iterator[bytes]:
    """Blocks of about READ_BYTES that end with a line."""
    rest = b""
    while data := stream.read(READ_BYTES):
        lines, end, rest = (rest + data).rpartition(b"\n")
        if lines.strip():
            yield lines + end
    if rest.strip():
        yield rest


class _Closer:
    """A file with a function that closes it."""

    def __init__(self, file: Any, close: Callable[[], None]):
        self.file, self.close = file, close


def _fields(schema: Any) -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in schema]


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_BY_MAGIC: dict[bytes, TableFormat] = {
    b"PAR1": Parquet(),
    b"ARROW1": ArrowFile(),
    b"\xff\xff\xff\xff": ArrowStream(),
}
_BY_EXTENSION: dict[str, TableFormat] = {
    **dict.fromkeys((".csv", ".tsv", ".tab"), Csv()),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), JsonLines()),
}


def format_of(path: str, magic: bytes) -> TableFormat | None:
    """The format of a file by its first bytes or, if it is text, by its extension."""
    for first, table_format in _BY_MAGIC.items():
        if magic.startswith(first):
            return table_format
    return _BY_EXTENSION.get(os.path.splitext(_without_compression(path))[1])


def _without_compression(path: str) -> str:
    base = path.lower()
    return os.path.splitext(base)[0] if base.endswith(_COMPRESSIONS) else base


# ---- tables --------------------------------------------------------------------------------------


@dataclass
class TableFile:
    """One file of a table, and the values of its partition columns."""

    path: str
    format: TableFormat
    partition: dict[str, Any] = field(default_factory=dict)  # scalars of pyarrow by name
    columns: set[str] = field(default_factory=set)  # none in a file of text without lines
    starts: list[int] = field(default_factory=lambda: [0])  # rows at which reading may start
    rows: int = 0

    def __post_init__(self) -> None:
        self.status: os.stat_result = os.stat(self.path)

    def check_unchanged(self) -> None:
        status = os.stat(self.path)
        for name in ("st_size", "st_mtime_ns", "st_ino"):
            if getattr(status, name) != getattr(self.status, name):
                raise ValueError(f"{self.path} was changed while it was read")


class Table:
    """The files of a table, and some of its columns, which are read batch by batch."""

    path: str
    files: list[TableFile]
    statuses: list[os.stat_result]
    columns: list[str]
    name: str
    types: dict[str, Any]
    rows: int

    def __init__(self, path: str, files: list[TableFile], member: str, labels: bool):
        self.path, self.files = path, files
        self.statuses = [file.status for file in files]
        types = self._column_types()
        self.columns = _resolve_columns(path, member, list(types))
        self.name = f"{path}:{member or self.columns[0]}"
        self.types = {column: types[column] for column in self.columns}
        for file in files:
            absent = [column for column in self.columns if column not in file.columns]
            if absent and file.columns:
                raise ValueError(f"{file.path} has no column {absent[0]!r}, which others have")
        with read_errors(self.name):
            self._count_rows(labels)
        self.rows = sum(file.rows for file in files)

    def _column_types(self) -> dict[str, Any]:
        types: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for file in self.files:
            with read_errors(file.path):
                columns = file.format.column_types(file.path)
            names = [name for name, _ in columns]
            file.columns = {*names, *file.partition} if names else set()
            for name, kind in columns:
                if names.count(name) > 1:
                    kind = None  # an error if it is read
                types.setdefault(name, kind)
                owners.setdefault(name, file.path)
                if not (file.format.is_text or _equal_types(types[name], kind)):
                    types[name] = _TypesDiffer(owners[name], types[name], file.path, kind)
            for name, value in file.partition.items():
                types.setdefault(name, value.type)
        return types

    def _count_rows(self, labels: bool) -> None:
        for name, kind in self.types.items():
            if kind is None:
                raise ValueError(f"it has several columns {name!r}")
            if isinstance(kind, _TypesDiffer):
                raise TypeError(kind.message(name))
        is_text = any(file.format.is_text for file in self.files)
        ladders = {
            name: _ladder(kind, labels, self.files[0].format) if is_text else [kind]
            for name, kind in self.types.items()
        }
        while True:  # until the values of all files have the types
            self.types = {name: ladder[0] for name, ladder in ladders.items()}
            try:
                for file in self.files:
                    self._count_file(file)
                return
            except ValueError:  # of pyarrow, ArrowInvalid is one
                if not any(len(ladder) > 1 for ladder in ladders.values()):
                    raise
                for ladder in ladders.values():
                    if len(ladder) > 1:
                        del ladder[0]

    def _count_file(self, file: TableFile) -> None:
        stored = self._stored_types(file)
        if not file.columns:
            return
        if not stored:  # only partition columns, whose rows any other column counts
            stored = dict(file.format.column_types(file.path)[:1])
        counts = file.format.count(file.path, stored)
        file.starts = [0, *accumulate(counts)][: max(len(counts), 1)]
        file.rows = sum(counts)

    def _stored_types(self, file: TableFile) -> dict[str, Any]:
        return {n: kind for n, kind in self.types.items() if n not in file.partition}

    def starts(self) -> list[int]:
        first_rows = accumulate((file.rows for file in self.files[:-1]), initial=0)
        return [
            first + start
            for first, file in zip(first_rows, self.files, strict=True)
            for start in file.starts
        ]

    def batches(self, index: int, size: int) -> Generator[list[Any], None, None]:
        """The columns of batches from start `index` on."""
        import pyarrow as pa

        for file in self.files:
            if index >= len(file.starts):
                index -= len(file.starts)
                continue
            stored = self._stored_types(file)
            rows = file.rows - file.starts[index]
            file.check_unchanged()
            if stored:
                batches = file.format.batches(file.path, stored, index, size)
            else:
                batches = ([] for _ in range(1))
            with contextlib.closing(batches):
                for arrays in batches:
                    count = len(arrays[0]) if arrays else rows
                    by_name = dict(zip(stored, arrays, strict=True))
                    for array in arrays:
                        array.validate()
                    yield [
                        by_name[name] if name in by_name else pa.repeat(file.partition[name], count)
                        for name in self.columns
                    ]
                    rows -= count
            if rows:
                raise ValueError(
                    f"{file.path} promises {file.rows} rows and holds {file.rows - rows}"
                )
            index = 0


@dataclass
class _TypesDiffer:
    """A column whose type differs between files."""

    path: str
    kind: Any
    other_path: str
    other_kind: Any

    def message(self, column: str) -> str:
        return (
            f"{column} is {self.kind} in {self.path} and {self.other_kind} in {self.other_path}: "
            "write all files with one schema"
        )


def _equal_types(a: Any, b: Any) -> bool:
    if a is None or b is None or isinstance(a, _TypesDiffer):
        return True
    return plain_type(a).equals(plain_type(b))


def _ladder(kind: Any, labels: bool, table_format: TableFormat) -> list[Any]:
    """The types of a column of text, from the most special one on.

    Numbers in text are not rounded where they are labels: if they are no int64, they are strings.
    """
    import pyarrow as pa

    if labels and isinstance(table_format, Csv):
        return [pa.int64(), pa.string()] if pa.types.is_integer(kind) else [pa.string()]
    if pa.types.is_null(kind):
        return [pa.float64(), pa.string()]
    floating = _with_floats(kind)
    types = [kind] if floating.equals(kind) else [kind, floating]
    return types if labels is False or pa.types.is_string(kind) else [*types, pa.string()]


def _with_floats(kind: Any) -> Any:
    """A type with float64 in place of integers, also in lists."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(_with_floats(kind.value_type))
    return pa.float64() if pa.types.is_integer(kind) or pa.types.is_null(kind) else kind


def _resolve_columns(path: str, member: str, names: Sequence[str]) -> list[str]:
    """The names of one column, or of several by a list with commas or a pattern."""
    if member and member not in names:
        if "," in member:
            return [resolve_member(path, part.strip(), names) for part in member.split(",")]
        matches = [name for name in names if fnmatch.fnmatchcase(name, member)]
        if matches:
            return matches
    return [resolve_member(path, member, names)]


# ---- sources -------------------------------------------------------------------------------------


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
    """The columns of the first row, None if there is none."""
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


# ---- opening -------------------------------------------------------------------------------------


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
