"""Readers: the data of an evaluation in chunks, either of the rows of arrays or one per batch.

Reading overlaps with computing: `_read_ahead` reads the next chunk of every source on a thread
while the caller computes on the current one.

For an evaluation that may be resumed, a reader keeps checksums of the data that are done, unless
they are in files, whose status identifies them. A resumed evaluation reads these data again and
compares the checksums, so that it never continues the sums of other data.
"""

import contextlib
import math
import numbers
import os
import queue
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastloss._errors import shape_message
from fastloss.evaluation.comparison import (
    BASELINE,
    baseline_arrays,
    check_shape,
)
from fastloss.evaluation.digests import describe, update_crc
from fastloss.evaluation.inputs import (
    ELEMENT_WEIGHTS,
    EvaluationInput,
    array_name,
    batch_by_name,
    class_axis_of,
    element_weights_by_criterion,
    is_row_aligned,
    supports_row_chunks,
)
from fastloss.evaluation.sources import is_path, open_labels, open_source
from fastloss.evaluation.storage import Storage, storage_of, storage_of_source

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
    baseline: dict[str, Any] = field(default_factory=dict)  # as `baseline_arrays` names them
    streamed: dict[Any, Any] = field(default_factory=dict)  # arrays that have these rows, by key


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
        self._operands, self._criteria = inputs.operands, inputs.criteria
        self._losses, self._compares = inputs.losses, inputs.compares
        self._no_weights: list[dict[str, Any]] = [{} for _ in inputs.criteria]
        self._batches: Iterable[Any] = batches
        self._number = 0
        self._trail = _Trail(inputs.operands)

    def fingerprint(self) -> Any:
        return "batches"

    def check_position(self, position: int, rows: Sequence[int], digests: Any) -> None:
        """Raises an error for a state whose parts contradict each other."""
        batches = [mark["batches"] for mark in digests]
        if max(batches, default=0) != position:
            raise ValueError(f"it has done {position} batches, and has checksums of {batches}")

    def storages(self) -> Iterator[Storage]:
        """Where the data are that are read, as far as that is known before a batch is taken."""
        for criterion in self._criteria:
            for name in ELEMENT_WEIGHTS:
                if criterion.get_params().get(name) is not None:
                    yield storage_of(criterion.get_params()[name], name)
        if isinstance(self._batches, (list, tuple)):
            for number, batch in enumerate(self._batches):
                by_name = batch_by_name(self._operands, batch, number, self._compares)
                yield from self._storages({**by_name, **self._baseline(by_name)}, number)

    def chunk_storages(self, chunk: Chunk) -> Iterator[Storage]:
        """Where the data of a batch are, as far as `storages` has not shown them."""
        if not isinstance(self._batches, (list, tuple)):
            by_name = dict(zip(self._operands, chunk.arrays, strict=True))
            by_name |= {"sample_weight": chunk.sample_weight, **chunk.baseline}
            yield from self._storages(by_name, self._number)

    def _baseline(self, by_name: dict[str, Any]) -> dict[str, Any]:
        """The arrays of the baseline of a batch."""
        return baseline_arrays(self._losses, by_name[BASELINE]) if self._compares else {}

    def _storages(self, by_name: dict[str, Any], number: int) -> Iterator[Storage]:
        for name, value in by_name.items():
            if value is not None and not isinstance(value, dict):
                shape = getattr(value, "shape", "unknown")
                yield storage_of(value, f"{name} of batch {number}, of shape {shape}")

    def close(self) -> None:
        pass

    @contextlib.contextmanager
    def annotate_errors(self) -> Iterator[None]:
        """Adds the number of the batch to errors of the loss, whose rows count from batch 0."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error} [in batch {self._number}]") from error

    def record(self, chunk: Chunk) -> None:
        """Adds a chunk that is done to the digests."""
        self._trail.add(chunk.arrays, chunk.sample_weight, chunk.group, chunk.baseline)

    def digests(self) -> Any:
        """JSON-serializable checksums of the batches that were recorded."""
        return self._trail.marks()

    def chunks(self, position: int, digests: Any = None) -> Generator[Chunk, None, None]:
        """The batches from a position on; those before it must have the digests."""
        number = -1
        for number, batch in enumerate(self._batches):
            by_name = batch_by_name(self._operands, batch, number, self._compares)
            baseline = self._baseline(by_name)
            arrays = [by_name[name] for name in self._operands]
            weight, group = by_name.get("sample_weight"), by_name.get("group")
            if number < position:
                self._trail.add(arrays, weight, group, baseline)
                self._trail.check(digests)
                continue
            self._number = number
            read = (*arrays, *baseline.values())
            nbytes = sum(getattr(array, "nbytes", 0) for array in read)
            yield Chunk(arrays, weight, group, self._no_weights, number + 1, nbytes, baseline)
        if number + 1 < position:
            raise ValueError(
                f"there are {number + 1} batches, but the state has done {position}: pass all "
                "batches from the first on, or delete its file to start over"
            )


class _Trail:
    """A running checksum of batches, with marks after 1, 2, 4, 8, ... of them and after the last.

    The marks of two evaluations show after few batches that these are others, and roughly where.
    """

    def __init__(self, operands: Sequence[str]):
        self._names = (*operands, "sample_weight", "group")
        self._marks: list[dict[str, Any]] = []
        self._last: dict[str, Any] = {"batches": 0, "rows": 0, "crc": 0, "last": ""}

    def add(
        self, arrays: Sequence[Any], sample_weight: Any, group: Any, baseline: dict[str, Any]
    ) -> None:
        texts, crc, rows = [], self._last["crc"], None
        values = (*arrays, sample_weight, group)
        by_name = {**dict(zip(self._names, values, strict=True)), **baseline}
        for name, value in by_name.items():
            if value is None:
                continue
            text, array = describe(value, name)
            if rows is None and array.ndim:
                rows = len(array)
            texts.append(f"{name} {text}")
            crc = update_crc(zlib.crc32(texts[-1].encode(), crc), array)
        self._last = {
            "batches": self._last["batches"] + 1,
            "rows": self._last["rows"] + (1 if rows is None else rows),
            "crc": crc,
            "last": ", ".join(texts),
        }
        if self._last["batches"].bit_count() == 1:
            self._marks.append(self._last)

    def marks(self) -> list[dict[str, Any]]:
        return self._marks + ([self._last] if self._last not in self._marks[-1:] else [])

    def check(self, expected: list[dict[str, Any]]) -> None:
        """Raises an error if a mark shows that the batches so far are others."""
        done, first = self._last["batches"], 0
        for mark in expected:
            if mark["batches"] == done:
                break
            first = mark["batches"]
        else:
            return
        if mark == self._last:
            return
        where = f"batch {first}" if first == done - 1 else f"one of batches {first} to {done - 1}"
        if mark["rows"] != self._last["rows"]:
            what = f"up to it there were {mark['rows']} rows, and are {self._last['rows']}"
        elif mark["last"] != self._last["last"]:
            what = f"batch {done - 1} was {mark['last']} and is {self._last['last']}"
        else:
            what = "it holds other values, or the batches come in another order"
        raise ValueError(
            f"{where} is not the one whose losses are in the state: {what}; pass the same batches "
            "from the first on, or delete the file of the state to start over"
        )


# ---- rows of arrays ------------------------------------------------------------------------------


class RowReader:
    """Reads arrays in chunks of whole blocks of their leading axis."""

    def __init__(self, stack: contextlib.ExitStack, inputs: EvaluationInput):
        self._operands, self._criteria_count = inputs.operands, len(inputs.criteria)
        self._class_axis = inputs.class_axis
        arrays = self._arrays = inputs.arrays()
        self._baseline = [key for key in arrays if str(key).split()[0] == BASELINE]
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
        if BASELINE in sources:
            operand = self._operands[0]
            try:
                check_shape(sources[BASELINE].shape, operand, sources[operand].shape)
            except ValueError as error:
                described = f"{operand}: {sources[operand]}, baseline: {sources[BASELINE]}"
                raise ValueError(f"{error} [{described}]") from error
        for source in self._streamed.values():
            if source.rows != leader.rows:
                raise ValueError(
                    f"leading dimensions differ: {leader} and {source}"
                    + self._rows_remedy(leader, source)
                )
        self._constant = {
            key: source.read_all() for key, source in sources.items() if key not in self._streamed
        }
        self.constant_bytes: int = sum(array.nbytes for array in self._constant.values())
        self.nbytes: int = sum(source.nbytes for source in sources.values())
        self.missing_chunks: int = sum(source.missing_chunks for source in sources.values())
        self._check_classes(criteria)
        blocks = [
            criterion.loss._rows_per_block(_loss_shape(criterion, self._class_axis, leader.shape))
            for criterion in criteria
        ]
        self._block = max(leader.rows, 1) if whole else math.lcm(*(max(n, 1) for n in blocks))
        self._step = _rows_per_chunk(
            self._block, leader, self._streamed.values(), chunk_rows, whole
        )
        self._crcs: dict[Any, int] = {}  # of the rows that are done, of arrays in memory

    def _rows_remedy(self, leader, source) -> str:
        """How to make the leading dimensions equal, if the rows of one array are flat."""
        for a, b in [(leader, source), (source, leader)]:
            key = next(key for key, value in self._sources.items() if value is b)
            verb = "store" if is_path(self._arrays[key]) else "pass"
            if math.prod(b.shape) == a.rows:
                return f"; {verb} {array_name(key)}.reshape(-1)"
            if b.shape and math.prod(b.shape[:-1]) == a.rows and len(b.shape) > 2:
                return f"; {verb} {array_name(key)}.reshape(-1, {b.shape[-1]})"
        return ""

    def _check_classes(self, criteria):
        """Raises an error for shapes that do not fit the axis of the classes."""
        if self._class_axis is not None and any(c.loss.row_axis == 1 for c in criteria):
            input, target = (self._sources[name] for name in self._operands[:2])
            try:
                class_axis_of(self._class_axis, input.shape, target.shape)
            except ValueError as error:
                raise ValueError(f"{error} [input: {input}, target: {target}]") from error

    def fingerprint(self) -> dict[str, Any]:
        """The identity of each array; starts the checksums of those that only these identify."""
        identity = {}
        for key, source in self._sources.items():
            entry = identity[_key_text(key)] = source.fingerprint()
            if is_path(self._arrays[key]) and "mtime_ns" in entry:
                continue
            if key in self._constant:
                entry["type"], array = describe(self._constant[key], array_name(key))
                entry["crc"] = update_crc(0, array)
            else:
                self._crcs[key] = 0
        return identity

    def check_position(self, position: int, rows: Sequence[int], digests: Any) -> None:
        """Raises an error for a state whose parts contradict each other.

        `rows` holds the number of rows of each accumulator and of each writer.
        """
        if position == max(self._leader.rows, 1):
            return  # several rows may be one row of classes
        if position % self._block:
            raise ValueError(f"row {position} is not the start of a block of {self._block} rows")
        if any(count != position for count in rows):
            raise ValueError(f"it has done {position} rows, and has sums and losses of {rows}")
        if digests.keys() != self.digests().keys():
            raise ValueError(f"it has checksums of {list(digests)}")

    def storages(self) -> Iterator[Storage]:
        """Where the data are that are read."""
        return map(storage_of_source, self._sources.values())

    def chunk_storages(self, chunk: Chunk) -> Iterable[Storage]:
        """Where the data of a chunk are, as far as `storages` has not shown them."""
        return ()

    def close(self) -> None:
        for source in self._sources.values():
            source.close()

    def record(self, chunk: Chunk) -> None:
        """Adds a chunk that is done to the digests."""
        for key in self._crcs:
            self._crcs[key] = update_crc(self._crcs[key], chunk.streamed[key])

    def digests(self) -> Any:
        """JSON-serializable checksums of the rows that were recorded."""
        return {_key_text(key): crc for key, crc in self._crcs.items()}

    def _check_digests(self, position: int, digests: Any) -> None:
        """Reads the rows before a position again, unless files identify them."""
        sources = {key: self._sources[key] for key in self._crcs}
        rows = min(self._step, position)
        buffers = {
            key: np.empty(rows * source.row_bytes, np.uint8) if source.buffered else None
            for key, source in sources.items()
        }
        for start in range(0, position, self._step):
            stop = min(start + self._step, position)
            for key, source in sources.items():
                array = source.read(start, stop, buffers[key])
                self._crcs[key] = update_crc(self._crcs[key], array)
        for key in self._crcs:
            if digests.get(_key_text(key)) != self._crcs[key]:
                raise ValueError(
                    f"rows 0 to {position - 1} of {self._sources[key]} are not those whose losses "
                    "are in the state: pass the same data, or delete its file to start over"
                )

    @contextlib.contextmanager
    def annotate_errors(self) -> Iterator[None]:
        """Adds the arrays to errors of the loss, which knows the names of arguments only."""
        try:
            yield
        except (ValueError, TypeError) as error:
            arrays = ", ".join(
                f"{array_name(key)}: {source}" for key, source in self._sources.items()
            )
            shapes = {array_name(key): source.shape for key, source in self._sources.items()}
            stored = [array_name(key) for key in self._sources if is_path(self._arrays[key])]
            message = shape_message(error, shapes, stored)
            raise type(error)(f"{message} [{arrays}]") from error

    def chunks(self, position: int, digests: Any = None) -> Generator[Chunk, None, None]:
        """The rows from a position on, which must be the end of a chunk; closes the sources.

        The rows before it must have the digests.
        """
        sources, rows = list(self._streamed.values()), self._leader.rows
        try:
            if position > max(rows, 1):
                raise ValueError(
                    f"the state has done {position} rows, but there are fewer: {self._leader}"
                )
            if position:
                self._check_digests(min(position, rows), digests)
        except BaseException:
            self.close()
            raise
        read = _read_ahead if any(source.buffered for source in sources) else _read_slices
        with contextlib.closing(read(sources, rows, self._step, position)) as slices:
            for start, streamed in slices:
                by_key = dict(zip(self._streamed, streamed, strict=True))
                arrays = {**self._constant, **by_key}
                yield Chunk(
                    [arrays[name] for name in self._operands],
                    arrays.get("sample_weight"),
                    arrays.get("by"),
                    element_weights_by_criterion(arrays, self._criteria_count),
                    min(start + self._step, max(rows, 1)),
                    sum(array.nbytes for array in streamed),
                    {key: arrays[key] for key in self._baseline},
                    by_key,
                )


def _loss_shape(criterion: Any, class_axis: int | None, shape: tuple[int, ...]) -> Any:
    """The shape of the input as the loss sees it."""
    if class_axis is None or criterion.loss.row_axis != 1 or len(shape) < 2:
        return shape
    axis = class_axis % len(shape)
    return (shape[0], shape[axis], *shape[1:axis], *shape[axis + 1 :])


def _key_text(key: Any) -> str:
    return key if isinstance(key, str) else f"{key[1]} {key[0]}"


def _rows_per_chunk(block: int, leader, streamed, chunk_rows: int | None, whole: bool) -> int:
    """Rows to read at once: a multiple of `block`, the blocks over which all losses form sums."""
    if whole:
        return max(leader.rows, 1)
    if chunk_rows is None:
        chunk_rows = _chunk_bytes() // max(sum(source.row_bytes for source in streamed), 1)
    elif not isinstance(chunk_rows, numbers.Integral):
        raise TypeError(f"chunk_rows must be an integer, got {chunk_rows!r}")
    elif chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}; it must be at least 1")
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
