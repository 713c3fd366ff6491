"""Evaluating a loss over arrays in files, which may be larger than memory.

Reading, computing and reporting are apart: a source (`fastloss.sources`) gives the leading rows
of one array, `_read_ahead` reads a chunk of every source on a thread while the caller computes on
the one before, `evaluate_files` adds up, and the command line prints.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from fastloss import _binding
from fastloss._runtime import get_num_threads, num_threads
from fastloss.sources import Source, named, open_source

__all__ = ["Evaluation", "evaluate_files"]

CHUNK_BYTES = 8 << 20  # of all files together: long enough to hide the hand-over, fits a cache


@dataclass(frozen=True)
class Evaluation:
    """What a loss came to over files, and how long it took.

    `value` is `sum / weight` for the mean; sums and weights of several evaluations add up.
    """

    value: float
    sum: float
    weight: float
    count: int
    rows: int
    seconds: float
    bytes: int
    threads: int
    isa: str


def evaluate_files(
    loss: Any,
    paths: Sequence[str | os.PathLike[str]],
    *,
    reduction: str = "mean",
    per_sample: str | os.PathLike[str] | None = None,
    chunk_rows: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Evaluation:
    """The value of a loss over .npy and .npz files, in memory that does not grow with them.

    Parameters
    ----------
    loss
        A loss of this package, such as `fastloss.cross_entropy`.
    paths
        One file for each array of the loss, in the order of its arguments: a .npy file, a .npz
        file with one member, or ``file.npz:member``. Leading dimensions must agree; a 0-d array
        stands for every row. Memory holds a few rows of every file, at least one block of them;
        of sequences that do not lead with the batch (`batch_first`, labels in rows), all.
    reduction
        ``"mean"``, ``"sum"``, or ``"batchmean"`` where the loss has it.
    per_sample
        A .npy file to write the unreduced losses to. It appears when it is complete.
    chunk_rows
        Rows to read at once, rounded up to a whole block.
    threads
        Number of threads that compute, in place of `fastloss.get_num_threads()`.
    progress
        Called after every chunk with the bytes done and the bytes in all.
    **options
        Options of the loss. ``weight``, ``pos_weight`` and ``sample_weight`` are names of files.

    Returns
    -------
    Evaluation
        Its value has the bits of the loss called once on whole arrays; where all rows share one
        variance, which that call adds up by columns, it agrees to 1e-13.

    Raises
    ------
    ValueError, TypeError, IndexError
        As the loss raises them, positions being those in the files; and ValueError for a file
        that is no .npy or .npz, or shorter than its header says.
    OSError
        For a file that cannot be opened, read or written.
    """
    began = time.perf_counter()
    if len(paths) != len(loss.operands):
        raise TypeError(
            f"{loss.__name__} reads {len(loss.operands)} files ({', '.join(loss.operands)}), "
            f"{len(paths)} given"
        )
    if reduction == "none":
        raise ValueError("reduction='none' has no single value; per_sample names a file for many")
    files = dict(zip(loss.operands, paths, strict=True))
    for name in ("weight", "pos_weight", "sample_weight"):
        if options.get(name) is not None:
            files[name] = options.pop(name)

    with contextlib.ExitStack() as stack:
        if threads is not None:
            stack.enter_context(num_threads(threads))
        opened = stack.enter_context(contextlib.ExitStack())
        sources = {
            name: opened.enter_context(contextlib.closing(open_source(path)))
            for name, path in files.items()
        }
        leader = next((sources[n] for n in loss.operands if sources[n].shape), None)
        leader = leader or sources[loss.operands[0]]
        whole = not _goes_by_rows(loss, sources, options)
        streamed = {
            name: source
            for name, source in sources.items()
            if source is leader or (not whole and _follows(name, source, leader))
        }
        constant = {n: s.read_all() for n, s in sources.items() if n not in streamed}
        step = _rows_per_chunk(loss, leader, streamed.values(), chunk_rows, whole)
        writer = stack.enter_context(_NpyWriter(per_sample)) if per_sample is not None else None
        opened.pop_all()  # from here on the reading thread closes what it reads
        chunks = stack.enter_context(
            contextlib.closing(_read_ahead(list(streamed.values()), leader.rows, step))
        )

        total = sum(source.nbytes for source in sources.values())
        done = sum(array.nbytes for array in constant.values())
        state = _binding.State()
        for chunk in chunks:
            arguments = {**options, **constant, **dict(zip(streamed, chunk, strict=True))}
            with _describing(sources):
                if writer is None:
                    out = None
                elif writer.begun:
                    out = writer.buffer(len(chunk[0]))
                else:  # the loss itself knows the type and shape of what it gives
                    first = np.asarray(loss(**arguments, reduction="none"))
                    out = writer.begin(first, len(first) if whole and first.shape else leader.rows)
                loss._update(state, None, **arguments, reduction=reduction, out=out)
            if writer is not None:
                writer.write(out)
            done += sum(array.nbytes for array in chunk)
            if progress is not None:
                progress(done, total)
        value = state.value(reduction)
        if writer is not None:
            writer.complete()
        return Evaluation(
            value=value,
            sum=state.sum,
            weight=state.weight,
            count=state.count,
            rows=state.rows if whole else leader.rows,
            seconds=time.perf_counter() - began,
            bytes=total,
            threads=get_num_threads(),
            isa=_binding.isa(),
        )


@contextlib.contextmanager
def _describing(sources):
    """Adds the files to an error of the loss, which knows arguments only."""
    try:
        yield
    except (ValueError, TypeError) as error:
        described = ", ".join(f"{name}: {source}" for name, source in sources.items())
        raise type(error)(f"{error} [{described}]") from error


# ---------------------------------------------------------------------------------------- plan


def _goes_by_rows(loss, sources, options) -> bool:
    """Whether the losses of some leading rows are those of a call on them alone.

    Of sequences, that is so if samples lead and each has its row of labels.
    """
    if "input_lengths" not in loss.operands:
        return True
    frames, targets = (sources[name].shape for name in loss.operands[:2])
    return len(frames) == 3 and len(targets) == 2 and bool(options.get("batch_first"))


def _follows(name: str, source: Source, leader: Source) -> bool:
    """Whether an array goes by the leader's rows (True) or stands for all of them (False)."""
    shape, same_ndim = source.shape, len(source.shape) == len(leader.shape)
    if not shape:
        return False
    if name in ("weight", "pos_weight"):  # broadcast to the input, whose last axes they meet
        if not same_ndim or (shape[0] == 1 != leader.rows):
            return False
    elif name == "var" and same_ndim and shape[0] == 1 != leader.rows:
        return False
    if shape[0] != leader.rows:
        raise ValueError(f"leading dimensions differ: {leader} and {source}")
    return True


