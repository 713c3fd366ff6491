"""Where unreduced losses go, batch by batch: a .npy file, or an array that is sliced."""

import io
import math
import os
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastloss.sources import named


def open_writer(target: Any, kept: bool, done: int) -> "NpyWriter | ArrayWriter":
    """`target` is the path of a .npy, or an array to write into.

    `kept`: whether an unfinished file stays, for another process to go on with; `done` is the
    number of rows that one wrote.
    """
    if isinstance(target, (str, os.PathLike)):
        return NpyWriter(target, kept, done)
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

    def describe(self) -> dict[str, Any]:
        return {"shape": list(self._target.shape), "dtype": str(self._target.dtype)}


class NpyWriter:
    """Writes a .npy under another name, and gives it its own when it is complete."""

    def __init__(self, path: str | os.PathLike[str], kept: bool, done: int):
        self._name, self._kept = os.fspath(path), kept
        self._path = os.path.realpath(self._name)
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise ValueError(f"{self._name} is not a regular file and cannot be replaced")
        folder, base = os.path.split(self._path)
        ending = "part" if kept else f"{os.getpid()}.tmp"
        self._temporary = os.path.join(folder, f".{base}.{ending}")
        self.done = done  # rows
        try:
            self._stream = io.FileIO(self._temporary, "r+" if done else "w+" if kept else "x+")
            if done:
                self._go_on()
        except OSError as error:
            raise named(error, self._name) from error

    def _go_on(self) -> None:
        """After the rows that another process wrote, and told of."""
        try:
            npy_format.read_magic(self._stream)
            shape, _, self._dtype = npy_format.read_array_header_1_0(self._stream)
            self._tail, self._has_rows = shape[1:], True
            end = self._stream.tell() + self.done * self._row_bytes()
            if self._stream.seek(0, os.SEEK_END) < end:
                raise ValueError("it is too short")
        except ValueError as error:
            self._stream.close()
            raise ValueError(
                f"{self._temporary} lost what was written to it ({error}): delete the state file "
                "to begin anew"
            ) from error
        self._stream.seek(end)

    def _row_bytes(self) -> int:
        return self._dtype.itemsize * math.prod(self._tail)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self._stream.closed:
            self._stream.close()
            if not self._kept:
                os.unlink(self._temporary)

    def write(self, losses: NDArray[Any]) -> None:
        try:
            if self.done == 0:
                self._dtype, self._tail = losses.dtype, losses.shape[1:]
                self._has_rows = losses.ndim > 0
                self._stream.seek(0)
                self._write_header()
            data = np.ascontiguousarray(losses).reshape(-1).view(np.uint8).data
            while len(data):
                data = data[self._stream.write(data) :]
        except OSError as error:
            raise named(error, self._name) from error
        self.done += len(losses) if losses.ndim else 0

    def _write_header(self) -> None:
        """Of the rows so far: NumPy leaves room for their number to grow."""
        like = np.empty((0, *self._tail), self._dtype)
        shape = (self.done, *self._tail) if self._has_rows else ()
        header = npy_format.header_data_from_array_1_0(like) | {"shape": shape}
        npy_format.write_array_header_1_0(self._stream, header)

    def flush(self) -> None:
        os.fsync(self._stream.fileno())

    def complete(self) -> None:
        self._stream.seek(0)
        self._write_header()
        self.flush()
        self._stream.close()
        os.replace(self._temporary, self._path)

    def describe(self) -> dict[str, Any]:
        return {"path": self._path}
