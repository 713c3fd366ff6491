"""`python -m tests.fuzz --calls 100000 --seed 0`: random calls of every method of every loss.

A call must return, or raise a ValueError, TypeError or MemoryError that names an argument, or an
OverflowError for a sum, or a factor of gradients, that is out of the range of float64. A valid
call must return the documented shapes, dtypes and types, write to `out` only and leave its inputs
unchanged, and give bitwise the same result with contiguous arrays, on one thread, and by the other
methods of the loss. Anything else, including a crash and a hang, is a finding, which is printed
with the command that repeats the call. Under the sanitizers (see .ci/run) reads out of bounds are
findings as well.
"""

import argparse
import faulthandler
import math
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

import fastloss as fl
from tests.domains import ANY, CLASS_INDEX, LABEL_ROWS
from tests.domains import INTEGERS as INTEGER_DOMAINS
from tests.hostile import CHANGES, ArrayLike, attempt, liar
from tests.random_calls import (
    CASES,
    FLOATS,
    INF,
    INT64,
    INTEGERS,
    RandomCall,
    SeededChoices,
    described,
)

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60  # 256 calls that take longer are a hang
NOT_STARTED = 2**64 - 1  # instead of the number of a call
BAD_NUMBERS = [float("nan"), -1.0, -INF, INF, 2**70, "1", None, [1.0], 1j, b"", np.ones(2), -1e-300]
METHODS = ["__call__", "grad", "value_and_grad", "sums"]


class Finding(Exception):
    """Something that a call must not do."""


# ---- A call --------------------------------------------------------------------------------------