def _rows_per_chunk(loss, leader, streamed, chunk_rows: int | None, whole: bool) -> int:
    """Rows to read at once: whole blocks, on which the sums of a loss are built."""
    if whole:
        return max(leader.rows, 1)
    if chunk_rows is None:
        chunk_rows = CHUNK_BYTES // max(sum(source.row_bytes for source in streamed), 1)
    elif chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}; it must be at least 1")
    block = max(loss._rows_per_block(leader.shape), 1)
    blocks = max(-(-chunk_rows // block), 1)
    return max(min(blocks * block, leader.rows), 1)


# ------------------------------------------------------------------------------------- reading


def _read_ahead(sources, rows: int, step: int) -> Generator[list[np.ndarray], None, None]:
    """The sources' next `step` rows, again and again, read while the caller works on the last.

    An array is the caller's until it asks for the next. Of no rows at all there is one chunk.
    """
    starts = range(0, max(rows, 1), step)
    free: queue.SimpleQueue = queue.SimpleQueue()
    full: queue.SimpleQueue = queue.SimpleQueue()
    for _ in range(min(2, len(starts))):
        free.put([np.empty(min(step, rows) * source.row_bytes, np.uint8) for source in sources])

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
        for _ in starts:
            item = full.get()
            if isinstance(item, BaseException):
                raise item
            buffers, arrays = item
            yield arrays
            free.put(buffers)
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                free.get_nowait()
        free.put(None)
        thread.join(timeout=0.1)


# ------------------------------------------------------------------------------------- writing


class _NpyWriter:
    """Writes a .npy chunk by chunk under another name, and gives it its own when complete."""

    def __init__(self, path: str | os.PathLike[str]):
        self._name = os.fspath(path)
        self._path = os.path.realpath(self._name)
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise ValueError(f"{self._name} is not a regular file and cannot be replaced")
        folder, base = os.path.split(self._path)
        self._temporary = os.path.join(folder, f".{base}.{os.getpid()}.tmp")
        try:
            self._stream = open(self._temporary, "xb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise named(error, self._name) from error
        self.begun = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self._stream.closed:
            self._stream.close()
            os.unlink(self._temporary)

    def begin(self, first: np.ndarray, rows: int) -> np.ndarray:
        """A buffer like the first chunk, which is the largest."""
        self.begun = True
        self._chunk = np.empty_like(first, order="C")
        shape = (rows, *first.shape[1:]) if first.shape else ()
        header = npy_format.header_data_from_array_1_0(self._chunk) | {"shape": shape}
        try:
            npy_format.write_array_header_1_0(self._stream, header)
        except OSError as error:
            raise named(error, self._name) from error
        return self._chunk

    def buffer(self, rows: int) -> np.ndarray:
        return self._chunk[:rows]

    def write(self, chunk: np.ndarray) -> None:
        data = chunk.reshape(-1).view(np.uint8).data
        try:
            while len(data):
                data = data[self._stream.write(data) :]
        except OSError as error:
            raise named(error, self._name) from error

    def complete(self) -> None:
        self._stream.close()
        os.replace(self._temporary, self._path)
