"""Evaluation over blocks of Dask arrays, or delayed batches, on the user's scheduler.

Each block becomes a partial result: an accumulator for each criterion, without the arrays among the
options of the criterion. Partial results are merged by a tree that depends on the number of blocks
only, so that the result is bitwise identical on any scheduler, and after workers were lost.
"""

import copy
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.base import get_scheduler
from dask.delayed import Delayed

from fastloss._arrays import as_array, is_dask
from fastloss._labels import as_labels
from fastloss._runtime import get_num_threads, num_threads
from fastloss.criteria import Criterion
from fastloss.evaluation.accumulators import Accumulator
from fastloss.evaluation.comparison import (
    BASELINE,
    baseline_arrays,
    check_shape,
    with_baseline,
)
from fastloss.evaluation.inputs import (
    ELEMENT_WEIGHTS,
    EvaluationInput,
    array_name,
    batch_by_name,
    element_weights_by_criterion,
    is_row_aligned,
    supports_row_chunks,
    with_classes_moved,
)
from fastloss.evaluation.sources import is_path

_ROW_AXIS = 0  # the index of the leading axis in dask.array.blockwise
_MERGE_FAN_IN = 16  # partial results that one task merges


@dataclass
class Partial:
    """The accumulators of some blocks, and the number of bytes that were read for them."""

    accumulators: list[Accumulator]
    nbytes: int


# Options that are not supported with Dask, and what to do instead.
_UNSUPPORTED = {
    "per_sample": "for unreduced losses, dask.array.map_blocks(loss, ..., reduction='none')",
    "state": "the scheduler recomputes the blocks of a lost worker",
    "chunk_rows": "rechunk the arrays",
    "missing_chunks": "Dask reads the arrays",
    "progress": "use dask.diagnostics.ProgressBar, or the dashboard",
}


def evaluate_dask(inputs: EvaluationInput, threads: int | None, **options: Any) -> Partial:
    """The accumulators over arrays or a list of batches, some of which are Dask collections.

    `threads` is the number of threads for each block, by default 1 unless blocks run one at a time.
    `options` are those that Dask does not support.
    """
    options |= {"chunk_rows": inputs.chunk_rows, "missing_chunks": inputs.missing_chunks}
    for name, value in options.items():
        if value is not None and value is not False:
            raise TypeError(f"{name} is not supported with Dask: {_UNSUPPORTED[name]}")
    if threads is None and get_scheduler() is dask.get:  # the synchronous scheduler
        threads = get_num_threads()
    if inputs.is_batches():
        partials = _batch_partials(inputs, threads)
    else:
        partials = _block_partials(inputs, threads)
    # Created before the computation, because this checks the options. Unlike partial results, these
    # have the criteria with their arrays.
    accumulators = [
        criterion.accumulator(by=inputs.by, baseline=inputs.compares)
        for criterion in inputs.criteria
    ]
    partial = _merge_tree(partials)
    for accumulator, other in zip(accumulators, partial.accumulators, strict=True):
        accumulator._merge_sums(other)
    return Partial(accumulators, partial.nbytes)


# ---- arrays --------------------------------------------------------------------------------------


def _block_partials(inputs: EvaluationInput, threads: int | None) -> list[Delayed]:
    """One partial result per block of the leading axis of the leader, whole along other axes."""
    criteria, operands = inputs.criteria, inputs.operands
    arrays = {key: _as_dask_or_array(key, value) for key, value in inputs.arrays().items()}
    leader_name = next((name for name in operands if np.ndim(arrays[name])), operands[0])
    leader = arrays[leader_name]
    _check_sequences(criteria, [arrays[name] for name in operands])
    baseline = [] if not inputs.compares else list(baseline_arrays(inputs.losses, inputs.baseline))
    if BASELINE in baseline:
        check_shape(np.shape(arrays[BASELINE]), operands[0], np.shape(arrays[operands[0]]))

    leader_shape = np.shape(leader)
    row_aligned = [
        key
        for key, array in arrays.items()
        if leader_shape and is_row_aligned(key, np.shape(array), leader_shape)
    ]
    chunks = _leading_chunks(criteria, leader, [arrays[key] for key in row_aligned])
    positions = da.from_array(_block_positions(chunks), chunks=(1, 2), name=False)
    next_axis = count(_ROW_AXIS + 1)  # an index for each axis that is whole
    operand_indices: list[Any] = [positions, (_ROW_AXIS, next(next_axis))]
    for key, array in arrays.items():
        if key in row_aligned:
            array = _rechunk_rows(array_name(key), array, leader_name, leader, chunks)
            operand_indices += [array, (_ROW_AXIS, *islice(next_axis, array.ndim - 1))]
        elif isinstance(array, da.Array):
            operand_indices += [array.rechunk(-1), tuple(islice(next_axis, array.ndim))]
        else:  # sent once, not with every task
            operand_indices += [dask.delayed(array, traverse=False), None]
    indices = range(next(next_axis))
    blocks = da.blockwise(
        _evaluate_block,
        indices,  # all of them: Dask fuses a task without contracted axes with its inputs
        *operand_indices,
        dtype=object,
        meta=np.empty([0] * len(indices), object),
        align_arrays=False,
        concatenate=True,
        criteria=[_without_arrays(criterion) for criterion in criteria],
        by=inputs.by,
        keys=list(arrays),
        baseline=baseline,
        threads=threads,
        class_axis=inputs.class_axis,
    )
    return blocks.to_delayed().ravel().tolist()


