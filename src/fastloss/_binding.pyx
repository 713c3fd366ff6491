# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""The binding: from Python arguments to an fl_call and back.

Design
------
a) A call. `Loss._parse` reads the arguments into an `Arguments` struct. `Call._run` then, in this
   order: converts array-likes to arrays (`_convert`); picks the formula (the row of losses.def),
   the compute type and the shape of the loss (`_operands`); reads weights and options (`_weights`);
   makes or checks the output arrays (`_outputs`); decides whether operands must be validated before
   anything is written (`_phases`); runs `fl_run` without the GIL; and returns a float, arrays, or
   the error that names argument, position and value (`_result`, `_bad_value`).
b) Arguments are parsed by hand, into slots. A loss is called like a function thousands of times a
   second on a few numbers; binding keywords through a Python def takes 0.5 to 0.7 µs, more than the
   rest of such a call. Each keyword maps to a small integer, its parameter id, and the parser
   switches on it. The Python def in losses.py gives only signature and docstring.
c) Arrays are read through the ndarray C API (0.08 µs for an operand), not as typed memoryviews
   (0.26 µs for two), which also refuse read-only arrays and half types.
d) References are borrowed: arguments live as long as the call, and whatever the call itself creates
   is held in `owned_refs`.
e) Code of the caller, such as the `__array__` of an argument, may change the dtype, the shape or
   the memory of any array. All of it therefore runs in `_parse` and `_convert`, and an array is
   read afterwards, from its C structure alone: an attribute of a subclass may be wrong. Signal
   handlers, finalisers and other threads can still run later, wherever the call executes Python
   code: the `_storage_hash` of all arrays must be unchanged when `fl_run` starts.
f) A small call keeps the GIL: to release it and get it back from other threads costs more than its
   work (`skips_gil_release`).
g) Loss and Call know arrays and options, but no formula, no family and no thread. Whatever depends
   on the loss is read from its row of losses.def: extents and domains of the operands, how units
   follow from shapes.
h) Rare paths are Python: array-likes and odd shapes in _arrays.py, options in _options.py, error
   messages in _errors.py.
i) A call has no list comprehension: where the list cannot grow, the code that Cython 3.3 generates
   for one releases the new entry twice.
