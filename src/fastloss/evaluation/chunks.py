"""Readers: the data of an evaluation in chunks, either of the rows of arrays or one per batch.

Reading overlaps with computing: `_read_ahead` reads the next chunk of every source on a thread
while the caller computes on the current one.
"""

import contextlib
import math
import numbers
import os
import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss.evaluation.inputs import (
    EvaluationInput,
    array_name,
    batch_by_name,
    element_weights_by_criterion,
    is_row_aligned,
    supports_row_chunks,
)
from fastloss.evaluation.sources import open_labels, open_source

# The largest chunk, all arrays together: long enough to hide handing it over between threads.
CHUNK_BYTES = 8 << 20


@dataclass
class Chunk:
    """Some rows, or a batch; `element_weights` are `weight` and `pos_weight` of each criterion."""

    arrays: list[Any]
    sample_weight: Any
    group: Any
    element_weights: list[dict[str, Any]]
    next_position: int  # of the reader: rows or batches up to the end of this chunk
    nbytes: int


def open_reader(stack: contextlib.ExitStack, inputs: EvaluationInput) -> "BatchReader | RowReader":
    """The reader of the data. `stack` closes the files if an error precedes reading."""
    return BatchReader(inputs) if inputs.is_batches() else RowReader(stack, inputs)


# ---- batches -------------------------------------------------------------------------------------


