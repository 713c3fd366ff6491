"""The leading rows of one array, in order, from wherever it is.

Files are read into buffers and never mapped: mapped pages count as memory of the process, and a
mapped file that another process cuts short kills it.
"""

import os
import stat
import zipfile
import zlib
from math import prod

import numpy as np
from numpy.lib import format as npy_format

__all__ = ["Source", "named", "open_source"]

READ_BYTES = 1 << 20  # of one read: what a decompressing reader holds besides the buffers
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)


class Source:
    """The array of a .npy stream that stands behind its header, read in order of rows."""

    def __init__(self, name, stream, shape, fortran_order, dtype, size, seekable):
        """`size` is what the stream holds from here on, None if that cannot be known."""
        self.name, self.shape, self.dtype = name, shape, dtype
        self.rows = shape[0] if shape else 1
        self.row_bytes = prod(shape[1:]) * dtype.itemsize
        self.nbytes = self.rows * self.row_bytes
        self._stream = stream
        self._columns = fortran_order and len(shape) > 1
        if dtype.hasobject:
            raise TypeError(f"{name} holds Python objects (pickles), which are not read")
        if dtype.kind not in "biufc":
            raise TypeError(f"{name} holds {dtype}, which are not numbers")
        if any(n < 0 for n in shape):
            raise ValueError(f"{name} has a negative dimension: {shape}")
        if size is not None and size < self.nbytes:
            raise self._too_short(size)
        if self._columns and not seekable:
            raise ValueError(
                f"{name} is in Fortran order, which cannot be read by rows from a pipe or a .npz: "
                "save it to a .npy, or as np.ascontiguousarray(array)"
            )
        self._begin = stream.tell() if self._columns else 0

    def __str__(self):
        return f"{self.name} {self.dtype}{list(self.shape)}"

    def read(self, start: int, stop: int, buffer: np.ndarray) -> np.ndarray:
        """Rows start to stop as an array in the buffer; each call goes on where the last ended."""
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        view = buffer.data[: (stop - start) * self.row_bytes]
        if self._columns:
            length = (stop - start) * self.dtype.itemsize
            for column in range(prod(self.shape[1:])):
                place = (column * self.rows + start) * self.dtype.itemsize
                self._stream.seek(self._begin + place)
                self._fill(view[column * length : (column + 1) * length], place)
        else:
            self._fill(view, start * self.row_bytes)
        array = np.ndarray(shape, self.dtype, buffer, order="F" if self._columns else "C")
        if not self.dtype.isnative:
            array = array.byteswap(inplace=True).view(self.dtype.newbyteorder())
        return array

    def read_all(self) -> np.ndarray:
        array = self.read(0, self.rows, np.empty(self.nbytes, np.uint8))
        self.close()
        return array

    def close(self) -> None:
        self._stream.close()

    def _fill(self, view: memoryview, place: int) -> None:
        done = 0
        try:
            while done < len(view):
                count = self._stream.readinto(view[done : done + READ_BYTES])
                if not count:
                    raise self._too_short(place + done)
                done += count
        except _DAMAGED as error:
            raise ValueError(f"{self.name} is damaged: {error}") from error
        except OSError as error:
            raise named(error, self.name) from error

    def _too_short(self, size: int) -> ValueError:
        return ValueError(
            f"{self.name} is cut short: its header promises {self.nbytes} bytes of data "
            f"(shape {self.shape}, {self.dtype}), it holds {size}"
        )


def open_source(path: str | os.PathLike[str]) -> Source:
    """`path` is a .npy file, a .npz file with one member, or ``file.npz:member``."""
    name = os.fspath(path)
    file, member = name, ""
    if ".npz:" in name and not os.path.exists(name):
        file, _, member = name.partition(".npz:")
        file += ".npz"
    stream = open(file, "rb", buffering=0)  # noqa: SIM115 (the source closes it)
    try:
        start = _read_start(stream, name)
        if start.startswith(b"PK"):
            stream.close()
            return _open_member(file, member)
        if member:
            raise ValueError(f"{file} is not a .npz file")
        status = os.fstat(stream.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else None
        return _open_npy(name, stream, start, size, seekable=size is not None)
    except BaseException:
        stream.close()
        raise


def _open_member(file: str, member: str) -> Source:
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # whatever wrong bytes lead zipfile to
        raise ValueError(f"{file} is not a readable .npz file: {error}") from error
    with archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        names = ", ".join(infos)
        if not member and len(infos) != 1:
            raise ValueError(f"{file} holds {len(infos)} arrays: name one as {file}:NAME ({names})")
        member = member.removesuffix(".npy") or next(iter(infos))
        if member not in infos:
            raise ValueError(f"{file} has no array {member!r}, it has {names}")
        try:
            data = archive.open(infos[member])  # lives on, and holds the file open
        except Exception as error:
            raise ValueError(f"{file}:{member} is damaged: {error}") from error
    name = f"{file}:{member}"
    try:
        # Not seekable: going back would decompress from the start again.
        size = infos[member].file_size
        return _open_npy(name, data, _read_start(data, name), size, seekable=False)
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


def _open_npy(name, stream, start: bytes, file_size: int | None, seekable: bool) -> Source:
    magic, version = start[:-2], tuple(start[-2:])
    if magic != npy_format.MAGIC_PREFIX:
        raise ValueError(f"{name} is not a .npy or .npz file (numpy.save writes one)")
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
    return Source(name, stream, shape, fortran_order, dtype, size, seekable)


def named(error: OSError, name: str) -> OSError:
    """The same error with the name of its file."""
    return type(error)(error.errno, error.strerror, name)