"""

import math as _math
import os

import threading

import numpy as np

from fastloss import _arrays, _errors, _options

cimport cython
cimport numpy as cnp
from cpython.contextvars cimport PyContextVar_New
from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

cnp.import_array()

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil
    int PyErr_CheckSignals()
    object PyObject_GenericGetDict(object owner, void *context)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1


# --- options --------------------------------------------------------------------------------------

cdef enum:
    MEAN
    SUM
    NONE
    BATCHMEAN

cdef dict REDUCTIONS = {"mean": MEAN, "sum": SUM, "none": NONE, "batchmean": BATCHMEAN}

# The parameter id of a keyword. Operands are 0..3, float options NUMBER + i, booleans FLAG + i.
# A criterion binds the parameters from OPTION on.
cdef enum:
    SAMPLE_WEIGHT = 4
    OUT
    WRT
    GRAD_OUTPUT
    OPTION
    WEIGHT = OPTION
    POS_WEIGHT
    REDUCTION
    IGNORE_INDEX
    BLANK
    NUMBER = 20
    FLAG = 30

cdef dict SPECIAL = {"weight": WEIGHT, "pos_weight": POS_WEIGHT, "ignore_index": IGNORE_INDEX,
                     "blank": BLANK}

cdef enum:
    GIL_HELD_MAX_ELEMENTS = 2048  # elements, some µs of work

# Booleans that are read by a kernel or for the shapes; every other boolean selects a formula.
CALL_FLAGS = ("batch_first", "zero_infinity")

# Methods of a loss.
cdef enum:
    VALUE = 1
    GRADIENT = 2
    VALUE_AND_GRAD = VALUE | GRADIENT
    SUMS = 4
    UPDATE = 12  # sums, and the requested UnitOutputs

# The arguments of a call, as borrowed references. NULL: omitted, or None.
cdef struct Arguments:
    PyObject *operand[4]
    PyObject *weight
    PyObject *pos_weight
    PyObject *sample_weight
    PyObject *out
    PyObject *wrt
    PyObject *grad_output
    int reduction
    int flags
    double number[3]
    int64_t ignore_index, blank


# --- arrays ---------------------------------------------------------------------------------------

cdef inline int storage(cnp.ndarray a) except -2:
    """The fl_dtype of an array, or -1."""
    cdef int num = cnp.PyArray_TYPE(a), size
    if num == cnp.NPY_FLOAT:
        return FL_F32
    if num == cnp.NPY_DOUBLE:
        return FL_F64
    if num == cnp.NPY_FLOAT16:
        return FL_F16
    if num == cnp.NPY_BOOL:
        return FL_BOOL
    if cnp.NPY_BYTE <= num <= cnp.NPY_ULONGLONG:
        size = cnp.PyArray_ITEMSIZE(a)
        num = <int>FL_I8 if cnp.PyTypeNum_ISSIGNED(num) else <int>FL_U8
        return num + (0 if size == 1 else 1 if size == 2 else 2 if size == 4 else 3)
    if a.dtype.name == "bfloat16":
        return FL_BF16
    return -1


cdef dict FLOATING_NAMES = {FL_F32: "float32", FL_F64: "float64", FL_F16: "float16",
                            FL_BF16: "bfloat16"}

cdef extern from *:
    """
    #define HASH_FACTOR 0x9E3779B97F4A7C15u  // odd, with random bits: 2^64 over the golden ratio
    #define HASH_SQUARE (HASH_FACTOR * HASH_FACTOR)
    #define HASH_CUBE (HASH_SQUARE * HASH_FACTOR)
    #define ARRAY_FACTOR 0xC2B2AE3D27D4EB4Fu
    """
    const uint64_t HASH_FACTOR, HASH_SQUARE, HASH_CUBE, ARRAY_FACTOR

# NumPy's type numbers of these; it has none for bfloat16.
cdef int[4] TYPE_NUM
TYPE_NUM[<int>FL_F32], TYPE_NUM[<int>FL_F64] = cnp.NPY_FLOAT, cnp.NPY_DOUBLE
TYPE_NUM[<int>FL_F16] = cnp.NPY_FLOAT16


cdef inline bint is_floating(int dtype):
    return 0 <= dtype <= FL_BF16


cdef inline bint is_number(object value):
    """Whether value is a Python scalar, whose dtype is weak: it adapts to the arrays (NEP 50)."""
    return type(value) is float or type(value) is int or type(value) is bool


cdef inline bint is_array_like(PyObject *value) noexcept:
    """Whether an argument is neither an array nor a Python scalar: to read it may run any code."""
    return value != NULL and not cnp.PyArray_CheckExact(<object>value) and not is_number(
        <object>value)


cdef cnp.ndarray as_array(object value, str name):
    """Converts an array-like, without a copy if it exports its memory."""
    if cnp.PyArray_CheckExact(value):
        return <cnp.ndarray>value
    if is_number(value):
        return cnp.PyArray_FROM_O(value)
    return _arrays.as_array(value, name)


cdef cnp.ndarray plain_array(object value):
    """The value as an array of the base class, which cannot lie about itself: a view of an array of
    a subclass. None if it is no array, or masked."""
    if cnp.PyArray_CheckExact(value):
        return <cnp.ndarray>value
    if cnp.PyArray_Check(value) and not isinstance(value, np.ma.MaskedArray):
        return np.ndarray.view(value, np.ndarray)
    return None


cdef inline uint64_t add_storage_hash(uint64_t h, PyObject *value) noexcept:
    """Adds the dtype, shape, strides and address of an array to a hash; ignores other values."""
    cdef int axis, ndim
    cdef const cnp.npy_intp *dims
    cdef const cnp.npy_intp *strides
    if value == NULL or not cnp.PyArray_Check(<object>value):
        return h
    ndim = cnp.PyArray_NDIM(<cnp.ndarray>value)
    dims = cnp.PyArray_DIMS(<cnp.ndarray>value)
    strides = cnp.PyArray_STRIDES(<cnp.ndarray>value)
    # A polynomial in HASH_FACTOR by its powers: Horner's rule would be one chain of dependent
    # multiplications, 30 ns for two arrays.
    cdef uint64_t factor = HASH_CUBE
    cdef uint64_t own = (<uint64_t>cnp.PyArray_DATA(<cnp.ndarray>value)
                         + HASH_FACTOR * <uint64_t>cnp.PyArray_DTYPE(<cnp.ndarray>value)
                         + HASH_SQUARE * <uint64_t>ndim)
    for axis in range(ndim):
        own += factor * (<uint64_t>dims[axis] + HASH_FACTOR * <uint64_t>strides[axis])
        factor *= HASH_SQUARE
    return h * ARRAY_FACTOR + own


cdef int numeric(cnp.ndarray array, str name) except -1:
    """The fl_dtype of a numeric array; TypeError for others."""
    cdef int dtype = storage(array)
    if dtype < 0:
        raise _errors.bad_dtype(name, array)
    return dtype


cdef void fill_broadcast_array(fl_array *f, cnp.ndarray a, int dtype, bint is_double, int ndim,
                               const cnp.npy_intp *shape, int front) noexcept:
    """Describes `a`, broadcast to `shape` from axis `front` on, as an fl_array. Adjacent axes are
    merged where the strides allow it."""
    cdef int axis, back = front + cnp.PyArray_NDIM(a), n = 0
    cdef int64_t dim, step
    cdef const cnp.npy_intp *dims = cnp.PyArray_DIMS(a)
    cdef const cnp.npy_intp *strides = cnp.PyArray_STRIDES(a)
    cdef int compute = <int>FL_F64 if is_double else <int>FL_F32
    f.data = <char *>cnp.PyArray_DATA(a)
    f.dtype = <fl_dtype>dtype
    f.swapped = not cnp.PyArray_ISNOTSWAPPED(a)
    f.non_temporal = False
    f.is_direct = dtype == compute and not f.swapped and cnp.PyArray_ISALIGNED(a)
    for axis in range(ndim):
        dim = shape[axis]
        if dim == 1:
            continue
        if axis < front or axis >= back or dims[axis - front] == 1:
            step = 0
        else:
            step = strides[axis - front]
        if n > 0 and f.stride[n - 1] == step * dim:
            f.shape[n - 1] *= dim
            f.stride[n - 1] = step
        else:
            f.shape[n] = dim
            f.stride[n] = step
            n += 1
    f.ndim = n
    f.contiguous_run = f.shape[n - 1] if n > 0 and f.stride[n - 1] == cnp.PyArray_ITEMSIZE(a) else 1


cdef void fill_fl_array(fl_array *f, cnp.ndarray a, int dtype, bint is_double) noexcept:
    fill_broadcast_array(f, a, dtype, is_double, cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), 0)


cdef tuple shape_tuple(int ndim, const cnp.npy_intp *shape):
    cdef int axis
    cdef list dims = []
    for axis in range(ndim):
        dims.append(shape[axis])
    return tuple(dims)


cdef bint has_shape(cnp.ndarray a, int ndim, const cnp.npy_intp *shape) noexcept:
    return cnp.PyArray_NDIM(a) == ndim and cnp.PyArray_CompareLists(
        cnp.PyArray_DIMS(a), <cnp.npy_intp *>shape, ndim)


cdef bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    return has_shape(a, cnp.PyArray_NDIM(b), cnp.PyArray_DIMS(b))


cdef cnp.ndarray axis_last(cnp.ndarray a, int axis):
    """A view of `a` with `axis` moved to the end."""
    cdef cnp.npy_intp order[64]
    cdef cnp.PyArray_Dims axes
    cdef int k, last = cnp.PyArray_NDIM(a) - 1
    for k in range(last):
        order[k] = k if k < axis else k + 1
    order[last] = axis
    axes.ptr, axes.len = order, last + 1
    return cnp.PyArray_Transpose(a, &axes)


cdef int broadcast_offset(cnp.ndarray weight, bint of_samples, int ndim,
                          const cnp.npy_intp *shape) noexcept:
    """The first axis of `shape` that the weight has; -1 if it does not broadcast to `shape`."""
    cdef int k, front = ndim - cnp.PyArray_NDIM(weight)
    cdef cnp.npy_intp dim
    cdef bint leading
    if of_samples:  # a sample weight: the whole shape, or the leading axis
        leading = cnp.PyArray_NDIM(weight) == 1 and ndim > 0 and (
            cnp.PyArray_DIM(weight, 0) == shape[0])
        return 0 if leading or has_shape(weight, ndim, shape) else -1
    for k in range(cnp.PyArray_NDIM(weight) if front >= 0 else 0):
        dim = cnp.PyArray_DIM(weight, k)
        if dim != 1 and dim != shape[front + k]:
            return -1
    return max(front, -1)


cdef cnp.ndarray class_weight(cnp.ndarray weight, int64_t classes, bint of_labels):
    """The weights of all classes as contiguous doubles. If only the weights of the labels are read,
    contiguous floats stay as they are: converting all could take longer than the loss."""
    numeric(weight, "weight")
    if cnp.PyArray_NDIM(weight) != 1 or cnp.PyArray_DIM(weight, 0) != classes:
        raise _errors.bad_class_weight(weight, classes)
    if of_labels and cnp.PyArray_TYPE(weight) == cnp.NPY_FLOAT and cnp.PyArray_ISCARRAY_RO(weight):
        return weight
    return cnp.PyArray_FROM_OTF(weight, cnp.NPY_DOUBLE,
                                cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_FORCECAST)


cdef bint has_unit_shape(cnp.ndarray y, cnp.ndarray x, int axis):
    """Whether y has the shape of x without `axis`."""
    cdef int k, ndim = cnp.PyArray_NDIM(x)
    if cnp.PyArray_NDIM(y) != ndim - 1:
        return False
    for k in range(ndim - 1):
        if cnp.PyArray_DIM(y, k) != cnp.PyArray_DIM(x, k if k < axis else k + 1):
            return False
    return True


cdef bint same_memory(cnp.ndarray a, cnp.ndarray b):
    return (cnp.PyArray_DATA(a) == cnp.PyArray_DATA(b) and same_shape(a, b)
            and cnp.PyArray_CompareLists(cnp.PyArray_STRIDES(a), cnp.PyArray_STRIDES(b),
                                         cnp.PyArray_NDIM(a))
            and a.dtype == b.dtype)


# The range of addresses that the entries of an array span.
cdef struct Extent:
    char *low
    char *high


cdef Extent extent_of(cnp.ndarray a) noexcept:
    cdef Extent e
    cdef int axis
    cdef cnp.npy_intp reach
    e.low = e.high = <char *>cnp.PyArray_DATA(a)
    for axis in range(cnp.PyArray_NDIM(a)):
        reach = (cnp.PyArray_DIM(a, axis) - 1) * cnp.PyArray_STRIDE(a, axis)
        if reach < 0:
            e.low += reach
        else:
            e.high += reach
    e.high += cnp.PyArray_ITEMSIZE(a)
    return e


cdef bint overlap(cnp.ndarray a, cnp.ndarray b):
    cdef Extent ea, eb
    if cnp.PyArray_SIZE(a) == 0 or cnp.PyArray_SIZE(b) == 0:
        return False
    ea, eb = extent_of(a), extent_of(b)
    if ea.low >= eb.high or eb.low >= ea.high:
        return False
    if cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_IS_C_CONTIGUOUS(b):
        return True
    return _arrays.overlap(a, b)


# --- interrupts -----------------------------------------------------------------------------------

cdef unsigned long main_thread = threading.main_thread().ident
cdef long forks = 0  # of the processes from the first one to this one


def _after_fork():
    global main_thread, forks
    forks += 1
    main_thread = threading.main_thread().ident


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef int interrupted() noexcept with gil:
    return PyErr_CheckSignals() != 0


cdef int raise_pending() except -1:
    """Raises the exception that a signal handler set."""
    return -1


cdef double mean_divisor(const fl_totals *totals, double divide, int64_t rows) noexcept:
    """The divisor of a mean; for the "batchmean" of empty rows, the number of rows."""
    return <double>rows if divide == 0 else fl_ratio(totals.divisor_sum.hi, divide)


cdef int check_range(int out_of_range, str loss) except -1:
    """Raises an error if a sum is out of the range of float64."""
    if out_of_range:
        raise _errors.sum_out_of_range(loss, out_of_range & FL_SUM_OUT_OF_RANGE)
    return 0


# --- streams --------------------------------------------------------------------------------------

@cython.final
cdef class LossSums:
    """Running sums of a loss over chunks of leading rows.

    They are bitwise identical to the sums of one call over all rows if every chunk but the last
    holds whole blocks (`Loss._rows_per_block`).
    """

    cdef fl_totals totals
    cdef double divide  # batchmean: the number of losses in a row; else 1
    cdef readonly int64_t rows
    cdef int64_t first_row  # of the stream, for messages

    def __cinit__(self):
        memset(&self.totals, 0, sizeof(self.totals))
        self.divide = 1

    def __reduce__(self):
        return sums_from_tuple, self.to_tuple()

    def __copy__(self):
        cdef LossSums other = LossSums()
        other.totals, other.divide, other.rows = self.totals, self.divide, self.rows
        other.first_row = self.first_row
        return other

    def to_tuple(self):
        """The sums as a tuple of numbers, for `sums_from_tuple`."""
        cdef fl_totals *t = &self.totals
        return (t.count, self.rows, self.divide, t.sum.hi, t.sum.lo,
                t.divisor_sum.hi, t.divisor_sum.lo, t.moments.pivot,
                t.moments.rr.m, t.moments.rd.m, t.moments.dd.m,
                t.moments.rr.e, t.moments.rd.e, t.moments.dd.e)

    def merge(self, LossSums other not None):
        """Adds the sums of another stream."""
        cdef fl_totals totals = self.totals
        check_range(fl_add_totals(&totals, &other.totals), None)
        self._divide_by(other.divide, other.rows)
        self.totals = totals
        self.rows += other.rows

    cdef int _divide_by(self, double divide, int64_t rows) except -1:
        """Sets `divide`; all rows of a batchmean must have the same number of losses."""
        if self.rows > 0 and rows > 0 and divide != self.divide:
            raise ValueError(
                f"rows of {self.divide:.0f} and of {divide:.0f} losses have no common batchmean: "
                "use reduction='sum' and divide it"
            )
        if rows > 0 or self.rows == 0:
            self.divide = divide
        return 0

    @property
    def sum(self):
        return self.totals.sum.hi

    @property
    def count(self):
        return self.totals.count

    @property
    def weight(self):
        return mean_divisor(&self.totals, self.divide, self.rows)

    def value(self, str reduction="mean"):
        """The reduced loss of all rows so far."""
        cdef double total = self.totals.sum.hi, weight = self.weight
        return total if reduction == "sum" else fl_ratio(total, weight)

    def stderr(self, str reduction="mean"):
        """The standard error of the value, for independent losses."""
        return fl_standard_error(&self.totals, 1 if reduction == "sum" else self.weight)

    def empty_like(self):
        """Empty sums for part of the same losses."""
        cdef LossSums state = LossSums()
        state.divide = self.divide
        return state

    def next_rows(self):
        """Empty sums for the rows that follow these."""
        cdef LossSums state = self.empty_like()
        state.first_row = self.first_row + self.rows
        return state


def sums_from_tuple(int64_t count, int64_t rows, double divide, *numbers):
    """The inverse of `LossSums.to_tuple`."""
    cdef LossSums state = LossSums()
    cdef fl_totals *t = &state.totals
    *doubles, rr, rd, dd = numbers
    (t.sum.hi, t.sum.lo, t.divisor_sum.hi, t.divisor_sum.lo, t.moments.pivot,
     t.moments.rr.m, t.moments.rd.m, t.moments.dd.m) = doubles
    for exponent in (rr, rd, dd):
        if not (-10_000 <= exponent <= 10_000 and exponent == int(exponent)):
            raise ValueError(f"{exponent!r} is not an exponent of moments")
    t.moments.rr.e, t.moments.rd.e, t.moments.dd.e = int(rr), int(rd), int(dd)
    t.count, state.rows, state.divide = count, rows, divide
    return state


@cython.final
@cython.no_gc
cdef class Turn:
    """The turn of an update of RunningSums, which ends at the latest when this object is deleted.

    Attributes
    ----------
    sums : LossSums
        A copy of the sums, which the update continues.
    """

    cdef RunningSums running
    cdef readonly LossSums sums

    def __dealloc__(self):
        if self.running is not None:
            with cython.critical_section(self.running):
                self.running._end(<PyObject *>self)

    def end(self):
        """Ends the turn, without a change of the sums, unless it has ended."""
        cdef RunningSums running = self.running
        if running is not None:
            with cython.critical_section(running):
                running._end(<PyObject *>self)


@cython.final
cdef class RunningSums:
    """The sums of an accumulator: of all losses, and of the losses of each group.

    Updates hold no lock while they compute, since a signal handler, a finaliser or a forked child
    may use the accumulator meanwhile. One update at a time has the turn: it computes on a copy of
    the sums and replaces them when it is done, which gives the bits of one call over all batches.
    Sums that others add in the meantime are pending until the turn ends.

    Each method is atomic: it executes no Python code, so that no signal handler and no finaliser
    runs within it, and in free-threaded builds it holds the object's critical section. LossSums
    that are stored are never changed in place.
    """

    cdef LossSums ordered, pending
    cdef PyObject *turn      # a Turn, or NULL; it clears this when it is deleted
    cdef long turn_forks     # `forks` when it began
    cdef readonly dict groups
    cdef readonly int64_t version  # of the groups

    def __init__(self, LossSums sums=None, dict groups=None):
        self.ordered = LossSums() if sums is None else sums
        self.groups = {} if groups is None else groups

    @property
    def sums(self):
        """All sums, pending ones included; not to be changed."""
        cdef LossSums sums
        with cython.critical_section(self):
            sums = self._all()
        return sums

    cdef LossSums _all(self):
        return self._merged(self.ordered)

    cdef LossSums _merged(self, LossSums ordered):
        if self.pending is None:
            return ordered
        ordered = ordered.__copy__()
        ordered.merge(self.pending)
        return ordered

    cdef bint _is_taken(self) noexcept:
        """Whether an update has the turn; none has one that began before a fork, in a thread that
        the child lacks."""
        return self.turn != NULL and self.turn_forks == forks

    def begin(self):
        """The Turn of the caller, or None while another update has it."""
        cdef Turn turn = Turn.__new__(Turn)
        with cython.critical_section(self):
            self._begin(turn)
        return None if turn.running is None else turn

    cdef void _end(self, PyObject *turn) noexcept:
        if self.turn == turn:
            self.turn = NULL

    cdef int _begin(self, Turn turn) except -1:
        if self._is_taken():
            return 0
        self.ordered, self.pending = self._merged(self.ordered), None
        turn.sums, turn.running = self.ordered.__copy__(), self
        self.turn, self.turn_forks = <PyObject *>turn, forks
        return 0

    def commit(self, Turn turn not None, dict groups=None, int64_t version=0):
        """Ends a turn: replaces the sums by those of the turn, and the given groups.

        Returns False and changes nothing if the turn has been lost, to `reset` or in a forked
        child, or if the groups have changed since `version`.
        """
        cdef bint done
        with cython.critical_section(self):
            done = self._commit(turn, groups, version)
        return done

    cdef bint _commit(self, Turn turn, dict groups, int64_t version) except -1:
        cdef LossSums sums
        if not self._is_taken() or self.turn != <PyObject *>turn or (
                groups is not None and version != self.version):
            return False
        sums = self._merged(turn.sums)
        self._set_groups(groups)
        self.ordered, self.pending, self.turn = sums, None, NULL
        return True

    def add(self, LossSums sums not None, dict groups=None, int64_t version=0):
        """Adds sums, and replaces the given groups. Returns False and changes nothing if the groups
        have changed since `version`."""
        cdef bint done
        with cython.critical_section(self):
            done = self._add(sums, groups, version)
        return done

    cdef bint _add(self, LossSums sums, dict groups, int64_t version) except -1:
        cdef LossSums total = self._merged(self.ordered).__copy__()
        if groups is not None and version != self.version:
            return False
        total.merge(sums)
        if not self._is_taken():
            self._set_groups(groups)
            self.ordered, self.pending = total, None
            return True
        total = LossSums() if self.pending is None else self.pending.__copy__()
        total.merge(sums)
        self._set_groups(groups)
        self.pending = total
        return True

    cdef int _set_groups(self, dict groups) except -1:
        if groups is not None:
            self.groups.update(groups)
            self.version += 1
        return 0

    def reset(self, dict groups not None):
        """Empties the sums; `groups` is the new, empty dict of the groups."""
        cdef LossSums empty = LossSums()
        with cython.critical_section(self):
            self._reset(empty, groups)

    cdef void _reset(self, LossSums empty, dict groups) noexcept:
        self.ordered, self.pending, self.turn = empty, None, NULL
        self.groups = groups
        self.version += 1


def group_copies(dict groups not None, list names not None, LossSums like not None):
    """Copies of the LossSums of the named groups; empty ones, like `like`, of new groups."""
    copies = {}
    for name in names:
        sums = groups.get(name)
        copies[name] = like.empty_like() if sums is None else (<LossSums?>sums).__copy__()
    return copies


@cython.final
cdef class UnitOutputs:
    """Requested outputs of each unit of a chunk, shaped like the unreduced loss.

    Attributes
    ----------
    values : ndarray
        The unreduced losses.
    weighted_loss, unit_divisor, unit_counted : ndarray of float64, float64, bool
        The terms of each unit in the sum, in the divisor of a mean, and in the count.
    """

    cdef bint wants_values, wants_terms
    cdef int bad_terms
    cdef readonly cnp.ndarray values, weighted_loss, unit_divisor, unit_counted

    def __init__(self, *, bint values=False, bint terms=False):
        self.wants_values, self.wants_terms = values, terms


def add_unit_terms(list groups not None, cnp.ndarray group not None, UnitOutputs units not None):
    """Adds each unit to the LossSums of its group; `group` holds the index of each unit's group.

    If a sum leaves the range of float64, no group is changed.
    """
    cdef cnp.ndarray weighted_loss = np.ascontiguousarray(units.weighted_loss)
    cdef cnp.ndarray unit_divisor = np.ascontiguousarray(units.unit_divisor)
    cdef cnp.ndarray unit_counted = np.ascontiguousarray(units.unit_counted)
    cdef cnp.ndarray index = np.ascontiguousarray(group, np.int64)
    cdef cnp.ndarray memory = np.empty(len(groups) * sizeof(fl_totals), np.uint8)
    cdef fl_totals *totals = <fl_totals *>cnp.PyArray_DATA(memory)
    cdef Py_ssize_t k, n = cnp.PyArray_SIZE(weighted_loss)
    cdef int out_of_range
    for k in range(len(groups)):
        totals[k] = (<LossSums?>groups[k]).totals
    if cnp.PyArray_SIZE(index) != n or n > 0 and not 0 <= index.min() <= index.max() < len(groups):
        raise ValueError("a unit has no group")
    with nogil:
        out_of_range = fl_add_unit_terms(totals, n, <int64_t *>cnp.PyArray_DATA(index),
                                         <double *>cnp.PyArray_DATA(weighted_loss),
                                         <double *>cnp.PyArray_DATA(unit_divisor),
                                         <unsigned char *>cnp.PyArray_DATA(unit_counted),
                                         units.bad_terms)
    check_range(out_of_range, None)
    for k in range(len(groups)):
        (<LossSums>groups[k]).totals = totals[k]


# In the order of fl_extent and fl_domain.
EXTENTS = ("absent", "unit", "row", "shared")
DOMAINS = ("any", "unit_interval", "nonnegative", "positive", "sign", "score", "index", "labels")


# --- the loss object ------------------------------------------------------------------------------

@cython.final
cdef class Loss:
    """A loss function with its gradient.

    Call it, or its methods ``grad``, ``value_and_grad`` and ``sums``, all with the same arrays and
    options. The docstring of each loss, as in ``help(fastloss.mse_loss)``, describes them.

    Attributes
    ----------
    operands : tuple of str
        Names of the arrays, in order.
    differentiable : tuple of str
        Names of the arrays that have a gradient.
    default_wrt : tuple of str
        The default of ``grad``'s `wrt`.
    """

    cdef dict __dict__
    cdef readonly tuple operands
    cdef readonly tuple differentiable
    cdef readonly tuple default_wrt
    cdef str name, formula_name
    cdef dict parameter_ids    # keyword -> parameter id
    cdef tuple positional
    cdef int positions[5]      # their parameter ids
    cdef list float_options    # (name, default, constraint)
    cdef list bool_options     # (name, default)
    cdef int batch_first       # the bit of this boolean; 0 if the loss has none
    cdef int zero_infinity
    cdef int n_inputs          # leading operands that are predictions, not targets
    cdef bint weight_divides   # the mean divides by Σ weight
    cdef bint has_batchmean
    cdef bint shared_variance  # the last operand may have fewer entries than the others
    cdef bint probabilities    # a floating target selects another formula
    cdef bint weighs_classes   # `weight` has one entry for each class
    cdef tuple formula_ranges  # (suffix, test): the ranges of the last float option
    cdef Arguments defaults
    cdef fl_family_id family
    cdef fl_shapes shapes
    cdef int choosing_flags    # the bits of the booleans that choose a row
    cdef int formula[8]        # the row number, by the set of booleans or the range
    cdef fl_loss row[8]        # the rows of losses.def
    cdef list row_names        # their names

    def __init__(self, *, name, formula, operands, positional, differentiable, default_wrt,
                 numbers, flags, special, weight_divides, batchmean, shared_variance,
                 probabilities, ranges):
        """numbers: (name, default, rule) each; flags: (name, default) each; special: names."""
        cdef int i
        if (len(operands) > 4 or len(positional) > 5 or len(numbers) > FL_PARAMS
                or len(flags) > 2):
            raise ValueError(f"{name} has more arrays or options than an fl_call holds")
        self.name = name
        self.formula_name = formula
        self.operands = operands
        self.positional = positional
        self.differentiable = differentiable
        self.default_wrt = default_wrt
        self.float_options = numbers
        self.bool_options = flags
        self.n_inputs = sum(not operand.startswith(("target", "var")) for operand in operands)
        self.weight_divides = weight_divides
        self.has_batchmean = batchmean
        self.shared_variance = shared_variance
        self.probabilities = probabilities
        self.formula_ranges = ranges
        memset(&self.defaults, 0, sizeof(self.defaults))
        self.defaults.reduction = MEAN
        self.defaults.ignore_index = -100
        self.parameter_ids = {"sample_weight": SAMPLE_WEIGHT, "reduction": REDUCTION, "out": OUT,
                              "wrt": WRT, "grad_output": GRAD_OUTPUT}
        self.parameter_ids.update((operand, i) for i, operand in enumerate(operands))
        self.parameter_ids.update((keyword, SPECIAL[keyword]) for keyword in special)
        for i, option in enumerate(numbers):
            self.parameter_ids[option[0]] = NUMBER + i
            self.defaults.number[i] = option[1]
        bits = {option[0]: 1 << i for i, option in enumerate(flags)}
        self.batch_first = bits.get("batch_first", 0)
        self.zero_infinity = bits.get("zero_infinity", 0)
        for i, option in enumerate(flags):
            self.parameter_ids[option[0]] = FLAG + i
            self.defaults.flags |= (1 << i) if option[1] else 0
        if ranges is not None:
            self.defaults.flags = self._range(self.defaults.number[len(numbers) - 1])
        for i, keyword in enumerate(positional):
            self.positions[i] = self.parameter_ids[keyword]
        self._find_formulas()

    cdef int _find_formulas(self) except -1:
        """Finds the row of losses.def for each set of booleans, where a pos_weight and a floating
        target count as booleans, or for each range of the last float option."""
        cdef int chosen, i
        cdef list variants = [flag[0] for flag in self.bool_options if flag[0] not in CALL_FLAGS]
        self.choosing_flags = (1 << len(variants)) - 1
        if self.formula_ranges is not None:
            self.choosing_flags = -1  # the flags hold the index of the range
            names = [suffix for suffix, _ in self.formula_ranges]
        else:
            variants += [word for word in ("pos_weight",) if word in self.parameter_ids]
            variants += ["probabilities"] * self.probabilities
            names = ["_".join([w for i, w in enumerate(variants) if chosen >> i & 1])
                     for chosen in range(1 << len(variants))]
        self.row_names = []
        for i, suffix in enumerate(names):
            row = f"{self.formula_name}_{suffix}" if suffix else self.formula_name
            self.row_names.append(row)
            self.formula[i] = fl_find_formula(row.encode(), &self.row[i])
            if self.formula[i] < 0:
                raise LookupError(f"{self.name} needs the row {row!r} in src_c/losses.def")
        self.family = self.row[0].family
        self.shapes = self.row[0].shapes
        self.weighs_classes = self.row[0].spec[1].domain == FL_INDEX
        return 0

    cdef int _range(self, double number) except -1:
        """The index of the range that contains a number."""
        for i, (_, within) in enumerate(self.formula_ranges):
            if within(number):
                return i
        raise LookupError(f"no formula for {number}")

    def __call__(self, *args, **kwargs):
        """The loss: a float for reduction="mean" and "sum", an array for "none"."""
        return new_call(self)._run(VALUE, None, args, kwargs, None)

    def grad(self, *args, **kwargs):
        """The gradient of the value that the loss returns for the same arguments.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the loss, and:
        wrt : str or tuple of str, optional
            The argument to differentiate with respect to; a tuple of names returns a tuple of
            gradients. Default: `default_wrt`.
        grad_output : float or array_like, optional
            The upstream gradient: a scalar, or with reduction="none" also an array shaped like the
            losses. Default: 1.
        out : ndarray or tuple of ndarray, optional
            The array for the gradient; a tuple for a tuple of gradients. It may be the argument
            that the gradient belongs to.

        Returns
        -------
        ndarray or tuple of ndarray
            The gradient, with the shape and dtype of its argument.

        Examples
        --------
        >>> import fastloss as fl
        >>> fl.mse_loss.grad([1.0, 4.0], [1.0, 2.0], wrt=("input", "target"))
        (array([0., 2.]), array([-0., -2.]))
        """
        return new_call(self)._run(GRADIENT, None, args, kwargs, None)

    def value_and_grad(self, *args, **kwargs):
        """The pair (value, gradient), computed in one pass.

        Parameters
        ----------
        *args, **kwargs
            The arguments of ``grad``. With reduction="none", `out` is the pair (losses, gradients).

        Returns
        -------
        tuple
            The results of the loss and of ``grad``, bitwise identical to separate calls.

        Examples
        --------
        >>> import fastloss as fl
        >>> fl.mse_loss.value_and_grad([1.0, 4.0], [1.0, 2.0])
        (2.0, array([0., 2.]))
        """
        return new_call(self)._run(VALUE_AND_GRAD, None, args, kwargs, None)

    def sums(self, *args, **kwargs):
        """The numerator and denominator of the mean, which can be added across batches.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the loss, without `out`. `reduction` matters only for ``kl_div`` and
            losses over sequences, where "batchmean" and "mean" divide by more than the number of
            losses or their weights.

        Returns
        -------
        sum : float
            Sum of the losses.
        weight : float
            Divisor of "mean": the number of losses, or the sum of their weights.
        count : int
            Number of losses that are not removed by a weight of 0 or by ``ignore_index``.

        Examples
        --------
        >>> import fastloss as fl
        >>> fl.mse_loss.sums([1.0, 4.0], [1.0, 2.0], sample_weight=[0, 3])
        (12.0, 3.0, 1)
        """
        cdef LossSums state = LossSums()
        new_call(self)._run(SUMS, None, args, kwargs, state)
        return state.sum, state.weight, state.count

    def _update(self, LossSums state not None, UnitOutputs units, *args, **kwargs):
        """Adds a chunk of leading rows to the sums, and fills the requested outputs of `units`."""
        new_call(self)._run(UPDATE, None, args, kwargs, state, units)

    @property
    def operand_specs(self):
        """The arrays of each formula: {row of losses.def: ((name, extent, domain), ...)}.

        The extent is "unit", one entry for each unreduced loss, or "row", a row of them.
        """
        return {
            name: tuple([
                (operand, EXTENTS[self.row[i].spec[k].extent], DOMAINS[self.row[i].spec[k].domain])
                for k, operand in enumerate(self.operands[:FL_OPERANDS])
                if self.row[i].spec[k].extent != FL_ABSENT
            ])
            for i, name in enumerate(self.row_names)
        }

    @property
    def row_axis(self):
        """The axis of the rows: 1 for the second, -1 for the last, None if a unit is an element."""
        return None if self.shapes == FL_SHAPES_EQUAL else (
            1 if self.shapes == FL_SHAPES_SECOND_AXIS else -1)

    def formula_of(self, *, probabilities=False, **options):
        """The name of the row of losses.def that these options select."""
        cdef Arguments a = self.defaults
        cdef int chosen
        for name, value in options.items():
            if name in self.parameter_ids and self.parameter_ids[name] >= NUMBER:
                self._set(&a, self.parameter_ids[name], <PyObject *>value)
        chosen = a.flags & self.choosing_flags
        if probabilities or options.get("pos_weight") is not None:
            chosen |= 1 << len(self.bool_options)
        return self.row_names[chosen]

    @property
    def _target_domain(self):
        """The domain of a target of one entry per loss: "index", "sign", "fraction" or None."""
        cdef fl_domain domain
        cdef int k
        for k in range(1, FL_OPERANDS):
            domain = self.row[0].spec[k].domain
            if self.row[0].spec[k].extent == FL_PER_UNIT and domain in (
                    FL_INDEX, FL_SIGN, FL_UNIT_INTERVAL):
                return "fraction" if domain == FL_UNIT_INTERVAL else DOMAINS[domain]
        return None

    def _rows_per_block(self, shape):
        """The leading rows in a block: chunks of a stream should hold a multiple of it."""
        cdef fl_call call
        cdef cnp.npy_intp dims[64]
        cdef int axis, ndim = len(shape)
        if _math.prod(n for n in shape if n != 0) > INT64_MAX:
            raise _errors.too_many_entries(shape)
        if ndim == 0 or ndim > 64 or (ndim == 1 and self.shapes != FL_SHAPES_EQUAL):
            return shape[0] if shape else 1  # a single unit cannot be cut
        memset(dims, 0, sizeof(dims))
        for axis in range(ndim):
            dims[axis] = shape[axis]
        memset(&call, 0, sizeof(call))
        call.family = self.family
        if self.shapes == FL_SHAPES_SEQUENCES:  # samples first
            set_units(&call, -1, 1, dims)
            call.unit_size = dims[1] * dims[2]
        else:
            set_units(&call, row_axis(self.shapes, ndim), ndim, dims)
        return fl_grid_of(&call).rows_per_block

    def __repr__(self):
        return f"<loss fastloss.{self.name}>"

    def __reduce__(self):
        return self.name

    # --- parsing ---

    cdef int _parse(self, Arguments *a, int method, dict bound, tuple args, dict kwargs) except -1:
        """Reads the options of a criterion, positional arguments and keywords, in this order."""
        cdef Py_ssize_t i, position = 0
        cdef int64_t seen = 0  # bits of parameter ids
        cdef int slot
        cdef PyObject *key
        cdef PyObject *value
        a[0] = self.defaults
        if len(args) > len(self.positional):
            raise _errors.too_many(self.name, self.positional, len(args))
        for i in range(len(args)):
            seen |= <int64_t>1 << self.positions[i]
            self._set(a, self.positions[i], <PyObject *>args[i])
        while bound is not None and PyDict_Next(bound, &position, &key, &value):
            slot = self._parameter_id(key)
            if slot >= OPTION:
                self._set_once(a, &seen, slot, key, value)
        position = 0
        while PyDict_Next(kwargs, &position, &key, &value):
            slot = self._parameter_id(key)
            if slot < 0 or not accepts_keyword(method, slot):
                raise _errors.unknown_keyword(self, <object>key, method & GRADIENT != 0)
            self._set_once(a, &seen, slot, key, value)
        for i in range(len(self.operands)):
            if a.operand[i] == NULL:
                raise _errors.missing(self.name, self.operands[i])
        return 0

    cdef int _parameter_id(self, PyObject *keyword) except -2:
        """The parameter id of a keyword, or -1."""
        cdef PyObject *number = PyDict_GetItem(self.parameter_ids, <object>keyword)
        return -1 if number == NULL else <int><object>number

    cdef int _set_once(self, Arguments *a, int64_t *seen, int slot, PyObject *key,
                       PyObject *value) except -1:
        if seen[0] >> slot & 1:
            raise _errors.twice(self.name, <object>key)
        seen[0] |= <int64_t>1 << slot
        return self._set(a, slot, value)

    cdef int _set(self, Arguments *a, int slot, PyObject *value) except -1:
        if slot < 4:
            a.operand[slot] = value
        elif slot >= FLAG:
            self._set_flag(a, slot - FLAG, <object>value)
        elif slot >= NUMBER:
            a.number[slot - NUMBER] = self._number(slot - NUMBER, <object>value)
            if self.formula_ranges is not None and slot - NUMBER == len(self.float_options) - 1:
                a.flags = self._range(a.number[slot - NUMBER])
        elif slot == REDUCTION:
            a.reduction = self._reduction(<object>value)
        elif slot == IGNORE_INDEX:
            a.ignore_index = as_integer("ignore_index", <object>value)
        elif slot == BLANK:
            a.blank = as_integer("blank", <object>value)
        elif <object>value is None:
            pass
        elif slot == WEIGHT:
            a.weight = value
        elif slot == POS_WEIGHT:
            a.pos_weight = value
        elif slot == SAMPLE_WEIGHT:
            a.sample_weight = value
        elif slot == OUT:
            a.out = value
        elif slot == WRT:
            a.wrt = value
        elif slot == GRAD_OUTPUT:
            a.grad_output = value
        return 0

    cdef int _reduction(self, object value) except -1:
        cdef PyObject *found = NULL
        if PyUnicode_Check(value):
            found = PyDict_GetItem(REDUCTIONS, value)
        cdef int reduction = -1 if found == NULL else <int><object>found
        if reduction < 0 or (reduction == BATCHMEAN and not self.has_batchmean):
            raise _errors.bad_reduction(value, self.has_batchmean)
        return reduction

    cdef int _set_flag(self, Arguments *a, int i, object value) except -1:
        if value is True or (value is not False and _options.flag(self.bool_options[i][0], value)):
            a.flags |= 1 << i
        else:
            a.flags &= ~(1 << i)
        return 0

    cdef double _number(self, int i, object value) except? -1:
        name, default, rule = self.float_options[i]
        if value is default:
            return self.defaults.number[i]
        return _options.number(name, value, rule)

    cdef tuple _wrt(self, object value):
        """The names of the arguments to differentiate with respect to."""
        if type(value) is str and value in self.differentiable:
            return (value,)
        return _options.wrt(self, value)


@cython.auto_pickle(False)
cdef class BoundLoss:
    """Base of criteria: the loss of the class, with the options in the instance's __dict__."""

    cdef Loss bound

    def __cinit__(self, *args, **kwargs):
        self.bound = type(self).loss

    def __call__(self, *arrays, **kwargs):
        """The loss of these arrays; see the function."""
        return self._run(VALUE, arrays, kwargs, None)

    def grad(self, *arrays, **kwargs):
        """The gradient; see the function's ``grad``."""
        return self._run(GRADIENT, arrays, kwargs, None)

    def value_and_grad(self, *arrays, **kwargs):
        """``(value, gradient)``; see the function."""
        return self._run(VALUE_AND_GRAD, arrays, kwargs, None)

    def sums(self, *arrays, **kwargs):
        """``(sum, weight, count)``; see the function."""
        cdef LossSums state = LossSums()
        self._run(SUMS, arrays, kwargs, state)
        return state.sum, state.weight, state.count

    cdef object _run(self, int method, tuple arrays, dict kwargs, LossSums state):
        cdef dict options = PyObject_GenericGetDict(self, NULL)
        options = options.copy()  # another thread may change them during the call
        return new_call(self.bound)._run(method, options, arrays, kwargs, state)


