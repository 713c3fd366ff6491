"""The leading rows of one array, in order, from wherever it is.

`open_source(data, name)` gives a `Source` for a path, an array, or a dataset that is open already:

    name, shape, dtype   as in messages; of the array as it is stored
    rows                 entries of the leading axis, 1 for an array of no dimension
    row_bytes, nbytes    of one row, of all
    chunk_rows           rows that the storage keeps (and decompresses) together, else 1
    buffered             whether read() wants a buffer; arrays in memory give views and want none
    read(start, stop, buffer)
                         rows start to stop as an ndarray, valid as long as the buffer: bytes, at
                         least (stop - start) * row_bytes of them. `start` never goes back, and
                         may skip rows. Of an array of no dimension, rows 0 to 1 are the array
    read_all()           the whole array; then the source is closed
    close()              closes what open_source has opened, and nothing else
    fingerprint()        what can be written as JSON and tells that the data are the same

A source may be read on another thread than it was opened on, by one thread at a time. Requests
need not meet the chunks of the storage: each is decompressed once, unless a row of chunks takes
more than 64 MB.

Files are read into buffers and never mapped: mapped pages count as memory of the process, and a
mapped file that another process cuts short kills it. Damaged data are a ValueError or an OSError
that names the file.
"""

import bisect
import contextlib
import difflib
import importlib
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from fastloss._arrays import as_array

__all__ = ["Source", "named", "open_source"]

READ_BYTES = 1 << 20  # of one read: what a decompressing reader holds besides the buffers
KEPT_BYTES = 64 << 20  # of decompressed rows that wait for the next request
CHECKED = 1000  # entries that tell arrays in memory apart
LISTED = 20  # names in a message
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)


class Source:
    """One array, read by rows: see the module."""

    buffered = True
    chunk_rows = 1

    def __init__(self, name: str, shape: Sequence[int], dtype: np.dtype, file: Any = None):
        """`file` is a path, or the status of a file, by which changed data can be told."""
        if dtype.kind == "O":
            raise TypeError(f"{name} holds Python objects, which are not numbers")
        if dtype.kind not in "biufc" and dtype.name != "bfloat16":
            raise TypeError(f"{name} holds {dtype}, which are not numbers")
        if any(n < 0 for n in shape):
            raise ValueError(f"{name} has a negative dimension: {tuple(shape)}")
        self.name, self.shape, self.dtype = name, tuple(map(int, shape)), dtype
        self.rows = self.shape[0] if self.shape else 1
        self.row_bytes = prod(self.shape[1:]) * dtype.itemsize
        self.nbytes = self.rows * self.row_bytes
        self._next = 0
        self._status = os.stat(file) if isinstance(file, (str, os.PathLike)) else file

    def __str__(self):
        return f"{self.name} {self.dtype}{list(self.shape)}"

    def read(self, start: int, stop: int, buffer: np.ndarray | None = None) -> np.ndarray:
        """Rows start to stop, in the buffer if the source is `buffered`."""
        if start < self._next:
            raise ValueError(f"{self.name} is read in order: row {start} after row {self._next}")
        self._next = stop
        return self._read(start, stop, buffer)

    def read_all(self) -> np.ndarray:
        try:
            buffer = self._buffer() if self.buffered else None
            return self.read(0, self.rows, buffer)
        finally:
            self.close()

    def close(self) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        """What differs if the data do, as far as that can be told without reading them."""
        identity: dict[str, Any] = {"shape": list(self.shape), "dtype": str(self.dtype)}
        if self._status is not None:
            identity["name"] = self.name
            identity["size"] = self._status.st_size
            identity["mtime_ns"] = self._status.st_mtime_ns
        return identity

    def _buffer(self) -> np.ndarray:
        try:
            return np.empty(self.nbytes, np.uint8)
        except (MemoryError, ValueError) as error:  # the latter beyond 2**63
            raise MemoryError(f"{self} does not fit into memory: {self.nbytes} bytes") from error

    def _read(self, start: int, stop: int, buffer: Any) -> np.ndarray:
        raise NotImplementedError

    def _shape(self, start: int, stop: int) -> tuple[int, ...]:
        return (stop - start, *self.shape[1:]) if self.shape else ()