def _as_dask_or_array(key: Any, value: Any) -> Any:
    """A Dask array, or an array that is passed whole or sliced by Dask."""
    name = array_name(key)
    if hasattr(value, "to_dask_array"):  # a column of a Dask data frame
        value = value.to_dask_array()
    if isinstance(value, (da.Array, int, float)):  # a Python scalar has no dtype of its own
        return value
    if is_dask(value):
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__}: make it a Dask "
            "array, for example by dask.array.from_delayed"
        )
    if is_path(value):
        raise TypeError(
            f"{name} is the name of a file: together with Dask arrays, open it as one, by "
            "dask.array.from_zarr or dask.array.from_array"
        )
    if all(hasattr(value, attribute) for attribute in ("shape", "dtype", "ndim", "__getitem__")):
        return value
    return as_labels(value, "by") if key == "by" else as_array(value, name)


def _check_sequences(criteria: Sequence[Criterion], arrays: Sequence[Any]) -> None:
    for criterion in criteria:
        if not supports_row_chunks(criterion, np.ndim(arrays[0]), np.ndim(arrays[1])):
            input_name, target_name = criterion.loss.operands[:2]
            raise ValueError(
                f"{criterion.loss.__name__} over Dask arrays needs samples first: batch_first=True,"
                f" {input_name} of shape (N, T, C) and {target_name} of shape (N, S); they have "
                f"shapes {np.shape(arrays[0])} and {np.shape(arrays[1])}, and batch_first is "
                f"{criterion.get_params()['batch_first']}"
            )


def _leading_chunks(criteria, leader, row_aligned) -> tuple[Any, ...]:
    """The lengths of the blocks; NaN if unknown."""
    if np.ndim(leader) == 0:
        return (1,)
    arrays = (array for array in (leader, *row_aligned) if isinstance(array, da.Array))
    chunked = next(arrays, None)
    if chunked is None:
        return (leader.shape[0],)
    if leader.ndim == 1 and not all(_has_rows(criterion) for criterion in criteria):
        return (leader.shape[0],)
    return chunked.chunks[0]


def _has_rows(criterion: Criterion) -> bool:
    """Whether a 1-D array holds many losses, rather than the entries of one."""
    length = 1 << 40
    return criterion.loss._rows_per_block((length,)) < length


def _block_positions(chunks: Sequence[Any]) -> np.ndarray:
    """The number and the first row of each block; -1 if the row is unknown."""
    first_rows = accumulate(chunks[:-1], initial=0)
    positions = [(k, -1 if math.isnan(row) else row) for k, row in enumerate(first_rows)]
    return np.array(positions, np.int64)


def _rechunk_rows(name: str, array: Any, leader_name: str, leader: Any, chunks: Any) -> Any:
    """An array in the blocks of the leader, whole along its other axes."""
    if not math.isnan(array.shape[0] + leader.shape[0]) and array.shape[0] != leader.shape[0]:
        raise ValueError(
            f"leading dimensions differ: {leader_name} has shape {leader.shape} and {name} has "
            f"shape {array.shape}"
        )
    whole = dict.fromkeys(range(1, array.ndim), -1)
    if not isinstance(array, da.Array):
        if math.isnan(sum(chunks)):
            raise ValueError(
                f"{name} is not a Dask array and cannot be split like {leader_name}, whose blocks "
                "have unknown lengths: call compute_chunk_sizes() on the Dask arrays"
            )
        return da.from_array(array, chunks={0: chunks, **whole}, name=False)
    if not math.isnan(sum(chunks) + array.shape[0]):
        return array.rechunk({0: chunks, **whole})
    if array.numblocks[0] != len(chunks):
        raise ValueError(
            f"{name} has {array.numblocks[0]} blocks of rows and {leader_name} has {len(chunks)}, "
            "some of unknown length: call compute_chunk_sizes() on them"
        )
    return array.rechunk(whole)