cdef bint accepts_keyword(int method, int slot) noexcept:
    """Whether a method takes the parameter."""
    if slot == WRT or slot == GRAD_OUTPUT:
        return method & GRADIENT != 0
    return slot != OUT or method not in (SUMS, UPDATE)


cdef int64_t as_integer(str name, object value) except? -1:
    cdef int overflow = 0
    cdef long long number = 0
    if type(value) is int:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0:
            return number
    return _options.integer(name, value)


cdef int row_axis(fl_shapes shapes, int ndim) noexcept:
    """The axis of the rows of an array, or -1."""
    if shapes == FL_SHAPES_EQUAL or ndim == 0:
        return -1
    return 1 if shapes == FL_SHAPES_SECOND_AXIS and ndim > 1 else ndim - 1


cdef void set_units(fl_call *call, int axis, int ndim, const cnp.npy_intp *shape) noexcept:
    """Sets the units of an input of this shape; `axis` runs along the rows of classes or features,
    or is -1."""
    cdef int k, seen = 0
    call.unit_size = call.units = call.row_units = call.inner_size = 1
    for k in range(ndim):
        if k == axis:
            call.unit_size = shape[k]
            continue
        call.units *= shape[k]
        if seen > 0:
            call.row_units *= shape[k]
        if axis >= 0 and k > axis:
            call.inner_size *= shape[k]
        seen += 1