@contextlib.contextmanager
def _reading(name: str):
    """Whatever a library raises for data that it cannot read, with the name of the array."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{name} cannot be read: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise named(error, name) from error
        raise ValueError(f"{name} cannot be read: {error}") from error
    except Exception as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


def checksum(array: np.ndarray) -> int:
    """Of some entries of an array in memory, first and last among them."""
    places = np.linspace(0, max(array.size - 1, 0), min(array.size, CHECKED)).astype(np.int64)
    return zlib.crc32(repr(array.flat[places].tolist()).encode())


def named(error: OSError, name: str) -> OSError:
    """The same error with the name of its file."""
    return type(error)(error.errno, error.strerror, name)


def _require(module: str, extra: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{name} is read by {package}, which is not installed: pip install 'fastloss[{extra}]'"
        ) from error


# ----------------------------------------------------------------------------------- in memory


class _ArraySource(Source):
    """An array in memory, of which it gives views."""

    buffered = False

    def __init__(self, name: str, array: np.ndarray):
        super().__init__(name, array.shape, array.dtype)
        self._array = array

    def _read(self, start, stop, buffer):
        return self._array[start:stop] if self.shape else self._array

    def fingerprint(self):
        return super().fingerprint() | {"crc": checksum(self._array)}


class _ArrowSource(Source):
    """An Array or ChunkedArray of pyarrow, of which it gives views where Arrow can."""

    buffered = False

    def __init__(self, name: str, data: Any):
        self._data = data
        first = next((chunk[:1] for chunk in _arrow_chunks(data) if len(chunk)), None)
        self._rows = _ArrowRows.of(name, data.type, first)
        super().__init__(name, (len(data), *self._rows.shape), self._rows.dtype)

    def _read(self, start, stop, buffer):
        pieces = []
        for chunk in _arrow_chunks(self._data.slice(start, stop - start)):
            pieces.append(self._rows.convert(chunk, start))
            start += len(chunk)
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *pieces])


def _arrow_chunks(data) -> list[Any]:
    return data.chunks if hasattr(data, "chunks") else [data]


@dataclass(frozen=True)
class _ArrowRows:
    """How an Arrow array holds rows: as lists of `widths` entries in one another."""

    name: str
    widths: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, name: str, kind: Any, first: Any) -> "_ArrowRows":
        """`first` is an array of the first row, which tells how long lists are, or None."""
        import pyarrow as pa

        shape, given = None, kind
        if isinstance(kind, pa.FixedShapeTensorType):
            shape = tuple(kind.shape)
            if kind.permutation not in (None, list(range(len(shape)))):
                raise TypeError(f"{name} holds {kind}, whose axes are permuted")
        if isinstance(kind, pa.BaseExtensionType):
            kind, first = kind.storage_type, first and first.storage
        widths = []
        while _is_list(kind):
            first = None if first is None else _flatten(name, first)
            fixed = pa.types.is_fixed_size_list(kind)
            widths.append(kind.list_size if fixed else len(first or ()))
            kind, first = kind.value_type, first and first[:1]
        types = pa.types
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise TypeError(f"{name} holds {given}, which are not numbers")
        return cls(name, tuple(widths), shape or tuple(widths), np.dtype(kind.to_pandas_dtype()))

    def convert(self, array: Any, row: int) -> np.ndarray:
        """The array for NumPy; its first row has the number `row` in messages."""
        inner, entries = getattr(array, "storage", array), 1
        for width in self.widths:
            self._check_nulls(array, row, inner, entries)
            lengths = np.asarray(inner.value_lengths())
            wrong = lengths != width
            if wrong.any():
                place = int(np.argmax(wrong))
                what = f"is a list of length {lengths[place]} where others have {width}"
                raise self._first(array, row, place // entries, what)
            inner, entries = _flatten(self.name, inner), entries * width
        self._check_nulls(array, row, inner, entries)
        return inner.to_numpy(zero_copy_only=False).reshape(len(array), *self.shape)

    def _check_nulls(self, array, row, inner, entries):
        if inner.null_count:
            at = inner.is_null().index(True).as_py() // entries
            raise self._first(array, row, at, "is null or holds one; fill or drop such rows")

    def _first(self, array, row: int, at: int, what: str) -> ValueError:
        """What is wrong at a row, unless an earlier one is wrong deeper inside."""
        self.convert(array[:at], row)
        return ValueError(f"{self.name}: row {row + at} {what}")


def _flatten(name: str, lists: Any) -> Any:
    """The entries of lists, behind a look at where the first begins and the last ends."""
    with _reading(name):
        lists.validate()
        return lists.flatten()


def _is_list(kind) -> bool:
    import pyarrow as pa

    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


# --------------------------------------------------------------------------------- .npy, .npz


class _NpySource(Source):
    """The array of a .npy stream that stands behind its header."""

    def __init__(self, name, stream, shape, fortran_order, dtype, size, file):
        """`size` is what the stream holds from here on, None if that cannot be known."""
        super().__init__(name, shape, dtype, file)
        # Going back in a member of a .npz would decompress it from the start again.
        seekable = size is not None and not isinstance(stream, zipfile.ZipExtFile)
        self._stream, self._seekable, self._place = stream, seekable, 0
        self._columns = fortran_order and len(shape) > 1
        if size is not None and size < self.nbytes:
            raise self._too_short(size)
        if self._columns and not seekable:
            raise ValueError(
                f"{name} is in Fortran order, which cannot be read by rows from a pipe or a .npz: "
                "save it to a .npy, or as np.ascontiguousarray(array)"
            )
        self._begin = stream.tell() if seekable else 0

    def close(self):
        self._stream.close()

    def _read(self, start, stop, buffer):
        view = buffer.data[: (stop - start) * self.row_bytes]
        try:
            if self._columns:
                length = (stop - start) * self.dtype.itemsize
                for column in range(prod(self.shape[1:])):
                    place = (column * self.rows + start) * self.dtype.itemsize
                    self._fill(view[column * length : (column + 1) * length], place)
            else:
                self._fill(view, start * self.row_bytes)
        except _DAMAGED as error:
            raise ValueError(f"{self.name} is damaged: {error}") from error
        except OSError as error:
            raise named(error, self.name) from error
        order = "F" if self._columns else "C"
        array = np.ndarray(self._shape(start, stop), self.dtype, buffer, order=order)
        if not self.dtype.isnative:
            array = array.byteswap(inplace=True).view(self.dtype.newbyteorder())
        return array

    def _fill(self, view: memoryview, place: int) -> None:
        """Reads the bytes of the array from a place on."""
        if place != self._place and self._seekable:
            self._stream.seek(self._begin + place)
            self._place = place
        while self._place < place:
            self._advance(len(self._stream.read(min(place - self._place, READ_BYTES))))
        done = 0
        while done < len(view):
            count = self._stream.readinto(view[done : done + READ_BYTES])
            self._advance(count)
            done += count

    def _advance(self, count: int) -> None:
        if not count:
            raise self._too_short(self._place)
        self._place += count

    def _too_short(self, size: int) -> ValueError:
        return ValueError(
            f"{self.name} is cut short: its header promises {self.nbytes} bytes of data "
            f"(shape {self.shape}, {self.dtype}), it holds {size}"
        )


def _open_npz(file: str, member: str) -> Source:
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # whatever wrong bytes lead zipfile to
        raise ValueError(f"{file} is not a readable .npz file: {error}") from error
    with archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        member = _member(file, member.removesuffix(".npy"), list(infos))
        try:
            data = archive.open(infos[member])  # lives on, and holds the file open
        except Exception as error:
            raise ValueError(f"{file}:{member} is damaged: {error}") from error
    name = f"{file}:{member}"
    try:
        return _open_npy(name, data, _read_start(data, name), infos[member].file_size, file)
    except BaseException as error:
        data.close()
        if isinstance(error, _DAMAGED):
            raise ValueError(f"{name} is damaged: {error}") from error
        raise


def _read_start(stream, name: str) -> bytes:
    """The magic string and version of a .npy stream, or as much as there is."""
    start = b""
    while len(start) < npy_format.MAGIC_LEN:
        try:
            more = stream.read(npy_format.MAGIC_LEN - len(start))
        except OSError as error:
            raise named(error, name) from error
        if not more:
            break
        start += more
    return start


def _open_npy(name, stream, start: bytes, file_size: int | None, file: Any) -> Source:
    magic, version = start[:-2], tuple(start[-2:])
    if magic != npy_format.MAGIC_PREFIX:
        raise ValueError(
            f"{name} is not a .npy or .npz file (numpy.save writes one), nor one of HDF5, Zarr, "
            "Parquet or Arrow"
        )
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"{name} has .npy version {version[0]}.{version[1]}, which is unknown")
    if version == (1, 0):
        read_header = npy_format.read_array_header_1_0
    else:  # 3.0 differs from 2.0 in the names of fields only
        read_header = npy_format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read_header(stream)
    except (OSError, *_DAMAGED):
        raise
    except Exception as error:  # whatever a wrong header leads NumPy's parser to
        raise ValueError(f"{name} has no readable header: {error}") from error
    size = None if file_size is None else file_size - stream.tell()
    return _NpySource(name, stream, shape, fortran_order, dtype, size, file)


# ------------------------------------------------------------------- datasets, kept in chunks


class _ChunkedSource(Source):
    """What is decompressed piece by piece; the rest of a piece is kept for the next request."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._native = self.dtype if self.dtype.isnative else self.dtype.newbyteorder("=")
        self._piece = (0, ())  # its first row, and the rows

    def _read(self, start, stop, buffer):
        out = np.ndarray(self._shape(start, stop), self._native, buffer)
        if not self.shape:
            self._fill(start, out)
            return out
        row = start
        while row < stop:
            whole = self._whole_chunks(row, stop)
            first, piece = self._piece
            if first <= row < first + len(piece):
                count = min(first + len(piece), stop) - row
                out[row - start :][:count] = piece[row - first :][:count]
            elif whole:
                count = whole
                self._fill(row, out[row - start :][:count])
            else:
                self._piece = (0, ())  # gone before the next one comes
                self._piece = self._load(row)
                count = 0
            row += count
        return out

    def _whole_chunks(self, row: int, stop: int) -> int:
        """How many of the next rows need no piece to be kept."""
        return 0

    def _fill(self, row: int, out: np.ndarray) -> None:
        """Reads rows from `row` on into an array."""
        raise NotImplementedError

    def _load(self, row: int) -> tuple[int, np.ndarray]:
        """A piece that has the row, and the piece's first row."""
        raise NotImplementedError


