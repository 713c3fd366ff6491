"""Tables: the chosen columns of one file, or of all files of a folder as Spark, Dask, pandas and
Hugging Face write them, with one type for each column."""

import contextlib
import fnmatch
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from fastloss.evaluation.sources.arrow import plain_type
from fastloss.evaluation.sources.source import (
    read_errors,
    resolve_member,
)
from fastloss.evaluation.sources.table_formats import Csv, TableFormat


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
