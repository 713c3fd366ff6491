"""Writers of unreduced losses (`per_sample=`): a .npy file, or an array that is assigned slices."""

import io
import math
import os
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastloss.evaluation import files
from fastloss.evaluation.digests import update_crc
from fastloss.evaluation.sources.source import READ_BYTES, with_filename

# For each criterion, what a checkpoint records of the losses that were written: their number of
# rows and their checksum, and for files their dtype and the shape of a row.
Record = dict[str, Any]


def open_writer(target: Any, state: str | None, record: Record | None) -> "NpyWriter | ArrayWriter":
    """The writer to a .npy file, if `target` is a path, or into an array.

    `state` is the path of the checkpoint, None without one. `record` is what a checkpoint recorded
    of the losses that an interrupted evaluation wrote, which must still be there.
    """
    if isinstance(target, (str, os.PathLike)):
        return NpyWriter(target, state, record)
    if hasattr(target, "__setitem__") and hasattr(target, "shape"):
        return ArrayWriter(target, state is not None, record)
    raise TypeError(
        f"per_sample is a {type(target).__name__}: it must be the path of a .npy file, or an array "
        "to write into"
    )


class ArrayWriter:
    """Writes along the leading axis of an array, a memory map or a dataset."""

    def __init__(self, target: Any, resumable: bool, record: Record | None):
        self._target, self._resumable = target, resumable
        self._done, self._crc = 0, 0  # rows, and their checksum if `resumable`
        if record is not None:
            self._resume(record)

    def _resume(self, record: Record) -> None:
        """Checks the rows that the interrupted evaluation wrote; another array lacks them."""
        step = max(READ_BYTES // max(math.prod(self._target.shape[1:]) * 8, 1), 1)
        while self._done < record["rows"]:
            stop = min(self._done + step, record["rows"])
            self._add_to_crc(stop)
        if self._crc != record["crc"]:
            raise ValueError(
                f"per_sample, of shape {tuple(self._target.shape)}, no longer holds the "
                f"{record['rows']} losses that were written to it: pass the same array, or delete "
                "the state file to start over"
            )

    def _add_to_crc(self, stop: int) -> None:
        """Reads the rows up to `stop` back, in the dtype of the target."""
        rows = np.asarray(self._target[self._done : stop])
        self._crc, self._done = update_crc(self._crc, rows), stop

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, losses: NDArray[Any]) -> None:
        if not losses.ndim:
            raise ValueError("per_sample is an array, but the loss is a scalar without rows")
        dtype = np.dtype(self._target.dtype)
        if dtype.kind != "f" and dtype.name != "bfloat16":
            raise TypeError(f"per_sample holds {dtype}, and losses are floats: make it float64")
        shape, stop = tuple(self._target.shape), self._done + len(losses)
        if shape[1:] != losses.shape[1:] or shape[0] < stop:
            raise ValueError(
                f"per_sample has shape {shape}, which does not hold the {stop} losses of shape "
                f"{losses.shape[1:]} so far"
            )
        self._target[self._done : stop] = losses
        if self._resumable:
            self._add_to_crc(stop)
        self._done = stop

    def flush(self) -> None:
        if hasattr(self._target, "flush"):
            self._target.flush()

    def finish(self) -> None:
        self.flush()

    def publish(self) -> None:
        pass

    def record(self) -> Record:
        return {"rows": self._done, "crc": self._crc}