class _SlicedSource(_ChunkedSource):
    """Anything with shape, dtype and slices; a chunk holds whole rows or parts of some."""

    def __init__(self, name: str, data: Any, file: Any = None):
        super().__init__(name, data.shape, np.dtype(data.dtype), file)
        self._data = data
        chunks = getattr(data, "chunks", None)
        if self.shape and chunks and isinstance(chunks[0], int):
            self.chunk_rows = max(min(chunks[0], self.rows), 1)

    def _whole_chunks(self, row, stop):
        chunk = self.chunk_rows
        if chunk * self.row_bytes > KEPT_BYTES or (stop == self.rows and row % chunk == 0):
            return stop - row
        return 0 if row % chunk else (stop - row) // chunk * chunk

    def _load(self, row):
        first = row - row % self.chunk_rows
        piece = np.empty(self._shape(first, min(first + self.chunk_rows, self.rows)), self._native)
        self._fill(first, piece)
        return first, piece

    def _fill(self, row, out):
        with _reading(self.name):
            rows = as_array(self._slice(row, len(out)) if self.shape else self._data[()], "it")
            if rows.shape != out.shape:
                raise self._changed(f"{rows.shape} in place of {out.shape} from row {row} on")
            np.copyto(out, rows, casting="equiv")

    def _slice(self, row, count):
        return self._data[row : row + count]

    def _changed(self, how: str) -> ValueError:
        return ValueError(f"it has changed while it was read: {how}")


