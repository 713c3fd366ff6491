"""The process of one peer, which reads pickled requests from stdin and writes answers to stdout.

It may run in the interpreter of another environment, which then needs the peer and NumPy.
"""

import importlib
import os
import pickle
import signal
import statistics
import sys
import time
import timeit
from contextlib import contextmanager

from benchmarks import callers, pools

SAMPLE_SECONDS = 2e-4  # shorter calls are repeated, so that the clock does not matter


def samples(call, seconds):
    """Seconds per call, of as many samples as fit into `seconds`, but at least one."""
    end = time.perf_counter() + seconds
    number, elapsed = 1, timeit.timeit(call, number=1)  # brings the data back into the caches
    if elapsed >= seconds:
        return [elapsed]
    while elapsed < SAMPLE_SECONDS:
        number *= 2
        elapsed = timeit.timeit(call, number=number)
    times = []
    while not times or time.perf_counter() < end:
        times.append(timeit.timeit(call, number=number) / number)
    return times


def call_times(call, calls, period):
    """Seconds of each call, if they begin `period` seconds apart or, for 0, back to back."""
    times = []
    due = time.perf_counter()
    for _ in range(calls):
        due = max(due + period, time.perf_counter())
        if period:
            time.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def timed_calls(call, begin, end, period=0, before=None):
    """The starts and the seconds of the calls between two moments of `time.perf_counter`.

    They start `period` seconds apart or, for 0, back to back. Calls before `begin` warm up; at
    least one is recorded. `before` is called, untimed, ahead of each call.
    """
    starts, seconds = [], []
    due = time.perf_counter()
    while not starts or time.perf_counter() < end:
        if period:
            due = max(due + period, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
        if before is not None:
            before()
        start = time.perf_counter()
        call()
        if start >= begin:
            seconds.append(time.perf_counter() - start)
            starts.append(start)
    return starts, seconds


@contextmanager
def time_limit(seconds):
    """Raise a TimeoutError if the block takes longer; None is no limit."""
    if seconds is None:
        yield
        return

    def interrupt(*_):
        raise TimeoutError(f"its first call takes more than {seconds} s")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Worker:
    def __init__(self, peer, threads):
        self.peer = importlib.import_module(f"benchmarks.with_{peer}")
        self.version = self.peer.start(threads)
        self.threads = threads
        self.cell = None
        self.products = {}
        self.pool = None

    def use_one_thread(self):
        """Compute on one thread from now on, but for a forked child."""
        self.peer.start(1)

    def prepare(self, cell):
        self.products = {}  # frees the arrays of the last cell before new ones are allocated
        self.cell = cell
        arrays, options = cell.data()
        self.products = self.peer.products(cell, arrays, options)
        return list(self.products), cell.work(arrays)

    def result(self, product, seconds=None):
        """The result of the first call, which may compile; `seconds` limit it."""
        with time_limit(seconds):
            result = self.products[product]()
        return self.peer.numbers(result)

    def measure_round(self, products, seconds):
        """The median time of each product in one round."""
        time.sleep(0.03)  # until the threads of the previous peer stop spinning, and ours know it
        return [statistics.median(samples(self.products[name], seconds)) for name in products]

    def time_calls(self, product, calls, period):
        """Seconds of each call, after five calls to warm up."""
        call = self.products[product]
        call_times(call, 5, period)
        return call_times(call, calls, period)

    def timed_calls(self, product, begin, end, period=0):
        """The starts and the seconds of the calls between two moments."""
        return timed_calls(self.products[product], begin, end, period)

    def start_pool(self, name):
        """Call the operation of another library twice, which starts its threads."""
        self.pool = pools.POOLS[name]()
        self.pool()
        self.pool()

    def timed_calls_after_pool(self, product, begin, end):
        """As `timed_calls`, each call right after the operation of the other library."""
        return timed_calls(self.products[product], begin, end, before=self.pool)

    def time_callers(self, way, count, product, warm_up, seconds, folder):
        """Calls per second of several callers in this process, in one of `callers.WAYS`."""

        def new_call():
            """A call with arrays of its own."""
            return self.peer.products(self.cell, *self.cell.data())[product]

        start, threads = self.peer.start, self.threads
        job = callers.Job(new_call, count, warm_up, seconds, folder, start, threads)
        return callers.WAYS[way](job)


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which closes stdin
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of the libraries must not mix with the answers

    def answer(kind, content):
        pickle.dump((kind, content), answers, protocol=5)
        answers.flush()

    try:
        worker = Worker(sys.argv[1], int(sys.argv[2]))
    except ImportError as error:
        return answer("missing", str(error))
    answer("ok", worker.version)
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return None
        try:
            result = getattr(worker, name)(*arguments)
        except TimeoutError as error:
            answer("late", str(error))
        except ImportError as error:
            answer("missing", str(error))
        except Exception as error:
            words = next(iter(str(error).splitlines()), "")
            answer("error", f"{type(error).__name__}: {words[:200]}")
        else:
            answer("ok", result)


if __name__ == "__main__":
    main()
