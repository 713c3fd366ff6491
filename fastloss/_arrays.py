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
    if type(value).__module__.partition(".")[0] == "dask":
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__}: pass "
            f"{name}.compute(), or add up the .sums(...) of its blocks"
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


def sum_tolerance(dtype, classes):
    """How far from 1 the probabilities of a frame may add up, by the last place of their logs."""
    if dtype == "bfloat16":  # equal classes have logs with errors of one sign
        return max(2e-2, math.log(max(classes, 2)) * 2**-7)
    return 2e-2 if dtype == "float16" else 1e-3


class Sequences:
    """The arrays of a CTC loss in the order of its kernel, frames and labels of each sample.

    Attributes
    ----------
    x : ndarray, shape (N, T, C)
    axis : int
        Of the samples in the caller's array; -1 where it is a single one.
    frames, labels, first : ndarray of int64, shape (N,)
        Lengths, and where the labels of a sample begin in the flat targets.
    """

    def __init__(self, loss, arrays, batch_first, rows):
        """`rows`: samples of a stream that came before, for the places that errors name."""
        x, self.targets, frames, labels = arrays
        self.rows = rows
        self.names = loss.operands
        if x.ndim not in (2, 3):
            raise _errors.bad_sequence_shape(self.names[0], x, batch_first)
        self.axis = -1 if x.ndim == 2 else 0 if batch_first else 1
        self.x = self.view(x)
        samples, frame_count = self.x.shape[:2]
        self.frames = self._lengths(2, frames, samples, frame_count, "frames")
        shape = self.targets.shape
        padded = len(shape) == 2
        most = shape[1] if padded else self.targets.size
        self.labels = self._lengths(3, labels, samples, most, "labels in targets")
        if padded:
            fits = shape[0] == samples
            self.first = np.arange(samples, dtype=np.int64) * most
        else:
            total = int(self.labels.sum())
            fits = len(shape) == 1 and shape[0] == total
            self.first = np.cumsum(self.labels) - self.labels
        if not fits:
            raise _errors.bad_targets(shape, samples, int(self.labels.sum()))

    def view(self, array):
        """Frames of the caller as (N, T, C)."""
        return array[np.newaxis] if self.axis < 0 else np.moveaxis(array, self.axis, 0)

    def _lengths(self, k, given, samples, most, of):
        name = self.names[k]
        empty = given.size == 0 and given.dtype == np.float64  # as [] is
        if not (given.dtype.kind in "iu" or empty) or given.shape not in ((), (samples,)):
            raise _errors.bad_lengths(name, given, samples)
        outside = (given < 0) | (given > most)
        if outside.any():
            place, length = name, given
            if given.ndim:
                n = int(np.argmax(outside))
                place, length = f"{name}[{self.rows + n}]", given[n]
            raise _errors.bad_length(place, length, most, of)
        return np.array(np.broadcast_to(given, samples), dtype=np.int64)

    def error(self, operand, sample, entry, blank):
        """What is wrong with an entry: a label, or a frame."""
        if operand == 1:
            label = int(self.targets.reshape(-1)[self.first[sample] + entry])
            place = self.first[sample] + entry
            if self.targets.ndim == 2:
                place = f"{self.rows + sample}, {entry}"
            return _errors.bad_sequence_label(
                f"{self.names[1]}[{place}]", label, self.names[0], self.x.shape[2], blank
            )
        place = [entry]
        if self.axis >= 0:
            place.insert(self.axis, self.rows + sample)
        with np.errstate(over="ignore"):
            total = np.exp(self.x[sample, entry].astype(np.float64)).sum()
        return _errors.bad_frame(self.names[0], ", ".join(map(str, place)), total)


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