# --- a call ---------------------------------------------------------------------------------------

cdef bint skips_gil_release(const fl_call *call) noexcept:
    """Whether the work is less than the cost of reacquiring the GIL."""
    return call.units > 0 and fl_work(call) <= GIL_HELD_MAX_ELEMENTS


cdef Call new_call(Loss loss):
    cdef Call call = Call.__new__(Call)
    call.loss = loss
    return call


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Call:
    """The state of one call."""

    cdef Loss loss
    cdef Arguments a
    cdef fl_call *call
    cdef fl_array *outputs     # by number, as in the contract
    cdef fl_totals totals
    cdef PyObject *arrays[4]   # the operands: arguments, or in owned_refs
    cdef PyObject *kernel_views[4]  # the same, with axes in the order of the kernels
    cdef list owned_refs       # (name, array): alive until the end; no out may overlap a named one
    cdef tuple wrt             # names of the arguments to differentiate with respect to
    cdef object values_out, grads_out  # outs: of the values; of the gradient, or a tuple of these
    cdef object grads          # results: an array, or a list of them
    cdef cnp.ndarray values
    cdef cnp.ndarray lengths   # the memory of call.sequences.frames, labels, first_label
    cdef fl_loss *row          # of losses.def
    cdef int dtype[4]          # of the operands
    cdef bint weak[4]          # Python numbers
    cdef int result            # dtype of unreduced losses
    cdef int axis              # of the rows in operands that have them, or -1
    cdef int ndim, moved_axis  # of the unreduced loss; the axis that is moved to the end, or -1
    cdef cnp.npy_intp *shape
    cdef int64_t rows          # length of the leading axis
    cdef int64_t rows_before   # the rows of the stream before this call
    cdef bint in_place         # an out is an input
    cdef bint returns_single   # wrt is a name, not a tuple

    cdef object _run(self, int method, dict bound, tuple args, dict kwargs, LossSums state,
                     UnitOutputs units=None):
        cdef fl_call call
        cdef fl_array outputs[FL_SECOND_DERIVATIVE]  # losses and gradients
        cdef cnp.npy_intp shape[64]
        cdef fl_partial bad
        cdef fl_status status = FL_OK
        cdef fl_interrupted ask = NULL
        cdef size_t stack = fl_stack_left()
        if stack < FL_STACK_BYTES:
            raise _errors.small_stack(stack, FL_STACK_BYTES)
        self.loss._parse(&self.a, method, bound, args, kwargs)
        self.call = &call
        self.outputs = outputs
        self.shape = shape
        self.rows_before = 0 if state is None else state.first_row + state.rows
        self.in_place = False
        self.moved_axis = -1
        self._convert(method)
        cdef bint guarded = self._may_run_code()
        cdef uint64_t storage_hash = self._storage_hash() if guarded else 0
        self._operands()
        self._weights()
        self._outputs(method)
        call.wants_moments = method == UPDATE
        call.weighted_loss = NULL
        if units is not None:
            self._alloc_unit_outputs(units)
        self._phases(method)

        if state is None:
            memset(&self.totals, 0, sizeof(self.totals))
        else:
            state._divide_by(call.divisor_scale, self.rows)
            self.totals = state.totals
        if guarded and self._storage_hash() != storage_hash:
            raise _errors.changed_arrays(self.loss.name)
        if skips_gil_release(&call):
            status = fl_run(self.call, &self.totals, NULL, &bad)
        elif call.units > 0:
            load_thread_override()
            if PyThread_get_thread_ident() == main_thread:
                ask = interrupted
            with nogil:
                status = fl_run(self.call, &self.totals, ask, &bad)
        if status == FL_BAD_VALUE:
            raise self._bad_value(&bad, self.rows_before)
        if status == FL_INTERRUPTED:
            raise_pending()
        if state is None:
            return self._result(method)
        check_range(fl_settle_totals(&self.totals), self.loss.name)
        if units is not None:
            check_range(self.totals.bad_terms & FL_TERM_OVERFLOWS, self.loss.name)
            units.bad_terms = self.totals.bad_terms
            self.totals.bad_terms = 0
        state.totals = self.totals
        state.rows += self.rows
        return None

    # --- conversion ---

    cdef int _convert(self, int method) except -1:
        """Converts array-likes to arrays, and finds the names in `wrt` and the outs."""
        cdef int k
        for k in range(4):
            if is_array_like(self.a.operand[k]):
                self._convert_argument(&self.a.operand[k], self.loss.operands[k])
        if is_array_like(self.a.weight):
            self._convert_argument(&self.a.weight, "weight")
        if is_array_like(self.a.sample_weight):
            self._convert_argument(&self.a.sample_weight, "sample_weight")
        if is_array_like(self.a.pos_weight):
            self._convert_argument(&self.a.pos_weight, "pos_weight")
        if is_array_like(self.a.grad_output):
            self._convert_argument(&self.a.grad_output, "grad_output")
        if method & GRADIENT:
            self.wrt = self.loss.default_wrt
            self.returns_single = len(self.wrt) == 1
            if self.a.wrt != NULL:
                self.wrt = self.loss._wrt(<object>self.a.wrt)
                self.returns_single = PyUnicode_Check(<object>self.a.wrt)
        if self.a.out != NULL:
            self._split_out(method, <object>self.a.out)
        return 0

    cdef int _convert_argument(self, PyObject **argument, str name) except -1:
        array = as_array(<object>argument[0], name)
        self._hold_ref(None, array)
        argument[0] = <PyObject *>array
        return 0

    cdef int _split_out(self, int method, object out) except -1:
        cdef bint none = self.a.reduction == NONE
        if method == GRADIENT or (method == VALUE_AND_GRAD and not none):
            self.grads_out = out
        else:
            self.values_out, self.grads_out = _options.split_out(
                out, none, method == VALUE_AND_GRAD)
        if method & GRADIENT and not self.returns_single:
            self.grads_out = _options.grad_outs(self.grads_out, self.wrt)
        return 0

    cdef bint _may_run_code(self) noexcept:
        """Whether code of others may run before the kernels do. A small call on arrays runs in C
        alone: the interpreter can neither switch threads nor handle signals."""
        cdef PyObject *x = self.a.operand[0]
        cdef PyObject *y = self.a.operand[1]
        if self.owned_refs is not None or x == NULL:
            return True
        if self.a.sample_weight != NULL or self.a.grad_output != NULL:
            return True
        if self.a.out != NULL and not (cnp.PyArray_CheckExact(<object>self.a.out)
                                       and cnp.PyArray_ISCARRAY(<cnp.ndarray>self.a.out)):
            return True
        if y != NULL and cnp.PyArray_CheckExact(<object>y):
            x = y  # the labels of a loss that gathers, whose work they are
        return (cnp.PyArray_CheckExact(<object>x)
                and cnp.PyArray_SIZE(<cnp.ndarray>x) > GIL_HELD_MAX_ELEMENTS)

    cdef uint64_t _storage_hash(self) noexcept:
        """A hash of the dtypes, shapes, strides and addresses of all arrays of the call."""
        cdef int k
        cdef uint64_t h = 0
        for k in range(4):
            h = add_storage_hash(h, self.a.operand[k])
        h = add_storage_hash(h, self.a.weight)
        h = add_storage_hash(h, self.a.sample_weight)
        h = add_storage_hash(h, self.a.pos_weight)
        h = add_storage_hash(h, self.a.grad_output)
        if self.a.out == NULL:
            return h
        h = add_storage_hash(h, <PyObject *>self.values_out)
        if type(self.grads_out) is not tuple:
            return add_storage_hash(h, <PyObject *>self.grads_out)
        for out in <tuple>self.grads_out:
            h = add_storage_hash(h, <PyObject *>out)
        return h

    # --- operands ---

    cdef int _operands(self) except -1:
        """Reads the operands; finds the formula, the compute type and the shape of the loss."""
        cdef int k, n = len(self.loss.operands)
        cdef fl_call *call = self.call
        cdef cnp.ndarray view
        for k in range(n):
            self._read(k)
        self._formula()
        self._compute_type(min(n, 3))
        memset(call.broadcast_period, 0, sizeof(call.broadcast_period))
        call.sequences.frames = NULL
        self.axis = -1
        if self.loss.shapes == FL_SHAPES_EQUAL:
            self._broadcast_shape()
        elif self.loss.shapes == FL_SHAPES_SEQUENCES:
            self._sequence_shape()
        else:
            self._row_shape()
        for k in range(3):
            call.operand[k].data = NULL
            if self.row.spec[k].extent == FL_PER_ENTRY:
                fill_fl_array(&call.operand[k], <cnp.ndarray>self.kernel_views[k], self.dtype[k],
                              call.is_double)
            elif k < n and self.row.spec[k].extent == FL_PER_UNIT:
                view = <cnp.ndarray>self.kernel_views[k]
                fill_broadcast_array(&call.operand[k], view, self.dtype[k], call.is_double,
                                     self.ndim, self.shape, self.ndim - cnp.PyArray_NDIM(view))
        return 0

    cdef int _read(self, int k) except -1:
        """Converts operand k to an array."""
        value = <object>self.a.operand[k]
        cdef cnp.ndarray array = as_array(value, self.loss.operands[k])
        if array is not value:
            self._hold_ref(None, array)
        self.arrays[k] = self.kernel_views[k] = <PyObject *>array
        self.dtype[k] = storage(array)
        self.weak[k] = is_number(value)
        return 0

    cdef int _hold_ref(self, str name, cnp.ndarray array) except -1:
        if self.owned_refs is None:
            self.owned_refs = []
        self.owned_refs.append((name, array))
        return 0

    cdef int _set_kernel_view(self, int k, cnp.ndarray view) except -1:
        """Sets the view of operand k that the kernels read."""
        self._hold_ref(None, view)
        self.kernel_views[k] = <PyObject *>view
        return 0

    cdef int _compute_type(self, int n) except -1:
        """Finds the compute type and the dtype of unreduced losses, from n operands."""
        cdef int k
        cdef bint is_double = False, floating = False
        cdef fl_domain domain
        cdef cnp.ndarray array, x
        self.result = -1
        for k in range(n):
            if self.row.spec[k].extent == FL_ABSENT:
                continue  # the lengths of sequences
            domain = self.row.spec[k].domain
            array = <cnp.ndarray>self.arrays[k]
            if domain == FL_INDEX or domain == FL_LABELS:
                if self.dtype[k] <= FL_BOOL and cnp.PyArray_SIZE(array) > 0:
                    x = <cnp.ndarray>self.arrays[0]
                    raise _errors.no_indices(
                        self.loss.operands[k], array, domain == FL_LABELS, x,
                        max(row_axis(self.loss.shapes, cnp.PyArray_NDIM(x)), -1))
                continue
            if self.dtype[k] < 0:
                raise _errors.bad_dtype(self.loss.operands[k], array)
            if domain == FL_SCORE and not is_floating(self.dtype[k]):
                raise _errors.no_scores(self.loss.operands[k], array, self.loss.operands[1])
            if domain == FL_SIGN and self.dtype[k] == FL_BOOL:
                raise _errors.bool_labels(self.loss.operands[k])
            if self.weak[k]:
                continue
            if is_floating(self.dtype[k]):
                floating = True
                is_double |= self.dtype[k] == FL_F64
                self.result = self.dtype[k] if self.result in (-1, self.dtype[k]) else <int>FL_F32
            elif k < self.loss.n_inputs:
                is_double = True  # integers as input read as float64
        self.call.is_double = is_double or not floating
        if self.call.is_double:
            self.result = FL_F64
        return 0

    cdef int _formula(self) except -1:
        """Selects the row of losses.def; a pos_weight or a floating target counts as a boolean."""
        cdef int chosen = self.a.flags & self.loss.choosing_flags
        cdef fl_call *call = self.call
        if self.a.pos_weight != NULL or (self.loss.probabilities and is_floating(self.dtype[1])):
            chosen |= 1 << len(self.loss.bool_options)
        self.row = &self.loss.row[chosen]
        call.family = self.loss.family
        call.formula = <fl_formula>self.loss.formula[chosen]
        call.spec = self.row.spec
        return 0

    cdef int _set_loss_shape(self, cnp.ndarray array, int skip_axis) except -1:
        """The loss has the shape of `array` without `skip_axis`."""
        cdef int k
        self.ndim = 0
        for k in range(cnp.PyArray_NDIM(array)):
            if k != skip_axis:
                self.shape[self.ndim] = cnp.PyArray_DIM(array, k)
                self.ndim += 1
        self.rows = self.shape[0] if self.ndim > 0 else 1
        return 0

    cdef int _row_shape(self) except -1:
        """Rows: the loss lacks the axis of the rows, which a view moves to the end."""
        cdef int k, ndim
        cdef cnp.ndarray x = <cnp.ndarray>self.arrays[0], y
        ndim = cnp.PyArray_NDIM(x)
        self.axis = row_axis(self.loss.shapes, ndim)
        if self.axis < 0:
            raise _errors.no_row_axis(self.loss.operands[0],
                                      self.loss.shapes == FL_SHAPES_SECOND_AXIS)
        if ndim == 1 and cnp.PyArray_DIM(x, 0) == 0:
            raise _errors.empty_row(self.loss.operands[0], self.row.spec[0].domain == FL_SCORE)
        for k in range(1, len(self.loss.operands)):
            y = <cnp.ndarray>self.arrays[k]
            if self.row.spec[k].extent == FL_PER_ENTRY:
                if not same_shape(x, y):
                    raise _errors.rows_differ(self.loss.operands[0], x, self.loss.operands[k], y,
                                              self.axis, self.loss.probabilities)
            elif not has_unit_shape(y, x, self.axis) and not (
                    self.row.spec[k].domain != FL_INDEX and cnp.PyArray_NDIM(y) == 0):
                raise _errors.bad_units(
                    self.loss.operands[0], x, self.loss.operands[k], y, self.axis,
                    self.loss.probabilities, self.row.spec[k].domain == FL_INDEX)
        set_units(self.call, self.axis, ndim, cnp.PyArray_DIMS(x))
        self._set_loss_shape(x, self.axis)
        for k in range(len(self.loss.operands) if self.axis != ndim - 1 else 0):
            self._set_kernel_view(k, self._row_view(<cnp.ndarray>self.arrays[k], k))
        return 0

    cdef int _sequence_shape(self) except -1:
        """Sequences: the loss has one entry for each sample, or is 0-d."""
        cdef cnp.ndarray x = <cnp.ndarray>self.arrays[0], targets = <cnp.ndarray>self.arrays[1]
        cdef fl_call *call = self.call
        cdef int ndim = cnp.PyArray_NDIM(x), rank = cnp.PyArray_NDIM(targets)
        cdef bint batch_first = self.a.flags & self.loss.batch_first
        cdef cnp.npy_intp size
        cdef int64_t *frames
        cdef int64_t *labels
        cdef int64_t *first
        cdef int64_t n, most, expected, total = 0  # of labels; it does not exceed INT64_MAX
        if ndim != 2 and ndim != 3:
            raise _errors.bad_sequence_shape(self.loss.operands[0], x, batch_first)
        self.axis = -1 if ndim == 2 else 0 if batch_first else 1
        self.ndim = ndim - 2
        call.units = 1 if ndim == 2 else cnp.PyArray_DIM(x, self.axis)
        call.sequences.T = cnp.PyArray_DIM(x, 1 if self.axis == 0 else 0)
        call.sequences.C = cnp.PyArray_DIM(x, ndim - 1)
        call.unit_size = call.sequences.T * call.sequences.C
        call.row_units = call.inner_size = 1
        self.shape[0] = self.rows = call.units
        if self.axis == 1:
            self._set_kernel_view(0, self._row_view(x, 0))
        if call.units > INT64_MAX // 3:
            raise MemoryError(f"{self.loss.name}: no memory for {call.units} samples")
        size = 3 * call.units
        self.lengths = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INT64, 0)
        call.sequences.frames = frames = <int64_t *>cnp.PyArray_DATA(self.lengths)
        call.sequences.labels = labels = frames + call.units
        call.sequences.first_label = first = labels + call.units
        self._lengths(2, call.sequences.T, "frames", frames)
        most = cnp.PyArray_DIM(targets, 1) if rank == 2 else cnp.PyArray_SIZE(targets)
        self._lengths(3, most, "labels in targets", labels)
        for n in range(call.units):
            first[n] = n * most if rank == 2 else total
            total += min(labels[n], INT64_MAX - total)
        expected = call.units if rank == 2 else total  # padded rows, or all labels concatenated
        if rank not in (1, 2) or cnp.PyArray_DIM(targets, 0) != expected:
            raise _errors.bad_sequence_targets((<object>targets).shape, call.units, total)
        call.sequences.blank = self.a.blank
        if not 0 <= call.sequences.blank < call.sequences.C:
            raise _errors.bad_sequence_blank(self.loss.operands[0], call.sequences.blank,
                                             call.sequences.C)
        call.sequences.zero_infinity = self.a.flags & self.loss.zero_infinity != 0
        call.sequences.per_label = self.a.reduction == MEAN
        call.sequences.sum_tolerance = _arrays.sum_tolerance(FLOATING_NAMES[self.dtype[0]],
                                                             call.sequences.C)
        return 0

    cdef int _lengths(self, int k, int64_t most, str of, int64_t *to) except -1:
        """Reads the lengths of all sequences, each of which is at most `most`."""
        cdef cnp.ndarray lengths = <cnp.ndarray>self.arrays[k], checked
        cdef const char *data = <const char *>cnp.PyArray_DATA(lengths)
        cdef int64_t n, step = 0
        cdef bint per_sample = cnp.PyArray_NDIM(lengths) == 1
        cdef bint valid = cnp.PyArray_NDIM(lengths) == 0 or (
            per_sample and cnp.PyArray_DIM(lengths, 0) == self.call.units)
        valid &= self.call.units > 0 and self.dtype[k] in (FL_I32, FL_I64)
        valid &= cnp.PyArray_ISBEHAVED_RO(lengths)
        if per_sample:
            step = cnp.PyArray_STRIDE(lengths, 0)
        for n in range(self.call.units if valid else 0):
            if self.dtype[k] == FL_I64:
                to[n] = (<const int64_t *>(data + n * step))[0]
            else:
                to[n] = (<const int32_t *>(data + n * step))[0]
            valid &= 0 <= to[n] <= most
        if not valid:  # wrong, or of another dtype
            checked = _arrays.lengths(self.loss.operands[k], lengths, self.call.units, most, of,
                                      self.rows_before)
            memcpy(to, cnp.PyArray_DATA(checked), self.call.units * sizeof(int64_t))
        return 0

    cdef cnp.ndarray _row_view(self, cnp.ndarray array, int operand):
        """A view of an operand or its gradient with the axes in the order of the kernels."""
        if operand >= 0 and self.loss.shapes == FL_SHAPES_SEQUENCES:
            return cnp.PyArray_SwapAxes(array, 0, 1) if self.axis == 1 else array
        if operand >= 0 and self.axis >= 0 and self.row.spec[operand].extent == FL_PER_ENTRY and (
                self.axis != cnp.PyArray_NDIM(array) - 1):
            return axis_last(array, self.axis)
        return self._with_axis_moved(array)

    cdef int _broadcast_shape(self) except -1:
        """Elementwise: arrays have the shape of the loss or are 0-d; a variance may be shared."""
        cdef int k, axis, n = len(self.loss.operands), first = -1
        cdef cnp.ndarray array, var
        cdef bint variance = self.loss.shared_variance
        cdef fl_call *call = self.call
        for k in range(2 if variance else n):
            array = <cnp.ndarray>self.arrays[k]
            if cnp.PyArray_NDIM(array) == 0:
                continue
            if first < 0:
                first = k
            elif not same_shape(<cnp.ndarray>self.arrays[first], array):
                raise _errors.shapes_differ(self.loss.operands[first], <object>self.arrays[first],
                                            self.loss.operands[k], array)
        array = <cnp.ndarray>self.arrays[first if first > 0 else 0]
        set_units(call, -1, cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array))
        self._set_loss_shape(array, -1)
        for k in range(n):
            if self.ndim > 0 and cnp.PyArray_NDIM(<cnp.ndarray>self.arrays[k]) == 0:
                call.broadcast_period[k] = call.units
        if variance:
            var = <cnp.ndarray>self.arrays[2]
            if cnp.PyArray_NDIM(var) > 0 and not same_shape(array, var):
                view, axis = _arrays.variance(var, array)
                self._set_kernel_view(2, view)
                call.broadcast_period[2] = self.shape[axis]
                if axis != self.ndim - 1:
                    self._move_last(axis)
        return 0

    cdef int _move_last(self, int axis) except -1:
        """Moves an axis that shares a variance to the end, so that its gradient sums contiguous
        entries."""
        cdef int k
        cdef cnp.npy_intp dim = self.shape[axis]
        self.moved_axis = axis
        for k in range(3):
            self._set_kernel_view(k, self._with_axis_moved(<cnp.ndarray>self.kernel_views[k]))
        for k in range(axis, self.ndim - 1):
            self.shape[k] = self.shape[k + 1]
        self.shape[self.ndim - 1] = dim
        if self.shape[0] > 0:
            self.call.row_units = self.call.units // self.shape[0]
        return 0

    cdef cnp.ndarray _with_axis_moved(self, cnp.ndarray array):
        if self.moved_axis < 0 or cnp.PyArray_NDIM(array) != self.ndim:
            return array
        return axis_last(array, self.moved_axis)

    cdef tuple _loss_shape(self):
        """The shape of the unreduced loss, with axes in the order of the arguments."""
        shape = list(shape_tuple(self.ndim, self.shape))
        if self.moved_axis >= 0:
            shape.insert(self.moved_axis, shape.pop())
        return tuple(shape)

    # --- weights and options ---

    cdef int _weights(self) except -1:
        """Reads the weights and options, and sets the divisor of the mean."""
        cdef int i
        cdef bint of_labels
        cdef cnp.ndarray weight, x
        cdef fl_call *call = self.call
        call.weight.data = call.sample_weight.data = NULL
        call.class_weight_exponent = 0
        if self.a.weight != NULL and self.loss.weighs_classes:
            of_labels = not (self.loss.probabilities
                             and (is_floating(self.dtype[1]) or self.a.number[0] > 0))
            weight = as_array(<object>self.a.weight, "weight")
            self._hold_ref("weight", weight)
            weight = class_weight(weight, call.unit_size, of_labels)
            if not of_labels:
                call.class_weight_exponent = fl_class_weight_exponent(
                    <double *>cnp.PyArray_DATA(weight), cnp.PyArray_SIZE(weight))
            if call.class_weight_exponent != 0:
                weight = _arrays.times_power_of_two(weight, -call.class_weight_exponent)
            self._hold_ref(None, weight)
            fill_fl_array(&call.operand[2], weight, storage(weight), call.is_double)
        elif self.a.weight != NULL and self.axis >= 0:  # one for each entry of a row
            x = <cnp.ndarray>self.arrays[0]
            self._weight(&call.weight, <object>self.a.weight, "weight", cnp.PyArray_NDIM(x),
                         cnp.PyArray_DIMS(x))
        elif self.a.weight != NULL:
            self._weight(&call.weight, <object>self.a.weight, "weight", self.ndim, self.shape)
        if self.a.sample_weight != NULL:
            self._weight(&call.sample_weight, <object>self.a.sample_weight, "sample_weight",
                         self.ndim, self.shape)
        if self.a.pos_weight != NULL:
            self._weight(&call.operand[2], <object>self.a.pos_weight, "pos_weight", self.ndim,
                         self.shape)
        for i in range(FL_PARAMS):
            call.params[i] = self.a.number[i]
        call.ignore_index = self.a.ignore_index
        if self.dtype[1] == FL_U64 and call.ignore_index < 0:
            call.ignore_index = -1  # the loader reads values beyond int64 as INT64_MIN
        if call.ignore_index >= 0 and self.loss.probabilities and is_floating(self.dtype[1]):
            raise _errors.ignored_probabilities(call.ignore_index)
        call.mean_divisor = FL_BY_ALL_WEIGHTS if self.loss.weight_divides else FL_BY_SAMPLE_WEIGHT
        call.divisor_scale = <double>call.row_units if self.a.reduction == BATCHMEAN else 1
        return 0

    cdef int _weight(self, fl_array *f, object value, str name, int ndim,
                     const cnp.npy_intp *shape) except -1:
        """Describes a weight that is broadcast to `shape`."""
        cdef cnp.ndarray array = as_array(value, name)
        cdef int dtype = numeric(array, name), front = -1
        if self.moved_axis < 0:
            front = broadcast_offset(array, name == "sample_weight", ndim, shape)
        if front < 0:
            whole = shape_tuple(ndim, shape) if self.moved_axis < 0 else self._loss_shape()
            array = self._with_axis_moved(_arrays.weight_view(array, name, whole))
            front = ndim - cnp.PyArray_NDIM(array)
        self._hold_ref(name, array)
        fill_broadcast_array(f, array, dtype, self.call.is_double, ndim, shape, front)
        return 0

    # --- outputs ---

    cdef int _outputs(self, int method) except -1:
        """Reads grad_output, and makes or checks the output arrays."""
        cdef fl_call *call = self.call
        cdef bint none = self.a.reduction == NONE
        call.wants_sum = method & (VALUE | SUMS) != 0
        call.grad_output_array.data = NULL
        memset(call.output, 0, sizeof(call.output))
        call.grad_output = 1
        # All arrays that the kernels read are known before an `out` is compared with them.
        if method & GRADIENT and self.a.grad_output != NULL:
            self._grad_output(<object>self.a.grad_output, none)
        if (method & VALUE and none) or self.values_out is not None:
            self.values = self._result_array(FL_LOSSES, None, self.result, self.values_out)
        if method & GRADIENT:
            self._gradients()
        return 0

    cdef int _alloc_unit_outputs(self, UnitOutputs units) except -1:
        """Makes the requested arrays of `units`."""
        if units.wants_values:
            units.values = self._result_array(FL_LOSSES, None, self.result, None)
        if not units.wants_terms:
            return 0
        term, share, counted = (np.zeros(shape_tuple(self.ndim, self.shape), dtype)
                                for dtype in (np.float64, np.float64, np.bool_))
        self.call.weighted_loss = <double *>cnp.PyArray_DATA(<cnp.ndarray>term)
        self.call.unit_divisor = <double *>cnp.PyArray_DATA(<cnp.ndarray>share)
        self.call.unit_counted = <unsigned char *>cnp.PyArray_DATA(<cnp.ndarray>counted)
        units.weighted_loss, units.unit_divisor, units.unit_counted = (
            array if self.moved_axis < 0 else np.moveaxis(array, -1, self.moved_axis)
            for array in (term, share, counted))
        return 0

    cdef int _gradients(self) except -1:
        """Makes or checks the gradient arrays of one name or of a tuple."""
        cdef Py_ssize_t i
        if self.returns_single:
            self.grads = self._gradient(self.wrt[0], self.grads_out)
        else:
            self.grads = []
            for i, name in enumerate(self.wrt):
                out = None if self.grads_out is None else (<tuple>self.grads_out)[i]
                self.grads.append(self._gradient(name, out))
        return 0

    cdef cnp.ndarray _gradient(self, str name, object out):
        cdef int k = self.loss.parameter_ids[name]
        cdef int dtype = self.result if self.weak[k] else self.dtype[k]
        cdef cnp.ndarray array = <cnp.ndarray>self.arrays[k]
        if not is_floating(dtype):
            raise _errors.no_gradient(name, array)
        return self._result_array(FL_GRADIENT + k, array, dtype, out)

    cdef int _grad_output(self, object value, bint none) except -1:
        """Reads grad_output: a scalar, or with reduction="none" an array shaped like the losses."""
        cdef cnp.ndarray array
        cdef int dtype
        if is_number(value):
            try:
                self.call.grad_output = value
            except OverflowError:
                raise _errors.too_large("grad_output") from None
            return 0
        array = as_array(value, "grad_output")
        dtype = numeric(array, "grad_output")
        if cnp.PyArray_NDIM(array) == 0:
            self._hold_ref("grad_output", array)
            self.call.grad_output = float(array)
            return 0
        _arrays.check_grad_output(array, self._loss_shape(), none)
        array = self._with_axis_moved(array)
        self._hold_ref("grad_output", array)
        fill_fl_array(&self.call.grad_output_array, array, dtype, self.call.is_double)
        return 0

    cdef cnp.ndarray _result_array(self, int output, cnp.ndarray like, int dtype, object out):
        """A new array or the caller's `out`, shaped like `like`, or like the loss if it is None."""
        cdef cnp.ndarray array, view
        cdef int operand = output - FL_GRADIENT if like is not None else -1
        if out is not None:
            array = plain_array(out)
            dtype = self._check_out(like, operand, dtype, out, array)
        elif dtype == FL_BF16 or (like is None and self.moved_axis >= 0):
            shape = self._loss_shape() if like is None else (<object>like).shape
            array = np.empty(shape, _arrays.dtype_named(FLOATING_NAMES[dtype]))
        elif like is None:
            array = cnp.PyArray_EMPTY(self.ndim, self.shape, TYPE_NUM[dtype], 0)
        else:
            array = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(like), cnp.PyArray_DIMS(like),
                                      TYPE_NUM[dtype], 0)
        if self.call.units == 0:
            array.fill(0)
        view = self._row_view(array, operand)
        self.call.output[output] = &self.outputs[output]
        fill_fl_array(&self.outputs[output], view, dtype, self.call.is_double)
        return array if out is None else out

    cdef bint _writes_arrays(self) noexcept:
        """Whether any output is an array."""
        cdef int k
        for k in range(FL_SECOND_DERIVATIVE):
            if self.call.output[k] != NULL:
                return True
        return False

    cdef int _check_out(self, cnp.ndarray like, int operand, int dtype, object out,
                        cnp.ndarray array) except -1:
        """Checks an `out`, and `array`, the same as a plain array: it may overlap only the argument
        that it differentiates, exactly."""
        cdef int out_dtype, k
        cdef cnp.ndarray other
        if array is None or not self._fits(like, array):
            shape = self._loss_shape() if like is None else (<object>like).shape
            raise _errors.bad_out(out if array is None else array, self._out_name(operand), shape)
        out_dtype = storage(array)
        if out_dtype != dtype and not (out_dtype == FL_F32 and dtype in (FL_F16, FL_BF16)):
            raise _errors.out_dtype(array, self._out_name(operand),
                                    _arrays.dtype_named(FLOATING_NAMES[dtype]))
        for k in range(len(self.loss.operands)):
            other = <cnp.ndarray>self.arrays[k]
            if overlap(array, other):
                if k != operand or not same_memory(array, other):
                    raise _errors.overlapping(self._out_name(operand), self.loss.operands[k])
                self.in_place = True
        for name, other in self.owned_refs or ():
            if name is not None and overlap(array, other):
                raise _errors.overlapping(self._out_name(operand), name)
        for result in (self.values, *(self.grads or ())):
            if result is not None and overlap(array, plain_array(result)):
                raise _errors.overlapping(self._out_name(operand), "another out")
        return out_dtype

    cdef bint _fits(self, cnp.ndarray like, cnp.ndarray array):
        """Whether an `out` is writable and has the right shape."""
        if not cnp.PyArray_ISWRITEABLE(array):
            return False
        if like is not None:
            if not same_shape(array, like):
                return False
        elif self.moved_axis < 0:
            if not has_shape(array, self.ndim, self.shape):
                return False
        elif (<object>array).shape != self._loss_shape():
            return False
        return (cnp.PyArray_IS_C_CONTIGUOUS(array) or cnp.PyArray_IS_F_CONTIGUOUS(array)
                or not _arrays.overlaps_itself(array))

    cdef str _out_name(self, int operand):
        return f"gradient of {self.loss.operands[operand]}" if operand >= 0 else "values"

    cdef int _phases(self, int method) except -1:
        """Decides whether a validating pass must run before the one that computes.

        Labels are checked before anything is written, everything before an input is overwritten,
        and a weighted mean's gradient needs the divisor.
        """
        cdef int k
        cdef fl_call *call = self.call
        cdef fl_domain domain
        cdef bint labels = False, checked = call.sample_weight.data != NULL, weighted
        for k in range(3):
            domain = self.row.spec[k].domain
            labels |= domain == FL_SIGN or domain == FL_INDEX or domain == FL_LABELS
            checked |= domain != FL_ANY and domain != FL_SCORE
        weighted = call.sample_weight.data != NULL or (self.loss.weight_divides and (
            call.weight.data != NULL or self.row.spec[1].domain == FL_INDEX))
        call.mean = method & GRADIENT and self.a.reduction in (MEAN, BATCHMEAN)
        call.prepare = ((self._writes_arrays() and labels) or (self.in_place and checked)
                        or (call.mean and weighted))
        return 0

    # --- results ---

    cdef object _result(self, int method):
        value = self._value() if method & VALUE else None
        if method == VALUE:
            return value
        if self.returns_single:
            grads = self._unwrap_0d(<cnp.ndarray>self.grads)
        else:
            grads = []
            for grad in self.grads:
                grads.append(self._unwrap_0d(<cnp.ndarray>grad))
            grads = tuple(grads)
        return grads if method == GRADIENT else (value, grads)

    cdef object _value(self):
        if self.a.reduction == NONE:
            return self._unwrap_0d(self.values)
        cdef double mean = 0
        cdef bint unscaled  # the weights of the loss do not divide the mean
        if self.a.reduction == SUM:
            check_range(fl_settle_totals(&self.totals) & FL_SUM_OUT_OF_RANGE, self.loss.name)
            return self.totals.sum.hi
        unscaled = self.a.weight != NULL and (
            not self.loss.weight_divides
            or (self.loss.probabilities and is_floating(self.dtype[1])))
        check_range(fl_mean(&self.totals, self.call.divisor_scale, self.rows, unscaled, &mean),
                    self.loss.name)
        return mean

    cdef object _unwrap_0d(self, cnp.ndarray array):
        """A NumPy scalar instead of a 0-d array, like a ufunc."""
        return array if cnp.PyArray_NDIM(array) > 0 or self.a.out != NULL else array[()]

    cdef object _bad_value(self, fl_partial *bad, int64_t rows):
        """The error for an invalid value, with its index in the caller's array."""
        cdef int k = bad.error_argument
        cdef fl_domain domain
        shape = shape_tuple(self.ndim, self.shape)
        index = list(map(int, np.unravel_index(bad.error_unit, shape))) if shape else []
        if k == FL_NO_MEMORY:
            return MemoryError(f"{self.loss.name}: no memory for a sample")
        if k == FL_GRADIENT_FACTOR:
            return _errors.gradient_factor(self.loss.name, index)
        if self.loss.shapes == FL_SHAPES_SEQUENCES and k < FL_AT_SAMPLE_WEIGHT:
            place = bad.error_unit + self.rows_before
            if k == 1:
                label = self.call.sequences.first_label[bad.error_unit] + bad.error_entry
                return _arrays.label_error(self.loss.operands, <object>self.arrays[1], place,
                                           bad.error_entry, label, self.call.sequences.C,
                                           self.a.blank)
            frames = np.moveaxis(<object>self.arrays[0], self.axis, 0) if self.axis >= 0 else (
                <object>self.arrays[0])[np.newaxis]
            frame = frames[bad.error_unit, bad.error_entry]
            return _arrays.frame_error(self.loss.name, self.loss.operands[0], frame, place,
                                       bad.error_entry, self.axis)
        if k < FL_AT_SAMPLE_WEIGHT and self.row.spec[k].extent == FL_PER_ENTRY:
            index.insert(self.axis, bad.error_entry)
        # The first in the kernels' order need not be the first in the caller's.
        if self.moved_axis >= 0:
            weight = 1 if self.a.sample_weight == NULL else self._sample_weight(False)
            in_weight, index = _arrays.first_negative(<object>self.kernel_views[2], weight,
                                                      self.moved_axis)
            k = <int>FL_AT_SAMPLE_WEIGHT if in_weight else 2
        elif self.loss.shapes == FL_SHAPES_SECOND_AXIS and self.axis < self.ndim and (
                self.row.spec[1].extent == FL_PER_ENTRY):
            weight = 1 if self.a.sample_weight == NULL else self._sample_weight(True)
            in_weight, index = _arrays.first_negative(<object>self.kernel_views[1], weight,
                                                      self.axis)
            k = <int>FL_AT_SAMPLE_WEIGHT if in_weight else 1
            if in_weight:
                del index[self.axis]
        if k == FL_AT_SAMPLE_WEIGHT:
            array = as_array(<object>self.a.sample_weight, "sample_weight")
            return _errors.bad_value("sample_weight", array, index, "nonnegative", rows)
        name, array, domain = self.loss.operands[k], <object>self.arrays[k], self.row.spec[k].domain
        if domain == FL_INDEX:
            ignored = self.a.ignore_index if "ignore_index" in self.loss.parameter_ids else None
            return _errors.bad_class(name, array, index, self.call.unit_size, ignored, rows)
        if domain == FL_LABELS:
            return _errors.bad_label(name, array, index, self.call.unit_size, rows)
        return _errors.bad_value(name, array, index, DOMAINS[domain], rows)

    cdef object _sample_weight(self, bint rows):
        """The sample weights with axes in the order of the kernels, and one more for rows."""
        array = as_array(<object>self.a.sample_weight, "sample_weight")
        array = _arrays.weight_view(array, "sample_weight", self._loss_shape())
        array = self._with_axis_moved(array)
        return array[..., np.newaxis] if rows else array


