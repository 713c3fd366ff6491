"""Evaluating over blocks of Dask arrays, or delayed batches, on the user's scheduler.

Each block becomes a partial: an accumulator for each criterion, without the arrays among its
options. Partials are merged by a tree that depends on the number of blocks alone, so that results
have the same bits on any scheduler and after any worker was lost.
"""

import copy
import math
import os
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
from fastloss._runtime import get_num_threads, num_threads
from fastloss.criteria import Criterion
from fastloss.evaluation.accumulators import Accumulator, as_labels
from fastloss.evaluation.chunks import WEIGHTS, Given, follows, goes_by_rows, named_batch

_ROWS = 0  # Dask's index of the leading axis
_MERGED = 16  # partials that a task of the tree merges


@dataclass
class Partial:
    """What some blocks came to, and the bytes that were read for it."""

    accumulators: list[Accumulator]
    nbytes: int


_INSTEAD = {
    "per_sample": "their unreduced losses are dask.array.map_blocks(loss, ..., reduction='none')",
    "state": "the scheduler computes again what a worker lost",
    "chunk_rows": "rechunk the arrays",
    "progress": "use dask.diagnostics.ProgressBar, or the dashboard",
}


def evaluated(given: Given, threads: int | None, **options: Any) -> Partial:
    """What criteria come to over arrays or a list of batches, some of which are Dask's.

    `threads` compute on each block; by default one, unless blocks come one at a time. `options` are
    those that Dask does not have.
    """
    for name, value in {**options, "chunk_rows": given.chunk_rows}.items():
        if value is not None and value is not False:
            raise TypeError(f"{name} does not go with Dask: {_INSTEAD[name]}")
    if threads is None and get_scheduler() is dask.get:  # one block at a time
        threads = get_num_threads()
    chosen, kind = given.criteria, given.kind
    if given.are_batches():
        partials = _over_batches(chosen, given.data[0], kind, threads)
    else:
        partials = _over_arrays(given, threads)
    totals = [criterion.accumulator(by=kind) for criterion in chosen]  # checks before the work
    partial = _merged(partials)
    for total, accumulator in zip(totals, partial.accumulators, strict=True):
        total._merge_totals(accumulator)  # the criteria as they were given
    return Partial(totals, partial.nbytes)


# ---------------------------------------------------------------------------------------- arrays


def _over_arrays(given: Given, threads: int | None) -> list[Delayed]:
    """The partials of the blocks of the leader's leading axis, whole along the other axes."""
    chosen, operands = given.criteria, given.operands
    arrays = {key: _array(key, value) for key, value in given.arrays().items()}
    leader_name = next((name for name in operands if np.ndim(arrays[name])), operands[0])
    leader = arrays[leader_name]
    _check_sequences(chosen, [arrays[name] for name in operands])

    shapes = {key: np.shape(array) for key, array in arrays.items()}
    leading = shapes[leader_name]
    followers = [key for key, shape in shapes.items() if leading and follows(key, shape, leading)]
    chunks = _leading_chunks(chosen, leader, [arrays[key] for key in followers])
    place = da.from_array(_places(chunks), chunks=(1, 2), name=False)
    whole = count(_ROWS + 1)  # an index for each axis that is whole
    pairs: list[Any] = [place, (_ROWS, next(whole))]
    for key, array in arrays.items():
        if key in followers:
            array = _cut(_name(key), array, leader_name, leader, chunks)
            pairs += [array, (_ROWS, *islice(whole, array.ndim - 1))]
        elif isinstance(array, da.Array):
            pairs += [array.rechunk(-1), tuple(islice(whole, array.ndim))]
        else:  # sent once, not with every task
            pairs += [dask.delayed(array, traverse=False), None]
    indices = range(next(whole))
    blocks = da.blockwise(
        _of_block,
        indices,  # all of them: what has lost none is fused with what makes the blocks
        *pairs,
        dtype=object,
        meta=np.empty([0] * len(indices), object),
        align_arrays=False,
        concatenate=True,
        slim=[_slim(criterion) for criterion in chosen],
        kind=given.kind,
        keys=list(arrays),
        threads=threads,
    )
    return blocks.to_delayed().ravel().tolist()


def _name(key: Any) -> str:
    return key if isinstance(key, str) else key[1]


def _array(key: Any, value: Any) -> Any:
    """A Dask array, or an array that is one or that Dask can slice."""
    if hasattr(value, "to_dask_array"):  # a column of a Dask data frame
        value = value.to_dask_array()
    if isinstance(value, (da.Array, int, float)):  # a number has no dtype of its own
        return value
    if is_dask(value):
        raise TypeError(
            f"{_name(key)} is a {type(value).__module__}.{type(value).__qualname__}: make a Dask "
            "array of it, as dask.array.from_delayed does"
        )
    if isinstance(value, (str, os.PathLike)):
        raise TypeError(
            f"{_name(key)} is the name of a file: beside Dask arrays, open it as one, as "
            "dask.array.from_zarr and dask.array.from_array do"
        )
    if all(hasattr(value, name) for name in ("shape", "dtype", "ndim", "__getitem__")):
        return value
    return as_labels(value, "by") if key == "by" else as_array(value, _name(key))


def _check_sequences(chosen: Sequence[Criterion], arrays: Sequence[Any]) -> None:
    for criterion in chosen:
        if not goes_by_rows(criterion, np.ndim(arrays[0]), np.ndim(arrays[1])):
            frames, targets = criterion.loss.operands[:2]
            raise ValueError(
                f"{criterion.loss.__name__} over Dask arrays needs samples first: batch_first=True,"
                f" {frames} of shape (N, T, C) and {targets} of shape (N, S); they have shapes "
                f"{np.shape(arrays[0])} and {np.shape(arrays[1])}, and batch_first is "
                f"{criterion.get_params()['batch_first']}"
            )


