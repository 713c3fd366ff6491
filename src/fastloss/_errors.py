"""The exceptions of the losses.

Each message names the argument, the position and the value, and says what is allowed.
"""

import functools
import math

import numpy as np


class ClassIndexError(ValueError, IndexError):
    """A class index outside the range of the classes of the input."""

    __module__ = "fastloss"


# --- resources ------------------------------------------------------------------------------------


def small_stack(left, needed):
    """The calling thread has too little stack."""
    return MemoryError(
        f"the stack of the calling thread has {left >> 10} KiB left and a loss needs "
        f"{needed >> 10} KiB: call threading.stack_size({4 * needed}) before the thread is created"
    )


# --- shapes ---------------------------------------------------------------------------------------


def changed_arrays(loss):
    """An array with another dtype, shape or memory than when the call began to read it."""
    return RuntimeError(
        f"{loss}: an array of the call got another dtype, shape or memory while the arguments were "
        "read, from a signal handler, a finaliser or another thread; nothing was computed"
    )


def too_many_entries(shape):
    """A shape whose entries cannot be counted."""
    return ValueError(f"shape {tuple(shape)} has more than 2**63 - 1 entries")


def no_row_axis(name, second):
    """A 0-d array where rows are required."""
    axis = (
        "a class axis, as in (C,), (N, C) or (N, C, d1, ..., dK)"
        if second
        else "a last axis of classes or features, as in (C,), (N, C) or (..., C)"
    )
    return ValueError(f"{name} is 0-d: it must have {axis}")


def empty_row(name, has_classes):
    """An array of shape (0,), which would be a single row without entries."""
    entries, size = ("classes", "C") if has_classes else ("features", "D")
    return ValueError(
        f"{name} has shape (0,), a row without {entries}: no rows of {size} {entries} have shape "
        f"(0, {size})"
    )


def _without(shape, axis):
    return shape[:axis] + shape[axis + 1 :]


def _shape_error(describe, name, shape, other_name, other_shape):
    """An error whose message `shape_message` can write again for other shapes."""
    error = ValueError(describe(name, shape, other_name, other_shape))
    error.shapes = describe, {name: shape, other_name: other_shape}
    return error


def shape_message(error, shapes, stored):
    """The message of an error about shapes, for whole arrays in place of some of their rows.

    `shapes` holds the shapes of the whole arrays by name. An array whose name is in `stored` is in
    a file, whose reader cannot reshape it.
    """
    describe, own_shapes = getattr(error, "shapes", (None, {}))
    if describe is None:
        return str(error)
    message = describe(
        *(x for name in own_shapes for x in (name, shapes.get(name, own_shapes[name])))
    )
    for name in stored:
        message = message.replace(f"pass {name}.reshape", f"store {name}.reshape")
    return message


def class_axis_remedy(name):
    return (
        f"if the classes are on the last axis, pass np.moveaxis({name}, -1, 1), or class_axis=-1 "
        "to fastloss.evaluate (--class-axis -1)"
    )


def _reshape_remedy(name, shape, expected):
    """How to give an array its expected shape, if only axes of length 1 or flat rows differ."""
    if math.prod(shape) != math.prod(expected):
        return ""
    if [n for n in shape if n != 1] != [n for n in expected if n != 1] and len(expected) != 1:
        return ""
    return f"; pass {name}.reshape({-1 if len(expected) == 1 else expected})"


def leading_axis_remedy(name, shape, losses):
    """How to give weights or labels the shape of the losses or of their leading axis."""
    return _reshape_remedy(name, shape, losses) or _reshape_remedy(name, shape, losses[:1])


def _units_remedy(name, rows, other_name, other, axis):
    """How to make one entry per row fit, which must have the shape of the rows without an axis."""
    expected = _without(rows, axis)
    if other == expected:
        return ""
    if axis < len(rows) - 1 and other == rows[:-1]:
        return "; " + class_axis_remedy(name)
    if len(rows) > 2 and other == (math.prod(rows[:-1]),):
        return f"; if the classes are on the last axis, pass {name}.reshape(-1, {rows[-1]})"
    return _reshape_remedy(other_name, other, expected)


