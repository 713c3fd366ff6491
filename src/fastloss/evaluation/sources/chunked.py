"""Arrays that are stored in chunks, and datasets that are read by slicing."""

from typing import Any

import numpy as np

from fastloss._arrays import as_array
from fastloss.evaluation.sources.source import Source, read_errors, stored_dtype

MAX_CACHED_BYTES = 64 << 20  # decompressed rows that are kept for the next request


class ChunkedSource(Source):
    """Reads rows directly where possible; otherwise decodes a chunk and caches its rows."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._native = self.dtype if self.dtype.isnative else self.dtype.newbyteorder("=")
        self._cached = (0, ())  # the number of the first cached row, and the rows

    def _read(self, start, stop, buffer):
        out = np.ndarray(self._shape_of(start, stop), self._native, buffer)
        if not self.shape:
            self._read_into(start, out)
            return out
        row = start
        while row < stop:
            direct = self._direct_rows(row, stop)
            first, cached = self._cached
            if first <= row < first + len(cached):
                count = min(first + len(cached), stop) - row
                out[row - start :][:count] = cached[row - first :][:count]
            elif direct:
                count = direct
                self._read_into(row, out[row - start :][:count])
            else:
                self._cached = (0, ())  # freed before the next chunk is decoded
                self._cached = self._decode_chunk(row)
                count = 0
            row += count
        return out

    def _direct_rows(self, row: int, stop: int) -> int:
        """The number of rows from `row` on that can be read without the cache."""
        return 0

    def _read_into(self, row: int, out: np.ndarray) -> None:
        """Reads the rows from `row` on into an array."""
        raise NotImplementedError

    def _decode_chunk(self, row: int) -> tuple[int, np.ndarray]:
        """The number of the first row of the chunk that holds `row`, and its rows."""
        raise NotImplementedError


class SlicedSource(ChunkedSource):
    """Anything with a shape, a dtype and slices; its chunks hold whole rows or parts of rows."""

    backing: Any
    chunk_rows: int

    def __init__(self, name: str, data: Any, file: Any = None):
        stored = np.dtype(data.dtype)
        super().__init__(name, data.shape, stored_dtype(name, stored), file)
        self._stored = stored if stored != self.dtype else None  # raw bytes of bfloat16
        self._data = self.backing = data
        chunks = getattr(data, "chunks", None)
        if self.shape and chunks and isinstance(chunks[0], int):
            self.chunk_rows = max(min(chunks[0], self.rows), 1)

    def _direct_rows(self, row, stop):
        chunk = self.chunk_rows
        if chunk * self.row_bytes > MAX_CACHED_BYTES or (stop == self.rows and row % chunk == 0):
            return stop - row
        return 0 if row % chunk else (stop - row) // chunk * chunk

    def _decode_chunk(self, row):
        first = row - row % self.chunk_rows
        shape = self._shape_of(first, min(first + self.chunk_rows, self.rows))
        rows = np.empty(shape, self._native)
        self._read_into(first, rows)
        return first, rows

    def _read_into(self, row, out):
        with read_errors(self.name):
            rows = as_array(self._slice(row, len(out)) if self.shape else self._data[()], "it")
            if rows.shape != out.shape:
                raise self._changed(f"{rows.shape} in place of {out.shape} from row {row} on")
            if self._stored is not None:
                out = out.view(self._stored)
            np.copyto(out, rows, casting="equiv")

    def _slice(self, row, count):
        return self._data[row : row + count]

    def _changed(self, change: str) -> ValueError:
        return ValueError(f"it has changed while it was read: {change}")
