"""The data of an evaluation, chunk by chunk: arrays that are cut by rows, or batches.

Reading and computing overlap: `_read_ahead` reads a chunk of every source on a thread while the
caller works on the one before.
"""

import contextlib
import math
import numbers
import os
import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastloss._arrays import is_dask
from fastloss.criteria import Criterion
from fastloss.evaluation.accumulators import as_labels
from fastloss.evaluation.sources import checksum, open_source

CHUNK_BYTES = 8 << 20  # of all arrays together, at most: long enough to hide the hand-over
WEIGHTS = ("weight", "pos_weight")


@dataclass
class Given:
    """What there is to evaluate: arrays or batches. `kind` of groups: None, "class" or "group"."""

    criteria: list[Criterion]
    data: tuple[Any, ...]
    sample_weight: Any
    kind: Literal["class", "group"] | None
    labels: Any  # of the groups, None where batches hold them
    chunk_rows: int | None

    @property
    def operands(self) -> tuple[str, ...]:
        return self.criteria[0].loss.operands

    def are_batches(self) -> bool:
        """Whether the data are batches (True) or the arrays of the loss (False)."""
        if len(self.data) == 1 and len(self.operands) > 1:
            beside = (self.sample_weight, self.labels, self.chunk_rows)
            if any(option is not None for option in beside):
                raise TypeError(
                    "sample_weight, labels in by and chunk_rows go with arrays: batches hold their "
                    "own, as dicts with sample_weight and group"
                )
            return True
        if self.kind == "group" and self.labels is None:
            raise TypeError("by='group' goes with batches that name their group: give the labels")
        if len(self.data) != len(self.operands):
            raise TypeError(
                f"{self.criteria[0].loss.__name__} reads {len(self.operands)} arrays "
                f"({', '.join(self.operands)}) or one iterable of batches, {len(self.data)} given"
            )
        return False

    def arrays(self) -> dict[Any, Any]:
        """The arrays by name; weights of elements by the number of their criterion and name."""
        found: dict[Any, Any] = dict(zip(self.operands, self.data, strict=False))
        found |= {"sample_weight": self.sample_weight, "by": self.labels}
        for k, criterion in enumerate(self.criteria):
            found |= {(k, name): criterion.get_params().get(name) for name in WEIGHTS}
        return {key: value for key, value in found.items() if value is not None}

    def on_dask(self) -> bool:
        """Whether there is a collection of Dask among the arrays, or in a list of batches."""
        listed = self.data[0] if len(self.data) == 1 else ()
        batches = listed if isinstance(listed, (list, tuple)) else ()
        return any(map(is_dask, (*self.arrays().values(), *batches)))


@dataclass
class Chunk:
    """Some rows, or a batch: `weights` are those of elements, of each criterion by name."""

    arrays: list[Any]
    sample_weight: Any
    group: Any
    weights: list[dict[str, Any]]
    place: int  # in the feed, behind it
    nbytes: int


def open_feed(stack: contextlib.ExitStack, given: Given) -> "Batches | Rows":
    """The data as chunks. `stack` closes what is open, should it not come to reading."""
    return Batches(given) if given.are_batches() else Rows(stack, given)


