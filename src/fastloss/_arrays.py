"""Arrays off the fast path: array-likes, shared variances, weights, overlapping memory."""

import math

import numpy as np

from fastloss import _errors
from fastloss._nulls import check_nested, check_nulls


def dtype_named(name):
    """The dtype of a floating-point storage type."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def as_array(value, name):
    """Convert an array-like to an ndarray; reject what NumPy would misread."""
    if isinstance(value, np.ma.MaskedArray):
        raise _errors.masked(name)
    if isinstance(value, np.ndarray):
        if type(value) is not np.ndarray and isinstance(getattr(value, "mask", None), np.ndarray):
            raise _errors.masked(name)
        return np.ndarray.view(value, np.ndarray)  # a subclass may override the method
    if is_dask(value):
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__}: pass "
            f"{name}.compute(), or call fastloss.evaluate(criterion, input, target), which "
            "computes the value block by block"
        )
    if value is None or isinstance(value, (str, bytes, dict, set)):
        raise TypeError(f"{name} must be an array or a scalar, got {type(value).__name__}")
    is_list = isinstance(value, (list, tuple))
    if not is_list:
        if _is_stored(value):
            from fastloss.evaluation.sources import read_array

            return read_array(value, name)
        check_nulls(value, name)
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            array = np.from_dlpack(value)
        else:
            array = np.asanyarray(value)  # which keeps the mask of a masked array
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
    if is_list:
        check_nested(value, array, name)
    if type(array) is not np.ndarray:
        return as_array(array, name)
    return array


def _is_stored(value):
    """Whether a value is a dataset of h5py, an array of zarr, or numbers in an array of pyarrow.

    They are read as `evaluate` reads them: their lists are rows, and missing data are errors.
    """
    types = {(t.__module__.partition(".")[0], t.__name__) for t in type(value).__mro__}
    if types & {("pyarrow", "Array"), ("pyarrow", "ChunkedArray")}:
        from fastloss.evaluation.sources.arrow import holds_numbers

        return holds_numbers(value.type)
    is_dataset = bool(types & {("h5py", "Dataset"), ("zarr", "Array")})
    return is_dataset and value.dtype.kind in "biufcV"  # labels of groups may be strings


def is_dask(value):
    """Whether a value is a Dask collection; does not import Dask."""
    return type(value).__module__.partition(".")[0] == "dask"


def overlap(a, b):
    """Whether two arrays share an entry; True if that takes too long to decide."""
    try:
        return np.shares_memory(a, b, max_work=10_000)
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(array):
    """Whether two entries of an array may share memory.

    They do not if the strides nest: each stride spans all entries along the axes of smaller ones.
    """
    extent = array.itemsize
    axes = zip(array.strides, array.shape, strict=True)
    for stride, n in sorted((abs(s), n) for s, n in axes if n > 1):
        if stride < extent:
            return array.size > 0
        extent += stride * (n - 1)
    return False


def variance(var, input):
    """Return a view of a shared variance with as many axes as the input, and the shared axis."""
    if var.shape == input.shape[:-1]:
        return var[..., np.newaxis], input.ndim - 1
    if var.ndim == input.ndim:
        unequal = [axis for axis in range(var.ndim) if var.shape[axis] != input.shape[axis]]
        if len(unequal) == 1 and var.shape[unequal[0]] == 1:
            return var, unequal[0]
    raise ValueError(
        f"var has shape {var.shape}, which does not fit input of shape {input.shape}: it must be "
        f"a scalar or have shape {input.shape}, {input.shape[:-1]}, or {input.shape} with a 1 in "
        "place of one axis"
    )


def first_negative(array, sample_weight, axis):
    """Find the first negative sample weight, or negative entry whose sample weight is not 0.

    The last axis of both arrays is axis number `axis` of the caller's arrays, whose order counts.
    Returns whether the weight is the negative one, and the index.
    """
    if array.size == 0:  # rows without entries, which may still have negative weights
        array = np.broadcast_to(0.0, (*array.shape[:-1], 1))
    array, weight = (np.moveaxis(a, -1, axis) for a in np.broadcast_arrays(array, sample_weight))
    with np.errstate(invalid="ignore"):
        index = _first_in_parts(array, weight) or [0] * array.ndim
    return weight[tuple(index)] < 0, index


_PART = 1 << 16  # entries that are compared at once: an error takes no memory of the input's size


def _first_in_parts(array, weight):
    """The index of the first negative weight, or negative entry whose weight is not 0, or None."""
    if array.size <= _PART:
        bad = (weight < 0) | ((array < 0) & (weight != 0))
        return [int(i) for i in np.unravel_index(bad.argmax(), bad.shape)] if bad.any() else None
    step = _PART // (array.size // len(array))
    for first in range(0, len(array), max(step, 1)):
        if step > 0:
            part = slice(first, first + step)
            index = _first_in_parts(array[part], weight[part])
        else:
            index = _first_in_parts(array[first], weight[first])
            index = index and [0, *index]
        if index:
            return [first + index[0], *index[1:]]
    return None


def weight_view(weight, name, shape):
    """Return a view of a weight with as many axes as the loss, which has the given shape."""
    if name == "sample_weight":  # the shape of the loss, or the length of its leading axis
        if weight.shape == shape:
            return weight
        if weight.ndim == 1 and shape and weight.shape[0] == shape[0]:
            return (
                weight.reshape(weight.shape + (1,) * (len(shape) - 1)) if len(shape) > 1 else weight
            )
        allowed = f"{shape}, the shape of the unreduced loss"
        if len(shape) > 1:
            allowed += f", or ({shape[0]},), one weight per entry of its leading axis"
        raise ValueError(f"{name} has shape {weight.shape}: it must have shape {allowed}")
    missing = len(shape) - weight.ndim
    if missing < 0 or any(
        w not in (1, n) for w, n in zip(weight.shape, shape[missing:], strict=True)
    ):
        raise ValueError(
            f"{name} of shape {weight.shape} cannot be broadcast to the input's shape {shape}"
        )
    return weight.reshape((1,) * missing + weight.shape)


def sum_tolerance(dtype, classes):
    """How far from 1 the probabilities of a frame may sum, given the rounding of their logs."""
    if dtype == "bfloat16":
        # Equal probabilities have logs with equal rounding errors, which do not average out.
        return max(2e-2, math.log(max(classes, 2)) * 2**-7)
    return 2e-2 if dtype == "float16" else 1e-3


def lengths(name, values, samples, limit, counted, rows):
    """Return the lengths of sequences as int64, one per sample.

    Each is at most `limit`, the number of what `counted` names; `rows` samples precede these.
    """
    values = np.array(values)  # a copy, so that another thread cannot change what was checked
    empty = values.size == 0 and values.dtype == np.float64  # np.array([])
    if not (values.dtype.kind in "iu" or empty) or values.shape not in ((), (samples,)):
        raise _errors.bad_sequence_lengths(name, values, samples)
    outside = (values < 0) | (values > limit)
    if outside.any():
        entry, length = name, values
        if values.ndim:
            n = int(np.argmax(outside))
            entry, length = f"{name}[{rows + n}]", values[n]
        raise _errors.bad_sequence_length(entry, length, limit, counted)
    return np.array(np.broadcast_to(values, samples), dtype=np.int64)


def label_error(names, targets, sample, entry, index, classes, blank):
    """Return the exception for a bad label; `index` is its position in the flattened targets."""
    place = np.unravel_index(index, targets.shape)
    position = f"{sample}, {entry}" if targets.ndim == 2 else index
    return _errors.bad_sequence_label(
        f"{names[1]}[{position}]", int(targets[place]), names[0], classes, blank
    )


def frame_error(loss, name, frame, sample, entry, axis):
    """Return the exception for a frame of a sample whose probabilities do not sum to 1."""
    index = [entry]
    if axis >= 0:
        index.insert(axis, sample)
    with np.errstate(over="ignore"):
        total = np.exp(frame.astype(np.float64)).sum()
    return _errors.bad_sequence_frame(loss, name, ", ".join(map(str, index)), total)


def check_grad_output(array, shape, none):
    """Check the shape of an upstream gradient against `shape`, the shape of the unreduced loss."""
    if not none:
        raise ValueError(
            f"grad_output has shape {array.shape}: it must be a scalar unless reduction='none'"
        )
    if array.shape != shape:
        raise ValueError(
            f"grad_output has shape {array.shape}: it must be a scalar or have the loss's shape "
            f"{shape}"
        )