def _describe_units(name, rows, other_name, other, axis, entries):
    return (
        f"{other_name} has shape {other}, but {entries} for {name} of shape {rows} must have shape "
        f"{_without(rows, axis)}{_units_remedy(name, rows, other_name, other, axis)}"
    )


def bad_units(name, rows, other_name, other, axis, probabilities, indices):
    """An array that must hold one entry per row, such as class indices, and does not."""
    expected = _without(rows.shape, axis)
    if other.shape != rows.shape or not indices:
        entries = "class indices" if indices else "labels"
        describe = functools.partial(_describe_units, axis=axis, entries=entries)
        return _shape_error(describe, name, rows.shape, other_name, other.shape)
    remedies = []
    if _is_one_hot(other, axis):
        remedies.append(f"{other_name}.argmax(axis={axis}), since each row has one 1")
    # In cross_entropy, and only there, torch reads a target of the input's shape as probabilities.
    limit = _exact_integers(rows.dtype)
    if probabilities and _first(other, lambda y: (y > limit) | (y < -limit)) is None:
        remedies.append(f"{other_name}.astype({name}.dtype) as probabilities")
    return (TypeError if probabilities else ValueError)(
        f"{other_name} has the input's shape {rows.shape} but holds integers ({other.dtype}): "
        f"class indices must have shape {expected}"
        + f"; pass {', or '.join(remedies)}"
        * bool(remedies)
    )


def rows_differ(name, rows, other_name, other, axis, probabilities):
    """Two arrays of rows whose shapes must be equal and are not."""
    units = _without(rows.shape, axis)
    per_unit = (units, (*units, 1), rows.shape[:-1])  # also with the classes on the last axis
    if probabilities and other.shape in per_unit:
        remedy = _integers_remedy(other_name, other, rows.shape[axis])
        remedy += _units_remedy(name, rows.shape, other_name, other.shape, axis)
        return TypeError(
            f"{other_name} holds {other.dtype}: class indices must be integers, and probabilities "
            f"must have the input's shape {rows.shape}{remedy}"
        )
    return _shape_error(_describe_equal, name, rows.shape, other_name, other.shape)


def _describe_equal(name, shape, other_name, other, broadcast=""):
    hint = ""
    if [n for n in shape if n != 1] == [n for n in other if n != 1]:
        hint = f"; pass {other_name}.reshape({shape})"
    return (
        f"{other_name} has shape {other} and {name} has shape {shape}: they must be equal"
        f"{broadcast}{hint}"
    )


def shapes_differ(name, array, other_name, other):
    """Two arrays of elements whose shapes must be equal and are not."""
    describe = functools.partial(_describe_equal, broadcast=" (only scalars broadcast)")
    return _shape_error(describe, name, array.shape, other_name, other.shape)


def bad_class_weight(weight, classes):
    """Class weights of the wrong shape."""
    return ValueError(
        f"weight has shape {weight.shape}: it must hold one weight per class, shape ({classes},)"
    )


def ignored_probabilities(ignore_index):
    """An index to ignore although the target holds no indices."""
    return ValueError(
        f"ignore_index is {ignore_index}, but target holds probabilities: to ignore a row, give it "
        "a sample_weight of 0"
    )


# --- arrays ---------------------------------------------------------------------------------------


def masked(name):
    """A masked array, whose mask would be ignored."""
    remedy = (
        "sample_weight.filled(0)"
        if name == "sample_weight"
        else f"{name}.filled(...) and a sample_weight of 0 for the masked entries"
    )
    return TypeError(f"{name} is a masked array, and fastloss does not read masks: pass {remedy}")


# --- dtypes ---------------------------------------------------------------------------------------


def bad_dtype(name, array):
    """A dtype that fastloss does not support."""
    if array.dtype.kind == "O":
        return TypeError(f"{name} is not a numeric array: NumPy reads it as dtype object")
    hint = ""
    if array.dtype.kind == "f" and _first(array, _overflows_float64) is None:
        hint = f"; pass {name}.astype(np.float64), which rounds to 53 bits"
    elif array.dtype.kind == "c":
        hint = "; pass its .real and .imag separately"
    elif is_raw_bfloat16(array.dtype):
        hint = f"; bfloat16 that was stored as raw bytes is {name}.view(ml_dtypes.bfloat16)"
    return TypeError(f"{name} has dtype {array.dtype}, which fastloss does not support{hint}")


