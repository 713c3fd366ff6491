"""`Source`: one array, read by the rows of its leading axis, in order.

    name, shape, dtype   the name is for messages; shape and dtype are those in storage
    rows                 length of the leading axis, 1 for a 0-d array
    row_bytes, nbytes    size of one row, and of the array
    chunk_rows           rows that the storage holds (and decompresses) together, else 1
    buffered             whether read() needs a buffer; arrays in memory return views and need none
    read(start, stop, buffer)
                         rows start to stop as an ndarray, valid as long as the buffer, which has at
                         least (stop - start) * row_bytes bytes. `start` may skip rows and never
                         decreases. Rows 0 to 1 of a 0-d array are the array itself
    read_all()           the whole array; closes the source
    close()              closes what open_source() opened, and nothing else
    backing              the array or dataset that is read, None for files that have no object
    statuses             the os.stat_result of each file that holds the array, as far as known
    fingerprint()        JSON-serializable; differs if the data are known to differ
    missing_chunks       number of absent parts of the storage, which are read as the fill value

A source may be read on another thread than it was opened on, by one thread at a time. Requests need
not be aligned with the chunks of the storage: each chunk is decompressed once, unless the chunks
that hold the same rows exceed 64 MB.

Files are read into buffers and never memory-mapped: mapped pages count as memory of the process,
and reading a mapped file that another process has truncated kills the process. Damaged data raise a
ValueError or an OSError that names the file.
"""

import contextlib
import difflib
import importlib
import os
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from fastloss._errors import is_raw_bfloat16

READ_BYTES = 1 << 20  # per read: the memory that a decompressing reader needs besides the buffers
CHECKSUM_ENTRIES = 1000
MAX_LISTED_NAMES = 20


class Source:
    """One array, read by rows; the docstring of the module defines the members."""

    buffered = True
    chunk_rows: int = 1
    backing: Any = None
    missing_chunks: int = 0
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int
    row_bytes: int
    nbytes: int

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        dtype: np.dtype,
        file: Any = None,
        labels: bool = False,
    ):
        """`file` is a path or an `os.stat_result`, by which changed data are detected.

        `labels` may also be strings and dates.
        """
        if dtype.kind == "O":
            raise TypeError(f"{name} holds Python objects, which are not numbers")
        if (
            not (labels and dtype.kind in "USM")
            and dtype.kind not in "biufc"
            and dtype.name != "bfloat16"
        ):
            raise TypeError(f"{name} holds {dtype}, which are not numbers{_remedy(name, dtype)}")
        if any(n < 0 for n in shape):
            raise ValueError(f"{name} has a negative dimension: {tuple(shape)}")
        self.name, self.shape, self.dtype = name, tuple(map(int, shape)), dtype
        self.rows = self.shape[0] if self.shape else 1
        self.row_bytes = prod(self.shape[1:]) * dtype.itemsize
        self.nbytes = self.rows * self.row_bytes
        self._next_row = 0
        self._status = os.stat(file) if isinstance(file, (str, os.PathLike)) else file
        self.statuses: Sequence[os.stat_result] = () if file is None else (self._status,)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"

    def read(self, start: int, stop: int, buffer: np.ndarray | None = None) -> np.ndarray:
        """Rows start to stop, in the buffer if the source is `buffered`."""
        if start < self._next_row:
            raise ValueError(
                f"{self.name} is read in order: row {start} after row {self._next_row}"
            )
        self._next_row = stop
        return self._read(start, stop, buffer)

    def read_all(self) -> np.ndarray:
        try:
            buffer = self._allocate_buffer() if self.buffered else None
            return self.read(0, self.rows, buffer)
        finally:
            self.close()

    def close(self) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        """An identity that changes with the data, as far as that shows without reading them."""
        identity: dict[str, Any] = {"shape": list(self.shape), "dtype": str(self.dtype)}
        if self._status is not None:
            identity["name"] = self.name
            identity["size"] = self._status.st_size
            identity["mtime_ns"] = self._status.st_mtime_ns
            # Another file may have the size and the time of modification, but not these.
            identity["ctime_ns"] = self._status.st_ctime_ns
            identity["inode"] = self._status.st_ino
        return identity

    def _set_missing(self, count: int, no_fill: str | None, missing_chunks: str) -> None:
        """Sets the number of missing chunks, and warns or raises an error if there are any.

        `no_fill` says why they have no value, `missing_chunks` whether they are an error.
        """
        self.missing_chunks = count
        if not count:
            return
        chunks = f"{count} chunk{'s' * (count > 1)}"
        if no_fill is not None:
            raise ValueError(f"{self.name} lacks {chunks}, {no_fill}")
        if missing_chunks == "error":
            raise ValueError(f"{self.name} lacks {chunks}, and missing_chunks is 'error'")
        warnings.warn(
            f"{self.name} lacks {chunks}, read as the fill value; missing_chunks='error' refuses "
            "such data",
            stacklevel=_caller_level(),
        )

    def _allocate_buffer(self) -> np.ndarray:
        try:
            return np.empty(self.nbytes, np.uint8)
        except (MemoryError, ValueError) as error:  # ValueError: 2**63 bytes or more
            raise MemoryError(f"{self} does not fit into memory: {self.nbytes} bytes") from error

    def _read(self, start: int, stop: int, buffer: Any) -> np.ndarray:
        raise NotImplementedError

    def _shape_of(self, start: int, stop: int) -> tuple[int, ...]:
        """The shape of rows start to stop."""
        return (stop - start, *self.shape[1:]) if self.shape else ()


