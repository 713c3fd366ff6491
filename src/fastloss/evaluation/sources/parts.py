"""An array in several files, whose rows follow each other."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastloss.evaluation.sources.source import Source
from fastloss.evaluation.sources.table_sources import files_fingerprint


class PartsSource(Source):
    """The rows of several sources, each of which is open only while it is read."""

    def __init__(self, name: str, openers: Sequence[Callable[[], Any]], labels: bool):
        """Each of the `openers` opens a source."""
        self._openers, self._fingerprints, self._starts = openers, [], [0]
        self._labels, statuses = labels, []
        first: Any = None
        missing_chunks = 0
        is_identified = True
        for opener in openers:
            part = opener()
            part.close()
            if not part.shape:
                raise ValueError(f"{part} is 0-d: the arrays of a list must have rows")
            if first is None or not first.rows:
                first = part
            elif part.rows and not labels and _layout(part) != _layout(first):
                raise ValueError(
                    f"{part} does not continue {first}: the rows of a list of files must have one "
                    "shape and dtype"
                )
            self._starts.append(self._starts[-1] + part.rows)
            self._fingerprints.append(part.fingerprint())
            missing_chunks += part.missing_chunks
            statuses += part.statuses
            is_identified &= "mtime_ns" in self._fingerprints[-1]
        self._is_identified = is_identified
        shape = (self._starts[-1], *first.shape[1:])
        if labels:
            self.name, self.shape, self.rows, self.row_bytes = name, shape, shape[0], 0
            self.nbytes, self._next_row = 0, 0
            self.dtype: Any = "labels"
            self.buffered = False
        else:
            super().__init__(name, shape, first.dtype.newbyteorder("="))
        self.missing_chunks, self.statuses = missing_chunks, statuses
        self._index, self._part = -1, None

    def _read(self, start, stop, buffer):
        pieces = []
        out = None
        if not self._labels:
            out = np.ndarray(self._shape_of(start, stop), self.dtype, buffer)
        first = start
        while start < stop:
            part = self._part_at(start)
            offset = self._starts[self._index]
            end = min(stop, self._starts[self._index + 1])
            if out is None:
                pieces.append(part.read(start - offset, end - offset))
            else:
                self._copy(part, start - offset, end - offset, out[start - first : end - first])
            start = end
        if out is not None:
            return out
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    @staticmethod
    def _copy(part: Any, start: int, stop: int, out: np.ndarray) -> None:
        buffer = out.reshape(-1).view(np.uint8) if part.buffered else None
        rows = part.read(start, stop, buffer)
        if not (rows.flags.c_contiguous and np.shares_memory(rows, out)):
            np.copyto(out, rows.copy() if part.buffered else rows)

    def _part_at(self, row: int) -> Any:
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        if index != self._index:
            self.close()
            part = self._openers[index]()
            self._part, self._index = part, index
            if part.fingerprint() != self._fingerprints[index]:
                raise ValueError(f"{part} was changed while it was read")
        return self._part

    def close(self) -> None:
        if self._part is not None:
            self._part.close()
        self._index, self._part = -1, None

    def fingerprint(self) -> dict[str, Any]:
        identity: dict[str, Any] = {"shape": list(self.shape), "dtype": str(self.dtype)}
        if self._is_identified and self.statuses:
            return identity | files_fingerprint(self.name, self.statuses)
        return identity | {"parts": self._fingerprints}


def _layout(part: Any) -> tuple[tuple[int, ...], np.dtype]:
    return part.shape[1:], part.dtype.newbyteorder("=")
