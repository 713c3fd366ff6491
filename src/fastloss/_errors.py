"""Error messages: each names the argument, the position, the value and what would be right."""

import numpy as np


class ClassIndexError(ValueError, IndexError):
    """A class index outside the classes of the input."""

    __module__ = "fastloss"


def no_row_axis(name, second):
    """A 0-d array of rows."""
    axis = (
        "a class axis, as in (C), (N, C) or (N, C, d1, ..., dK)"
        if second
        else "a last axis of classes or features, as in (C), (N, C) or (..., C)"
    )
    return ValueError(f"{name} is 0-d: it must have {axis}")


def _without(shape, axis):
    return shape[:axis] + shape[axis + 1 :]


def bad_units(name, rows, other_name, other, axis, probabilities, indices):
    """An array that should hold one number for each row, such as class indices."""
    expected = _without(rows.shape, axis)
    if other.shape != rows.shape or not indices:
        what = "class indices" if indices else "labels"
        return ValueError(
            f"{other_name} has shape {other.shape}, but {what} for {name} of shape {rows.shape} "
            f"must have shape {expected}"
        )
    # torch reads a target of the input's shape as probabilities in cross_entropy only.
    return (TypeError if probabilities else ValueError)(
        f"{other_name} has the input's shape {rows.shape} but holds integers ({other.dtype}): "
        f"class indices have shape {expected}; those of a one-hot target are "
        f"{other_name}.argmax(axis={axis})"
        + (f", and as probabilities it is {other_name}.astype({rows.dtype})" * probabilities)
    )


def rows_differ(name, rows, other_name, other, axis, probabilities):
    """Two arrays of rows that should have one shape."""
    if probabilities and other.shape == _without(rows.shape, axis):
        return TypeError(
            f"{other_name} holds {other.dtype}: class indices must be integers; pass "
            f"{other_name}.astype(np.int64), or probabilities of the input's shape {rows.shape}"
        )
    return ValueError(
        f"{other_name} has shape {other.shape} and {name} has shape {rows.shape}: they must be "
        "equal"
    )


def bad_class_weight(weight, classes):
    """Weights that are not one for each class."""
    return ValueError(
        f"weight has shape {weight.shape}: it must hold one number per class, shape ({classes},)"
    )


def ignored_probabilities(ignore_index):
    """An index to ignore where there are no indices."""
    return ValueError(
        f"ignore_index is {ignore_index}, but target holds probabilities: give the rows to leave "
        "out a sample_weight of 0"
    )


def shapes_differ(name, array, other_name, other):
    """Two arrays that should have one shape."""
    hint = ""
    if array.size == other.size and array.squeeze().shape == other.squeeze().shape:
        hint = f"; pass {other_name}.reshape({array.shape})"
    return ValueError(
        f"{other_name} has shape {other.shape} and {name} has shape {array.shape}: they must be "
        f"equal (only numbers broadcast){hint}"
    )


def bad_dtype(name, array):
    """A dtype that fastloss does not compute with."""
    if array.dtype.kind == "O":
        return TypeError(f"{name} is no numeric array: NumPy reads it as dtype object")
    hint = ""
    if array.dtype.kind == "f":
        hint = f"; pass {name}.astype(np.float64)"
    elif array.dtype.kind == "c":
        hint = "; pass its .real and .imag separately"
    return TypeError(f"{name} has dtype {array.dtype}, which fastloss does not compute with{hint}")


def no_scores(name, array, other_name):
    """Scores that are not floating-point."""
    if array.dtype.kind in "iub":
        return TypeError(
            f"{name} holds {array.dtype}: it must hold floating-point scores; are {name} and "
            f"{other_name} swapped?"
        )
    return bad_dtype(name, array)


def no_indices(name, array, rows, second):
    """Class indices that are not integers."""
    dtype = array.dtype
    if dtype.kind not in "fb" and dtype.name != "bfloat16":
        return bad_dtype(name, array)
    remedy = f"pass {name}.astype(np.int64)"
    if rows:
        remedy = "list the classes that apply, then -1 to the end of the row"
    elif array.ndim > 1 and second:
        remedy += f", or for probabilities of classes {name}.argmax(axis=1)"
    return TypeError(f"{name} holds {dtype}: class indices must be integers; {remedy}")


def bool_labels(name):
    """Booleans where labels are -1 or 1."""
    return TypeError(f"{name} holds bool: its labels are -1 and 1; pass np.where({name}, 1, -1)")


def too_large(name):
    """An integer beyond the floating-point numbers."""
    return ValueError(f"{name} must fit in a float")


