"""Where unreduced losses go, batch by batch: a .npy file, or an array that is sliced."""

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
from fastloss.evaluation.sources import named

# Windows has no locks of this kind.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None


def check_distinct(targets: Sequence[Any]) -> None:
    """That no two of several targets are the same file or share memory."""
    for one, other in combinations([target for target in targets if target is not None], 2):
        paths = isinstance(one, (str, os.PathLike)) and isinstance(other, (str, os.PathLike))
        if os.path.realpath(one) == os.path.realpath(other) if paths else _same(one, other):
            what = os.fspath(one) if paths else f"an array of shape {one.shape}"
            raise ValueError(f"per_sample names {what} twice: each criterion needs its own")


def check_apart(targets: Sequence[Any], arrays: Iterable[Any]) -> None:
    """That what is written is not what is read, perhaps only later or for another criterion."""
    for array in arrays:
        for target in targets:
            if target is not None and _same(target, array):
                raise ValueError(
                    f"per_sample, of shape {target.shape}, shares memory with an array that is "
                    f"read, of shape {array.shape}: write into another, and copy it then"
                )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return overlap(one, other)
    return one is other and hasattr(one, "shape")


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
        if not losses.ndim:
            raise ValueError("per_sample is an array, but the loss is a single one without rows")
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
        self._has_rows = True
        self._dtype: Any = None
        try:
            self._stream = self._open_kept() if kept else io.FileIO(self._temporary, "x+")
            if done:
                self._go_on()
        except OSError as error:
            raise named(error, self._name) from error

    def _open_kept(self) -> io.FileIO:
        """What another process may have left, and may not write to any more."""
        create = 0 if self.done else os.O_CREAT
        stream = io.FileIO(os.open(self._temporary, os.O_RDWR | create, 0o666), "r+")
        if fcntl is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                raise ValueError(
                    f"another evaluation writes {self._name}: its state is in use"
                ) from None
        if not self.done:
            stream.truncate(0)
        return stream

    def _go_on(self) -> None:
        """After the rows that another process wrote, and told of."""
        try:
            npy_format.read_magic(self._stream)
            shape, _, self._dtype = npy_format.read_array_header_1_0(self._stream)
            self._tail = shape[1:]
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
        if losses.dtype.name == "bfloat16":
            losses = losses.astype(np.float32)  # a .npy cannot name it
        if self.done and losses.ndim and not len(losses):
            return  # of whatever dtype
        self._check(losses)
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

    def _check(self, losses: NDArray[Any]) -> None:
        """That the losses go with those before."""
        if not self._has_rows or (self.done and not losses.ndim):
            raise ValueError("per_sample: a loss without rows is all that a .npy file can hold")
        if self.done and (losses.dtype, losses.shape[1:]) != (self._dtype, self._tail):
            raise ValueError(
                f"per_sample: rows of {losses.dtype} of shape {losses.shape[1:]} do not go into a "
                f"file with rows of {self._dtype} of shape {self._tail}: give batches one dtype "
                "and one shape"
            )

    def _write_header(self) -> None:
        """Of the rows so far: NumPy leaves room for their number to grow."""
        like = np.empty((0, *self._tail), self._dtype)
        shape = (self.done, *self._tail) if self._has_rows else ()
        header = npy_format.header_data_from_array_1_0(like) | {"shape": shape}
        npy_format.write_array_header_1_0(self._stream, header)

    def flush(self) -> None:
        os.fsync(self._stream.fileno())

    def complete(self) -> None:
        if self._dtype is None:
            raise ValueError(f"there was no batch: {self._name} would hold losses of no dtype")
        self._stream.seek(0)
        self._write_header()
        self.flush()
        os.replace(self._temporary, self._path)  # while it is locked
        self._stream.close()

    def describe(self) -> dict[str, Any]:
        return {"path": self._path}
