# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""From Python arguments to an fl_call and back: parses, checks arrays, allocates results, releases the GIL.

Knows arrays and options, but no formula and no thread. A call goes: _parse -> _arrays -> _geometry -> _outputs ->
fl_run -> result.
"""

import threading

import numpy as np

from fastloss import _errors

cimport cython
cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t
from libc.string cimport memset

cnp.import_array()

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil
    int PyErr_CheckSignals()

cdef extern from "numpy/arrayobject.h":
    bint PyArray_IsNativeByteOrder(char order) nogil


cdef extern from "fastloss.h" nogil:
    enum: FL_MAX_DIMS
    enum: FL_OPERANDS
    enum: FL_PARAMS
    enum: FL_AT_SAMPLE_WEIGHT
    enum: FL_SUM
    enum: FL_VALUES
    enum: FL_GRAD
    ctypedef enum fl_dtype:
        FL_F32, FL_F64, FL_F16, FL_BF16, FL_BOOL
        FL_I8, FL_I16, FL_I32, FL_I64, FL_U8, FL_U16, FL_U32, FL_U64
    ctypedef enum fl_kind:
        FL_ELEMENTWISE, FL_CLASSES
    ctypedef int fl_formula
    ctypedef enum fl_divisor:
        FL_BY_SAMPLE_WEIGHT, FL_BY_ALL_WEIGHTS
    ctypedef enum fl_domain:
        FL_ANY, FL_UNIT_INTERVAL, FL_NONNEGATIVE, FL_SIGN
    ctypedef struct fl_array:
        char *data
        fl_dtype dtype
        int swapped, plain, ndim
        int64_t run
        int64_t shape[64]
        int64_t stride[64]
    ctypedef struct fl_dd:
        double hi, lo
    ctypedef struct fl_grid:
        int64_t blocks, row_units, rows_per_block, pieces, piece_units
    ctypedef struct fl_call:
        fl_kind kind
        fl_formula formula
        int is_double, products, prepare, mean
        fl_divisor divisor
        double divide_divisor, upstream
        double params[2]
        int64_t units, row_units, unit_size
        fl_array operand[3]
        fl_domain domain[3]
        fl_array weight, sample_weight, upstream_each, values
        fl_array grad[3]
        int64_t reduce[3]
        int64_t ignore_index
    ctypedef struct fl_totals:
        fl_dd sum, weight
        int64_t count
    ctypedef struct fl_partial:
        int64_t bad_unit
        int bad_argument
    ctypedef enum fl_status:
        FL_OK, FL_BAD_VALUE, FL_INTERRUPTED
    ctypedef int (*fl_interrupted)() noexcept
    ctypedef void fl_math_fn(int function, int64_t n, const void *x, void *out) noexcept
    ctypedef struct fl_kernels:
        fl_math_fn *math[2]
    int fl_formula_named(const char *name, fl_kind *kind, int *operands, fl_domain *domain)
    fl_grid fl_grid_of(const fl_call *call)
    fl_status fl_run(fl_call *call, fl_totals *totals, fl_interrupted interrupted, fl_partial *bad)
    int fl_isa_count()
    const char *fl_isa_name(int index)
    void fl_isa_select(int index)
    int fl_isa_selected()
    const fl_kernels *fl_kernels_selected()

cdef extern from "parallel.h" nogil:
    const char *fl_openmp_runtime()
    int fl_parallel_limit()
    void fl_set_process_threads(int threads)
    int fl_process_threads()
    int fl_set_thread_override(int threads)
    int fl_thread_override()
    int fl_effective_threads()


# --- options ----------------------------------------------------------------------------------------------------------

cdef enum:
    MEAN
    SUM
    NONE
    BATCHMEAN

cdef dict REDUCTIONS = {"mean": MEAN, "sum": SUM, "none": NONE, "batchmean": BATCHMEAN}

# What a keyword means to the parser. Operands are 0..2, numeric options NUMBER + i, boolean ones FLAG + i.
cdef enum:
    WEIGHT = 10
    POS_WEIGHT
    SAMPLE_WEIGHT
    REDUCTION
    OUT
    WRT
    GRAD_OUTPUT
    IGNORE_INDEX
    NUMBER = 20
    FLAG = 30

# Methods of a loss.
cdef enum:
    CALL = 1
    GRADIENT = 2
    VALUE_AND_GRAD = CALL | GRADIENT
    SUMS = 4
    UPDATE = 12  # sums, and unreduced losses into out

cdef struct Arguments:
    PyObject *operand[3]
    PyObject *weight
    PyObject *pos_weight
    PyObject *sample_weight
    PyObject *out
    PyObject *wrt
    PyObject *grad_output
    int reduction
    int flags
    double number[2]
    int64_t ignore_index

# What a call carries on its way. Pointers to objects are borrowed: the arguments live as long as the call, what is
# made on the way is kept in a list.
cdef struct Work:
    Arguments a
    fl_call call
    fl_totals totals
    PyObject *array[3]      # the operands as arrays
    PyObject *view[3]       # the same with their axes in the order of the kernels
    int dtype[3]
    bint weak[3]            # Python numbers
    int result              # dtype of unreduced losses
    int ndim, moved         # of the unreduced loss; the axis that goes last, or -1
    cnp.npy_intp shape[64]
    int64_t rows            # length of the leading axis
    bint in_place           # an out is an input
    bint single             # wrt names one argument, not a tuple
    int wrt


# --- arrays -----------------------------------------------------------------------------------------------------------

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
        signed = cnp.PyTypeNum_ISSIGNED(num)
        return ((FL_I8 if signed else FL_U8) + (0 if size == 1 else 1 if size == 2 else 2 if size == 4 else 3))
    if a.dtype.name == "bfloat16":
        return FL_BF16
    return -1


# NumPy's numbers for F32, F64 and F16.
cdef int[3] TYPE_NUM = [cnp.NPY_FLOAT, cnp.NPY_DOUBLE, cnp.NPY_FLOAT16]


cdef inline bint is_floating(int dtype):
    return dtype <= FL_BF16


cdef inline bint is_number(object value):
    """A Python number: weak, it takes the type of the arrays."""
    return type(value) is float or type(value) is int or type(value) is bool


cdef cnp.ndarray as_array(object value, str name):
    """Anything array-like as an ndarray, without a copy where there is memory to share."""
    if cnp.PyArray_CheckExact(value):
        return <cnp.ndarray>value
    return _errors.as_array(value, name)


cdef void describe(fl_array *f, cnp.ndarray a, int dtype, bint is_double, int ndim, const cnp.npy_intp *shape) noexcept:
    """a, broadcast to shape, as an fl_array; neighbouring axes that step alike become one."""
    cdef int axis, missing = ndim - cnp.PyArray_NDIM(a), n = 0
    cdef int64_t dim, step
    cdef const cnp.npy_intp *dims = cnp.PyArray_DIMS(a)
    cdef const cnp.npy_intp *strides = cnp.PyArray_STRIDES(a)
    f.data = <char *>cnp.PyArray_DATA(a)
    f.dtype = <fl_dtype>dtype
    f.swapped = not cnp.PyArray_ISNOTSWAPPED(a)
    f.plain = (dtype == (FL_F64 if is_double else FL_F32)) and not f.swapped and cnp.PyArray_ISALIGNED(a)
    for axis in range(ndim):
        dim = shape[axis]
        if dim == 1:
            continue
        step = 0 if axis < missing or dims[axis - missing] == 1 else strides[axis - missing]
        if n > 0 and f.stride[n - 1] == step * dim:
            f.shape[n - 1] *= dim
            f.stride[n - 1] = step
        else:
            f.shape[n] = dim
            f.stride[n] = step
            n += 1
    f.ndim = n
    f.run = f.shape[n - 1] if n > 0 and f.stride[n - 1] == cnp.PyArray_ITEMSIZE(a) else 1


cdef inline bint same_shape(cnp.ndarray a, cnp.ndarray b):
    cdef int axis, ndim = cnp.PyArray_NDIM(a)
    if cnp.PyArray_NDIM(b) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(b, axis):
            return False
    return True


cdef bint is_target_of(cnp.ndarray y, cnp.ndarray x):
    """Whether y has the shape of class indices for x: () for (C), (N, d1, ..., dK) for (N, C, d1, ..., dK)."""
    cdef int axis, ndim = cnp.PyArray_NDIM(x)
    if ndim == 0 or cnp.PyArray_NDIM(y) != ndim - 1:
        return False
    for axis in range(ndim - 1):
        if cnp.PyArray_DIM(y, axis) != cnp.PyArray_DIM(x, axis if axis == 0 else axis + 1):
            return False
    return True


cdef bint same_memory(cnp.ndarray a, cnp.ndarray b):
    return (cnp.PyArray_DATA(a) == cnp.PyArray_DATA(b) and same_shape(a, b) and a.dtype == b.dtype
            and (<object>a).strides == (<object>b).strides)


cdef bint overlap(cnp.ndarray a, cnp.ndarray b):
    cdef char *pa = <char *>cnp.PyArray_DATA(a)
    cdef char *pb = <char *>cnp.PyArray_DATA(b)
    if cnp.PyArray_NBYTES(a) == 0 or cnp.PyArray_NBYTES(b) == 0:
        return False
    if cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_IS_C_CONTIGUOUS(b):
        return pa < pb + cnp.PyArray_NBYTES(b) and pb < pa + cnp.PyArray_NBYTES(a)
    return _errors.overlap(a, b)


# --- interrupts -------------------------------------------------------------------------------------------------------

cdef unsigned long main_thread = threading.main_thread().ident


def _after_fork():
    global main_thread
    main_thread = threading.main_thread().ident


import os  # noqa: E402

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef int interrupted() noexcept with gil:
    return PyErr_CheckSignals() != 0


cdef int raise_pending() except -1:
    """The exception that a signal handler left."""
    return -1


# --- streams ----------------------------------------------------------------------------------------------------------

cdef class State:
    """Running sums of a loss over chunks; bits equal those of one call where chunks hold whole blocks.

    Private: the base that streams of any kind stand on.
    """

    cdef fl_totals totals
    cdef double divide
    cdef readonly int64_t rows

    def __cinit__(self):
        memset(&self.totals, 0, sizeof(self.totals))
        self.divide = 1

    @property
    def sum(self):
        return self.totals.sum.hi

    @property
    def count(self):
        return self.totals.count

    @property
    def weight(self):
        if self.divide == 0:  # batchmean of rows without elements
            return <double>self.rows
        return self.totals.weight.hi / self.divide

    def value(self, reduction="mean"):
        """The reduced loss so far."""
        cdef double total = self.totals.sum.hi, weight = self.weight
        return total if reduction == "sum" else total / weight


# --- the loss object --------------------------------------------------------------------------------------------------

@cython.final
cdef class Loss:
    """A loss function with its gradient: call it, or its methods grad, value_and_grad and sums.

    Made by fastloss.losses from a function that gives signature and docstring.
    """

    cdef dict __dict__
    cdef readonly tuple operands
    cdef readonly tuple differentiable
    cdef readonly tuple default_wrt
    cdef str name
    cdef dict slots
    cdef tuple positional
    cdef tuple number_names
    cdef tuple number_rules
    cdef tuple flag_names
    cdef int inputs  # so many operands are named input...
    cdef bint weight_divides
    cdef bint has_weight
    cdef bint has_batchmean
    cdef Arguments defaults
    cdef str formula_name
    cdef int formula[16]
    cdef int formula_operands[16]
    cdef fl_kind kind
    cdef fl_domain domain[48]

    def __init__(self, *, name, formula, operands, positional, differentiable, default_wrt, numbers, flags, special,
                 weight_divides=False, has_batchmean=False):
        """numbers: (name, default, rule) each; flags: (name, default) each; special: other keywords."""
        cdef int i, bit
        self.name = name
        self.inputs = sum(operand.startswith("input") for operand in operands)
        self.formula_name = formula
        self.operands = operands
        self.positional = positional
        self.differentiable = differentiable
        self.default_wrt = default_wrt
        self.weight_divides = weight_divides
        self.has_weight = "weight" in special
        self.has_batchmean = has_batchmean
        self.number_names = tuple(option[0] for option in numbers)
        self.number_rules = tuple(option[2] for option in numbers)
        self.flag_names = tuple(option[0] for option in flags)
        memset(&self.defaults, 0, sizeof(self.defaults))
        self.defaults.reduction = MEAN
        self.defaults.ignore_index = -100
        self.slots = {"sample_weight": SAMPLE_WEIGHT, "reduction": REDUCTION, "out": OUT, "wrt": WRT,
                      "grad_output": GRAD_OUTPUT}
        for i, operand in enumerate(operands):
            self.slots[operand] = i
        known = {"weight": WEIGHT, "pos_weight": POS_WEIGHT, "ignore_index": IGNORE_INDEX}
        for keyword in special:
            self.slots[keyword] = known[keyword]
        for i, option in enumerate(numbers):
            self.slots[option[0]] = NUMBER + i
            self.defaults.number[i] = option[1]
        for i, option in enumerate(flags):
            self.slots[option[0]] = FLAG + i
            self.defaults.flags |= (1 << i) if option[1] else 0
        self._find_formulas(flags, "pos_weight" in special)

    cdef _find_formulas(self, flags, bint pos_weight):
        """Each set of boolean options (and a pos_weight) is a row of the table of losses."""
        cdef int variant, i
        names = [flag[0] for flag in flags] + (["pos_weight"] if pos_weight else [])
        for variant in range(1 << len(names)):
            name = "_".join([self.formula_name] + [n for i, n in enumerate(names) if variant >> i & 1])
            self.formula[variant] = fl_formula_named(name.encode(), &self.kind, &self.formula_operands[variant],
                                                     &self.domain[3 * variant])
            if self.formula[variant] < 0:
                raise LookupError(f"no formula {name!r}")

    # --- calls ---

    def __call__(self, *args, **kwargs):
        return self._call(CALL, args, kwargs, None)

    def grad(self, *args, **kwargs):
        """The gradient of the reduced loss, for ``wrt`` (an argument's name or a tuple of them)."""
        return self._call(GRADIENT, args, kwargs, None)

    def value_and_grad(self, *args, **kwargs):
        """``(value, gradient)`` in one pass, with the bits of the two calls."""
        return self._call(VALUE_AND_GRAD, args, kwargs, None)

    def sums(self, *args, **kwargs):
        """``(sum, weight, count)``: mean = sum / weight; adds up over batches."""
        cdef State state = State()
        self._call(SUMS, args, kwargs, state)
        return state.sum, state.weight, state.count

    def _update(self, State state not None, *args, **kwargs):
        """Adds a chunk of leading rows to the state; with ``out`` also writes its unreduced losses."""
        self._call(UPDATE, args, kwargs, state)

    def _rows_per_block(self, shape, dtype):
        """Chunks that are multiples of so many leading rows keep the bits of one call over everything."""
        cdef fl_call call
        cdef fl_grid grid
        cdef cnp.npy_intp dims[64]
        x = np.lib.stride_tricks.as_strided(np.zeros((), dtype), tuple(shape), (0,) * len(shape))
        memset(&call, 0, sizeof(call))
        self._set_units(&call, x.ndim, cnp.PyArray_DIMS(x))
        grid = fl_grid_of(&call)
        return grid.rows_per_block if x.ndim > (1 if self.kind == FL_CLASSES else 0) else 1

    def __repr__(self):
        return f"<loss fastloss.{self.name}>"

    def __reduce__(self):
        return self.name

    # --- parsing ---

    cdef int _parse(self, Arguments *a, int method, tuple args, dict kwargs) except -1:
        cdef Py_ssize_t i, position = 0
        cdef PyObject *key
        cdef PyObject *value
        cdef PyObject *found
        a[0] = self.defaults
        if len(args) > len(self.positional):
            raise _errors.too_many(self.name, self.positional, len(args))
        for i in range(len(args)):
            self._set(a, <int>self.slots[self.positional[i]], <PyObject *>args[i])
        while PyDict_Next(kwargs, &position, &key, &value):
            found = PyDict_GetItem(self.slots, <object>key)
            if found == NULL or (not method & GRADIENT and <int><object>found in (WRT, GRAD_OUTPUT)) or (
                    method == SUMS and <int><object>found == OUT):
                raise _errors.unknown_keyword(self, <object>key, method & GRADIENT != 0)
            i = <int><object>found
            if i < len(args) and i < 3 or (i == WEIGHT and len(args) == len(self.positional) > len(self.operands)):
                raise TypeError(f"{self.name}() got multiple values for argument {<object>key!r}")
            self._set(a, i, value)
        for i in range(len(self.operands)):
            if a.operand[i] == NULL:
                raise _errors.missing(self.name, self.operands, [a.operand[k] != NULL for k in range(3)])
        return 0

    cdef int _set(self, Arguments *a, int slot, PyObject *value) except -1:
        if slot < 3:
            a.operand[slot] = value
        elif slot == REDUCTION:
            if not PyUnicode_Check(<object>value) or <object>value not in REDUCTIONS or (
                    REDUCTIONS[<object>value] == BATCHMEAN and not self.has_batchmean):
                raise _errors.bad_reduction(<object>value, self.has_batchmean)
            a.reduction = REDUCTIONS[<object>value]
        elif slot >= FLAG:
            slot -= FLAG
            if _errors.flag(self.flag_names[slot], <object>value):
                a.flags |= 1 << slot
            else:
                a.flags &= ~(1 << slot)
        elif slot >= NUMBER:
            slot -= NUMBER
            a.number[slot] = _errors.number(self.number_names[slot], <object>value, self.number_rules[slot])
        elif slot == IGNORE_INDEX:
            a.ignore_index = _errors.integer("ignore_index", <object>value)
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

    # --- geometry ---

    cdef int _set_units(self, fl_call *call, int ndim, const cnp.npy_intp *shape) except -1:
        """Units and rows of an input of this shape; its class axis, where there is one, is the second (or only) one."""
        cdef int axis, class_axis = -1
        call.kind = self.kind
        call.unit_size = 1
        if self.kind == FL_CLASSES:
            class_axis = 1 if ndim > 1 else 0
            call.unit_size = shape[class_axis]
        call.units = call.row_units = 1
        for axis in range(ndim):
            if axis != class_axis:
                call.units *= shape[axis]
                if axis > 0:
                    call.row_units *= shape[axis]
        return 0

    # --- the way of a call ---

    cdef object _call(self, int method, tuple args, dict kwargs, State state):
        cdef Work w
        cdef list keep = []  # owners of what w points to
        cdef list apart = []  # (name, array) that no out may overlap
        cdef list results = [None, None, None, None]  # values, gradients
        cdef fl_partial bad
        cdef fl_status status = FL_OK
        cdef fl_interrupted ask = NULL
        self._parse(&w.a, method, args, kwargs)
        self._arrays(&w, keep)
        self._weights(&w, keep, apart)
        self._outputs(&w, method, keep, apart, results)

        memset(&w.totals, 0, sizeof(w.totals))
        if state is not None:
            w.totals = state.totals
        if w.call.units > 0:
            if PyThread_get_thread_ident() == main_thread:
                ask = interrupted
            with nogil:
                status = fl_run(&w.call, &w.totals, ask, &bad)
        if status == FL_BAD_VALUE:
            raise self._bad_value(&w, &bad, 0 if state is None else state.rows)
        if status == FL_INTERRUPTED:
            raise_pending()
        if state is not None:
            state.totals = w.totals
            state.divide = w.call.divide_divisor
            state.rows += w.rows
            return None
        return self._result(&w, method, results)

    cdef int _arrays(self, Work *w, list keep) except -1:
        """The operands, their shape and the compute type."""
        cdef int k, n = len(self.operands), axis
        cdef bint is_double = False, floating = False
        cdef object value
        cdef cnp.ndarray array
        w.result = w.moved = -1
        w.in_place = False
        for k in range(n):
            value = <object>w.a.operand[k]
            array = as_array(value, self.operands[k])
            if array is not value:
                keep.append(array)
            w.array[k] = <PyObject *>array
            w.dtype[k] = storage(array)
            if w.dtype[k] < 0 or (self.kind == FL_CLASSES and (
                    not is_floating(w.dtype[k]) if k == 0 else w.dtype[k] <= FL_BOOL)):
                raise _errors.bad_dtype(self.operands[k], array, self.kind == FL_CLASSES, k)
            w.weak[k] = is_number(value)
            if w.weak[k] or (self.kind == FL_CLASSES and k > 0):
                continue
            if is_floating(w.dtype[k]):
                floating = True
                is_double |= w.dtype[k] == FL_F64
                w.result = w.dtype[k] if w.result in (-1, w.dtype[k]) else FL_F32
            elif k < self.inputs:
                is_double = True
        is_double |= not floating
        if is_double or w.result == -1:
            w.result = FL_F64
        w.call.is_double = is_double

        # The unreduced shape: of the first array that is not 0-d, without the class axis.
        array = <cnp.ndarray>w.array[0]
        if self.kind == FL_CLASSES:
            if not is_target_of(<cnp.ndarray>w.array[1], array):
                raise _errors.bad_classes(array, <cnp.ndarray>w.array[1], self.name)
            self._set_units(&w.call, cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array))
            if cnp.PyArray_NDIM(array) > 2:  # the class axis goes last; strides do the rest
                array = np.moveaxis(array, 1, -1)
                keep.append(array)
            w.view[0] = <PyObject *>array
            w.view[1] = w.array[1]
            array = <cnp.ndarray>w.array[1]
            w.ndim = cnp.PyArray_NDIM(array)
            for axis in range(w.ndim):
                w.shape[axis] = cnp.PyArray_DIM(array, axis)
            memset(w.call.reduce, 0, sizeof(w.call.reduce))
        else:
            self._broadcast(w, keep)
        w.rows = w.shape[0] if w.ndim > 0 else 1

        for k in range(3):
            w.call.operand[k].data = NULL
            if k < n:
                array = <cnp.ndarray>w.view[k]
                if self.kind == FL_CLASSES:
                    describe(&w.call.operand[k], array, w.dtype[k], is_double, cnp.PyArray_NDIM(array),
                             cnp.PyArray_DIMS(array))
                else:
                    describe(&w.call.operand[k], array, w.dtype[k], is_double, w.ndim, w.shape)
        return 0

    cdef int _broadcast(self, Work *w, list keep) except -1:
        """The shape of an elementwise loss: equal shapes, 0-d arrays beside them, and a variance."""
        cdef int k, axis, n = len(self.operands), first = -1
        cdef cnp.ndarray array, other
        cdef bint variance = n == 3 and self.operands[2] == "var"
        for k in range(2 if variance else n):
            array = <cnp.ndarray>w.array[k]
            w.view[k] = w.array[k]
            if cnp.PyArray_NDIM(array) == 0:
                continue
            if first < 0:
                first = k
            elif not same_shape(<cnp.ndarray>w.array[first], array):
                raise _errors.shapes_differ(self.operands[first], <object>w.array[first], self.operands[k], array)
        array = <cnp.ndarray>w.array[first if first >= 0 else 0]
        self._set_units(&w.call, cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array))
        w.ndim = cnp.PyArray_NDIM(array)
        for axis in range(w.ndim):
            w.shape[axis] = cnp.PyArray_DIM(array, axis)
        for k in range(n):
            w.call.reduce[k] = w.call.units if (
                w.ndim > 0 and cnp.PyArray_NDIM(<cnp.ndarray>w.array[k]) == 0) else 0
        if variance:
            w.view[2] = w.array[2]
            other = <cnp.ndarray>w.array[2]
            if cnp.PyArray_NDIM(other) > 0 and not same_shape(array, other):
                other, axis = _errors.variance(other, array)
                keep.append(other)
                w.view[2] = <PyObject *>other
                w.call.reduce[2] = w.shape[axis]
                if axis != w.ndim - 1:
                    self._move_last(w, axis, keep)
        return 0

    cdef int _move_last(self, Work *w, int axis, list keep) except -1:
        """The axis along which a variance is shared goes last, so that its gradient sums neighbours."""
        cdef int k
        cdef cnp.npy_intp dim = w.shape[axis]
        w.moved = axis
        for k in range(3):
            view = self._moved(w, <object>w.view[k])
            keep.append(view)
            w.view[k] = <PyObject *>view
        for k in range(axis, w.ndim - 1):
            w.shape[k] = w.shape[k + 1]
        w.shape[w.ndim - 1] = dim
        return 0

    cdef object _moved(self, Work *w, array):
        return np.moveaxis(array, w.moved, -1) if w.moved >= 0 and array.ndim == w.ndim else array

    cdef int _weight(self, Work *w, fl_array *f, object value, str name, list keep, list apart,
                     bint leading) except -1:
        """A weight of the elements: broadcast to the loss, or (leading) of its shape or of its first axis."""
        cdef cnp.ndarray array = as_array(value, name)
        cdef int dtype = storage(array)
        if dtype < 0:
            raise _errors.bad_dtype(name, array, False, 0)
        view = _errors.weight_view(array, name, self._shape(w), leading)
        array = self._moved(w, view)
        keep.append(array)
        apart.append((name, array))
        describe(f, array, dtype, w.call.is_double, w.ndim, w.shape)
        return 0

    cdef int _weights(self, Work *w, list keep, list apart) except -1:
        """Formula and options, weights of all sorts, and what the mean divides by."""
        cdef int i, variant = w.a.flags
        cdef fl_call *call = &w.call
        call.weight.data = call.sample_weight.data = NULL
        if w.a.weight != NULL:
            if self.kind == FL_CLASSES:
                weight = _errors.class_weight(<object>w.a.weight, call.unit_size, call.is_double)
                keep.append(weight)
                apart.append(("weight", weight))
                call.weight.data = <char *>cnp.PyArray_DATA(<cnp.ndarray>weight)
            else:
                self._weight(w, &call.weight, <object>w.a.weight, "weight", keep, apart, False)
        if w.a.sample_weight != NULL:
            self._weight(w, &call.sample_weight, <object>w.a.sample_weight, "sample_weight", keep, apart, True)
        if w.a.pos_weight != NULL:
            variant |= 1 << len(self.flag_names)
            self._weight(w, &call.operand[2], <object>w.a.pos_weight, "pos_weight", keep, apart, False)
        call.formula = self.formula[variant]
        for i in range(3):
            call.domain[i] = self.domain[3 * variant + i]
        for i in range(2):
            call.params[i] = w.a.number[i]
        call.ignore_index = w.a.ignore_index
        call.divisor = FL_BY_ALL_WEIGHTS if self.weight_divides else FL_BY_SAMPLE_WEIGHT
        call.divide_divisor = 1
        if w.a.reduction == BATCHMEAN:
            call.divide_divisor = <double>call.row_units
        return 0

    cdef tuple _shape(self, Work *w):
        """The unreduced shape in the order of the arguments."""
        shape = [w.shape[k] for k in range(w.ndim)]
        if w.moved >= 0:
            shape.insert(w.moved, shape.pop())
        return tuple(shape)

    cdef int _outputs(self, Work *w, int method, list keep, list apart, list results) except -1:
        """Result arrays, the upstream gradient, and whether a pass must come first."""
        cdef int k
        cdef fl_call *call = &w.call
        cdef bint none = w.a.reduction == NONE, writes, labels, checked, weighted
        cdef cnp.ndarray array
        values_out = grads_out = None
        call.products = FL_SUM if method & (CALL | SUMS) else 0
        call.values.data = call.upstream_each.data = NULL
        call.upstream = 1
        call.mean = method & GRADIENT and w.a.reduction in (MEAN, BATCHMEAN)
        w.single = True
        if w.a.out != NULL:
            if method == GRADIENT or (method == VALUE_AND_GRAD and not none):
                grads_out = <object>w.a.out
            else:
                values_out, grads_out = _errors.split_out(
                    <object>w.a.out, none or method == UPDATE, method == VALUE_AND_GRAD)
        if (method & CALL and none) or (method == UPDATE and values_out is not None):
            self._result_array(w, &call.values, "values", None, w.result, values_out, -1, keep, apart, results, 0)
            call.products |= FL_VALUES
        if method & GRADIENT:
            if w.a.grad_output != NULL:
                self._upstream(w, <object>w.a.grad_output, none, keep, apart)
            wrt = self.default_wrt if w.a.wrt == NULL else _errors.wrt(self, <object>w.a.wrt)
            w.single = len(wrt) == 1 and (w.a.wrt == NULL or PyUnicode_Check(<object>w.a.wrt))
            outs = None if grads_out is None else _errors.grad_outs(grads_out, wrt, w.single)
            for i, name in enumerate(wrt):
                k = (<tuple>self.operands).index(name)
                dtype = w.dtype[k] if not w.weak[k] else w.result
                if not is_floating(dtype):
                    raise _errors.no_gradient(name, <object>w.array[k])
                self._result_array(w, &call.grad[k], name, <cnp.ndarray>w.array[k], dtype,
                                   None if outs is None else outs[i], k, keep, apart, results, 1 + i)
                call.products |= FL_GRAD << k
            w.wrt = len(wrt)
        writes = call.products & ~FL_SUM
        labels = self.kind == FL_CLASSES
        checked = labels or call.sample_weight.data != NULL
        for k in range(3):
            labels |= call.domain[k] == FL_SIGN
            checked |= call.domain[k] != FL_ANY
        weighted = self.kind == FL_CLASSES or call.sample_weight.data != NULL or (
            self.weight_divides and call.weight.data != NULL)
        call.prepare = (writes and labels) or (call.mean and weighted) or (w.in_place and checked)
        return 0

    cdef int _upstream(self, Work *w, object value, bint none, list keep, list apart) except -1:
        """A number for mean and sum; for none also an array of the unreduced shape."""
        cdef cnp.ndarray array
        cdef int dtype
        if is_number(value):
            w.call.upstream = value
            return 0
        array = as_array(value, "grad_output")
        dtype = storage(array)
        if dtype < 0:
            raise _errors.bad_dtype("grad_output", array, False, 0)
        if cnp.PyArray_NDIM(array) == 0:
            w.call.upstream = float(array)
            return 0
        _errors.check_upstream(array, self._shape(w), none)
        array = self._moved(w, array)
        keep.append(array)
        apart.append(("grad_output", array))
        describe(&w.call.upstream_each, array, dtype, w.call.is_double, w.ndim, w.shape)
        return 0

    cdef int _result_array(self, Work *w, fl_array *f, str name, cnp.ndarray like, int dtype, object out, int operand,
                           list keep, list apart, list results, int slot) except -1:
        """A fresh array or the caller's `out`, described to the kernels: of the shape of `like` or of the loss."""
        cdef cnp.ndarray array, view
        cdef int given = dtype
        if out is not None:
            name = "values" if like is None else f"gradient of {name}"
            shape = self._shape(w) if like is None else (<object>like).shape
            given = self._check_out(w, name, shape, dtype, out, operand, apart)
            array = out
        elif dtype == FL_BF16:
            array = np.empty(self._shape(w) if like is None else (<object>like).shape, _errors.dtype_of(dtype))
        elif like is not None:
            array = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(like), cnp.PyArray_DIMS(like), TYPE_NUM[dtype], 0)
        elif w.moved >= 0:
            array = np.empty(self._shape(w), _errors.dtype_of(dtype))
        else:
            array = cnp.PyArray_EMPTY(w.ndim, w.shape, TYPE_NUM[dtype], 0)
        if w.call.units == 0:
            array.fill(0)
        results[slot] = array
        view = array
        if operand >= 0 and self.kind == FL_CLASSES and cnp.PyArray_NDIM(array) > 2:
            view = np.moveaxis(array, 1, -1)
        elif w.moved >= 0:
            view = self._moved(w, array)
        if view is not array:
            keep.append(view)
        describe(f, view, given, w.call.is_double, cnp.PyArray_NDIM(view), cnp.PyArray_DIMS(view))
        return 0

    cdef int _check_out(self, Work *w, str name, tuple shape, int dtype, object out, int operand,
                        list apart) except -1:
        """An out may be the argument that it differentiates, and must be apart from all others."""
        cdef int given, k
        cdef cnp.ndarray array
        _errors.check_out(out, name, shape)
        array = out
        given = storage(array)
        if given != dtype and not (given == FL_F32 and dtype in (FL_F16, FL_BF16)):
            raise _errors.out_dtype(out, name, _errors.dtype_of(dtype))
        for k in range(len(self.operands)):
            if overlap(array, <cnp.ndarray>w.array[k]):
                if k != operand or not same_memory(array, <cnp.ndarray>w.array[k]):
                    raise _errors.overlapping(name, self.operands[k])
                w.in_place = True
        for other_name, other in apart:
            if overlap(array, other):
                raise _errors.overlapping(name, other_name)
        apart.append((name, array))
        return given

    # --- results ---

    cdef object _result(self, Work *w, int method, list results):
        cdef double divisor = w.totals.weight.hi / w.call.divide_divisor
        value = grads = None
        if method & CALL:
            if w.a.reduction == NONE:
                value = self._plain(results[0], w)
            elif w.a.reduction == SUM:
                value = w.totals.sum.hi
            elif w.call.divide_divisor == 0:  # batchmean of rows without elements
                value = w.totals.sum.hi / <double>w.rows
            else:
                value = w.totals.sum.hi / divisor
        if method & GRADIENT:
            if w.single:
                grads = self._plain(results[1], w)
            else:
                grads = tuple([self._plain(results[1 + i], w) for i in range(w.wrt)])
        return value if method == CALL else grads if method == GRADIENT else (value, grads)

    cdef object _plain(self, cnp.ndarray array, Work *w):
        """A NumPy scalar instead of a 0-d array, like a ufunc."""
        return array if cnp.PyArray_NDIM(array) > 0 or w.a.out != NULL else array[()]

    cdef object _bad_value(self, Work *w, fl_partial *bad, int64_t rows):
        """The error of a value that is not allowed, at its place in the caller's array."""
        cdef int k = bad.bad_argument
        shape = [w.shape[i] for i in range(w.ndim)]
        index = [int(i) for i in np.unravel_index(bad.bad_unit, shape)] if shape else []
        if w.moved >= 0:
            index.insert(w.moved, index.pop())
        if k == FL_AT_SAMPLE_WEIGHT:
            return _errors.bad_value("sample_weight", <object>w.a.sample_weight, index, FL_NONNEGATIVE, rows)
        array = <object>w.array[k]
        if self.kind == FL_CLASSES:
            return _errors.bad_class(self.operands[k], array, index, w.call.unit_size,
                                     w.a.ignore_index if "ignore_index" in self.slots else None, rows)
        return _errors.bad_value(self.operands[k], array, index, w.call.domain[k], rows)


# --- threads and instruction sets -------------------------------------------------------------------------------------

def set_process_threads(int n):
    fl_set_process_threads(n)


def set_thread_override(int n):
    return fl_set_thread_override(n)


def effective_threads():
    return fl_effective_threads()


def openmp_runtime():
    return fl_openmp_runtime().decode()


def isa():
    """The instruction set in use."""
    return fl_isa_name(fl_isa_selected()).decode()


def isas():
    """Those of this build that this processor runs, weakest first."""
    return [fl_isa_name(i).decode() for i in range(fl_isa_count())]


def select_isa(str name):
    """Not while calls are running in other threads."""
    fl_isa_select(isas().index(name))


def math(str function, cnp.ndarray x not None):
    """exp, log, log1p or expm1 of the kernels, for tests."""
    cdef int is_double = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    fl_kernels_selected().math[is_double](["exp", "log", "log1p", "expm1"].index(function), x.size,
                                          cnp.PyArray_DATA(x), cnp.PyArray_DATA(<cnp.ndarray>out))
    return out