# --- threads and instruction sets -----------------------------------------------------------------

MAX_THREADS = FL_MAX_THREADS


def set_process_threads(int threads, bint fixed):
    fl_set_process_threads(fl_thread_setting(threads, fixed))


# The blocks of `num_threads` that the current context is in, innermost last, as [threads, fixed].
# Coroutines and generators that share a thread may leave their blocks in any order.
cdef tuple NO_BLOCKS = ()
cdef object thread_blocks = PyContextVar_New("fastloss.num_threads", <PyObject *>NO_BLOCKS)
cdef bint has_thread_blocks = False  # some block was entered in this process


cdef int load_thread_override() except -1:
    """Makes the innermost block of the context the setting of the calling thread."""
    cdef fl_thread_setting setting = fl_thread_setting(0, 0)
    if has_thread_blocks:
        blocks = thread_blocks.get()
        if blocks:
            setting.threads, setting.fixed = blocks[len(blocks) - 1]
        fl_set_thread_override(setting)
    return 0


def enter_threads(int threads, bint fixed):
    """Returns the block, for `leave_threads`."""
    global has_thread_blocks
    block = [threads, fixed]
    has_thread_blocks = True
    thread_blocks.set((*thread_blocks.get(), block))
    return block


def leave_threads(block):
    thread_blocks.set(tuple([other for other in thread_blocks.get() if other is not block]))


