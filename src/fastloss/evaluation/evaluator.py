"""`evaluate`: one pass of criteria over data of any size.

A reader cuts the data into chunks, accumulators sum the losses of each chunk, and writers store
unreduced losses. Between chunks, a checkpoint saves the position and the sums.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

from fastloss import _binding
from fastloss._binding import Loss
from fastloss._runtime import num_threads
from fastloss._version import __version__
from fastloss.criteria import Criterion
from fastloss.evaluation.accumulators import Accumulator
from fastloss.evaluation.checkpoint import CheckpointFile
from fastloss.evaluation.chunks import Chunk, open_reader
from fastloss.evaluation.comparison import with_baseline
from fastloss.evaluation.criterion_set import CriterionSet
from fastloss.evaluation.inputs import EvaluationInput, with_classes_moved
from fastloss.evaluation.progress import progress_callback
from fastloss.evaluation.remarks import remarks
from fastloss.evaluation.results import Evaluation
from fastloss.evaluation.sources import MISSING_CHUNKS
from fastloss.evaluation.storage import (
    Storage,
    check_not_read,
    check_state_file,
    storages_of_targets,
)
from fastloss.evaluation.writers import NpyWriter, open_writer

__all__ = ["evaluate"]

_Key = TypeVar("_Key")

CHECKPOINT_SECONDS = 1.0  # the least time between two checkpoints
CHECKPOINT_FRACTION = 0.02  # the largest fraction of the time that is spent on them


@overload
def evaluate(
    criterion: Criterion | Loss,
    *data: Any,
    sample_weight: Any = None,
    by: Any = None,
    per_sample: Any = None,
    state: str | os.PathLike[str] | None = None,
    chunk_rows: int | None = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int | None], None] = False,
    missing_chunks: Literal["warn", "error", "fill"] | None = None,
    class_axis: int | None = None,
    baseline: Any = None,
) -> Evaluation: ...
@overload
def evaluate(
    criterion: Sequence[Criterion | Loss],
    *data: Any,
    sample_weight: Any = None,
    by: Any = None,
    per_sample: Any = None,
    state: str | os.PathLike[str] | None = None,
    chunk_rows: int | None = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int | None], None] = False,
    missing_chunks: Literal["warn", "error", "fill"] | None = None,
    class_axis: int | None = None,
    baseline: Any = None,
) -> list[Evaluation]: ...
@overload
def evaluate(
    criterion: Mapping[_Key, Criterion | Loss],
    *data: Any,
    sample_weight: Any = None,
    by: Any = None,
    per_sample: Any = None,
    state: str | os.PathLike[str] | None = None,
    chunk_rows: int | None = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int | None], None] = False,
    missing_chunks: Literal["warn", "error", "fill"] | None = None,
    class_axis: int | None = None,
    baseline: Any = None,
) -> dict[_Key, Evaluation]: ...
def evaluate(
    criterion: Any,
    *data: Any,
    sample_weight: Any = None,
    by: Any = None,
    per_sample: Any = None,
    state: str | os.PathLike[str] | None = None,
    chunk_rows: int | None = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int | None], None] = False,
    missing_chunks: Literal["warn", "error", "fill"] | None = None,
    class_axis: int | None = None,
    baseline: Any = None,
) -> Any:
    """Evaluates criteria over data of any size, in memory that does not grow with the data.

    Parameters
    ----------
    criterion : Criterion or Loss, or a list or dict of them
        The criterion, such as ``fl.CrossEntropyLoss(label_smoothing=0.1)``. A loss is replaced by
        its criterion with default options. Several criteria are evaluated in one pass.
    *data
        The arrays of the loss, in order. Each is a NumPy array or memory map, a dataset of HDF5 or
        Zarr, a column of Arrow, a Dask array, any object with a shape that can be sliced, or the
        name of a file: ``x.npy``, ``x.npz:name``, ``x.h5:name``, ``x.zarr:name``,
        ``x.parquet:column``, ``x.arrow:column``, ``x.csv:column``, ``x.jsonl:column``, or of a
        folder of such tables. A list of names or a pattern (``x_*.npy``) is one array. Leading
        dimensions must be equal; a scalar or a 0-d array applies to every row.
        Alternatively, one iterable of batches. A batch is a tuple of the arrays, followed by the
        sample weights if there are any, or a dict of them by name, which may have
        ``sample_weight`` and ``group``. Batches are taken one at a time on the calling thread and
        may reuse the memory of the previous one. Or a list of ``dask.delayed`` tuples.
    sample_weight
        Weights of the losses, as in a call of the loss; anything that `data` may be.
    by : "class", "group", or labels like one of the arrays, optional
        Also sums the losses of each class of the targets, or of each group. Labels are integers,
        floats, strings or dates, one per loss or one per row, in memory or in a file; dates become
        strings in ISO 8601. With "group", each batch has its own labels.
    per_sample : path or array, or a list or dict of them like `criterion`, optional
        Where to write the unreduced losses: a .npy file, which appears when it is complete, or an
        array, memory map or dataset, which is filled chunk by chunk. It must not be a file or
        memory that is read.
    state : path, optional
        Checkpoint file, for one evaluation at a time. If it exists, the evaluation resumes from it,
        and the result is bitwise the same as without the interruption. The data must be the same,
        from the first row or batch on: files are recognised by their status; arrays and batches
        that are done are read again and compared by checksums. The file is deleted on completion.
    chunk_rows : int, optional
        Number of rows to read at once, rounded up to whole blocks. By default, chunks fit into the
        last-level cache.
    threads : int, optional
        Number of threads that compute, by default `fastloss.get_num_threads()`. With Dask, the
        number for each block, by default 1 if the scheduler runs blocks concurrently.
    progress : bool or callable, default False
        Whether to show a tqdm bar. A callable is called after every chunk with the number of bytes
        done and their total, or None if the total is unknown.
    missing_chunks : {"warn", "error", "fill"}, optional
        What to do about chunks of Zarr or HDF5 that are absent, which are read as the fill value:
        with "warn", the default, or "fill", their number is in a warning and in the result; with
        "error" they are an error. If the fill value is NaN or null, they are always an error.
        Other files that hold the data of an HDF5 dataset, which are the sources of a virtual
        dataset and external files, are an error if they are absent or too small, unless
        `missing_chunks` is "fill".
    class_axis : int, optional
        Axis of the classes in `input`, and in a `target` of probabilities, for losses that expect
        them on axis 1 (``cross_entropy``, ``nll_loss``): -1 for logits of shape (batch, time,
        classes) with labels of shape (batch, time). The arrays are not copied, and the value is
        bitwise the one of a call with ``np.moveaxis(input, class_axis, 1)``. Axis 0 is the axis of
        the rows.
    baseline : array, dict of arrays, or True, optional
        Another prediction for the same targets, anything that `input` may be: the result then also
        has its losses and the paired difference, see Notes. It has the shape of the first array of
        the loss, or is 0-d, such as a constant prediction. Its dtype may differ: each loss is
        computed as in a call of its own. A dict has the arrays that differ by name, such as
        ``{"input": ..., "var": ...}``; losses of several predictions, such as
        ``triplet_margin_loss``, require one. With True, each batch is a dict that has the
        prediction as ``baseline``.

    Returns
    -------
    Evaluation
        Or a list or dict of them, like `criterion`. Values are bitwise identical to one call on the
        whole arrays, with three exceptions that agree to 1e-13 of the sum of absolute losses: a
        variance shared by all rows (one call sums by columns), batches that are not whole blocks,
        and Dask. `Evaluation.remarks` names contradictions between the first chunk and a criterion,
        such as probabilities for a loss of logits.

    Raises
    ------
    ValueError, TypeError, IndexError
        As in a call of the loss, with positions in the data; for files that are damaged, of an
        unknown format, or written to while they are read; for a `per_sample` that is also read; and
        for a `state` that is damaged, in use, or of an evaluation of other data.
    OSError
        If a file cannot be opened, read or written.
    ImportError
        If the package that reads the data is not installed.

    See Also
    --------
    fastloss.Accumulator : The same for a loop over batches of your own.

    Notes
    -----
    With a `baseline`, let l and b be the losses of input and baseline, multiplied by their weights,
    d the contribution of each to the divisor of the mean, e = l − b and n their number.
    `Evaluation.difference` is m = Σ e / Σ d, with the standard error of paired samples
    √(n/(n − 1) Σ (e − m d)²) / Σ d. It is negative if `input` has the smaller loss. Each e is
    formed in float64, and their sum in double-double arithmetic, within 1e-13 of the sum of the
    absolute losses of both. It does not depend on threads, chunks or the sizes of batches. Two
    infinite losses of one row have the difference NaN. The standard error assumes independent rows.
    The pixels of an image and the tokens of a text are dependent, and the standard error is then
    too small: compare one loss for each image or text. `per_sample` writes the losses of the input.

    Examples
    --------
    >>> import fastloss as fl
    >>> import numpy as np
    >>> x = np.array([[2.0, 0.5], [0.1, 3.0], [1.0, 1.0]])
    >>> result = fl.evaluate(fl.CrossEntropyLoss(), x, np.array([0, 1, 1]), by="class")
    >>> result.value == fl.cross_entropy(x, [0, 1, 1])
    True
    >>> result.groups[0].count, result.groups[1].count
    (1, 2)
    >>> batches = ((x[k : k + 1], [1]) for k in range(3))
    >>> both = fl.evaluate({"ce": fl.cross_entropy, "margin": fl.multi_margin_loss}, batches)
    >>> round(both["margin"].value, 6)
    0.583333

    Which of two models is better:

    >>> old = np.array([[1.0, 0.8], [0.5, 1.0], [1.0, 0.9]])
    >>> result = fl.evaluate(fl.CrossEntropyLoss(), x, np.array([0, 1, 1]), baseline=old)
    >>> result.baseline.value == fl.cross_entropy(old, [0, 1, 1])
    True
    >>> print(f"{result.difference.value:.3f} ± {result.difference.stderr:.3f}")
    -0.289 ± 0.119
    """
    start = time.perf_counter()
    criterion_set = CriterionSet(criterion)
    if missing_chunks not in (None, *MISSING_CHUNKS):
        names = ", ".join(map(repr, MISSING_CHUNKS))
        raise ValueError(f"missing_chunks must be one of {names}, got {missing_chunks!r}")
    labels = None
    if not (by is None or (isinstance(by, str) and by in ("class", "group"))):
        by, labels = "group", by
    with contextlib.ExitStack() as stack:
        if threads is not None:
            stack.enter_context(num_threads(threads))
        criteria = criterion_set.criteria
        inputs = EvaluationInput(
            criteria,
            data,
            sample_weight,
            by,
            labels,
            chunk_rows,
            missing_chunks,
            class_axis,
            baseline,
        )
        if inputs.on_dask():
            from fastloss.evaluation.dask import evaluate_dask

            partial = evaluate_dask(
                inputs, threads, per_sample=per_sample, state=state, progress=progress
            )
            seconds = time.perf_counter() - start
            results = [Evaluation._of(a, seconds, partial.nbytes) for a in partial.accumulators]
            return criterion_set.restructure(results)
        targets = criterion_set.broadcast_option(per_sample, "per_sample")
        checkpoint_file = None if state is None else stack.enter_context(CheckpointFile(state))
        reader = open_reader(stack, inputs)
        evaluator = _Evaluator(inputs, reader, checkpoint_file, start)
        try:
            evaluator.check_storage(targets)
            evaluator.open_writers(stack, targets)
        except BaseException:
            reader.close()
            raise
        evaluator.run(stack.enter_context(progress_callback(progress)))
        return criterion_set.restructure(evaluator.results())


class _Evaluator:
    """The accumulators and writers of one evaluation, from its start or checkpoint to its end."""

    def __init__(self, inputs, reader, checkpoint_file, start):
        criteria, by = inputs.criteria, inputs.by
        self._reader, self._start = reader, start
        self._class_axis = inputs.class_axis
        self._operands, self._compares = inputs.operands, inputs.compares
        self._accumulators = [
            criterion.accumulator(by=by, baseline=inputs.compares) for criterion in criteria
        ]
        self._writers: list[Any] = [None] * len(criteria)
        self._target_storages: list[Storage] = []
        self._position, self._bytes = 0, reader.constant_bytes
        self._digests: Any = None  # of the data before the position
        self._seconds_before = 0.0  # of the interrupted evaluation
        self._checkpoint_file = checkpoint_file
        self._next_checkpoint = start
        self._remarks: list[tuple[str, ...]] = []  # of each criterion, on the first chunk
        self._chunk_is_partial = False  # added to some accumulators and not yet to others
        self._has_progress = False  # since the start or the checkpoint

    def check_storage(self, targets) -> None:
        """Raises an error if what is written would destroy what is read."""
        storages = self._target_storages = storages_of_targets(targets)
        if storages or self._checkpoint_file is not None:
            inputs = list(self._reader.storages())
            check_not_read(storages, inputs)
            if self._checkpoint_file is not None:
                check_state_file(self._checkpoint_file.name, storages, inputs)

    def open_writers(self, stack, targets) -> None:
        """Opens the writers, and restores the accumulators from the checkpoint if there is one."""
        file = self._checkpoint_file
        checkpoint = None if file is None else file.load()
        if file is not None:
            parts = {
                "baseline": self._compares,
                "criteria": [_accumulator_identity(a) for a in self._accumulators],
                "data": self._reader.fingerprint(),
                "per_sample": [_target_identity(target) for target in targets],
                "arithmetic": _arithmetic(),
            }
            if self._class_axis is not None:
                parts["class_axis"] = self._class_axis
            file.identity = json.loads(json.dumps(parts))
        if checkpoint:
            file.check_identity(checkpoint)
            self._restore(checkpoint, targets)
        written = checkpoint["written"] if checkpoint else [None] * len(targets)
        for k, target in enumerate(targets):
            if target is not None:
                writer = open_writer(target, None if file is None else file.path, written[k])
                self._writers[k] = stack.enter_context(writer)

    def _restore(self, checkpoint, targets) -> None:
        """Continues from a checkpoint of this evaluation."""
        position = checkpoint["position"]
        try:
            for accumulator, state in zip(
                self._accumulators, checkpoint["accumulators"], strict=True
            ):
                accumulator._restore_sums(state)
            for k, (target, losses) in enumerate(zip(targets, checkpoint["written"], strict=True)):
                if target is not None and losses is None:
                    raise ValueError(f"it has written no losses of criterion {k}")
            rows = [accumulator.rows for accumulator in self._accumulators]
            rows += [losses["rows"] for losses in checkpoint["written"] if losses is not None]
            self._reader.check_position(position, rows, checkpoint["digests"])
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            name = self._checkpoint_file.name
            raise ValueError(f"{name} is not the state of an evaluation: {error}") from error
        self._position, self._bytes = position, checkpoint["bytes"]
        self._digests, self._seconds_before = checkpoint["digests"], checkpoint["seconds"]

    def run(self, report) -> None:
        """Reads and evaluates all chunks; `report` is called after each."""
        with contextlib.closing(self._reader.chunks(self._position, self._digests)) as chunks:
            try:
                for chunk in chunks:
                    self._add_chunk(chunk)
                    report(self._bytes, self._reader.nbytes)
                    self._maybe_checkpoint()
            except BaseException:
                if self._has_progress and not self._chunk_is_partial:
                    self._save_checkpoint()
                raise
        if any(isinstance(writer, NpyWriter) for writer in self._writers):
            self._save_checkpoint()  # a kill may leave some of the files complete
        writers = [writer for writer in self._writers if writer is not None]
        for writer in writers:
            writer.finish()
        for writer in writers:
            writer.publish()
        if self._checkpoint_file is not None:
            self._checkpoint_file.remove()

    def _add_chunk(self, chunk: Chunk) -> None:
        self._chunk_is_partial = True
        if self._target_storages:
            check_not_read(self._target_storages, self._reader.chunk_storages(chunk))
        baseline = None
        if self._compares:
            baseline = with_baseline(self._operands, chunk.arrays, chunk.baseline)
        for k, accumulator in enumerate(self._accumulators):
            criterion, axis = accumulator.criterion, self._class_axis
            with self._reader.annotate_errors():
                losses = accumulator._add_batch(
                    with_classes_moved(criterion, axis, chunk.arrays),
                    chunk.sample_weight,
                    chunk.group,
                    chunk.element_weights[k],
                    unreduced=self._writers[k] is not None,
                    baseline=baseline and with_classes_moved(criterion, axis, baseline),
                )
                if losses is not None:
                    self._writers[k].write(losses)
        if not self._remarks:
            self._remarks = [
                remarks(a.criterion, chunk.arrays)
                + tuple(f"baseline: {text}" for text in remarks(a.criterion, baseline or ()))
                for a in self._accumulators
            ]
        if self._checkpoint_file is not None:
            self._reader.record(chunk)
        self._position, self._bytes = chunk.next_position, self._bytes + chunk.nbytes
        self._has_progress, self._chunk_is_partial = True, False

    def _maybe_checkpoint(self) -> None:
        if self._checkpoint_file is None or time.perf_counter() < self._next_checkpoint:
            return
        start = time.perf_counter()
        self._save_checkpoint()
        end = time.perf_counter()
        interval = max(CHECKPOINT_SECONDS, (end - start) / CHECKPOINT_FRACTION)
        self._next_checkpoint = end + interval

    def _save_checkpoint(self) -> None:
        if self._checkpoint_file is None:
            return
        for writer in self._writers:
            if writer is not None:
                writer.flush()
        self._checkpoint_file.save(
            position=self._position,
            bytes=self._bytes,
            seconds=self._seconds(),
            digests=self._reader.digests(),
            written=[writer and writer.record() for writer in self._writers],
            accumulators=[accumulator.to_dict() for accumulator in self._accumulators],
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._start

    def results(self) -> list[Evaluation]:
        seconds = self._seconds()
        missing = self._reader.missing_chunks
        remarks_of = self._remarks or [()] * len(self._accumulators)
        return [
            Evaluation._of(accumulator, seconds, self._bytes, missing, found)
            for accumulator, found in zip(self._accumulators, remarks_of, strict=True)
        ]


def _accumulator_identity(accumulator: Accumulator) -> dict[str, Any]:
    """The criterion and the groups of an accumulator, without its sums."""
    state = accumulator.to_dict()
    return {name: state[name] for name in ("criterion", "options", "by", "compares")}


def _target_identity(target: Any) -> dict[str, Any] | None:
    """The identity of a target of unreduced losses, as far as it is known before writing."""
    if target is None:
        return None
    if isinstance(target, (str, os.PathLike)):
        return {"path": os.path.realpath(target)}
    return {name: str(getattr(target, name, None)) for name in ("shape", "dtype")}


def _arithmetic() -> dict[str, Any]:
    """The properties of this process on which the bits of a result depend."""
    fused = _binding.isa() != "baseline" or platform.machine().lower() in ("aarch64", "arm64")
    return {"version": __version__, "fused_multiply_add": fused}
