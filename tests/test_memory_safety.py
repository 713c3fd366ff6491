"""No call accesses memory outside its arrays: sizes beyond 2^64, arrays that change while the call
reads its arguments, and subclasses whose attributes are wrong."""

import signal
import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest

import fastloss as fl
from fastloss import _arrays
from tests.cases import CASES, LOSSES
from tests.drawn_case import DrawnCase
from tests.hostile import CHANGES, ArrayLike, attempt, liar

# ---- sizes ---------------------------------------------------------------------------------------

# The scratch of multilabel_margin_loss is 40 bytes per class; these sizes wrap around 2^64.
WRAPPING_CLASSES = [n * 2**64 // 40 + more for n in range(1, 10) for more in (0, 1, 8)]

IN_A_PROCESS = """
import sys
import numpy as np
import fastloss as fl
fl.set_num_threads(1)
for classes in map(int, sys.argv[1:]):
    x = np.broadcast_to(np.float16(0), (1, classes))
    y = np.broadcast_to(np.int8(-1), (1, classes))
    for call in (fl.multilabel_margin_loss, fl.multilabel_margin_loss.sums):
        try:
            call(x, y)
        except MemoryError as error:
            assert "multilabel_margin_loss" in str(error)
        else:
            raise SystemExit(f"{classes} classes")
"""


def test_scratch_larger_than_memory_is_a_memory_error():
    classes = [str(c) for c in [2**61, 2**61 + 1, 2**62 - 1, *WRAPPING_CLASSES] if c < 2**62]
    subprocess.run([sys.executable, "-c", IN_A_PROCESS, *classes], check=True, timeout=60)


@pytest.mark.parametrize("samples", [5, 6, 7])
def test_target_lengths_whose_sum_exceeds_64_bits_are_refused(samples):
    length = -(-(2**64 + 2**60) // samples)
    total = samples * length - 2**64  # as 64 bits hold it
    log_probabilities = np.broadcast_to(np.float32(np.log(0.5)), (3, samples, 2))
    targets = np.broadcast_to(np.int8(1), max(total, length))
    with pytest.raises(ValueError, match=r"^targets has shape"):
        fl.ctc_loss(log_probabilities, targets, 3, np.full(samples, length))


@pytest.mark.parametrize("frames", [2**59, 2**60 - 1, 2**61 - 1])
def test_sequences_larger_than_memory_are_a_memory_error(frames):
    log_probabilities = np.broadcast_to(np.float16(-0.7), (frames, 1, 2))
    targets = np.broadcast_to(np.int8(1), (1, frames))
    with pytest.raises(MemoryError, match=r"^ctc_loss"):
        fl.ctc_loss(log_probabilities, targets, frames, frames)


class Stopped(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this platform")
@pytest.mark.parametrize(
    "shape",
    [(2**63 - 1,), (1, 2**63 - 1), (2**63 - 1, 1), (2**63 - 8000,), (2**31, 2**32 - 2), (9, 2**59)],
)
def test_every_block_of_a_huge_array_is_computed(shape):
    """It would take a century: the call is running when it is interrupted, and returns nothing."""

    def stop(*_):
        raise Stopped

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(Stopped):
            fl.mse_loss(np.broadcast_to(np.int8(1), shape), 0.0, reduction="sum")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_blocks_of_a_shape_with_more_entries_than_64_bits_count():
    for shape in ((3, 2**40, 2**40), (2**40, 2**24), (0, 2**32, 2**31)):
        with pytest.raises(ValueError, match=r"more than 2\*\*63 - 1 entries"):
            fl.mse_loss._rows_per_block(shape)


# ---- arrays that change while arguments are read -------------------------------------------------


def outcome(call):
    """The result of a call, or its error."""
    try:
        with np.errstate(all="ignore"):
            return call()
    except (ValueError, TypeError, IndexError, MemoryError, RuntimeError) as error:
        return type(error)


def same(a, b):
    if isinstance(a, tuple) and isinstance(b, tuple):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, type) or isinstance(b, type):
        return a is b
    return np.array_equal(a, b, equal_nan=True) and np.shape(a) == np.shape(b)


def case_of(loss):
    return next(case for case in CASES if case.loss == loss)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("loss", LOSSES)
def test_an_array_that_changes_is_read_as_it_is_after_the_last_conversion(loss, change):
    """The result is that of a call with the changed array, for every pair of arguments."""
    call = getattr(fl, loss)
    for method in (call, call.grad, call.sums):
        for changed, lazy in [
            (k, name)
            for k in range(len(call.operands))
            for name in (*range(len(call.operands)), "sample_weight", "grad_output", "out")
        ]:
            if changed == lazy or (lazy in ("grad_output", "out") and method is not call.grad):
                continue
            results = []
            for early in (True, False):
                drawn = DrawnCase(case_of(loss), (64, 2), np.float64)
                arrays = [np.array(a) for a in drawn.arrays]
                keywords = dict(drawn.keywords)
                victim = arrays[changed]

                apply = partial(attempt, CHANGES[change], victim)
                if early:
                    apply()
                callback = (lambda: None) if early else apply
                if lazy == "sample_weight":
                    shape = drawn.value().shape
                    keywords[lazy] = ArrayLike(np.ones(shape), callback)
                elif lazy == "grad_output":
                    keywords[lazy] = ArrayLike(np.array(1.0), callback)
                elif lazy == "out":
                    wrt = drawn.wrt[:1]
                    out = np.zeros(drawn.arrays[call.operands.index(wrt[0])].shape)
                    keywords |= {"wrt": wrt, "out": Outs((out,), callback)}
                else:
                    arrays[lazy] = ArrayLike(arrays[lazy], callback)
                results.append(outcome(lambda: method(*arrays, **keywords)))  # noqa: B023
            assert same(*results), (method, changed, lazy, results)


class Outs(tuple):
    """A tuple of outs that runs code when it is read."""

    def __new__(cls, outs, change):
        self = super().__new__(cls, outs)
        self.change = change
        return self

    def __iter__(self):
        self.change()
        return super().__iter__()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_an_out_that_changes_is_checked_as_it_is_after_the_last_conversion(change):
    x, out = np.arange(64.0).reshape(32, 2), np.zeros((32, 2))
    memory = out.view()
    lazy = ArrayLike(np.array(1.0), partial(attempt, CHANGES[change], out))
    result = outcome(lambda: fl.mse_loss.grad(x, 0.0, grad_output=lazy, out=out))
    if change == "swapped":
        assert np.array_equal(result, fl.mse_loss.grad(x, 0.0))
    else:
        assert result in (ValueError, TypeError)
        assert change == "shrink" or not memory.any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("changed", ["input", "target", "sample_weight", "grad_output", "out"])
def test_an_array_that_changes_after_the_conversions_is_refused(monkeypatch, changed, change):
    """As by a signal handler, a finaliser or another thread, wherever Python code runs."""
    names = ("input", "target", "sample_weight", "grad_output")
    arrays = {name: np.ones((8, 4)) for name in names}
    arrays["out"] = np.ones((8, 8))[:, ::2]  # a view whose overlap is checked in Python
    check, refused = _arrays.overlaps_itself, []

    def overlaps_itself(array):
        try:
            CHANGES[change](arrays[changed])
        except (ValueError, TypeError, AttributeError) as error:
            refused.append(error)  # by NumPy
        return check(array)

    monkeypatch.setattr(_arrays, "overlaps_itself", overlaps_itself)
    result = outcome(lambda: fl.mse_loss.grad(**arrays, reduction="none"))
    errors = (RuntimeError, ValueError, TypeError) if changed == "out" else (RuntimeError,)
    assert refused or result in errors


# ---- subclasses ----------------------------------------------------------------------------------


def test_an_out_cannot_lie_about_its_shape():
    x, var = np.ones((4, 6, 5)), np.ones((4, 1, 5))
    for shape in ((4, 6, 5), (4, 5, 6)):
        out = np.zeros((2, 3))
        with pytest.raises(ValueError, match=r"out for the values has shape \(2, 3\)"):
            fl.gaussian_nll_loss(x, x, var, reduction="none", out=liar(out, shape=shape))
        with pytest.raises(ValueError, match=r"out for the gradient of var has shape \(2, 3\)"):
            fl.gaussian_nll_loss.grad(x, x, var, wrt="var", out=liar(out, shape=shape))
        assert not out.any()


def test_an_out_cannot_lie_about_entries_that_overlap():
    memory = np.zeros(4)
    overlapping = np.lib.stride_tricks.as_strided(memory, (3, 2), (8, 8))
    lies = {"strides": (16, 8), "size": 0, "itemsize": 1, "shape": (3, 2)}
    with pytest.raises(ValueError, match="entries that overlap each other"):
        fl.mse_loss(np.ones((3, 2)), 0.0, reduction="none", out=liar(overlapping, **lies))
    assert not memory.any()


def test_an_out_cannot_lie_about_memory_that_it_shares():
    memory = np.ones((6, 6))
    target, out = memory[:3, ::2], memory[:3, ::2][::-1]
    with pytest.raises(ValueError, match=r"out for the gradient of input overlaps target"):
        fl.mse_loss.grad(np.ones((3, 3)), target, out=liar(out))
    with pytest.raises(ValueError, match=r"overlaps another out"):
        fl.mse_loss.grad(
            np.ones((3, 3)),
            0 * np.ones((3, 3)),
            wrt=("input", "target"),
            out=(liar(target), liar(out)),
        )
    assert (memory == 1).all()


def test_an_out_cannot_lie_about_its_dtype():
    out = np.zeros(4, np.int64)
    with pytest.raises(TypeError, match=r"has dtype int64"):
        fl.mse_loss(np.ones(4), 0.0, reduction="none", out=liar(out, dtype=np.dtype(float)))
    assert not out.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_subclass_says_changes_nothing(loss):
    """Operands and outs of a lying subclass give the bits of plain arrays."""
    drawn = DrawnCase(case_of(loss), (12,), np.float64)
    lies = {"shape": (1,), "strides": (0,), "dtype": np.dtype(np.int8), "ndim": 1, "size": 1}
    others = drawn.with_arrays([liar(a, **lies) for a in drawn.arrays])
    values, outs = np.zeros_like(drawn.value()), [np.zeros_like(g) for g in drawn.grad()]
    returned = liar(values, **lies)
    options = {**others.keywords, "reduction": "none"}
    assert others.loss(*others.arrays, **options, out=returned) is returned
    assert np.array_equal(values, drawn.value(), equal_nan=True)
    options = {**others.keywords, "wrt": drawn.wrt, "reduction": "sum"}
    others.loss.grad(*others.arrays, **options, out=tuple(liar(out, **lies) for out in outs))
    for out, grad in zip(outs, drawn.grad(), strict=True):
        assert np.array_equal(out, grad, equal_nan=True)


def test_an_empty_out_of_a_subclass_is_filled_by_its_memory():
    for rows in (0, 3):
        out = liar(np.ones((rows, 0)))
        assert fl.mse_loss.grad(np.ones((rows, 0)), 0.0, out=out) is out
    out = np.ones((1, 4))
    var = np.ones((1, 4))
    fl.gaussian_nll_loss.grad(np.ones((0, 4)), np.ones((0, 4)), var, wrt="var", out=liar(out))
    assert not out.any()


class AnyName(str):
    """A string that equals every other one."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("grad_output")


def test_names_and_tuples_cannot_lie():
    x = np.ones(3)
    assert np.array_equal(fl.mse_loss.grad(x, 0 * x, wrt=AnyName("x")), fl.mse_loss.grad(x, 0 * x))

    class Short(tuple):
        def __len__(self):
            return 2

        def __iter__(self):
            return iter((np.zeros(3),))

    with pytest.raises(TypeError, match="out must be a tuple of 2 arrays"):
        fl.mse_loss.grad(x, 0 * x, wrt=("input", "target"), out=Short())
    with pytest.raises((TypeError, ValueError)):
        fl.mse_loss.grad(x, 0 * x, wrt=Short())


# ---- memory of errors ----------------------------------------------------------------------------


def peak_of(call):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="=") as error:
            call()
        return tracemalloc.get_traced_memory()[1], str(error.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("at", [(0, 0, 0), (7, 699, 63), (3, 350, 1)])
def test_the_error_for_a_negative_entry_takes_little_memory(at):
    x = np.zeros((8, 700, 64), np.float32)
    y, var = np.full_like(x, 1 / 700), np.ones((8, 1, 64), np.float32)
    y[at] = -0.25
    peak, message = peak_of(lambda: fl.cross_entropy(x, y))
    assert message.startswith(f"target[{', '.join(map(str, at))}] = -0.25")
    assert peak < x.nbytes // 4
    weight = np.ones((8, 700, 64))
    weight[at] = -0.5
    var[0, 0, 0] = -1 if at != (0, 0, 0) else 1
    weight[0, 0, 0] = 0 if at != (0, 0, 0) else -0.5
    peak, message = peak_of(lambda: fl.gaussian_nll_loss(x, x, var, sample_weight=weight))
    assert peak < x.nbytes // 4
    bad = (weight < 0) | ((np.broadcast_to(var, x.shape) < 0) & (weight != 0))
    first = np.unravel_index(bad.argmax(), bad.shape)
    name = "sample_weight" if weight[first] < 0 else "var"
    position = [int(i) for i in first]
    if name == "var":
        position[1] = 0
    assert message.startswith(f"{name}[{', '.join(map(str, position))}] = ")


def test_the_first_negative_entry_is_found_in_any_shape():
    rng = np.random.default_rng(3)
    shapes = ((200_000,), (3, 100_000), (100_000, 3), (2, 70_000, 2), (5, 4, 3), (1, 1, 90_000))
    for shape in shapes:
        for axis in range(len(shape)):
            for count in (1, 2, 1000):
                array, weight = np.ones(shape, np.float32), np.ones(shape)
                array.ravel()[rng.integers(0, array.size, count)] = -1
                weight.ravel()[rng.integers(0, array.size, count)] = rng.choice([0, -1, 1], count)
                in_weight, index = _arrays.first_negative(
                    np.moveaxis(array, axis, -1), np.moveaxis(weight, axis, -1), axis
                )
                bad = (weight < 0) | ((array < 0) & (weight != 0))
                if bad.any():
                    assert index == [int(i) for i in np.unravel_index(bad.argmax(), shape)]
                    assert in_weight == (weight[tuple(index)] < 0)