def _remedy(name: str, dtype: np.dtype) -> str:
    if is_raw_bfloat16(dtype):
        return f": bfloat16 that was stored as raw bytes is {name}.view(ml_dtypes.bfloat16)"
    return ""


def stored_dtype(name: str, dtype: np.dtype) -> np.dtype:
    """The dtype of stored entries: two raw bytes are bfloat16."""
    if is_raw_bfloat16(dtype):
        return np.dtype(require_package("ml_dtypes", "bfloat16", name).bfloat16)
    return dtype


def _caller_level() -> int:
    """The `stacklevel` that attributes a warning to the code that called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("fastloss"):
        level, frame = level + 1, frame.f_back
    return level


def checksum(array: np.ndarray) -> int:
    """A checksum of up to 1000 evenly spaced entries, the first and the last included."""
    last, count = max(array.size - 1, 0), min(array.size, CHECKSUM_ENTRIES)
    indices = np.linspace(0, last, count).astype(np.int64)
    return zlib.crc32(repr(array.flat[indices].tolist()).encode())


# ---- errors --------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turns whatever a library raises for unreadable data into an error that names the array."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{name} cannot be read: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise with_filename(error, name) from error
        raise ValueError(f"{name} cannot be read: {error}") from error
    except Exception as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


def with_filename(error: OSError, name: str) -> OSError:
    """The same error with the name of its file."""
    return type(error)(error.errno, error.strerror, name)


def require_package(module: str, extra: str, name: str) -> Any:
    """Imports a module that reads `name`, or raises an error that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"reading {name} needs {package}: pip install 'fastloss[{extra}]'"
        ) from error


def resolve_member(file: str, member: str, names: Sequence[str]) -> str:
    """The name of an array in a file; if `member` is empty, the name of its only array."""
    if member in names:
        return member
    if not member and len(names) == 1:
        return names[0]
    close = difflib.get_close_matches(member, names, n=MAX_LISTED_NAMES, cutoff=0.5)
    listed = [*close, *(name for name in names if name not in close)][:MAX_LISTED_NAMES]
    text = ", ".join(listed)
    if len(names) > MAX_LISTED_NAMES:
        text += f" and {len(names) - MAX_LISTED_NAMES} more"
    if member:
        raise ValueError(f"{file} has no array {member!r}, it has {text or 'none'}")
    raise ValueError(f"{file} holds {len(names)} arrays: name one as {file}:NAME ({text})")