def _leading_chunks(chosen, leader, followers) -> tuple[Any, ...]:
    """The lengths of the blocks; NaN where unknown."""
    if np.ndim(leader) == 0:
        return (1,)
    cut = next((array for array in (leader, *followers) if isinstance(array, da.Array)), None)
    if cut is None:
        return (leader.shape[0],)
    if leader.ndim == 1 and not all(_has_rows(criterion) for criterion in chosen):
        return (leader.shape[0],)
    return cut.chunks[0]


def _has_rows(criterion: Criterion) -> bool:
    """Whether an array of one axis has many losses, not one with all entries."""
    long = 1 << 40
    return criterion.loss._rows_per_block((long,)) < long


def _places(chunks: Sequence[Any]) -> np.ndarray:
    """The number and the first row of each block; -1 for a row that is not known."""
    firsts = accumulate(chunks[:-1], initial=0)
    return np.array([(k, -1 if math.isnan(row) else row) for k, row in enumerate(firsts)], np.int64)


def _cut(name: str, array: Any, leader_name: str, leader: Any, chunks: tuple[Any, ...]) -> Any:
    """An array in the leader's blocks, whole along its other axes."""
    if not math.isnan(array.shape[0] + leader.shape[0]) and array.shape[0] != leader.shape[0]:
        raise ValueError(
            f"leading dimensions differ: {leader_name} has shape {leader.shape} and {name} has "
            f"shape {array.shape}"
        )
    whole = dict.fromkeys(range(1, array.ndim), -1)
    if not isinstance(array, da.Array):
        if math.isnan(sum(chunks)):
            raise ValueError(
                f"{name} is no Dask array, and cannot be cut like one whose blocks have unknown "
                "lengths: call compute_chunk_sizes() on that"
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


def _of_block(place, *blocks, slim, kind, keys, threads) -> Partial:
    number, first = place[0].tolist()
    found = dict(zip(keys, blocks, strict=True))
    where = f"in block {number}" + (f", whose row 0 is row {first}" if first > 0 else "")
    arrays = [found[name] for name in slim[0].loss.operands]
    weights = [
        {name: found[k, name] for name in WEIGHTS if (k, name) in found} for k in range(len(slim))
    ]
    weight, labels = found.get("sample_weight"), found.get("by")
    return _partial(slim, kind, arrays, weight, labels, weights, where, threads)


# --------------------------------------------------------------------------------------- batches


def _over_batches(chosen, batches, kind, threads) -> list[Delayed]:
    """The partials of batches, which may be delayed."""
    slim = [_slim(criterion) for criterion in chosen]
    shared = dask.delayed([_arrays_of(criterion) for criterion in chosen], traverse=False)
    run = dask.delayed(_of_batch)
    return [run(number, batch, slim, kind, shared, threads) for number, batch in enumerate(batches)]


def _of_batch(number, batch, slim, kind, weights, threads) -> Partial:
    operands = slim[0].loss.operands
    found = named_batch(operands, batch, number)
    arrays = [found[name] for name in operands]
    weight, labels = found.get("sample_weight"), found.get("group")
    return _partial(slim, kind, arrays, weight, labels, weights, f"in batch {number}", threads)


# -------------------------------------------------------------------------------------- partials


def _arrays_of(criterion: Criterion) -> dict[str, Any]:
    """The weights among its options."""
    found = {name: getattr(criterion, name, None) for name in WEIGHTS}
    return {name: value for name, value in found.items() if value is not None}


def _slim(criterion: Criterion) -> Criterion:
    """The criterion without weights, which partials need not carry."""
    return copy.copy(criterion).set_params(**dict.fromkeys(_arrays_of(criterion)))


def _partial(slim, kind, arrays, sample_weight, labels, weights, where, threads) -> Partial:
    """That of one block, on the thread of a worker."""
    accumulators = [criterion.accumulator(by=kind) for criterion in slim]
    with num_threads(threads or _threads_of_a_task()):
        for accumulator, own in zip(accumulators, weights, strict=True):
            try:
                accumulator._add(arrays, sample_weight, labels, own)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{error} [{where}]") from error
    read = (*arrays, sample_weight, labels, *(array for own in weights for array in own.values()))
    return Partial(accumulators, sum(getattr(array, "nbytes", 0) for array in read))


def _threads_of_a_task() -> int:
    """One, as the scheduler keeps the processors busy with other tasks.

    A worker of `distributed` that computes one task at a time has what it was started with.
    """
    distributed = sys.modules.get("distributed")
    try:
        if distributed and distributed.get_worker().state.nthreads == 1:
            return get_num_threads()
    except ValueError:  # this is no worker
        pass
    return 1


def _merge(partials: Sequence[Partial]) -> Partial:
    # A scheduler may hold on to what it passes.
    accumulators = [copy.copy(accumulator) for accumulator in partials[0].accumulators]
    for partial in partials[1:]:
        for accumulator, other in zip(accumulators, partial.accumulators, strict=True):
            accumulator.merge(other)
    return Partial(accumulators, sum(partial.nbytes for partial in partials))


def _merged(partials: list[Delayed]) -> Partial:
    """All of them in order, by the scheduler."""
    merge = dask.delayed(_merge)
    while len(partials) > 1:
        groups = range(0, len(partials), _MERGED)
        partials = [merge(partials[first : first + _MERGED]) for first in groups]
    (partial,) = dask.compute(*partials)
    return partial
