"""Formats of tables in files, by pyarrow: Parquet, Arrow, CSV and JSON Lines.

Every format is a `TableFormat`, which reads the batches of one file.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

from fastloss.evaluation.sources.source import (
    READ_BYTES,
)

_COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")  # of CSV and JSON Lines


class TableFormat:
    """The files of one format.

    column_types(path)
        The type of each column by name, in order; of CSV and JSON as the first rows suggest.
    count(path, types)
        The rows at which reading may start, each with the number of rows up to the next; `types`
        holds the types of the columns that are read.
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
        lines = data.decode("utf-8-sig", "replace").splitlines(keepends=True)
        names = next(csv.reader(lines, delimiter=delimiter), [])
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