class Batches:
    """An iterable of batches, each taken when the one before is done with."""

    nbytes = None
    constant_bytes = 0

    def __init__(self, given: Given):
        (batches,) = given.data
        if isinstance(batches, (str, os.PathLike, np.ndarray)) or not hasattr(batches, "__iter__"):
            raise TypeError(
                f"the data is one {type(batches).__name__}: {given.criteria[0].loss.__name__} "
                f"reads {', '.join(given.operands)}, or an iterable of batches"
            )
        self._operands = given.operands
        self._none: list[dict[str, Any]] = [{} for _ in given.criteria]
        self._batches: Iterable[Any] = batches
        self._number = 0

    def fingerprint(self) -> Any:
        return "batches"

    @contextlib.contextmanager
    def describing(self):
        """Adds the batch to an error of the loss, which counts rows over all of them."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error} [in batch {self._number}]") from error

    def chunks(self, done: int) -> Generator[Chunk, None, None]:
        number = -1
        for number, batch in enumerate(self._batches):
            if number < done:
                continue
            self._number = number
            named_arrays = named_batch(self._operands, batch, number)
            arrays = [named_arrays[name] for name in self._operands]
            nbytes = sum(getattr(array, "nbytes", 0) for array in arrays)
            yield Chunk(
                arrays,
                named_arrays.get("sample_weight"),
                named_arrays.get("group"),
                self._none,
                number + 1,
                nbytes,
            )
        if number + 1 < done:
            raise ValueError(
                f"there are {number + 1} batches, and {done} are done by the state: delete its "
                "file to begin anew"
            )


def named_batch(operands: tuple[str, ...], batch: Any, number: int) -> dict[str, Any]:
    """The arrays of a batch by name, which may have sample_weight and group."""
    names = (*operands, "sample_weight")
    if isinstance(batch, dict):
        unknown = set(batch) - {*names, "group"}
        if not unknown and set(operands) <= set(batch):
            return batch
    elif isinstance(batch, (tuple, list)) and len(batch) in (len(names) - 1, len(names)):
        return dict(zip(names, batch, strict=False))
    what = f"a {type(batch).__name__}"
    if isinstance(batch, dict):
        what += f" of {', '.join(map(str, batch)) or 'nothing'}"
    elif isinstance(batch, (tuple, list)):
        what += f" of {len(batch)}"
    raise TypeError(
        f"batch {number} is {what}: it must be a tuple of {', '.join(operands)} "
        "(and sample_weight), or a dict of them"
    )


class Rows:
    """Arrays that are cut along their leading axis."""

    def __init__(self, stack: contextlib.ExitStack, given: Given):
        self._names, self._count = given.operands, len(given.criteria)
        opened = stack.enter_context(contextlib.ExitStack())
        self._sources = {}
        for key, value in given.arrays().items():
            open_it = _open_labels if key == "by" else open_source
            source = open_it(value, key if isinstance(key, str) else key[1])
            self._sources[key] = opened.enter_context(contextlib.closing(source))
        self._plan(given.criteria, given.chunk_rows)
        weak = {k: v for k, v in given.arrays().items() if isinstance(v, (int, float))}
        self._constant |= {key: weak[key] for key in self._constant if key in weak}
        opened.pop_all()  # from here on the chunks close what they read

    def _plan(self, chosen, chunk_rows):
        sources = self._sources
        leaders = (sources[name] for name in self._names if sources[name].shape)
        leader = self._leader = next(leaders, sources[self._names[0]])
        ndims = [len(sources[name].shape) for name in self._names[:2]]
        whole = not all(goes_by_rows(criterion, *ndims) for criterion in chosen)
        self._streamed = {
            key: source
            for key, source in sources.items()
            if source is leader or (not whole and follows(key, source.shape, leader.shape))
        }
        for source in self._streamed.values():
            if source.rows != leader.rows:
                raise ValueError(f"leading dimensions differ: {leader} and {source}")
        self._constant = {
            key: source.read_all() for key, source in sources.items() if key not in self._streamed
        }
        self.constant_bytes = sum(array.nbytes for array in self._constant.values())
        self.nbytes = sum(source.nbytes for source in sources.values())
        blocks = [c.loss._rows_per_block(leader.shape) for c in chosen]
        self.step = _rows_per_chunk(blocks, leader, self._streamed.values(), chunk_rows, whole)

    def fingerprint(self) -> dict[str, Any]:
        return {
            key if isinstance(key, str) else f"{key[1]} {key[0]}": source.fingerprint()
            for key, source in self._sources.items()
        }

    @contextlib.contextmanager
    def describing(self):
        """Adds the arrays to an error of the loss, which knows arguments only."""
        try:
            yield
        except (ValueError, TypeError) as error:
            described = ", ".join(
                f"{key if isinstance(key, str) else key[1]}: {source}"
                for key, source in self._sources.items()
            )
            raise type(error)(f"{error} [{described}]") from error

    def chunks(self, done: int) -> Generator[Chunk, None, None]:
        sources = list(self._streamed.values())
        if done > max(self._leader.rows, 1):
            raise ValueError(
                f"{done} rows are done by the state, and there are fewer: {self._leader}"
            )
        cut = _read_ahead if any(source.buffered for source in sources) else _slices
        with contextlib.closing(cut(sources, self._leader.rows, self.step, done)) as pieces:
            for start, arrays in pieces:
                at = {**self._constant, **dict(zip(self._streamed, arrays, strict=True))}
                yield Chunk(
                    [at[name] for name in self._names],
                    at.get("sample_weight"),
                    at.get("by"),
                    [
                        {name: at[k, name] for name in WEIGHTS if (k, name) in at}
                        for k in range(self._count)
                    ],
                    min(start + self.step, max(self._leader.rows, 1)),
                    sum(array.nbytes for array in arrays),
                )


def goes_by_rows(criterion: Criterion, frames_ndim: int, targets_ndim: int) -> bool:
    """Whether the losses of some leading rows are those of a call on them alone.

    Of sequences, that is so if samples lead and each has its row of labels.
    """
    if "input_lengths" not in criterion.loss.operands:
        return True
    return frames_ndim == 3 and targets_ndim == 2 and bool(criterion.get_params()["batch_first"])


def follows(key: Any, shape: tuple[int, ...], leader: tuple[int, ...]) -> bool:
    """Whether an array goes by the leader's rows (True) or stands for all of them (False)."""
    if not shape:
        return False
    same_ndim = len(shape) == len(leader)
    one_for_all = same_ndim and shape[0] == 1 != leader[0]
    if isinstance(key, tuple):  # weights broadcast to the input, whose last axes they meet
        return same_ndim and not one_for_all
    return not (key == "var" and one_for_all)


