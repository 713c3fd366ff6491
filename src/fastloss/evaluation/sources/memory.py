"""Arrays in memory, read as views."""

from typing import Any

import numpy as np

from fastloss.evaluation.sources.source import Source, checksum


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


class LabelSource:
    """Labels of groups, which may be strings; has the interface of `Source`."""

    buffered = False
    row_bytes = 0
    status = None
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
        return self._labels[start:stop] if self.shape else self._labels

    def read_all(self) -> np.ndarray:
        return self._labels

    def close(self) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        crc = checksum(self._labels)
        return {"shape": list(self.shape), "dtype": str(self._labels.dtype), "crc": crc}
