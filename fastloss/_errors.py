"""Error messages: each names the argument, the position, the value and what would be right."""

import numpy as np


class ClassIndexError(ValueError, IndexError):
    """A class index outside the classes of the input."""

    __module__ = "fastloss"


def bad_classes(input, target, name):
    """A target that has not the shape of class indices."""
    if input.ndim == 0:
        return ValueError(
            "input is 0-d: it must have a class axis, as in (C), (N, C) or (N, C, d1, ..., dK)"
        )
    expected = input.shape[:1] + input.shape[2:] if input.ndim > 1 else ()
    if target.shape != input.shape:
        return ValueError(
            f"target has shape {target.shape}, but class indices for input of shape {input.shape} "
            f"must have shape {expected}"
        )
    axis = f"axis={1 if input.ndim > 1 else 0}"
    # torch reads a target of the input's shape as probabilities in cross_entropy only.
    return (TypeError if name == "cross_entropy" else ValueError)(
        f"target has the input's shape {input.shape} but holds integers ({target.dtype}): class "
        f"indices have shape {expected}; those of a one-hot target are target.argmax({axis})"
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


def bad_class_dtype(name, array, scores):
    """Scores that are not floating-point, class indices that are not integers."""
    dtype = array.dtype
    if scores and dtype.kind in "iub":
        return TypeError(
            f"{name} holds {dtype}: it must hold floating-point scores; are input and target "
            "swapped?"
        )
    if not scores and (dtype.kind in "fb" or dtype.name == "bfloat16"):
        remedy = f"pass {name}.astype(np.int64)"
        if array.ndim > 1:
            remedy += f", or for probabilities of classes {name}.argmax(axis=1)"
        return TypeError(f"{name} holds {dtype}: class indices must be integers; {remedy}")
    return bad_dtype(name, array)


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
_DOMAINS = [None, "between 0 and 1", "at least 0", "-1 or 1"]


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


def bad_class(name, array, index, classes, ignore_index, rows):
    """A class index outside the classes."""
    place, found = _place(name, array, index, rows)
    has = f"input has {classes} classes (0..{classes - 1})" if classes else "input has no classes"
    ignored = "" if ignore_index is None else f", and ignore_index is {ignore_index}"
    return ClassIndexError(f"{place} = {found!r} is not a class: {has}{ignored}")