def _rows_per_chunk(blocks, leader, streamed, chunk_rows: int | None, whole: bool) -> int:
    """Rows to read at once: whole blocks, on which the sums of each loss are built."""
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
    """A quarter of the last cache: two chunks, and what is computed of one, fit in it."""
    try:
        cache = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        cache = 0
    return min(cache // 4, CHUNK_BYTES) if cache >= CHUNK_BYTES else CHUNK_BYTES


class _Labels:
    """Labels of groups in memory, which may be strings."""

    buffered = False
    row_bytes = 0

    def __init__(self, labels: np.ndarray):
        self._labels, self.shape = labels, labels.shape
        self.rows, self.nbytes = (labels.shape[0] if labels.shape else 1), labels.nbytes

    def __str__(self):
        return f"by {self._labels.dtype}{list(self.shape)}"

    def read(self, start: int, stop: int, buffer: Any) -> np.ndarray:
        return self._labels[start:stop] if self.shape else self._labels

    def read_all(self) -> np.ndarray:
        return self._labels

    def close(self) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        crc = checksum(self._labels)
        return {"shape": list(self.shape), "dtype": str(self._labels.dtype), "crc": crc}


def _open_labels(by: Any, name: str) -> Any:
    if isinstance(by, (str, os.PathLike)):
        return open_source(by, name)
    labels = by if isinstance(getattr(by, "dtype", None), np.dtype) else as_labels(by, name)
    strings = labels.dtype.kind in "UTO"
    return _Labels(as_labels(labels, name)) if strings else open_source(labels, name)


# -------------------------------------------------------------------------------------- reading


def _starts(rows: int, step: int, done: int) -> range:
    """Of no rows at all there is one chunk."""
    return range(done, max(rows, 1), step)


def _slices(sources, rows: int, step: int, done: int) -> Generator[Any, None, None]:
    """The sources' next `step` rows, again and again, where they need no buffer."""
    try:
        for start in _starts(rows, step, done):
            yield start, [source.read(start, min(start + step, rows), None) for source in sources]
    finally:
        for source in sources:
            source.close()


def _read_ahead(sources, rows: int, step: int, done: int) -> Generator[Any, None, None]:
    """The same, read into buffers while the caller works on what came before.

    An array is the caller's until it asks for the next.
    """
    starts = _starts(rows, step, done)
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

    # A daemon, as a read from a pipe or a network may never come back.
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