class _Hdf5Source(_SlicedSource):
    """A dataset of h5py; closes its file if that is given."""

    def __init__(self, name: str, dataset: Any, file: Any = None):
        import h5py

        self._file, self._descriptor, status = file, None, None
        with _reading(name):
            dtype, shape, low_level = dataset.dtype, dataset.shape, dataset.file.id
            if low_level.get_access_plist().get_driver() == h5py.h5fd.SEC2:
                self._descriptor = low_level.get_vfd_handle()
                status = os.fstat(self._descriptor)
        if h5py.check_string_dtype(dtype):
            raise TypeError(f"{name} holds strings, which are not numbers")
        if shape is None:
            raise ValueError(f"{name} has no array: its dataspace is empty")
        super().__init__(name, dataset, status)

    def _fill(self, row, out):
        with _reading(self.name):
            if self._data.shape != self.shape:
                raise self._changed(f"shape {self._data.shape} in place of {self.shape}")
            if out.size:
                selection = np.s_[row : row + len(out)] if self.shape else ()
                self._data.read_direct(out, selection)
            if self._descriptor is not None:  # HDF5 reads zeros behind the end of the file
                size = os.fstat(self._descriptor).st_size
                if size < self._status.st_size:
                    raise self._changed(f"{size} bytes in place of {self._status.st_size}")

    def close(self):
        if self._file is not None:
            self._file.close()