def process_threads():
    """The number of threads of the process, and whether it is fixed."""
    cdef fl_thread_setting setting = fl_process_threads()
    return setting.threads, setting.fixed != 0


def thread_override():
    """The number of the current context, 0 for none, and whether it is fixed."""
    load_thread_override()
    cdef fl_thread_setting setting = fl_thread_override()
    return setting.threads, setting.fixed != 0


def effective_threads():
    """The number that is in force in the current context, and whether it is fixed."""
    load_thread_override()
    cdef fl_thread_setting setting = fl_effective_setting()
    return setting.threads, setting.fixed != 0


def set_available_processors(int count):
    fl_set_available_processors(count)


def parse_idle(bytes text):
    """The idle time in the text of /proc/uptime; negative for another text. For tests."""
    return fl_parse_idle(text)


def team_classes():
    """For each class of regions: its least number of elements, and size, reductions and probes."""
    cdef fl_team_control control
    cdef int64_t elements
    classes = []
    for i in range(FL_TEAM_CLASSES):
        elements = fl_team_class(i, &control)
        classes.append((elements, control.size, control.reductions, control.probes))
    return classes


cdef class TeamControl:
    """A controller of team sizes, for tests: see runtime/team_size.h."""
    cdef fl_team_control control

    def __cinit__(self):
        fl_team_control_init(&self.control)

    def size(self, int allowed, double idle=0):
        return fl_team_size(&self.control, allowed, idle)

    def observe(self, int threads, int allowed, int64_t blocks, int64_t caller_blocks,
                int64_t first_blocks, double first, double caller, double total):
        cdef fl_region region = fl_region(threads, allowed, blocks, caller_blocks, first_blocks,
                                          first, caller, total)
        fl_team_observe(&self.control, &region)

    def state(self):
        return self.control


