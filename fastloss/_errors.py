"""What the binding asks of Python off the fast path: arrays from array-likes, rules of options, and error messages.

A message names the argument, the position, the value and what would be right.
"""

import difflib
import math
import operator

import numpy as np


class ClassIndexError(ValueError, IndexError):
    """A class index outside the classes of the input."""


# --- arrays ---------------------------------------------------------------------------------------

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
            f"{name} is a masked array: fastloss does not read masks; pass {name}.filled(...) and a "
            "sample_weight of 0 where it is masked"
        )
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if type(value).__module__.partition(".")[0] == "dask":
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__}: pass {name}.compute(), or add up the "
            ".sums(...) of its blocks"
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


def variance(var, input):
    """A variance that several elements share: (view with the input's number of axes, the shared axis)."""
    if var.shape == input.shape[:-1]:
        return var[..., np.newaxis], input.ndim - 1
    if var.ndim == input.ndim:
        unequal = [axis for axis in range(var.ndim) if var.shape[axis] != input.shape[axis]]
        if len(unequal) == 1 and var.shape[unequal[0]] == 1:
            return var, unequal[0]
    raise ValueError(
        f"var has shape {var.shape}, which does not fit input of shape {input.shape}: it must be a number or have "
        f"shape {input.shape}, {input.shape[:-1]}, or {input.shape} with a 1 in place of one axis"
    )


def weight_view(weight, name, shape, leading):
    """A weight brought to as many axes as the loss has."""
    if leading:
        if weight.shape == shape:
            return weight
        if weight.ndim == 1 and shape and weight.shape[0] == shape[0]:
            return weight.reshape(weight.shape + (1,) * (len(shape) - 1)) if len(shape) > 1 else weight
        allowed = f"{shape}, that of the unreduced loss" + (
            f", or ({shape[0]},), that of its leading axis" if len(shape) > 1 else ""
        )
        raise ValueError(f"{name} has shape {weight.shape}: it must have shape {allowed}")
    missing = len(shape) - weight.ndim
    if missing < 0 or any(w not in (1, n) for w, n in zip(weight.shape, shape[missing:], strict=True)):
        raise ValueError(f"{name} of shape {weight.shape} cannot be broadcast to the input's shape {shape}")
    return weight.reshape((1,) * missing + weight.shape)


def class_weight(value, classes, is_double):
    """One weight per class, in the compute type."""
    weight = as_array(value, "weight")
    if weight.dtype.kind not in "fiub" and weight.dtype.name != "bfloat16":
        raise bad_dtype("weight", weight, False, 0)
    if weight.shape != (classes,):
        raise ValueError(f"weight has shape {weight.shape}: it must hold one number per class, shape ({classes},)")
    return np.require(weight, "float64" if is_double else "float32", ["C_CONTIGUOUS", "ALIGNED"])


def bad_classes(input, target, name):
    """A target that has not the shape of class indices."""
    if input.ndim == 0:
        return ValueError(
            "input is 0-d: it must have a class axis, as in (C), (N, C) or (N, C, d1, ..., dK)"
        )
    expected = input.shape[:1] + input.shape[2:] if input.ndim > 1 else ()
    if target.shape != input.shape:
        return ValueError(
            f"target has shape {target.shape}, but class indices for input of shape {input.shape} must have shape "
            f"{expected}"
        )
    axis = f"axis={1 if input.ndim > 1 else 0}"
    # torch reads a target of the input's shape as probabilities in cross_entropy only.
    return (TypeError if name == "cross_entropy" else ValueError)(
        f"target has the input's shape {input.shape} but holds integers ({target.dtype}): class indices have shape "
        f"{expected}; those of a one-hot target are target.argmax({axis})"
    )


def shapes_differ(name, array, other_name, other):
    """Two arrays that should have one shape."""
    hint = ""
    if array.size == other.size and array.squeeze().shape == other.squeeze().shape:
        hint = f"; pass {other_name}.reshape({array.shape})"
    return ValueError(
        f"{other_name} has shape {other.shape} and {name} has shape {array.shape}: they must be equal (only numbers "
        f"broadcast){hint}"
    )


def bad_dtype(name, array, classes, operand):
    """A dtype that an argument cannot have."""
    dtype = array.dtype
    if classes and operand == 0 and dtype.kind in "iub":
        return TypeError(
            f"{name} holds {dtype}: it must hold floating-point scores; are input and target swapped?"
        )
    if classes and operand == 1:
        if dtype.kind == "b":
            return TypeError(f"{name} holds bool: class indices must be integers; pass {name}.astype(int)")
        if dtype.kind == "f" or dtype.name == "bfloat16":
            return TypeError(
                f"{name} holds {dtype}: class indices must be integers; pass {name}.astype(np.int64)"
            )
    if dtype.kind == "O":
        return TypeError(f"{name} is no numeric array: NumPy reads it as dtype object")
    hint = ""
    if dtype.kind == "f":
        hint = f"; pass {name}.astype(np.float64)"
    elif dtype.kind == "c":
        hint = "; pass its .real and .imag separately"
    return TypeError(f"{name} has dtype {dtype}, which fastloss does not compute with{hint}")


# --- out, wrt, grad_output ------------------------------------------------------------------------


def split_out(out, values, grads):
    """(out of the values, out of the gradients)."""
    if values and grads:
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError("out must be a pair (values, gradients) with reduction='none'")
        return out
    if not values and not grads:
        raise ValueError("out holds the unreduced losses: it needs reduction='none'")
    return (out, None) if values else (None, out)


