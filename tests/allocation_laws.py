"""Laws of memory, in a process whose allocator is tests/preload/allocations.c, which it starts.

    python -m tests.allocation_laws {native,interpreter,leaks,freed} [--complete]

Each law is a function of this name below. Prints the number of calls and the violations, and exits
with status 1 if there are any.
"""

import argparse
import ctypes
import gc
import itertools
import signal
import sys
import threading
import traceback
import zlib

import numpy as np

import fastloss as fl
from tests.cases import CASES
from tests.drawn_case import DrawnCase
from tests.preloaded import run_module

ERRORS = (ValueError, TypeError, IndexError, OverflowError, RuntimeError)
ALWAYS = 2**40  # allocations

native_library = ctypes.CDLL(None)


class Allocator:
    """The allocator of this process. Failures end by themselves, or by `stop`."""

    def __init__(self):
        self._fail = native_library.allocations_fail
        self._fail.argtypes = (ctypes.c_long, ctypes.c_long)
        self._stop = native_library.allocations_stop
        self._live = native_library.allocations_live
        self._seen = native_library.allocations_seen
        for function in (self._stop, self._live, self._seen):
            function.restype = ctypes.c_long

    def watch(self, *modules):
        native_library.allocations_unwatch()
        for name in modules:
            native_library.allocations_watch(name.encode())

    def overwrite(self, enabled):
        native_library.allocations_overwrite(int(enabled))

    def fail(self, first, count):
        self._fail(first, count)

    def stop(self):
        while True:
            try:
                return self._stop()
            except MemoryError:  # its own
                pass

    def live(self):
        gc.collect()
        sys._clear_type_cache()  # which holds new names of attributes, such as NumPy makes
        return self._live()


