"""Arrays in memory, read as views."""

from typing import Any

import numpy as np

from fastloss._labels import strings_of
from fastloss.evaluation.sources.source import Source, checksum, read_errors


class ArraySource(Source):
    """An array of numbers."""

    buffered = False
    backing: Any

    def __init__(self, name: str, array: np.ndarray):
        super().__init__(name, array.shape, array.dtype)
        self._array = self.backing = array

    def _read(self, start, stop, buffer):
        return self._array[start:stop] if self.shape else self._array

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"crc": checksum(self._array)}


class StoredLabels:
    """Labels of another source, with strings in place of dates and bytes."""

    buffered = False

    def __init__(self, source: Source):
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __str__(self) -> str:
        return str(self._source)

    def read(self, start: int, stop: int, buffer: Any = None) -> np.ndarray:
        source = self._source
        buffer = np.empty((stop - start) * source.row_bytes, np.uint8) if source.buffered else None
        return strings_of(source.read(start, stop, buffer), source.name, start)

    def read_all(self) -> np.ndarray:
        return strings_of(self._source.read_all(), self._source.name)


class SlicedLabels:
    """Labels of a dataset that is read by slicing, whose entries are no numbers."""

    buffered = False
    row_bytes = 0
    chunk_rows = 1
    name: str
    backing: Any
    shape: tuple[int, ...]
    nbytes: int
    missing_chunks: int
    statuses: tuple[Any, ...]

    def __init__(self, name: str, data: Any, file: Any = None, status: Any = None):
        """`file` is closed at the end, `status` is the status of the data's file."""
        self.name, self._data, self._file, self.backing = name, data, file, None
        self.shape, self.nbytes, self.missing_chunks = tuple(data.shape), 0, 0
        self.rows = self.shape[0] if self.shape else 1
        self.statuses = () if status is None else (status,)

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)} of labels"

    def read(self, start: int, stop: int, buffer: Any = None) -> np.ndarray:
        with read_errors(self.name):
            labels = np.asarray(self._data[start:stop] if self.shape else self._data[()])
        return strings_of(labels, self.name, start)

    def read_all(self) -> np.ndarray:
        try:
            return self.read(0, self.rows)
        finally:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def fingerprint(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "dtype": "labels"}


class LabelSource:
    """Labels of groups, which may be strings or dates; has the interface of `Source`."""

    buffered = False
    row_bytes = 0
    statuses: tuple[Any, ...] = ()
    missing_chunks = 0
    name: str
    shape: tuple[int, ...]
    rows: int
    nbytes: int
    backing: Any

    def __init__(self, name: str, labels: np.ndarray):
        self.name, self._labels, self.shape = name, labels, labels.shape
        self.backing = labels
        self.rows, self.nbytes = (labels.shape[0] if labels.shape else 1), labels.nbytes

    def __str__(self) -> str:
        return f"{self.name} {self._labels.dtype}{list(self.shape)}"

    def read(self, start: int, stop: int, buffer: Any) -> np.ndarray:
        labels = self._labels[start:stop] if self.shape else self._labels
        return strings_of(labels, self.name, start)

    def read_all(self) -> np.ndarray:
        return strings_of(self._labels, self.name)

    def close(self) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        crc = checksum(self._labels)
        return {"shape": list(self.shape), "dtype": str(self._labels.dtype), "crc": crc}