def _evaluate_block(
    position, *blocks, criteria, by, keys, baseline, threads, class_axis
) -> Partial:
    number, first_row = position[0].tolist()
    arrays = dict(zip(keys, blocks, strict=True))
    location = f"in block {number}"
    if first_row > 0:
        location += f", whose row 0 is row {first_row}"
    return _partial(
        criteria,
        by,
        [arrays[name] for name in criteria[0].loss.operands],
        arrays.get("sample_weight"),
        arrays.get("by"),
        element_weights_by_criterion(arrays, len(criteria)),
        location,
        threads,
        class_axis,
        {key: arrays[key] for key in baseline},
    )


# ---- batches -------------------------------------------------------------------------------------


def _batch_partials(inputs: EvaluationInput, threads: int | None) -> list[Delayed]:
    """One partial result per batch; batches may be delayed."""
    criteria, (batches,) = inputs.criteria, inputs.data
    without_arrays = [_without_arrays(criterion) for criterion in criteria]
    weights = dask.delayed([_weights_of(criterion) for criterion in criteria], traverse=False)
    task = dask.delayed(_evaluate_batch)
    return [
        task(
            number,
            batch,
            without_arrays,
            inputs.by,
            weights,
            threads,
            inputs.class_axis,
            inputs.compares,
        )
        for number, batch in enumerate(batches)
    ]


def _evaluate_batch(number, batch, criteria, by, weights, threads, class_axis, compares) -> Partial:
    operands, losses = criteria[0].loss.operands, [criterion.loss for criterion in criteria]
    by_name = batch_by_name(operands, batch, number, compares)
    return _partial(
        criteria,
        by,
        [by_name[name] for name in operands],
        by_name.get("sample_weight"),
        by_name.get("group"),
        weights,
        f"in batch {number}",
        threads,
        class_axis,
        baseline_arrays(losses, by_name[BASELINE]) if compares else {},
    )


# ---- partial results -----------------------------------------------------------------------------


def _weights_of(criterion: Criterion) -> dict[str, Any]:
    """The options of a criterion that are arrays."""
    weights = {name: getattr(criterion, name, None) for name in ELEMENT_WEIGHTS}
    return {name: value for name, value in weights.items() if value is not None}


def _without_arrays(criterion: Criterion) -> Criterion:
    """The criterion without its weights, so that partial results stay small."""
    return copy.copy(criterion).set_params(**dict.fromkeys(_weights_of(criterion)))


def _partial(
    criteria, by, arrays, sample_weight, labels, weights, location, threads, class_axis, baseline
) -> Partial:
    """The partial result of one block, computed on the thread of a worker."""
    compares, operands = bool(baseline), criteria[0].loss.operands
    accumulators = [criterion.accumulator(by=by, baseline=compares) for criterion in criteria]
    others = with_baseline(operands, arrays, baseline) if compares else None
    with num_threads(threads or _threads_per_task()):
        for accumulator, element_weights in zip(accumulators, weights, strict=True):
            try:
                moved = with_classes_moved(accumulator.criterion, class_axis, arrays)
                other = others and with_classes_moved(accumulator.criterion, class_axis, others)
                accumulator._add_batch(moved, sample_weight, labels, element_weights, False, other)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{error} [{location}]") from error
    weight_arrays = (array for by_name in weights for array in by_name.values())
    arrays_read = (*arrays, *baseline.values(), sample_weight, labels, *weight_arrays)
    return Partial(accumulators, sum(getattr(array, "nbytes", 0) for array in arrays_read))


def _threads_per_task() -> int:
    """One, since the scheduler keeps the processors busy with other tasks.

    A worker of `distributed` that runs one task at a time uses the threads that it was started
    with.
    """
    distributed = sys.modules.get("distributed")
    try:
        if distributed and distributed.get_worker().state.nthreads == 1:
            return get_num_threads()
    except ValueError:  # this process is not a worker
        pass
    return 1


def _merge(partials: Sequence[Partial]) -> Partial:
    # Copies, since a scheduler may still hold the arguments.
    accumulators = [copy.copy(accumulator) for accumulator in partials[0].accumulators]
    for partial in partials[1:]:
        for accumulator, other in zip(accumulators, partial.accumulators, strict=True):
            accumulator.merge(other)
    return Partial(accumulators, sum(partial.nbytes for partial in partials))


def _merge_tree(partials: list[Delayed]) -> Partial:
    """All partial results merged in order, on the scheduler."""
    merge = dask.delayed(_merge)
    while len(partials) > 1:
        starts = range(0, len(partials), _MERGE_FAN_IN)
        partials = [merge(partials[start : start + _MERGE_FAN_IN]) for start in starts]
    (partial,) = dask.compute(*partials)
    return partial