class DataHandler(ctypes.Structure):
    """PyDataMem_Handler of NumPy's C API."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("functions", ctypes.c_void_p * 4),
    )


def use_uncached_array_memory():
    """NumPy keeps small freed arrays for the next ones; now each is freed at once."""
    functions = (
        ctypes.cast(getattr(native_library, name), ctypes.c_void_p)
        for name in ("data_malloc", "data_calloc", "data_realloc", "data_free")
    )
    handler = DataHandler(
        b"uncached", 1, None, (ctypes.c_void_p * 4)(*(f.value for f in functions))
    )
    api = ctypes.pythonapi
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    table = api.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
    set_handler = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[304]
    capsule = api.PyCapsule_New(ctypes.addressof(handler), b"mem_handler", None)
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)
    prototype(set_handler)(capsule)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handler))  # arrays use it to the very end


IS_PRELOADED = hasattr(native_library, "allocations_fail")
allocator = Allocator() if IS_PRELOADED else None

FIRST_CASES = list({case.loss: case for case in reversed(CASES)}.values())  # of each loss


# ---- calls ---------------------------------------------------------------------------------------


def bytes_of(result):
    if isinstance(result, (tuple, list)):
        return b"".join(map(bytes_of, result))
    return np.asarray(result).tobytes()


def arrays_in(values):
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from arrays_in(value)
        elif isinstance(value, np.ndarray):
            yield value


class Call:
    """A method of a loss with arguments, as a function without arguments."""

    def __init__(self, name, method, arrays, options):
        self.name, self.method, self.arrays, self.options = name, method, arrays, options
        self.units, self.spoils = (), False
        self.inputs = [*arrays_in(arrays), *arrays_in(v for k, v in options.items() if k != "out")]

    def __call__(self):
        return self.method(*self.arrays, **self.options)

    def bytes_of(self, result):
        return bytes_of(result)

    def prepare(self):
        pass

    def state(self):
        """A checksum of everything that a failing call must leave unchanged."""
        checksum = 0
        for array in self.inputs:
            checksum = zlib.crc32(array.tobytes(), checksum)
        return str(checksum)


class Update(Call):
    """An update of an accumulator that holds a batch."""

    def __init__(self, name, make, arrays, options):
        super().__init__(name, None, arrays, options)
        self.make = make
        self.prepare()

    def prepare(self):
        self.accumulator = self.make()
        self.accumulator.update(*self.arrays, **self.options)

    def __call__(self):
        self.accumulator.update(*self.arrays, **self.options)
        return self.accumulator

    def bytes_of(self, result):
        return result.to_json().encode()

    def state(self):
        return super().state() + self.accumulator.to_json()


def strided(array):
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        return array
    buffer = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    buffer[..., ::2] = array
    return buffer[..., ::2]


def swapped(array):
    return array.astype(array.dtype.newbyteorder()) if isinstance(array, np.ndarray) else array


def half(array):
    floating = isinstance(array, np.ndarray) and array.dtype.kind == "f"
    return array.astype(np.float16) if floating else array


def listed(array):
    return array.tolist() if isinstance(array, np.ndarray) else array


def plain(array):
    return array


LAYOUTS = {"": plain, "strided": strided, "swapped": swapped, "half": half, "list": listed}


def methods_of(drawn, arrays, options, weight, layout):
    """The products of one case: each as (name, method, options)."""
    loss, wrt = drawn.loss, drawn.wrt
    losses = np.zeros(drawn.shape)
    yield "values", loss, {"reduction": "none"}
    yield "mean", loss, {"sample_weight": weight}
    yield "grad", loss.grad, {"reduction": "sum", "wrt": wrt}
    grad_output = layout(np.ones_like(losses, np.float64))
    yield (
        "values and grad",
        loss.value_and_grad,
        {"reduction": "none", "wrt": wrt, "grad_output": grad_output, "sample_weight": weight},
    )
    yield "weighted grad", loss.grad, {"sample_weight": weight, "wrt": wrt, "grad_output": 2}
    yield "sums", loss.sums, {"sample_weight": weight}


CRITERIA = {
    cls.loss.__name__: cls
    for name, cls in vars(fl.criteria).items()
    if isinstance(cls, type) and name.endswith("Loss") and hasattr(cls, "loss")
}


def calls_of(case, shape, dtype, classes=7, layouts=LAYOUTS, updates=True):
    drawn = DrawnCase(case, shape, dtype, classes=classes)
    drawn.loss = getattr(fl, case.loss)
    for layout_name, layout in layouts.items():
        arrays = [layout(a) for a in drawn.arrays]
        options = {k: layout(v) for k, v in drawn.keywords.items()}
        weight = layout(drawn.rng.uniform(0.5, 2, drawn.shape).astype(dtype))
        title = f"{case.id} {shape} x {classes} {np.dtype(dtype)} {layout_name}"
        for name, method, more in methods_of(drawn, arrays, options, weight, layout):
            call = Call(f"{title} {name}", method, arrays, {**options, **more})
            try:
                call()
            except ERRORS:  # scores as lists of integers, half precision out of range, and so on
                continue
            call.units = drawn.shape
            call.spoils = layout is plain and name in ("values", "values and grad")
            yield call
        if not updates or layout is listed or case.loss not in CRITERIA:
            continue
        for by in (None, "group", "class"):
            more = {"sample_weight": weight}
            if by == "group":
                more["group"] = np.arange(drawn.shape[0]) % 3

            def make(by=by, options=options):
                return CRITERIA[case.loss](**options).accumulator(by=by)

            try:
                yield Update(f"{title} update by {by}", make, arrays, more)
            except ERRORS:
                continue


def small_calls(complete, layouts=LAYOUTS):
    for case in CASES if complete else FIRST_CASES:
        yield from calls_of(case, (5,), np.float64, layouts=layouts)
        yield from calls_of(case, (4,), np.float32, layouts={"": plain}, updates=False)


def large_calls(complete):
    """Calls with many partials, on several threads, and of rows that are long."""
    layouts = LAYOUTS if complete else {"": plain}
    layouts = {k: v for k, v in layouts.items() if v is not listed}
    for case in CASES if complete else FIRST_CASES:
        shapes = {
            "element": [((150_000,), 7)],
            "row": [((1,), 40_000), ((3,), 1500)] + [((30_000,), 5)] * complete,
            "sequence": [((90,), 7)] + [((2,), 1100)] * complete,
        }
        for shape, classes in shapes[case.unit]:
            yield from calls_of(case, shape, np.float32, classes, layouts, updates=complete)
    numbers = np.arange(140_000)
    half = np.where(numbers < 70_000, numbers, -1)  # sorted in more memory than the pool keeps
    loss, arrays = fl.multilabel_margin_loss, (np.sin(numbers), half)
    yield Call("many labels, values", loss, arrays, {})
    yield Call("many labels, both", loss.value_and_grad, arrays, {})


def ctc_calls(complete):
    """Sequences whose scratch exceeds what the pool keeps, with checkpoints and recomputed rows."""
    rng = np.random.default_rng(0)
    shapes = ((900, 1, 200), (200, 3, 50)) + ((3000, 1, 900), (50, 40, 8)) * complete
    for frames, samples, labels in shapes:
        logits = rng.normal(size=(frames, samples, 30)).astype(np.float32)
        x = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        targets = rng.integers(1, 30, (samples, labels))
        lengths = np.full(samples, frames), np.full(samples, labels)
        title = f"ctc {frames} frames"
        for loss, scores in ((fl.ctc_loss, x), (fl.ctc_loss_with_logits, logits)):
            arrays = (scores, targets, *lengths)
            yield Call(f"{title} values", loss, arrays, {"reduction": "none"})
            yield Call(f"{title} grad", loss.grad, arrays, {})
            yield Call(f"{title} both", loss.value_and_grad, arrays, {"reduction": "sum"})


# ---- allocations that fail -----------------------------------------------------------------------


class Findings:
    def __init__(self):
        self.calls, self.found = 0, []

    def add(self, *words):
        self.found.append(" ".join(map(str, words)))

    def report(self):
        print(*self.found[:40], sep="\n")
        print(f"{self.calls} calls, {len(self.found)} findings")
        return 1 if self.found else 0


def is_from_numpy(error):
    """Where NumPy has no memory for an iterator, it fails without setting an exception."""
    filename = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, SystemError) and not filename.endswith(".pyx")


def fail_each(call, counts, findings, expected):
    """Fails the allocations of a call from the first, second, ... on."""
    call.prepare()
    before = call.state()
    for count in counts:
        for n in itertools.count():
            call.prepare()
            error = result = None
            allocator.fail(n, count)
            try:
                result = call()
            except MemoryError:
                result = None
            except BaseException as other:
                error = None if is_from_numpy(other) else other
            failed = allocator.stop()
            findings.calls += 1
            where = f"{call.name}: allocation {n}, {count} of them:"
            if error is not None:
                at = traceback.extract_tb(error.__traceback__)[-1]
                findings.add(where, repr(error), f"at {at.filename}:{at.lineno} {at.line}")
            elif result is None:
                if not failed:
                    findings.add(where, "MemoryError without cause")
                elif call.state() != before:
                    findings.add(where, "MemoryError and a changed argument")
            elif call.bytes_of(result) != expected:
                findings.add(where, "wrong result")
            result = error = None
            if not failed:
                break
            call.prepare()
            if call.bytes_of(call()) != expected:
                findings.add(where, "the next call is wrong")


def check_failures(calls, counts, rounds, findings):
    """Allocations that fail, and whether this leaks: of `rounds`, the first fills caches.

    A thread that gets its first share of the work late fills its own later, so growth is a leak
    only if it continues in further rounds.
    """
    for call in calls:
        call.prepare()
        expected = call.bytes_of(call())
        for more in (rounds - 1, 2 * rounds) if rounds > 1 else (0,):
            fail_each(call, counts, findings, expected)
            before = allocator.live()
            for _ in range(more):
                fail_each(call, counts, findings, expected)
            leaked = allocator.live() - before
            if leaked < more or more == 0:
                break
        else:
            findings.add(f"{call.name}: {leaked} blocks leaked in {more} rounds")


def native(complete):
    """An allocation of the kernels, the driver or the threads that fails, for every one."""
    findings = Findings()
    allocator.watch("fastloss/_binding")
    counts = (1, 2, ALWAYS) if complete else (1, ALWAYS)
    for threads in (1, 2, 5) if complete else (2,):
        fl.set_num_threads(threads, fixed=True)
        for calls in (
            small_calls(complete) if complete else (),
            large_calls(complete),
            ctc_calls(complete),
        ):
            check_failures(calls, counts, 6 if complete else 2, findings)
    return findings


def interpreter(complete):
    """The same for the allocations of the interpreter and of NumPy."""
    findings = Findings()
    fl.set_num_threads(2, fixed=True)
    counts, rounds = ((1, 3, 200), 4) if complete else ((1,), 1)
    layouts = LAYOUTS if complete else {"": plain, "list": listed}
    allocator.watch("fastloss/_binding", "libpython", "/python3", "numpy")
    check_failures(small_calls(complete, layouts), counts, rounds, findings)
    return findings


# ---- leaks ---------------------------------------------------------------------------------------


def spoilt_calls(call):
    """The same call with one argument that is wrong, in each of many ways."""

    def spoilt(how, arrays=None, **options):
        options = {**call.options, **options}
        return Call(f"{call.name}, {how}", call.method, arrays or call.arrays, options)

    for k, array in enumerate(call.arrays):
        if not isinstance(array, np.ndarray):
            continue
        changes = {
            "complex": array.astype(complex),
            "objects": array.astype(object),
            "masked": np.ma.array(array, mask=np.ones(array.shape, bool)),
            "another shape": np.concatenate([array, array[:1]]) if array.ndim else array[None],
            "one axis more": array[..., None],
            "the last value": array.copy(),
            "every value": np.full_like(array, 101 if array.dtype.kind in "iu" else -7),
            "a list that is ragged": [1, [2]],
        }
        if array.size:
            changes["the last value"].flat[-1] = 101 if array.dtype.kind in "iu" else -7
        for how, wrong in changes.items():
            yield spoilt(f"{how} of {k}", [*call.arrays[:k], wrong, *call.arrays[k + 1 :]])
    units = np.full(call.units, 1.0)
    negative = units.copy()
    if negative.size:
        negative.flat[-1] = -1
    yield spoilt("negative weight", sample_weight=negative)
    yield spoilt("wrong weight", sample_weight=np.ones((2, 3, 4)))
    yield spoilt("weight of objects", sample_weight=units.astype(object))
    yield spoilt("weight of wrong type", sample_weight="x")
    yield spoilt("reduction", reduction="all")
    yield spoilt("keyword", no_such_option=1)
    yield spoilt("missing", list(call.arrays)[:-1])
    yield spoilt("twice", input=units)
    if "wrt" in call.options:
        yield spoilt("wrt", wrt=("input", "no_such_name"))
        yield spoilt("grad_output", grad_output=np.ones((3, 1, 4)))
        read_only = [np.zeros_like(a) for a in call.arrays if isinstance(a, np.ndarray)]
        for array in read_only:
            array.flags.writeable = False
        yield spoilt("read-only out", out=tuple(read_only))
        yield spoilt("out that overlaps", out=tuple(a[::-1] for a in call.arrays if np.ndim(a)))
        yield spoilt("out of wrong dtype", out=tuple(np.zeros(a.shape, int) for a in read_only))


def attempt(call):
    try:
        call()
    except ERRORS:
        return False
    return True


def references(calls):
    shared = (None, True, False, np.dtype(float), np.dtype(np.float32), "mean", "none")
    counted = [*itertools.chain.from_iterable((*c.inputs, c.method) for c in calls), *shared]
    return np.array([sys.getrefcount(each) for each in counted])


def leak(calls, repeats):
    """A description of what many repetitions of the calls leave, or None."""
    for call in calls * 3:
        attempt(call)
    blocks, counts = allocator.live(), references(calls)
    for _ in range(repeats):
        for call in calls:
            attempt(call)
    leaked, counts = allocator.live() - blocks, references(calls) - counts
    if leaked < repeats and abs(counts).max() < repeats:
        return None
    return f"{leaked} blocks, {counts.max()} and {counts.min()} references in {repeats} calls"


def check_leaks(calls, repeats, findings):
    """Blocks and references after many calls, which succeed or fail."""
    calls = iter(calls)
    while group := list(itertools.islice(calls, 100)):
        findings.calls += repeats * len(group)
        if leak(group, repeats):
            # Free lists of the interpreter hold some hundred blocks.
            for call in group:
                if leak([call], repeats) and (description := leak([call], max(50 * repeats, 600))):
                    findings.add(call.name, description)


class Stopped(Exception):
    pass


def interrupted_calls():
    """Calls that would take long, from which a signal handler raises."""

    def view(value, *shape):
        return np.broadcast_to(value, shape)

    zero, one = np.float16(0), np.int8(1)
    yield "values", fl.mse_loss, (view(zero, 2**40), 1.0), {}
    yield "weighted", fl.mse_loss, (view(zero, 2**40), 1.0), {"sample_weight": view(one, 2**40)}
    yield "rows", fl.cross_entropy, (view(zero, 2**36, 10), view(one, 2**36)), {}
    yield "one row", fl.cross_entropy, (view(zero, 1, 2**32), view(one, 1)), {}
    yield "labels", fl.multilabel_margin_loss, (view(zero, 2**20, 1500), view(one, 2**20, 1500)), {}
    yield "sums", fl.kl_div.sums, (view(zero, 2**40), view(one, 2**40)), {}
    shared = {"wrt": "target"}
    yield "gradient", fl.mse_loss.grad, (view(zero, 2**40), 1.0), shared


def check_interrupts(repeats, findings):
    def stop(*_):
        raise Stopped

    signal.signal(signal.SIGALRM, stop)
    for name, method, arrays, options in interrupted_calls():
        call = Call(name, method, arrays, options)
        call.inputs = [a for a in arrays if isinstance(a, np.ndarray)]

        def interrupt(call=call):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            try:
                call()
            except Stopped:
                return
            findings.add(f"{call.name} ran to its end")

        interrupt()
        interrupt()
        blocks, counts = allocator.live(), references([call])
        for _ in range(repeats):
            interrupt()
        findings.calls += repeats
        leaked, counts = allocator.live() - blocks, references([call]) - counts
        if leaked >= repeats or counts.max() >= repeats:
            findings.add(f"interrupted {name}: {leaked} blocks, {counts.max()} references")


def thread_calls():
    """Threads that end, and with each its team."""
    x = np.ones(100_000)

    def in_a_thread(threads):
        def run():
            with fl.num_threads(threads, fixed=True):
                fl.mse_loss(x, 0.0)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    for threads in (1, 2, 4):
        yield Call(f"a thread with a team of {threads}", in_a_thread, [threads], {})


def leaks(complete):
    """Blocks and references that remain after many good, bad and interrupted calls."""
    findings = Findings()
    repeats = 500 if complete else 8
    for threads in (1, 3) if complete else (1,):
        fl.set_num_threads(threads, fixed=True)
        calls = list(small_calls(complete))
        check_leaks(calls, repeats, findings)
        spoil = (c for c in calls if c.spoils or (complete and type(c) is Call))
        spoilt = (bad for call in spoil for bad in spoilt_calls(call))
        check_leaks(spoilt, repeats, findings)
        fl.set_num_threads(threads + 1, fixed=True)
        large = itertools.chain(large_calls(complete), ctc_calls(complete), thread_calls())
        check_leaks(large, 4, findings)
    check_interrupts(100 if complete else 3, findings)
    return findings


# ---- memory that is used after it is freed -------------------------------------------------------


def converted_calls():
    """Calls whose arguments are converted, and the same with arrays of the compute type: triples of
    a name and two functions."""
    for case in CASES:
        drawn = DrawnCase(case, (5,), np.float64)
        drawn.loss = getattr(fl, case.loss)
        weights = {
            "sample_weight": drawn.rng.uniform(0.5, 2, drawn.shape),
            "grad_output": drawn.rng.uniform(0.5, 2, drawn.shape),
        }

        def both(arrays, keywords, drawn=drawn):
            return drawn.with_arrays(arrays, **keywords).both

        expected = both(drawn.arrays, weights)
        for convert in (listed, ArrayLike, narrow, strided, swapped):
            keywords = {k: convert(v) for k, v in {**drawn.keywords, **weights}.items()}
            arrays = [convert(a) for a in drawn.arrays]
            yield f"{case.id} {convert.__name__}", expected, both(arrays, keywords)
        keywords = {**weights, "grad_output": 1.5}
        full = {**weights, "grad_output": np.full(drawn.shape, 1.5)}
        yield f"{case.id} number", both(drawn.arrays, full), both(drawn.arrays, keywords)
        if "weight" in drawn.keywords and not case.weighs_classes:
            full = np.full(drawn.keywords["weight"].shape, 1.5)
            for number in (1.5, np.float32(1.5), ArrayLike(np.array(1.5))):
                name = f"{case.id} weight {number!r}"
                expected = both(drawn.arrays, {"weight": full})
                yield name, expected, both(drawn.arrays, {"weight": number})


def narrow(array):
    """Integers of 8 bits, or the same array."""
    is_integer = isinstance(array, np.ndarray) and array.dtype.kind == "i"
    return array.astype(np.int8) if is_integer else array


class ArrayLike:
    """An array-like that makes a new array each time."""

    def __new__(cls, array):
        if not isinstance(array, np.ndarray):
            return array
        self = super().__new__(cls)
        self.array = array
        return self

    def __array__(self, dtype=None, copy=None):
        return self.array.copy()


def freed(complete):
    """Results are the same if memory is overwritten when it is allocated and when it is freed."""
    findings = Findings()
    use_uncached_array_memory()
    fl.set_num_threads(2, fixed=True)
    for name, plain_call, converted in converted_calls():
        expected = bytes_of(plain_call())
        try:
            converted()
        except ERRORS:  # a list of integers is no array of scores
            continue
        findings.calls += 1
        allocator.overwrite(True)
        result = bytes_of(converted())
        allocator.overwrite(False)
        if result != expected:
            findings.add(name, "has another result")
    for call in itertools.chain(small_calls(complete), large_calls(complete), ctc_calls(complete)):
        call.prepare()
        expected = call.bytes_of(call())
        call.prepare()
        findings.calls += 1
        allocator.overwrite(True)
        result = call.bytes_of(call())
        allocator.overwrite(False)
        if result != expected:
            findings.add(call.name, "has another result")
    return findings


LAWS = {law.__name__: law for law in (native, interpreter, leaks, freed)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("law", choices=LAWS)
    parser.add_argument("--complete", action="store_true")
    args = parser.parse_args()
    if not IS_PRELOADED:
        print(run_module("tests.allocation_laws", *sys.argv[1:], preload="allocations"), end="")
        return 0
    np.seterr(all="ignore")
    gc.collect()
    gc.freeze()  # so that later collections are short
    return LAWS[args.law](args.complete).report()


if __name__ == "__main__":
    sys.exit(main())
