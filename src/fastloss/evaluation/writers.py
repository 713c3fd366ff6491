"""Writers of unreduced losses (`per_sample=`): a .npy file, or an array that is assigned slices."""

import importlib
import io
import math
import os
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastloss._arrays import overlap
from fastloss.evaluation.sources.source import with_filename

# Windows has no such locks.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None


def check_distinct(targets: Sequence[Any]) -> None:
    """Raises an error if two targets are the same file or share memory."""
    for a, b in combinations([target for target in targets if target is not None], 2):
        both_paths = isinstance(a, (str, os.PathLike)) and isinstance(b, (str, os.PathLike))
        if os.path.realpath(a) == os.path.realpath(b) if both_paths else _aliases(a, b):
            target = os.fspath(a) if both_paths else f"an array of shape {a.shape}"
            raise ValueError(f"per_sample names {target} twice: each criterion needs its own")


def check_no_aliasing(targets: Sequence[Any], arrays: Iterable[Any]) -> None:
    """Raises an error if a target shares memory with an array that is read.

    Later chunks, or other criteria, would read the losses.
    """
    for array in arrays:
        for target in targets:
            if target is not None and _aliases(target, array):
                raise ValueError(
                    f"per_sample, of shape {target.shape}, shares memory with an array that is "
                    f"read, of shape {array.shape}: write to another array and copy it afterwards"
                )


def _aliases(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return overlap(a, b)
    return a is b and hasattr(a, "shape")


def open_writer(target: Any, resumable: bool, done: int) -> "NpyWriter | ArrayWriter":
    """The writer to a .npy file, if `target` is a path, or into an array.

    If `resumable`, an incomplete file is left for another process to resume. `done` is the number
    of rows that an interrupted process wrote.
    """
    if isinstance(target, (str, os.PathLike)):
        return NpyWriter(target, resumable, done)
    if hasattr(target, "__setitem__") and hasattr(target, "shape"):
        return ArrayWriter(target, done)
    raise TypeError(
        f"per_sample is a {type(target).__name__}: it must be the path of a .npy file, or an array "
        "to write into"
    )


class ArrayWriter:
    """Writes along the leading axis of an array, a memory map or a dataset."""

    def __init__(self, target: Any, done: int):
        self._target = target
        self.done = done  # rows

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, losses: NDArray[Any]) -> None:
        if not losses.ndim:
            raise ValueError("per_sample is an array, but the loss is a scalar without rows")
        dtype = np.dtype(self._target.dtype)
        if dtype.kind != "f" and dtype.name != "bfloat16":
            raise TypeError(f"per_sample holds {dtype}, and losses are floats: make it float64")
        shape, stop = tuple(self._target.shape), self.done + len(losses)
        if shape[1:] != losses.shape[1:] or shape[0] < stop:
            raise ValueError(
                f"per_sample has shape {shape}, which does not hold the {stop} losses of shape "
                f"{losses.shape[1:]} so far"
            )
        self._target[self.done : stop] = losses
        self.done = stop

    def flush(self) -> None:
        if hasattr(self._target, "flush"):
            self._target.flush()

    def complete(self) -> None:
        self.flush()

    def identity(self) -> dict[str, Any]:
        return {"shape": list(self._target.shape), "dtype": str(self._target.dtype)}


class NpyWriter:
    """Writes a .npy file under a temporary name, and renames it when it is complete."""

    def __init__(self, path: str | os.PathLike[str], resumable: bool, done: int):
        self._name, self._resumable = os.fspath(path), resumable
        self._path = os.path.realpath(self._name)
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise ValueError(f"{self._name} is not a regular file and cannot be replaced")
        folder, base = os.path.split(self._path)
        suffix = "part" if resumable else f"{os.getpid()}.tmp"
        self._temporary = os.path.join(folder, f".{base}.{suffix}")
        self.done = done  # rows
        self._has_rows = True
        self._dtype: Any = None
        try:
            self._stream = self._open_locked() if resumable else io.FileIO(self._temporary, "x+")
            if done:
                self._resume()
        except OSError as error:
            raise with_filename(error, self._name) from error

    def _open_locked(self) -> io.FileIO:
        """Opens the file, which another process may have left, unless one is writing it."""
        create = 0 if self.done else os.O_CREAT
        stream = io.FileIO(os.open(self._temporary, os.O_RDWR | create, 0o666), "r+")
        if fcntl is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                raise ValueError(
                    f"another evaluation is writing {self._name}: its state is in use"
                ) from None
        if not self.done:
            stream.truncate(0)
        return stream

    def _resume(self) -> None:
        """Reads the header and seeks to the end of the rows that the state has recorded."""
        try:
            npy_format.read_magic(self._stream)
            shape, _, self._dtype = npy_format.read_array_header_1_0(self._stream)
            self._row_shape = shape[1:]
            end = self._stream.tell() + self.done * self._row_bytes()
            if self._stream.seek(0, os.SEEK_END) < end:
                raise ValueError("it is too short")
        except ValueError as error:
            self._stream.close()
            raise ValueError(
                f"{self._temporary} has lost losses that were written to it ({error}): delete the "
                "state file to start over"
            ) from error
        self._stream.seek(end)

    def _row_bytes(self) -> int:
        return self._dtype.itemsize * math.prod(self._row_shape)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self._stream.closed:
            self._stream.close()
            if not self._resumable:
                os.unlink(self._temporary)

    def write(self, losses: NDArray[Any]) -> None:
        if losses.dtype.name == "bfloat16":
            losses = losses.astype(np.float32)  # the .npy format has no bfloat16
        if self.done and losses.ndim and not len(losses):
            return  # whatever its dtype
        self._check_compatible(losses)
        try:
            if self.done == 0:
                self._dtype, self._row_shape = losses.dtype, losses.shape[1:]
                self._has_rows = losses.ndim > 0
                self._stream.seek(0)
                self._write_header()
            data = np.ascontiguousarray(losses).reshape(-1).view(np.uint8).data
            while len(data):
                data = data[self._stream.write(data) :]
        except OSError as error:
            raise with_filename(error, self._name) from error
        self.done += len(losses) if losses.ndim else 0

    def _check_compatible(self, losses: NDArray[Any]) -> None:
        """Raises an error if the losses cannot follow the previous ones in one file."""
        if not self._has_rows or (self.done and not losses.ndim):
            raise ValueError("per_sample: a .npy file cannot hold a scalar loss and other losses")
        if self.done and (losses.dtype, losses.shape[1:]) != (self._dtype, self._row_shape):
            raise ValueError(
                f"per_sample: rows of {losses.dtype} of shape {losses.shape[1:]} do not fit into a "
                f"file with rows of {self._dtype} of shape {self._row_shape}: pass batches of one "
                "dtype and one shape"
            )

    def _write_header(self) -> None:
        """Writes the header for the rows so far; NumPy pads it so that their number can grow."""
        empty = np.empty((0, *self._row_shape), self._dtype)
        shape = (self.done, *self._row_shape) if self._has_rows else ()
        header = npy_format.header_data_from_array_1_0(empty) | {"shape": shape}
        npy_format.write_array_header_1_0(self._stream, header)

    def flush(self) -> None:
        os.fsync(self._stream.fileno())

    def complete(self) -> None:
        if self._dtype is None:
            raise ValueError(f"there was no batch: the dtype of {self._name} is unknown")
        self._stream.seek(0)
        self._write_header()
        self.flush()
        os.replace(self._temporary, self._path)  # while the lock is held
        self._stream.close()

    def identity(self) -> dict[str, Any]:
        return {"path": self._path}
