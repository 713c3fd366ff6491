"""Arrays of .npy and .npz files."""

import os
import zipfile
import zlib
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from fastloss.evaluation.sources.source import (
    READ_BYTES,
    Source,
    resolve_member,
    stored_dtype,
    with_filename,
)

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)


class NpySource(Source):
    """The array that follows the header of a .npy stream."""

    def __init__(
        self,
        name: str,
        stream: Any,
        shape: tuple[int, ...],
        fortran_order: bool,
        dtype: np.dtype[Any],
        size: int | None,
        file: Any,
        labels: bool = False,
    ) -> None:
        """`size` is the number of bytes after the header, None if that is unknown."""
        super().__init__(name, shape, dtype, file, labels)
        # Seeking back in a member of a .npz would decompress it again from its start.
        seekable = size is not None and not isinstance(stream, zipfile.ZipExtFile)
        self._stream, self._seekable, self._offset = stream, seekable, 0
        self._fortran_order = fortran_order and len(shape) > 1
        if size is not None and size < self.nbytes:
            raise self._truncated(size)
        if self._fortran_order and not seekable:
            raise ValueError(
                f"{name} is in Fortran order, which cannot be read by rows from a pipe or a .npz: "
                "save it to a .npy, or as np.ascontiguousarray(array)"
            )
        self._data_start = stream.tell() if seekable else 0

    def close(self) -> None:
        self._stream.close()

    def _read(self, start, stop, buffer):
        view = buffer.data[: (stop - start) * self.row_bytes]
        try:
            if self._fortran_order:
                length = (stop - start) * self.dtype.itemsize
                for column in range(prod(self.shape[1:])):
                    offset = (column * self.rows + start) * self.dtype.itemsize
                    self._read_bytes(view[column * length : (column + 1) * length], offset)
            else:
                self._read_bytes(view, start * self.row_bytes)
        except _DAMAGED as error:
            raise ValueError(f"{self.name} is damaged: {error}") from error
        except OSError as error:
            raise with_filename(error, self.name) from error
        if stop == self.rows:
            self._check_unchanged()
        order = "F" if self._fortran_order else "C"
        array = np.ndarray(self._shape_of(start, stop), self.dtype, buffer, order=order)
        if not self.dtype.isnative:
            array = array.byteswap(inplace=True).view(self.dtype.newbyteorder())
        return array

    def _check_unchanged(self) -> None:
        """Raises an error if the file was written to while it was read."""
        if self._seekable and self._status is not None:
            status = os.fstat(self._stream.fileno())
            for name in ("st_size", "st_mtime_ns"):
                if getattr(status, name) != getattr(self._status, name):
                    raise ValueError(f"{self.name} was changed while it was read")

    def _read_bytes(self, view: memoryview, offset: int) -> None:
        """Fills the view with the bytes of the array from `offset` on."""
        if offset != self._offset and self._seekable:
            self._stream.seek(self._data_start + offset)
            self._offset = offset
        while self._offset < offset:
            self._advance(len(self._stream.read(min(offset - self._offset, READ_BYTES))))
        done = 0
        while done < len(view):
            count = self._stream.readinto(view[done : done + READ_BYTES])
            self._advance(count)
            done += count

    def _advance(self, count: int) -> None:
        if not count:
            raise self._truncated(self._offset)
        self._offset += count

    def _truncated(self, size: int) -> ValueError:
        return ValueError(
            f"{self.name} is cut short: its header promises {self.nbytes} bytes of data "
            f"(shape {self.shape}, {self.dtype}), it holds {size}"
        )


def open_npz(file: str, member: str, labels: bool = False) -> Source:
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # zipfile raises many types for invalid bytes
        raise ValueError(f"{file} is not a readable .npz file: {error}") from error
    with archive:
        infos = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        if member not in infos:  # it may be the name of the file in the archive
            member = next((name for name in infos if f"{name}.npy" == member), member)
        member = resolve_member(file, member, list(infos))
        try:
            stream = archive.open(infos[member])  # outlives the archive, and keeps the file open
        except Exception as error:
            raise ValueError(f"{file}:{member} is damaged: {error}") from error
    name = f"{file}:{member}"
    try:
        magic, size = read_magic(stream, name), infos[member].file_size
        return open_npy(name, stream, magic, size, file, labels)
    except BaseException as error:
        stream.close()
        if isinstance(error, _DAMAGED):
            raise ValueError(f"{name} is damaged: {error}") from error
        raise


def read_magic(stream: Any, name: str) -> bytes:
    """The magic string and the version of a .npy stream; fewer bytes if it ends before."""
    magic = b""
    while len(magic) < npy_format.MAGIC_LEN:
        try:
            more = stream.read(npy_format.MAGIC_LEN - len(magic))
        except OSError as error:
            raise with_filename(error, name) from error
        if not more:
            break
        magic += more
    return magic


def open_npy(
    name: str,
    stream: Any,
    magic: bytes,
    file_size: int | None,
    file: Any,
    labels: bool = False,
) -> Source:
    """The source of a stream whose magic string has been read."""
    if remedy := _COMPRESSED.get(magic[:2]):
        raise ValueError(f"{name} is compressed: decompress it ({remedy}), or pass batches")
    prefix, version = magic[:-2], tuple(magic[-2:])
    if prefix != npy_format.MAGIC_PREFIX:
        raise ValueError(
            f"{name} is not a .npy or .npz file (numpy.save writes one), and not an HDF5, Zarr, "
            "Parquet or Arrow file, nor a .csv or .jsonl"
        )
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"{name} has .npy version {version[0]}.{version[1]}, which is unknown")
    if version == (1, 0):
        read_header = npy_format.read_array_header_1_0
    else:  # version 3.0 differs from 2.0 in the names of fields only
        read_header = npy_format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read_header(stream)
    except (OSError, *_DAMAGED):
        raise
    except Exception as error:  # NumPy's parser raises many types for an invalid header
        raise ValueError(f"{name} has no readable header: {error}") from error
    size = None if file_size is None else file_size - stream.tell()
    dtype = stored_dtype(name, dtype)
    return NpySource(name, stream, shape, fortran_order, dtype, size, file, labels)