def is_raw_bfloat16(dtype):
    """Whether entries are two raw bytes, as NumPy and HDF5 store the bfloat16 of ml_dtypes."""
    return dtype.type is np.void and dtype.itemsize == 2 and dtype.names is None


def _overflows_float64(entries):
    """Which entries are finite or not 0, and would be infinite or 0 as float64."""
    with np.errstate(all="ignore"):
        rounded = entries.astype(np.float64)
    return (np.isinf(rounded) != np.isinf(entries)) | ((rounded == 0) != (entries == 0))


def no_scores(name, array, other_name):
    """Scores that are not floating-point."""
    if array.dtype.kind in "iub":
        return TypeError(
            f"{name} holds {array.dtype}: it must hold floating-point scores; are {name} and "
            f"{other_name} swapped?"
        )
    return bad_dtype(name, array)


def no_indices(name, array, rows, input, axis):
    """Class indices that are not integers; of several in each row if `rows`."""
    dtype = array.dtype
    if dtype.kind not in "fb" and dtype.name != "bfloat16":
        return bad_dtype(name, array)
    if rows:
        remedy = "; list the classes of each row and fill the rest of the row with -1"
    elif input.shape == array.shape and _is_one_hot(array, axis):
        remedy = f"; pass {name}.argmax(axis={axis}), since each row has one 1"
    else:
        remedy = _integers_remedy(name, array, input.shape[axis] if input.ndim else 0)
    return TypeError(f"{name} holds {dtype}: class indices must be integers{remedy}")


_EXACT_INTEGERS = {"bfloat16": 2**8}  # up to which a dtype holds each integer


def _exact_integers(dtype):
    return _EXACT_INTEGERS.get(dtype.name) or 2 ** (np.finfo(dtype).nmant + 1)


def _integers_remedy(name, array, classes):
    """How to make class indices of floats or booleans; a remedy only if it changes no label.

    A whole number may be a rounded label if it is large, and so may those of the next call if the
    dtype does not hold all classes.
    """
    remedy = f"; pass {name}.astype(np.int64)"
    if array.dtype.kind == "b":
        return remedy
    index = _first(array, lambda y: np.isnan(y) | (y != np.rint(y)) | np.isinf(y))
    if index is not None:
        return f", and {_entry(name, array, index, 0)[0]} = {array[index]} is not one"
    limit = _exact_integers(array.dtype)
    if classes > limit or _first(array, lambda y: abs(y) >= limit) is not None:
        return (
            f"; {array.dtype} holds integers exactly only up to {limit}, so that labels may have "
            "been rounded: pass them as integers from before they were converted"
        )
    return remedy


def _is_one_hot(array, axis):
    """Whether each row along an axis is 0 but for one 1."""
    if array.shape[axis] == 0 or _first(array, lambda y: (y != 0) & (y != 1)) is not None:
        return False
    rows = array.size // array.shape[axis]
    return np.count_nonzero(array) == rows and bool(array.any(axis=axis).all())


def _first(array, test):
    """The index of the first entry for which a function of blocks of entries is True, or None.

    The blocks keep the memory that an error message needs small.
    """
    start = 0
    flags = ["external_loop", "buffered", "zerosize_ok"]
    with np.nditer(array, flags, order="C", buffersize=1 << 16) as blocks:
        for block in blocks:
            found = test(block)
            if found.any():
                index = np.unravel_index(start + int(found.argmax()), array.shape)
                return tuple(int(i) for i in index)
            start += block.size
    return None


def bool_labels(name):
    """Booleans where labels are -1 or 1."""
    return TypeError(f"{name} holds bool: labels must be -1 or 1; pass np.where({name}, 1, -1)")


def too_large(name):
    """An integer beyond the range of floating-point numbers."""
    return ValueError(f"{name} must fit in a float")


def no_gradient(name, array):
    """An integer array to differentiate with respect to."""
    return TypeError(
        f"{name} holds {array.dtype}, which has no gradient: it must be a floating-point array"
    )