cdef class Team:
    """The team of a caller, for tests: see runtime/worker_affinity.h."""
    cdef fl_team *team

    def place(self):
        """Call from the caller, as before each region. False: there is no team."""
        self.team = fl_place_team()
        return self.team != NULL

    def join(self, int number):
        """Call from the worker `number`."""
        fl_join_team(self.team, number)

    def worker(self, int number):
        """The thread id of a worker, or 0."""
        return fl_team_worker(self.team, number)


def openmp_processors():
    """The number of processors that OpenMP's threads may use, 0 in a build without OpenMP."""
    return fl_openmp_processors()


def openmp_runtime():
    return fl_openmp_runtime().decode()


def isa():
    """The instruction set in use."""
    return fl_isa_name(fl_isa_selected()).decode()


def isas(*, bint built=False):
    """The instruction sets that this processor runs, or all of this build; weakest first."""
    return [fl_isa_name(i).decode()
            for i in range(fl_isa_built_count() if built else fl_isa_count())]


def select_isa(str name):
    """Selects an instruction set; no call may be running in another thread."""
    fl_isa_select(isas().index(name))


def math_functions():
    """Names of the functions that `math` knows, from vector_math_list.h."""
    return [vector_math_name(i).decode() for i in range(MATH_FUNCTIONS)]


def math(str function, cnp.ndarray x not None):
    """Apply a function of vector_math.h to each element of a float32 or float64 array.

    For tests. It runs on the selected instruction set.
    """
    cdef int is_double = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    if not is_double and cnp.PyArray_TYPE(x) != cnp.NPY_FLOAT:
        raise TypeError(f"x must be float32 or float64, not {x.dtype}")
    cdef int number = math_functions().index(function)
    cdef cnp.ndarray source = np.ascontiguousarray(x), out = np.empty_like(source)
    fl_selected_services().math[is_double](number, source.size, cnp.PyArray_DATA(source),
                                           cnp.PyArray_DATA(out))
    return out