def bad_out(out, name, shape):
    """An out that results cannot be written to."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        return TypeError(f"out for the {name} must be a numpy.ndarray, got {type(out).__name__}")
    if out.shape != shape:
        return ValueError(f"out for the {name} has shape {out.shape}: it must have shape {shape}")
    if not out.flags.writeable:
        return ValueError(f"out for the {name} is read-only")
    return ValueError(f"entries of out for the {name} overlap each other")


def out_dtype(out, name, dtype):
    """An out of the wrong type."""
    wider = " or float32" if dtype.itemsize == 2 else ""
    return TypeError(f"out for the {name} has dtype {out.dtype}: it must have dtype {dtype}{wider}")


def overlapping(name, other):
    """An out that would overwrite what is still to be read."""
    return ValueError(
        f"out for the {name} overlaps {other}: it must be apart from every argument, or be exactly "
        "the one that it differentiates"
    )


def no_gradient(name, array):
    """Integers have no gradient."""
    return TypeError(
        f"{name} holds {array.dtype}, which has no gradient: pass a floating-point array"
    )


def bad_reduction(value, batchmean):
    """A reduction that the loss does not have."""
    names = "'mean', 'sum', 'none'" + (", 'batchmean'" if batchmean else "")
    return ValueError(f"reduction must be one of {names}, got {value!r}")


def too_many(name, positional, given):
    """Options by position."""
    return TypeError(
        f"{name}() takes {len(positional)} positional arguments ({', '.join(positional)}) but "
        f"{given} were given; options go by keyword"
    )


def missing(name, operand):
    """An array that was not passed."""
    return TypeError(f"{name}() misses {operand!r}")


def twice(name, keyword):
    """An argument both by position and by keyword."""
    return TypeError(f"{name}() got multiple values for argument {keyword!r}")


def unknown_keyword(loss, keyword, gradient):
    """A keyword that the method does not have."""
    import difflib  # costs more than the import of the rest

    names = [p for p in loss.__signature__.parameters if p not in loss.operands]
    names += ["wrt", "grad_output"] if gradient else []
    if keyword in ("size_average", "reduce"):
        hint = "; say reduction='mean', 'sum' or 'none'"
    elif keyword in ("wrt", "grad_output"):
        hint = "; it belongs to .grad and .value_and_grad"
    elif keyword == "out":
        hint = "; sums are returned"
    else:
        close = difflib.get_close_matches(keyword, names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; its options are {', '.join(names)}"
    return TypeError(f"{loss.__name__}() got an unexpected keyword argument {keyword!r}{hint}")


# In the order of fl_domain.
_DOMAINS = [None, "between 0 and 1", "at least 0", "above 0", "-1 or 1"]


def _place(name, array, index, rows):
    """``name[3, 5]`` and the value there; `index` is of the loss, the array may be broadcast."""
    index = index[: array.ndim]  # fewer axes are leading ones
    inside = tuple(i if n > 1 else 0 for i, n in zip(index, array.shape, strict=True))
    value = array[inside].item() if array.dtype.name != "bfloat16" else float(array[inside])
    if inside and rows:
        inside = (inside[0] + rows, *inside[1:])
    return f"{name}[{', '.join(map(str, inside))}]" if inside else name, value


def bad_value(name, array, index, domain, rows):
    """A floating value outside its domain."""
    place, found = _place(name, array, index, rows)
    return ValueError(f"{place} = {found!r} is not allowed: {name} must be {_DOMAINS[domain]}")


def _classes(name, classes):
    if classes < 2:
        return f"{name} has {'one class (0)' if classes else 'no classes'}"
    return f"{name} has {classes} classes (0..{classes - 1})"


def bad_class(name, array, index, classes, ignore_index, rows):
    """A class index outside the classes."""
    place, found = _place(name, array, index, rows)
    ignored = "" if ignore_index is None else f", and ignore_index is {ignore_index}"
    has = _classes("input", classes)
    return ClassIndexError(f"{place} = {found!r} is not a class: {has}{ignored}")


def bad_label(name, array, index, classes, rows):
    """A label that is neither a class nor the -1 that ends a row."""
    place, found = _place(name, array, index, rows)
    has = _classes("input", classes)
    return ClassIndexError(
        f"{place} = {found!r} is not a class: {has}, and -1 ends the labels of a row"
    )


def bad_blank(name, blank, classes):
    """A blank that is no class."""
    return ValueError(f"blank = {blank} is not a class: {_classes(name, classes)}")


def bad_sequence_shape(name, array, batch_first):
    """Frames that are neither a batch nor a sequence."""
    batch = "(N, T, C)" if batch_first else "(T, N, C)"
    return ValueError(
        f"{name} has shape {array.shape}: it must have shape {batch}, or (T, C) for one sequence"
    )


def bad_lengths(name, array, samples):
    """Lengths that are no integers, or not one for each sample."""
    if array.dtype.kind not in "iu":
        return TypeError(f"{name} holds {array.dtype}: lengths must be integers")
    return ValueError(
        f"{name} has shape {array.shape}: it must be one number, or hold one for each sample, "
        f"shape ({samples},)"
    )


def not_a_class(name, array, index, classes, rows):
    """A target of two classes that is neither, where classes are told apart."""
    place, found = _place(name, array, index, rows)
    return ValueError(
        f"{place} = {found} is not a class: by='class' needs targets that are {classes[0]} or "
        f"{classes[1]}"
    )


def bad_length(place, length, most, of):
    """A length out of range."""
    return ValueError(
        f"{place} = {length} is not allowed: it must be between 0 and {most}, the number of {of}"
    )


def bad_targets(shape, samples, total):
    """Labels that do not fit the samples."""
    return ValueError(
        f"targets has shape {shape}: it must have shape ({samples}, S), or be 1-D with the "
        f"sum(target_lengths) = {total} labels of all samples one after the other"
    )


def bad_frame(name, place, total):
    """Probabilities that do not sum to one."""
    return ValueError(
        f"the probabilities of {name}[{place}] add up to {total:.6g}: they must be log-softmax "
        "outputs, which add up to 1, for a gradient; fastloss.ctc_loss_with_logits takes logits"
    )


def bad_sequence_label(place, label, name, classes, blank):
    """A label outside the classes, or the blank."""
    if label == blank:
        return ValueError(
            f"{place} = {label} is the blank, which no target may contain: pass the labels alone, "
            "or another blank"
        )
    has = _classes(name, classes)
    return ClassIndexError(f"{place} = {label} is not a class: {has}, {blank} being the blank")
