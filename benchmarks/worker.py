"""One peer's process: reads pickled requests from standard input, answers on standard output.

Run as a file, by the interpreter of the peer's own environment: fastloss comes from there when it
is installed, else from beside this package.
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

SAMPLE = 2e-4  # seconds; shorter calls are repeated within a sample, to hide the clock's own cost


def samples(call, seconds):
    """Seconds per call: one number per sample, as many as fit."""
    end = time.perf_counter() + seconds
    number, took = 1, timeit.timeit(call, number=1)  # brings the data back into the caches
    if took >= seconds:
        return [took]
    while took < SAMPLE:
        number *= 2
        took = timeit.timeit(call, number=number)
    times = []
    while not times or time.perf_counter() < end:
        times.append(timeit.timeit(call, number=number) / number)
    return times


def each(call, calls, period):
    """Seconds of every one of so many calls that begin `period` seconds apart; 0: back to back."""
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


@contextmanager
def patience(seconds):
    """Raises `TimeoutError` if the block takes longer; None is no limit."""
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
        self.products = {}

    def prepare(self, cell):
        self.products = {}  # frees the last cell's arrays before the next are made
        arrays, options = cell.data()
        self.products = self.peer.products(cell, arrays, options)
        return list(self.products), cell.work(arrays)

    def result(self, product, seconds=None):
        """The result of the first call, which may compile; `seconds` limit it."""
        with patience(seconds):
            made = self.products[product]()
        return self.peer.numbers(made)

    def turn(self, products, seconds):
        """The median of each of these products in one turn."""
        time.sleep(0.005)  # the threads of the peer before stop spinning
        return [statistics.median(samples(self.products[name], seconds)) for name in products]

    def cadence(self, product, calls, period):
        call = self.products[product]
        each(call, 5, period)
        return each(call, calls, period)


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends this
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer

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
            made = getattr(worker, name)(*arguments)
        except TimeoutError as error:
            answer("late", str(error))
        except Exception as error:
            words = next(iter(str(error).splitlines()), "")
            answer("error", f"{type(error).__name__}: {words[:200]}")
        else:
            answer("ok", made)


if __name__ == "__main__":
    main()
