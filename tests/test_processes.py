"""Processes and threads: concurrent calls, fork, signals, environment, import and exit."""

import asyncio
import contextlib
import ctypes
import mmap
import os
import pickle
import platform
import re
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import fastloss as fl
from tests.cases import LOSSES

TIMEOUT = 120  # seconds; ends a test that hangs
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
signals = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def python(program, *options, env=None, args=()):
    """Runs a program in a fresh interpreter; returns its stdout."""
    result = start(program, *options, env=env, args=args)
    assert result.returncode == 0, result.stderr
    return result.stdout


# An exception in a thread would otherwise leave the status of the process as it is.
FAIL_WITH_THREADS = """
import os, threading, traceback

def fail(error):
    traceback.print_exception(error.exc_type, error.exc_value, error.exc_traceback)
    os._exit(1)

threading.excepthook = fail
"""


def start(program, *options, env=None, args=()):
    """Runs a program in a fresh interpreter without the variables that set threads. Its status is
    not 0 if a thread raises an exception."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("FASTLOSS_", "OMP_"))}
    environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    environ.update(env or {})
    program = FAIL_WITH_THREADS + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *options, "-c", program, *args],
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_an_exception_in_a_thread_of_a_program_is_seen():
    program = "import threading; threading.Thread(target=lambda: 1 / 0).start()"
    assert start(program).returncode == 1


# --- concurrent calls -----------------------------------------------------------------------------


def workload(seed=0, n=60_000):
    """Calls of several families and methods, large enough for several threads."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n)).astype(np.float32)
    p, q = rng.uniform(0.01, 0.99, size=(2, n))
    logits = rng.normal(size=(n // 10, 10)).astype(np.float32)
    labels = rng.integers(0, 10, n // 10)
    weight = rng.uniform(size=n // 10)
    return [
        lambda: fl.mse_loss(x, y),
        lambda: fl.huber_loss.value_and_grad(x, y, wrt=("input", "target")),
        lambda: fl.mse_loss.grad(x, np.float32(0.5), wrt="target"),
        lambda: fl.binary_cross_entropy.value_and_grad(p, q, reduction="none"),
        lambda: fl.gaussian_nll_loss.grad(x[:, None], y[:, None], np.ones((1, 1)), wrt="var"),
        lambda: fl.cross_entropy(logits, labels, sample_weight=weight),
        lambda: fl.cross_entropy.value_and_grad(logits, labels, label_smoothing=0.1),
        lambda: fl.nll_loss.grad(logits, labels),
        lambda: fl.kl_div.sums(p, q),
    ]


def bytes_of(result):
    if isinstance(result, tuple):
        return b"".join(map(bytes_of, result))
    return np.asarray(result).tobytes()


def in_threads(count, function):
    """The results of function(i) in `count` concurrent threads; re-raises their exceptions."""
    results, barrier = [None] * count, threading.Barrier(count)

    def run(i):
        barrier.wait()
        try:
            results[i] = function(i)
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_concurrent_calls_are_bitwise_identical():
    calls = workload()
    with fl.num_threads(1):
        expected = [bytes_of(call()) for call in calls]

    def run(i):
        order = np.random.default_rng(i).permutation(len(calls))
        with fl.num_threads(1 + i % 4):
            return [(k, bytes_of(calls[k]())) for _ in range(4) for k in order]

    for results in in_threads(8, run):
        for k, result in results:
            assert result == expected[k]


def test_calls_of_short_lived_threads():
    calls = workload()
    expected = bytes_of(calls[0]())
    for _ in range(20):

        def run(i):
            with fl.num_threads(2 + i):
                return bytes_of(calls[0]())

        assert in_threads(3, run) == [expected] * 3


def test_concurrent_errors_name_their_own_call():
    x = np.full(50_000, 0.5)

    def run(i):
        y = x.copy()
        y[1000 * i + i] = 2 + i
        for _ in range(20):
            with (
                fl.num_threads(2),
                pytest.raises(ValueError, match=rf"\[{1001 * i}\] = {2 + i}\.0 "),
            ):
                fl.binary_cross_entropy.grad(x, y)

    in_threads(8, run)


@pytest.fixture
def restored_threads():
    before, fixed = fl._binding.process_threads()
    yield
    fl.set_num_threads(before, fixed=fixed)


@pytest.mark.usefixtures("restored_threads")
def test_number_of_threads():
    fl.set_num_threads(3)
    assert fl.get_num_threads() == 3
    with fl.num_threads(2):
        assert fl.get_num_threads() == 2
        with fl.num_threads(5):
            assert fl.get_num_threads() == 5
        assert fl.get_num_threads() == 2
        # The context manager sets it for the calling thread alone.
        assert in_threads(2, lambda i: fl.get_num_threads()) == [3, 3]
        fl.set_num_threads(4)
        assert fl.get_num_threads() == 2
    assert fl.get_num_threads() == 4
    assert in_threads(1, lambda i: fl.get_num_threads()) == [4]


@pytest.mark.usefixtures("restored_threads")
def test_number_of_threads_is_per_thread():
    fl.set_num_threads(2)
    barrier = threading.Barrier(4)

    def run(i):
        with fl.num_threads(1 + i):
            barrier.wait()
            inside = fl.get_num_threads()
            barrier.wait()
        return inside, fl.get_num_threads()

    assert in_threads(4, run) == [(1 + i, 2) for i in range(4)]


@pytest.mark.usefixtures("restored_threads")
def test_number_of_threads_of_coroutines():
    fl.set_num_threads(2)
    x = np.ones(100_000)

    async def score(n, pauses):
        with fl.num_threads(n):
            for _ in range(pauses):
                assert fl.get_num_threads() == n
                fl.mse_loss(x, 0.0)
                await asyncio.sleep(0)
                assert fl.get_num_threads() == n
        assert fl.get_num_threads() == 2

    async def main():
        await asyncio.gather(*(score(1 + i % 5, 1 + i * 7 % 10) for i in range(20)))
        with fl.num_threads(3):  # tasks take over the block that started them
            await asyncio.gather(asyncio.create_task(started_in_a_block()))
            assert await asyncio.to_thread(fl.get_num_threads) == 3

    async def started_in_a_block():
        assert fl.get_num_threads() == 3

    asyncio.run(main())
    assert fl.get_num_threads() == 2


@pytest.mark.usefixtures("restored_threads")
def test_blocks_that_end_in_another_order():
    def block(n):
        with fl.num_threads(n):
            yield

    fl.set_num_threads(2)
    first, second, third = block(3), block(4), block(4)
    for generator, expected in [(first, 3), (second, 4), (third, 4)]:
        next(generator)
        assert fl.get_num_threads() == expected
    first.close()
    assert fl.get_num_threads() == 4
    third.close()
    assert fl.get_num_threads() == 4
    second.close()
    assert fl.get_num_threads() == 2


def test_number_of_threads_is_restored_after_an_error():
    before = fl.get_num_threads()
    with pytest.raises(ZeroDivisionError), fl.num_threads(before + 1):
        raise ZeroDivisionError
    assert fl.get_num_threads() == before


@pytest.mark.usefixtures("restored_threads")
def test_fixed_number_of_threads():
    def in_use():
        return fl.show_config("dicts")["threads in use"]

    fl.set_num_threads(3, fixed=True)
    assert fl._binding.effective_threads() == (3, True)
    assert in_use() == "3, fixed"
    with fl.num_threads(2):  # takes over the mode
        assert fl._binding.effective_threads() == (2, True)
        with fl.num_threads(4, fixed=False):
            assert fl._binding.effective_threads() == (4, False)
            assert in_use().startswith("up to 4")
            with fl.num_threads(5):
                assert fl._binding.effective_threads() == (5, False)
        assert fl._binding.effective_threads() == (2, True)
    with fl.num_threads(1):
        assert in_use() == "1"
    fl.set_num_threads(2)
    assert fl._binding.effective_threads() == (2, True)
    fl.set_num_threads(2, fixed=False)
    assert fl._binding.effective_threads() == (2, False)
    assert in_threads(1, lambda i: fl._binding.effective_threads()) == [(2, False)]


@pytest.mark.parametrize("fixed", [1, 0, "yes", np.True_, []])
def test_fixed_of_a_wrong_type(fixed):
    before = fl._binding.effective_threads()
    for function in (fl.set_num_threads, fl.num_threads):
        with pytest.raises(TypeError, match="fixed must be True, False or None, got"):
            function(2, fixed=fixed)
    assert fl._binding.effective_threads() == before


def test_reduced_number_of_threads_is_shown(monkeypatch):
    classes = [(0, 0, 0, 0), (65536, 1, 12, 11), (262144, 2, 3, 2), (1048576, 0, 1, 1)]
    monkeypatch.setattr(fl._binding, "team_classes", lambda: classes)
    with fl.num_threads(4, fixed=False):
        assert fl.show_config("dicts")["threads in use"] == (
            "up to 4; "
            "1 for 65,536 to 262,143 elements "
            "(larger teams lost time: reduced 12 times, tried again 11 times); "
            "2 for 262,144 to 1,048,575 elements "
            "(larger teams lost time: reduced 3 times, tried again 2 times)"
        )


def test_classes_of_regions():
    first = [elements for elements, *_ in fl._binding.team_classes()]
    assert first == [0, *(49152 * 4**i for i in range(len(first) - 1))]


@pytest.mark.parametrize("n", [0, -1, 1025, 2**31, 2**64])
def test_number_of_threads_out_of_range(n):
    before = fl.get_num_threads()
    for function in (fl.set_num_threads, fl.num_threads):
        with pytest.raises(ValueError, match="number of threads must be between 1 and 1024"):
            function(n)
    assert fl.get_num_threads() == before


@pytest.mark.parametrize("n", ["2", 2.0, None, [2]])
def test_number_of_threads_of_a_wrong_type(n):
    for function in (fl.set_num_threads, fl.num_threads):
        with pytest.raises(TypeError, match="number of threads must be an integer"):
            function(n)


@pytest.mark.usefixtures("restored_threads")
def test_threadpoolctl_limits_the_calling_thread():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if fl.show_config("dicts")["openmp"].startswith("none"):
        pytest.skip("built without OpenMP")
    calls = workload()
    expected = [bytes_of(call()) for call in calls]
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert fl.get_num_threads() == 1
        with fl.num_threads(4):
            assert fl.get_num_threads() == 1
        assert [bytes_of(call()) for call in calls] == expected


SMALL_STACK = """
import sys, threading
import numpy as np
import fastloss as fl

messages = []

def run():
    try:
        fl.mse_loss(np.ones(10), 0.0)
    except MemoryError as error:
        messages.append(str(error))

threading.stack_size(int(sys.argv[1]) << 10)
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(*messages)
"""


def test_small_stack_of_the_calling_thread():
    message = python(SMALL_STACK, args=["96"])
    assert re.fullmatch(
        r"the stack of the calling thread has \d\d KiB left and a loss needs 192 KiB: call "
        r"threading\.stack_size\(786432\) before the thread is created\n",
        message,
    )
    assert python(SMALL_STACK, args=["512"]) == "\n"


def test_small_stack_is_an_error_here(monkeypatch):
    errors = []

    def run():
        with pytest.raises(MemoryError, match="the stack of the calling thread has") as caught:
            fl.mse_loss(np.ones(10), 0.0)
        errors.append(caught.value)

    before = threading.stack_size(112 << 10)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(errors) == 1


def test_small_stacks_of_workers():
    program = (
        "import numpy as np, fastloss as fl; fl.set_num_threads(2); x = np.ones(1 << 20); "
        "print(fl.get_num_threads(), fl.mse_loss(x, 0.0)); "
        "print(fl.show_config('dicts')['threads set by'])"
    )
    for size in ("16k", "64", "65536B", " 100 K ", "0"):
        output = python(program, env={"OMP_STACKSIZE": size})
        if size == "0":
            continue  # what the runtime makes of it is its own affair
        assert output.startswith("1 1.0\nset_num_threads, lowered by"), (size, output)
    if not fl.show_config("dicts")["openmp"].startswith("none"):
        for size in ("1M", "256", "nonsense", "1G"):
            assert python(program, env={"OMP_STACKSIZE": size}) == "2 1.0\nset_num_threads\n"


# --- the GIL --------------------------------------------------------------------------------------


def test_calls_release_the_gil():
    x = np.broadcast_to(np.float32(1), 2**30)
    inside, done = threading.Event(), threading.Event()
    ticks = 0

    def count():
        nonlocal ticks
        inside.wait()
        while not done.is_set():
            ticks += 1
            time.sleep(0)  # releases the GIL

    thread = threading.Thread(target=count)
    thread.start()
    try:
        switching = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # the other thread runs only if the call releases the GIL
        inside.set()
        before = ticks
        fl.log_cosh_loss(x, np.float32(0), reduction="sum")
        during = ticks - before
    finally:
        sys.setswitchinterval(switching)
        done.set()
        thread.join()
    assert during > 0


# --- arrays that other threads change -------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint64])
@pytest.mark.rotate("dtype")
def test_labels_changed_during_calls(dtype, complete):
    """A label that becomes invalid after its check reads and writes no memory out of bounds."""
    n = 40_000
    logits = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    labels = np.zeros(n, dtype)
    weight = np.ones(5)
    done = threading.Event()

    def overwrite():
        largest = np.iinfo(dtype).max
        while not done.is_set():
            labels[:] = largest
            labels[:] = 4

    thread = threading.Thread(target=overwrite)
    thread.start()
    try:
        for i in range(200 if complete else 50):
            for loss in (fl.cross_entropy, fl.nll_loss):
                for method in (loss, loss.grad, loss.value_and_grad):
                    try:
                        with fl.num_threads(1 + i % 3):
                            method(logits, labels, weight)
                    except fl.ClassIndexError:
                        pass
    finally:
        done.set()
        thread.join()
    labels[:] = 4
    assert np.isfinite(fl.cross_entropy(logits, labels, weight))


def sequences():
    rng = np.random.default_rng(0)
    return [
        np.log(rng.dirichlet(np.ones(12), size=(40, 60))).astype(np.float32),
        rng.integers(1, 12, (60, 15)),
        np.full(60, 40),
        np.full(60, 15),
    ]


def rows(loss):
    """Arguments of a loss of rows, with valid targets."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 20)).astype(np.float32)
    if loss == "multilabel_margin_loss":
        return [x, np.where(np.arange(20) < 5, np.arange(20), -1)[None].repeat(3000, 0)]
    if loss == "cosine_embedding_loss":
        return [x, x[::-1].copy(), rng.choice([-1, 1], 3000)]
    if loss == "hinge_embedding_loss":
        return [x.ravel(), rng.choice([-1, 1], x.size)]
    return [x, rng.integers(0, 20, 3000)]


@pytest.mark.parametrize(
    ("loss", "changed"),
    [
        ("multi_margin_loss", 1),
        ("multilabel_margin_loss", 1),
        ("cosine_embedding_loss", 2),
        ("hinge_embedding_loss", 1),
        ("ctc_loss", 0),
        ("ctc_loss", 1),
        ("ctc_loss", 2),
        ("ctc_loss", 3),
        ("ctc_loss_with_logits", 1),
    ],
)
def test_arguments_changed_during_calls(loss, changed, complete):
    """The call ends with a result or an error, and the next one is right."""
    arrays = sequences() if loss.startswith("ctc") else rows(loss)
    function, victim = getattr(fl, loss), arrays[changed]
    valid = victim.copy()
    expected = bytes_of(function.value_and_grad(*arrays, reduction="none"))
    done = threading.Event()

    def overwrite():
        wrong = np.array([2**31 - 1, -(2**31), 0, 3, -1]).astype(victim.dtype)
        while not done.is_set():
            for value in wrong:
                victim[...] = value
                victim[...] = valid

    thread = threading.Thread(target=overwrite)
    thread.start()
    try:
        for i in range(300 if complete else 40):
            for method in (function, function.grad, function.value_and_grad):
                with fl.num_threads(1 + i % 3), contextlib.suppress(ValueError):
                    method(*arrays, reduction="none")
    finally:
        done.set()
        thread.join()
    victim[...] = valid
    assert bytes_of(function.value_and_grad(*arrays, reduction="none")) == expected


def test_weights_and_targets_changed_during_calls(complete):
    n = 40_000
    x, y, w = np.full(n, 0.25), np.ones(n), np.ones(n)
    done = threading.Event()

    def overwrite():
        while not done.is_set():
            y[:], w[:], x[:] = 7, 0, -3
            y[:], w[:], x[:] = -1, 1, 0.25

    thread = threading.Thread(target=overwrite)
    thread.start()
    try:
        for _ in range(200 if complete else 50):
            for loss in (fl.soft_margin_loss, fl.binary_cross_entropy, fl.kl_div):
                with contextlib.suppress(ValueError):
                    loss.value_and_grad(x, y, sample_weight=w)
    finally:
        done.set()
        thread.join()


# --- floating-point modes -------------------------------------------------------------------------

MXCSR = 0x1F80  # the default of the ABI
MODES = {
    "flush to zero": MXCSR | 0x8040,
    "upward": MXCSR | 0x4000,
    "toward zero": MXCSR | 0x6000,
}


@pytest.fixture(scope="module")
def mxcsr():
    """Machine code that gets and sets the floating-point mode of this thread, as libraries do."""
    if platform.machine().lower() not in ("x86_64", "amd64") or os.name != "posix":
        pytest.skip("needs x86-64")
    # The argument is in rdi. ldmxcsr [rdi]; ret and stmxcsr [rdi]; ret
    try:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        pytest.skip("the system forbids executable anonymous memory")
    page.write(b"\x0f\xae\x17\xc3".ljust(16, b"\x90") + b"\x0f\xae\x1f\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint32))
    load, store = function(address), function(address + 16)

    def get():
        value = ctypes.c_uint32()
        store(value)
        return value.value & ~0x3F  # without the sticky flags

    yield get, lambda value: load(ctypes.c_uint32(value))
    del page


def tiny():
    """Calls with results that are subnormal or depend on the rounding mode."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=50_000).astype(np.float32)
    denormal = np.array([1, 5, 9, 3]) * 5e-324
    small = np.full(40, 1e-41, np.float32)
    labels = np.arange(5000) % 10
    a, b = fl.MSELoss().accumulator(by="group"), fl.MSELoss().accumulator(by="group")
    a.update(x[:1000], 0.0, group=labels[:1000])
    b.update(x[:1000] * 1e-9, 0.1, group=labels[:1000])

    def merged():
        sums, groups = (a + b)._sums_and_groups()
        return tuple(part for total in (sums, *groups.values()) for part in total.to_tuple())

    return {
        "merged sums": merged,
        "sum": lambda: fl.l1_loss(denormal, 0.0, reduction="sum"),
        "mean": lambda: fl.l1_loss(denormal, 0.0),
        "mean of many": lambda: fl.mse_loss(x, np.float32(0)),
        "sums": lambda: fl.mse_loss.sums(x, np.float32(0), sample_weight=np.full(50_000, 0.1)),
        "values": lambda: fl.l1_loss(small, np.float32(0), reduction="none"),
        "gradient": lambda: fl.mse_loss.grad(x, np.float32(0)),
        "small gradient": lambda: fl.mse_loss.grad(small, np.float32(0), grad_output=0.3),
        "shared gradient": lambda: fl.mse_loss.grad(
            small, np.float32(0), wrt="target", reduction="sum"
        ),
        "shared gradient of many": lambda: fl.mse_loss.grad(x, np.float32(0), wrt="target"),
        "weighted": lambda: fl.mse_loss(
            denormal * 2.0**400, 0.0, sample_weight=[0.1, 1e-310, 1, 3]
        ),
        "classes": lambda: fl.cross_entropy(x.reshape(-1, 10), labels),
        "gradient of classes": lambda: fl.cross_entropy.grad(
            x.reshape(-1, 10), labels, grad_output=0.1, label_smoothing=0.3
        ),
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", tiny())
def test_floating_point_mode_of_the_caller(mxcsr, name, mode, threads):
    """It changes no result, and a call restores it."""
    get, set_ = mxcsr
    call = tiny()[name]
    expected = bytes_of(call())
    before = get()
    with fl.num_threads(threads):
        set_(MODES[mode])
        try:
            result = call()
            after = get()
        finally:
            set_(before)
    assert bytes_of(result) == expected
    assert after == MODES[mode]


# --- fork -----------------------------------------------------------------------------------------

FORK = """
    import faulthandler, os, sys, signal
    import numpy as np
    import fastloss as fl

    # An alarm, because the thread of faulthandler.dump_traceback_later does not survive a fork.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(100)
    x = np.random.default_rng(0).normal(size=200_000)
    logits, labels = x.reshape(-1, 10), np.arange(20_000) % 10

    def results():
        value, gradient = fl.cross_entropy.value_and_grad(logits, labels)
        return fl.mse_loss(x, 0.5).hex(), value.hex(), gradient.tobytes()

    def in_child(function):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            status = 1
            try:
                status = 0 if function() else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
"""


@forks
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_fork_after_threads(threads):
    python(
        FORK
        + f"""
    fl.set_num_threads({threads})
    expected = results()
    in_child(lambda: results() == expected)
    in_child(lambda: fl.get_num_threads() == ({threads} if {threads} == 1 else 1))
    assert results() == expected        # the parent still has its threads
    assert fl.get_num_threads() == {threads}
    """
    )


@forks
def test_fork_before_threads():
    python(
        FORK
        + """
    fl.set_num_threads(2)
    with fl.num_threads(1):
        expected = results()
    in_child(lambda: fl.get_num_threads() == 2 and results() == expected)
    in_child(lambda: in_child(lambda: results() == expected) is None and results() == expected)
    """
    )


@forks
def test_fork_from_a_thread_and_from_a_child():
    python(
        FORK
        + """
    import threading

    fl.set_num_threads(2)
    expected = results()

    def run():
        in_child(lambda: results() == expected)
        in_child(lambda: in_child(lambda: results() == expected) is None)

    for _ in range(3):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    """
    )


@forks
def test_fork_during_calls_of_other_threads():
    python(
        FORK
        + """
    import threading

    fl.set_num_threads(2)
    expected, done = results(), threading.Event()

    def run():
        while not done.is_set():
            results()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(lambda: results() == expected)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    """
    )


@forks
def test_ctrl_c_in_a_child_of_a_thread():
    python(
        FORK
        + """
    import threading

    def interrupted():
        signal.signal(signal.SIGVTALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)
        try:
            fl.mse_loss(np.broadcast_to(np.int8(1), 2**50), 0.5)
        except KeyboardInterrupt:
            return True

    ends = []
    thread = threading.Thread(target=lambda: ends.append(in_child(interrupted)))
    thread.start()
    thread.join()
    assert ends == [None]
    """
    )


POOL = """
import multiprocessing, sys
import numpy as np
import fastloss as fl

x = np.random.default_rng(0).normal(size=200_000)

def work(scale):
    return fl.mse_loss(scale * x, 0.5).hex()

if __name__ == "__main__":
    method, before = sys.argv[1:]
    fl.set_num_threads(2)
    if before == "after":
        fl.mse_loss(x, 0.5)
    scales = [1.0, 2.0, 3.0, 4.0] * 3
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map_async(work, scales).get(100)
    assert results == [work(scale) for scale in scales]
"""


@pytest.mark.parametrize("before", ["before", "after"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, method, before):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"multiprocessing has no {method} on this system")
    program = tmp_path / "pool.py"
    program.write_text(POOL)
    result = subprocess.run(
        [sys.executable, str(program), method, before],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_losses_pickle_to_themselves():
    for name in LOSSES:
        loss = getattr(fl, name)
        assert pickle.loads(pickle.dumps(loss)) is loss
        assert loss.__name__ == name
        assert loss.__doc__


# --- Ctrl-C ---------------------------------------------------------------------------------------

# Calls that would take days, on views of one element, which need no memory.
LONG = """
    import faulthandler, os, signal, sys, threading
    import numpy as np
    import fastloss as fl

    def view(value, *shape):
        return np.broadcast_to(value, shape)

    faulthandler.dump_traceback_later(90, exit=True)
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    try:
        {call}
        print("ran to the end")
    except KeyboardInterrupt:
        print("caught")
    with fl.num_threads(2):  # later calls are unaffected
        assert fl.mse_loss(np.full(10**5, 3.0), 1.0) == 4
"""


@pytest.mark.complete_only
@signals
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "call",
    [
        "fl.mse_loss(view(np.float32(1), 2**46), np.float32(2))",
        "fl.mse_loss.sums(view(np.float16(1), 2**20, 2**26), view(np.int8(2), 2**20, 2**26))",
        "fl.mse_loss.grad(view(np.float32(1), 2**46), np.float32(2), wrt='target')",
        "fl.binary_cross_entropy(view(np.float64(0.5), 2**46), view(np.uint8(1), 2**46))",
        "fl.gaussian_nll_loss.grad(view(1.0, 2**46), 0.0, view(1.0, 1), wrt='var')",
        "fl.mse_loss(view(1.0, 2**46), 0.0, sample_weight=view(np.float32(0.5), 2**46))",
        "fl.cross_entropy(view(np.float32(1), 2**44, 3), view(np.int8(1), 2**44))",
        "fl.nll_loss(view(np.float32(1), 2**30, 5, 2**12), view(np.int8(1), 2**30, 2**12))",
        "fl.cross_entropy(view(np.float32(1), 2**36, 1000), view(np.int16(1), 2**36))",
        "fl.cross_entropy(view(np.float32(1), 2**20, 2**24), view(np.int16(1), 2**20))",
    ],
)
def test_ctrl_c_ends_a_long_call(call, threads):
    output = python(LONG.format(call=call), env={"FASTLOSS_NUM_THREADS": str(threads)})
    assert output == "caught\n"


@signals
@pytest.mark.skipif(fl._binding.openmp_runtime() == "none", reason="a sequence is not split")
def test_ctrl_c_in_the_first_half_of_a_sequence():
    """The second half, which would write the gradient, does not begin."""
    python(
        """
        import signal
        import numpy as np
        import fastloss as fl

        frames, labels = 200_000, 8000
        x = np.broadcast_to(np.log(0.5), (frames, 1, 2))
        gradient = np.full(x.shape, 7.0)
        fl.set_num_threads(2, fixed=True)
        signal.signal(signal.SIGVTALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.1)  # of processor time
        try:
            fl.ctc_loss.grad(x, np.ones((1, labels), np.int64), frames, labels, out=gradient)
        except KeyboardInterrupt:
            assert (gradient == 7).all()
            raise SystemExit(0)
        raise SystemExit(1)
        """
    )


@signals
@pytest.mark.parametrize("rows", [1, 2])
def test_ctrl_c_inside_a_long_row(rows):
    """Also on a worker, whose row ends with the caller's."""
    python(
        f"""
        import signal
        import numpy as np
        import fastloss as fl

        classes = 2**22
        rng = np.random.default_rng(0)
        x = np.resize(rng.normal(size=classes), ({rows}, classes))
        labels = np.full(x.shape, -1, np.int32)
        labels[:, : classes // 2] = rng.permutation(classes)[: classes // 2]
        gradient = np.full(x.shape, 7.0)
        fl.set_num_threads({rows}, fixed=True)
        signal.signal(signal.SIGVTALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)  # of processor time
        try:
            fl.multilabel_margin_loss.grad(x, labels, out=gradient)
        except KeyboardInterrupt:
            assert (gradient == 7).all()
            assert fl.multilabel_margin_loss(x[:, :5], labels[:, :5] * 0 - 1) == 0
            raise SystemExit(0)
        raise SystemExit(1)
        """
    )


@signals
def test_handler_that_raises_nothing():
    python(
        """
        import signal, threading
        import numpy as np
        import fastloss as fl

        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        n = 2**27
        while not seen:
            assert fl.mse_loss(np.broadcast_to(np.float32(1), n), np.float32(2)) == 1
        """
    )


@signals
def test_handler_that_raises():
    python(
        """
        import signal
        import numpy as np
        import fastloss as fl

        class Stop(Exception):
            pass

        def handler(*_):
            raise Stop

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            fl.mse_loss(np.broadcast_to(np.float32(1), 2**46), np.float32(2))
        except Stop:
            raise SystemExit(0)
        raise SystemExit(1)
        """
    )


# --- the environment ------------------------------------------------------------------------------

CONFIG = "import fastloss as fl; print(fl.get_num_threads(), fl._binding.isa())"


def test_environment_sets_the_number_of_threads():
    for env, expected in [
        ({"FASTLOSS_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "3,2"}, "3"),
        ({"FASTLOSS_NUM_THREADS": "2", "OMP_NUM_THREADS": "5"}, "2"),
        ({"FASTLOSS_NUM_THREADS": "5", "OMP_NUM_THREADS": "1"}, None),
    ]:
        output = python(CONFIG, "-W", "error", env=env)
        if expected:
            assert output.split()[0] == expected


def test_environment_fixes_the_number_of_threads():
    program = "import fastloss as fl; print(*fl._binding.effective_threads())"
    for value, fixed in [("1", "True"), ("0", "False"), (None, "False")]:
        env = {"FASTLOSS_NUM_THREADS": "2"}  # the others of the environment are not passed on
        env |= {"FASTLOSS_FIXED_THREADS": value} if value else {}
        output = python(program, "-W", "error", env=env).split()
        assert output == (["2", fixed] if output[0] == "2" else ["1", fixed])


BAD = [
    "0",
    "-1",
    "two",
    "2.5",
    "1e9",
    "99999999999999999999",
    "nan",
    "\udcff",
    "٣",
    "1" * 5000,
    " ",
]


@pytest.mark.parametrize("value", BAD, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("variable", ["FASTLOSS_NUM_THREADS", "FASTLOSS_ISA"])
@pytest.mark.rotate("variable")
def test_invalid_variable_warns(variable, value):
    program = (
        "import fastloss as fl; assert fl.mse_loss(3.0, 1.0) == 4; print(fl.get_num_threads())"
    )
    result = start(program, env={variable: value})
    assert result.returncode == 0, result.stderr
    assert "RuntimeWarning" in result.stderr
    assert variable in result.stderr
    assert int(result.stdout) >= 1
    # With warnings as errors, the message is printed instead.
    result = start(program, "-W", "error", env={variable: value})
    assert result.returncode == 0, result.stderr
    assert variable in result.stderr


@pytest.mark.parametrize("value", ["", "2", "yes", "1" * 5000], ids=lambda value: value[:4])
def test_invalid_mode_warns(value):
    program = "import fastloss as fl; print(fl._binding.process_threads()[1])"
    result = start(program, env={"FASTLOSS_FIXED_THREADS": value})
    assert result.returncode == 0, result.stderr
    assert re.search("RuntimeWarning: FASTLOSS_FIXED_THREADS='.{0,44} is neither 0", result.stderr)
    assert result.stdout == "False\n"


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1,x"])
def test_invalid_variable_of_openmp(value):
    program = "import fastloss as fl; print(fl.get_num_threads())"
    for options in [(), ("-W", "error")]:
        result = start(program, *options, env={"OMP_NUM_THREADS": value})
        assert result.returncode == 0, result.stderr
        assert int(result.stdout) >= 1


def test_environment_caps_the_instruction_set():
    available = fl._binding.isas()
    for name in fl._binding.isas(built=True):
        used = python(CONFIG, "-W", "error", env={"FASTLOSS_ISA": name}).split()[1]
        assert used == (name if name in available else available[-1])
    assert python(CONFIG, "-W", "error").split()[1] == available[-1]


def test_build_for_another_processor(monkeypatch):
    monkeypatch.setattr(fl._binding, "isas", lambda built=False: ["avx512"] if built else [])
    with pytest.raises(ImportError, match=r"was built for avx512 .* without FASTLOSS_BUILD_ISAS"):
        fl._runtime._start()


@linux
def test_affinity_sets_the_number_of_threads():
    cpu = min(os.sched_getaffinity(0))
    output = python(
        f"import os; os.sched_setaffinity(0, [{cpu}]); import fastloss as fl; "
        "print(fl.get_num_threads())"
    )
    assert output == "1\n"


@linux
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
@pytest.mark.parametrize(
    "setting",
    ["OMP_PROC_BIND=true", "OMP_PROC_BIND=spread", "OMP_PLACES=cores", "OMP_PLACES=threads"],
)
def test_bound_threads_do_not_hide_processors(setting):
    program = "import fastloss as fl; print(fl.get_num_threads())"
    without_openmp = fl.show_config("dicts")["openmp"].startswith("none")
    expected = 1 if without_openmp else len(os.sched_getaffinity(0))
    assert int(python(program, env=dict([setting.split("=")]))) == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_processors_of_bound_threads():
    first = min(os.sched_getaffinity(0))
    program = "import fastloss as fl; print(fl.get_num_threads())"
    assert int(python(program, env={"GOMP_CPU_AFFINITY": str(first)})) == 1


THREADS_UNDER_A_LIMIT = """
import atexit, os, resource, sys, threading
import numpy as np
import fastloss as fl

fl.set_num_threads(int(sys.argv[2]), fixed=True)
x = np.ones(1 << 20, np.float32)
fl.mse_loss(x[:10], np.float32(0))
before = len(os.listdir("/proc/self/task"))
if sys.argv[1] == "tasks":
    os.setresuid(*3 * [50_000 + os.getpid() % 10_000])  # no process of another test
    tasks = before + int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
else:  # room for the arrays, but not for a stack of 8 MB
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (6 << 20), -1))
atexit.register(print, "exit")
for _ in range(3):
    print(fl.mse_loss(x, np.float32(0)), fl.mse_loss.grad(x, np.float32(0))[0] * x.size)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root can become a user without tasks"
)
@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 8])
@pytest.mark.parametrize("threads", [2, 4])
def test_workers_that_cannot_be_created(threads, room):
    output = python(THREADS_UNDER_A_LIMIT, args=["tasks", str(threads), str(room)])
    *results, tasks, last = output.split("\n")[:-1]
    assert results == ["1.0 2.0"] * 3
    assert min(room, 1) <= int(tasks) <= min(room, threads)  # one may be spare
    assert last == "exit"


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root can become a user without tasks"
)
def test_workers_that_cannot_be_created_again_after_a_fork():
    """The runtime ends the threads of a process that forks."""
    python(
        """
        import os, resource
        import numpy as np
        import fastloss as fl

        fl.set_num_threads(2, fixed=True)
        x = np.ones(1 << 20, np.float32)
        assert fl.mse_loss(x, np.float32(0)) == 1
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os.setresuid(*3 * [50_000 + os.getpid() % 10_000])
        tasks = len(os.listdir("/proc/self/task"))
        resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
        assert fl.mse_loss(x, np.float32(0)) == 1
        """
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_without_memory_for_their_stacks():
    output = python(THREADS_UNDER_A_LIMIT, args=["memory", "2"])
    assert output == "1.0 2.0\n" * 3 + "0\nexit\n"


def test_affinity_of_the_caller_is_unchanged():
    before = os.sched_getaffinity(0)
    for call in workload():
        with fl.num_threads(4):
            call()
    assert os.sched_getaffinity(0) == before


# --- the import -----------------------------------------------------------------------------------


def test_import_needs_no_optional_package():
    output = python("import sys, fastloss; print(' '.join(sys.modules))")
    top = {name.partition(".")[0] for name in output.split()}
    optional = {
        "tqdm", "torch", "sklearn", "scipy", "ml_dtypes", "dask", "matplotlib", "pandas",
        "threadpoolctl", "hypothesis", "joblib", "multiprocessing", "concurrent",
    }  # fmt: skip
    assert not top & optional
    assert "numpy" in top


def test_import_starts_no_thread_and_sets_no_handler():
    python(
        """
        import signal, threading
        import numpy
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
        import fastloss
        assert threading.active_count() == 1
        assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM))
        """
    )


@linux
def test_import_starts_no_native_thread():
    output = python(
        """
        import os
        import numpy
        before = len(os.listdir("/proc/self/task"))
        import fastloss
        print(len(os.listdir("/proc/self/task")) - before)
        """
    )
    assert output == "0\n"


def test_import_in_a_thread():
    python(
        """
        import threading

        def run():
            import numpy as np
            import fastloss as fl
            with fl.num_threads(2):
                assert fl.mse_loss(np.full(10**6, 3.0), 1.0) == 4

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        import fastloss as fl
        import numpy as np
        assert fl.mse_loss(np.full(10**6, 3.0), 1.0) == 4
        """
    )


def test_calls_at_exit():
    output = python(
        """
        import atexit, threading
        import numpy as np
        import fastloss as fl
        fl.set_num_threads(2)
        x = np.full(10**6, 3.0)
        fl.mse_loss(x, 1.0)
        atexit.register(lambda: print(fl.mse_loss(x, 1.0)))
        """
    )
    assert output == "4.0\n"


def test_exit_during_a_call_of_a_daemon_thread():
    python(
        """
        import threading, time
        import numpy as np
        import fastloss as fl
        x = np.broadcast_to(np.float32(1), 2**46)
        threading.Thread(target=lambda: fl.mse_loss(x, np.float32(0)), daemon=True).start()
        time.sleep(0.3)
        """
    )


OTHER_LIBRARY = """
#include <omp.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

int team(void)
{
    int n = 0;
#pragma omp parallel num_threads(2) reduction(+ : n)
    n += 1;
    return n;
}

void flush_to_zero(int threads)
{
#ifdef __x86_64__
#pragma omp parallel num_threads(threads)
    if (omp_get_thread_num() > 0)
        _mm_setcsr(_mm_getcsr() | 0x8040);
#endif
}
"""


@pytest.fixture
def other_library(tmp_path):
    """The path of another library that uses the same OpenMP runtime."""
    if "libgomp" not in fl._binding.openmp_runtime():
        pytest.skip("built without libgomp")
    (tmp_path / "other.c").write_text(OTHER_LIBRARY)
    library = tmp_path / "other.so"
    command = ["gcc", "-shared", "-fPIC", "-fopenmp", tmp_path / "other.c", "-o", library]
    subprocess.run(command, check=True)
    return str(library)


@linux
@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86-64")
def test_floating_point_mode_of_workers(other_library):
    """Another library's mode in threads that the runtime lends to both changes no result."""
    python(
        f"""
        import ctypes
        import numpy as np
        import fastloss as fl
        other = ctypes.CDLL({other_library!r})
        small = np.full(1 << 20, 1e-41, np.float32)
        with fl.num_threads(1):
            expected = fl.l1_loss(small, np.float32(0), reduction="none").tobytes()
        with fl.num_threads(4, fixed=True):
            for _ in range(50):
                other.flush_to_zero(4)
                values = fl.l1_loss(small, np.float32(0), reduction="none")
                assert values.tobytes() == expected
        """
    )


@linux
@forks
def test_fork_after_threads_of_another_library(other_library):
    """Threads that another library started in the same OpenMP runtime do not survive a fork."""
    program = f"""
        import ctypes, os, signal
        import numpy as np
        import fastloss as fl
        assert ctypes.CDLL({other_library!r}).team() == 2
        x = np.ones(1 << 20, np.float32)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            os._exit(0 if fl.mse_loss(x, 0.0) == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert fl.mse_loss(x, 0.0) == 1
    """
    python(program)
