"""Arguments that change other arrays when they are read, and arrays that lie about themselves."""

import contextlib
import warnings

import numpy as np


class ArrayLike:
    """An array-like whose conversion changes other arrays."""

    def __init__(self, array, change):
        self.array, self.change = array, change

    def __array__(self, dtype=None, copy=None):
        self.change()
        return self.array


def set_dtype(name):
    def change(array):
        array.dtype = name

    return change


def reshape(array):
    array.shape = array.shape[::-1] if len(set(array.shape)) > 1 else (*array.shape, 1)


def shrink(array):
    array.resize(1, refcheck=False)


def restride(array):
    array.strides = (0,) * array.ndim


CHANGES = {
    "complex": set_dtype(np.complex128),
    "int8": set_dtype(np.int8),
    "float16": set_dtype(np.float16),
    "uint64": set_dtype(np.uint64),
    "swapped": set_dtype(">f8"),
    "shape": reshape,
    "shrink": shrink,
    "strides": restride,
}


def attempt(change, array):
    """Changes an array, unless NumPy refuses this change of it."""
    with warnings.catch_warnings(), contextlib.suppress(ValueError, TypeError, AttributeError):
        warnings.simplefilter("ignore")  # NumPy advises against some of them
        change(array)


class Liar(np.ndarray):
    """An array whose attributes and methods are wrong."""

    def __getattribute__(self, name):
        lies = object.__getattribute__(self, "__dict__").get("lies", {})
        return lies[name] if name in lies else super().__getattribute__(name)

    def __array_function__(self, function, types, args, kwargs):
        if function is np.shares_memory:
            return False
        return super().__array_function__(function, types, args, kwargs)

    def view(self, *args):
        return np.zeros(1)

    def fill(self, value):
        raise AssertionError("a method of the subclass was called")

    def __array__(self, *args, **kwargs):
        return np.zeros(1)


def liar(array, **lies):
    result = np.ndarray.view(array, Liar)
    result.__dict__["lies"] = lies
    return result