# --- out ------------------------------------------------------------------------------------------


def bad_out(out, name, shape):
    """An out that cannot hold the result."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        return TypeError(f"out for the {name} must be a numpy.ndarray, got {type(out).__name__}")
    if out.shape != shape:
        return ValueError(f"out for the {name} has shape {out.shape}: it must have shape {shape}")
    if not out.flags.writeable:
        return ValueError(f"out for the {name} is read-only")
    return ValueError(f"out for the {name} has entries that overlap each other in memory")


def out_dtype(out, name, dtype):
    """An out of the wrong dtype."""
    or_float32 = " or float32" if dtype.itemsize == 2 else ""
    return TypeError(
        f"out for the {name} has dtype {out.dtype}: it must have dtype {dtype}{or_float32}"
    )


def overlapping(name, other):
    """An out whose memory belongs to an argument or to another out."""
    return ValueError(
        f"out for the {name} overlaps {other}: it must not share memory with an argument, unless "
        "it is exactly the argument that it is the gradient of"
    )


# --- arguments ------------------------------------------------------------------------------------


def bad_reduction(value, batchmean):
    """A reduction that the loss does not have."""
    names = "'mean', 'sum', 'none'" + (", 'batchmean'" if batchmean else "")
    return ValueError(f"reduction must be one of {names}, got {value!r}")


def too_many(name, positional, count):
    """More positional arguments than the loss takes."""
    return TypeError(
        f"{name}() takes {len(positional)} positional arguments ({', '.join(positional)}) but "
        f"{count} were given; options are keyword-only"
    )


def missing(name, operand):
    """An array that was not passed."""
    return TypeError(f"{name}() is missing the required argument {operand!r}")


def twice(name, keyword):
    """An argument passed both by position and by keyword."""
    return TypeError(f"{name}() got multiple values for argument {keyword!r}")


def unknown_keyword(loss, keyword, gradient):
    """A keyword that the method does not take."""
    import difflib  # slower to import than the rest of fastloss

    names = [p for p in loss.__signature__.parameters if p not in loss.operands]
    names += ["wrt", "grad_output"] if gradient else []
    if keyword in ("size_average", "reduce"):
        hint = "; use reduction='mean', 'sum' or 'none'"
    elif keyword in ("wrt", "grad_output"):
        hint = "; only .grad and .value_and_grad take it"
    elif keyword == "out":
        hint = "; the sums are returned as scalars"
    else:
        close = difflib.get_close_matches(keyword, names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; its options are {', '.join(names)}"
    return TypeError(f"{loss.__name__}() got an unexpected keyword argument {keyword!r}{hint}")


# --- values ---------------------------------------------------------------------------------------

# Allowed values of each floating-point domain.
_ALLOWED = {
    "unit_interval": "between 0 and 1",
    "nonnegative": "at least 0",
    "positive": "above 0",
    "sign": "-1 or 1",
}


def _entry(name, array, index, rows):
    """An entry as text, such as ``target[3, 5]``, and its value.

    `index` refers to the loss: the array may be broadcast to it, or may lack its trailing axes.
    `rows` is the number of leading rows in earlier chunks.
    """
    index = index[: array.ndim]
    inside = tuple(i if n > 1 else 0 for i, n in zip(index, array.shape, strict=True))
    value = array[inside].item() if array.dtype.name != "bfloat16" else float(array[inside])
    if inside and rows:
        inside = (inside[0] + rows, *inside[1:])
    return f"{name}[{', '.join(map(str, inside))}]" if inside else name, value


def bad_value(name, array, index, domain, rows):
    """A floating-point value outside its domain."""
    entry, value = _entry(name, array, index, rows)
    remedy = ""
    if domain == "unit_interval" and name == "input":  # only of binary_cross_entropy
        remedy = "; for logits, use binary_cross_entropy_with_logits"
    if domain == "positive" and value > 0:
        remedy = " as a float32, which rounds it to 0; pass arrays of float64"
    allowed = _ALLOWED[domain] + remedy
    return ValueError(f"{entry} = {value!r} is not allowed: {name} must be {allowed}")


def sum_out_of_range(loss, is_sum):
    """A sum that float64 does not hold, though the losses and weights are finite."""
    what = "the sum of the losses times their weights" if is_sum else "the sum of the weights"
    return OverflowError(
        f"{loss + ': ' if loss else ''}{what} is out of the range of float64, 2.2e-308 to 1.8e308: "
        "multiply the weights by a power of two; reduction='mean' of one call does not depend on "
        "their scale"
    )


def gradient_factor(loss, index):
    """Finite weights and grad_output whose product, the factor of a gradient, is infinite."""
    place = f" at index [{', '.join(map(str, index))}]" if index else ""
    return OverflowError(
        f"{loss}: grad_output times the weights{place} is out of the range of float64: divide "
        "grad_output by a power of two, and multiply the gradient by it"
    )


def _classes(name, classes):
    if classes < 2:
        return f"{name} has {'one class (0)' if classes else 'no classes'}"
    return f"{name} has {classes} classes (0..{classes - 1})"


def bad_class(name, array, index, classes, ignore_index, rows):
    """A class index outside the range of the classes."""
    entry, value = _entry(name, array, index, rows)
    ignored = "" if ignore_index is None else f", and ignore_index is {ignore_index}"
    has = _classes("input", classes)
    return ClassIndexError(f"{entry} = {value!r} is not a class: {has}{ignored}")


def bad_label(name, array, index, classes, rows):
    """A label that is neither a class nor the -1 that ends the labels of a row."""
    entry, value = _entry(name, array, index, rows)
    has = _classes("input", classes)
    return ClassIndexError(
        f"{entry} = {value!r} is not a class: {has}, and -1 ends the labels of a row"
    )


def not_a_class(name, array, index, classes, rows):
    """A target that is neither of two classes, where losses are grouped by class."""
    entry, value = _entry(name, array, index, rows)
    return ValueError(
        f"{entry} = {value} is not a class: by='class' needs targets that are {classes[0]} or "
        f"{classes[1]}"
    )


# --- sequences ------------------------------------------------------------------------------------


def bad_sequence_blank(name, blank, classes):
    """A blank that is not a class."""
    return ValueError(f"blank = {blank} is not a class: {_classes(name, classes)}")


def bad_sequence_shape(name, array, batch_first):
    """Frames that are neither a batch nor one sequence."""
    batch = "(N, T, C)" if batch_first else "(T, N, C)"
    return ValueError(
        f"{name} has shape {array.shape}: it must have shape {batch}, or (T, C) for one sequence"
    )


def bad_sequence_lengths(name, array, samples):
    """Lengths that are not integers, or not one per sample."""
    if array.dtype.kind not in "iu":
        return TypeError(f"{name} holds {array.dtype}: lengths must be integers")
    return ValueError(
        f"{name} has shape {array.shape}: it must be a scalar, or hold one length per sample, "
        f"shape ({samples},)"
    )


def bad_sequence_length(entry, length, limit, counted):
    """A length out of range."""
    return ValueError(
        f"{entry} = {length} is not allowed: it must be between 0 and {limit}, the number of "
        f"{counted}"
    )


def bad_sequence_targets(shape, samples, total):
    """Labels whose shape does not match the samples."""
    return ValueError(
        f"targets has shape {shape}: it must have shape ({samples}, S), or be 1-D and hold the "
        f"sum(target_lengths) = {total} labels of all samples, concatenated"
    )


def bad_sequence_frame(loss, name, index, total):
    """Probabilities of a frame that do not sum to 1."""
    return ValueError(
        f"the probabilities of {name}[{index}] sum to {total:.6g}: {name} must be log-softmax "
        f"outputs, whose probabilities sum to 1; for logits use fastloss.{loss}_with_logits"
    )


def bad_sequence_label(entry, label, name, classes, blank):
    """A label that is not a class, or is the blank."""
    if label == blank:
        return ValueError(
            f"{entry} = {label} is the blank, which is not a label: blank must be the class that "
            "the model was trained with as its blank, and padding must lie beyond target_lengths"
        )
    has = _classes(name, classes)
    return ClassIndexError(f"{entry} = {label} is not a class: {has}, and {blank} is the blank")