class Call(RandomCall):
    """A random call with a method, a reduction and `out`; then perhaps a defect."""

    def __init__(self, choices, case):
        self.method = choices.pick(METHODS)
        self.threads = choices.pick([1, 1, 1, 2, 3, 4])
        super().__init__(choices, case)
        self.outs = []  # like `memory`, of the arrays made for `out`
        self.defect = None
        self.must_raise = None
        self.positional = len(self.loss.operands)  # number of operands passed by position
        self._draw_reduction()

    @property
    def is_sequence(self):
        return self.case.unit == "sequence"

    def _draw_reduction(self):
        choices = self.choices
        reductions = ["mean", "mean", "sum", "none", "none"]
        if self.name == "kl_div":
            reductions.append("batchmean")
        if choices.chance(0.8):
            self.options["reduction"] = choices.pick(reductions)
        if self.method in ("grad", "value_and_grad"):
            possible = list(self.wrt)
            if self.loss.default_wrt[0] not in possible or choices.chance(0.5):
                chosen = choices.shuffled(choices.subset(possible)) or possible[:1]
                self.options["wrt"] = (
                    choices.pick([tuple(chosen), list(chosen), chosen[0]]) if chosen else ()
                )
            elif not set(self.loss.default_wrt) <= set(possible):
                self.options["wrt"] = tuple(possible)
            if not possible:
                self.method = "__call__"
                self.options.pop("wrt", None)
        if self.method in ("grad", "value_and_grad") and choices.chance(0.3):
            if self.unreduced and choices.chance(0.6):
                grad_output = self.lay_out(self.cast(self.values(ANY, self.shape)))
            else:
                grad_output = choices.pick([0, -1.5, 2, np.float32(3), np.array(0.5), INF])
            self.options["grad_output"] = grad_output

    @property
    def unreduced(self):
        return self.options.get("reduction") == "none"

    @property
    def gradients(self):
        """(operands, whether their gradients are a tuple)."""
        wrt = self.options.get("wrt")
        if wrt is None:
            names = self.loss.default_wrt
            return names, len(names) > 1
        return ((wrt,), False) if isinstance(wrt, str) else (tuple(wrt), True)

    @property
    def result_dtype(self):
        """The dtype of the unreduced loss."""
        dtypes = []
        for name, domain in self.domains.items():
            value = self.arrays[name]
            if domain in INTEGER_DOMAINS or type(value) in (bool, int, float):
                continue
            dtype = np.asarray(value).dtype.newbyteorder("=")
            if dtype.kind in "iub":
                dtypes += [FLOATS[1]] * (not name.startswith(("target", "var")))
            else:
                dtypes.append(dtype)
        if not dtypes or FLOATS[1] in dtypes:
            return FLOATS[1]
        return dtypes[0] if len(set(dtypes)) == 1 else FLOATS[0]

    def expected(self):
        """((shape, dtype) of the values or None, [(name, shape, dtype)] of the gradients)."""
        values = (self.shape, self.result_dtype) if self.unreduced else None
        grads = []
        for name in self.gradients[0]:
            value = self.arrays[name]
            weak = type(value) in (bool, int, float)
            dtype = self.result_dtype if weak else np.asarray(value).dtype.newbyteorder("=")
            grads.append((name, np.shape(value), dtype))
        return values, grads

    def draw_out(self):
        """Adds `out`: guarded arrays for the results, or operands themselves."""
        values, grads = self.expected()
        if self.method == "__call__":
            if values is not None:
                self.options["out"] = self._out(*values)
            return
        outs = [self._out(shape, dtype, name) for name, shape, dtype in grads]
        out = tuple(outs) if self.gradients[1] else outs[0]
        if self.method == "value_and_grad" and self.unreduced:
            pair = (self._out(*values), out)
            out = self.choices.pick([pair, (None, out)])
        self.options["out"] = out

    def _out(self, shape, dtype, name=None):
        choices = self.choices
        operand = self.arrays.get(name)
        if isinstance(operand, np.ndarray) and choices.chance(0.3) and operand.flags.writeable:
            axes = zip(operand.shape, operand.strides, strict=True)
            if operand.size < 2 or all(stride or n < 2 for n, stride in axes):
                return operand
        if dtype.itemsize == 2 and self.result_dtype != FLOATS[1] and choices.chance(0.3):
            dtype = FLOATS[0]  # a result computed in float64 would be rounded twice
        if dtype.name != "bfloat16" and choices.chance(0.1):
            dtype = dtype.newbyteorder()
        array, buffer = self.allocate(shape, dtype, zero_strides=False)
        self.outs.append((buffer, array, buffer.tobytes()))
        return array

    def run(self, method=None, arrays=None, options=None):
        """Calls the loss, by default with the method, the operands and the options of the call."""
        arrays = self.arrays if arrays is None else arrays
        options = self.options if options is None else options
        names = list(arrays)
        positional = [arrays[name] for name in names[: self.positional]]
        keywords = {name: arrays[name] for name in names[self.positional :]}
        with fl.num_threads(self.threads):
            return getattr(self.loss, method or self.method)(*positional, **keywords, **options)


# ---- Defects -------------------------------------------------------------------------------------


def pick_array(call):
    """(dictionary, name) of one of the arrays of a call."""
    weights = ("weight", "pos_weight", "sample_weight", "grad_output")
    arrays = [(call.arrays, name) for name in call.arrays]
    arrays += [(call.options, name) for name in weights if name in call.options]
    return call.choices.pick(arrays)


def wrong_shape(call):
    where, name = pick_array(call)
    value, choices = where[name], call.choices
    dtype = value.dtype if isinstance(value, np.ndarray) else np.dtype(float)
    shape = np.shape(value)
    shapes = [
        (*shape, 1),
        (1, *shape),
        shape[1:],
        shape[::-1],
        choices.shape(),
        (0,),
        (3, 0),
        (2**40, 0),
    ]
    where[name] = np.ones(choices.pick(shapes), dtype)