def grad_outs(out, wrt, single):
    """One out (or None) per gradient."""
    if out is None:
        return [None] * len(wrt)
    if single:
        return [out]
    if not isinstance(out, (tuple, list)) or len(out) != len(wrt):
        raise TypeError(f"out must be a tuple of {len(wrt)} arrays, the gradients of {', '.join(wrt)}")
    return out


def check_out(out, name, shape):
    """An array that results can be written to."""
    if type(out) is not np.ndarray:
        raise TypeError(f"out for the {name} must be a numpy.ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out for the {name} has shape {out.shape}: it must have shape {shape}")
    if not out.flags.writeable:
        raise ValueError(f"out for the {name} is read-only")


def out_dtype(out, name, dtype):
    """An out of the wrong type."""
    wider = " or float32" if dtype.itemsize == 2 else ""
    return TypeError(f"out for the {name} has dtype {out.dtype}: it must have dtype {dtype}{wider}")


def overlapping(name, other):
    """An out that would overwrite what is still to be read."""
    return ValueError(
        f"out for the {name} overlaps {other}: it must be apart from every argument, or be exactly the one that it "
        "differentiates"
    )


def wrt(loss, value):
    """The names of the arguments to differentiate by."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (tuple, list)) or not names:
        raise TypeError(f"wrt must be an argument's name or a tuple of names, got {value!r}")
    for name in names:
        if name not in loss.differentiable:
            raise ValueError(
                f"wrt={name!r}: {loss.__name__} has gradients for {', '.join(map(repr, loss.differentiable))}"
            )
    if len(set(names)) != len(names):
        raise ValueError(f"wrt={value!r} names an argument twice")
    return tuple(names)


def no_gradient(name, array):
    """Integers have no gradient."""
    return TypeError(f"{name} holds {array.dtype}, which has no gradient: pass a floating-point array")


def check_upstream(array, shape, none):
    """The shape of an upstream gradient."""
    if not none:
        raise ValueError(
            f"grad_output has shape {array.shape}: it must be a number unless reduction='none'"
        )
    if array.shape != shape:
        raise ValueError(f"grad_output has shape {array.shape}: it must be a number or have the loss's shape {shape}")


# --- options --------------------------------------------------------------------------------------


class Rule:
    """The values that a numeric option may have."""

    def __init__(self, words, accepts):
        self.words = words
        self.accepts = accepts

    def __repr__(self):
        return self.words


FINITE = Rule("finite", math.isfinite)
POSITIVE = Rule("positive", lambda v: v > 0)
NONNEGATIVE = Rule("at least 0", lambda v: v >= 0)
FINITE_NONNEGATIVE = Rule("finite and at least 0", lambda v: 0 <= v < math.inf)
FRACTION = Rule("between 0 and 1", lambda v: 0 <= v <= 1)


def number(name, value, rule):
    """A numeric option as float."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__") or np.ndim(value) > 0:
        raise TypeError(f"{name} must be a number, got {value!r}")
    result = float(value)
    if not rule.accepts(result):
        raise ValueError(f"{name} must be {rule.words}, got {value!r}")
    return result


def flag(name, value):
    """A boolean option."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {value!r}")


def integer(name, value):
    """An integer option."""
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not -(2**63) <= result < 2**63:
        raise ValueError(f"{name} must fit in 64 bits, got {value!r}")
    return result


def bad_reduction(value, batchmean):
    """A reduction that the loss does not have."""
    names = "'mean', 'sum', 'none'" + (", 'batchmean'" if batchmean else "")
    return ValueError(f"reduction must be one of {names}, got {value!r}")


def too_many(name, positional, given):
    """Options by position."""
    return TypeError(
        f"{name}() takes {len(positional)} positional arguments ({', '.join(positional)}) but {given} were given; "
        "options go by keyword"
    )


def missing(name, operands, given):
    """An array that was not passed."""
    names = [operand for operand, there in zip(operands, given, strict=False) if not there]
    return TypeError(f"{name}() misses {' and '.join(names)}")


def unknown_keyword(loss, keyword, gradient):
    """A keyword that the method does not have."""
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


# --- values ---------------------------------------------------------------------------------------

# In the order of fl_domain.
_DOMAINS = [None, "between 0 and 1", "at least 0", "-1 or 1"]


def _place(name, array, index, rows):
    """``name[3, 5]`` and the value there; `index` is of the loss, which a smaller array is broadcast to."""
    index = index[len(index) - array.ndim :] if array.ndim <= len(index) else index
    inside = tuple(i if n > 1 else 0 for i, n in zip(index, array.shape, strict=True))
    value = array[inside].item() if array.dtype.name != "bfloat16" else float(array[inside])
    if inside and rows:
        inside = (inside[0] + rows, *inside[1:])
    return f"{name}[{', '.join(map(str, inside))}]" if inside else name, value


def bad_value(name, value, index, domain, rows):
    """A floating value outside its domain."""
    array = as_array(value, name)
    if name == "sample_weight" and array.ndim < len(index):
        index = index[:1]
    place, found = _place(name, array, index, rows)
    return ValueError(f"{place} = {found!r} is not allowed: {name} must be {_DOMAINS[domain]}")


def bad_class(name, array, index, classes, ignore_index, rows):
    """A class index outside the classes."""
    place, found = _place(name, array, index, rows)
    has = f"input has {classes} classes (0..{classes - 1})" if classes else "input has no classes"
    ignored = "" if ignore_index is None else f", and ignore_index is {ignore_index}"
    return ClassIndexError(f"{place} = {found!r} is not a class: {has}{ignored}")