class NpyWriter:
    """Writes a .npy file under a temporary name, and renames it when it is complete.

    If the evaluation can be resumed, the temporary file belongs to its state, by a name which
    contains a checksum of the path of the state; the lock of the state protects it.
    """

    def __init__(self, path: str | os.PathLike[str], state: str | None, record: Record | None):
        self._name, self._resumable = os.fspath(path), state is not None
        self._path = os.path.realpath(self._name)
        if files.is_special(self._path):
            raise ValueError(f"{self._name} is not a regular file and cannot be replaced")
        self._done, self._crc = 0, 0  # rows, and the checksum of their bytes
        self._dtype: Any = None  # None until losses are written
        self._row_shape: tuple[int, ...] | None = None  # None for one scalar loss
        self._durable_name = False  # whether the name of the temporary file is on the disk
        self._stream: Any = None  # None if the file was completed before
        try:
            if state is None:
                self._stream = files.create_temporary(self._path)
                self._temporary = str(self._stream.name)
                return
            folder, base = os.path.split(self._path)
            owner = zlib.crc32(os.fsencode(state))
            self._temporary = os.path.join(folder, f".{base}.{owner:08x}.part")
            if record is None or record["dtype"] is None:
                self._stream = files.create(self._temporary)
            else:
                self._resume(record)
        except OSError as error:
            raise with_filename(error, self._name) from error

    def _resume(self, record: Record) -> None:
        """Seeks to the end of the losses that the state has recorded, after checking them."""
        self._done, self._dtype = record["rows"], np.dtype(record["dtype"])
        self._row_shape = None if record["shape"] is None else tuple(record["shape"])
        try:
            self._stream = files.reopen(self._temporary)
        except FileNotFoundError:
            if self._is_complete(record):
                return
            raise
        try:
            self._check_losses(self._stream, record)
        except ValueError as error:
            self._stream.close()
            raise ValueError(
                f"{self._temporary} has lost losses that were written to it ({error}): delete the "
                "state file to start over"
            ) from error

    def _is_complete(self, record: Record) -> bool:
        """Whether the file was renamed before the interruption, at the end of the evaluation."""
        try:
            with open(self._path, "rb", buffering=0) as stream:
                start = self._header()
                if stream.read(len(start)) != start:
                    return False
                self._check_losses(stream, record)
                return not stream.read(1)
        except (FileNotFoundError, ValueError):
            return False

    def _check_losses(self, stream: Any, record: Record) -> None:
        """Reads the losses that are recorded; raises a ValueError if these are others."""
        stream.seek(len(self._header()))
        remaining = self._loss_count() * self._dtype.itemsize
        crc = 0
        while remaining:
            data = stream.read(min(remaining, READ_BYTES))
            if not data:
                raise ValueError("it is too short")
            crc, remaining = zlib.crc32(data, crc), remaining - len(data)
        if crc != record["crc"]:
            raise ValueError("it holds others")
        self._crc = crc

    def _loss_count(self) -> int:
        return 1 if self._row_shape is None else self._done * math.prod(self._row_shape)

    def __enter__(self) -> "NpyWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None and not self._stream.closed:
            if self._resumable:
                self._stream.close()
            else:
                files.discard(self._stream, self._temporary)

    def write(self, losses: NDArray[Any]) -> None:
        if losses.dtype.name == "bfloat16":
            losses = losses.astype(np.float32)  # the .npy format has no bfloat16
        if self._done and losses.ndim and not len(losses):
            return  # whatever its dtype
        self._check_compatible(losses)
        data = np.ascontiguousarray(losses).reshape(-1).view(np.uint8).data
        try:
            if self._done == 0:
                self._dtype = losses.dtype
                self._row_shape = losses.shape[1:] if losses.ndim else None
                self._stream.seek(0)
                files.write_all(self._stream, self._header())
            files.write_all(self._stream, data)
        except OSError as error:
            raise with_filename(error, self._name) from error
        if self._resumable:
            self._crc = zlib.crc32(data, self._crc)
        self._done += len(losses) if losses.ndim else 0

    def _check_compatible(self, losses: NDArray[Any]) -> None:
        """Raises an error if the losses cannot follow the previous ones in one file."""
        has_scalar = self._dtype is not None and self._row_shape is None
        if has_scalar or (self._done and not losses.ndim):
            raise ValueError("per_sample: a .npy file cannot hold a scalar loss and other losses")
        if self._done and (losses.dtype, losses.shape[1:]) != (self._dtype, self._row_shape):
            raise ValueError(
                f"per_sample: rows of {losses.dtype} of shape {losses.shape[1:]} do not fit into a "
                f"file with rows of {self._dtype} of shape {self._row_shape}: pass batches of one "
                "dtype and one shape"
            )
        if self._stream is None:
            raise ValueError(f"{self._name} is complete, and there are more losses to write")

    def _header(self) -> bytes:
        """The header for the rows so far; NumPy pads it so that their number can grow."""
        shape = () if self._row_shape is None else (self._done, *self._row_shape)
        empty = np.empty((0, *(self._row_shape or ())), self._dtype)
        header = npy_format.header_data_from_array_1_0(empty) | {"shape": shape}
        stream = io.BytesIO()
        npy_format.write_array_header_1_0(stream, header)
        return stream.getvalue()

    def flush(self) -> None:
        if self._stream is None:
            return
        try:
            files.sync(self._stream)
            if not self._durable_name:
                files.sync_folder(os.path.dirname(self._path))
                self._durable_name = True
        except OSError as error:
            raise with_filename(error, self._name) from error

    def finish(self) -> None:
        """Writes the header: the last operation for which a disk may be full."""
        if self._dtype is None:
            raise ValueError(f"there was no batch: the dtype of {self._name} is unknown")
        if self._stream is None:
            return
        try:
            self._stream.seek(0)
            files.write_all(self._stream, self._header())
            files.sync(self._stream)
        except OSError as error:
            raise with_filename(error, self._name) from error

    def publish(self) -> None:
        """Gives the finished file its name."""
        if self._stream is None:
            return
        try:
            files.replace(self._temporary, self._path)  # before the lock is released
        except OSError as error:
            raise with_filename(error, self._name) from error
        self._stream.close()

    def record(self) -> Record:
        shape = None if self._row_shape is None else list(self._row_shape)
        dtype = None if self._dtype is None else self._dtype.str
        return {"rows": self._done, "crc": self._crc, "dtype": dtype, "shape": shape}