def _open_hdf5(file: str, member: str) -> Source:
    h5py = _require("h5py", "hdf5", file)
    with contextlib.ExitStack() as stack:
        with _reading(file):
            opened = stack.enter_context(h5py.File(file, "r"))
            found = isinstance(opened.get(member) if member else None, h5py.Dataset)
            names: list[str] = []
            if not found:
                opened.visititems(
                    lambda name, item: names.append(f"{name}") if _has_rows(item) else None
                )
        if not found:
            member = _member(file, member, names)
        name = f"{file}:{member}"
        with _reading(name):
            dataset = opened[member]
        source = _Hdf5Source(name, dataset, opened)
        stack.pop_all()
    return source


def _has_rows(item) -> bool:
    return hasattr(item, "read_direct")


class _ZarrSource(_SlicedSource):
    """An array of zarr; where it lies in a folder, its metadata are looked at again."""

    def __init__(self, name: str, array: Any):
        super().__init__(name, array)
        root = getattr(array.store, "root", None) or getattr(array.store, "path", None)
        folder = os.path.join(str(root), array.path)
        self._folder = folder if _zarr_metadata(folder) else None

    def _slice(self, row, count):
        rows = super()._slice(row, count)
        if self._folder is not None:  # chunks that were removed would read as the fill value
            shape = tuple(_zarr_metadata(self._folder)["shape"])
            if shape != self.shape:
                raise self._changed(f"shape {shape} in place of {self.shape}")
        return rows

    def fingerprint(self):
        identity = super().fingerprint()
        if self._folder is not None:
            files = [
                os.stat(os.path.join(folder, file))
                for folder, _, files in os.walk(self._folder)
                for file in files
            ]
            identity["name"] = self.name
            identity["size"] = sum(status.st_size for status in files)
            identity["mtime_ns"] = max(status.st_mtime_ns for status in files)
        return identity


def _open_zarr(folder: str, member: str) -> Source:
    zarr, member = _require("zarr", "zarr", folder), member.strip("/")
    with _reading(folder):
        names = list(_zarr_arrays(folder))
    if member or names != ["."]:
        member = _member(folder, member, names)
    name = f"{folder}:{member}" if member else folder
    with _reading(name):
        array = zarr.open_array(os.path.join(folder, member), mode="r")
    return _ZarrSource(name, array)


def _zarr_arrays(folder: str) -> Iterator[str]:
    """The arrays below a folder, as paths from there."""
    for place, folders, _ in os.walk(folder):
        if "shape" in _zarr_metadata(place):
            folders.clear()
            yield os.path.relpath(place, folder)


