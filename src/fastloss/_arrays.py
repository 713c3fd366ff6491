"""Arrays off the fast path: array-likes, shared variances, weights, overlapping memory."""

import math

import numpy as np

from fastloss import _errors

# In the order of fl_dtype.
_DTYPES = ["float32", "float64", "float16", "bfloat16"]


def dtype_of(storage):
    """The NumPy dtype of a floating storage type."""
    name = _DTYPES[storage]
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def as_array(value, name):
    """An array-like as ndarray; what would be read wrongly is refused."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array: fastloss does not read masks; pass {name}.filled(...) and "
            "a sample_weight of 0 where it is masked"
        )
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if is_dask(value):
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__}: pass "
            f"{name}.compute(), or for the value over its blocks call "
            "fastloss.evaluate(criterion, input, target)"
        )
    if value is None or isinstance(value, (str, bytes, dict, set)):
        raise TypeError(f"{name} must be an array or a number, got {type(value).__name__}")
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            array = np.from_dlpack(value)
        else:
            array = np.asarray(value)
    except Exception as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
    if isinstance(array, np.ma.MaskedArray) or type(array) is not np.ndarray:
        return as_array(array, name)
    return array


def is_dask(value):
    """Whether it is a collection of Dask, which is not imported for that."""
    return type(value).__module__.partition(".")[0] == "dask"


def overlap(a, b):
    """Whether two arrays share an entry; if that is too hard to tell, they do."""
    try:
        return np.shares_memory(a, b, max_work=10_000)
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(array):
    """Whether two entries may share memory; told by the strides, which must nest."""
    extent = array.itemsize
    axes = zip(array.strides, array.shape, strict=True)
    for stride, n in sorted((abs(s), n) for s, n in axes if n > 1):
        if stride < extent:
            return array.size > 0
        extent += stride * (n - 1)
    return False


def variance(var, input):
    """A variance that elements share: (view with the input's number of axes, the shared axis)."""
    if var.shape == input.shape[:-1]:
        return var[..., np.newaxis], input.ndim - 1
    if var.ndim == input.ndim:
        unequal = [axis for axis in range(var.ndim) if var.shape[axis] != input.shape[axis]]
        if len(unequal) == 1 and var.shape[unequal[0]] == 1:
            return var, unequal[0]
    raise ValueError(
        f"var has shape {var.shape}, which does not fit input of shape {input.shape}: it must be "
        f"a number or have shape {input.shape}, {input.shape[:-1]}, or {input.shape} with a 1 in "
        "place of one axis"
    )


def first_negative(operand, array, sample_weight, axis):
    """Where, in the caller's order of axes, a weight or an entry in use is negative first.

    Both have an axis last that the caller has at `axis`. Gives the number of the argument (that of
    the operand, or 3 for the weight) and the index.
    """
    if array.size == 0:  # rows without entries
        array = np.zeros((*array.shape[:-1], 1))
    array, weight = np.broadcast_arrays(array, sample_weight)
    with np.errstate(invalid="ignore"):
        bad = np.moveaxis((weight < 0) | ((array < 0) & (weight != 0)), -1, axis)
    index = [int(i) for i in np.unravel_index(bad.argmax(), bad.shape)]
    if np.moveaxis(weight, -1, axis)[tuple(index)] < 0:
        return 3, index if operand == 2 else index[:axis] + index[axis + 1 :]
    return operand, index


def weight_view(weight, name, shape):
    """A weight brought to as many axes as the loss has."""
    if name == "sample_weight":  # of the loss's shape or of its leading axis
        if weight.shape == shape:
            return weight
        if weight.ndim == 1 and shape and weight.shape[0] == shape[0]:
            return (
                weight.reshape(weight.shape + (1,) * (len(shape) - 1)) if len(shape) > 1 else weight
            )
        allowed = f"{shape}, that of the unreduced loss" + (
            f", or ({shape[0]},), that of its leading axis" if len(shape) > 1 else ""
        )
        raise ValueError(f"{name} has shape {weight.shape}: it must have shape {allowed}")
    missing = len(shape) - weight.ndim
    if missing < 0 or any(
        w not in (1, n) for w, n in zip(weight.shape, shape[missing:], strict=True)
    ):
        raise ValueError(
            f"{name} of shape {weight.shape} cannot be broadcast to the input's shape {shape}"
        )
    return weight.reshape((1,) * missing + weight.shape)


def sum_tolerance(storage, classes):
    """How far from 1 the probabilities of a frame may add up, by the last place of their logs."""
    dtype = _DTYPES[storage]
    if dtype == "bfloat16":  # equal classes have logs with errors of one sign
        return max(2e-2, math.log(max(classes, 2)) * 2**-7)
    return 2e-2 if dtype == "float16" else 1e-3


def lengths(name, given, samples, most, of, rows):
    """The lengths of sequences as int64, for each sample one; `rows` samples came before."""
    given = np.array(given)  # what is checked is what is used
    empty = given.size == 0 and given.dtype == np.float64  # as [] is
    if not (given.dtype.kind in "iu" or empty) or given.shape not in ((), (samples,)):
        raise _errors.bad_lengths(name, given, samples)
    outside = (given < 0) | (given > most)
    if outside.any():
        place, length = name, given
        if given.ndim:
            n = int(np.argmax(outside))
            place, length = f"{name}[{rows + n}]", given[n]
        raise _errors.bad_length(place, length, most, of)
    return np.array(np.broadcast_to(given, samples), dtype=np.int64)


def label_error(names, targets, sample, entry, index, classes, blank):
    """What is wrong with a label, which is the index-th of all."""
    place = f"{sample}, {entry}" if targets.ndim == 2 else index
    return _errors.bad_sequence_label(
        f"{names[1]}[{place}]", int(targets.reshape(-1)[index]), names[0], classes, blank
    )


def frame_error(name, frame, sample, entry, axis):
    """What is wrong with a frame of a sample."""
    place = [entry]
    if axis >= 0:
        place.insert(axis, sample)
    with np.errstate(over="ignore"):
        total = np.exp(frame.astype(np.float64)).sum()
    return _errors.bad_frame(name, ", ".join(map(str, place)), total)


def check_upstream(array, shape, none):
    """The shape of an upstream gradient."""
    if not none:
        raise ValueError(
            f"grad_output has shape {array.shape}: it must be a number unless reduction='none'"
        )
    if array.shape != shape:
        raise ValueError(
            f"grad_output has shape {array.shape}: it must be a number or have the loss's shape "
            f"{shape}"
        )