class BatchReader:
    """Reads an iterable of batches, one at a time: a batch may reuse the memory of the previous."""

    nbytes = None
    constant_bytes = 0
    missing_chunks = 0

    def __init__(self, inputs: EvaluationInput):
        (batches,) = inputs.data
        if isinstance(batches, (str, os.PathLike, np.ndarray)) or not hasattr(batches, "__iter__"):
            raise TypeError(
                f"the data is one {type(batches).__name__}: {inputs.criteria[0].loss.__name__} "
                f"reads {', '.join(inputs.operands)}, or an iterable of batches"
            )
        self._operands = inputs.operands
        self._no_weights: list[dict[str, Any]] = [{} for _ in inputs.criteria]
        self._batches: Iterable[Any] = batches
        self._number = 0

    def fingerprint(self) -> Any:
        return "batches"

    @contextlib.contextmanager
    def annotate_errors(self):
        """Adds the number of the batch to errors of the loss, whose rows count from batch 0."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error} [in batch {self._number}]") from error

    def chunks(self, position: int) -> Generator[Chunk, None, None]:
        """The batches from a position on."""
        number = -1
        for number, batch in enumerate(self._batches):
            if number < position:
                continue
            self._number = number
            by_name = batch_by_name(self._operands, batch, number)
            arrays = [by_name[name] for name in self._operands]
            nbytes = sum(getattr(array, "nbytes", 0) for array in arrays)
            yield Chunk(
                arrays,
                by_name.get("sample_weight"),
                by_name.get("group"),
                self._no_weights,
                number + 1,
                nbytes,
            )
        if number + 1 < position:
            raise ValueError(
                f"there are {number + 1} batches, but the state has done {position}: delete its "
                "file to start over"
            )


# ---- rows of arrays ------------------------------------------------------------------------------


class RowReader:
    """Reads arrays in chunks of whole blocks of their leading axis."""

    def __init__(self, stack: contextlib.ExitStack, inputs: EvaluationInput):
        self._operands, self._criteria_count = inputs.operands, len(inputs.criteria)
        arrays = inputs.arrays()
        opened = stack.enter_context(contextlib.ExitStack())
        self._sources = {}
        for key, value in arrays.items():
            opener = open_labels if key == "by" else open_source
            source = opener(value, array_name(key), inputs.missing_chunks or "warn")
            self._sources[key] = opened.enter_context(contextlib.closing(source))
        self._plan_chunks(inputs.criteria, inputs.chunk_rows)
        for key in self._constant:
            if isinstance(arrays[key], (int, float)):  # a Python scalar has no dtype of its own
                self._constant[key] = arrays[key]
        opened.pop_all()  # from now on chunks() closes the sources

    def _plan_chunks(self, criteria, chunk_rows):
        """Reads the arrays that apply to all rows, and sets the number of rows in a chunk."""
        sources = self._sources
        leaders = (sources[name] for name in self._operands if sources[name].shape)
        leader = self._leader = next(leaders, sources[self._operands[0]])
        ndims = [len(sources[name].shape) for name in self._operands[:2]]
        whole = not all(supports_row_chunks(criterion, *ndims) for criterion in criteria)
        self._streamed = {
            key: source
            for key, source in sources.items()
            if source is leader or (not whole and is_row_aligned(key, source.shape, leader.shape))
        }
        for source in self._streamed.values():
            if source.rows != leader.rows:
                raise ValueError(f"leading dimensions differ: {leader} and {source}")
        self._constant = {
            key: source.read_all() for key, source in sources.items() if key not in self._streamed
        }
        self.constant_bytes = sum(array.nbytes for array in self._constant.values())
        self.nbytes = sum(source.nbytes for source in sources.values())
        self.missing_chunks = sum(source.missing_chunks for source in sources.values())
        blocks = [criterion.loss._rows_per_block(leader.shape) for criterion in criteria]
        self._step = _rows_per_chunk(blocks, leader, self._streamed.values(), chunk_rows, whole)

    def fingerprint(self) -> dict[str, Any]:
        return {
            key if isinstance(key, str) else f"{key[1]} {key[0]}": source.fingerprint()
            for key, source in self._sources.items()
        }

    @contextlib.contextmanager
    def annotate_errors(self):
        """Adds the arrays to errors of the loss, which knows the names of arguments only."""
        try:
            yield
        except (ValueError, TypeError) as error:
            arrays = ", ".join(
                f"{array_name(key)}: {source}" for key, source in self._sources.items()
            )
            raise type(error)(f"{error} [{arrays}]") from error

    def chunks(self, position: int) -> Generator[Chunk, None, None]:
        """The rows from a position on, which must be the end of a chunk; closes the sources."""
        sources, rows = list(self._streamed.values()), self._leader.rows
        if position > max(rows, 1):
            raise ValueError(
                f"the state has done {position} rows, but there are fewer: {self._leader}"
            )
        read = _read_ahead if any(source.buffered for source in sources) else _read_slices
        with contextlib.closing(read(sources, rows, self._step, position)) as slices:
            for start, streamed in slices:
                arrays = {**self._constant, **dict(zip(self._streamed, streamed, strict=True))}
                yield Chunk(
                    [arrays[name] for name in self._operands],
                    arrays.get("sample_weight"),
                    arrays.get("by"),
                    element_weights_by_criterion(arrays, self._criteria_count),
                    min(start + self._step, max(rows, 1)),
                    sum(array.nbytes for array in streamed),
                )


def _rows_per_chunk(blocks, leader, streamed, chunk_rows: int | None, whole: bool) -> int:
    """Rows to read at once: a multiple of the blocks over which each loss forms its sums."""
    if whole:
        return max(leader.rows, 1)
    if chunk_rows is None:
        chunk_rows = _chunk_bytes() // max(sum(source.row_bytes for source in streamed), 1)
    elif not isinstance(chunk_rows, numbers.Integral):
        raise TypeError(f"chunk_rows must be an integer, got {chunk_rows!r}")
    elif chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}; it must be at least 1")
    block = math.lcm(*(max(block, 1) for block in blocks))
    return max(min(max(-(-chunk_rows // block), 1) * block, leader.rows), 1)


def _chunk_bytes() -> int:
    """A quarter of the last-level cache, which then holds two chunks and the results of one."""
    try:
        cache = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        cache = 0
    return min(cache // 4, CHUNK_BYTES) if cache >= CHUNK_BYTES else CHUNK_BYTES


# ---- reading slices, on this thread or ahead on another ------------------------------------------


def _slice_starts(rows: int, step: int, first_row: int) -> range:
    """The first row of each slice; an empty array still has one slice."""
    return range(first_row, max(rows, 1), step)


def _read_slices(sources, rows: int, step: int, first_row: int) -> Generator[Any, None, None]:
    """(first row, arrays) of consecutive slices of `step` rows of sources that need no buffer."""
    try:
        for start in _slice_starts(rows, step, first_row):
            yield start, [source.read(start, min(start + step, rows), None) for source in sources]
    finally:
        for source in sources:
            source.close()


def _read_ahead(sources, rows: int, step: int, first_row: int) -> Generator[Any, None, None]:
    """As `_read_slices`, but the next slice is read on a thread, into a second set of buffers.

    The arrays of a slice are valid until the caller asks for the next.
    """
    starts = _slice_starts(rows, step, first_row)
    free: queue.SimpleQueue = queue.SimpleQueue()
    full: queue.SimpleQueue = queue.SimpleQueue()
    for _ in range(min(2, len(starts))):
        size = min(step, rows)
        free.put([np.empty(size * s.row_bytes, np.uint8) if s.buffered else None for s in sources])

    def read():
        try:
            for start in starts:
                buffers = free.get()
                if buffers is None:
                    break
                stop = min(start + step, rows)
                arrays = [s.read(start, stop, b) for s, b in zip(sources, buffers, strict=True)]
                full.put((buffers, arrays))
        except BaseException as error:
            full.put(error)
        finally:
            for source in sources:
                source.close()

    # A daemon thread, because a read from a pipe or a network may never return.
    thread = threading.Thread(target=read, name="fastloss-reader", daemon=True)
    thread.start()
    try:
        for start in starts:
            item = full.get()
            if isinstance(item, BaseException):
                raise item
            buffers, arrays = item
            yield start, arrays
            free.put(buffers)
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                free.get_nowait()
        free.put(None)
        thread.join(timeout=0.1)