def _zarr_metadata(folder: str) -> dict[str, Any]:
    """What version 3 or 2 of the format writes about a group or an array, {} where neither is."""
    for name in ("zarr.json", ".zarray", ".zgroup"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with _reading(path), open(path, "rb") as file:
                return json.load(file)
    return {}


# -------------------------------------------------------------------------- columns, in batches


class _BatchSource(_ChunkedSource):
    """A column of a file that pyarrow reads batch by batch, from the start of some on."""

    def __init__(self, name, kind, rows, batches, *, begins=(0,), file, close):
        """`batches(i, size)` gives arrays of at most `size` rows from row `begins[i]` on."""
        self._close = close
        self._batches = batches
        self._begins = begins
        with _reading(name):
            first = next((array[:1] for array in self._arrays(0, 1) if len(array)), None)
        self._rows = _ArrowRows.of(name, kind, first)
        super().__init__(name, (rows, *self._rows.shape), self._rows.dtype, file)
        self._size = max(READ_BYTES // max(self.row_bytes, 1), 1)
        self._at = 0
        self._stream = None

    def _load(self, row):
        begin = bisect.bisect_right(self._begins, row) - 1
        if self._stream is None or self._begins[begin] > self._at:
            self._at, self._stream = self._begins[begin], self._arrays(begin, self._size)
        while True:
            with _reading(self.name):
                array = next(self._stream, None)
                if array is None:
                    raise ValueError(f"it promises {self.rows} rows and holds {self._at}")
            first, self._at = self._at, self._at + len(array)
            if row < self._at:
                return first, self._rows.convert(array, first)

    def _arrays(self, begin, size):
        for array in self._batches(begin, size):
            array.validate()
            yield array

    def close(self):
        self._stream = None
        self._close()


def _open_parquet(file: str, member: str) -> Source:
    parquet = _require("pyarrow.parquet", "parquet", file)
    with contextlib.ExitStack() as stack:
        with _reading(file):
            opened = parquet.ParquetFile(
                file, buffer_size=READ_BYTES, pre_buffer=False, page_checksum_verification=True
            )
            stack.callback(opened.close, force=True)
            groups = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
        column = _column(file, member, opened.schema_arrow)

        def batches(begin, size):
            for group in range(begin, len(groups)):  # each alone, or the next would be begun early
                for batch in opened.iter_batches(size, [group], [column.name], use_threads=False):
                    yield batch.column(0)

        source = _BatchSource(
            f"{file}:{column.name}",
            column.type,
            sum(groups),
            batches,
            begins=[0, *accumulate(groups)][: max(len(groups), 1)],
            file=file,
            close=stack.pop_all().close,
        )
    return source


def _open_arrow(file: str, member: str) -> Source:
    ipc = _require("pyarrow.ipc", "parquet", file)
    with contextlib.ExitStack() as stack:
        with _reading(file):
            stream = stack.enter_context(open(file, "rb"))
            schema = ipc.open_file(stream).schema
        column = _column(file, member, schema)
        with _reading(file):
            only = ipc.IpcReadOptions(
                included_fields=[schema.get_field_index(column.name)], use_threads=False
            )
            opened = ipc.open_file(stream, options=only)
            rows = _count_rows(opened)

        def batches(_, size):
            for index in range(opened.num_record_batches):
                yield opened.get_batch(index).column(0)

        source = _BatchSource(
            f"{file}:{column.name}",
            column.type,
            rows,
            batches,
            file=file,
            close=stack.pop_all().close,
        )
    return source


def _count_rows(opened: Any) -> int:
    """Before pyarrow 26 nothing tells without reading."""
    if hasattr(opened, "count_rows"):
        return opened.count_rows()
    return sum(opened.get_batch(index).num_rows for index in range(opened.num_record_batches))


def _column(file: str, member: str, schema: Any) -> Any:
    with _reading(file):
        names = schema.names
    name = _member(file, member, names)
    if names.count(name) > 1:
        raise ValueError(f"{file} has {names.count(name)} columns {name!r}")
    return schema.field(name)


# --------------------------------------------------------------------------------- what is given


_MEMBER = re.compile(
    r"(.*?\.(?:npz|h5|hdf5|he5|hdf|zarr|parquet|pq|arrow|feather|ipc)):(.*)", re.DOTALL | re.I
)
_FORMATS: dict[bytes, Callable[[str, str], Source]] = {  # by the first bytes of a file
    b"PK": _open_npz,
    b"\x89HDF\r\n\x1a\n": _open_hdf5,
    b"PAR1": _open_parquet,
    b"ARROW1": _open_arrow,
}


def open_source(data: Any, name: str = "array") -> Source:
    """The source of an array, which may be a path, a dataset of a file, or in memory.

    Parameters
    ----------
    data
        A path, with the name of the array behind a colon where a file holds several:
        ``x.npy``, ``x.npz:member``, ``x.h5:group/dataset``, ``x.zarr:array``,
        ``x.parquet:column``, ``x.arrow:column``. Or an ndarray or memmap, a dataset of h5py, an
        array of zarr, an Array or ChunkedArray of pyarrow, anything that NumPy reads as an array
        (whole), or anything with a shape, a dtype and slices.
    name
        What an array that is no path is called in messages.

    Raises
    ------
    ValueError, TypeError
        For what is no array of numbers, and for damaged files, naming the remedy.
    ImportError
        If the package that reads the format is not installed, naming the extra.
    OSError
        For a file that cannot be opened or read.
    """
    if isinstance(data, (str, os.PathLike)):
        return _open_path(os.fspath(data))
    if isinstance(data, np.memmap):  # copied on the thread that reads
        return _SlicedSource(name, data.view(np.ndarray), getattr(data, "filename", None))
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(data).__mro__}
    if ("h5py", "Dataset") in kinds:
        return _Hdf5Source(name, data)
    if ("zarr", "Array") in kinds:
        return _ZarrSource(name, data)
    if kinds & {("pyarrow", "Array"), ("pyarrow", "ChunkedArray")}:
        return _ArrowSource(name, data)
    if ("pyarrow", "_Tabular") in kinds:
        raise TypeError(f"{name} is a table: pass a column, {name}[...] of {data.column_names}")
    reads_whole = any(hasattr(data, method) for method in ("__array__", "__dlpack__"))
    if not reads_whole and all(hasattr(data, a) for a in ("shape", "dtype", "__getitem__")):
        return _SlicedSource(name, data)
    return _ArraySource(name, as_array(data, name))


def _open_path(name: str) -> Source:
    file, member = name, ""
    if not os.path.exists(name) and (parts := _MEMBER.fullmatch(name)):
        file, member = parts.groups()
    if os.path.isdir(file) and _zarr_metadata(file):
        return _open_zarr(file, member)
    stream = open(file, "rb", buffering=0)  # noqa: SIM115 (the source closes it)
    try:
        start, status = _read_start(stream, name), os.fstat(stream.fileno())
        regular = stat.S_ISREG(status.st_mode)
        opener = next((o for magic, o in _FORMATS.items() if start.startswith(magic)), None)
        if opener is None and not member:
            size = status.st_size if regular else None
            return _open_npy(name, stream, start, size, status if regular else None)
    except BaseException:
        stream.close()
        raise
    stream.close()
    if opener is None:
        raise ValueError(f"{file} is not a .npz, HDF5, Parquet or Arrow file, or is damaged")
    if not regular:
        raise ValueError(f"{file} is no regular file: of those, only a .npy is read")
    return opener(file, member)


def _member(file: str, member: str, names: Sequence[str]) -> str:
    """The name of the array that is meant, of those that a file holds."""
    if member in names:
        return member
    if not member and len(names) == 1:
        return names[0]
    close = difflib.get_close_matches(member, names, n=LISTED, cutoff=0.5)
    listed = [*close, *(name for name in names if name not in close)][:LISTED]
    text = ", ".join(listed) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    if member:
        raise ValueError(f"{file} has no array {member!r}, it has {text or 'none'}")
    raise ValueError(f"{file} holds {len(names)} arrays: name one as {file}:NAME ({text})")