def wrong_type(call):
    where, name = pick_array(call)
    value = np.asarray(where[name])
    with np.errstate(all="ignore"):
        variants = [
            lambda: value.astype(complex),
            lambda: value.astype(object),
            lambda: value.astype(np.longdouble),
            lambda: value.astype(float).astype("U5"),
            lambda: value.astype(bool),
            lambda: value.astype(float),
            lambda: np.nan_to_num(value.astype(float)).astype(call.choices.pick(INTEGERS)),
            lambda: np.zeros(value.shape, "M8[s]"),
            lambda: np.zeros(value.shape, "f4,i8"),
            lambda: np.zeros(value.shape, "V3"),
            lambda: np.ma.masked_array(value, np.zeros(value.shape, bool)),
            lambda: value.tolist(),
            lambda: memoryview(np.ascontiguousarray(value).view(np.uint8)),
            lambda: np.asmatrix(value) if value.ndim == 2 else "array",
            lambda: None,
            lambda: {"a": 1},
            lambda: 2**70,
            lambda: object(),
            lambda: [[1.0], [1.0, 2.0]],
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            where[name] = call.choices.pick(variants)()


def wrong_option(call):
    names = [n for n in call.loss.__signature__.parameters if n not in call.arrays]
    call.options[call.choices.pick(names)] = call.choices.pick(BAD_NUMBERS)


def wrong_value(call):
    """Changes one entry of an array to a value that is often not allowed."""
    where, name = pick_array(call)
    value = where[name]
    if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "fiu":
        value = value.copy()
        info = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
        entries = [info.min, info.max, 1, 0] if info else [-1, 2, INF, -INF, -1e-300, 1e30, 0.5]
        with np.errstate(all="ignore"):
            entry = np.array(call.choices.pick(entries)).astype(value.dtype)
            value.flat[call.choices.pick(range(value.size))] = entry
        where[name] = value


def wrong_label(call):
    """Changes one label to a number that is not a class; this must raise."""
    for name, domain in call.domains.items():
        if domain not in (CLASS_INDEX, LABEL_ROWS):
            continue
        value = call.arrays[name]
        if not isinstance(value, np.ndarray) or value.size == 0 or call.classes == 0:
            continue
        call.options.pop("sample_weight", None)  # a weight of 0 would remove the label
        wrong = [10**9, INT64.max, INT64.min, call.classes, -2] + [-1] * (domain is CLASS_INDEX)
        label = call.choices.pick([v for v in wrong if v != call.options.get("ignore_index", -100)])
        value = value.astype(np.int64)
        value.flat[call.choices.pick(range(value.size))] = label
        call.arrays[name] = value
        call.must_raise = fl.ClassIndexError


def wrong_length(call):
    if not call.is_sequence:
        return wrong_label(call)
    name = call.choices.pick(call.loss.operands[1:])
    value = np.array(call.arrays[name])
    if value.size == 0:
        return None
    value = value.astype(call.choices.pick([np.int64, np.int64, float]))
    value.flat[call.choices.pick(range(value.size))] = call.choices.pick(
        [-1, INT64.min, INT64.max if value.dtype != float else 1e300, 10**9, call.classes, 34]
    )
    call.arrays[name] = value
    return None


def wrong_sample_weight(call):
    """Makes a sample weight negative; this must raise."""
    shape = call.shape
    weight = call.choices.rng.random(shape).astype(call.choices.pick(FLOATS))
    if weight.size:
        weight.flat[call.choices.pick(range(weight.size))] = -1
        call.must_raise = ValueError
    call.options["sample_weight"] = weight if shape or call.choices.chance(0.5) else float(weight)


def wrong_out(call):
    choices = call.choices
    shape, dtype = choices.pick([call.shape, choices.shape()]), choices.pick(FLOATS)
    array, _ = call.allocate(shape, dtype, zero_strides=choices.chance(0.5))
    operands = [v for v in call.arrays.values() if isinstance(v, np.ndarray)]
    locked = array.view()
    locked.flags.writeable = False
    outs = [array, locked, array.astype(int), (array,), (array, array), (None, None), [], 3.0]
    outs += [(array, (array, array)), *operands, *(v[..., ::-1] for v in operands if v.ndim)]
    outs += [tuple(operands), (operands[0] if operands else 1, tuple(operands))]
    outs.append(np.ma.masked_array(array))
    call.options["out"] = choices.pick(outs)


def wrong_keywords(call):
    choices = call.choices
    what = choices.pick(["missing", "unknown", "many", "reduction", "wrt", "output", "method"])
    if what == "missing":
        del call.arrays[choices.pick(list(call.arrays))]
    elif what == "unknown":
        call.options[
            choices.pick(["reduce", "size_average", "axis", "redution", "wrt", "weights"])
        ] = 1
    elif what == "many":
        call.arrays |= {f"more {k}": 1 for k in range(choices.pick([1, 2, 3]))}
    elif what == "reduction":
        call.options["reduction"] = choices.pick([None, "Mean", "batchmean", 0, "", b"mean", []])
    elif what == "wrt":
        call.options["wrt"] = choices.pick(["target", "weight", (), 1, ("input",) * 2, [None], "x"])
    elif what == "output":
        call.options["grad_output"] = choices.pick(
            ["a", np.ones(3), 1j, 10**400, [], np.array("a"), np.array(1j), [[1]]]
        )
    else:
        call.method = choices.pick(METHODS)


def takes_out(call):
    return call.method != "sums" and not (call.method == "__call__" and not call.unreduced)


def changing_array(call):
    """Makes the conversion of one array change the dtype, shape or strides of another."""
    choices = call.choices
    if takes_out(call) and choices.chance(0.5):
        call.draw_out()
    where, name = pick_array(call)
    values = [*call.arrays.values(), *call.options.values(), *(array for _, array, _ in call.outs)]
    arrays = [v for v in values if isinstance(v, np.ndarray) and v is not where[name]]
    if arrays:
        names = [name for name in CHANGES if name != "shrink"]  # it would free guarded memory
        change = partial(attempt, CHANGES[choices.pick(names)], choices.pick(arrays))
        where[name] = ArrayLike(np.asarray(where[name]), change)


def lying_out(call):
    """Wraps each new `out` in a subclass whose attributes are wrong."""
    if not takes_out(call):
        return wrong_out(call)
    call.draw_out()
    shape = call.choices.shape()
    lies = {"shape": shape, "strides": (0,) * len(shape), "dtype": np.dtype(np.int8), "size": 0}

    def lying(out):
        if isinstance(out, tuple):
            return tuple(map(lying, out))
        is_new = any(out is array for _, array, _ in call.outs)
        return liar(out, **lies) if is_new else out

    call.options["out"] = lying(call.options["out"])
    return None


DEFECTS = [
    changing_array,
    lying_out,
    wrong_shape,
    wrong_type,
    wrong_option,
    wrong_value,
    wrong_label,
    wrong_length,
    wrong_sample_weight,
    wrong_out,
    wrong_keywords,
]


# ---- Checks --------------------------------------------------------------------------------------


def make(seed, number, names):
    """Call `number` of a run, of one of these losses."""
    choices = SeededChoices(seed, number)
    call = Call(choices, choices.pick(CASES[choices.pick(names)]))
    if choices.chance(0.3):
        call.defect = choices.pick(DEFECTS)
        call.defect(call)
    elif choices.chance(0.3) and takes_out(call):
        call.draw_out()
    operands = sum(name in call.loss.operands for name in call.arrays)
    if choices.chance(0.8) or len(call.arrays) > operands:
        call.positional = operands
    else:
        call.positional = choices.pick(range(operands + 1))
    return call


def same(got, expected):
    """Whether results are bitwise identical, except that all NaN are equal."""
    if isinstance(expected, tuple):
        return len(got) == len(expected) and all(map(same, got, expected))
    got, expected = np.asarray(got), np.asarray(expected)
    with np.errstate(all="ignore"):
        if got.shape != expected.shape:
            return False
        got = got.astype(expected.dtype)  # from another byte order, or a float32 `out` of a half
        if got.tobytes() == expected.tobytes():
            return True
        equal = (got == expected) & (np.signbit(got) == np.signbit(expected))
        return bool((equal | ((got != got) & (expected != expected))).all())


def check(call, copies):
    """Runs a call and returns "returned" or the type of its error; raises a `Finding`."""
    try:
        result = call.run()
    except (ValueError, TypeError, MemoryError, OverflowError) as error:
        outcome, problem = type(error).__name__, error
    else:
        outcome, problem = "returned", None
    check_memory(call, problem)
    if isinstance(problem, OverflowError):
        check_overflow(call, copies, problem)
        return outcome
    if problem is not None:
        check_error(call, problem)
        return outcome
    if call.must_raise:
        raise Finding(f"{call.defect.__name__} raises nothing")
    if call.defect is None:
        check_result(call, result)
        try:
            check_other_methods(call, result, copies)
        except OverflowError as error:
            check_overflow(call, copies, error)
    return outcome


def check_overflow(call, copies, error):
    """Checks that a sum of losses or weights, or a factor of gradients, is no normal float64."""
    if call.must_raise:
        raise Finding(f"{call.must_raise.__name__} expected, not {error!r}") from error
    if call.defect is not None or "the sum of the weights" in str(error):
        return
    arrays, options = copies
    limits = np.finfo(np.float64)
    if "grad_output times" in str(error):
        given = {**arrays, **options}
        factors = (given.get(k) for k in ("grad_output", "sample_weight", "weight"))
        largest = (np.nanmax(np.abs(np.longdouble(v))) for v in factors if v is not None)
        if call.unreduced and math.prod(largest) < limits.max * (1 - 1e-10):
            raise Finding(f"{error!r}, but no product is") from error
        return
    only = {k: v for k, v in options.items() if k not in ("wrt", "grad_output")}
    losses = call.run("__call__", arrays, only | {"reduction": "none"})
    with np.errstate(all="ignore"):
        total = np.abs(np.asarray(losses, np.float64)).sum()
    if limits.smallest_normal <= total < limits.max * (1 - 1e-10):
        raise Finding(f"{error!r}, but the absolute losses sum to {total}") from error


def check_error(call, error):
    if call.must_raise and not isinstance(error, call.must_raise):
        raise Finding(f"{call.must_raise.__name__} expected, not {error!r}") from error
    if call.defect is None:
        first = next(iter(call.arrays.values()))
        if "a row without" in str(error) and np.shape(first) == (0,):
            return
        if "which rounds it to 0" in str(error):
            return
        raise Finding(f"a valid call raises {error!r}") from error
    words = [*call.loss.__signature__.parameters, "wrt", "grad_output", call.name]
    if not any(word in str(error) for word in words):
        raise Finding(f"the message names no argument: {error!r}") from error


def check_memory(call, problem):
    """Checks that only `out` has changed, and no byte around it."""
    results = [call.options.get("out")]
    for _ in range(2):
        results = [a for r in results for a in (r if isinstance(r, (tuple, list)) else [r])]
    for buffer, array, before in call.memory:
        is_written = problem is None or "the sum of the " in str(problem)
        is_out = is_written and any(result is array for result in results)
        if not is_out and buffer.tobytes() != before:
            raise Finding("an input has changed" + " before an error" * (problem is not None))
        if is_out:
            check_guard(buffer, array, before)
    for buffer, array, before in call.outs:
        check_guard(buffer, array, before)


def check_guard(buffer, array, before):
    """Checks that the buffer differs from its bytes `before` in the entries of the array only."""
    after = buffer.copy()
    buffer[...] = np.frombuffer(before, np.uint8)
    entries_before = array.copy()
    buffer[...] = after
    array[...] = entries_before
    intact = buffer.tobytes() == before
    buffer[...] = after
    if not intact:
        raise Finding("bytes around out are written")


def check_result(call, result):
    """Checks shapes, dtypes and types."""
    values, grads = call.expected()
    if call.method == "sums":
        if [type(r) for r in result] != [float, float, int]:
            raise Finding(f"sums gives {result!r}")
        return
    value, gradients = None, None
    if call.method == "__call__":
        value = result
    elif call.method == "grad":
        gradients = result
    else:
        value, gradients = result
    if call.method != "grad":
        if values is None and type(value) is not float:
            raise Finding(f"the value is a {type(value).__name__}")
        if values is not None:
            check_array(call, value, "values", *values)
    if gradients is not None:
        are_tuple = call.gradients[1]
        if isinstance(gradients, tuple) != are_tuple:
            raise Finding(f"gradients are a {type(gradients).__name__}")
        gradients = gradients if are_tuple else (gradients,)
        for gradient, (name, shape, dtype) in zip(gradients, grads, strict=True):
            check_array(call, gradient, name, shape, dtype)


def check_array(call, array, name, shape, dtype):
    if not isinstance(array, np.ndarray if shape or "out" in call.options else np.generic):
        raise Finding(f"{name}: a {type(array).__name__}")
    may_be_float32 = "out" in call.options and dtype.itemsize == 2
    native = array.dtype.newbyteorder("=")
    if array.shape != shape or not (native == dtype or (may_be_float32 and native == FLOATS[0])):
        raise Finding(f"{name}: {array.dtype}{array.shape} instead of {dtype}{shape}")


def check_other_methods(call, result, copies):
    """Checks that the other methods, contiguous arrays and one thread give the same bits."""
    arrays, options = copies
    call.threads = 1
    only = {k: v for k, v in options.items() if k not in ("wrt", "grad_output")}
    value = call.run("__call__", arrays, only)
    if call.method == "__call__":
        if not same(result, value):
            raise Finding(f"contiguous arrays give {value!r}, not {result!r}")
        return
    if call.method == "sums":
        if not same(result, call.run("sums", arrays, only)):
            raise Finding("contiguous arrays give other sums")
        total = call.options.get("reduction") == "sum"
        if not call.unreduced and not same(value, result[0] if total else ratio(*result[:2])):
            raise Finding(f"sums gives {result!r}, the loss {value!r}")
        return
    both = call.run("value_and_grad", arrays, options)
    if not same(both[0], value):
        raise Finding(f"value_and_grad has the value {both[0]!r}, the loss {value!r}")
    grads = result if call.method == "grad" else result[1]
    if not same(grads, both[1]):
        raise Finding(f"{call.method} gives {grads!r}, contiguous value_and_grad {both[1]!r}")
    if call.method == "value_and_grad":
        if not same(result[0], value):
            raise Finding(f"contiguous arrays give {value!r}, not {result[0]!r}")
        if not same(call.run("grad", arrays, options), both[1]):
            raise Finding("grad and value_and_grad differ")


def ratio(total, weight):
    """The mean from the results of `sums`."""
    if weight == 0:
        return math.nan
    with np.errstate(all="ignore"):
        return float(np.float64(total) / weight)


def contiguous(call):
    """Native contiguous copies of arrays and options, without `out`."""

    def copy(value):
        if not isinstance(value, np.ndarray) or call.defect is not None:
            return value
        return np.array(value, value.dtype.newbyteorder("="), order="C")

    arrays = {name: copy(value) for name, value in call.arrays.items()}
    return arrays, {name: copy(v) for name, v in call.options.items() if name != "out"}


# ---- The runs ------------------------------------------------------------------------------------


def summary(call):
    """The call in one line."""
    arguments = [f"{k}={described(v)}" for k, v in (call.arrays | call.options).items()]
    defect = f" [{call.defect.__name__}]" if call.defect else ""
    return f"{call.name}.{call.method}({', '.join(arguments)}) on {call.threads} threads{defect}"


def worker(chosen, names):
    """Runs calls [chosen.first, chosen.last); writes the number of each to a file before it."""
    warnings.simplefilter("error")
    faulthandler.enable()
    isas = fl._binding.isas()
    counts, findings = Counter(), 0
    with open(chosen.progress, "r+b", buffering=0) as progress:
        for number in range(chosen.first, chosen.last):
            progress.seek(0)
            progress.write(number.to_bytes(8, "little"))
            signal.alarm(SECONDS) if number % 256 == 0 else None
            call = None
            try:
                call = make(chosen.seed, number, names)
                fl._binding.select_isa(call.choices.pick(isas))
                copies = contiguous(call)
                before = summary(call) if chosen.only is not None else None
                if before:
                    print(before, flush=True)
                outcome = check(call, copies)
            except Exception as error:
                findings += 1
                if call is None:
                    raise
                what = str(error) if type(error) is Finding else f"raises {error!r}"
                report(chosen, number, f"{what}\n    {summary(call)}")
                outcome = "finding"
                if chosen.only is not None and type(error) is not Finding:
                    raise
            counts[call.name, outcome] += 1
            if chosen.only is not None:
                print(outcome)
            elif number % 200 == 0:  # so that the counts survive a crash
                print_counts(counts)
    print_counts(counts)
    return findings


def print_counts(counts):
    for (name, outcome), count in counts.items():
        print(f"count {name} {outcome} {count}")
    sys.stdout.flush()
    counts.clear()


def report(chosen, number, what):
    command = f"python -m tests.fuzz --seed {chosen.seed} --only {number}"
    losses = "".join(f" --loss {name}" for name in chosen.loss or [])
    print(f"FINDING {command}{losses}: {what}", flush=True)


def supervise(chosen):
    """Runs the calls in worker processes; a worker that dies is a finding."""
    counts, findings, first, last = Counter(), 0, 0, chosen.calls
    begin = time.perf_counter()
    with tempfile.NamedTemporaryFile() as progress:
        while first < last:
            until = min(first + 20_000, last)
            progress.seek(0)
            progress.write(NOT_STARTED.to_bytes(8, "little"))
            progress.flush()
            command = [sys.executable, "-m", "tests.fuzz", "--worker", "--seed", str(chosen.seed)]
            command += ["--first", str(first), "--last", str(until), "--progress", progress.name]
            command += [f"--loss={name}" for name in chosen.loss or []]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            for line in process.stdout.splitlines():
                if line.startswith("count "):
                    _, name, outcome, count = line.split()
                    counts[name, outcome] += int(count)
                else:
                    findings += line.startswith("FINDING")
                    print(line)
            if process.returncode == 0:
                first = until
                continue
            progress.seek(0)
            died = int.from_bytes(progress.read(8), "little")
            if died == NOT_STARTED:
                raise RuntimeError(f"{' '.join(command)} does not start")
            report(chosen, died, f"the process ended with status {process.returncode}")
            findings += 1
            first = died + 1
    print_table(counts)
    total = sum(counts.values())
    print(
        f"{total} calls, {findings} findings, {total / (time.perf_counter() - begin):.0f} calls/s"
    )
    return findings


def print_table(counts):
    outcomes = ["returned", "ValueError", "TypeError", "ClassIndexError", "MemoryError"]
    outcomes.append("OverflowError")
    print(f"{'loss':<34} {'calls':>8} " + " ".join(f"{o:>15}" for o in outcomes))
    for name in [*dict.fromkeys(name for name, _ in sorted(counts)), "all"]:
        rows = {o: sum(counts[n, o] for n in CASES if name in (n, "all")) for o in outcomes}
        total = sum(count for (n, _), count in counts.items() if name in (n, "all"))
        print(f"{name:<34} {total:>8} " + " ".join(f"{rows[o]:>15}" for o in outcomes))


def main(arguments=None):
    """The number of findings."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="repeat call number N alone")
    parser.add_argument("--loss", action="append", choices=CASES, help="only this loss")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--progress", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    names = chosen.loss or list(CASES)
    if chosen.only is not None:
        chosen.first, chosen.last = chosen.only, chosen.only + 1
        with tempfile.NamedTemporaryFile() as progress:
            chosen.progress = progress.name
            return worker(chosen, names)
    if chosen.worker:
        worker(chosen, names)
        return 0
    return supervise(chosen)


if __name__ == "__main__":
    sys.exit(main() > 0)
